/** The middleware `headers` of Traefik: CORS, changes of headers, headers of security. */
import type { Foreign } from './foreign.ts'
import { addRules } from './headers.ts'
import { oneOrAll } from './patterns.ts'
import type { Convert } from './traefik-scope.ts'

export const headersMiddleware: Convert = (options, { edge, route, draft }) => {
  const origin = [
    ...options.texts('accessControlAllowOriginList'),
    ...options.texts('accessControlAllowOriginListRegex').map((each) => `/^${each.replace(/^\^|\$$/g, '')}$/`)
  ]
  const lists = [
    ['methods', options.texts('accessControlAllowMethods')],
    ['allowedHeaders', options.texts('accessControlAllowHeaders')],
    ['exposedHeaders', options.texts('accessControlExposeHeaders')]
  ] as const
  const maxAge = options.number('accessControlMaxAge')
  if (origin.length > 0) {
    edge.cors = {
      origin: oneOrAll(origin),
      ...Object.fromEntries(lists.filter(([, list]) => list.length > 0)),
      ...(options.flag('accessControlAllowCredentials') === true && { credentials: true }),
      ...(maxAge !== undefined && { maxAge: `${maxAge}s` })
    }
  }
  options.skip('addVaryHeader', 'accessControlAllowCredentials')
  for (const direction of ['request', 'response'] as const) {
    const custom = options.map(direction === 'request' ? 'customRequestHeaders' : 'customResponseHeaders')
    const all = (custom?.keys ?? []).map((name) => [name.toLowerCase(), custom!.text(name) ?? ''] as const)
    const host = direction === 'request' ? all.find(([name]) => name === 'host')?.[1] : undefined
    if (host !== undefined && /[.:]/.test(host)) edge.host = host
    const rest = all.filter(([name]) => name !== 'host' || edge.host !== host)
    addRules(
      edge,
      direction,
      {
        remove: rest.filter(([, value]) => value === '').map(([name]) => name),
        set: Object.fromEntries(rest.filter(([, value]) => value !== ''))
      },
      undefined,
      (text) => draft.note(route, `${options.where}: ${text}`)
    )
  }
  addRules(edge, 'response', { set: securityOf(options) })
  for (const key of options.keys) {
    if (key.startsWith('accessControl') || ofSecurity.has(key) || key.startsWith('custom') || key === 'addVaryHeader')
      continue
    options.skip(key)
    const text = `${options.where}.${key}: not converted`
    if (key === 'allowedHosts') draft.undecided(route, text)
    else draft.note(route, text)
  }
}

/** Options of `headers` that set one header of security each. */
const ofSecurity = new Set([
  'stsSeconds',
  'stsIncludeSubdomains',
  'stsPreload',
  'forceSTSHeader',
  'frameDeny',
  'customFrameOptionsValue',
  'contentTypeNosniff',
  'browserXssFilter',
  'contentSecurityPolicy',
  'referrerPolicy',
  'permissionsPolicy'
])

function securityOf(options: Foreign): Record<string, string> {
  const seconds = options.number('stsSeconds') ?? 0
  const subdomains = options.flag('stsIncludeSubdomains') === true ? '; includeSubDomains' : ''
  const preload = options.flag('stsPreload') === true ? '; preload' : ''
  const frame = options.text('customFrameOptionsValue') ?? (options.flag('frameDeny') === true ? 'DENY' : undefined)
  const texts = {
    'strict-transport-security': seconds === 0 ? undefined : `max-age=${seconds}${subdomains}${preload}`,
    'x-frame-options': frame,
    'x-content-type-options': options.flag('contentTypeNosniff') === true ? 'nosniff' : undefined,
    'x-xss-protection': options.flag('browserXssFilter') === true ? '1; mode=block' : undefined,
    'content-security-policy': options.text('contentSecurityPolicy'),
    'referrer-policy': options.text('referrerPolicy'),
    'permissions-policy': options.text('permissionsPolicy')
  }
  options.skip('forceSTSHeader')
  return Object.fromEntries(Object.entries(texts).filter((each): each is [string, string] => each[1] !== undefined))
}
