// slow: takes about 9 s
/**
 * Everything that reads what clients, services or registries send takes time in proportion to its length. Each parser is
 * given texts on which careless ones take quadratic time, at two lengths. A new parser belongs into the table.
 */
import t from 'tap'
import { forwardingHeaders, passedOnHeaders } from '../config/header-names.ts'
import { conditionsOf, Facts } from '../config/match-conditions.ts'
import { pathPatterns } from '../config/path-pattern.ts'
import type { RouteConfig } from '../config/schema.ts'
import { alternativeNames } from '../plugins/alternative-names.ts'
import { relocation } from '../plugins/edge/bridge/location.ts'
import { headerValue } from '../plugins/edge/bridge/upstream-headers.ts'
import { toOriginForm } from '../plugins/edge/protocol/absolute-form.ts'
import { canonicalAddress, normalizeForwardedFor } from '../plugins/edge/protocol/client-address.ts'
import { appendForwarding, strippedPrefix, trustedPeers } from '../plugins/edge/protocol/forwarding-headers.ts'
import { announced, endToEnd, isWebSocket, nominated, takesTrailers } from '../plugins/edge/protocol/headers.ts'
import { targetPath, withoutEndSlashes } from '../plugins/edge/protocol/target-path.ts'
import { commaItems, listItems } from '../plugins/http-syntax.ts'
import type { FallbackOptions } from '../plugins/mesh/concerns/fallback/options.ts'
import { StaleStore } from '../plugins/mesh/concerns/fallback/stale-store.ts'
import { noteRetryAfter } from '../plugins/mesh/concerns/retry/retry-after.ts'
import { parseSpiffe } from '../plugins/mesh/connect/identity/spiffe.ts'
import type { Call } from '../plugins/mesh/core/call.ts'
import { cookieOf, fieldReader, headerOf, queryOf } from '../plugins/mesh/core/request-fields.ts'
import { cacheControl, varyOf } from '../plugins/mesh/core/sharing/cache-control.ts'
import { identityOf, isPersonal } from '../plugins/mesh/core/sharing/identity.ts'
import type { DispatchOptions } from '../plugins/mesh/core/types.ts'
import { byAddress } from '../plugins/mesh/discovery/by-address.ts'
import { translate } from '../plugins/mesh/discovery/consul/translate.ts'
import { additionalAddresses, addressesIn, byPriority, targetsIn } from '../plugins/mesh/discovery/dns/records.ts'
import { requestHead } from '../plugins/mesh/http/request-head.ts'
import { isPersistent, parseHead } from '../plugins/mesh/http/response-head.ts'
import { matcher } from '../plugins/mesh/split.ts'

/** Parts of a text: a beginning, a part that is repeated, an end. */
const shapes: readonly (readonly [string, string, string])[] = [
  ...['a', '/', ' ', '\t', ',', ' ,', ', ', 'a,', ';', '; ', '=', 'a=', 'a=b;', 'a=b&', '&', '%', '%2', '%zz&', '+&']
    .flatMap((part): [string, string, string][] => [['', part, ''], ['', part, 'x'], ['x', part, 'x']]),
  ...['"', '\\', '"a', '"a",', '\\"', 'a="', ':', '1', '.', '1.', '10.0.0.1, ', '[::1]:1, ', '(', '-', '_', '?', '#', '@']
    .flatMap((part): [string, string, string][] => [['', part, ''], ['', part, ' x'], ['"', part, '']]),
  ...['websocket ', ', websocket', 'trailers ', ', trailers', 'close ', 'keep-alive,', 'timeout=', ' timeout=1', 'user=']
    .map((part): [string, string, string] => ['', part, 'x']),
  ...['user', 'user ', 'user;', 'user=;', 'us', '%75ser&', 'DNS:a, ', 'DNS:"a, b", ', 'URI:', 'DNS:"', '//', 'a/', 'http:']
    .map((part): [string, string, string] => ['', part, '']),
  ['https://', 'a', ''], ['https://', 'a:80', '/'], ['//', '/', ''], ['spiffe://', 'a/', ''], ['spiffe://a/ns/', 'a', '/dc/']
] // biome-ignore format: a table

function text([begin, part, end]: (typeof shapes)[number], length: number): string {
  return begin + part.repeat(Math.ceil(length / part.length)) + end
}

/** Calls a function that refuses some values by an error. */
function attempt(run: () => unknown): unknown {
  try {
    return run()
  } catch (error) {
    return error
  }
}

const opts = (more: object) => ({ origin: 'http://a.mesh', method: 'GET', path: '/', ...more }) as DispatchOptions
const request = (headers: object, more: object = {}) =>
  ({ headers, socket: { remoteAddress: '10.0.0.1' }, ...more }) as never
