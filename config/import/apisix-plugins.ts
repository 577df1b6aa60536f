/** Plugins of APISIX, as concerns of the edge, changes of the path and policies of the mesh. */
import { apisixFileLogger } from './access-logs.ts'
import { access } from './apisix-access.ts'
import type { ApisixContext, Convert, Place } from './apisix-scope.ts'
import { noteRefusal } from './apisix-scope.ts'
import { transforms } from './apisix-transforms.ts'
import { apisixBreaker } from './breakers.ts'
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import { oneOrAll } from './patterns.ts'
import { useRedis } from './redis.ts'
import type { Settings } from './yaml-text.ts'

const methods: readonly string[] = ['key-auth', 'basic-auth', 'jwt-auth', 'hmac-auth']

/** Converts one plugin. */
function convertPlugin(name: string, config: Foreign, context: ApisixContext, place: Place): void {
  const convert = member(converters, name)
  if (convert !== undefined) convert(config, place, context)
  else {
    config.skip(...config.keys)
    context.draft.unknown(place.route, name, `plugin ${name}: not converted`)
  }
}

/** Converts plugins, but for those that `except` names. */
export function applyPlugins(
  plugins: Foreign | undefined,
  context: ApisixContext,
  place: Place,
  except: readonly string[] = []
): void {
  for (const name of plugins?.keys ?? []) {
    if (except.includes(name)) continue
    const config = plugins!.mapOrEmpty(name)
    const meta = config.map('_meta')
    if (meta?.flag('disable') === true || config.flag('disable') === true) {
      config.skip(...config.keys)
      meta?.skip(...meta.keys)
      context.draft.note(place.route, `plugin ${name} is off (disable: true): not converted`)
      continue
    }
    meta?.skip(...meta.keys)
    convertPlugin(name, config, context, place)
    if (methods.includes(name)) {
      const before = (place.edge.authentication ?? {}) as Settings
      place.edge.authentication = { ...before, forward: { id: 'x-consumer-username' } }
    }
  }
}

/** Sources of the keys of limits. */
const sources: Readonly<Record<string, string>> = { remote_addr: 'ip', consumer_name: 'consumer' }

function sourceOf(config: Foreign, draft: Draft, route: Settings | null): Settings {
  const key = config.text('key') ?? 'remote_addr'
  const type = config.text('key_type') ?? 'var'
  if (type === 'constant') return { by: 'route' }
  const all = (type === 'var_combination' ? key.split(/\s+/) : [key]).map((each) => {
    const name = each.replace(/^\$\{?(\w+)\}?$/, '$1')
    const header = /^http_(\w+)$/.exec(name)?.[1]
    return member(sources, name) ?? (header === undefined ? undefined : `header:${header.replaceAll('_', '-')}`)
  })
  if (all.includes(undefined)) {
    draft.note(route, `limit by ${key}: not converted; it counts by address`)
    return {}
  }
  return all.length === 1 && all[0] === 'ip' ? {} : { by: oneOrAll(all) }
}

function refusal(config: Foreign, draft: Draft, route: Settings | null): void {
  noteRefusal(config, 429, (text) => draft.note(route, text))
  config.skip('allow_degradation', 'show_limit_quota_header', 'nodelay')
}

const addLimit = (edge: Settings, limit: Settings): void => {
  const before = edge.rateLimit
  edge.rateLimit = before === undefined ? limit : [before, limit].flat()
}

const converters: Readonly<Record<string, Convert>> = {
  ...access,
  ...transforms,
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
    if (type === 'consumer_name')
      edge.acl = { ...(allow.length > 0 && { allowConsumers: allow }), ...(deny.length > 0 && { denyConsumers: deny }) }
    else if (type === 'consumer_group_id')
      edge.acl = { ...(allow.length > 0 && { allow }), ...(deny.length > 0 && { deny }) }
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
  'limit-count': (config, { edge, route, name }, { draft }) => {
    const policy = config.text('policy') ?? 'local'
    const group = config.text('group')
    if (policy !== 'local') useRedis(config, draft)
    refusal(config, draft, route)
    const shared = group ?? name
    addLimit(edge, {
      max: config.number('count'),
      window: `${config.number('time_window') ?? 1}s`,
      ...sourceOf(config, draft, route),
      ...(shared !== null && { name: shared.toLowerCase().replace(/[^a-z0-9]+/g, '-') }),
      ...(policy !== 'local' && { store: 'redis' })
    })
  },
  'limit-req': (config, { edge, route }, { draft }) => {
    const rate = config.number('rate') ?? 1
    const burst = config.number('burst') ?? 0
    const isSlow = rate < 1
    refusal(config, draft, route)
    config.skip('policy')
    addLimit(edge, {
      algorithm: 'token-bucket',
      max: isSlow ? Math.max(1, Math.round(rate * 60)) : Math.round(rate),
      window: isSlow ? '1m' : '1s',
      burst: Math.max(1, Math.round(burst)),
      ...sourceOf(config, draft, route)
    })
  },
  'limit-conn': (config, { edge, route }, { draft }) => {
    refusal(config, draft, route)
    config.skip('default_conn_delay', 'only_use_default_delay', 'policy')
    addLimit(edge, {
      maxConcurrent: (config.number('conn') ?? 1) + (config.number('burst') ?? 0),
      ...sourceOf(config, draft, route)
    })
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
    const policies = apisixBreaker(config)
    if (route === null) Object.assign(draft.mesh, policies)
    else route.mesh = { ...((route.mesh ?? {}) as Settings), ...policies }
  },
  'proxy-mirror': (config, { route }, { draft }) => {
    const host = config.text('host')
    config.skip(...config.keys)
    draft.note(route, `proxy-mirror: write a service for ${host} and mesh.mirror`)
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
