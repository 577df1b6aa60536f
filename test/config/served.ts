/** Configurations that `check` accepts start, serve and stop: odd values for every key, each in a real gateway. */
import { generateKeyPairSync } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { build } from '../../app.ts'
import { ConfigError } from '../../config/load.ts'
import type { Unit } from '../../config/units.ts'
import { loader, parseConfig } from '../../plugins/config.ts'
import { startService } from '../helpers/gateway.ts'
import { selfSigned } from '../helpers/self-signed.ts'

interface Shape {
  type?: string
  const?: unknown
  enum?: unknown[]
  unit?: Unit
  format?: string
  default?: unknown
  minimum?: number
  maximum?: number
  properties?: Record<string, Shape>
  patternProperties?: Record<string, Shape>
  additionalProperties?: boolean | Shape
  items?: Shape
  then?: Shape
  else?: Shape
}

type Path = readonly (string | number)[]

/** Stands for what the sections around a key need anyway. */
const asItIs = Symbol('as it is')

const texts = [
  '', ' ', 'a', 'a b', '/', '/a', '/he alth', '/健康', '健康', 'é', 'a\nb', 'a\u0000b', 'a\tb', '%', '/%zz', '/%2e%2e', '?', '/?a=b',
  '#', '/#a', '//', '/a/../b', '*', '*.a', '/*', ':id', '/:id', '/:', '/{id}', '$&', '__proto__', 'constructor', 'host',
  'Content-Length', 'transfer-encoding', 'connection', 'set-cookie', ':path', 'ip', 'header:host', 'header:a b', 'cookie:a', 'query:a',
  'retriable-header:a b', 'retriable-header:x', '-1', '1.5', 'localhost', '127.0.0.1', '::1', '0.0.0.0/0', '::/0', '10.0.0.0/8',
  '999.1.1.1', 'x'.repeat(300), 'x'.repeat(20_000)
] // biome-ignore format: a list
const urls = [
  'http://127.0.0.1:1', 'http://[::1]:1', 'HTTP://LOCALHOST:1', 'http://127.0.0.1:1/a b', 'http://127.0.0.1:1?x=y', 'http://u:p@127.0.0.1:1',
  'https://127.0.0.1:1', 'redis://127.0.0.1:1', 'redis://127.0.0.1:1/99999', 'rediss://:p@127.0.0.1:1', 'http://é.invalid', 'http://a b',
  'http://h:99999', 'http://', 'http://127.0.0.1:1/%zz'
] // biome-ignore format: a list
const ofUnits: Readonly<Record<Unit, string[]>> = {
  duration: ['0s', '1ms', '24d', '25d', '0.4ms'],
  'duration or 0': ['0s', '1ms', '24d', '0.4ms'],
  period: ['1s', '30d'],
  size: ['0b', '1b', '1gb', '9999999gb', '0.4b'],
  'size or 0': ['0b', '1b', '1gb', '9999999gb', '0.4b'],
  share: ['0%', '0.0001%', '100%'],
  percent: ['0%', '0.0001%', '100000%']
}

/** Values to try for a schema, odd ones included. */
function valuesFor(shape: Shape): unknown[] {
  if (shape.then && shape.else) return [...valuesFor(shape.then), ...valuesFor(shape.else)]
  if (shape.const !== undefined) return [shape.const]
  if (shape.enum) return shape.enum.length > 20 ? shape.enum.slice(0, 4) : shape.enum
  if (shape.unit) return ofUnits[shape.unit]
  if (shape.format === 'url') return urls
  if (shape.type === 'integer' || shape.type === 'number') {
    return [shape.default, shape.minimum ?? 0, shape.maximum, 0, 1, -1, 2 ** 31, 2 ** 53 - 1].filter(
      (value) => value !== undefined
    )
  }
  if (shape.type === 'boolean') return [true, false]
  if (shape.type === 'array') return [asItIs, [], ...some(valuesFor(shape.items ?? {})).map((value) => [value, value])]
  if (shape.type === 'object') {
    const inner = Object.values(shape.patternProperties ?? {})[0] ?? shape.additionalProperties
    if (typeof inner !== 'object') return [asItIs, {}]
    const values = valuesFor(inner)
    const named = (key: unknown) => ({ [String(key)]: values[2] ?? 'a' })
    return [asItIs, {}, ...some(texts).map(named), ...some(values).map((value) => ({ a: value }))]
  }
  return typeof shape.default === 'string' ? [shape.default, ...texts] : texts
}