const route = (path: object) => ({ match: { path: '/a' }, edge: {}, path }) as unknown as RouteConfig
const { of } = identityOf({ excludeHeaders: [] })
const stale: NonNullable<FallbackOptions['stale']> = { maxAge: 1000, maxEntries: 9, maxBody: 9, excludeHeaders: [] }
const isTrusted = trustedPeers(['10.0.0.0/8'])
const believed = { names: new Set<string>(forwardingHeaders), passedOn: passedOnHeaders }
const [prefix] = pathPatterns('/a')
const strip = relocation(route({ strip: '/a' }), prefix!, () => believed)!
const readings = { case: 'ignore', trailingSlash: 'ignore', trailingDot: 'ignore' } as const
const change = targetPath(route({ rewrite: { prefix: '/b' } }), prefix!, readings)!
const byExpression = targetPath(route({ rewrite: { regex: '^/a/(.*)a(.*)x$', to: '/$1$2' } }), prefix!, readings)!
const [below] = pathPatterns('/a*')
const byTemplate = targetPath(route({ rewrite: { path: '/b/*' } }), below!, readings)!
const conditions = conditionsOf({ query: { user: '1' }, cookies: { user: '1' } }).others
const call = { selected: { endpoint: {} }, retryAfter: null } as unknown as Call
const byQuery = fieldReader('query:user')
const share = matcher({ headers: { 'x-user': '1' }, cookies: { user: '1' } })!
/** A response with the value in two fields, as the HTTP/1.1 parser accepts it. */
const line = (value: string) => `HTTP/1.1 200 OK\r\nname: ${value}\r\nconnection: ${value}`

const parsers: Readonly<Record<string, (value: string) => unknown>> = {
  'items of a list, edge': (value) => commaItems(value, 16),
  'items of a list, mesh': (value) => listItems(value, 64),
  'a path without its last slashes': withoutEndSlashes,
  'X-Forwarded-Prefix': (value) => strippedPrefix('/a', request({ 'x-forwarded-prefix': value }), believed),
  'forwarding headers': (value) => {
    const given = { 'x-forwarded-for': value, forwarded: value, 'x-forwarded-host': value, 'x-real-ip': value }
    appendForwarding([], request(given), believed)
  },
  'a path, rewritten by an expression': (value) => attempt(() => byExpression(`/a/${value}`)),
  'a path, rewritten by a template': (value) => attempt(() => byTemplate(`/a/${value}`)),
  'conditions of a route': (value) => {
    const facts = new Facts({ headers: { cookie: value }, url: `/?${value}`, address: value })
    return conditions.map((condition) => condition.isMet(facts))
  },
  'an address': (value) => [isTrusted(value), canonicalAddress(value)],
  'X-Forwarded-For': (value) => normalizeForwardedFor(request({ 'x-forwarded-for': value })),
  'Trailer': (value) => announced(value, () => false),
  'Connection': nominated,
  'Connection of a service': (value) => endToEnd({ connection: value }, false),
  'Upgrade': isWebSocket,
  'TE': takesTrailers,
  'X-Forwarded-Host': (value) =>
    strip({ location: 'https://h/x' }, { raw: request({ 'x-forwarded-host': value }), trusted: true }, 'http://10.0.0.1'),
  'Host, for Location': (value) =>
    strip({ location: 'https://h/x' }, { raw: request({ host: value }), trusted: false }, 'http://10.0.0.1'),
  'Location': (value) =>
    strip({ location: value, 'content-location': value }, { raw: request({ host: value }), trusted: false }, 'http://10.0.0.1'),
  'a request target to be rewritten': (value) => change(`/a${value}`),
  'an absolute request target': (value) => toOriginForm(request({ host: value }, { url: value })),
  'a claim for a header': (value) => [headerValue(value), headerValue([value, value])],
  'Cache-Control': cacheControl,
  'Vary': (value) => varyOf({ vary: value }),
  'identity of a request': (value) => of(opts({ path: value, headers: ['x-any', value, 'cookie', value] })),
  'personal headers': (value) => isPersonal(opts({ headers: ['x-any', value] })),
  'a response to keep': (value) =>
    new StaleStore(stale, () => 0).record(
      opts({ headers: ['x-any', value, 'cache-control', 'max-age=0'] }), 200, { vary: value, connection: value, age: value }
    ),
  'Cookie': (value) => cookieOf(opts({ headers: ['cookie', value] }), 'user'),
  'Cookie, of a short name': (value) => cookieOf(opts({ headers: { cookie: value } }), 'u'),
  'a header by its name': (value) => headerOf(opts({ headers: [value, value, 'x-any', value] }), 'x-any'),
  'a query parameter': (value) => [byQuery(opts({ path: `/?${value}` })), queryOf(opts({ path: `/?${value}` }), 'a')],
  'the match of a share': (value) => share(opts({ headers: ['x-user', '1', 'cookie', value] })),
  'Retry-After': (value) => noteRetryAfter(call, value, 0),
  'a request head': (value) => attempted(() => requestHead(opts({ headers: ['x-any', value, 'connection', value] }), 'h')),
  'a response head': (value) => attempted(() => isPersistent(parseHead(line(value), line(value).length))),
  'names in a certificate': (value) => attempted(() => alternativeNames(value)),
  'a SPIFFE id': parseSpiffe
} // biome-ignore format: a table

