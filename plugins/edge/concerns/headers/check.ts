/** The checks of `edge.headers`. */
import type { Checked } from '../../../../config/concern.ts'
import { perRequestHeaders } from '../../../../config/declared.ts'
import { pointer } from '../../../../config/faults.ts'
import { canonicalName, isConnectionHeader, isGatewayHeader } from '../../../../config/header-names.ts'
import type { EdgePolicy } from '../../../../config/schema.ts'
import { isComposed } from '../../../../config/targets.ts'
import { token } from '../../../http-syntax.ts'
import { fieldValue } from '../../bridge/response-fields.ts'
import { checkParams, checkTemplate, warnOfForwarding } from '../../templates/check.ts'
import { warnOfIdleRules } from '../../templates/idle-rules.ts'
import { isIdentity, sourcesIn } from '../../templates/source.ts'
import type { HeaderRules, HeadersOptions } from './options.ts'
import { entriesOf, valued } from './options.ts'

type Direction = 'request' | 'response'

/** A header in a rule, with its place. `isWritten`: the rule gives it a value. */
interface Use {
  readonly name: string
  readonly at: string
  readonly isWritten: boolean
  readonly operation: keyof HeaderRules
}

function usesOf(rules: HeaderRules, at: string): Use[] {
  const listed = (['only', 'remove'] as const).flatMap((operation) =>
    (rules[operation] ?? []).map((name, index) => ({
      name,
      at: pointer(at, operation, index),
      isWritten: false,
      operation
    }))
  )
  const renamed = Object.entries(rules.rename ?? {}).flatMap(([from, to]) => [
    { name: from, at: pointer(at, 'rename', from), isWritten: false, operation: 'rename' as const },
    { name: to, at: pointer(at, 'rename', from), isWritten: true, operation: 'rename' as const }
  ])
  const written = valued.flatMap((operation) =>
    Object.keys(rules[operation] ?? {}).map((name) => ({
      name,
      at: pointer(at, operation, name),
      isWritten: true,
      operation
    }))
  )
  return [...listed, ...renamed, ...written]
}

export function checkHeaders(options: HeadersOptions, at: string, checked: Checked): void {
  const { report } = checked
  if (!report.sound(at)) return
  if (options.request === undefined && options.response === undefined) {
    report.fault(at, 'changes nothing: write "request" or "response"')
  }
  for (const direction of ['request', 'response'] as const) {
    const rules = options[direction]
    if (rules !== undefined) checkRules(rules, pointer(at, direction), direction, checked)
  }
}

function checkRules(rules: HeaderRules, at: string, direction: Direction, checked: Checked): void {
  const { data, keys, report } = checked
  const sound = keys.edge.filter(({ name }) => report.sound(`/edge/${name}`))
  const taken = direction === 'request' ? perRequestHeaders(sound, data.edge).map(canonicalName) : []
  const seen = new Map<string, string>()
  for (const use of usesOf(rules, at)) {
    const { name, at: place } = use
    const fault = nameFault(use, direction, taken)
    if (fault !== null) {
      report.fault(place, fault, 'key')
      continue
    }
    if (use.operation === 'only' || use.operation === 'remove') continue
    if (direction === 'request' && use.operation === 'rename' && !use.isWritten) warnOfForwarding(place, name, checked)
    const { [name]: renamed } = rules.rename ?? {}
    if (use.operation === 'rename' && !use.isWritten && renamed?.toLowerCase() === name.toLowerCase())
      report.fault(place, 'changes nothing: both names are the same', 'key')
    const id = `${use.operation}${use.isWritten} ${canonicalName(name)}`
    const before = seen.get(id)
    if (before !== undefined) report.fault(place, `"${use.operation}" has "${before}" already`, 'key')
    seen.set(id, name)
  }
  const canonical = direction === 'request' ? canonicalName : (name: string) => name.toLowerCase()
  warnOfIdleRules(rules, at, { canonical, isStrict: false }, report)
  for (const operation of valued) {
    for (const [name, values] of entriesOf(rules[operation])) {
      const isList = Array.isArray(rules[operation]?.[name])
      values.forEach((text, index) => {
        const place = isList ? pointer(at, operation, name, index) : pointer(at, operation, name)
        checkTemplate(place, text, direction === 'response', literalFault, checked)
      })
      if (direction === 'response' || operation === 'set' || !values.flatMap(sourcesIn).some(isIdentity)) continue
      const what = `clients could send values of "${name}" themselves`
      report.fault(pointer(at, operation, name), `${what}; write it under "set", which replaces these`, 'key')
    }
  }
}

