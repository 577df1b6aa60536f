/** Middlewares of Traefik, as concerns of the edge and changes of the path. */
import { traefikBreaker } from './breakers.ts'
import { goDuration } from './durations.ts'
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import { respondWith } from './headers.ts'
import { redisUrl } from './redis.ts'
import { headersMiddleware } from './traefik-headers.ts'
import { paths } from './traefik-paths.ts'
import type { Convert, Middlewares, Place } from './traefik-scope.ts'
import { redirectOf } from './traefik-urls.ts'
import type { Settings } from './yaml-text.ts'

/** Concerns of which a route has one, for middlewares that refuse requests and of which all count in Traefik. */
const single: Readonly<Record<string, string>> = {
  basicAuth: 'acl',
  forwardAuth: 'forwardAuth',
  ipAllowList: 'ipFilter',
  ipWhiteList: 'ipFilter',
  buffering: 'bodyLimit'
}

/** Returns the options of a concern of which a route has one, as a text. */
const protectionOf = (kind: string, { edge }: Place): string | undefined =>
  JSON.stringify(edge[member(single, kind) ?? ''])

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
        const before = protectionOf(kind, place)
        convert(middleware.mapOrEmpty(kind), place, name)
        if (before !== undefined && before !== protectionOf(kind, place))
          place.draft.undecided(
            place.route,
            `middleware ${name} (${kind}): it replaces the one before it; a route has one edge.${single[kind]}`
          )
      } else {
        middleware.skip(kind)
        place.draft.unknown(place.route, kind, `middleware ${name} (${kind}): not converted`)
      }
    }
  }
}

/** Returns the source of a limit; `usual` without a criterion. */
function sourceOf(options: Foreign, { route, draft }: Place, usual: Settings = {}): Settings {
  const criterion = options.map('sourceCriterion')
  const header = criterion?.text('requestHeaderName')
  const isHost = criterion?.flag('requestHost') === true
  const strategy = criterion?.map('ipStrategy')
  const subnet = strategy?.number('ipv6Subnet')
  if (strategy?.has('depth') || strategy?.has('excludedIPs'))
    draft.note(route, `${strategy.where}: write listen.trustProxy with your proxies, whose X-Forwarded-For is read`)
  strategy?.skip('depth', 'excludedIPs')
  if (header !== undefined) return { by: `header:${header.toLowerCase()}` }
  if (isHost) return { by: 'header:host' }
  return strategy === undefined ? usual : subnet === undefined ? {} : { ipv6Prefix: subnet }
}

const addMesh = (route: Settings, policies: Settings): void => {
  route.mesh = { ...((route.mesh ?? {}) as Settings), ...policies }
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
  ...paths,
  basicAuth: (options, { edge, draft, route, hasSeveralLists }, name) => {
    const header = options.text('headerField')
    options.skip('realm')
    if (header !== undefined) edge.authentication = { forward: { id: header.toLowerCase() } }
    const file = options.text('usersFile')
    const advice = `${name}: usersFile ${file}: write its users as consumers`
    if (file !== undefined && hasSeveralLists) draft.undecided(route, `${advice}, and name them in acl.allowConsumers`)
    else if (file !== undefined) draft.note(route, advice)
    edge.basicAuth = options.flag('removeHeader') === true ? {} : { hideCredentials: false }
    const users = options.texts('users').map((line) => {
      const colon = line.indexOf(':')
      return { username: line.slice(0, colon), hash: line.slice(colon + 1) }
    })
    // Consumers are for all routes, and users of Traefik for those of their middleware.
    if (hasSeveralLists && users.length > 0) edge.acl = { allowConsumers: users.map(({ username }) => username) }
    for (const { username, hash } of users) {
      const known = draft.consumers.find((consumer) => consumer.name === username)
      if (known !== undefined && (known.basicAuth as Settings).hash !== hash)
        draft.undecided(route, `user ${username} of ${name} has another password elsewhere: write another consumer`)
      if (known !== undefined) continue
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
    const pattern = options.text('authResponseHeadersRegex')
    if (pattern !== undefined)
      draft.undecided(
        route,
        `${options.where}.authResponseHeadersRegex ${pattern}: write forwardAuth.responseHeaders, else clients could send them`
      )
    edge.forwardAuth = {
      url: options.text('address'),
      ...(requestHeaders.length > 0 && { requestHeaders: requestHeaders.map((each) => each.toLowerCase()) }),
      ...(responseHeaders.length > 0 && { responseHeaders: responseHeaders.map((each) => each.toLowerCase()) }),
      ...(options.flag('forwardBody') === true && { forwardBody: true })
    }
  },
  ipAllowList,
  ipWhiteList: ipAllowList,
  rateLimit: (options, place) => {
    const { edge, draft, route } = place
    const max = options.number('average') ?? 0
    const burst = options.number('burst') ?? 1
    const redis = options.map('redis')
    const [endpoint] = redis?.texts('endpoints') ?? []
    if (endpoint !== undefined) {
      const isSecure = redis!.has('tls')
      draft.redis ??= redisUrl({
        address: endpoint,
        username: redis!.text('username'),
        password: redis!.text('password'),
        database: redis!.text('db'),
        isSecure
      })
    }
    redis?.skip(...redis.keys)
    if (max === 0) return draft.note(route, 'rateLimit without average: no limit')
    const window = goDuration(options.text('period') ?? '1s')
    addLimit(edge, {
      algorithm: 'token-bucket',
      max,
      window,
      burst,
      ...sourceOf(options, place),
      ...(endpoint !== undefined && { store: 'redis' })
    })
  },
  // Without a criterion, Traefik counts by host here.
  inFlightReq: (options, place) =>
    addLimit(place.edge, {
      maxConcurrent: options.number('amount'),
      ...sourceOf(options, place, { by: 'header:host' })
    }),
  circuitBreaker: (options, { route, draft }) => {
    const expression = options.text('expression') ?? ''
    const policies = traefikBreaker(expression, options)
    if (policies === null) return draft.note(route, `circuitBreaker ${expression}: write mesh.circuitBreaker`)
    addMesh(route, policies)
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
    const base = options.text('initialInterval')
    const backoff = base !== undefined && { backoff: { base: goDuration(base), max: goDuration(base) } }
    addMesh(route, { retry: attempts <= 0 ? false : { attempts, ...backoff } })
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
