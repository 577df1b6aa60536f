/** @fastify/http-proxy, the real package, on the mesh: discovery, retries, breakers, and their failures. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { RunningGateway } from '../../helpers/gateway.ts'
import { get, startGateway, startRawService, startService } from '../../helpers/gateway.ts'

const plugins = [{ package: '@fastify/http-proxy', options: { prefix: '/orders', upstream: 'http://orders.mesh' } }]
const proxied = [{ name: 'via', match: { path: '/via' }, service: 'orders', via: 'http-proxy' }]

async function gatewayWith(t: Test, more: object): Promise<RunningGateway> {
  const gateway = await startGateway({ plugins, routes: proxied, ...more }, { log: true })
  t.teardown(gateway.close)
  return gateway
}

/** A service that responds with its name, and counts requests. */
async function named(t: Test, name: string, respond?: (response: ServerResponse, request: IncomingMessage) => void) {
  const state = { count: 0 }
  const service = await startService((request, response) => {
    state.count++
    if (respond === undefined) response.end(name)
    else respond(response, request)
  })
  t.teardown(service.close)
  return { url: service.url, port: service.port, state, close: service.close }
}

/** A Consul that reports the serving ports, and their changes. */
async function consul(t: Test) {
  let index = 1
  let ports: number[] = []
  const waiting = new Set<() => void>()
  const server = http.createServer(({ url = '' }, response) => {
    const knownIndex = new URL(url, 'http://x').searchParams.get('index')
    const respond = () => {
      const entries = ports.map((port) => ({
        Node: { Node: 'n1', Address: '127.0.0.1' },
        Service: { ID: `orders-${port}`, Port: port, Weights: { Passing: 1, Warning: 1 } },
        Checks: []
      }))
      const headers = { 'x-consul-index': index, 'x-consul-knownleader': 'true', 'x-consul-lastcontact': '0' }
      response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(entries))
    }
    if (knownIndex === String(index)) waiting.add(respond)
    else respond()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => void server.close().closeAllConnections())
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    publish(now: number[]) {
      ports = now
      index++
      for (const respond of waiting) respond()
      waiting.clear()
    }
  }
}

t.test('instances are added and removed with the registry', async (t) => {
  const [one, two] = [await named(t, 'one'), await named(t, 'two')]
  const registry = await consul(t)
  registry.publish([one.port])
  const gateway = await gatewayWith(t, { discovery: { consul: { url: registry.url } }, services: { orders: {} } })
  const body = async (path: string) => (await get(gateway.port, path)).body
  const changed = (count: number) =>
    eventually(() => gateway.log.filter(({ msg }) => msg === 'instances of orders changed').length >= count)
  await changed(1)
  t.equal(await body('/orders/7'), 'one')
  registry.publish([two.port])
  await changed(2)
  for (const path of ['/orders/7', '/via/7']) t.equal(await body(path), 'two', path)
})

t.test('instances share the load, and a failing one is retried at another by the mesh alone', async (t) => {
  const [good, bad] = [await named(t, 'good'), await named(t, 'bad', (response) => response.writeHead(503).end())]
  const services = {
    orders: { instances: [good.url, bad.url], mesh: { retry: { attempts: 1, on: [503], backoff: { base: '1ms' } } } }
  }
  const { port } = await gatewayWith(t, { services })
  for (let round = 0; round < 6; round++) t.equal((await get(port, '/orders/7')).body, 'good')
  t.ok(bad.state.count > 0)
})

t.test('reply-from retries nothing by itself', async (t) => {
  const down = await named(t, 'down', (response) => response.writeHead(503, { 'retry-after': '0' }).end('down'))
  const { port } = await gatewayWith(t, { services: { orders: { instances: [down.url], mesh: { retry: false } } } })
  t.match(await get(port, '/orders/7'), { status: 503, body: 'down' })
  t.equal(down.state.count, 1)
})

