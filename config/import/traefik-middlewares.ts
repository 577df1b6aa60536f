/** Middlewares of Traefik, as concerns of the edge and changes of the path. */
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import { respondWith } from './headers.ts'
import { rewriteOf } from './patterns.ts'
import { headersMiddleware } from './traefik-headers.ts'
import type { Convert, Middlewares, Place } from './traefik-scope.ts'
import { redirectOf } from './traefik-urls.ts'
import type { Settings } from './yaml-text.ts'

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

const addLimit = (edge: Settings, limit: Settings): void => {
  edge.rateLimit = edge.rateLimit === undefined ? limit : [edge.rateLimit, limit].flat()
}

/** Most statuses of a range that are written one by one. */
const mostStatuses = 20

/** Returns the statuses of `500-599`, `404` or `400-403`; null for others than those of errors, or for too many. */
function statusesOf(range: string): (string | number)[] | null {
  const [, first = '', last = first] = /^([45]\d\d)(?:-([45]\d\d))?$/.exec(range) ?? []
  if (first === '') return null
  if (first.endsWith('00') && last === `${first[0]}99`) return [`${first[0]}xx`]
  const count = Number(last) - Number(first) + 1
  return count < 1 || count > mostStatuses ? null : Array.from({ length: count }, (_, index) => Number(first) + index)
}

const ipAllowList: Convert = (options, { edge, route, draft }) => {
  const status = options.number('rejectStatusCode')
  edge.ipFilter = { allow: options.texts('sourceRange'), ...(status !== undefined && status !== 403 && { status }) }
  const strategy = options.map('ipStrategy')
  strategy?.skip(...strategy.keys)
  if (strategy !== undefined && strategy.keys.length > 0)
    draft.undecided(
      route,
      `${options.where}.ipStrategy: write listen.trustProxy with your proxies, whose X-Forwarded-For is read`
    )
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
  forwardAuth: (options, { edge, route, draft }) => {
    const requestHeaders = options.texts('authRequestHeaders')
    const responseHeaders = options.texts('authResponseHeaders')
    if (options.flag('trustForwardHeader') === true)
      draft.note(route, 'forwardAuth: trustForwardHeader: write listen.trustProxy with the addresses of your proxies')
    const cookies = options.texts('addAuthCookiesToResponse')
    if (cookies.length > 0)
      draft.note(
        route,
        `forwardAuth: addAuthCookiesToResponse ${cookies.join(', ')}: write forwardAuth.clientHeaders: [set-cookie] for all cookies`
      )
    if (options.has('tls')) draft.note(route, 'forwardAuth: tls: not converted')
    options.skip('tls')
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
    addLimit(edge, { algorithm: 'token-bucket', max, window, burst, ...sourceOf(options) })
  },
  inFlightReq: (options, { edge }) => addLimit(edge, { maxConcurrent: options.number('amount'), ...sourceOf(options) }),
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
  headers: headersMiddleware,
  compress: (options, { edge, route, draft }) => {
    const encodings = options.texts('encodings')
    const types = options.texts('includedContentTypes')
    const size = options.number('minResponseBodyBytes')
    edge.compression = {
      ...(encodings.length > 0 && { encodings }),
      ...(types.length > 0 && { types }),
      ...(size !== undefined && { minSize: `${size}b` })
    }
    if (options.has('excludedContentTypes'))
      draft.note(route, `${options.where}.excludedContentTypes: write edge.compression.types`)
    options.skip('excludedContentTypes', 'defaultEncoding')
  },
  redirectRegex: (options, { route, draft }) => {
    const [regex, to] = [options.text('regex') ?? '', options.text('replacement') ?? '']
    const redirect = redirectOf(regex, to, ((route.match as Settings).hosts ?? []) as string[])
    const status = options.flag('permanent') === true ? 308 : 307
    if (redirect !== null && (route.match as Settings).path === '/')
      respondWith(route, 'redirect', { ...redirect, status })
    else draft.note(route, `redirectRegex ${regex} to ${to}: write a route with "redirect"`)
  },
  stripPrefixRegex: (options, { route, draft }) => {
    const [expression = '', ...others] = options.texts('regex')
    const bare = expression.replace(/^\^/, '')
    const groups = bare.replace(/\\./g, '').match(/\((?!\?[:=!])/g)?.length ?? 0
    if (others.length > 0 || bare.endsWith('$')) draft.note(route, `${options.where}: write path.rewrite`)
    else path(route, { rewrite: { regex: `^(?:${bare.replace(/\/$/, '')})/?(.*)$`, to: `/$${groups + 1}` } })
  },
  errors: (options, { edge, route, draft }) => {
    const statuses = options.texts('status').map(statusesOf)
    const [service, query] = [options.text('service'), options.text('query')]
    options.skip('statusRewrites')
    const all = statuses.flatMap((each) => each ?? [])
    if (all.length > 0 && !statuses.includes(null)) edge.errorPages = { upstream: all }
    draft.note(route, `${options.where}: the page ${query} of ${service}: write edge.errorPages.pages`)
  },
  contentType: (options) => options.skip(...options.keys),
  passTLSClientCert: (options, { edge, route, draft }) => {
    options.skip(...options.keys)
    edge.forwardClientCert = {}
    draft.note(
      route,
      `${options.where}: the service gets Client-Cert (RFC 9440) instead of X-Forwarded-Tls-Client-Cert`
    )
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