/** Text that a header cannot have. */
const literalFault = (text: string): string | null => {
  if (fieldValue.test(text)) return null
  const isControl = [...text].some((character) => character < ' ' || character === '\x7f')
  return `a header cannot carry ${isControl ? 'line breaks and control characters' : 'characters beyond Latin-1'}`
}

/** Returns why a rule cannot have a header; null if it can. */
function nameFault({ name, isWritten, operation }: Use, direction: Direction, taken: readonly string[]): string | null {
  const lower = name.toLowerCase()
  if (!token.test(name) || lower in {}) return `"${name}" is not a header name`
  // A list without the fields of the gateway changes nothing.
  if (operation === 'only') return null
  if (canonicalName(name) === 'host' && direction === 'request')
    return 'write edge.host: NAME for the Host of the service'
  if (isConnectionHeader(name)) return `"${name}" belongs to the connection, and the gateway sets it itself`
  if (lower === 'content-encoding') return `"${name}" describes the bytes of the body, which these rules do not change`
  if (lower.startsWith('sec-websocket-')) return `"${name}" belongs to the handshake of a WebSocket`
  if (lower.startsWith('x-jingwei-')) return `"${name}" is a header of the gateway itself`
  if (direction === 'response') return null
  if (isGatewayHeader(name)) {
    return `"${name}" is set by the gateway itself; for that of a proxy before it, write listen.trustProxy`
  }
  if (taken.includes(canonicalName(name))) return `"${name}" is set by the gateway for each request`
  if (isWritten && lower === 'cookie' && operation !== 'set')
    return 'a request has one Cookie field; write edge.cookies'
  return null
}

/** Checks the rules with the routes on which they are in force. */
export function checkRoutes(checked: Checked): void {
  const { data, keys, report } = checked
  if (!report.usable('/routes') || !report.usable('/edge')) return
  const reported = new Set<string>()
  data.routes.forEach((route, index) => {
    const at = pointer('/routes', index)
    if (!report.usable(at) || !report.usable(`${at}/edge`) || !report.sound(`${at}/match`)) return
    const own: EdgePolicy = route.edge ?? {}
    const isOwn = own.headers !== undefined
    const place = isOwn ? `${at}/edge/headers` : '/edge/headers'
    const policy: EdgePolicy = { ...data.edge, ...own }
    const { headers } = policy
    if (!headers || !report.sound(place)) return
    for (const direction of ['request', 'response'] as const) {
      const rules = headers[direction]
      if (rules === undefined) continue
      const below = `${place}/${direction}`
      if (isOwn) {
        for (const operation of valued) {
          for (const [name, values] of entriesOf(rules[operation])) {
            for (const text of values) checkParams(pointer(below, operation, name), text, route, checked)
          }
        }
      }
      if (direction === 'request' && isComposed(route) && isOwn) {
        for (const key of ['only', 'remove', 'rename'] as const) {
          if (rules[key] === undefined) continue
          report.warn(`${below}/${key}`, "has no effect with compose: services get none of the client's headers", 'key')
        }
      }
      if (direction === 'response') checkOwners(rules, below, policy, reported, checked)
    }
  })

  /** Reports headers that another concern of the route sets in place of the service. */
  function checkOwners(rules: HeaderRules, at: string, policy: EdgePolicy, known: Set<string>, { report }: Checked) {
    const owners = keys.edge.filter(({ name, ownsHeaders }) => ownsHeaders && Reflect.get(policy, name))
    // Responses differ by origin, unless all origins get the same.
    const hasOrigins = owners.some(
      ({ name, ownsHeaders }) =>
        ownsHeaders!.includes('access-control-') && Reflect.get(Object(Reflect.get(policy, name)), 'origin') !== '*'
    )
    for (const use of usesOf(rules, at)) {
      if (use.operation === 'only' || known.has(use.at)) continue
      if (hasOrigins && use.name.toLowerCase() === 'vary' && use.operation !== 'append' && use.operation !== 'add') {
        known.add(use.at)
        report.warn(
          use.at,
          'without "Vary: Origin" of edge.cors, caches may give one page the response to another',
          'key'
        )
      }
      const owner = owners.find(({ ownsHeaders }) =>
        ownsHeaders!.some((each) => use.name.toLowerCase().startsWith(each))
      )
      if (owner === undefined) continue
      known.add(use.at)
      report.fault(use.at, `"${use.name}" is set by edge.${owner.name}; change it there`, 'key')
    }
  }
}
