/** Backends of KrakenD's endpoints: those of one endpoint are the calls of a composed route. */
import { pointerTo } from './bodies.ts'
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { isOfGateway } from './headers.ts'
import type { Services } from './krakend-services.ts'
import { literal } from './templates.ts'
import type { Settings } from './yaml-text.ts'

/** Settings that the calls of an endpoint share. */
export interface Endpoint {
  readonly method: string
  readonly hosts: readonly string[]
  readonly headers: readonly string[]
  readonly query: readonly string[]
  readonly services: Services
  readonly draft: Draft
}

/** Methods of requests with a body. */
const withBody = new Set(['POST', 'PUT', 'PATCH'])

/** Returns a template for a text of KrakenD with parameters such as `{id}` and `{JWT.sub}`. */
export const templateOf = (text: string): string =>
  literal(text)
    .replace(/\{\{JWT\.([\w.]+)\}\}/g, (_, claim: string) => `{claims${pointerTo(...claim.split('.'))}}`)
    .replace(/\{\{(\w+)\}\}/g, '{params.$1}')

/** Returns the path and the query parameters of a `url_pattern`. */
export function urlOf(pattern: string): { path: string; query: readonly (readonly [string, string])[] } {
  const [path = '/', query = ''] = pattern.split(/\?(.*)/s)
  return { path, query: [...new URLSearchParams(query)] }
}

/** Returns whether a backend gets copies alone. */
export const isShadow = (backend: Foreign): boolean =>
  backend.map('extra_config')?.map('proxy')?.flag('shadow') === true

const nested = (name: string): string => (name.includes('.') ? pointerTo(...name.split('.')) : name)

/** Returns unique names of calls: those of their groups, or numbers. */
export function namesOf(backends: readonly Foreign[]): string[] {
  const used = new Set<string>()
  return backends.map((backend, index) => {
    const group = (backend.text('group') ?? '')
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, '-')
      .replace(/^-|-$/g, '')
    const name = group === '' || used.has(group) ? `call${index + 1}` : group
    used.add(name)
    return name
  })
}

/** Returns a call. `names` are those of all calls: `{resp0_id}` is a part of the response of the first one. */
export function callOf(backend: Foreign, names: readonly string[], route: Settings, endpoint: Endpoint): Settings {
  const { draft } = endpoint
  const own = backend.texts('host')
  const url = urlOf(backend.text('url_pattern') ?? '/')
  const template = (text: string) =>
    templateOf(text).replace(/\{\{resp(\d+)_([\w.]+)\}\}|\{params\.resp(\d+)_(\w+)\}/g, (_, a, b, c, d) => {
      const name = names[Number(a ?? c)] ?? ''
      const members = String(b ?? d)
        .split('.')
        .filter((each, at) => at > 0 || each !== name)
      return `{calls.${name}/${members.join('/')}}`
    })
  const [allow, deny] = [backend.texts('allow'), backend.texts('deny')]
  const group = backend.text('group') ?? ''
  const target = backend.text('target') ?? ''
  const mapping = backend.map('mapping')
  const renamed = (mapping?.keys ?? []).map((key) => [key, mapping!.text(key) ?? key] as const)
  const method = (backend.text('method') ?? endpoint.method).toUpperCase()
  const isList = backend.flag('is_collection') === true
  const collection = renamed.find(([from]) => from === 'collection')?.[1] ?? 'collection'
  const others = renamed.filter(([from]) => !isList || from !== 'collection')
  const encoding = backend.text('encoding') ?? 'json'
  backend.skip('sd', 'disable_host_sanitize')
  if (encoding !== 'json' && encoding !== 'fast-json' && encoding !== 'safejson' && encoding !== 'string')
    draft.note(route, `${backend.where}.encoding ${encoding}: calls read JSON`)
  if (endpoint.headers.includes('*'))
    draft.note(route, 'input_headers "*": calls get the headers that are written in calls.NAME.headers')
  if (endpoint.query.includes('*'))
    draft.note(route, 'input_query_strings "*": calls get the parameters that are written in calls.NAME.query')
  const query = [
    ...endpoint.query.filter((name) => name !== '*').map((name) => [name, `{query.${name}}`] as const),
    ...url.query.map(([name, value]) => [name, template(value)] as const)
  ]
  // The gateway sends its own of some headers, such as the request id.
  const headers = endpoint.headers
    .map((name) => name.toLowerCase())
    .filter((name) => name !== '*' && name !== 'content-type' && !isFixed(name))
  return {
    service: endpoint.services.of(own.length > 0 ? own : endpoint.hosts, backend),
    ...(method !== 'GET' && { method }),
    path: template(url.path),
    ...(query.length > 0 && { query: Object.fromEntries(query) }),
    ...(headers.length > 0 && { headers: Object.fromEntries(headers.map((name) => [name, `{headers.${name}}`])) }),
    ...(withBody.has(method) && withBody.has(endpoint.method) && { body: '{body}' }),
    ...(encoding === 'string' && { as: 'text' }),
    ...(target !== '' && { target: pointerTo(...target.split('.')) }),
    ...(allow.length > 0 && !isList && { pick: allow.map(nested) }),
    ...(deny.length > 0 && !isList && { drop: deny.map(nested) }),
    ...(others.length > 0 && { rename: Object.fromEntries(others) }),
    ...placeOf(group, isList || encoding === 'string' ? (isList ? collection : 'content') : null)
  }
}

const isFixed = (name: string): boolean =>
  isOfGateway(name, 'request') || /^(?:x-request-id|traceparent|tracestate)$/.test(name)

/** Returns the place of a part: a list and a text stand under a name of their own. */
function placeOf(group: string, name: string | null): Settings {
  if (name === null) return group === '' ? {} : { group }
  return group === '' ? { group: name } : { at: pointerTo(group, name) }
}