/** Every third of many values: enough for what lists and maps do with them, since each key is tested with all texts. */
const some = (values: readonly unknown[]) => values.filter((_, index) => values.length < 30 || index % 3 === 0)

/** The paths of all keys, with their schemas. */
function keysOf(shape: Shape, path: Path = []): [Path, Shape][] {
  const found = Object.entries(shape.properties ?? {}).flatMap(([key, inner]): [Path, Shape][] => {
    const at = [...path, key]
    return [[at, inner], ...keysOf(inner, at)]
  })
  const named = Object.values(shape.patternProperties ?? {})[0] ?? shape.additionalProperties
  if (typeof named === 'object' && path.length > 0) found.push(...keysOf(named, [...path, 'one']))
  if (shape.items) found.push(...keysOf(shape.items, [...path, 0]))
  for (const branch of [shape.then, shape.else]) if (branch) found.push(...keysOf(branch, path))
  return found
}

t.setTimeout(300_000)
const service = await startService((_request, response) => response.end('ok'))
t.teardown(service.close)
const { cert, key } = selfSigned(t)
const dir = dirname(cert)
const file = join(dir, 'gateway.yaml')
writeFileSync(join(dir, 'text.pem'), 'no certificate')
writeFileSync(join(dir, 'queries.json'), '{"a":"{ a }"}')
writeFileSync(join(dir, 'openapi.json'), '{"openapi":"3.1.0","paths":{"/":{"get":{}}}}')
writeFileSync(join(dir, 'addresses.txt'), '192.0.2.1')
writeFileSync(join(dir, 'authorizer.mjs'), 'export default () => null')
const publicKey = generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' })
texts.push(
  'one',
  'other',
  'one.pem',
  'text.pem',
  'cert.pem',
  'key.pem',
  'consul',
  'queries.json',
  'openapi.json',
  '2030-12-31',
  'addresses.txt',
  '08:30',
  '5xx',
  'Europe/Berlin',
  '^a$',
  'CN=a',
  'authorizer.mjs',
  String(publicKey)
)

type Mapping = Record<string | number, unknown>

const base = () => ({
  listen: { host: '127.0.0.1', port: 0, drain: { delay: '0s' } },
  admin: false as unknown,
  discovery: {} as Mapping,
  edge: {} as Mapping,
  mesh: { timeout: '1s' } as Mapping,
  services: { one: { instances: [service.url] }, other: { instances: [service.url] } } as Record<string, Mapping>,
  routes: [{ name: 'one', match: { path: '/' }, service: 'one' } as Mapping]
})
type Base = ReturnType<typeof base>

/** A call of a composed route, with these settings. */
const call = (more: object) => ({ service: 'one', path: '/', as: 'text', group: 'a', ...more })