t.test('the circuit breaker opens, and its response has its code', async (t) => {
  const down = await named(t, 'down', (response) => response.writeHead(500).end('down'))
  const circuitBreaker = { errorRatio: '50%', minRequests: 3, window: '10s', openFor: '30s' }
  const { port } = await gatewayWith(t, {
    services: { orders: { instances: [down.url], mesh: { retry: false, circuitBreaker } } }
  })
  for (let round = 0; round < 3; round++) t.equal((await get(port, '/orders/7')).status, 500)
  const { status, headers, body } = await get(port, '/orders/7')
  t.match({ status, body }, { status: 503, body: /JW_CIRCUIT_OPEN/ })
  t.ok(Number(headers['retry-after']) > 0)
  t.equal(down.state.count, 3)
})

t.test("a route's policy applies, and the caller's address is hashed", async (t) => {
  const [one, two] = [await named(t, 'one'), await named(t, 'two')]
  const { port } = await gatewayWith(t, {
    listen: { trustProxy: ['127.0.0.1'] },
    services: { orders: { instances: [one.url] }, other: { instances: [two.url] } },
    routes: [
      {
        name: 'via',
        match: { path: '/via' },
        split: [
          { service: 'orders', weight: 1 },
          { service: 'other', match: { headers: { 'x-beta': '1' } } }
        ],
        via: 'http-proxy'
      }
    ]
  })
  t.equal((await get(port, '/via/7')).body, 'one')
  t.equal((await get(port, '/via/7', ['X-Beta: 1'])).body, 'two')
  const callers: unknown[] = []
  const hashed = await startGateway(
    {
      listen: { trustProxy: ['127.0.0.1'] },
      plugins,
      services: {
        orders: { instances: [one.url, two.url], mesh: { balance: { policy: 'ring-hash', hashOn: 'ip' } } }
      }
    },
    {
      before: (server) =>
        void server.register(async (fastify) => {
          fastify.mesh.use(
            (dispatch) => (opts, handler) => {
              callers.push(opts.caller?.ip)
              return dispatch(opts, handler)
            },
            { per: 'request' }
          )
        })
    }
  )
  t.teardown(hashed.close)
  const from = async (ip: string) => (await get(hashed.port, '/orders/7', [`X-Forwarded-For: ${ip}`])).body
  const first = await from('10.0.0.1')
  for (let round = 0; round < 5; round++) t.equal(await from('10.0.0.1'), first)
  t.equal(callers[0], '10.0.0.1')
})

const rows = [
  ['a service that refuses connections', 'refuses', 502, 'JW_UPSTREAM_REFUSED', 'connection_refused'],
  ['a service that resets the connection', 'resets', 502, 'JW_UPSTREAM_RESET', 'connection_terminated'],
  ['a service that is silent', 'silent', 504, 'JW_CALL_TIMEOUT', 'http_response_timeout'],
  ['a malformed response', 'malformed', 502, 'JW_UPSTREAM_MALFORMED', 'http_protocol_error'],
  ['a service without instances', 'nowhere', 503, 'JW_NO_INSTANCE', 'destination_unavailable'],
  ['a service that is not configured', 'unknown', 503, 'JW_NO_SERVICE', 'destination_not_found']
] as const

t.test('failures are those of the error table, before the header section', async (t) => {
  const resets = await startRawService((socket) => void socket.once('data', () => socket.resetAndDestroy()))
  const silent = await startRawService(() => {})
  const malformed = await startRawService((socket) => void socket.once('data', () => socket.end('HTTP/9 no\r\n\r\n')))
  const closed = await startRawService(() => {})
  await closed.close()
  for (const { close } of [resets, silent, malformed]) t.teardown(close)
  const registry = await consul(t)
  const gateway = await gatewayWith(t, {
    mesh: { retry: false, timeout: '300ms' },
    discovery: { consul: { url: registry.url } },
    routes: rows
      .filter(([, name]) => name !== 'unknown')
      .map(([, name]) => ({ name, match: { path: `/via-${name}` }, service: name, via: 'http-proxy' })),
    services: {
      refuses: { instances: [closed.url] },
      resets: { instances: [resets.url] },
      silent: { instances: [silent.url] },
      malformed: { instances: [malformed.url] },
      nowhere: {}
    },
    plugins: rows.map(([, name]) => ({
      package: '@fastify/http-proxy',
      options: { prefix: `/${name}`, upstream: `http://${name}.mesh` }
    }))
  })
  await eventually(() => gateway.server.mesh.discovery().every(({ source }) => source.confirmedAt !== null))
  for (const [what, name, status, code, type] of rows) {
    for (const path of name === 'unknown' ? [`/${name}`] : [`/${name}`, `/via-${name}`]) {
      const response = await get(gateway.port, path)
      t.match(
        { status: response.status, body: response.body },
        { status, body: new RegExp(`"${code}"`) },
        `${what}, ${path}`
      )
      t.equal(response.headers['proxy-status'], `jingwei; error=${type}`)
      t.notMatch(response.body, /FST_|reply-from|ECONN|stack/i)
    }
  }
  const lines = gateway.log.filter(({ msg, route }) => msg === 'request' && route === 'resets')
  t.match(lines, [{ status: 502, error: 'JW_UPSTREAM_RESET', service: 'resets', attempts: 1 }])
})

