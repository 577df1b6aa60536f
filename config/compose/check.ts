/** Checks composed routes: services, templates, the order of calls, and the places of their parts. */
import { lackingProviders } from '../check-facts.ts'
import type { Checked } from '../concern.ts'
import { perRequestHeaders } from '../declared.ts'
import { pointer } from '../faults.ts'
import { forwardingHeaders, isGatewayHeader } from '../header-names.ts'
import { moveOf } from '../json-pointer.ts'
import { didYouMean } from '../nearest.ts'
import { paramNames, pathPatterns } from '../path-pattern.ts'
import type { CallConfig, ComposeConfig, EditStep, Reshaping } from '../schema/compose.ts'
import type { Written } from '../schema.ts'
import { templateFault } from '../template.ts'
import { warnOfIdleMembers } from './idle-members.ts'
import type { OrderedCall, TemplateText } from './order.ts'
import { ordered, referencesIn, templatesOf, textsOf } from './order.ts'
import { checkParts } from './parts.ts'
import type { Reference, Template } from './template.ts'
import { parseTemplate, referencesOf } from './template.ts'

type Route = Written['routes'][number]

/** Keys of a route that a composed route cannot have, with the reason. */
const excluded: readonly (readonly [key: 'service' | 'split' | 'via' | 'stickOn', why: string])[] = [
  ['service', 'a route has either a service or calls; name the service in compose.calls'],
  ['split', 'a route has either a split or calls'],
  ['stickOn', 'no effect without "split"'],
  ['via', 'a composed route is not proxied']
]

/** Checks the other keys of a composed route. */
export function checkComposedRoute(at: string, route: Route, { keys, report }: Checked): void {
  const { edge, path } = route
  for (const [key, why] of excluded) if (route[key] !== undefined) report.fault(`${at}/${key}`, why, 'key')
  for (const key of ['strip', 'rewrite'] as const) {
    if (path?.[key] === undefined || !report.usable(`${at}/path/${key}`)) continue
    report.fault(`${at}/path/${key}`, 'no effect with compose: each call has its own path', 'key')
  }
  for (const { name, needsBridge } of keys.edge) {
    if (needsBridge === undefined || !Reflect.get(Object(edge), name) || !report.usable(`${at}/edge/${name}`)) continue
    report.fault(`${at}/edge/${name}`, 'cannot be set with compose: the response is not that of a service', 'key')
  }
  if (report.sound(`${at}/match`) && route.match.methods === undefined) {
    report.fault(
      `${at}/match`,
      'a composed route needs methods, such as methods: [GET]: it makes the same calls for each'
    )
  }
}

/** Checks the calls of a route, after its path. */
export function checkCompose(at: string, route: Route, checked: Checked): void {
  const { report } = checked
  const { compose } = route
  const place = `${at}/compose`
  if (compose === undefined || !report.usable(place) || !report.sound(`${place}/calls`)) return
  const isSound = Object.entries(compose.calls).map(([name, call]) =>
    checkCall(pointer(place, 'calls', name), call, { at, route, ownName: name }, checked)
  )
  if (report.sound(`${place}/response`)) checkResponse(at, route, checked)
  if (!isSound.every(Boolean) || !report.sound(`${place}/response`)) return
  const result = ordered(compose)
  if ('cycle' in result) {
    const [first = ''] = result.cycle
    report.fault(pointer(place, 'calls', first), `calls wait for each other: ${result.cycle.join(' → ')}`, 'key')
  }
  if ('order' in result) checkRequired(place, compose, result.order, checked)
  const references = referencesIn(compose)
  for (const fact of ['consumer', 'claims'] as const) {
    if (!references.some(({ source }) => source.of === fact)) continue
    const advice = lackingProviders(fact, at, route, checked)
    const verb = fact === 'consumer' ? 'identifies it' : 'verifies a token with claims'
    if (advice !== null)
      report.fault(place, `templates use the ${fact}, but nothing on this route ${verb}; add ${advice}`, 'key')
  }
  checkUnused(place, compose, checked)
  checkParts(place, compose, report)
}