/** Settings that a key needs besides itself, applied in this order; a later one overwrites an earlier one. */
const companions: readonly (readonly [path: RegExp, add: (config: Base) => void])[] = [
  // Without lines, which would be appended to files of other keys.
  [/^edge\.accessLog\.file$/, ({ edge }) => Object.assign(edge, { accessLog: { filters: { statusCodes: [599] } } })],
  [/^listen\.tls/, ({ listen }) => Object.assign(listen, { tls: { cert, key } })],
  [/^listen\.tls\.(clientCertificate|hosts)/, ({ listen }) => Object.assign(listen, { tls: { cert, key, clientCertificate: { mode: 'request', ca: cert } } })],
  [/^listen\.tls\.hosts\.0\.clientCertificate/, ({ listen }) => Object.assign(listen, { tls: { cert, key, ca: cert, hosts: [{ names: ['a'] }] } })],
  [/^listen\.tls\.hosts\.0\.names/, ({ listen }) => Object.assign(listen, { tls: { cert, key, hosts: [{ names: ['a'], clientCertificate: { ca: cert } }] } })],
  [/^listen\.tls\.(certificates|default)/, ({ listen }) => Object.assign(listen, { tls: { certificates: [{ cert, key }] } })],
  [/^edge\.authorizer/, ({ edge }) => Object.assign(edge, { authorizer: { module: 'authorizer.mjs' } })],
  [/^edge\.(mtlsAuth|forwardClientCert)/, ({ listen }) => Object.assign(listen, { tls: { cert, key, clientCertificate: { mode: 'request', ca: cert } } })],
  [/^listen\.redirect/, ({ listen }) => Object.assign(listen, { redirect: { port: 443 } })],
  [/^listen\.http2/, ({ listen }) => Object.assign(listen, { tls: { cert, key } })],
  [/^discovery\.(consul|default)/, ({ discovery }) => Object.assign(discovery, { consul: { url: 'http://127.0.0.1:1' } })],
  [/^discovery\.eureka/, ({ discovery }) => Object.assign(discovery, { eureka: { urls: ['http://127.0.0.1:1'], username: 'a' } })],
  [/^services\.one\.eureka/, ({ discovery }) => Object.assign(discovery, { eureka: { urls: ['http://127.0.0.1:1'] } })],
  [/^services\.one\.eureka/, ({ services }) => Object.assign(services, { one: { eureka: {} } })],
  [/^discovery\.snapshot/, ({ discovery }) => Object.assign(discovery, { snapshot: { path: join(dir, 'snapshot') } })],
  [/^metricsPush/, (config) => Object.assign(config, { metricsPush: { url: 'http://127.0.0.1:1' } })],
  [/^redis/, (config) => Object.assign(config, { redis: { url: 'redis://127.0.0.1:1' } })],
  [/^redis/, ({ edge }) => Object.assign(edge, { rateLimit: { max: 9, window: '1s', store: 'redis' } })],
  [/^(tracing|edge\.tracing)/, (config) => Object.assign(config, { tracing: { otlp: { http: { endpoint: 'http://127.0.0.1:1' } } } })],
  [/^tracing\.otlp\.http\.tls/, (config) => Object.assign(config, { tracing: { otlp: { http: { endpoint: 'https://127.0.0.1:1', tls: { cert, key } } } } })],
  [/^admin/, (config) => Object.assign(config, { admin: { host: '127.0.0.1', port: 0 } })],
  [/^edge\.bodyLimit/, ({ edge }) => Object.assign(edge, { bodyLimit: { max: '1kb' } })],
  [/^edge\.cors/, ({ edge }) => Object.assign(edge, { cors: { origin: ['http://a'] } })],
  [/^edge\.cache/, ({ edge }) => Object.assign(edge, { cache: {} })],
  [/^edge\.uma/, ({ edge }) => Object.assign(edge, { uma: { url: 'http://127.0.0.1:1', audience: 'a', permissions: ['a'] } })],
  [/^edge\.uma\.(service|path)/, ({ edge }) => Object.assign(edge, { uma: { service: 'other', audience: 'a', permissions: ['a'] } })],
  [/^edge\.acl/, ({ edge }) => Object.assign(edge, { jwt: { secret: 'a secret that is long enough, for tests' }, acl: { scopes: ['a'] } })],
  [/^edge\.authorization/, ({ edge }) => Object.assign(edge, { jwt: { secret: 'a secret that is long enough, for tests' }, authorization: { rules: [{ action: 'allow', scopes: ['a'] }] } })],
  [/^edge\.authorization\.default/, ({ edge }) => Object.assign(edge, { authorization: { rules: [{ action: 'deny', scopes: ['b'] }, { action: 'allow', scopes: ['a'] }, { action: 'deny', groups: ['a'] }] } })],
  [/^edge\.ipFilter/, ({ edge }) => Object.assign(edge, { ipFilter: { deny: ['192.0.2.1'] } })],
  [/^edge\.userAgent\.(except|mode|empty)/, ({ edge }) => Object.assign(edge, { userAgent: { deny: ['a/1'] } })],
  [/^edge\.earlyHints/, ({ edge }) => Object.assign(edge, { earlyHints: { links: ['</a>; rel=preconnect'] } })],
  [/^edge\.jwt/, ({ edge }) => Object.assign(edge, { jwt: { secret: 'a secret that is long enough, for tests' } })],
  [/^edge\.jwt\.forwardClaims/, ({ edge }) => Object.assign(edge.jwt!, { forwardClaims: { header: 'x-claims' } })],
  [/^edge\.jwt\.from\.header/, ({ edge }) => Object.assign(edge.jwt!, { from: { cookie: 'a' } })],
  [/^edge\.jwt\.(jwks|publicKey|discovery)$/, ({ edge }) => Object.assign(edge, { jwt: { issuer: 'http://127.0.0.1:1' } })],
  [/^edge\.jwt\.issuers/, ({ edge }) => Object.assign(edge, { jwt: { issuers: [{ issuer: 'http://127.0.0.1:1', secret: 'a secret that is long enough, for tests' }] } })],
  [/^edge\.jwt\.issuers\.0\.(jwks|publicKey|discovery|algorithms)/, ({ edge }) => Object.assign(edge, { jwt: { issuers: [{ issuer: 'http://127.0.0.1:1' }] } })],
  [/^edge\.jwt\.issuers\.0\.algorithms/, ({ edge }) => Object.assign(edge, { jwt: { issuers: [{ issuer: 'a', jwks: 'http://127.0.0.1:1' }] } })],
  [/^edge\.introspection/, ({ edge }) => Object.assign(edge, { introspection: { url: 'http://127.0.0.1:1', clientId: 'a', clientSecret: 'b' } })],
  [/^edge\.introspection\.(service|path)/, ({ edge }) => Object.assign(edge, { introspection: { service: 'one', clientId: 'a', clientSecret: 'b' } })],
  [/^edge\.oidc/, ({ edge }) => Object.assign(edge, { oidc: { issuer: 'http://127.0.0.1:1', clientId: 'a', session: { secrets: ['a secret that is long enough, for tests'] } } })],
  [/^edge\.oidc\.logout\.backchannelPath/, (config) => Object.assign(config, { redis: { url: 'redis://127.0.0.1:1' }, edge: { oidc: { issuer: 'http://127.0.0.1:1', clientId: 'a', session: { store: 'redis', secrets: ['a secret that is long enough, for tests'] } } } })],
  [/^edge\.cookies/, ({ edge }) => Object.assign(edge, { cookies: { request: { remove: ['a'] }, response: { remove: ['a'], path: '/' } } })],
  [/^edge\.query/, ({ edge }) => Object.assign(edge, { query: { remove: ['a'] } })],
  [/^edge\.body/, ({ edge }) => Object.assign(edge, { body: { request: { remove: ['/a'] }, response: { remove: ['/a'] } } })],
  [/^edge\.body\.(request|response)\.0/, ({ edge }) => Object.assign(edge, { body: { request: [{ remove: ['/a'] }], response: [{ remove: ['/a'] }] } })],
  [/^edge\.headers/, ({ edge }) => Object.assign(edge, { headers: { request: { remove: ['x-a'] }, response: { remove: ['x-a'] } } })],
  [/^edge\.forwardAuth/, ({ edge }) => Object.assign(edge, { forwardAuth: { url: 'http://127.0.0.1:1' } })],
  [/^edge\.forwardAuth\.(url|service|path)/, ({ edge }) => Object.assign(edge, { forwardAuth: { service: 'one' } })],
  [/^edge\.forwardAuth\.url/, ({ edge }) => Object.assign(edge, { forwardAuth: {} })],
  [/^edge\.forwardAuth\.cache/, ({ edge }) => Object.assign(edge, { forwardAuth: { url: 'http://127.0.0.1:1', cache: { ttl: '1s', key: ['ip'] } } })],
  [/^edge\.deprecation/, ({ edge }) => Object.assign(edge, { deprecation: { sunset: '2031-01-01' } })],
  [/^edge\.validation\./, ({ edge }) => Object.assign(edge, { validation: { body: { content: { '*/*': true } } } })],
  [/^edge\.validation\.(openapi|basePath|describes|undocumented|unknownQuery|unread|responses)$/, ({ edge }) => Object.assign(edge, { validation: { openapi: 'openapi.json' } })],
  [/^edge\.validation\.maxResponse/, ({ edge }) => Object.assign(edge, { validation: { openapi: 'openapi.json', responses: 'shadow' } })],
  [/^edge\.graphql\.persistedQueries\./, ({ edge }) => Object.assign(edge, { graphql: { persistedQueries: { manifest: 'queries.json' } } })],
  [/^edge\.authorization\.rules\.0\.time\.zone/, ({ edge }) => Object.assign(edge, { authorization: { rules: [{ action: 'allow', time: { from: '08:00', to: '09:00' } }] } })],
  [/^edge\.errorPages/, ({ edge }) => Object.assign(edge, { errorPages: { upstream: true } })],
  [/^edge\.maintenance/, ({ edge }) => Object.assign(edge, { maintenance: {} })],
  [/^edge\.maintenance\.contentType/, ({ edge }) => Object.assign(edge, { maintenance: { body: 'a' } })],
  [/^edge\.maintenance\.allow\.consumers/, ({ edge }) => Object.assign(edge, { keyAuth: {} })],
  [/^edge\.rateLimit/, ({ edge }) => Object.assign(edge, { rateLimit: { max: 9, window: '1s' } })],
  [/^edge\.rateLimit\.(0\.)?maxConcurrent/, ({ edge }) => Object.assign(edge, { rateLimit: {} })],
  [/^edge\.rateLimit\.(0\.)?maxPerAddress/, ({ edge }) => Object.assign(edge.rateLimit!, { by: 'header:a' })],
  [/^edge\.rateLimit\.(0\.)?burst/, ({ edge }) => Object.assign(edge.rateLimit!, { algorithm: 'token-bucket' })],
  [/^edge\.rateLimit\.(0\.)?keepCostHeader/, ({ edge }) => Object.assign(edge.rateLimit!, { costHeader: 'a' })],
  [/^edge\.rateLimit\.(0\.)?(store|lease|onFailure)/, (config) => Object.assign(config, { redis: { url: 'redis://127.0.0.1:1' } })],
  [/^edge\.rateLimit\.(0\.)?(lease|onFailure)/, ({ edge }) => Object.assign(edge.rateLimit!, { store: 'redis' })],
  [/^edge\.rateLimit\.(0\.)?share/, ({ edge }) => Object.assign(edge, { gatewayNodes: 2 })],
  [/^edge\.gatewayNodes/, ({ services }) => Object.assign(services, { gateway: { instances: ['http://127.0.0.1:1'] } })],
  [/^edge\.rateLimit\.0\./, ({ edge }) => Object.assign(edge, { rateLimit: [edge.rateLimit] })],
  [/^mesh\.balance/, ({ mesh }) => Object.assign(mesh, { balance: {} })],
  [/^mesh\.balance\.(hashOn|cookieTtl|maxLoad)/, ({ mesh }) => Object.assign(mesh, { balance: { policy: 'maglev', hashOn: 'cookie:a' } })],
  [/^mesh\.hedge/, ({ mesh }) => Object.assign(mesh, { hedge: { after: '1s' } })],
  [/^mesh\.hedge\.percentile/, ({ mesh }) => Object.assign(mesh, { hedge: {} })],
  [/^mesh\.fallback/, ({ mesh }) => Object.assign(mesh, { fallback: [{ status: 200 }] })],
  [/^mesh\.fallback\.0\.(service|stale)/, ({ mesh }) => Object.assign(mesh, { fallback: [{}] })],
  [/^mesh\.limit/, ({ mesh }) => Object.assign(mesh, { limit: { rate: 9 } })],
  [/^mesh\.mirror/, ({ mesh }) => Object.assign(mesh, { mirror: { service: 'other' } })],
  [/^mesh\.fault\.delay/, ({ mesh }) => Object.assign(mesh, { fault: { delay: { for: '1ms' } } })],
  [/^mesh\.fault\.abort/, ({ mesh }) => Object.assign(mesh, { fault: { abort: { status: 503 } } })],
  [/^mesh\.fault\.bandwidth/, ({ mesh }) => Object.assign(mesh, { fault: { bandwidth: { limit: '1kb' } } })],
  [/^mesh\.fault\.maxActive/, ({ mesh }) => Object.assign(mesh, { fault: { header: true } })],
  [/^mesh\.tls/, ({ mesh }) => Object.assign(mesh, { tls: { cert, key } })],
  [/^mesh\.(mode|intentions|identity)/, ({ mesh }) => Object.assign(mesh, { identity: { service: 'a' } })],
  [/^mesh\.(mode|intentions|identity)/, ({ discovery }) => Object.assign(discovery, { consul: { url: 'http://127.0.0.1:1' } })],
  [/^services\.one\.consul/, ({ discovery }) => Object.assign(discovery, { consul: { url: 'http://127.0.0.1:1' } })],
  [/^services\.one\.consul/, ({ services }) => Object.assign(services, { one: { consul: {} } })],
  [/^services\.one\.file/, ({ services }) => Object.assign(services, { one: { file: { path: 'one.yaml' } } })],
  [/^services\.one\.dns/, ({ services }) => Object.assign(services, { one: { dns: { host: '127.0.0.1', port: 1 } } })],
  [/^services\.one\.instances/, ({ services }) => Object.assign(services, { one: { instances: [{ url: service.url }] } })],
  [/^services\.one\.subsets/, ({ services }) => Object.assign(services.one!, { subsets: { one: {} } })],
  [/^routes\.0\.split\.0\.subset/, ({ services }) => Object.assign(services.one!, { subsets: { a: {} } })],
  [/^routes\.0\.(split|stickOn)/, ({ routes }) => Reflect.deleteProperty(routes[0]!, 'service')],
  [/^routes\.0\.(split|stickOn)/, ({ routes }) => Object.assign(routes[0]!, { split: [{ service: 'one', weight: 1 }] })],
  [/^routes\.0\.group/, (config) => Object.assign(config, { groups: { one: { priority: 1 } } })],
  [/^routes\.0\.files/, ({ routes }) => Object.assign(routes[0]!, { files: { root: '.' } })],
  [/^routes\.0\.(response|redirect|files|portal)/, ({ routes }) => Reflect.deleteProperty(routes[0]!, 'service')],
  [/^routes\.0\.portal/, ({ routes }) => Object.assign(routes[0]!, { match: { path: '/docs' }, portal: { services: { one: { path: '/o' } } } })],
  [/^routes\.0\.portal\.services\.one\.file/, ({ routes }) => Object.assign(routes[0]!, { portal: { services: { one: {} } } })],
  [/^routes\.0\.response\.contentType/, ({ routes }) => Object.assign(routes[0]!, { response: { body: 'a' } })],
  [/^routes\.0\.redirect($|\.(status|query))/, ({ routes }) => Object.assign(routes[0]!, { redirect: { to: '/b' } })],
  [/^routes\.0\.redirect\.port/, ({ routes }) => Object.assign(routes[0]!, { redirect: { scheme: 'https' } })],
  [/^routes\.0\.compose/, ({ routes }) => Reflect.deleteProperty(routes[0]!, 'service')],
  [/^routes\.0\.compose/, ({ routes }) => Object.assign(routes[0]!, { match: { path: '/', methods: ['GET'] }, compose: { calls: { one: call({}) } } })],
  [/^routes\.0\.compose\.calls\.one\.body/, ({ routes }) => Object.assign(routes[0]!, { compose: { calls: { one: call({ method: 'POST' }) } } })],
  [/^routes\.0\.compose\.calls\.one\.default/, ({ routes }) => Object.assign(routes[0]!, { compose: { calls: { one: call({ required: false }) } } })],
  [/^routes\.0\.compose\.calls\.one\.at/, ({ routes }) => Object.assign(routes[0]!, { compose: { calls: { one: call({ group: undefined }) } } })],
  [/^routes\.0\.compose\.calls\.one\.edit\.0\.(move|to)/, ({ routes }) => Object.assign(routes[0]!, { compose: { calls: { one: call({ edit: [{ move: '/b', to: '/c' }] }) } } })],
  [/^routes\.0\.compose\.response\.edit\.0\.(move|to)/, ({ routes }) => Object.assign(routes[0]!, { compose: { calls: { one: call({}) }, response: { edit: [{ move: '/b', to: '/c' }] } } })],
  [/^routes\.0\.compose\.response\.edit\.0\.(delete|flatten)/, ({ routes }) => Object.assign(routes[0]!, { compose: { calls: { one: call({}) }, response: { edit: [{}] } } })],
  [/^routes\.0\.compose\.response\.edit\.0\.append/, ({ routes }) => Object.assign(routes[0]!, { compose: { calls: { one: call({}) }, response: { edit: [{ append: '/b', to: '/c' }] } } })],
  [/^routes\.0\.compose\.calls\.one\.edit\.0\.(delete|flatten)/, ({ routes }) => Object.assign(routes[0]!, { compose: { calls: { one: call({ edit: [{}] }) } } })],
  [/^routes\.0\.compose\.calls\.one\.edit\.0\.append/, ({ routes }) => Object.assign(routes[0]!, { compose: { calls: { one: call({ edit: [{ append: '/b', to: '/c' }] }) } } })],
  [/^routes\.0\.compose\.response\.add/, ({ routes }) => Object.assign(routes[0]!, { compose: { calls: { one: call({}) }, response: { add: [{ value: {} }] } } })],
  [/^routes\.0\.path\.rewrite\.(regex|to)/, ({ routes }) => Object.assign(routes[0]!, { path: { rewrite: { regex: '^/a$', to: '/b' } } })],
  [/^routes\.0\.path/, ({ routes }) => Object.assign(routes[0]!, { match: { path: '/a' } })],
  [/^routes\.0\.httpProxy/, ({ routes }) => Object.assign(routes[0]!, { via: 'http-proxy' })],
  [/^(services\.one\.|routes\.0\.)?forward/, (config) => Object.assign(config, { mesh: false, discovery: undefined })],
  [/^forward\.tls/, (config) => Object.assign(config, { forward: { tls: { cert, key } } })],
  [/^services\.one\.forward\.tls/, ({ services }) => Object.assign(services.one!, { forward: { tls: { cert, key } } })],
  [/^routes\.0\.match\.path\.0\.exact/, ({ routes }) => Object.assign(routes[0]!, { match: { path: [{ exact: '/' }] } })],
  [/^routes\.0\.match\.path\.exact/, ({ routes }) => Object.assign(routes[0]!, { match: { path: { exact: '/' } } })]
] // biome-ignore format: a table

