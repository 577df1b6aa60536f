/** Plugins of APISIX that decide about requests by schemas, pages, logins and faults. */
import type { Convert } from './apisix-scope.ts'
import { noteRefusal } from './apisix-scope.ts'
import type { Foreign } from './foreign.ts'
import { addRules, respondWith } from './headers.ts'
import { sessionOf } from './logins.ts'
import { rewriteOf } from './patterns.ts'
import type { Settings } from './yaml-text.ts'

const wellKnown = '/.well-known/openid-configuration'
const dialect = 'http://json-schema.org/draft-07/schema#'

const schemaOf = (value: unknown): Settings | null =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? { $schema: dialect, ...value } : null

const lowerKeys = (value: unknown): unknown =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).map(([name, each]) => [name.toLowerCase(), each as unknown]))
    : value

const validation: Convert = (config, { edge, route }, { draft }) => {
  const [body, headers] = [schemaOf(config.value('body_schema')), schemaOf(config.value('header_schema'))]
  noteRefusal(config, 400, (text) => draft.note(route, text))
  if (body === null && headers === null) return draft.undecided(route, `${config.where}: write edge.validation`)
  edge.validation = {
    ...(headers !== null && {
      headers: {
        ...headers,
        properties: lowerKeys(headers.properties ?? {}),
        ...(Array.isArray(headers.required) && { required: headers.required.map((each) => String(each).toLowerCase()) })
      }
    }),
    ...(body !== null && { body: { content: { 'application/json': body, 'application/x-www-form-urlencoded': body } } })
  }
}

const openidConnect: Convert = (config, { edge, route }, { draft }) => {
  const discovery = config.text('discovery') ?? ''
  const issuer = discovery.endsWith(wellKnown) ? discovery.slice(0, -wellKnown.length) : discovery
  const [clientId = '', clientSecret] = [config.text('client_id'), config.text('client_secret')]
  const [key, endpoint] = [config.text('public_key'), config.text('introspection_endpoint')]
  const scopes = (config.text('scope') ?? '').split(' ').filter((each) => each !== '')
  const required = config.texts('required_scopes')
  const [action, logout] = [config.text('unauth_action') ?? 'auth', config.text('logout_path')]
  const secret = config.map('session')?.text('secret')
  const isBearer = config.flag('bearer_only') === true
  const isOptional = action === 'pass'
  const hasInfo = config.flag('set_userinfo_header') ?? true
  const of = { ...(required.length > 0 && { scopes: required }) }
  if (isBearer && endpoint !== undefined) {
    edge.introspection = { url: endpoint, clientId, clientSecret: clientSecret ?? '', ...of }
    if (hasInfo) addRules(edge, 'request', { remove: ['x-userinfo'] })
    if (isOptional) draft.note(route, `${config.where}.unauth_action pass: write edge.authentication.anonymous`)
  } else if (isBearer) {
    const source = key === undefined ? { issuer, discovery: true } : { publicKey: key }
    const forwarded = hasInfo && { forwardClaims: { header: 'x-userinfo' } }
    edge.jwt = { ...source, ...of, ...(isOptional && { optional: true }), ...forwarded }
    if (key !== undefined)
      draft.undecided(route, `${config.where}: write edge.jwt.issuer, which APISIX reads from ${discovery}`)
  } else if (action === 'auth') {
    edge.oidc = {
      issuer,
      clientId,
      ...(clientSecret !== undefined && { clientSecret }),
      ...(scopes.length > 0 && { scopes }),
      session: sessionOf(secret, (text) => draft.note(route, text)),
      ...(logout !== undefined && { logout: { path: logout } })
    }
    // Services trust this header, which APISIX sets.
    if (hasInfo) addRules(edge, 'request', { remove: ['x-userinfo'] })
    if (required.length > 0) edge.acl = { ...((edge.acl ?? {}) as Settings), scopes: required }
    draft.note(route, `openid-connect: register https://HOST/oidc/callback at ${issuer}`)
  } else draft.undecided(route, `openid-connect with unauth_action ${action}: not converted`)
  if (config.has('claim_validator') || config.has('claim_schema'))
    draft.undecided(route, `${config.where}: claims are checked there: write edge.jwt.claims or edge.acl.claims`)
  config.skip(...config.keys)
}

/** Returns the expression for `Referer` with a host: `*.a.example` is any host below it. */
function refererOf(host: string): string {
  const escaped = host.replace(/^\*\./, '').replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
  return `/^https?:\\/\\/${host.startsWith('*.') ? '[^/]+\\.' : ''}${escaped}(:[0-9]+)?(\\/.*)?$/`
}

const referer: Convert = (config, { edge, route }, { draft }) => {
  const [allow, deny] = [config.texts('whitelist'), config.texts('blacklist')]
  const passesMissing = config.flag('bypass_missing') === true
  config.skip('message')
  if (edge.authorization !== undefined || (allow.length === 0 && deny.length === 0))
    return draft.undecided(route, `${config.where}: write edge.authorization`)
  const rule = (action: string, value: unknown) => ({ action, headers: { referer: value } })
  const rules =
    allow.length > 0
      ? [rule('allow', allow.map(refererOf)), ...(passesMissing ? [rule('allow', false)] : [])]
      : [rule('deny', deny.map(refererOf)), ...(passesMissing ? [] : [rule('deny', false)])]
  edge.authorization = { rules, default: allow.length > 0 ? 'deny' : 'allow' }
}