/** Returns whether the templates of the call are valid. */
function checkCall(at: string, call: CallConfig, scope: Scope, checked: Checked): boolean {
  const { data, keys, report } = checked
  if (report.usable('/services') && !Object.hasOwn(data.services, call.service)) {
    report.fault(
      `${at}/service`,
      `unknown service "${call.service}"${didYouMean(call.service, Object.keys(data.services))}`
    )
  }
  checkPath(`${at}/path`, call.path, checked)
  if (call.body !== undefined && (call.method === 'GET' || call.method === 'HEAD')) {
    report.fault(`${at}/body`, `a ${call.method} has no body; set method: POST`, 'key')
  }
  // The request id; headers of concerns.
  const ownHeaders = report.sound('/edge')
    ? perRequestHeaders(keys.edge, data.edge).map((name) => name.toLowerCase())
    : []
  for (const header of Object.keys(call.headers ?? {})) {
    if (!isGatewayHeader(header) && !ownHeaders.includes(header.toLowerCase())) continue
    report.fault(pointer(at, 'headers', header), 'the gateway sets this header itself', 'key')
  }
  if (Object.hasOwn(call, 'default') && call.required) {
    report.fault(`${at}/default`, 'no effect without required: false', 'key')
  }
  if (call.passStatus !== undefined && !call.required) {
    report.fault(`${at}/passStatus`, 'no effect with required: false', 'key')
  }
  const { timeout } = scope.route.compose ?? {}
  if (call.timeout !== undefined && timeout !== undefined && call.timeout > timeout) {
    report.fault(`${at}/timeout`, 'longer than compose.timeout, which ends all calls')
  }
  checkReshaping(at, call, checked)
  try {
    return checkTemplates(at, templatesOf(call), scope, checked)
  } catch (error) {
    report.fault(`${at}/body`, (error as Error).message, 'key')
    return false
  }
}

