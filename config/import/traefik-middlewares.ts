/** Middlewares of Traefik, as concerns of the edge and changes of the path. */
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import { addRules, respondWith } from './headers.ts'
import { oneOrAll, rewriteOf } from './patterns.ts'
import type { Settings } from './yaml-text.ts'

export type Middlewares = ReadonlyMap<string, Foreign>

interface Place {
  readonly route: Settings
  readonly edge: Settings
  readonly draft: Draft
}

type Convert = (options: Foreign, place: Place, name: string) => void

/** Applies middlewares in their order, and those of chains in their place. */
export function applyMiddlewares(names: readonly string[], all: Middlewares, place: Place, depth = 0): void {
  for (const name of names) {
    const middleware = all.get(name)
    if (middleware === undefined) {
      place.draft.undecided(place.route, `middleware ${name} is not in this file`)
      continue
    }
    const chain = depth < 10 ? middleware.map('chain') : undefined
    if (chain !== undefined) {
      applyMiddlewares(
        chain.texts('middlewares').map((each) => each.split('@', 1)[0]!),
        all,
        place,
        depth + 1
      )
    }
    for (const kind of middleware.keys) {
      if (kind === 'chain') continue
      const convert = member(converters, kind)
      if (convert !== undefined) {
        convert(middleware.mapOrEmpty(kind), place, name)
      } else {
        middleware.skip(kind)
        place.draft.unknown(place.route, kind, `middleware ${name} (${kind}): not converted`)
      }
    }
  }
}

const path: (route: Settings, settings: Settings) => void = (route, settings) => {
  route.path = { ...((route.path ?? {}) as Settings), ...settings }
}

/** Returns the source of a limit. */
function sourceOf(options: Foreign): Settings {
  const criterion = options.map('sourceCriterion')
  const header = criterion?.text('requestHeaderName')
  const isHost = criterion?.flag('requestHost') === true
  criterion?.map('ipStrategy')?.skip('depth', 'excludedIPs', 'ipv6Subnet')
  if (header !== undefined) return { by: `header:${header.toLowerCase()}` }
  return isHost ? { by: 'header:host' } : {}
}

const ipAllowList: Convert = (options, { edge }) => {
  edge.ipFilter = { allow: options.texts('sourceRange') }
  options.map('ipStrategy')?.skip('depth', 'excludedIPs', 'ipv6Subnet')
  options.skip('rejectStatusCode')
}

const converters: Readonly<Record<string, Convert>> = {
  stripPrefix: (options, { route }) => {
    const prefixes = options.texts('prefixes')
    options.skip('forceSlash')
    path(route, { strip: prefixes.length === 1 ? prefixes[0] : true })
  },
  addPrefix: (options, { route, draft }) => {
    const prefix = options.text('prefix') ?? ''
    const { path: matched } = route.match as Settings
    // The path is kept behind the prefix: that of the match is rewritten to both.
    if (typeof matched === 'string' && route.path === undefined) {
      path(route, { rewrite: { prefix: `${prefix}${matched === '/' ? '' : matched}` } })
    } else draft.note(route, `addPrefix ${prefix}: write path.rewrite.prefix`)
  },
  replacePath: (options, { route }) => path(route, { rewrite: { path: options.text('path') } }),
  replacePathRegex: (options, { route }) =>
    path(route, rewriteOf(options.text('regex') ?? '', options.text('replacement') ?? '')),
  basicAuth: (options, { edge, draft, route }, name) => {
    options.skip('realm', 'removeHeader', 'headerField')
    if (options.has('usersFile'))
      draft.note(route, `${name}: usersFile ${options.text('usersFile')}: write its users as consumers`)
    edge.basicAuth = options.flag('removeHeader') === true ? {} : { hideCredentials: false }
    for (const line of options.texts('users')) {
      const colon = line.indexOf(':')
      const username = line.slice(0, colon)
      const hash = line.slice(colon + 1)
      const known = draft.consumers.some((consumer) => consumer.name === username)
      if (known) continue
      if (/^\$2[aby]\$/.test(hash)) draft.consumers.push({ name: username, basicAuth: { username, hash } })
      else
        draft.note(
          route,
          `user ${username} of ${name}: an MD5 or SHA-1 hash; write a consumer with the output of jingwei hash-password`
        )
    }
  },
  forwardAuth: (options, { edge }) => {
    const requestHeaders = options.texts('authRequestHeaders')
    const responseHeaders = options.texts('authResponseHeaders')
    options.skip('trustForwardHeader', 'tls', 'addAuthCookiesToResponse')
    edge.forwardAuth = {
      url: options.text('address'),
      ...(requestHeaders.length > 0 && { requestHeaders: requestHeaders.map((each) => each.toLowerCase()) }),
      ...(responseHeaders.length > 0 && { responseHeaders: responseHeaders.map((each) => each.toLowerCase()) }),
      ...(options.flag('forwardBody') === true && { forwardBody: true })
    }
  },
  ipAllowList,
  ipWhiteList: ipAllowList,
  rateLimit: (options, { edge, draft, route }) => {
    const max = options.number('average') ?? 0
    const period = options.text('period') ?? '1s'
    const burst = options.number('burst') ?? 1
    if (max === 0) return draft.note(route, 'rateLimit without average: no limit')
    const window = /^\d+$/.test(period) ? `${period}s` : period
    edge.rateLimit = { algorithm: 'token-bucket', max, window, burst, ...sourceOf(options) }
  },
  inFlightReq: (options, { edge }) => {
    edge.rateLimit = { maxConcurrent: options.number('amount'), ...sourceOf(options) }
  },
  buffering: (options, { edge, route, draft }) => {
    const most = options.number('maxRequestBodyBytes')
    if (most !== undefined) edge.bodyLimit = `${most}b`
    options.skip('memRequestBodyBytes', 'memResponseBodyBytes')
    if (options.has('maxResponseBodyBytes') || options.has('retryExpression')) {
      draft.note(route, `${options.where}: responses are not buffered`)
      options.skip('maxResponseBodyBytes', 'retryExpression')
    }
  },
  retry: (options, { route }) => {
    const attempts = (options.number('attempts') ?? 1) - 1
    options.skip('initialInterval')
    route.mesh = { ...((route.mesh ?? {}) as Settings), retry: attempts <= 0 ? false : { attempts } }
  },
  headers: (options, { edge, route, draft }) => {
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
      addRules(edge, direction, {
        remove: all.filter(([, value]) => value === '').map(([name]) => name),
        set: Object.fromEntries(all.filter(([, value]) => value !== ''))
      })
    }
    addRules(edge, 'response', { set: securityOf(options) })
    for (const key of options.keys) {
      if (key.startsWith('accessControl') || ofSecurity.has(key) || key.startsWith('custom') || key === 'addVaryHeader')
        continue
      options.skip(key)
      draft.note(route, `${options.where}.${key}: not converted`)
    }
  },
  compress: (options, { edge }) => {
    options.skip(...options.keys)
    edge.compression = {}
  },
  redirectScheme: (options, { route }) => {
    const port = options.number('port')
    const status = options.flag('permanent') === true ? 308 : 307
    respondWith(route, 'redirect', {
      scheme: options.text('scheme') ?? 'https',
      ...(port !== undefined && { port }),
      status
    })
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
