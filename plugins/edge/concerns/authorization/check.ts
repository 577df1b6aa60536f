/** Faults of rules: malformed conditions, and rules that can never match or never matter. */
import type { Checked } from '../../../../config/concern.ts'
import { expressionFault } from '../../../../config/expressions.ts'
import { pointer } from '../../../../config/faults.ts'
import { canonicalName, forwardingHeaders, isConnectionHeader } from '../../../../config/header-names.ts'
import { warnOfUnknown } from '../../consumers/unknown.ts'
import { AddressList, checkedRanges } from '../../protocol/address-list.ts'
import { isZone, minuteOf } from './hours.ts'
import type { AuthorizationOptions, FieldValue, RuleOptions } from './options.ts'
import { covers, matches, pathFault, pathPattern, segmentsOf } from './paths.ts'

export function checkAuthorization(options: AuthorizationOptions, at: string, checked: Checked): void {
  const { report } = checked
  if (!report.sound(at)) return
  const { rules } = options
  for (const [index, rule] of rules.entries()) checkRule(rule, pointer(at, 'rules', index), checked)
  if (report.sound(at)) checkOrder(options, at, checked)
}

const conditionsOf = ({ name: _name, action: _action, ...conditions }: RuleOptions) => conditions

function checkRule(rule: RuleOptions, at: string, checked: Checked): void {
  const { report, data } = checked
  const { groups, consumers } = rule
  warnOfUnknown({ groups }, 'group', at, checked)
  warnOfUnknown({ consumers }, 'consumer', at, checked)
  if (Object.keys(conditionsOf(rule)).length === 0) {
    report.fault(at, 'has no condition, so it decides all requests; write its action as "default"')
  }
  rule.paths?.forEach((path, index) => {
    const fault = pathFault(path)
    if (fault !== null) report.fault(pointer(at, 'paths', index), fault)
  })
  checkedRanges(rule.addresses ?? [], `${at}/addresses`, report)
  for (const [name, value] of Object.entries(rule.headers ?? {})) checkField(name, value, at, report)
  if (rule.time !== undefined) {
    const { from, to, zone } = rule.time
    if (!isZone(zone)) report.fault(`${at}/time`, `"${zone}" is no time zone; write one such as Europe/Berlin`)
    if (minuteOf(from) % 1440 === minuteOf(to) % 1440 && (from === to || from !== '00:00')) {
      report.fault(`${at}/time`, `from ${from} to ${to} is no time`)
    }
  }
  const route = /^\/routes\/(\d+)\//.exec(at)?.[1]
  if (route === undefined || !report.sound(`/routes/${route}/match`)) return
  checkMatch(rule, at, data.routes[Number(route)]!.match, report)
}

const forwarded: ReadonlySet<string> = new Set(forwardingHeaders)

function checkField(name: string, value: FieldValue, at: string, report: Checked['report']): void {
  const place = pointer(at, 'headers', name)
  if (forwarded.has(canonicalName(name))) {
    report.fault(place, 'clients can send any value of this header; write "addresses" for their address')
  } else if (isConnectionHeader(name)) report.fault(place, 'belongs to the connection; rules cannot be about it')
  if (typeof value === 'boolean') return
  for (const [item, text] of [value].flat().entries()) {
    const fault = expressionFault(text)
    if (fault !== null) report.fault(Array.isArray(value) ? pointer(place, item) : place, fault)
  }
}

/** Reports conditions that no request to the route fulfils. */
function checkMatch(
  rule: RuleOptions,
  at: string,
  match: { path?: unknown; methods?: unknown },
  report: Checked['report']
) {
  const { methods, path } = match
  if (Array.isArray(methods) && rule.methods !== undefined) {
    const taken = methods.includes('GET') ? [...methods, 'HEAD'] : methods
    if (!rule.methods.some((method) => taken.includes(method))) {
      report.fault(`${at}/methods`, `can never match: the route takes only ${methods.join(', ')}`)
    }
  }
  const prefixes = [path].flat()
  // Other matches than plain prefixes may have any path.
  if (rule.paths === undefined || !prefixes.every((each) => typeof each === 'string' && !/[:*]/.test(each))) return
  const lower = (text: string | null) => text?.toLowerCase() ?? null
  rule.paths.forEach((each, index) => {
    const { parts, end } = pathPattern(each)
    const pattern = { parts: parts.map(lower), end }
    const isReached = (prefixes as string[]).some((prefix) => {
      const segments = segmentsOf(prefix.toLowerCase())
      if (segments.length > parts.length)
        return matches({ ...pattern, end: end === 'whole' ? 'whole' : 'prefix' }, segments)
      return segments.every((segment, at) => pattern.parts[at] === null || pattern.parts[at] === segment)
    })
    if (!isReached)
      report.fault(pointer(at, 'paths', index), `can never match: the route is for ${prefixes.join(', ')}`)
  })
}

/** Reports rules that never decide, or decide as without them. */
function checkOrder({ rules, default: otherwise }: AuthorizationOptions, at: string, { report }: Checked): void {
  const nameOf = (index: number) => rules[index]!.name ?? `rules[${index}]`
  let isLast = true
  for (const [index, rule] of [...rules.entries()].reverse()) {
    const earlier = rules.slice(0, index).findIndex((each) => isCovered(rule, each))
    if (earlier !== -1) {
      const what = `can never decide: ${nameOf(earlier)} before it has all of its requests`
      report.fault(pointer(at, 'rules', index), what)
    } else if (isLast && rule.action === otherwise) {
      const what = `has no effect: "default: ${otherwise}" decides the same, and no other rule follows`
      report.fault(pointer(at, 'rules', index), what)
    }
    if (rule.action !== otherwise) isLast = false
  }
}

/** Returns whether all requests that fit a rule fit another one, by comparing each condition of the other one. */
function isCovered(inner: RuleOptions, outer: RuleOptions): boolean {
  // Repeated headers and unreadable addresses differ between the actions.
  if (inner.action !== outer.action && (outer.headers !== undefined || outer.addresses !== undefined)) return false
  const isWithin = <T>(
    own: readonly T[] | undefined,
    others: readonly T[] | undefined,
    has: (other: T, own: T) => boolean
  ) => others === undefined || (own?.every((each) => others.some((other) => has(other, each))) ?? false)
  const equal = <T>(other: T, own: T) => other === own
  const inAll = (own: object = {}, others: object = {}) =>
    Object.entries(others).every(([name, values]) => {
      const given: unknown = Reflect.get(own, name)
      return given !== undefined && isWithin([given].flat(), [values].flat(), equal)
    })
  return (
    isWithin(inner.paths?.map(pathPattern), outer.paths?.map(pathPattern), covers) &&
    isWithin(inner.methods, outer.methods, (other, own) => other === own || (other === 'GET' && own === 'HEAD')) &&
    isWithin(inner.consumers, outer.consumers, (other, own) => other === '*' || other === own) &&
    isWithin(inner.groups, outer.groups, equal) &&
    (outer.addresses === undefined ||
      inner.addresses?.every((text) => new AddressList(outer.addresses!).covers(text)) === true) &&
    (outer.scopes ?? []).every((scope) => inner.scopes?.includes(scope)) &&
    inAll(inner.claims, outer.claims) &&
    inAll(inner.headers, outer.headers) &&
    (outer.time === undefined || timeKey(outer.time) === timeKey(inner.time))
  )
}

const timeKey = (time: RuleOptions['time']) =>
  time === undefined ? '' : [time.from, time.to, time.zone, ...(time.days ?? []).toSorted()].join(' ')
