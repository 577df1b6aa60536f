/** Plugins of Kong, as concerns of the edge. */
import { Buffer } from 'node:buffer'
import { kongFileLog } from './access-logs.ts'
import type { Foreign } from './foreign.ts'
import { ImportFault, member } from './foreign.ts'
import { access } from './kong-access.ts'
import { advancedLimit, rateLimit, responseLimit } from './kong-limits.ts'
import { routing } from './kong-routing.ts'
import type { Convert, KongContext, Place } from './kong-scope.ts'
import { kinds, reference } from './kong-scope.ts'
import { transforms } from './kong-transforms.ts'
import { oneOrAll } from './patterns.ts'
import type { Settings } from './yaml-text.ts'

const byAgent = 'write edge.accessLog, on stdout, where an agent reads it'
const byMetrics = 'scrape /metrics of the admin port, or write metricsPush'

/** Equivalents of plugins that are not converted. */
const hints: Readonly<Record<string, string>> = {
  acme: 'an ACME client writes certificates into listen.tls.folders',
  'http-log': byAgent,
  'tcp-log': byAgent,
  'udp-log': byAgent,
  syslog: byAgent,
  loggly: byAgent,
  'kafka-log': byAgent,
  statsd: byMetrics,
  'statsd-advanced': byMetrics,
  datadog: byMetrics,
  zipkin: 'write tracing.otlp.http',
  'mtls-auth': 'write listen.tls.clientCertificate and edge.mtlsAuth',
  mocking: 'write routes with "response"'
}

const methods = [
  'key-auth',
  'key-auth-enc',
  'basic-auth',
  'hmac-auth',
  'jwt',
  'mtls-auth',
  'openid-connect',
  'oauth2-introspection'
]

/** Returns the name of a plugin. Throws {ImportFault} for a plugin without one, which would be lost. */
export function nameOf(plugin: Foreign): string {
  const name = plugin.text('name')
  if (name === undefined) throw new ImportFault(`${plugin.where}.name: expected the name of a plugin, found nothing`)
  return name
}

/** Returns the consumer, or the group of consumers, for whose requests alone a plugin is. */
function callerOf(plugin: Foreign): string | undefined {
  const [consumer, group] = [reference(plugin, 'consumer'), reference(plugin, 'consumer_group')]
  if (consumer !== undefined) return `consumer ${consumer}`
  return group === undefined ? undefined : `consumer_group ${group}`
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
    plugin.skip('id', 'tags', 'protocols', 'instance_name', 'created_at', 'updated_at', ...kinds)
    const name = nameOf(plugin)
    const caller = place.hasMethod ? undefined : callerOf(plugin)
    const other = place.hasMethod ? (['route', 'service'] as const).find((kind) => plugin.has(kind)) : undefined
    if ((caller ?? other) !== undefined && plugin.flag('enabled') !== false) {
      plugin.skip(...plugin.keys)
      const text =
        other === undefined
          ? `plugin ${name} of ${caller} alone: write it under consumers[].edge`
          : `plugin ${name} of a consumer at one ${other}: not converted`
      context.draft.undecided(place.about, text)
    } else if (plugin.isOff()) context.draft.note(place.about, `plugin ${name} is off (enabled: false): not converted`)
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
      const hint = member(hints, name)
      context.draft.unknown(place.about, name, `plugin ${name}: not converted${hint === undefined ? '' : `; ${hint}`}`)
    }
    const anonymous = methods.includes(name) ? config.text('anonymous') : undefined
    if (anonymous !== undefined)
      target.authentication = { ...((target.authentication ?? {}) as Settings), require: 'any', anonymous }
  }
  if (used.length === 0) return
  const authentication = (target.authentication ?? {}) as Settings
  if (used.length > 1) authentication.require ??= 'all'
  const forward = { id: 'x-consumer-username', ...(authentication.forward as Settings | undefined) }
  target.authentication = { ...authentication, forward }
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
    ...(config.flag('private_network') === true && { privateNetwork: true }),
    ...(maxAge !== undefined && { maxAge: `${maxAge}s` })
  }
  config.skip('allow_origin_absent')
  if (config.flag('preflight_continue') === true)
    draft.note(about, 'cors: preflight_continue: preflights are answered here, and never reach the service')
}

