// Jingwei with one concern at a time, to see what each adds to proxying.
import { createHash, createHmac, scryptSync } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { client, instances, launch, secret, section, tokens } from './gateway.ts'
import type { Launch, Setup, Subject } from './subjects.ts'

/** A concern: keys of the configuration, and the clients' headers. */
interface Concern {
  readonly edge?: readonly string[]
  readonly mesh?: readonly string[]
  readonly listen?: readonly string[]
  /** Other lines of the configuration. */
  readonly more?: (setup: Setup) => readonly string[]
  /** Other settings of the service. */
  readonly service?: string
  readonly clients?: () => readonly Readonly<Record<string, string>>[]
  readonly calls?: number
  /** Query of the clients' requests. */
  readonly query?: string
}

const callers = 1000
const keyOf = (number: number) => `key-of-client-${number}`
const hashed = (key: string) => `sha256:${createHash('sha256').update(key).digest('hex')}`

const consumers = () =>
  section(
    'consumers',
    Array.from(
      { length: callers },
      (_, i) => `- { name: c${i}, groups: [gold], keyAuth: [{ hash: '${hashed(keyOf(i))}' }] }`
    )
  )
const keys = () => Array.from({ length: callers }, (_, i) => ({ 'x-api-key': keyOf(i) }))
/** Clients with addresses of their own, behind a trusted proxy. */
const byAddress = {
  listen: ["trustProxy: ['127.0.0.1']"],
  clients: () => Array.from({ length: callers }, (_, i) => address(i))
}
const address = (number: number) => ({ 'x-forwarded-for': `10.1.${number >> 8}.${number & 255}` })
const byKey = { more: consumers, clients: keys }
const redis = ({ redisUrl }: Setup) => [`redis: { url: '${redisUrl}' }`]
const networks = Array.from({ length: callers }, (_, i) => `172.16.${i >> 8}.${i & 255}`).join(', ')
const jwt = `jwt: { secret: '${secret}', issuer: bench, audience: bench, forward: { sub: x-user-id } }`

const list = (lines: readonly string[]) => () => section('consumers', lines)
const each = <T>(make: (number: number) => T): T[] => Array.from({ length: callers }, (_, i) => make(i))
/** Consumers with passwords: few, since each is hashed at the start. */
const few = Array.from({ length: 10 }, (_, i) => ({ name: `u${i}`, password: `password-of-${i}` }))
const passwordHash = (password: string) => {
  const salt = Buffer.from('salt of the bench')
  const encoded = [salt, scryptSync(password, salt, 32, { N: 1024 })].map((bytes) =>
    bytes.toString('base64').replace(/=+$/, '')
  )
  return `$scrypt$ln=10,r=8,p=1$${encoded.join('$')}`
}
const passwords = list(
  few.map(
    ({ name, password }) => `- { name: ${name}, basicAuth: { username: ${name}, hash: '${passwordHash(password)}' } }`
  )
)
/** A secret of 32 bytes for both kinds of signatures, as its text has no characters to escape. */
const secretOf = (number: number) => Buffer.from(`secret of caller ${number}`.padEnd(32, '.')).toString('base64')
const macOf = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest('base64')
const hmacSigned = (number: number) => {
  const date = new Date().toUTCString()
  const mac = macOf(secretOf(number), `date: ${date}`)
  return {
    date,
    authorization: `hmac username="c${number}", algorithm="hmac-sha256", headers="date", signature="${mac}"`
  }
}
const messageSigned = (number: number) => {
  const parameters = `();created=${Math.floor(Date.now() / 1000)};keyid="c${number}"`
  const mac = macOf(Buffer.from(secretOf(number), 'base64'), `"@signature-params": ${parameters}`)
  return { 'signature-input': `a=${parameters}`, signature: `a=:${mac}:` }
}
/** Writes a file into the folder of the subject, and returns its path. */
const file = ({ folder }: Setup, name: string, content: string) => {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, name), content)
  return `./${name}`
}
const authorizer = "export default (request) => ({ consumer: request.headers['x-api-key'] })\n"
const openapi = `
openapi: 3.1.0
info: { title: bench, version: '1' }
paths:
  /small:
    get:
      responses:
        '200':
          description: a greeting
          content:
            application/json: { schema: { type: object, required: [hello], properties: { hello: { type: string } } } }
`
/** Consumers with options of their own, by their keys. */
const withOwn = (edge: string) =>
  list(each((i) => `- { name: c${i}, keyAuth: { hash: '${hashed(keyOf(i))}' }, edge: { ${edge} } }`))