const fault: Convert = (config, { route }, { draft }) => {
  const [abort, delay] = [config.map('abort'), config.map('delay')]
  const status = abort?.number('http_status')
  const duration = delay?.number('duration')
  const share = (part: Foreign | undefined) => {
    const percent = part?.number('percentage')
    return percent !== undefined && { percent: `${percent}%` }
  }
  const settings = {
    ...(status !== undefined && { abort: { status, ...share(abort) } }),
    ...(duration !== undefined && { delay: { for: `${duration * 1000}ms`, ...share(delay) } })
  }
  const isConditional = [abort, delay].some((each) => each?.has('vars'))
  const hasMore = ['body', 'headers'].some((key) => abort?.has(key))
  for (const each of [abort, delay]) each?.skip(...each.keys)
  if (isConditional || route === null) return draft.undecided(route, `${config.where}: write mesh.fault`)
  route.mesh = { ...((route.mesh ?? {}) as Settings), fault: settings }
  if (hasMore) draft.note(route, `${config.where}.abort: body and headers: not converted`)
}

const mocking: Convert = (config, { route }, { draft }) => {
  const [status, type, body] = [
    config.number('response_status'),
    config.text('content_type'),
    config.text('response_example')
  ]
  const headers = config.map('response_headers')
  const fields = Object.fromEntries(
    (headers?.keys ?? []).map((name) => [name.toLowerCase(), headers!.text(name) ?? ''])
  )
  if (config.has('delay')) draft.note(route, `${config.where}.delay: not converted; responses come at once`)
  config.skip('with_mock_header', 'delay', 'response_schema')
  if (route === null || (body === undefined && config.has('response_schema')))
    return draft.note(route, 'mocking: write a route with "response"')
  respondWith(route, 'response', {
    ...(status !== undefined && { status }),
    ...(Object.keys(fields).length > 0 && { headers: fields }),
    ...(body !== undefined && { body, contentType: type ?? 'application/json' })
  })
}

/** Returns the options of a compression for those of one encoding, added to those of another one. */
const compression =
  (encoding: 'gzip' | 'br'): Convert =>
  (config, { edge, route }, { draft }) => {
    const before = (edge.compression ?? {}) as Settings
    const types = config.texts('types').filter((type) => type !== '*')
    const [size, level] = [config.number('min_length'), config.number('comp_level')]
    edge.compression = {
      ...before,
      encodings: [...((before.encodings as string[] | undefined) ?? []), encoding],
      ...(types.length > 0 && { types }),
      ...(size !== undefined && size > 0 && { minSize: `${size}b` }),
      ...(level !== undefined && { level: { ...((before.level ?? {}) as Settings), [encoding]: level } })
    }
    if (config.texts('types').includes('*'))
      draft.note(route, `${config.where}.types "*": write edge.compression.types`)
    config.skip(...config.keys)
  }

const redirect: Convert = (config, { route }, { draft }) => {
  const to = config.text('uri')
  const [regex, replacement] = config.texts('regex_uri')
  const status = config.number('ret_code') ?? 302
  const isHttps = config.flag('http_to_https') === true
  const keepsQuery = config.flag('append_query_string') === true
  config.skip(...config.keys)
  const query = keepsQuery ? {} : { query: 'drop' }
  const [, origin] = /^(https?:\/\/[^/$]+)\$(?:request_uri|\{request_uri\})$/.exec(to ?? '') ?? []
  if (isHttps) draft.note(route, 'redirect with http_to_https: write listen.redirect: https')
  else if (route !== null && regex !== undefined) {
    respondWith(route, 'redirect', { status, ...query })
    route.path = rewriteOf(regex, replacement ?? '')
  } else if (route !== null && origin !== undefined) respondWith(route, 'redirect', { to: origin, status })
  else if (route === null || to === undefined || to.includes('$'))
    draft.note(route, 'redirect: write a route with "redirect"')
  else respondWith(route, 'redirect', { to, status, ...query })
}

const keycloak: Convert = (config, { edge, route }, { draft }) => {
  const discovery = config.text('discovery')
  const isKeycloak = discovery?.endsWith(wellKnown) === true
  const endpoint = isKeycloak ? `${discovery!.slice(0, -wellKnown.length)}/protocol/openid-connect/token` : undefined
  const url = config.text('token_endpoint') ?? endpoint
  const audience = config.text('client_id')
  const isLazy = config.flag('lazy_load_paths') === true
  const given = isLazy ? ['{path}'] : config.texts('permissions')
  const byMethod = config.flag('http_method_as_scope') === true
  const mode = config.text('policy_enforcement_mode') ?? 'ENFORCING'
  const ms = config.number('timeout')
  config.skip(...config.keys)
  if (url === undefined || audience === undefined || given.length === 0 || mode !== 'ENFORCING')
    return draft.undecided(route, 'authz-keycloak: write edge.uma with url, audience and permissions')
  const permissions = given.map((each) => (byMethod && !each.includes('#') ? `${each}#{method}` : each))
  edge.uma = { url, audience, permissions, ...(ms !== undefined && { timeout: `${ms}ms` }) }
}

export const access: Readonly<Record<string, Convert>> = {
  'request-validation': validation,
  'openid-connect': openidConnect,
  'authz-keycloak': keycloak,
  'referer-restriction': referer,
  'fault-injection': fault,
  mocking,
  redirect,
  gzip: compression('gzip'),
  brotli: compression('br'),
  csrf: (config, { edge, route }, { draft }) => {
    config.skip(...config.keys)
    edge.csrf = {}
    draft.note(route, 'csrf: no tokens here; requests of pages on other sites are refused')
  }
}