function configWith(path: Path, value: unknown): Base {
  const config = base()
  const text = path.join('.')
  for (const [place, add] of companions) if (place.test(text)) add(config)
  let holder = config as unknown as Mapping
  for (const [index, key] of path.slice(0, -1).entries()) {
    if (typeof holder[key] !== 'object') holder[key] = typeof path[index + 1] === 'number' ? [] : {}
    holder = holder[key] as Mapping
  }
  if (value !== asItIs) holder[path.at(-1)!] = value
  return config
}

/**
 * Keys that are not tested: sections that repeat others, the code of users, addresses that may be in use, what only a
 * process of the gateway has, and a mapping whose keys are statuses.
 */
const isLeftOut = (path: Path) =>
  /^(routes\.0\.(edge|mesh|compose\.calls\.one\.mesh)|services\.one\.mesh)\.|^routes\.0\.httpProxy\.module|^(plugins|consumers)|^edge\.errorPages\.pages\.one|^listen\.(0|path$|socketMode$|connect)/.test(
    path.join('.')
  )

/** Limits that the test's request may exceed, so that it gets no response. */
const mayReset = (path: Path) => /^listen\.(timeouts|limits)/.test(path.join('.'))

/** Status of one request, or the code of the error that ended its connection. */
function ask({ address, port }: AddressInfo, isTls: boolean): Promise<number | string> {
  const { get } = isTls ? https : http
  // Its own certificate is the one that `listen.tls.ca` may ask for.
  const tls = isTls
    ? { servername: 'localhost', rejectUnauthorized: false, cert: readFileSync(cert), key: readFileSync(key) }
    : {}
  const limits = { agent: false, timeout: 5000, maxHeaderSize: 2 ** 20 }
  return new Promise((resolve) => {
    const headers = { origin: 'http://a' }
    const request = get({ host: address, port, path: '/a', headers, ...limits, ...tls }, (response) => {
      response.resume().once('close', () => resolve(response.statusCode!))
    })
    request.once('timeout', () => request.destroy(new Error('no response')))
    request.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
  })
}

