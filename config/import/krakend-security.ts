/** Settings of KrakenD that decide who is let in, and headers of security. */
import { keyHash } from './credentials.ts'
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { addRules } from './headers.ts'
import type { Convert } from './krakend-scope.ts'
import type { Settings } from './yaml-text.ts'

const headersOfSecurity: Convert = (config, edge, draft, route) => {
  const seconds = config.number('sts_seconds') ?? 0
  const subdomains = config.flag('sts_include_subdomains') === true ? '; includeSubDomains' : ''
  const frame = config.text('custom_frame_options_value') || (config.flag('frame_deny') === true ? 'DENY' : undefined)
  const texts = {
    'strict-transport-security': seconds === 0 ? undefined : `max-age=${seconds}${subdomains}`,
    'x-frame-options': frame,
    'x-content-type-options': config.flag('content_type_nosniff') === true ? 'nosniff' : undefined,
    'x-xss-protection': config.flag('browser_xss_filter') === true ? '1; mode=block' : undefined,
    'content-security-policy': config.text('content_security_policy'),
    'referrer-policy': config.text('referrer_policy')
  }
  const given = Object.entries(texts).filter((each): each is [string, string] => Boolean(each[1]))
  addRules(edge, 'response', { set: Object.fromEntries(given) })
  const hosts = config.texts('allowed_hosts')
  if (hosts.length > 0)
    draft.undecided(route, `security/http: allowed_hosts ${hosts.join(', ')}: write match.hosts of the routes`)
  if (config.flag('ssl_redirect') === true)
    draft.undecided(route, 'security/http: ssl_redirect: write listen.tls and listen.redirect')
  config.skip(
    'ssl_host',
    'ssl_proxy_headers',
    'hpkp_public_key',
    'is_development',
    'host_proxy_headers',
    'allowed_hosts_are_regex'
  )
}

const bots: Convert = (config, edge, draft, route) => {
  const patterns = config.texts('patterns').map((each) => `/^.*(?:${each.replace(/^\.\*|\.\*$/g, '')}).*$/`)
  const [deny, allow] = [[...config.texts('deny'), ...patterns], config.texts('allow')]
  const isEmptyBot = config.flag('empty_user_agent_is_bot') === true
  config.skip('cache_size')
  if (deny.length === 0) return draft.undecided(route, 'security/bot-detector without "deny": write edge.userAgent')
  edge.userAgent = {
    deny,
    ...(allow.length > 0 && { except: allow }),
    ...(isEmptyBot && { empty: 'refuse' })
  }
}

const schemaOfBody: Convert = (config, edge) => {
  const schema = Object.fromEntries(config.keys.map((key) => [key, config.value(key)]))
  const $schema = schema.$schema ?? 'http://json-schema.org/draft-07/schema#'
  edge.validation = { body: { content: { 'application/json': { ...schema, $schema } } } }
}

const basicAuth: Convert = (config, edge, draft, route) => {
  const file = config.text('htpasswd_path')
  const users = config.map('users')
  edge.basicAuth = { hideCredentials: false }
  // Consumers are for all routes, and these users for their endpoint.
  if (users !== undefined) edge.acl = { ...((edge.acl ?? {}) as Settings), allowConsumers: users.keys }
  for (const name of users?.keys ?? []) {
    const hash = users!.text(name) ?? ''
    if (draft.consumers.some((consumer) => consumer.name === name)) continue
    if (/^\$2[aby]\$/.test(hash)) draft.consumers.push({ name, basicAuth: { username: name, hash } })
    else
      draft.note(
        route,
        `user ${name}: a hash other than bcrypt; write a consumer with the output of jingwei hash-password`
      )
  }
  if (file !== undefined)
    draft.undecided(
      route,
      `auth/basic: htpasswd_path ${file}: write its users as consumers, and name them in acl.allowConsumers`
    )
}

/** Declares the consumers of keys, and their place; for an endpoint, requires one of the keys. */
const apiKeys: Convert = (config, edge, draft, route) => {
  if (route === null) return declareKeys(config, draft)
  const roles = config.texts('roles')
  for (const key of config.keys.filter((each) => config.isUnread(each)))
    draft.unknown(route, `auth ${key}`, `auth/api-keys.${key}: not converted`)
  config.skip(...config.keys)
  if (draft.keyAuth === null)
    return draft.undecided(route, 'auth/api-keys: no keys are declared for all endpoints; write edge.keyAuth')
  edge.keyAuth = { ...draft.keyAuth, hideCredentials: false }
  if (roles.length > 0) edge.acl = { ...((edge.acl ?? {}) as Settings), allow: roles }
}

function declareKeys(config: Foreign, draft: Draft): void {
  const place = config.text('strategy') ?? 'header'
  const name = config.text('identifier') ?? (place === 'header' ? 'Authorization' : 'key')
  const kind = config.text('hash') ?? 'plain'
  const isSalted = (config.text('salt') ?? '') !== ''
  config.skip('propagate_role')
  for (const [index, each] of config.maps('keys').entries()) {
    const key = each.text('key') ?? ''
    const words = (each.text('@description') ?? '').toLowerCase().match(/[a-z0-9]+/g) ?? ['key', String(index + 1)]
    const roles = each.texts('roles')
    const consumer: Settings = { name: words.join('-'), ...(roles.length > 0 && { groups: roles }) }
    if (each.flag('enabled') === false) {
      draft.note(null, `key ${words.join('-')} is off (enabled: false): not converted`)
      continue
    }
    if (kind === 'plain') consumer.keyAuth = { hash: keyHash(key) }
    else if (kind === 'sha256' && !isSalted && /^[\da-f]{64}$/i.test(key)) {
      consumer.keyAuth = { hash: `sha256:${key.toLowerCase()}` }
    } else draft.note(consumer, `key ${words.join('-')}: ${kind}; write keyAuth with the output of jingwei hash-key`)
    draft.consumers.push(consumer)
  }
  draft.keyAuth = place === 'header' ? { header: name } : { header: false, query: name }
}

/** Settings of KrakenD's router. Many are about its own responses. */
export const router: Convert = (config, edge, draft) => {
  const size = config.number('max_payload') ?? 0
  const trusted = config.texts('trusted_proxies')
  if (size > 0) edge.bodyLimit = `${size}b`
  if (trusted.length > 0) draft.listen.trustProxy = trusted
  const headers = config.texts('remote_ip_headers').filter((name) => name.toLowerCase() !== 'x-forwarded-for')
  if (headers.length > 0)
    draft.note(null, `router: remote_ip_headers ${headers.join(', ')}: X-Forwarded-For is read here`)
  config.skip(...config.keys)
}

export const security: Readonly<Record<string, Convert>> = {
  'security/http': headersOfSecurity,
  'security/bot-detector': bots,
  'validation/json-schema': schemaOfBody,
  'auth/basic': basicAuth,
  'auth/api-keys': apiKeys
}
