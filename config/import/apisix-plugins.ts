/** Plugins of APISIX, as concerns of the edge, changes of the path and policies of the mesh. */
import { apisixFileLogger } from './access-logs.ts'
import { access } from './apisix-access.ts'
import { limits } from './apisix-limits.ts'
import type { ApisixContext, Convert, Place } from './apisix-scope.ts'
import { noteRefusal } from './apisix-scope.ts'
import { transforms } from './apisix-transforms.ts'
import { variants } from './apisix-variants.ts'
import { apisixBreaker } from './breakers.ts'
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import { oneOrAll } from './patterns.ts'
import type { Settings } from './yaml-text.ts'

const methods: readonly string[] = ['key-auth', 'basic-auth', 'jwt-auth', 'hmac-auth']

const byAgent = 'write edge.accessLog, on stdout, where an agent reads it'
const byTracing = 'write tracing.otlp.http'

/** Equivalents of plugins that are not converted. */
const hints: Readonly<Record<string, string>> = {
  'http-logger': byAgent,
  'tcp-logger': byAgent,
  'udp-logger': byAgent,
  'kafka-logger': byAgent,
  'loki-logger': byAgent,
  syslog: byAgent,
  opentelemetry: byTracing,
  zipkin: byTracing,
  skywalking: byTracing,
  'hmac-auth': 'write edge.hmacAuth; clients sign as for Kong',
  datadog: 'scrape /metrics of the admin port, or write metricsPush'
}

/** Converts one plugin. */
function convertPlugin(name: string, config: Foreign, context: ApisixContext, place: Place): void {
  const convert = member(converters, name)
  if (convert !== undefined) convert(config, place, context)
  else {
    config.skip(...config.keys)
    const hint = member(hints, name)
    context.draft.unknown(place.route, name, `plugin ${name}: not converted${hint === undefined ? '' : `; ${hint}`}`)
  }
}

/** Plugins of one place, with the name of limits that routes share; null for those of a route. */
interface PluginSet {
  readonly plugins: Foreign | undefined
  readonly name: string | null
}

/** Converts plugins, but for those that `except` names. Those of later places replace earlier ones of their names. */
export function applyPlugins(
  sets: readonly PluginSet[],
  context: ApisixContext,
  place: Omit<Place, 'name'>,
  except: readonly string[] = []
): void {
  const byName = new Map<string, Place & { config: Foreign }>()
  for (const { plugins, name: shared } of sets) {
    for (const name of plugins?.keys ?? []) {
      if (except.includes(name)) continue
      const config = plugins!.mapOrEmpty(name)
      const meta = config.map('_meta')
      const isOff = meta?.flag('disable') === true || config.flag('disable') === true
      const hasFilter = meta?.has('filter') === true
      meta?.skip(...meta.keys)
      byName.get(name)?.config.skip(...byName.get(name)!.config.keys)
      byName.delete(name)
      if (isOff) {
        config.skip(...config.keys)
        context.draft.note(place.route, `plugin ${name} is off (disable: true): not converted`)
        continue
      }
      if (hasFilter)
        context.draft.note(place.route, `${config.where}._meta.filter: not converted; ${name} applies to all requests`)
      byName.set(name, { ...place, name: shared, config })
    }
  }
  for (const [name, { config, ...at }] of byName) {
    convertPlugin(name, config, context, at)
    if (methods.includes(name)) {
      const before = (place.edge.authentication ?? {}) as Settings
      place.edge.authentication = { ...before, forward: { id: 'x-consumer-username' } }
    }
  }
}

/** Adds policies to those of a route, or of all services. */
function addMesh(route: Settings | null, all: Settings, policies: Settings): void {
  if (route === null) Object.assign(all, policies)
  else route.mesh = { ...((route.mesh ?? {}) as Settings), ...policies }
}

