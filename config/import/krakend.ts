/** Import of KrakenD's configuration (version 3), in JSON. */
import { krakendInflux } from './access-logs.ts'
import { addKrakendBody } from './bodies.ts'
import { krakendBreaker } from './breakers.ts'
import type { Imported } from './draft.ts'
import { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import { addRules, lower } from './headers.ts'
import { router, security, tlsOf } from './krakend-security.ts'
import { Services } from './krakend-services.ts'
import { oneOrAll } from './patterns.ts'
import type { Settings } from './yaml-text.ts'

/** Returns a path with parameters in the spelling of patterns: `/users/{id}` is `/users/:id`. */
const patternOf = (path: string): string => path.replace(/\{(\w+)\}/g, ':$1')

export function importKrakend(root: Foreign): Imported {
  const draft = new Draft()
  root.skip('$schema', 'version', 'name', 'debug_endpoint', 'echo_endpoint', 'output_encoding', 'disable_rest')
  draft.edge.host = 'upstream'
  const port = root.number('port')
  if (port !== undefined) draft.listen.port = port
  draft.mesh.timeout = root.text('timeout') ?? '2s'
  const address = root.text('listen_ip')
  if (address !== undefined) draft.listen.host = address
  const hosts = root.texts('host')
  const cacheTtl = root.text('cache_ttl')
  if (cacheTtl !== undefined) draft.note(null, `cache_ttl ${cacheTtl}: not converted`)
  tlsOf(root.map('tls'), draft)
  const extra = root.map('extra_config')
  if (extra !== undefined) applyExtra(extra, draft, draft.edge, null)
  const services = new Services(draft)
  for (const endpoint of root.maps('endpoints')) importEndpoint(endpoint, hosts, services, draft)
  for (const place of root.unread()) draft.note(null, `${place}: not converted`)
  return draft.finish('KrakenD')
}

function importEndpoint(endpoint: Foreign, hosts: readonly string[], services: Services, draft: Draft): void {
  const path = patternOf(endpoint.text('endpoint') ?? '/')
  const method = (endpoint.text('method') ?? 'GET').toUpperCase()
  const route: Settings = { name: draft.name('route', `${method} ${path}`) }
  route.match = { path: path.endsWith('/*') || path.includes(':') ? path : { exact: path }, methods: [method] }
  const output = endpoint.text('output_encoding') ?? 'json'
  if (!jsonOutputs.has(output)) draft.note(route, `output_encoding ${output}: not converted`)
  endpoint.skip('@comment', 'concurrent_calls')
  const edge: Settings = {}
  const [backend, ...others] = endpoint.maps('backend')
  if (backend === undefined) {
    draft.note(null, `${endpoint.where} has no backend`)
    return
  }
  if (others.length > 0) {
    const all = [backend, ...others]
    const names = all.map(callName)
    const calls = all.map((each, index) => [names[index], callOf(each, hosts, services, draft, names)] as const)
    route.compose = { calls: Object.fromEntries(calls) }
    draft.comment(
      route,
      'KrakenD sends what it has if a backend fails; here, a call fails the request unless it has required: false'
    )
  } else {
    const own = backend.texts('host')
    route.service = services.of(own.length > 0 ? own : hosts, backend)
    const target = patternOf(backend.text('url_pattern') ?? path)
    if (target !== path) route.path = { rewrite: { path: target } }
    const ofBackend = backend.map('extra_config')
    if (ofBackend !== undefined) applyExtra(ofBackend, draft, edge, route)
    const changed = ['allow', 'deny', 'mapping', 'group', 'target', 'is_collection'].filter((key) => backend.has(key))
    const isExact = changed.length > 0 && addKrakendBody(backend, edge)
    const ofCall = (backend.text('method') ?? method).toUpperCase()
    if (ofCall !== method) draft.undecided(route, `${backend.where}.method ${ofCall}: the service gets ${method} here`)
    backend.skip('encoding', 'sd', 'disable_host_sanitize', ...changed)
    if (changed.length > 0 && !isExact)
      draft.note(route, `${backend.where}: ${changed.join(', ')}: write edge.body.response or a composed route`)
  }
  const timeout = endpoint.text('timeout')
  if (timeout !== undefined) route.mesh = { ...((route.mesh ?? {}) as Settings), timeout }
  const headers = endpoint.texts('input_headers')
  const query = endpoint.texts('input_query_strings')
  if (others.length === 0) {
    if (headers.length > 0 && !headers.includes('*')) addRules(edge, 'request', { only: lower(headers) })
    if (query.length > 0 && !query.includes('*')) addRules(edge, 'query', { only: query })
    if (headers.length === 0 || query.length === 0)
      draft.comment(route, 'all headers, or the whole query, reach the service: see edge.headers.request.only')
  }
  const age = endpoint.text('cache_ttl')
  if (age !== undefined) addRules(edge, 'response', { add: { 'cache-control': `public, max-age=${secondsOf(age)}` } })
  const extra = endpoint.map('extra_config')
  if (extra !== undefined) applyExtra(extra, draft, edge, route)
  if (Object.keys(edge).length > 0) route.edge = edge
  draft.routes.push(route)
}

/** Returns the seconds of a duration of Go, such as `1h30m`. */
function secondsOf(text: string): number {
  const units: Readonly<Record<string, number>> = { h: 3600, m: 60, s: 1 }
  return [...text.matchAll(/(\d+)([hms])(?!s)/g)].reduce(
    (sum, [, number, unit]) => sum + Number(number) * units[unit!]!,
    0
  )
}

const callName = (backend: Foreign, index: number): string =>
  backend
    .text('group')
    ?.toLowerCase()
    .replace(/[^a-z0-9]+/g, '-') || `call${index + 1}`

/** Outputs of endpoints that are JSON, or the body of the service. */
const jsonOutputs: ReadonlySet<string> = new Set(['json', 'fast-json', 'json-collection', 'no-op'])

/** Returns a call. `names` are those of all calls: `{resp0_id}` is a part of the response of the first one. */
function callOf(
  backend: Foreign,
  hosts: readonly string[],
  services: Services,
  draft: Draft,
  names: readonly string[]
): Settings {
  const own = backend.texts('host')
  const [path = '/', query] = (backend.text('url_pattern') ?? '/').split('?', 2)
  const template = (text: string) =>
    text
      .replace(/\{resp(\d+)_([\w.]+)\}/g, (_, index: string, path: string) => {
        const name = names[Number(index)] ?? ''
        const members = path.split('.').filter((each, at) => at > 0 || each !== name)
        return `{calls.${name}/${members.join('/')}}`
      })
      .replace(/\{(\w+)\}/g, '{params.$1}')
  const allow = backend.texts('allow')
  const deny = backend.texts('deny')
  const group = backend.text('group')
  const target = backend.text('target') ?? ''
  const mapping = backend.map('mapping')
  const method = (backend.text('method') ?? 'GET').toUpperCase()
  backend.skip('encoding', 'sd', 'disable_host_sanitize', 'is_collection')
  const settings: Settings = {
    service: services.of(own.length > 0 ? own : hosts, backend),
    path: template(path),
    ...(query !== undefined && {
      query: Object.fromEntries([...new URLSearchParams(query)].map(([name, value]) => [name, template(value)]))
    }),
    ...(method !== 'GET' && { method }),
    ...(target !== '' && { target }),
    ...(allow.length > 0 && { pick: allow }),
    ...(deny.length > 0 && { drop: deny }),
    ...(mapping !== undefined &&
      mapping.keys.length > 0 && { rename: Object.fromEntries(mapping.keys.map((key) => [key, mapping.text(key)])) }),
    ...(group !== undefined && group !== '' && { group })
  }
  const extra = backend.map('extra_config')
  if (extra !== undefined) applyExtra(extra, draft, {}, settings)
  return settings
}

type Convert = (config: Foreign, edge: Settings, draft: Draft, route: Settings | null) => void

function applyExtra(extra: Foreign, draft: Draft, edge: Settings, route: Settings | null): void {
  for (const name of extra.keys) {
    const convert = member(converters, name)
    if (convert !== undefined) convert(extra.mapOrEmpty(name), edge, draft, route)
    else {
      extra.skip(name)
      const text = `${name}: not converted`
      // The call is none of HTTP, so the hosts of the backend are not its services.
      if (/^backend\/(?!http|static)/.test(name)) draft.undecided(route, text)
      else draft.unknown(route, name, text)
    }
  }
}

/** Sets a policy of the service of a route, which all of its routes share; of all services without a route. */
function setPolicy(route: Settings | null, draft: Draft, settings: Settings): void {
  const service = route === null ? undefined : (draft.services[String(route.service)] as Settings | undefined)
  if (service === undefined) Object.assign(draft.mesh, settings)
  else service.mesh = { ...((service.mesh ?? {}) as Settings), ...settings }
}

const validator: Convert = (config, edge, draft, route) => {
  const forward = config.value('propagate_claims')
  const pairs = Array.isArray(forward) ? (forward as unknown[][]).map((pair) => pair.map(String)) : []
  const audience = config.texts('audience')
  const scopes = config.texts('scopes')
  const issuer = config.text('issuer')
  const cookie = config.text('cookie_key')
  edge.jwt = {
    jwks: config.text('jwk_url'),
    ...(issuer !== undefined && { issuer }),
    ...(audience.length > 0 && { audience: oneOrAll(audience) }),
    algorithms: [config.text('alg') ?? 'RS256'],
    ...(scopes.length > 0 && { scopes }),
    ...(cookie !== undefined && { from: { cookie } }),
    ...(pairs.length > 0 && {
      forward: Object.fromEntries(pairs.map(([claim = '', header = '']) => [claim, header.toLowerCase()]))
    })
  }
  const roles = config.texts('roles')
  const rolesClaim = config.text('roles_key')
  if (roles.length > 0) edge.acl = { roles, ...(rolesClaim !== undefined && { rolesClaim }) }
  if (scopes.length > 1 && config.text('scopes_matcher') !== 'all') {
    draft.note(route, 'auth/validator: any one of the scopes suffices in KrakenD; here all are required')
  }
  config.skip(
    'cache',
    'cache_duration',
    'scopes_key',
    'scopes_matcher',
    'roles_key_is_nested',
    'disable_jwk_security',
    'operation_debug'
  )
}

const limiter: Convert = (config, edge) => {
  const every = config.text('every') ?? '1s'
  const strategy = config.text('strategy') ?? 'ip'
  const key = config.text('key')
  const limits: Settings[] = []
  const add = (rate: string, capacity: string, more: Settings) => {
    const max = config.number(rate)
    const burst = config.number(capacity)
    if (max === undefined || max === 0) return
    limits.push({
      algorithm: 'token-bucket',
      max: Math.max(1, Math.round(max)),
      window: every,
      ...(burst !== undefined && { burst }),
      ...more
    })
  }
  add('max_rate', 'capacity', { by: 'route' })
  add('client_max_rate', 'client_capacity', strategy === 'header' ? { by: `header:${key?.toLowerCase()}` } : {})
  if (limits.length > 0) edge.rateLimit = oneOrAll(limits)
}

const converters: Readonly<Record<string, Convert>> = {
  ...security,
  'auth/validator': validator,
  'qos/ratelimit/router': limiter,
  'security/cors': (config, edge) => {
    const origins = config.texts('allow_origins')
    const methods = config.texts('allow_methods')
    const headers = config.texts('allow_headers')
    const exposed = config.texts('expose_headers')
    const maxAge = config.text('max_age')
    const credentials = config.flag('allow_credentials') === true
    const isAny = origins.length === 0 || origins.includes('*')
    edge.cors = {
      origin: isAny ? '*' : oneOrAll(origins),
      ...(methods.length > 0 && { methods }),
      ...(headers.length > 0 && !headers.includes('*') && { allowedHeaders: headers }),
      ...(exposed.length > 0 && { exposedHeaders: exposed }),
      ...(credentials && { credentials }),
      ...(maxAge !== undefined && { maxAge })
    }
    config.skip('debug', 'options_success_status')
  },
  'qos/http-cache': (config, edge) => {
    config.skip(...config.keys)
    edge.cache = {}
  },
  'qos/ratelimit/proxy': (config, _edge, draft, route) => {
    const rate = config.number('max_rate') ?? 1
    const burst = config.number('capacity')
    if (route !== null) draft.note(route, 'qos/ratelimit/proxy: the limit is for all calls of the service')
    setPolicy(route, draft, {
      limit: {
        rate: Math.max(1, Math.round(rate)),
        per: config.text('every') ?? '1s',
        ...(burst !== undefined && { burst })
      }
    })
  },
  'qos/circuit-breaker': (config, _edge, draft, route) => {
    const policy = krakendBreaker(config)
    if (route === null) Object.assign(draft.mesh, policy)
    else route.mesh = { ...((route.mesh ?? {}) as Settings), ...policy }
  },
  // Credentials of a backend are read with its hosts.
  'auth/client-credentials': (config, _edge, draft) => {
    if (config.has('token_url')) return
    config.skip(...config.keys)
    draft.note(null, 'auth/client-credentials without token_url: not converted')
  },
  router,
  'telemetry/logging': (config) => config.skip(...config.keys),
  'telemetry/metrics': (config) => config.skip(...config.keys),
  'telemetry/influx': (config, _edge, draft) => krakendInflux(config, draft)
}
