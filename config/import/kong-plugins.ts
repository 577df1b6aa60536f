/** Plugins of Kong, as concerns of the edge. */
import { kongFileLog } from './access-logs.ts'
import type { Foreign } from './foreign.ts'
import { ImportFault, member } from './foreign.ts'
import { access } from './kong-access.ts'
import type { Convert, KongContext, Place } from './kong-scope.ts'
import { transforms } from './kong-transforms.ts'
import { oneOrAll } from './patterns.ts'
import type { Settings } from './yaml-text.ts'

const methods = ['key-auth', 'basic-auth', 'hmac-auth', 'jwt', 'mtls-auth', 'openid-connect', 'oauth2-introspection']

/** Returns the name of a plugin. Throws {ImportFault} for a plugin without one, which would be lost. */
export function nameOf(plugin: Foreign): string {
  const name = plugin.text('name')
  if (name === undefined) throw new ImportFault(`${plugin.where}.name: expected the name of a plugin, found nothing`)
  return name
}

/** Converts the plugins of a place; of several with one name, the last. `shared` are those of its service. */
export function applyPlugins(
  plugins: readonly Foreign[],
  context: KongContext,
  place: Place,
  shared: readonly Foreign[] = []
): void {
  const byName = new Map<string, Foreign>()
  for (const plugin of plugins) {
    plugin.skip('id', 'tags', 'protocols', 'instance_name', 'service', 'route', 'consumer')
    const name = nameOf(plugin)
    if (plugin.isOff()) context.draft.note(place.about, `plugin ${name} is off (enabled: false): not converted`)
    else byName.set(name, plugin)
  }
  const used = methods.filter((name) => byName.has(name))
  const { target } = place
  for (const [name, plugin] of byName) {
    const config = plugin.mapOrEmpty('config')
    const convert = member(converters, name)
    const isShared = place.about === null || shared.includes(plugin)
    const scope = { ...place, context, authenticates: used.length > 0 || place.hasMethod, isShared }
    if (convert !== undefined) convert(config, scope)
    else {
      config.skip(...config.keys)
      context.draft.unknown(place.about, name, `plugin ${name}: not converted`)
    }
    const anonymous = methods.includes(name) ? config.text('anonymous') : undefined
    if (anonymous !== undefined) target.authentication = { require: 'any', anonymous }
  }
  if (used.length === 0) return
  const authentication = (target.authentication ?? {}) as Settings
  if (used.length > 1) authentication.require ??= 'all'
  target.authentication = { ...authentication, forward: { id: 'x-consumer-username' } }
}

const seconds: readonly (readonly [key: string, window: string])[] = [
  ['second', '1s'],
  ['minute', '1m'],
  ['hour', '1h'],
  ['day', '1d'],
  ['month', '30d'],
  ['year', '365d']
]

const rateLimit: Convert = (config, { target, about, name, context: { draft }, authenticates, isShared }) => {
  const by = config.text('limit_by') ?? 'consumer'
  const header = config.text('header_name')
  const kinds: Readonly<Record<string, string>> = {
    ip: 'ip',
    consumer: authenticates ? 'consumer' : 'ip',
    credential: authenticates ? 'consumer' : 'ip',
    header: `header:${header}`,
    service: 'route',
    path: 'route'
  }
  const redis = config.map('redis')
  const isRedis = config.text('policy') === 'redis'
  const host = redis?.text('host') ?? config.text('redis_host')
  const port = redis?.text('port') ?? config.text('redis_port') ?? '6379'
  redis?.skip(...redis.keys)
  if (isRedis) draft.redis ??= `redis://${host ?? 'redis'}:${port}`
  const isOpen = config.flag('fault_tolerant') ?? true
  const limits = seconds.flatMap(([key, window]) => {
    const max = config.number(key)
    return max === undefined ? [] : [{ max, window }]
  })
  const more: Settings = {
    ...(member(kinds, by) !== 'ip' && { by: member(kinds, by) ?? by }),
    ...(isShared && { name: `${name}-limit` }),
    ...(isRedis && { store: 'redis', onFailure: isOpen ? 'share' : 'closed' }),
    ...(config.flag('hide_client_headers') === true && { headers: 'none' })
  }
  // All limits of a place share a name only if they are one.
  const all = limits.map((limit, index) => ({
    ...limit,
    ...more,
    ...(isShared && limits.length > 1 && { name: `${String(more.name)}-${index + 1}` })
  }))
  config.skip(
    'sync_rate',
    'error_code',
    'error_message',
    'path',
    'redis_timeout',
    'redis_database',
    'redis_password',
    'redis_ssl'
  )
  if (limits.some(({ window }) => window === '365d')) draft.note(about, 'a limit per year: 365 days')
  if (all.length > 0) target.rateLimit = oneOrAll(all)
  else draft.undecided(about, `${config.where}: no limit is set`)
}