const converters: Readonly<Record<string, Convert>> = {
  ...access,
  ...transforms,
  ...limits,
  ...variants,
  'key-auth': (config, { edge }) => {
    edge.keyAuth = {
      header: config.text('header') ?? 'apikey',
      query: config.text('query') ?? 'apikey',
      ...(config.flag('hide_credentials') !== true && { hideCredentials: false })
    }
  },
  'basic-auth': (config, { edge }) => {
    edge.basicAuth = config.flag('hide_credentials') === true ? {} : { hideCredentials: false }
  },
  'jwt-auth': (config, { edge, route }, { draft, issuers }) => {
    if (issuers.length === 0)
      return draft.undecided(route, 'jwt-auth: no consumer has a secret; write edge.jwt with the key of the issuer')
    const header = config.text('header')
    edge.jwt = {
      issuers,
      consumer: 'key',
      from: {
        ...(header !== undefined && header.toLowerCase() !== 'authorization' && { header }),
        query: config.text('query') ?? 'jwt',
        cookie: config.text('cookie') ?? 'jwt'
      },
      ...(config.flag('hide_credentials') === true && { hideCredentials: true })
    }
    draft.note(
      route,
      'jwt-auth: the gateway selects the key by the claim iss, APISIX by the claim key: tokens need both'
    )
  },
  'consumer-restriction': (config, { edge, route }, { draft }) => {
    const allow = config.texts('whitelist')
    const deny = config.texts('blacklist')
    const type = config.text('type') ?? 'consumer_name'
    if (config.has('allowed_by_methods'))
      draft.undecided(route, `${config.where}.allowed_by_methods: write edge.authorization`)
    config.skip('allowed_by_methods')
    noteRefusal(config, 403, (text) => draft.note(route, text))
    const before = (edge.acl ?? {}) as Settings
    if (type === 'consumer_name')
      edge.acl = {
        ...before,
        ...(allow.length > 0 && { allowConsumers: allow }),
        ...(deny.length > 0 && { denyConsumers: deny })
      }
    else if (type === 'consumer_group_id')
      edge.acl = { ...before, ...(allow.length > 0 && { allow }), ...(deny.length > 0 && { deny }) }
    else draft.undecided(route, `consumer-restriction by ${type}: not converted`)
  },
  'ip-restriction': (config, { edge }) => {
    const allow = config.texts('whitelist')
    const deny = config.texts('blacklist')
    const status = config.number('response_code') ?? 403
    edge.ipFilter = {
      ...(allow.length > 0 && { allow }),
      ...(deny.length > 0 && { deny }),
      ...(status !== 403 && { status })
    }
    config.skip('message')
  },
  'forward-auth': (config, { edge, route }, { draft }) => {
    const lower = (key: string, name: string) => {
      const list = config.texts(key).map((each) => each.toLowerCase())
      return list.length > 0 && { [name]: list }
    }
    const ms = config.number('timeout')
    edge.forwardAuth = {
      url: config.text('uri'),
      ...lower('request_headers', 'requestHeaders'),
      ...lower('upstream_headers', 'responseHeaders'),
      ...lower('client_headers', 'refusalHeaders'),
      ...(ms !== undefined && { timeout: `${ms}ms` }),
      ...(config.flag('allow_degradation') === true && { onFailure: 'allow' })
    }
    if (config.text('request_method') === 'POST')
      draft.note(route, `${config.where}.request_method POST: write forwardAuth.forwardBody`)
    config.skip('ssl_verify', 'keepalive', 'keepalive_timeout', 'keepalive_pool', 'status_on_error')
  },
  opa: (config, { edge, route }, { draft }) => {
    const policy = (config.text('policy') ?? '').replaceAll('.', '/')
    const ms = config.number('timeout')
    edge.forwardAuth = {
      url: `${config.text('host')}/v1/data/${policy}`,
      format: 'opa',
      ...(ms !== undefined && { timeout: `${ms}ms` })
    }
    const asked = ['with_route', 'with_service', 'with_consumer'].filter((key) => config.flag(key) === true)
    if (asked.length > 0) draft.undecided(route, `opa: ${asked.join(', ')}: the policy gets another input here`)
    config.skip('ssl_verify', 'keepalive', 'keepalive_timeout', 'keepalive_pool')
  },
  cors: (config, { edge }) => {
    const split = (key: string) =>
      (config.text(key) ?? '')
        .split(',')
        .map((each) => each.trim())
        .filter((each) => each !== '')
    const origins = [
      ...split('allow_origins'),
      ...config.texts('allow_origins_by_regex').map((each) => `/^${each.replace(/^\^|\$$/g, '')}$/`)
    ]
    const credentials = config.flag('allow_credential') === true
    const isAny = origins.length === 0 || origins.includes('*') || origins.includes('**')
    const list = (key: string, name: string) => {
      const values = split(key).filter((each) => each !== '*' && each !== '**')
      return values.length > 0 && { [name]: values }
    }
    const maxAge = config.number('max_age')
    edge.cors = {
      origin: isAny ? '*' : oneOrAll(origins),
      ...list('allow_methods', 'methods'),
      ...list('allow_headers', 'allowedHeaders'),
      ...list('expose_headers', 'exposedHeaders'),
      ...(credentials && { credentials }),
      ...(maxAge !== undefined && maxAge > 0 && { maxAge: `${maxAge}s` })
    }
    config.skip('timing_allow_origins', 'timing_allow_origins_by_regex')
  },
  'client-control': (config, { edge }) => {
    const size = config.number('max_body_size')
    if (size !== undefined) edge.bodyLimit = `${size}b`
  },
  'request-id': (config, { route }, { draft }) => {
    if (route !== null) draft.note(route, 'request-id: edge.requestId is for all routes')
    draft.edge.requestId = { header: (config.text('header_name') ?? 'X-Request-Id').toLowerCase() }
    config.skip(...config.keys)
  },
  'api-breaker': (config, { route }, { draft }) => {
    addMesh(route, draft.mesh, apisixBreaker(config))
  },
  'proxy-mirror': (config, { route }, { draft, services }) => {
    const host = config.text('host') ?? ''
    const ratio = config.number('sample_ratio') ?? 1
    if (config.has('path')) draft.note(route, `${config.where}.path: copies have the path of the call`)
    config.skip('path', 'path_concat_mode')
    if (!/^https?:\/\/[^/]+\/?$/.test(host))
      return draft.note(route, `proxy-mirror: write a service for ${host} and mesh.mirror`)
    addMesh(route, draft.mesh, {
      mirror: { service: services.at(host), percent: `${Math.round(ratio * 10_000) / 100}%` }
    })
  },
  'multi-auth': (config, place, context) => {
    for (const each of config.maps('auth_plugins'))
      for (const name of each.keys) convertPlugin(name, each.mapOrEmpty(name), context, place)
    place.edge.authentication = { require: 'any', forward: { id: 'x-consumer-username' } }
  },
  prometheus: (config) => config.skip(...config.keys),
  'file-logger': (config, { edge, route }, { draft }) => apisixFileLogger(config, draft, edge, route),
  'real-ip': (config, { route }, { draft }) => {
    const trusted = config.texts('trusted_addresses')
    config.skip(...config.keys)
    if (trusted.length > 0) draft.listen.trustProxy = trusted
    else draft.note(route, 'real-ip: write listen.trustProxy with the addresses of your proxies')
  }
}
