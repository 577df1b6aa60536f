// Tests of jingwei/testing.
import { Readable } from 'node:stream'
import { setImmediate as nextIteration } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import type { ScriptedService, TestGatewayOptions } from '../../plugins/testing/index.ts'
import { ConfigError, testGateway } from '../../plugins/testing/index.ts'
import { selfSigned } from '../helpers/self-signed.ts'

const orders = { name: 'orders', match: { path: '/orders' }, service: 'orders' }

/** A gateway with one route to a service, that ends with the test. */
async function before(t: Test, service: ScriptedService, route: object = {}, more: Partial<TestGatewayOptions> = {}) {
  const config = { routes: [{ ...orders, ...route }] }
  const gateway = await testGateway({ config, services: { orders: service }, ...more })
  t.teardown(() => gateway.close())
  return gateway
}

/** Number of ports and connections of this process; other files may share it. */
const sockets = () => process.getActiveResourcesInfo().filter((name) => /TCP|Pipe.*Server/.test(name)).length

t.test('a gateway in three lines', async (t) => {
  const earlier = sockets()
  const config = { routes: [{ ...orders, path: { rewrite: { prefix: '/v2' } } }] }
  await using gateway = await testGateway({ config, services: { orders: { json: [{ id: 1 }] } } })
  const response = await gateway.inject('/orders/7?full=1')
  t.strictSame([response.statusCode, response.json()], [200, [{ id: 1 }]])
  t.equal(response.headers['content-type'], 'application/json')
  const [call] = gateway.calls('orders')
  t.match(call, {
    service: 'orders',
    method: 'GET',
    path: '/v2/7',
    url: '/v2/7?full=1',
    instance: 'http://orders-1.test'
  })
  t.equal(call!.query.get('full'), '1')
  t.equal(
    call!.headers['x-request-id'],
    response.headers['x-request-id'],
    'the headers are those that the service received'
  )
  t.ok(sockets() <= earlier, 'without a port')
})

t.test('a file whose mesh half can run in a sidecar is tested as one process', async (t) => {
  const gateway = await before(
    t,
    [{ status: 503 }, { json: {} }],
    { mesh: { retry: { attempts: 1, on: [503] } } },
    { override: { mesh: { mode: 'sidecar' }, sidecar: { gateway: { port: 9191 } } } }
  )
  t.equal((await gateway.inject('/orders')).statusCode, 200, 'the policy of the route is in force')
  const calls = gateway.calls('orders')
  t.equal(calls.length, 2)
  t.notOk('x-jingwei-call' in calls[0]!.headers)
})

const shipped = `
listen: { host: 0.0.0.0, port: 8443, trustProxy: [10.0.0.0/8] }
admin: { port: 9000 }
discovery: { consul: { url: "http://consul.invalid:8500", token: "\${CONSUL_TOKEN}" }, snapshot: { path: /var/lib/none/snapshot.json } }
redis: { url: "redis://redis.invalid:6379" }
edge:
  jwt: { jwks: "https://id.invalid/keys.json", issuer: "https://id.invalid", audience: [api], algorithms: [RS256], forward: { sub: x-user } }
  rateLimit: { max: 2, window: 1m, by: consumer, store: redis }
mesh: { identity: { service: gateway } }
services:
  orders: { mesh: { mode: connect, healthCheck: { path: /health } } }
  users: { dns: { host: users.invalid, port: 80 }, mesh: { tls: {} } }
  stock: { consul: { service: stock-v2, failover: [dc2] }, subsets: { fast: { tags: [fast] } } }
routes:
  - { name: orders, match: { path: /orders }, service: orders }
  - { name: users, match: { path: /users }, service: users, edge: { jwt: false, rateLimit: false } }
  - { name: stock, match: { path: /stock }, service: stock, mesh: { subset: fast }, edge: { jwt: false, rateLimit: false } }
`