const advancedLimit: Convert = (config, { target, about, name, context: { draft }, authenticates, isShared }) => {
  const windows = config.texts('window_size')
  const maxima = config.texts('limit').map(Number)
  const identifier = config.text('identifier') ?? 'consumer'
  const header = config.text('header_name')
  const by =
    { ip: 'ip', header: `header:${header}`, service: 'route', path: 'route' }[identifier] ??
    (authenticates ? 'consumer' : 'ip')
  const redis = config.map('redis')
  const isRedis = config.text('strategy') === 'redis'
  if (isRedis) draft.redis ??= `redis://${redis?.text('host') ?? 'redis'}:${redis?.text('port') ?? '6379'}`
  const isFixed = config.text('window_type') === 'fixed'
  const limits = maxima.map((max, index) => ({
    max,
    window: `${windows[index] ?? windows[0] ?? 60}s`,
    ...(!isFixed && { algorithm: 'sliding-window' }),
    ...(by !== 'ip' && { by }),
    ...(isShared && { name: `${name}-limit${maxima.length > 1 ? `-${index + 1}` : ''}` }),
    ...(isRedis && { store: 'redis' })
  }))
  if (config.text('identifier') === 'consumer-group') draft.note(about, `${config.where}.identifier: by consumer`)
  config.skip(...config.keys)
  if (limits.length > 0 && maxima.every((max) => Number.isInteger(max) && max > 0)) target.rateLimit = oneOrAll(limits)
  else draft.undecided(about, `${config.where}: no limit is set`)
}

