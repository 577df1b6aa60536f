/** Each value of a sound configuration, replaced by values of other kinds: there are faults or none, but no other errors. */
import type { Test } from 'tap'
import t from 'tap'
import { ConfigError } from '../../config/load.ts'
import { parseConfig } from '../../plugins/config.ts'

t.setTimeout(120_000)

const file = `${import.meta.dirname}/gateway.yaml`
const folder = t.testdir({ 'openapi.yaml': 'openapi: 3.1.0\npaths: {}\n', 'index.html': '' })

const others = [null, [], {}, 7, 'x', true, [null], { x: null }]

/** Values of concerns, in force at the top level and on a route. */
const concerns: Record<string, unknown> = {
  host: 'a.example',
  jwt: { secret: 'x'.repeat(40), forward: { sub: ['x-a', 'x-b'], iss: 'x-c' } },
  securityHeaders: {
    override: true,
    strictTransportSecurity: { maxAge: '365d', preload: true },
    xFrameOptions: 'DENY',
    contentSecurityPolicy: "default-src 'self'"
  },
  cors: {
    origin: ['https://a.example', 'https://*.example.com', '/^https:.*$/'],
    methods: ['GET'],
    allowedHeaders: ['a'],
    credentials: true,
    privateNetwork: true,
    maxAge: '1h'
  },
  csrf: { trustedOrigins: ['https://b.example'], sameSite: true },
  userAgent: { deny: ['*bot*', '/^x.*$/'], except: ['good*'], empty: 'pass' },
  earlyHints: { links: ['</a.css>; rel=preload; as=style'], when: 'always', http1: true },
  deprecation: { at: '2030-01-01', sunset: '2031-01-01', successor: '/v2', link: '/docs', afterSunset: 'refuse' },
  maintenance: {
    enabled: false,
    retryAfter: '1m',
    allow: { addresses: ['10.0.0.0/8'], headers: { 'x-secret': 'abc' } },
    body: 'x',
    contentType: 'text/html'
  },
  errorPages: {
    format: 'problem',
    pages: { '5xx': { html: '<p>{{status}}', json: '{}' }, JW_NO_ROUTE: { text: 'x' } },
    upstream: [404, '5xx']
  },
  headers: {
    request: {
      only: ['a'],
      remove: ['b'],
      rename: { c: 'd' },
      set: { e: '{request.ip}', f: ['x', '{headers.y|z}'] },
      add: { g: 'h' },
      append: { i: 'j' }
    },
    response: { remove: ['x-b'], set: { 'x-c': '{response.status}' } }
  },
  body: {
    request: { only: ['/a'], remove: ['/a/b'], rename: { '/c': '/d' }, set: { '/e': '{request.ip}' }, types: ['*/*'] },
    response: [{ statuses: [200, '4xx'], add: { '/f': { g: ['{response.status}'] } } }],
    maxSize: '1mb'
  },
  accessLog: {
    format: { at: '{time}', status: '{status}' },
    filters: { statusCodes: [404, '5xx'], minDuration: '1s', sample: '1%' }
  },
  cache: { ttl: { 200: '1m' }, key: { headers: ['x-a'], ignoreQuery: ['utm_*'] }, maxEntry: '1mb' },
  compression: { encodings: ['br'], types: ['text/*'], level: { br: 4 } },
  validation: { query: { type: 'object' }, body: { content: { 'application/json': { type: 'object' } } } },
  query: { only: ['a'], remove: ['b'], rename: { c: 'd' }, set: { e: '{request.ip}' }, add: { f: ['g', 'h'] } },
  cookies: {
    request: { only: ['a'], remove: ['b'], rename: { c: 'd' }, set: { e: '{request.ip}' } },
    response: { remove: ['s'], names: ['q'], domain: false, path: '/', sameSite: 'Lax', secure: true }
  }
}