t.test('the configuration that is shipped', async (t) => {
  const file = `${t.testdir({ 'gateway.yaml': shipped })}/gateway.yaml`
  const services: Record<string, ScriptedService> = {
    orders: (request) => ({ json: request.headers['x-user'] }),
    stock: { instances: [{ response: { body: 'slow' } }, { response: { body: 'fast' }, tags: ['fast'] }] }
  }
  const gateway = await testGateway({ config: file, env: { CONSUL_TOKEN: 's3cret' }, services })
  t.teardown(() => gateway.close())

  t.equal((await gateway.inject('/orders')).statusCode, 401)
  const authorization = `Bearer ${gateway.token({ sub: 'amy' }, { expiresIn: 600 })}`
  const ask = () => gateway.inject({ url: '/orders', headers: { authorization } })
  t.strictSame((await ask()).json(), 'amy', 'a token of the test is accepted in place of one that the key set verifies')
  await ask()
  t.equal((await ask()).statusCode, 429, 'a limit without Redis')
  gateway.clock.advance(60_000)
  t.equal((await ask()).statusCode, 200, 'its window ends by the clock')
  gateway.clock.advance(600_000)
  t.match((await ask()).json(), { code: 'JW_TOKEN_EXPIRED' }, 'and so does the token')
  t.equal(gateway.calls('orders').length, 3, 'no active check called')

  const stock = await Promise.all(Array.from({ length: 4 }, () => gateway.inject('/stock')))
  t.strictSame([...new Set(stock.map(({ body }) => body))], ['fast'], 'instances have tags')

  await t.rejects(gateway.inject('/users'), {
    message: 'service users was called and has no script: add it to `services` of testGateway (scripted: orders, stock)'
  })

  const unset = await testGateway({ config: file, env: {}, services }).catch((error: unknown) => error)
  t.ok(unset instanceof ConfigError, 'faults are those of the command line')
  t.match((unset as Error).message, /gateway\.yaml:4:\d+: discovery\.consul\.token: .*CONSUL_TOKEN/)
})

t.test('responses', async (t) => {
  const gateway = await before(t, [
    { status: 201, headers: { 'x-a': 'b', 'set-cookie': ['a=1', 'b=2'] }, body: 'text' },
    { body: Buffer.from([0, 255]) },
    { body: Readable.from(['one', 'two']) },
    () => ({ body: (function* () {
      yield 'three'
      yield Buffer.from('four')
    })() }),
    async (request) => ({ json: { got: request.json(), text: request.body } }),
    { status: 204 }
  ]) // biome-ignore format: a table
  const created = await gateway.inject('/orders')
  t.match(created, { statusCode: 201, body: 'text', headers: { 'x-a': 'b', 'set-cookie': ['a=1', 'b=2'] } })
  t.strictSame([...(await gateway.inject('/orders')).rawPayload], [0, 255])
  t.equal((await gateway.inject('/orders')).body, 'onetwo')
  t.equal((await gateway.inject('/orders')).body, 'threefour')
  const posted = await gateway.inject({ method: 'POST', url: '/orders', payload: { a: 1 } })
  t.strictSame(posted.json(), { got: { a: 1 }, text: '{"a":1}' })
  t.equal((await gateway.inject('/orders')).statusCode, 204)
  t.equal((await gateway.inject('/orders')).statusCode, 204, 'the last one repeats')
  gateway.respond('orders', [{ body: 'new' }])
  t.equal((await gateway.inject('/orders')).body, 'new')
})

t.test('large bodies both ways', async (t) => {
  const bytes = Buffer.alloc(3_000_000, 'abcdefg')
  const gateway = await before(t, ({ bytes }) => ({ body: bytes }))
  const payload = Readable.from([bytes.subarray(0, 1_000_000), bytes.subarray(1_000_000)])
  const response = await gateway.inject({ method: 'POST', url: '/orders', payload })
  t.ok(response.rawPayload.equals(bytes))
  t.ok(gateway.calls('orders')[0]!.bytes.equals(bytes))
})

t.test('connections that fail', async (t) => {
  const retry = { mesh: { retry: false } }
  const gateway = await before(t, [{ json: 1 }, { connection: 'refused' }, { connection: 'reset' }, { json: 2 }], retry)
  t.equal((await gateway.inject('/orders')).statusCode, 200)
  t.match((await gateway.inject('/orders')).json(), { statusCode: 502, code: 'JW_UPSTREAM_REFUSED' })
  t.match((await gateway.inject('/orders')).json(), { statusCode: 502, code: 'JW_UPSTREAM_RESET' })
  t.equal((await gateway.inject('/orders')).json(), 2)
  t.equal(gateway.calls('orders').length, 3, 'a refused connection is not recorded as a call')

  gateway.respond('orders', { connection: 'refused' })
  t.match(
    (await gateway.inject('/orders')).json(),
    { code: 'JW_UPSTREAM_REFUSED' },
    'also where a connection was idle in the pool'
  )

  gateway.respond('orders', { body: 'half of it', connection: 'reset' })
  await t.rejects(gateway.inject('/orders'), 'the client gets no complete response')
  const fails = () => ({ body: (function* () {
    yield 'half of it'
    throw new Error('the source has ended')
  })() }) // biome-ignore format: short
  gateway.respond('orders', fails)
  await t.rejects(gateway.inject('/orders'), 'the same for a stream that fails')
})