const cors: Convert = (config, { target, about, context: { draft } }) => {
  const origins = config.texts('origins')
  const credentials = config.flag('credentials') === true
  const any = origins.length === 0 || origins.includes('*')
  const exact = origins.map((origin) =>
    /^[\w.:/*-]+$/.test(origin) ? origin : `/^${origin.replace(/^\^|\$$/g, '').replaceAll('/', '\\/')}$/`
  )
  const list = (key: string, name: string) => {
    const values = config.texts(key)
    return values.length > 0 && { [name]: values }
  }
  const maxAge = config.number('max_age')
  target.cors = {
    origin: any ? '*' : oneOrAll(exact),
    ...list('methods', 'methods'),
    ...list('headers', 'allowedHeaders'),
    ...list('exposed_headers', 'exposedHeaders'),
    ...(credentials && { credentials }),
    ...(maxAge !== undefined && { maxAge: `${maxAge}s` })
  }
  if (config.flag('preflight_continue') === true)
    draft.note(about, 'cors: preflight_continue: preflights are answered here, and never reach the service')
}

const jwt: Convert = (config, { target, about, context: { draft, issuers } }) => {
  if (issuers.length === 0) {
    draft.undecided(about, 'plugin jwt: no consumer has a secret; write edge.jwt with the key of the issuer')
    return
  }
  const [query] = config.has('uri_param_names') ? config.texts('uri_param_names') : ['jwt']
  const [cookie] = config.texts('cookie_names')
  const [header] = config.texts('header_names')
  const requiresExp = config.texts('claims_to_verify').includes('exp')
  target.jwt = {
    issuers,
    consumer: config.text('key_claim_name') ?? 'iss',
    ...(!requiresExp && { requireExp: false }),
    from: {
      ...(header !== undefined && header.toLowerCase() !== 'authorization' && { header }),
      ...(query !== undefined && { query }),
      ...(cookie !== undefined && { cookie })
    }
  }
  config.skip('secret_is_base64', 'run_on_preflight', 'maximum_expiration', 'realm')
}

const units: Readonly<Record<string, string>> = { megabytes: 'mb', kilobytes: 'kb', bytes: 'b' }

const converters: Readonly<Record<string, Convert>> = {
  'key-auth': (config, { target, about, context: { draft } }) => {
    const [name = 'apikey', ...others] = config.texts('key_names')
    if (others.length > 0)
      draft.note(about, `key-auth: keys in ${others.join(', ')}: not converted; there is one header`)
    const inQuery = config.flag('key_in_query') ?? true
    const inHeader = config.flag('key_in_header') ?? true
    target.keyAuth = {
      header: inHeader ? name : false,
      ...(inQuery && { query: name }),
      ...(config.flag('hide_credentials') !== true && { hideCredentials: false })
    }
    config.skip('key_in_body', 'run_on_preflight', 'realm')
  },
  'basic-auth': (config, { target }) => {
    target.basicAuth = config.flag('hide_credentials') === true ? {} : { hideCredentials: false }
    config.skip('realm')
  },
  'hmac-auth': (config, { target }) => {
    const algorithms = config.texts('algorithms')
    const enforced = config.texts('enforce_headers')
    const skew = config.number('clock_skew')
    target.hmacAuth = {
      ...(algorithms.length > 0 && { algorithms }),
      ...(enforced.length > 0 && { enforceHeaders: enforced }),
      ...(skew !== undefined && { clockSkew: `${skew}s` }),
      ...(config.flag('validate_request_body') === true && { validateRequestBody: true }),
      ...(config.flag('hide_credentials') !== true && { hideCredentials: false })
    }
    config.skip('realm')
  },
  jwt,
  acl: (config, { target }) => {
    const allow = [...config.texts('allow'), ...config.texts('whitelist')]
    const deny = [...config.texts('deny'), ...config.texts('blacklist')]
    target.acl = { ...(allow.length > 0 && { allow }), ...(deny.length > 0 && { deny }) }
    config.skip('hide_groups_header', 'include_consumer_groups', 'always_use_authenticated_groups')
  },
  'ip-restriction': (config, { target }) => {
    const allow = [...config.texts('allow'), ...config.texts('whitelist')]
    const deny = [...config.texts('deny'), ...config.texts('blacklist')]
    const status = config.number('status')
    target.ipFilter = {
      ...(allow.length > 0 && { allow }),
      ...(deny.length > 0 && { deny }),
      ...(status !== undefined && status !== 403 && { status })
    }
    config.skip('message')
  },
  'rate-limiting': rateLimit,
  'rate-limiting-advanced': advancedLimit,
  cors,
  'request-size-limiting': (config, { target }) => {
    const size = config.number('allowed_payload_size') ?? 128
    target.bodyLimit = `${size}${units[config.text('size_unit') ?? 'megabytes'] ?? 'mb'}`
    config.skip('require_content_length')
  },
  'correlation-id': (config, { about, context: { draft } }) => {
    const header = config.text('header_name') ?? 'Kong-Request-ID'
    config.skip('generator', 'echo_downstream')
    draft.edge.requestId = { header: header.toLowerCase() }
    if (about !== null) draft.note(about, 'correlation-id: edge.requestId is for all routes')
  },
  ...access,
  ...transforms,
  opentelemetry: (config, { about, context: { draft } }) => {
    const endpoint = config.text('traces_endpoint') ?? config.text('endpoint')
    const textsIn = (key: string): Settings => {
      const fields = config.map(key)
      return Object.fromEntries((fields?.keys ?? []).map((name) => [name, fields!.text(name) ?? '']))
    }
    const headers = textsIn('headers')
    const { 'service.name': service, ...attributes } = textsIn('resource_attributes')
    const rate = config.number('sampling_rate')
    for (const key of config.keys.filter((each) => config.isUnread(each)))
      draft.note(about, `${config.where}.${key}: not converted`)
    config.skip(...config.keys)
    if (about !== null || endpoint === undefined)
      return draft.note(about, 'opentelemetry: not converted; tracing is for all routes')
    draft.tracing = {
      otlp: { http: { endpoint, ...(Object.keys(headers).length > 0 && { headers }) } },
      serviceName: service ?? 'kong',
      ...(Object.keys(attributes).length > 0 && { resourceAttributes: attributes }),
      ...(rate !== undefined && { sampleRate: rate })
    }
  },
  prometheus: (config) => config.skip(...config.keys),
  'file-log': (config, { target, about, hasMethod, context: { draft } }) => {
    if (!hasMethod) kongFileLog(config, draft, target, about)
    else {
      config.skip(...config.keys)
      draft.note(about, 'file-log of a consumer: not converted; write edge.accessLog at routes')
    }
  }
}