/** One entry per concern. The names have no commas. `bearer tokens` shows what the longer requests alone cost. */
const concerns: Readonly<Record<string, Concern>> = {
  'access log': { edge: ['accessLog: true'] },
  'access log (combined)': { edge: ['accessLog: { format: combined }'] },
  'access log (file)': { edge: ['accessLog: { file: ./access.log }'] },
  'access log (template)': { edge: ["accessLog: { format: '{ip} {method} {path} {status} {durationMs}' }"] },
  tracing: {
    edge: [],
    more: ({ originPort }) => [
      `tracing: { otlp: { http: { endpoint: 'http://127.0.0.1:${originPort}/small' } }, sampleRate: 100% }`
    ]
  },
  metrics: { more: () => ['admin: { port: 0 }'] },
  'body limit': { edge: ['bodyLimit: 1mb'] },
  overload: { edge: ['overload: { requests: 10000, memory: 90% }'] },
  cors: {
    edge: ['cors: { origin: [https://app.example.com], credentials: true }'],
    clients: () => [{ origin: 'https://app.example.com' }]
  },
  'forwarded addresses': byAddress,
  'IP filter (1000 networks)': { ...byAddress, edge: [`ipFilter: { deny: [${networks}] }`] },
  'rate limit': { ...byAddress, edge: ['rateLimit: { max: 1000000000, window: 1h }'] },
  'rate limit (three windows)': {
    ...byAddress,
    edge: [
      'rateLimit: [{ max: 1000000, window: 1s }, { max: 1000000000, window: 1h }, { max: 1000000000, window: 1d }]'
    ]
  },
  'rate limit (Redis)': {
    ...byAddress,
    edge: ['rateLimit: { max: 1000000000, window: 1h, store: redis }'],
    more: redis
  },
  'rate limit (Redis with lease)': {
    ...byAddress,
    edge: ['rateLimit: { max: 1000000000, window: 1h, store: redis, lease: 1000 }'],
    more: redis
  },
  'bearer tokens': { edge: [], clients: () => Array.from({ length: tokens }, (_, i) => client(i)) },
  'JWT (10000 tokens)': { edge: [jwt], clients: () => Array.from({ length: tokens }, (_, i) => client(i)) },
  'API keys (1000 consumers)': { ...byKey, edge: ['keyAuth: {}'] },
  'API keys and ACL': { ...byKey, edge: ['keyAuth: {}', 'acl: { allow: [gold] }'] },
  'passwords (10 consumers)': {
    edge: ['basicAuth: {}'],
    more: passwords,
    clients: () => few.map(({ name, password }) => ({ authorization: `Basic ${btoa(`${name}:${password}`)}` }))
  },
  'HMAC signatures': {
    edge: ['hmacAuth: { clockSkew: 1h, enforceHeaders: [] }'],
    more: list(each((i) => `- { name: c${i}, hmacAuth: { username: c${i}, secret: '${secretOf(i)}' } }`)),
    clients: () => each(hmacSigned)
  },
  'message signatures': {
    edge: ['messageSignature: { maxAge: 1h, components: [] }'],
    more: list(
      each(
        (i) => `- { name: c${i}, messageSignature: { keyId: c${i}, algorithm: hmac-sha256, secret: '${secretOf(i)}' } }`
      )
    ),
    clients: () => each(messageSigned)
  },
  'introspection (1000 tokens)': {
    edge: ['introspection: { service: origin, path: /active, clientId: bench, clientSecret: bench, maxAge: 1h }'],
    clients: () => each((i) => ({ authorization: `Bearer token-${i}` }))
  },
  authorizer: {
    edge: ['authorizer: { module: ./authorizer.mjs }'],
    more: (setup) => {
      file(setup, 'authorizer.mjs', authorizer)
      return []
    },
    clients: keys
  },
  'forward auth': { edge: ['forwardAuth: { service: origin, path: /small }'], calls: 2 },
  'forward auth with a cache': {
    edge: ["forwardAuth: { service: origin, path: /small, cache: { ttl: 1m, key: ['header:x-api-key'] } }"],
    clients: keys
  },
  'IP filter of consumers': {
    edge: ['keyAuth: {}', "ipFilter: { deny: ['192.0.2.0/24'] }"],
    more: withOwn("ipFilter: { allow: ['127.0.0.0/8'] }"),
    clients: keys
  },
  'rate limit of consumers': {
    edge: ['keyAuth: {}', 'rateLimit: { max: 1000000000, window: 1h, by: consumer }'],
    more: withOwn('rateLimit: { max: 1000000, window: 1s }'),
    clients: keys
  },
  'consumers of a file': {
    edge: ['keyAuth: {}'],
    more: (setup) => [`consumers: { file: ${file(setup, 'consumers.yaml', consumers().slice(1).join('\n'))} }`],
    clients: keys
  },
  'metrics of consumers': {
    edge: ['keyAuth: {}', 'metrics: { consumers: 100 }'],
    more: () => [...consumers(), 'admin: { port: 0 }'],
    clients: keys
  },
  authorization: {
    edge: [
      "authorization: { default: allow, rules: [{ action: deny, methods: [DELETE] }, { action: deny, addresses: ['192.0.2.0/24'] }] }"
    ]
  },
  'request headers': {
    edge: ["headers: { request: { set: { x-request: '{request.id}', x-gateway: jingwei }, remove: [x-debug] } }"]
  },
  'response headers': { edge: ['headers: { response: { set: { x-frame-options: DENY }, remove: [server] } }'] },
  'security headers': { edge: ['securityHeaders: true'] },
  query: { edge: ['query: { set: { source: gateway }, remove: [debug] }'] },
  cookies: {
    edge: ['cookies: { request: { remove: [debug] } }'],
    clients: () => [{ cookie: 'session=0123456789abcdef; debug=1; theme=dark' }]
  },
  validation: {
    edge: ['validation: { query: { type: object, properties: { page: { type: integer } } } }']
  },
  'validation of responses': {
    edge: ['validation: { openapi: ./openapi.yaml, responses: enforce }'],
    more: (setup) => {
      file(setup, 'openapi.yaml', openapi)
      return []
    }
  },
  graphql: { edge: ['graphql: {}'], query: '?query=%7Bhero%7Bname%20friends%7Bname%7D%7D%7D' },
  'bodies of responses': { edge: ['body: { response: { set: { /seen: true } } }'] },
  // One request of each two is answered from the cache, so that the other one counts them.
  'cache (every other request a hit)': {
    edge: ['cache: { ttl: { 200: 1h } }'],
    clients: () => [{ 'cache-control': 'max-age=3600' }, { 'cache-control': 'no-store' }],
    calls: 0.5
  },
  'API version': { edge: ['apiVersion: v1'], more: () => ['admin: { port: 0 }'] },
  deprecation: { edge: ["deprecation: { at: '2030-01-01', successor: /v2 }"] },
  'error pages': { edge: ["errorPages: { upstream: [5xx], pages: { default: { html: '<h1>{{status}}</h1>' } } }"] },
  compression: { edge: ['compression: {}'], clients: () => [{ 'accept-encoding': 'gzip' }] },
  csrf: { edge: ['csrf: {}'], clients: () => [{ 'sec-fetch-site': 'same-origin' }] },
  'user agents': { edge: ["userAgent: { deny: ['*curl*', '*bot*'] }"] },
  credentials: { service: 'mesh: { credentials: { bearer: { token: a-token-of-the-bench } } }' },
  'least request': { mesh: ['balance: least-request'] },
  retries: { mesh: ['retry: { on: [connect-failure, reset, gateway-error] }'] },
  'circuit breaker': { mesh: ['circuitBreaker: { maxConnections: 10000, perInstance: { maxConnections: 10000 } }'] },
  'outlier detection': { mesh: ['outlierDetection: {}'] }
}

/** Returns the function that starts the gateway with nothing but one concern. */
function only({
  edge = [],
  mesh = [],
  listen = [],
  more = () => [],
  service,
  clients = () => [],
  calls,
  query
}: Concern) {
  return async (setup: Setup): Promise<Launch> => {
    const off = (name: string, lines: readonly string[], line: string) =>
      lines.some((each) => each.startsWith(`${name}:`)) ? [] : [line]
    const extra = more(setup)
    const lines = [
      ...off('admin', extra, 'admin: false'),
      ...section('edge', [
        ...edge,
        ...off('accessLog', edge, 'accessLog: false'),
        ...off('bodyLimit', edge, 'bodyLimit: false')
      ]),
      ...section('mesh', [...mesh, ...off('retry', mesh, 'retry: false')]),
      ...extra
    ]
    return {
      ...launch(setup, lines, `{ instances: ${instances(setup, '127.0.0')}${service ? `, ${service}` : ''} }`, listen),
      clients: clients(),
      calls,
      query
    }
  }
}

export const alone: readonly Subject[] = Object.entries(concerns).map(([name, concern]) => ({
  name: `jingwei with ${name}`,
  launch: only(concern)
}))