/** Runs a parser; a refusal counts as a result. */
function attempted(parse: () => unknown): unknown {
  try {
    return parse()
  } catch (error) {
    return error
  }
}

/** Returns the shortest duration in milliseconds; a long run is not repeated. */
function cost(run: () => unknown, times: number): number {
  let least = Number.POSITIVE_INFINITY
  const begun = performance.now()
  for (let i = 0; i < times; i++) {
    const before = performance.now()
    run()
    const after = performance.now()
    least = Math.min(least, after - before)
    if (after - begun > 100) break
  }
  return least
}

const growth = 8
/** Eight times the length may take 24 times as long; quadratic time would be 64 times as long. */
const bound = 3 * growth
/** Milliseconds below which caches and the compiler are measured, and not the parser. */
const noise = 0.05

/** Returns the factor by which `run` takes longer at eight times the size. A bad figure is measured again: other programs may have had the CPU. */
function growthOf(run: (size: number) => () => unknown, size: number): number {
  let least = Number.POSITIVE_INFINITY
  for (let i = 0; i < 20 && least > bound; i++) {
    const [small, large] = [cost(run(size), 8), cost(run(size * growth), 3)]
    least = Math.min(least, large / Math.max(small, noise))
  }
  return least
}

for (const [name, parse] of Object.entries(parsers)) {
  t.test(name, async (t) => {
    for (const shape of shapes) {
      const found = growthOf((size) => {
        const value = text(shape, size)
        return () => parse(value)
      }, 4000)
      if (found > bound)
        return t.fail(`${JSON.stringify(shape)}: ${growth} times the length takes ${found} times as long`)
    }
    t.pass(`${shapes.length} texts`)
  })
}

const names = (count: number) => Array.from({ length: count }, (_, i) => `name-${i}`)
const reply = (records: readonly object[]) => ({ code: 'NOERROR', answers: records, additionals: records }) as never

/** The same of lists, by the number of their members. */
const lists: Readonly<Record<string, (count: number) => () => unknown>> = {
  'fields of a request and names in Vary': (count) => {
    const options = opts({ headers: names(count).flatMap((name) => [name, '1']) })
    const [vary, store] = [names(count).join(), new StaleStore(stale, () => 0)]
    return () => [store.record(options, 200, { vary }), store.record(options, 200, { vary, 'cache-control': 'public' })]
  },
  'fields of a request, found in a stored response': (count) => {
    const [options, other] = [1, 2].map((value) => opts({ headers: names(count).flatMap((name) => [name, `${value}`]) }))
    const store = new StaleStore(stale, () => 0)
    const vary = names(30).join()
    store.record(options!, 200, { vary, 'cache-control': 'public' })!.end()
    return () => store.find(other!)
  },
  'fields of a response': (count) => {
    const headerSection = `HTTP/1.1 200 OK\r\n${names(count).map((name) => `${name}: 1`).join('\r\n')}`
    const same = `HTTP/1.1 200 OK\r\n${'set-cookie: a=1\r\n'.repeat(count)}`
    return () => [parseHead(headerSection, headerSection.length), parseHead(same, same.length)]
  },
  'aliases in DNS, the last one first': (count) => {
    const aliases = names(count).map((name, i) => ({ type: 'CNAME', name, data: `name-${i + 1}`, ttl: 1 }))
    const message = reply(aliases.reverse())
    return () => addressesIn(message, 'name-0', 'A')
  },
  'targets in DNS and their addresses': (count) => {
    const targets = names(count).map((target) => ({ type: 'SRV', name: 'srv', data: { target, port: 1 }, ttl: 1 }))
    const message = reply([...targets, ...names(count).map((name) => ({ type: 'A', name, data: '10.0.0.1', ttl: 1 }))])
    return () => {
      const addresses = additionalAddresses(message)
      return byPriority(targetsIn(message, 'srv').records).map((group) => group.map(({ host }) => addresses(host)))
    }
  },
  'names in a certificate': (count) => {
    const list = names(count).map((name) => `DNS:${name}`).join(', ')
    return () => alternativeNames(list)
  },
  'entries of Consul with one address': (count) => {
    const entries = names(count).map((name) => ({
      Node: { Node: name, Address: '10.0.0.1' },
      Service: { ID: name, Port: 80, Tags: [name] },
      Checks: []
    }))
    return () => byAddress(translate(entries, { tags: [], passingOnly: true }).instances)
  }
} // biome-ignore format: a table

for (const [name, run] of Object.entries(lists)) {
  t.test(name, async (t) => {
    const found = growthOf(run, 500)
    t.ok(found <= bound, `${growth} times as many take ${found} times as long`)
  })
}