const jwt: Convert = (config, { target, about, context: { draft, issuers } }) => {
  if (issuers.length === 0) {
    draft.undecided(about, 'plugin jwt: no consumer has a secret; write edge.jwt with the key of the issuer')
    return
  }
  const [query, ...queries] = config.has('uri_param_names') ? config.texts('uri_param_names') : ['jwt']
  const [cookie, ...cookies] = config.texts('cookie_names')
  const [header, ...headers] = config.texts('header_names')
  const others = [...queries, ...cookies, ...headers]
  if (others.length > 0)
    draft.note(about, `jwt: tokens in ${others.join(', ')}: not converted; there is one parameter, cookie and header`)
  const isBase64 = config.flag('secret_is_base64') === true
  const longest = config.number('maximum_expiration') ?? 0
  if (longest > 0)
    draft.undecided(about, `jwt: maximum_expiration ${longest}: not converted; tokens may be valid for longer`)
  const requiresExp = config.texts('claims_to_verify').includes('exp')
  target.jwt = {
    issuers: isBase64 ? issuers.map((issuer) => decoded(issuer, (text) => draft.note(about, text))) : issuers,
    consumer: config.text('key_claim_name') ?? 'iss',
    ...(!requiresExp && { requireExp: false }),
    from: {
      ...(header !== undefined && header.toLowerCase() !== 'authorization' && { header }),
      ...(query !== undefined && { query }),
      ...(cookie !== undefined && { cookie })
    }
  }
  config.skip('run_on_preflight', 'realm')
}

/** Returns an issuer whose secret is in base64. */
function decoded(issuer: Settings, note: (text: string) => void): Settings {
  if (typeof issuer.secret !== 'string') return issuer
  const secret = Buffer.from(issuer.secret, 'base64').toString()
  if (/^[\x20-\x7e]+$/.test(secret)) return { ...issuer, secret }
  note(
    `jwt: the secret of ${String(issuer.issuer)} is base64 of no text: write the decoded secrets under edge.jwt.issuers, or others`
  )
  return issuer
}

const units: Readonly<Record<string, string>> = { megabytes: 'mb', kilobytes: 'kb', bytes: 'b' }

const keyAuth: Convert = (config, { target, about, context: { draft } }) => {
  const [name = 'apikey', ...others] = config.texts('key_names')
  if (others.length > 0) draft.note(about, `key-auth: keys in ${others.join(', ')}: not converted; there is one header`)
  const inQuery = config.flag('key_in_query') ?? true
  const inHeader = config.flag('key_in_header') ?? true
  target.keyAuth = {
    header: inHeader ? name : false,
    ...(inQuery && { query: name }),
    ...(config.flag('hide_credentials') !== true && { hideCredentials: false })
  }
  if (config.flag('key_in_body') === true) draft.note(about, 'key-auth: key_in_body: keys in bodies are not read here')
  config.skip('run_on_preflight', 'realm')
}

const converters: Readonly<Record<string, Convert>> = {
  'key-auth': keyAuth,
  'key-auth-enc': keyAuth,
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
  acl: (config, { target, authenticates }) => {
    const allow = [...config.texts('allow'), ...config.texts('whitelist')]
    const deny = [...config.texts('deny'), ...config.texts('blacklist')]
    target.acl = {
      ...((target.acl ?? {}) as Settings),
      ...(allow.length > 0 && { allow }),
      ...(deny.length > 0 && { deny })
    }
    if (authenticates && config.flag('hide_groups_header') !== true) {
      const { forward, ...rest } = (target.authentication ?? {}) as Settings
      target.authentication = { ...rest, forward: { ...(forward as Settings), groups: 'x-consumer-groups' } }
    }
    config.skip('include_consumer_groups', 'always_use_authenticated_groups')
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
  'response-ratelimiting': responseLimit,
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
  ...routing,
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