/** Returns the failure, or null; undefined where `check` reports faults. */
async function serve(path: Path, value: unknown): Promise<string | null | undefined> {
  const text = JSON.stringify(configWith(path, value))
  let config: ReturnType<typeof parseConfig>
  try {
    config = parseConfig(text, file, {})
  } catch (error) {
    if (error instanceof ConfigError) return undefined
    return `check: ${(error as Error).stack}`
  }
  let server: ReturnType<typeof build> | null = null
  let isBuilt = false
  try {
    server = build(config, { logger: false })
    await server.after()
    isBuilt = true
    await server.listen({ host: config.listen.host, port: config.listen.port })
    if (config.admin !== false) await server.admin!.listen({ host: config.admin.host, port: 0 })
    const status = await ask(server.server.address() as AddressInfo, config.listen.tls !== undefined)
    if (status === 500 || (typeof status === 'string' && !mayReset(path))) return `a request: ${status}`
    return null
  } catch (error) {
    // A check of the configuration does not look up names, nor whether an address is this machine's.
    const { code = '' } = error as NodeJS.ErrnoException
    if (path.at(-1) === 'host' && ['ENOTFOUND', 'EAI_AGAIN', 'EADDRNOTAVAIL'].includes(code)) return null
    // The contents of these files are checked when the gateway is built, which `check` does as well.
    if (!isBuilt && (path.includes('tls') || path.includes('module'))) return undefined
    return `start: ${(error as Error).message}`
  } finally {
    await server?.close()
  }
}