for (const protocol of protocols) {
  t.test(`${protocol}: an incomplete response is not taken for complete`, async (t) => {
    const service = await startRawService((socket) => {
      socket.once('data', (chunk: Buffer) => {
        const framing = chunk.includes('/length') ? 'Content-Length: 100' : 'Transfer-Encoding: chunked'
        const content = chunk.includes('/length') ? 'begun' : '5\r\nbegun\r\n'
        socket.write(`HTTP/1.1 200 OK\r\n${framing}\r\n\r\n${content}`)
        setTimeout(() => socket.resetAndDestroy(), 50)
      })
    })
    t.teardown(service.close)
    const gateway = await gatewayWith(t, {
      listen: listenFor(t, protocol),
      services: { orders: { instances: [service.url] } }
    })
    for (const path of ['/via/length', '/via/chunked']) {
      const response = await anyClient(t, protocol, gateway.port).ask(path)
      t.match({ ...response, body: response.body.toString() }, { status: 200, body: 'begun', isWhole: false }, path)
    }
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    await eventually(() => lines().length === 2)
    t.match(lines(), [
      { status: 200, error: 'JW_UPSTREAM_RESET', bytesSent: 5 },
      { status: 200, error: 'JW_UPSTREAM_RESET', bytesSent: 5 }
    ])
  })
}

t.test('log and metrics include requests through http-proxy', async (t) => {
  const one = await named(t, 'one')
  const gateway = await gatewayWith(t, { admin: { port: 0 }, services: { orders: { instances: [one.url] } } })
  await get(gateway.port, '/via/7')
  const text = await gateway.server.metrics.metrics()
  t.match(text, /jingwei_edge_requests_total\{route="via",method="GET",status="200",direction="north-south"\} 1/)
  t.match(text, /jingwei_mesh_attempts_total\{service="orders",outcome="success"\} 1/)
  t.match(
    gateway.log.filter(({ msg }) => msg === 'request'),
    [{ route: 'via', path: '/via/7', status: 200, service: 'orders', instance: one.url, attempts: 1, bytesSent: 3 }]
  )
})

t.test(
  "log and metrics include requests of a plugin's own registration, which may use concerns of the edge",
  async (t) => {
    const one = await named(t, 'one')
    const options = { prefix: '/orders', upstream: 'http://orders.mesh' }
    const asking = { ...options, prefix: '/guarded', config: { edge: { rateLimit: { max: 1, window: '1m' } } } }
    const gateway = await gatewayWith(t, {
      admin: { port: 0 },
      services: { orders: { instances: [one.url] } },
      plugins: [
        { package: '@fastify/http-proxy', options },
        { package: '@fastify/http-proxy', name: 'guarded', options: asking }
      ]
    })
    await get(gateway.port, '/orders/7')
    t.equal((await get(gateway.port, '/guarded/7')).status, 200)
    t.equal((await get(gateway.port, '/guarded/7')).status, 429)
    const text = await gateway.server.metrics.metrics()
    t.match(
      text,
      /jingwei_edge_requests_total\{route="\/orders\/\*",method="GET",status="200",direction="north-south"\} 1/
    )
    const lines = gateway.log.filter(({ msg }) => msg === 'request')
    t.match(lines, [
      { route: '/orders/*', status: 200, service: 'orders', instance: one.url, attempts: 1, bytesSent: 3 },
      { route: '/guarded/*', status: 200 },
      { route: '/guarded/*', status: 429 }
    ])
  }
)
