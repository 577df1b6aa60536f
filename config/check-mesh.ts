/** The checks of a mesh policy, at whichever of the three levels it is written. */
import type { Static } from 'typebox'
import type { Checked } from './checked.ts'
import { checkPem } from './checked.ts'
import { pointer } from './faults.ts'
import { didYouMean } from './nearest.ts'
import type { Mesh } from './schema/mesh.ts'

/** What is written of one; a route's has fewer concerns. */
type Policy = Partial<Static<typeof Mesh>>
type FallbackEntry = Exclude<Policy['fallback'], false | undefined>[number]
/** `service` is the one whose policy it is, or null where it is that of many. */
type Check = (at: string, policy: Policy, checked: Checked, service: string | null) => void

export const checkPolicy: Check = (at, policy, checked, service) => {
  for (const [concern, check] of Object.entries(checks)) {
    const place = `${at}/${concern}`
    if (Reflect.get(policy, concern) && checked.report.sound(place)) check(place, policy, checked, service)
  }
}

const balance: Check = (at, { balance }, { report }) => {
  const written = typeof balance === 'object' ? balance : { policy: balance ?? '' }
  const none = { hashOn: undefined, cookieTtl: undefined, maxLoad: undefined, tableSize: 2 }
  const { policy, hashOn, cookieTtl, maxLoad, tableSize } = { ...none, ...written }
  const hashes = policy === 'ring-hash' || policy === 'maglev'
  if (hashes && hashOn === undefined) report.fault(at, `${policy} needs hashOn: what of a call is hashed`)
  if (!hashes && hashOn !== undefined) {
    report.fault(`${at}/hashOn`, `${policy} hashes nothing; ring-hash and maglev do`, 'key')
  }
  if (cookieTtl !== undefined && !hashOn?.startsWith('cookie:')) {
    report.fault(`${at}/cookieTtl`, 'only a cookie that is hashed on can be given: hashOn: cookie:NAME', 'key')
  }
  if (!hashes && maxLoad !== undefined) {
    report.fault(`${at}/maxLoad`, `${policy} hashes nothing; ring-hash and maglev do`, 'key')
  } else if (maxLoad !== undefined && maxLoad < 1) {
    report.fault(`${at}/maxLoad`, 'below 100% not even an even load would fit')
  }
  if (!isPrime(tableSize)) report.fault(`${at}/tableSize`, `${tableSize} is not a prime; 65537 and 655373 are`)
}

function isPrime(number: number): boolean {
  for (let divisor = 2; divisor * divisor <= number; divisor++) if (number % divisor === 0) return false
  return number > 1
}

const healthCheck: Check = (at, { healthCheck }, { report }) => {
  if (!healthCheck) return
  healthCheck.statuses.forEach((item, index) => {
    const [low = '', high = ''] = String(item).split('-')
    if (high !== '' && low > high) report.fault(pointer(at, 'statuses', index), 'the range ends before it begins')
  })
}

const outlierDetection: Check = (at, { outlierDetection: options }, { report }) => {
  if (options && options.baseEjection > options.maxEjection) {
    report.fault(at, 'baseEjection is longer than maxEjection, which no ejection exceeds')
  }
}

const adaptiveConcurrency: Check = (at, { adaptiveConcurrency: options }, { report }) => {
  if (!options || (options.minLimit <= options.initialLimit && options.initialLimit <= options.maxLimit)) return
  report.fault(at, 'minLimit, initialLimit and maxLimit must be in this order')
}

const tls: Check = (at, { tls }, checked) => {
  if (!tls) return
  if ((tls.cert === undefined) !== (tls.key === undefined)) {
    checked.report.fault(at, 'a client certificate needs cert and key')
  }
  for (const key of ['ca', 'cert', 'key'] as const) checkPem(at, key, tls[key], checked)
}

const hedge: Check = (at, { hedge }, { report }) => {
  if (hedge && (hedge.after === undefined) === (hedge.percentile === undefined)) {
    report.fault(at, 'a hedge starts either after a time or at a percentile: exactly one of "after" and "percentile"')
  }
}