/** Keys of `edge` about what a caller may do. */
export const access = /^edge\.(acl|authorization|ipFilter|rateLimit)\b/
/** Keys of `edge` about who a caller is: passwords, keys and the tokens of an authorization server. */
export const credentials = /^edge\.(authentication|basicAuth|forwardAuth|introspection|jwt|keyAuth|uma)\b/
/** The same: certificates, signatures, logins and functions of users. */
export const logins = /^edge\.(authorizer|forwardClientCert|hmacAuth|messageSignature|mtlsAuth|oidc)\b/

/** Keys about bearer tokens. */
export const tokens = /^edge\.(jwt|introspection|uma)\b/

/** Returns whether a value names a file that would be created outside of the folder of the test. */
const isElsewhere = (place: string, value: unknown) => place === 'edge.accessLog.file' && /^\/|\.\./.test(String(value))

/** Tests every key of some top-level sections, or only some keys. */
export function testSections(sections: readonly string[], isWanted: (path: string) => boolean = () => true): void {
  for (const section of sections) t.test(section, (t) => testSection(t, section, isWanted))
}

async function testSection(t: Test, section: string, isWanted: (path: string) => boolean): Promise<void> {
  // Alternatives of one schema may have the same keys.
  const done = new Set<string>()
  // Gateways that differ only in `edge` do not disturb each other.
  const atOnce = section === 'edge' ? 8 : 1
  for (const [path, shape] of keysOf(loader.schema as Shape)) {
    const place = path.join('.')
    const id = place + JSON.stringify(shape)
    if (path[0] !== section || isLeftOut(path) || !isWanted(place) || done.has(id)) continue
    done.add(id)
    const failed: string[] = []
    let accepted = 0
    const waiting = valuesFor(shape).filter((value) => !isElsewhere(place, value))
    const work = async () => {
      while (waiting.length > 0) {
        const value = waiting.pop()
        const result = await serve(path, value)
        if (result !== undefined) accepted++
        if (typeof result === 'string') failed.push(`${String(JSON.stringify(value)).slice(0, 80)}: ${result}`)
      }
    }
    await Promise.all(Array.from({ length: atOnce }, work))
    t.strictSame(failed, [], `${place}: ${accepted} values are accepted and served`)
    if (accepted === 0) t.fail(`${place}: no value is accepted`)
  }
}
