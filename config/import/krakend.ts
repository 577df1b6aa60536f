/** Import of KrakenD's configuration (version 3), in JSON. */
import { addKrakendBody } from './bodies.ts'
import { krakendBreaker } from './breakers.ts'
import type { Imported } from './draft.ts'
import { Draft } from './draft.ts'
import { goDuration, goMs } from './durations.ts'
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import { addRules, lower } from './headers.ts'
import { callOf, isShadow, namesOf, templateOf, urlOf } from './krakend-calls.ts'
import { limiter, rateOf } from './krakend-limits.ts'
import { martian, proxy } from './krakend-proxy.ts'
import type { Convert } from './krakend-scope.ts'
import { router, security } from './krakend-security.ts'
import { Services } from './krakend-services.ts'
import { influxOf, opentelemetryOf } from './krakend-telemetry.ts'
import { clientTlsOf, tlsOf } from './krakend-tls.ts'
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
  draft.mesh.timeout = goDuration(root.text('timeout') ?? '2s')
  const [dial, idle] = [root.text('dialer_timeout'), root.text('idle_connection_timeout')]
  if (dial !== undefined) draft.mesh.connectTimeout = goDuration(dial)
  if (idle !== undefined) draft.mesh.connections = { idle: goDuration(idle) }
  clientTlsOf(root.map('client_tls'), draft)
  const address = root.text('listen_ip')
  if (address !== undefined) draft.listen.host = address
  const hosts = root.texts('host')
  const cacheTtl = root.text('cache_ttl')
  tlsOf(root.map('tls'), draft)
  const extra = root.map('extra_config')
  if (extra !== undefined) applyExtra(extra, draft, draft.edge, null)
  const services = new Services(draft)
  for (const endpoint of root.maps('endpoints')) importEndpoint(endpoint, { hosts, cacheTtl }, services, draft)
  for (const place of root.unread()) draft.note(null, `${place}: not converted`)
  return draft.finish('KrakenD')
}

interface Usual {
  readonly hosts: readonly string[]
  readonly cacheTtl: string | undefined
}

function importEndpoint(endpoint: Foreign, { hosts, cacheTtl }: Usual, services: Services, draft: Draft): void {
  const path = patternOf(endpoint.text('endpoint') ?? '/')
  const method = (endpoint.text('method') ?? 'GET').toUpperCase()
  const route: Settings = { name: draft.name('route', `${method} ${path}`) }
  route.match = { path: path.endsWith('/*') || path.includes(':') ? path : { exact: path }, methods: [method] }
  const output = endpoint.text('output_encoding') ?? 'json'
  if (!jsonOutputs.has(output)) draft.note(route, `output_encoding ${output}: not converted`)
  if ((endpoint.number('concurrent_calls') ?? 1) > 1) draft.comment(route, 'concurrent_calls: see mesh.hedge')
  endpoint.skip('@comment')
  const edge: Settings = {}
  const headers = endpoint.texts('input_headers')
  const query = endpoint.texts('input_query_strings')
  const backends = endpoint.maps('backend')
  const [backend, ...others] = backends.filter((each) => !isShadow(each))
  if (backend === undefined) {
    draft.note(null, `${endpoint.where} has no backend`)
    return
  }
  if (others.length > 0) {
    const all = [backend, ...others]
    const names = namesOf(all)
    const of = { method, hosts, headers, query, services, draft }
    const calls = all.map((each, index) => {
      const call = callOf(each, names, route, of)
      const extra = each.map('extra_config')
      if (extra !== undefined) applyExtra(extra, draft, {}, call)
      return [names[index], call] as const
    })
    route.compose = { calls: Object.fromEntries(calls) }
    draft.comment(
      route,
      'KrakenD sends what it has if a backend fails; here, a call fails the request unless it has required: false'
    )
  } else {
    importBackend(backend, { route, edge, path, method, hosts }, services, draft)
    if (headers.length > 0 && !headers.includes('*')) addRules(edge, 'request', { only: lower(headers) })
    if (query.length > 0 && !query.includes('*')) addRules(edge, 'query', { only: query })
    if (headers.length === 0 || query.length === 0)
      draft.comment(route, 'all headers, or the whole query, reach the service: see edge.headers.request.only')
  }
  addMirror(backends.filter(isShadow), route, hosts, services, draft)
  const timeout = endpoint.text('timeout')
  if (timeout !== undefined) route.mesh = { ...((route.mesh ?? {}) as Settings), timeout: goDuration(timeout) }
  const age = Math.round((goMs(endpoint.text('cache_ttl') ?? cacheTtl ?? '0') ?? 0) / 1000)
  if (age > 0) addRules(edge, 'response', { add: { 'cache-control': `public, max-age=${age}` } })
  const extra = endpoint.map('extra_config')
  if (extra !== undefined) applyExtra(extra, draft, edge, route)
  if (Object.keys(edge).length > 0) route.edge = edge
  draft.routes.push(route)
}

interface Target {
  readonly route: Settings
  readonly edge: Settings
  readonly path: string
  readonly method: string
  readonly hosts: readonly string[]
}

/** Makes a backend the service of a route. */
function importBackend(backend: Foreign, target: Target, services: Services, draft: Draft): void {
  const { route, edge, path, method, hosts } = target
  const own = backend.texts('host')
  route.service = services.of(own.length > 0 ? own : hosts, backend)
  const url = urlOf(backend.text('url_pattern') ?? '')
  const rewritten = patternOf(url.path === '' ? path : url.path)
  if (/[{}]/.test(rewritten)) draft.undecided(route, `${backend.where}.url_pattern ${url.path}: write path.rewrite`)
  else if (rewritten !== path) route.path = { rewrite: { path: rewritten } }
  const query = Object.fromEntries(url.query.map(([name, value]) => [name, templateOf(value)]))
  addRules(edge, 'query', { set: query }, (text) => text)
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

/** Sends copies to the backends that are shadows. */
function addMirror(
  shadows: readonly Foreign[],
  route: Settings,
  hosts: readonly string[],
  services: Services,
  draft: Draft
): void {
  const [shadow, ...others] = shadows
  for (const each of shadows) {
    const pattern = each.text('url_pattern')
    const extra = each.map('extra_config')
    each.skip(...each.keys)
    extra?.skip(...extra.keys)
    if (pattern !== undefined)
      draft.note(route, `${each.where}.url_pattern ${pattern}: copies have the path of the call`)
  }
  if (shadow === undefined) return
  if (others.length > 0 || route.compose !== undefined) {
    draft.note(route, `${shadow.where}: proxy.shadow: write mesh.mirror`)
    return
  }
  const own = shadow.texts('host')
  const mirror = { service: services.of(own.length > 0 ? own : hosts, shadow) }
  route.mesh = { ...((route.mesh ?? {}) as Settings), mirror }
}

/** Outputs of endpoints that are JSON, or the body of the service. */
const jsonOutputs: ReadonlySet<string> = new Set(['json', 'fast-json', 'json-collection', 'no-op'])

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
  if (roles.length > 0)
    edge.acl = { ...((edge.acl ?? {}) as Settings), roles, ...(rolesClaim !== undefined && { rolesClaim }) }
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

const converters: Readonly<Record<string, Convert>> = {
  ...security,
  proxy,
  'modifier/martian': martian,
  'telemetry/opentelemetry': (config, _edge, draft) => opentelemetryOf(config, draft),
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
      ...(maxAge !== undefined && { maxAge: goDuration(maxAge) })
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
        ...rateOf(rate, config.text('every')),
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
  'telemetry/influx': (config, _edge, draft) => influxOf(config, draft)
}