const routes: Record<string, unknown>[] = [
  {
    service: 's',
    match: { path: '/x/:id', methods: ['GET'], hosts: ['a.example'], headers: { x: '1' } },
    path: { rewrite: { path: '/b/:id' } },
    edge: {
      headers: { request: { set: { 'x-id': '{params.id}' } } },
      query: { set: { i: '{params.id}' } },
      cookies: { request: { set: { i: '{params.id}' } } },
      host: 'upstream'
    }
  },
  {
    split: [
      { service: 's', weight: 1 },
      { service: 't', weight: 2 }
    ],
    path: { strip: true }
  },
  { response: { status: 200, headers: { x: 'y' }, json: { a: 1 }, etag: true }, edge: { cors: { origin: '*' } } },
  { match: { path: '/x/*' }, redirect: { to: 'https://e.example/x/*', status: 308, query: 'drop' } },
  { redirect: { scheme: 'https', port: 8443 } },
  { files: { root: folder, index: 'index.html', spa: true, maxAge: '1h', immutable: true }, path: { strip: '/x' } },
  {
    portal: {
      title: 'A',
      services: { s: { path: '/o' }, t: { file: `${folder}/openapi.yaml` } },
      refresh: '1m',
      maxDocumentSize: '1mb'
    },
    edge: { headers: { response: { set: { a: 'b' } } } }
  },
  {
    match: { path: '/x', methods: ['GET'] },
    compose: { calls: { x: { service: 's', path: '/x' } } },
    edge: { headers: { request: { set: { z: 'y' } } } }
  }
]

const instances = ['http://127.0.0.1:9']
const base = { services: { s: { instances }, t: { instances } } }
const plain = [
  { name: 's', match: { path: '/s' }, service: 's' },
  { name: 't', match: { path: '/t' }, service: 't' }
]

function* placesOf(value: unknown, place: readonly string[] = []): Generator<readonly string[]> {
  if (place.length > 0) yield place
  if (typeof value !== 'object' || value === null) return
  for (const [key, each] of Object.entries(value)) yield* placesOf(each, [...place, key])
}

/** Returns a copy in which one value is another one. */
function replaced(whole: unknown, [key, ...rest]: readonly string[], by: unknown): unknown {
  if (key === undefined) return by
  const copy = (Array.isArray(whole) ? [...(whole as unknown[])] : { ...(whole as object) }) as Record<string, unknown>
  copy[key] = replaced(copy[key], rest, by)
  return copy
}

/** Returns the number of faults. */
function faultsIn(config: unknown): number {
  try {
    parseConfig(JSON.stringify(config), file, {})
    return 0
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    if (error.faults.some(({ line, message }) => !(line > 0) || message === '')) throw error
    return error.faults.length
  }
}

/** Tries all values at all places of the configuration below one of these. */
function tryAll(t: Test, config: object, ...within: (readonly string[])[]) {
  t.equal(faultsIn(config), 0, 'the configuration is sound')
  let faulty = 0
  for (const place of placesOf(config)) {
    if (!within.some((each) => each.every((key, index) => place[index] === key))) continue
    for (const value of others) {
      try {
        if (faultsIn(replaced(config, place, value)) > 0) faulty++
      } catch (error) {
        t.fail(`/${place.join('/')}: ${JSON.stringify(value)}: ${(error as Error).stack}`)
      }
    }
  }
  t.ok(faulty > 0)
}

for (const [name, options] of Object.entries(concerns)) {
  t.test(`edge.${name}`, async (t) => {
    const own = { name: 'own', match: { path: '/own' }, service: 's', edge: { [name]: options } }
    tryAll(t, { ...base, edge: { [name]: options }, routes: [...plain, own] }, ['edge'], ['routes', '2', 'edge'])
  })
}

for (const route of routes) {
  t.test(Object.keys(route).join(', '), async (t) => {
    const whole = { name: 'own', match: { path: '/x' }, ...route }
    tryAll(
      t,
      { ...base, edge: { errorPages: concerns.errorPages }, routes: [...plain, whole] },
      ['routes'],
      ['services']
    )
  })
}