t.test('retries, circuit breaker and balancing', async (t) => {
  const policy = { mesh: { retry: { attempts: 2, on: ['connect-failure', 503] } } }
  const gateway = await before(t, [{ connection: 'refused' }, { status: 503 }, { json: 'third' }], policy)
  t.equal((await gateway.inject('/orders')).json(), 'third', 'retries')

  const breaker = { mesh: { retry: false, circuitBreaker: { minRequests: 2, errorRatio: '50%', openFor: '30s' } } }
  const broken = await before(t, { status: 500 }, {}, { override: { ...breaker } })
  for (let i = 0; i < 2; i++) await broken.inject('/orders')
  t.match((await broken.inject('/orders')).json(), { statusCode: 503, code: 'JW_CIRCUIT_OPEN' })
  broken.respond('orders', { json: 'well' })
  broken.clock.advance(29_000)
  t.equal((await broken.inject('/orders')).statusCode, 503)
  broken.clock.advance(2000)
  t.equal((await broken.inject('/orders')).json(), 'well', 'the circuit closes by the clock')

  const balanced = await before(
    t,
    { instances: [{ response: { body: 'a' } }, { response: { body: 'b' } }] },
    { mesh: {} }
  )
  const bodies = await Promise.all(Array.from({ length: 20 }, async () => (await balanced.inject('/orders')).body))
  t.strictSame([...new Set(bodies)].sort(), ['a', 'b'], 'balances')
})

t.test('delays are on the clock', async (t) => {
  const gateway = await before(t, [() => ({ delay: 10_000, json: 'late' }), { delay: Number.POSITIVE_INFINITY }])
  const late = gateway.inject('/orders')
  await gateway.called('orders')
  gateway.clock.advance(9000)
  await nextIteration()
  gateway.clock.advance(1000)
  t.equal((await late).json(), 'late')

  const client = new AbortController()
  const never = gateway.inject({ url: '/orders', signal: client.signal })
  const [, call] = await gateway.called('orders', 2)
  client.abort()
  await t.rejects(never)
  while (!call!.aborted) await nextIteration()
  t.pass('the call is aborted when the client disconnects')
})

t.test('timeouts, pauses and intervals are on the clock', async (t) => {
  const mesh = { timeout: '3h', attemptTimeout: '1h', retry: { attempts: 1, on: ['gateway-error'] } }
  const gateway = await before(t, { delay: Number.POSITIVE_INFINITY }, { mesh })
  const response = gateway.inject('/orders')
  for (const count of [1, 2]) {
    await gateway.called('orders', count)
    gateway.clock.advance(3_600_000)
  }
  t.match((await response).json(), { statusCode: 504, code: 'JW_ATTEMPT_TIMEOUT' })

  const outliers = { consecutive5xx: 1, interval: '10s', baseEjection: '60s', maxEjectionPercent: '50%' }
  const instances = [{ response: [{ status: 500 }, { body: 'a' }] }, { response: { body: 'b' } }]
  const ejecting = await before(
    t,
    { instances },
    {},
    { override: { mesh: { retry: false, outlierDetection: outliers } } }
  )
  const bodies = async () => {
    const some = await Promise.all(Array.from({ length: 20 }, async () => (await ejecting.inject('/orders')).body))
    return [...new Set(some)].filter(Boolean).sort()
  }
  while (!ejecting.log.some(({ msg }) => /ejected|unavailable/.test(String(msg)))) await ejecting.inject('/orders')
  t.strictSame(await bodies(), ['b'])
  ejecting.clock.advance(71_000)
  t.strictSame(await bodies(), ['a', 'b'], 'an instance returns by the clock')
})

t.test('the clock', async (t) => {
  const gateway = await before(t, { json: 1 })
  const { clock } = gateway
  const [now, date] = [clock.now(), clock.date()]
  clock.advance(86_400_000)
  t.ok(clock.now() - now >= 86_400_000)
  t.ok(clock.date() - date >= 86_400_000)
  for (const ms of [-1, Number.NaN, Number.POSITIVE_INFINITY]) t.throws(() => clock.advance(ms), RangeError)
})