const collapse: Check = (at, { collapse }, { report }) => {
  if (typeof collapse === 'object') checkExcluded(`${at}/excludeHeaders`, collapse.excludeHeaders, report)
}

/** Headers that always make requests different: they name the caller, the resource, or a part or version of it. */
const essential = /^(host|authorization|proxy-authorization|cookie|range|if-.*)$/i

function checkExcluded(at: string, names: readonly string[], report: Checked['report']): void {
  names.forEach((name, index) => {
    if (essential.test(name)) report.fault(pointer(at, index), `requests that differ in ${name} never share a response`)
  })
}

const fallback: Check = (at, { fallback }, checked, service) => {
  if (!fallback) return
  fallback.forEach((entry, index) => {
    const place = pointer(at, index)
    const kinds = (['service', 'stale', 'status'] as const).filter((kind) => entry[kind] !== undefined)
    const { report } = checked
    if (kinds.length !== 1) {
      const found = kinds.length === 0 ? 'none of them' : kinds.join(' and ')
      report.fault(place, `a fallback is exactly one of service, stale and status; this one has ${found}`)
    }
    for (const part of ['headers', 'body'] as const) {
      if (entry[part] === undefined || entry.status !== undefined) continue
      report.fault(`${place}/${part}`, 'only a static response has it; that needs a "status"', 'key')
    }
    if (entry.stale !== undefined) checkExcluded(`${place}/stale/excludeHeaders`, entry.stale.excludeHeaders, report)
    checkAnswer(place, entry, report)
    if (entry.service !== undefined) checkOther(`${place}/service`, entry.service, service, checked)
  })
}

/** What could not be written would be found out when the fallback is needed. */
function checkAnswer(at: string, { status, headers = {}, body }: FallbackEntry, report: Checked['report']): void {
  for (const [name, value] of Object.entries(headers)) {
    const place = pointer(at, 'headers', name)
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) report.fault(place, `"${name}" is no name of a header`, 'key')
    else if (!/^[\t\x20-\x7e\x80-\xff]*$/.test(value)) {
      report.fault(place, 'a header holds no line breaks and no characters beyond Latin-1')
    }
  }
  if ((status === 204 || status === 304) && body) report.fault(`${at}/body`, `a ${status} has no body`, 'key')
}

const mirror: Check = (at, { mirror }, checked, service) => {
  if (mirror) checkOther(`${at}/service`, mirror.service, service, checked)
}

/** Another service that is to be called: it must be known, and be another. */
function checkOther(at: string, name: string, service: string | null, { data, report }: Checked): void {
  if (!report.usable('/services')) return
  if (name === service) report.fault(at, `"${name}" is the service itself`)
  else if (!Object.hasOwn(data.services, name)) {
    report.fault(at, `unknown service "${name}"${didYouMean(name, Object.keys(data.services))}`)
  }
}

const fault: Check = (at, { fault }, { report }) => {
  if (fault && !fault.delay && !fault.abort && !fault.bandwidth && !fault.header) {
    report.fault(at, 'names no fault: delay, abort, bandwidth or header: true')
  }
}

const mode: Check = (at, { mode }, { data, report }, service) => {
  if (mode === 'sidecar' && service !== null && report.usable(`/services/${service}`)) {
    if (data.services[service]?.sidecar !== undefined) return
    report.fault(at, `services.${service}.sidecar must say which local listener leads to it`)
  }
  if (mode === 'connect') needsConsul(at, data, report)
}

const intentions: Check = (at, _policy, { data, report }) => needsConsul(at, data, report)

function needsConsul(at: string, data: Checked['data'], report: Checked['report']): void {
  if (!report.usable('/discovery') || !report.usable('/mesh')) return
  if (data.discovery.consul === undefined) report.fault(at, 'needs discovery.consul')
  if (data.mesh.identity === undefined) {
    report.fault(at, 'needs mesh.identity.service: the Consul service that the gateway speaks as')
  }
}

const checks: Readonly<Record<string, Check>> = {
  balance, healthCheck, outlierDetection, adaptiveConcurrency, tls, hedge, collapse, fallback, mirror, fault, mode, intentions
} // biome-ignore format: a list