function checkPath(at: string, text: string, { report }: Checked): void {
  // A single dot stands for a value.
  const plain = text.replace(/\{\{|\}\}/g, 'x').replace(/\{[^{}]*\}/g, 'x')
  const [unsent] = /\/\/|\/\.\.?(?=\/|$)|[?#\\]|%(?![\da-f]{2})|[^!-~]/i.exec(plain) ?? []
  if (unsent === undefined) return
  const advice = unsent === '?' ? '; write the query under "query"' : ''
  report.fault(at, `a path must not contain "${unsent}"${advice}`)
}

interface Scope {
  /** Pointer to the route. */
  readonly at: string
  readonly route: Route
  /** Name of the call that has the template; null for the response. */
  readonly ownName: string | null
}

function checkTemplates(at: string, texts: readonly TemplateText[], scope: Scope, checked: Checked): boolean {
  let isSound = true
  for (const { at: inner, text, use } of texts) {
    const fault = faultOf(text, use, scope, checked, `${at}${inner}`)
    if (fault === null) continue
    checked.report.fault(`${at}${inner}`, fault)
    isSound = false
  }
  return isSound
}

function faultOf(text: string, use: TemplateText['use'], scope: Scope, checked: Checked, at: string): string | null {
  let template: Template
  try {
    template = parseTemplate(text)
  } catch (error) {
    return templateFault((error as Error).message, checked.report.at(at)?.from)
  }
  if (use === 'header' && !template.every((part) => typeof part !== 'string' || /^[\t -~]*$/.test(part))) {
    return 'a header has visible ASCII characters only'
  }
  for (const reference of referencesOf(template)) {
    const fault = referenceFault(reference, scope, checked)
    if (fault !== null) return `"{${reference.text}}": ${fault}`
  }
  return null
}

/** Forwarding headers, which any client can send: services get the gateway's own. */
const forwarding: ReadonlySet<string> = new Set(forwardingHeaders)

function referenceFault({ source }: Reference, { at, route, ownName }: Scope, { report }: Checked): string | null {
  if (source.of === 'headers' && (isGatewayHeader(source.name) || forwarding.has(source.name))) {
    return 'a client may send any value in this header; the gateway sends its own to services'
  }
  if (source.of === 'params' && report.sound(`${at}/match`)) {
    const names = pathPatterns(route.match.path).flatMap(paramNames)
    if (!names.includes(source.name))
      return `the path has no parameter ":${source.name}"${didYouMean(source.name, names)}`
  }
  if (source.of !== 'call') return null
  const calls = route.compose?.calls ?? {}
  if (source.call === ownName) return 'a call cannot use its own response'
  if (Object.hasOwn(calls, source.call)) return null
  return `there is no call "${source.call}"${didYouMean(source.call, Object.keys(calls))}`
}

function checkReshaping(at: string, reshaping: Reshaping, { report }: Checked): void {
  const { rename = {}, edit = [] } = reshaping
  if (report.sound(at)) warnOfIdleMembers(at, reshaping, report)
  for (const [from, to] of Object.entries(rename)) attempt(pointer(at, 'rename', from), () => moveOf(from, to))
  edit.forEach((step, index) => {
    const place = pointer(at, 'edit', index)
    const kinds = (['move', 'delete', 'append', 'flatten'] as const).filter((kind) => step[kind] !== undefined)
    const [kind, other] = kinds
    if (kind === undefined || other !== undefined) {
      report.fault(place, 'a step has one of move, delete, append and flatten')
    } else attempt(place, () => checkStep(kind, step))
  })
  function attempt(place: string, check: () => void): void {
    try {
      check()
    } catch (error) {
      report.fault(place, (error as Error).message)
    }
  }
}

function checkStep(kind: 'move' | 'delete' | 'append' | 'flatten', { to, ...step }: EditStep): void {
  const from = step[kind] ?? ''
  if (kind === 'delete' && to !== undefined) throw new Error('"delete" has no "to"')
  if ((kind === 'move' || kind === 'append') && to === undefined) throw new Error(`missing key "to" for "${kind}"`)
  if (kind !== 'flatten' && kind !== 'delete') moveOf(from, to ?? '')
  if (kind === 'flatten' && to?.split('/').includes('*')) throw new Error('"to" of "flatten" is one list, without "*"')
}

function checkResponse(routeAt: string, route: Route, checked: Checked): void {
  const { report } = checked
  const at = `${routeAt}/compose/response`
  const { response, calls } = route.compose!
  checkReshaping(at, response, checked)
  checkTemplates(
    at,
    textsOf(response.headers ?? {}, '/headers', 'header'),
    { at: routeAt, route, ownName: null },
    checked
  )
  for (const header of Object.keys(response.headers ?? {})) {
    if (!isGatewayHeader(header) && !/^content-(type|encoding)$/i.test(header)) continue
    report.fault(pointer(at, 'headers', header), 'the gateway sets this header itself', 'key')
  }
  const { statusOf } = response
  if (statusOf === undefined) return
  if (!Object.hasOwn(calls, statusOf)) {
    report.fault(`${at}/statusOf`, `there is no call "${statusOf}"${didYouMean(statusOf, Object.keys(calls))}`)
  } else if (!calls[statusOf]!.required) report.fault(`${at}/statusOf`, `the call "${statusOf}" is not required`)
}

/** Warns of required calls that use the response of an optional one: if that fails, the whole request does. */
function checkRequired(at: string, { calls }: ComposeConfig, order: readonly OrderedCall[], { report }: Checked): void {
  for (const { name, after } of order) {
    const other = after.find((each) => calls[each]?.required === false)
    if (!calls[name]!.required || other === undefined) continue
    report.warn(
      pointer(at, 'calls', name),
      `is required and uses the response of "${other}", which is not: the request fails if "${other}" does; set required: false here, too`,
      'key'
    )
  }
}

/** Reports calls whose response nothing uses. A method other than GET may be called for its effect. */
function checkUnused(at: string, compose: ComposeConfig, { report }: Checked): void {
  const { calls, response } = compose
  const used = new Set(referencesIn(compose).flatMap(({ source }) => (source.of === 'call' ? source.call : [])))
  for (const [name, call] of Object.entries(calls)) {
    if (call.include || used.has(name) || response.statusOf === name || call.method !== 'GET') continue
    report.fault(pointer(at, 'calls', name, 'include'), 'nothing uses the response of this call', 'key')
  }
}