t.test('the log, the admin port, the server', async (t) => {
  const gateway = await before(t, { json: 1 })
  await gateway.inject('/orders')
  t.match(
    gateway.log.find(({ msg }) => msg === 'request'),
    { level: 'info', status: 200, route: 'orders' }
  )
  t.match((await gateway.server.admin!.inject('/metrics')).body, /jingwei_edge_requests_total\{route="orders".* 1/)
  gateway.forgetCalls()
  t.strictSame(gateway.calls('orders'), [])
})

const stamp = `export default async function stamp(fastify, options) {
  fastify.addHook('onRequest', async (request, reply) => void reply.header('x-stamp', options.text))
}`

t.test('plugins', async (t) => {
  const folder = t.testdir({ 'stamp.js': stamp, 'gateway.yaml': 'services: {}\nroutes: []\nadmin: false\n' })
  const plugins = [{ path: './stamp.js', options: { text: 'now' } }]
  const config = { routes: [orders], plugins }
  const listed = await testGateway({ config, folder, services: { orders: { json: 1 } } })
  t.teardown(() => listed.close())
  t.equal((await listed.inject('/orders')).headers['x-stamp'], 'now', 'a path is relative to the folder')

  const added = await testGateway({ config: new URL(`file://${folder}/gateway.yaml`), folder, plugins })
  t.teardown(() => added.close())
  t.equal((await added.inject('/')).headers['x-stamp'], 'now', 'added to those of the file')

  const broken = t.testdir({ 'broken.js': 'export default async function () { throw new Error("no") }' })
  await t.rejects(
    testGateway({ config: { routes: [] }, folder: broken, plugins: [{ path: './broken.js' }] }),
    /plugins\[0\]: .*no/,
    'one that fails is a fault'
  )
})

const key = `export default {
  name: 'apiKey',
  options: { type: 'object', additionalProperties: false, properties: { vault: { type: 'string' }, keys: { type: 'array' } } },
  isolate: ({ vault, ...options }) => ({ ...options, keys: ['a key for tests'] }),
  token: ({ keys }, { claims, issuedAt, expiresIn }) => [keys[0], claims.sub, issuedAt > 0, expiresIn].join(),
  async plugin() {
    return ({ vault, keys = [] }) => ({
      onRequest: async (request, reply) => {
        reply.header('x-vault', vault ?? 'none').header('x-known', String(keys.includes(request.headers['x-key']?.split(',')[0])))
      }
    })
  }
}`

const quota = `export default {
  name: 'quota',
  options: { type: 'object', additionalProperties: false, properties: { server: { type: 'string' } } },
  isolate: () => false,
  layer: (service, { quota }) => quota ? () => { throw new Error('the quota server was called') } : null
}`

t.test('concerns of plugins: their options for tests, and their tokens', async (t) => {
  const folder = t.testdir({ 'key.js': key, 'quota.js': quota })
  const config = {
    edge: { apiKey: { vault: 'https://vault.invalid' } },
    mesh: { quota: { server: 'https://quota.invalid' } },
    routes: [
      { ...orders, mesh: { quota: { server: 'https://other.invalid' } } },
      { ...orders, name: 'open', match: { path: '/open' }, edge: { apiKey: false } }
    ],
    plugins: [{ path: './key.js' }, { path: './quota.js' }]
  }
  await using gateway = await testGateway({ config, folder, services: { orders: { json: 1 } } })
  const token = gateway.token({ sub: 'amy' }, { expiresIn: 60 })
  t.equal(token, 'a key for tests,amy,true,60')
  const response = await gateway.inject({ url: '/orders', headers: { 'x-key': token } })
  t.match(response, { statusCode: 200, headers: { 'x-vault': 'none', 'x-known': 'true' } })
  t.equal((await gateway.inject('/open')).statusCode, 200)
  t.throws(() => gateway.token({}, { route: 'open' }), {
    message: 'route open has no edge.jwt or edge.apiKey; those that have: orders'
  })
})

t.test('tokens of each algorithm', async (t) => {
  const secret = 'a secret of more than thirty-two characters'
  const asymmetric = [
    'RS256',
    'RS384',
    'RS512',
    'PS256',
    'PS384',
    'PS512',
    'ES256',
    'ES384',
    'ES512',
    'EdDSA',
    undefined
  ]
  const jwts = [
    ...['HS256', 'HS384', 'HS512', undefined].map((algorithm) => ({ algorithm, secret })),
    ...asymmetric.map((algorithm) => ({ algorithm, jwks: 'https://id.invalid/keys.json' }))
  ]
  const routes = jwts.map(({ algorithm, ...jwt }, index) => ({
    name: `route-${index}`,
    match: { path: `/${index}` },
    service: 'orders',
    edge: { jwt: { ...jwt, audience: ['one', 'two'], ...(algorithm !== undefined && { algorithms: [algorithm] }) } }
  }))
  await using gateway = await testGateway({ config: { routes }, services: { orders: { json: 1 } } })
  for (const [index, { algorithm }] of jwts.entries()) {
    const authorization = `Bearer ${gateway.token({}, { route: `route-${index}` })}`
    const { statusCode } = await gateway.inject({ url: `/${index}`, headers: { authorization } })
    t.equal(statusCode, 200, `${algorithm ?? 'none listed'}`)
  }
})

t.test('several listeners', async (t) => {
  const listen = [
    { name: 'plain', port: 80, redirect: 'https' },
    { name: 'public', port: 443, tls: selfSigned(t) },
    { name: 'internal', port: 8000 }
  ]
  const routes = [
    { ...orders, match: { path: '/orders', listeners: ['public'] } },
    { ...orders, name: 'admin', match: { path: '/admin', listeners: ['internal'] } }
  ]
  const statuses = async (listener?: string) => {
    const options = { config: { listen, routes }, services: { orders: { json: 1 } } }
    await using gateway = await testGateway({ ...options, ...(listener && { listener }) })
    const responses = [await gateway.inject('/orders'), await gateway.inject('/admin')]
    return responses.map(({ statusCode }) => statusCode)
  }
  t.strictSame(await statuses(), [200, 404], 'the first that does not redirect')
  t.strictSame(await statuses('internal'), [404, 200])
  t.notSame((await statuses('plain'))[0], 200)
  await t.rejects(statuses('outer'), { message: 'no listener is named "outer"; there are plain, public, internal' })
})

t.test('settings that differ in the test', async (t) => {
  const edge = { rateLimit: { max: 1, window: '1m' }, bodyLimit: '1kb' }
  const file = `${t.testdir({ 'gateway.yaml': JSON.stringify({ edge, services: {}, routes: [] }) })}/gateway.yaml`
  const override = {
    edge: { rateLimit: null, bodyLimit: '10b' },
    services: { orders: { instances: ['http://orders.invalid'] } },
    routes: [orders]
  }
  await using gateway = await testGateway({ config: file, override, services: { orders: { json: 1 } } })
  const post = (payload: string) => gateway.inject({ method: 'POST', url: '/orders', payload })
  t.strictSame([(await post('short')).statusCode, (await post('a longer text')).statusCode], [200, 413])
  t.notOk((await post('short')).headers['ratelimit-limit'], 'null removes a key')
})

t.test('faults of settings that the file does not have', async (t) => {
  const text = `services: { orders: { instances: [http://orders.invalid] } }
routes: [{ name: orders, match: { path: /orders }, service: orders }]
plugins: [{ path: ./own.mjs }]
edge: { bodyLimit: 1kb }
`
  const own = 'export default async function () {}'
  const fails = 'export default async function () { throw new Error("no luck") }'
  const dir = t.testdir({ 'gateway.yaml': text, 'own.mjs': own, 'fails.mjs': fails, 'module.mjs': 'throw new Error("x")' })
  const file = `${dir}/gateway.yaml`
  const faultsOf = async (options: Partial<TestGatewayOptions>): Promise<string[]> => {
    const error = await testGateway({ config: file, ...options }).then(
      () => null,
      (error: unknown) => error
    )
    return error instanceof ConfigError ? error.message.replaceAll(`${dir}/`, '').split('\n').slice(0, -1) : [String(error)]
  }
  const cases: [options: Partial<TestGatewayOptions>, faults: string[]][] = [
    [{ override: { mehs: {}, roots: [] } }, ['override of testGateway: mehs: unknown key; did you mean "mesh"?', 'override of testGateway: roots: unknown key']],
    [{ override: { edge: { bodyLimit: 'much' } } }, ['override of testGateway: edge.bodyLimit: expected false or a mapping or a size such as 512b, 16kb or 10mb, found "much"']],
    [{ override: { mesh: { retry: { attemps: 1 } } } }, ['override of testGateway: mesh.retry.attemps: unknown key; did you mean "attempts"?']],
    [{ override: { services: { orders: { instances: null, dns: {} } } } }, ['override of testGateway: services.orders.dns: missing key "host"', 'override of testGateway: services.orders.dns: needs a port, or srv: true']],
    [{ override: { routes: [orders, orders] } }, ['override of testGateway: routes[1].name: duplicate route name "orders"; it is also in override of testGateway', 'override of testGateway: routes[1].match: routes "orders" (in override of testGateway) and "orders" match the same requests: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS /orders']],
    [{ override: { edge: { jwt: { secret: 'x'.repeat(32) } }, services: null } }, ['gateway.yaml:2:61: routes[0].service: unknown service "orders"']],
    [{ plugins: [{ path: './nowhere.mjs' }] }, [`plugins of testGateway: plugins[1].path: no such file: ${process.cwd()}/nowhere.mjs`]],
    [{ folder: dir, plugins: [{ path: './fails.mjs' }] }, ['plugins of testGateway: plugins[1]: fails.mjs failed to start: no luck (fails.mjs:1:42)']],
    [{ folder: dir, plugins: [{ path: './module.mjs' }] }, ['plugins of testGateway: plugins[1]: cannot load module.mjs: x (module.mjs:1:7)']],
    [{ folder: dir, override: { plugins: [{ path: './fails.mjs' }] } }, ['override of testGateway: plugins[0]: fails.mjs failed to start: no luck (fails.mjs:1:42)']]
  ]
  for (const [options, faults] of cases) t.strictSame(await faultsOf(options), faults)
}) // biome-ignore format: a table

t.test('misuse', async (t) => {
  const config = { routes: [orders] }
  const refused = (options: object, message: string) => t.rejects(testGateway(options as never), { message })
  await refused(undefined as never, 'testGateway: expected { config, services }, found undefined')
  await refused('gateway.yaml' as never, 'testGateway: expected { config, services }, found a text')
  await refused({}, 'testGateway: missing config, a file or settings')
  await refused({ config: [] }, 'testGateway: config: expected a file or settings, found a list')
  await refused({ config: '' }, 'testGateway: config: expected a file or settings, found an empty text')
  await refused({ config, override: 'x' }, 'testGateway: override: expected settings such as { mesh: { retry: false } }, found a text')
  await refused({ config, plugins: {} }, "testGateway: plugins: expected a list such as [{ path: './plugin.ts' }], found an empty object")
  await refused({ config, plugins: ['./x.ts'] }, "testGateway: plugins[0]: expected an entry such as { path: './plugin.ts' }, found a text")
  await refused({ config, services: [] }, 'testGateway: services: expected scripts by service such as { orders: { json: [] } }, found a list')
  await refused({ config, service: {} }, 'testGateway: unknown key "service"; there are config, folder, env, override, plugins, services, listener')
  await t.rejects(testGateway({ config: 'none.yaml' }), /none\.yaml: no such file\n1 fault in /)
  await t.rejects(testGateway({ config: { ...config, routs: [] } }), /routs: unknown key; did you mean "routes"/)
  const file = `${t.testdir({ 'gateway.yaml': shipped })}/gateway.yaml`
  const env = { CONSUL_TOKEN: 'x' }
  await refused({ config: file, env, services: { order: {} } }, 'order is no service of the configuration; did you mean "orders"?')
  const wrong: [service: unknown, message: string][] = [
    [null, 'services.orders: expected a response such as { json: [] }, found null'],
    ['text', 'services.orders: expected a response such as { json: [] }, found string'],
    [[], 'services.orders: expected at least one response in the list'],
    [[{}, { stauts: 1 }], 'services.orders[1]: unknown key "stauts"; there are status, headers, json, body, delay, connection'],
    [{ status: 99 }, 'services.orders.status: expected a status from 200 to 599, found 99'],
    [{ json: 1, body: '1' }, 'services.orders: a response has either json or body, not both'],
    [{ delay: -1 }, 'services.orders.delay: expected milliseconds, found -1'],
    [{ connection: 'slow' }, 'services.orders.connection: expected refused or reset, found "slow"'],
    [{ instances: {} }, 'services.orders.instances: expected a list'],
    [{ instances: [{}] }, 'services.orders.instances[0]: expected { response } with the script of the instance'],
    [{ instances: [{ response: {}, tag: 1 }] }, 'services.orders.instances[0]: unknown key "tag"; there are response, weight, tags, meta']
  ]
  for (const [service, message] of wrong) await refused({ config, services: { orders: service } }, message)

  const gateway = await before(t, { json: 1 })
  t.throws(() => gateway.calls('order'), { message: 'order is no service of the configuration; did you mean "orders"?' })
  t.throws(() => gateway.respond('orders', []), { message: 'orders: expected at least one response in the list' })
  const tokenless = { message: 'no route has edge.jwt: set it for a route or for all, by "override" if only the test needs it' }
  t.throws(() => gateway.token(), tokenless)
  t.throws(() => gateway.token({}, { route: 'orders' }), tokenless)
  const jwt = { secret: 'x'.repeat(32) }
  await using some = await testGateway({ config: { routes: [orders, { ...orders, name: 'users', match: { path: '/users' }, edge: { jwt } }] }, services: { orders: {} } })
  t.throws(() => some.token({}, { route: 'orders' }), { message: 'route orders has no edge.jwt; those that have: users' })
  t.throws(() => some.token({}, { route: 'user' }), { message: 'no route is named "user"; did you mean "users"?' })
}) // biome-ignore format: a table

t.test('a script that is wrong fails the request, and no other', async (t) => {
  const gateway = await before(t, [
    () => {
      throw new Error('expected 1 to equal 2')
    },
    (() => ({ jsn: 1 })) as never,
    (() => undefined) as never,
    () => ({ connection: 'refused' }),
    { json: 1 }
  ])
  await t.rejects(gateway.inject('/orders'), { message: 'expected 1 to equal 2' })
  await t.rejects(gateway.inject('/orders'), /the response of the function for service orders: unknown key "jsn"/)
  await t.rejects(gateway.inject('/orders'), /the function for service orders: expected a response .*, found undefined/)
  await t.rejects(gateway.inject('/orders'), /a function cannot refuse a connection/)
  t.equal((await gateway.inject('/orders')).json(), 1)
})

t.test('a gateway closes while a response is pending, and then reports faults that no request reported', async (t) => {
  const config = { routes: [{ ...orders, mesh: { retry: false } }] }
  const pending = await testGateway({ config, services: { orders: { delay: Number.POSITIVE_INFINITY } } })
  const response = pending.inject('/orders')
  await pending.called('orders')
  await pending.close()
  t.match((await response).json(), { code: 'JW_UPSTREAM_RESET' })

  const mirrored = { ...config, mesh: { mirror: { service: 'shadow' } }, services: { shadow: {} } }
  const gateway = await testGateway({ config: mirrored, services: { orders: { json: 1 } } })
  await gateway.inject('/orders').catch(() => {})
  await gateway.server.mesh.request({ origin: 'http://shadow.mesh', path: '/', method: 'GET' }).catch(() => {})
  await t.rejects(gateway.close(), /service shadow was called and has no script/)
})

t.test('several gateways at once, and again after they have closed', async (t) => {
  for (let i = 0; i < 2; i++) {
    const gateways = await Promise.all(['a', 'b'].map((body) => before(t, { body })))
    const responses = await Promise.all(gateways.map((gateway) => gateway.inject('/orders')))
    t.strictSame(responses.map(({ body }) => body), ['a', 'b'])
    await Promise.all(gateways.map((gateway) => gateway.close()))
    await t.rejects(gateways[0]!.inject('/orders'), 'one that has closed takes no request')
  }
}) // biome-ignore format: short

t.test('a configuration with mesh: false, whose services are scripted as others are', async (t) => {
  const config = new URL('../../config/examples/edge-only.yaml', import.meta.url)
  const services = { users: { json: { id: 7 } }, orders: [{ status: 503 }, { json: [] }] }
  await using gateway = await testGateway({ config, services })
  const response = await gateway.inject('/api/users/7')
  t.strictSame([response.statusCode, response.json()], [200, { id: 7 }])
  t.match(gateway.calls('users'), [{ url: '/users/7' }])
  t.equal((await gateway.inject('/api/orders/1')).statusCode, 503)
  t.equal(gateway.calls('orders').length, 1, 'sent once')
})
