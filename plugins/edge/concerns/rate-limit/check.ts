/** The checks of `edge.rateLimit`. */
import type { Checked } from '../../../../config/concern.ts'
import { canonicalName } from '../../../../config/header-names.ts'
import type { AnyLimit, RateLimitOptions } from './options.ts'
import { counterOf, isCeiling, limitsOf, sourcesOf } from './options.ts'
import { checkNodes, checkUnused, checkWindows } from './unused.ts'

const isHeader = (source: string) => source.startsWith('header:')

/** Checks that limits with one name share their counters, and that the number of nodes is used. */
export function* checkAllLimits(checked: Checked): Generator<void> {
  const { data, report } = checked
  if (!report.usable('/routes')) return
  const all: unknown[] = [report.usable('/edge') && data.edge.rateLimit]
  const places = new Map<string, { readonly at: string; readonly id: string; readonly section: string }[]>()
  const collect = (options: unknown, section: string) => {
    const at = `${section}/edge/rateLimit`
    if (typeof options !== 'object' || options === null || !report.sound(at)) return
    for (const [index, limit] of limitsOf(options as RateLimitOptions).entries()) {
      if (limit.name === undefined) continue
      const found = places.get(limit.name) ?? []
      found.push({ at: Array.isArray(options) ? `${at}/${index}` : at, id: counterOf(limit), section })
      places.set(limit.name, found)
    }
  }
  if (report.usable('/edge')) collect(data.edge.rateLimit, '')
  for (const [index, route] of data.routes.entries()) {
    yield
    const section = `/routes/${index}`
    if (!report.usable(section) || !report.usable(`${section}/edge`)) continue
    all.push(route.edge?.rateLimit)
    collect(route.edge?.rateLimit, section)
  }
  checkNodes(all, checked)
  for (const [name, found] of places) {
    if (found.every(({ section }) => section === found[0]!.section)) continue
    const sections = Map.groupBy(found, ({ id }) => id)
    for (const { at, id, section } of found) {
      if (section === '' || sections.get(id)!.length > 1) continue
      const what = `no other limit with the name "${name}" has the same by, window, algorithm and store, so it shares no counters`
      report.warn(`${at}/name`, what)
    }
  }
}

export function checkRateLimit(options: RateLimitOptions, at: string, checked: Checked): void {
  if (!Array.isArray(options)) {
    checkLimit(options, at, checked)
    return
  }
  const seen = new Map<string, number>()
  for (const [index, limit] of options.entries()) {
    const place = `${at}/${index}`
    checkLimit(limit, place, checked)
    if (!checked.report.sound(place)) continue
    const id = counterOf(limit)
    const same = seen.get(id)
    if (same === undefined) seen.set(id, index)
    else checked.report.fault(place, `counts the same requests as number ${same + 1} of the list; remove one of them`)
  }
  checkWindows(options, at, checked)
}

/** Longest window of a limit in memory without a warning: a gateway restarts now and then. */
const longestInMemory = 24 * 3_600_000

function checkLimit(limit: AnyLimit, at: string, checked: Checked): void {
  const { data, report } = checked
  if (!report.sound(at)) return
  checkUnused(limit, at, checked)
  if (limit.share === true) {
    if (!isCeiling(limit) && limit.store === 'redis') {
      report.fault(`${at}/share`, 'has no effect with store: redis, which counts for all nodes', 'key')
    } else if (report.usable('/edge') && data.edge.gatewayNodes === undefined) {
      report.fault(`${at}/share`, 'needs edge.gatewayNodes, the number of nodes or their service')
    } else if (report.usable('/edge') && typeof data.edge.gatewayNodes === 'number') {
      const nodes = data.edge.gatewayNodes
      const [key, most] = isCeiling(limit) ? ['maxConcurrent', limit.maxConcurrent] : ['max', limit.max]
      const what = `each node allows at least 1, so ${nodes} nodes (edge.gatewayNodes) allow ${nodes} together`
      if (most < nodes) report.warn(`${at}/${key}`, what)
    }
  }
  if (isCeiling(limit)) return
  const { by, max, burst, cost = 1, maxPerAddress, store, algorithm, lease = 0 } = limit
  const sources = sourcesOf(by)
  const byHeader = sources.some(isHeader)
  if (byHeader && maxPerAddress === undefined) {
    const what = 'a client that changes this header with each request has no limit; set maxPerAddress as well'
    report.warn(`${at}/by`, what)
  } else if (!byHeader && maxPerAddress !== undefined) {
    const what = `has an effect only with by: header:NAME; this limit is by: ${sources.join(', ')}`
    report.fault(`${at}/maxPerAddress`, what, 'key')
  }
  if (sources.some((source) => isHeader(source) && canonicalName(source.slice('header:'.length)) === 'cookie')) {
    report.fault(
      `${at}/by`,
      'the Cookie header holds all cookies in any order, so one client may send many values; choose another header'
    )
  }
  if (burst !== undefined && algorithm !== 'token-bucket') {
    report.fault(`${at}/burst`, 'has an effect only with algorithm: token-bucket', 'key')
  }
  const most = Math.min(burst ?? max, maxPerAddress ?? max)
  if (cost > most) report.fault(`${at}/cost`, `no request can ever pass: at most ${most} can be used at once`)
  for (const key of ['onFailure', 'lease'] as const) {
    if (limit[key] === undefined || store === 'redis') continue
    report.fault(`${at}/${key}`, 'has an effect only with store: redis', 'key')
  }
  if (store === 'memory' && limit.window > longestInMemory) {
    report.warn(`${at}/window`, 'a restart of the gateway ends the counters in memory; store: redis keeps them')
  }
  if (lease > (burst ?? max)) report.fault(`${at}/lease`, `is more than the limit, which is ${burst ?? max}`)
  if (limit.keepCostHeader !== undefined && limit.costHeader === undefined) {
    report.fault(`${at}/keepCostHeader`, 'has an effect only with costHeader', 'key')
  }
  if (store === 'redis' && data.redis === undefined) {
    report.fault(`${at}/store`, 'needs the top-level "redis", which is not set')
  }
}
