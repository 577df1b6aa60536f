/** Spans of requests at the edge, and the trace context that services get. */
import type { ServerResponse } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import type { Collector, Span } from '../../helpers/collector.ts'
import { startCollector, tracingTo } from '../../helpers/collector.ts'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { echo, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { GatewayOptions } from '../../helpers/gateway.ts'
import { raw, startEcho, startGateway, startService } from '../../helpers/gateway.ts'

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736'
const spanId = '00f067aa0ba902b7'
const given = { traceparent: `00-${traceId}-${spanId}-01`, tracestate: 'a=b,c=d' }

t.setTimeout(120_000)

interface Started {
  port: number
  collector: Collector
  log: Record<string, unknown>[]
  ask: ReturnType<typeof anyClient>['ask']
  begin: ReturnType<typeof anyClient>['begin']
  leave: ReturnType<typeof anyClient>['leave']
}

interface Sections {
  tracing?: object
  listen?: object
  services?: object
  routes?: object[]
  edge?: object
  consumers?: object[]
}

/** A gateway before an echo service, `any`, and its collector. */
async function start(
  t: Test,
  protocol: Protocol,
  { tracing = {}, listen = {}, services = {}, routes = [], ...more }: Sections = {},
  options: GatewayOptions = {}
): Promise<Started> {
  const collector = await startCollector(t)
  const service = await startEcho()
  t.teardown(service.close)
  const config = {
    listen: { ...listenFor(t, protocol), ...listen },
    tracing: tracingTo(collector, tracing),
    services: { any: { instances: [service.url] }, ...services },
    routes: [...routes, { name: 'api', match: { path: '/api' }, service: 'any' }],
    ...more
  }
  const { port, close, log } = await startGateway(config, { log: true, ...options })
  t.teardown(close)
  return { ...anyClient(t, protocol, port), port, collector, log }
}

/** Returns the headers that the service got. */
const headersOf = ({ body }: { body: Buffer }) =>
  (JSON.parse(body.toString()) as { headers: Record<string, string> }).headers

const lines = ({ log }: Started) => log.filter(({ msg }) => msg === 'request')

/** Waits until no span could be on its way. */
async function settled({ collector }: Started, count: number): Promise<Span[]> {
  await eventually(() => collector.spans.length >= count)
  await new Promise((resolve) => setTimeout(resolve, 60))
  return collector.spans
}

const onSend: GatewayOptions = {
  before: (server) => void server.addHook('onSend', (_request, _reply, payload, done) => done(null, payload))
}

for (const protocol of protocols) {
  for (const [way, options, route] of [
    ['raw', {}, {}],
    ['reply', onSend, {}],
    ['http-proxy', {}, { via: 'http-proxy' }]
  ] as const) {
    t.test(`a request over ${protocol}, ${way} path, has a span, and its call one below it`, async (t) => {
      const routes = [{ name: 'one', match: { path: '/one' }, service: 'any', ...route }]
      const started = await start(t, protocol, { tracing: { trustClient: true }, routes }, options)
      const { ask, collector } = started
      const secret = { authorization: 'Bearer hunter2', cookie: 'a=hunter2', 'x-api-key': 'hunter2' }
      const response = await ask('/one/b?token=hunter2', { headers: { ...given, ...secret, 'user-agent': 'me/1' } })
      t.equal(response.status, 200)
      const [server] = await collector.servers(1)
      const [client] = await collector.clients(1)
      t.match(server, {
        traceId,
        parentSpanId: spanId,
        flags: 0x301,
        name: 'GET /one',
        attributes: {
          'http.request.method': 'GET',
          'url.path': '/one/b',
          'url.scheme': protocol === 'HTTP/1.1' ? 'http' : 'https',
          'http.route': '/one',
          'jingwei.route': 'one',
          'http.response.status_code': 200,
          'server.address': '127.0.0.1',
          'server.port': started.port,
          'client.address': '127.0.0.1',
          'user_agent.original': 'me/1',
          'network.protocol.version': protocol === 'HTTP/2' ? '2' : '1.1'
        },
        status: {}
      })
      t.match(client, {
        traceId,
        parentSpanId: server!.spanId,
        flags: 0x101,
        name: 'GET',
        attributes: { 'peer.service': 'any', 'http.response.status_code': 200, 'server.address': '127.0.0.1' }
      })
      t.match(client!.attributes['url.full'], /^http:\/\/127\.0\.0\.1:\d+\/one\/b$/)
      const headers = headersOf(response)
      t.equal(headers.traceparent, `00-${traceId}-${client!.spanId}-01`, 'the service is below the attempt')
      t.equal(headers.tracestate, 'a=b,c=d')
      t.ok(BigInt(client!.startTimeUnixNano) >= BigInt(server!.startTimeUnixNano))
      t.ok(BigInt(client!.endTimeUnixNano) >= BigInt(client!.startTimeUnixNano))
      t.ok(BigInt(server!.endTimeUnixNano) >= BigInt(client!.endTimeUnixNano))
      t.ok(Math.abs(Number(BigInt(server!.endTimeUnixNano) / 1_000_000n) - Date.now()) < 60_000)
      t.match(lines(started)[0], { traceId, spanId: server!.spanId })
      for (const { text } of collector.exports) t.notMatch(text, /hunter2/)
    })
  }

  t.test(`over ${protocol}, failures, refusals and unknown paths have spans`, async (t) => {
    const busy = await startService((_request, response) => response.writeHead(503).end('busy'))
    t.teardown(busy.close)
    const started = await start(t, protocol, {
      services: {
        dead: { instances: ['http://127.0.0.1:9'], mesh: { retry: false } },
        busy: { instances: [busy.url], mesh: { retry: false } }
      },
      routes: [
        { name: 'dead', match: { path: '/dead' }, service: 'dead' },
        { name: 'busy', match: { path: '/busy' }, service: 'busy' },
        { name: 'key', match: { path: '/key' }, service: 'any', edge: { keyAuth: {} } },
        { name: 'fixed', match: { path: '/fixed' }, response: { status: 200, body: 'a' } },
        { name: 'moved', match: { path: '/moved' }, redirect: { to: '/api' } }
      ],
      consumers: [{ name: 'a', keyAuth: { hash: `sha256:${'0'.repeat(64)}` } }]
    })
    const { ask, collector } = started
    const expected = [
      ['/dead', 502, 'GET /dead', 'JW_UPSTREAM_REFUSED', 2],
      ['/busy', 503, 'GET /busy', '503', 2],
      ['/key', 401, 'GET /key', /^JW_/, undefined],
      ['/fixed', 200, 'GET /fixed', undefined, undefined],
      ['/moved', 302, 'GET /moved', undefined, undefined],
      ['/nowhere', 404, 'GET', 'JW_NO_ROUTE', undefined],
      ['/api/../x', 400, /^GET/, 'JW_AMBIGUOUS_PATH', undefined]
    ] as const
    for (const [index, [path, status, name, error, code]] of expected.entries()) {
      t.equal((await ask(path)).status, status, path)
      const span = (await collector.servers(index + 1))[index]!
      t.match(span.name, name, path)
      t.equal(span.parentSpanId, undefined, path)
      t.equal(span.attributes['http.response.status_code'], status, path)
      if (error === undefined) t.notOk('error.type' in span.attributes, path)
      else t.match(span.attributes['error.type'], error, path)
      t.equal(span.status.code, code, path)
      await eventually(() => lines(started).length > index)
      t.match(lines(started)[index], { traceId: span.traceId, spanId: span.spanId }, path)
    }
    t.match(
      (await collector.clients(2)).map(({ attributes, status }) => [attributes['error.type'], status.code]),
      [
        ['JW_UPSTREAM_REFUSED', 2],
        ['503', 2]
      ]
    )
    t.equal((await settled(started, 9)).length, 9, 'one span for each request and each attempt')
  })

  t.test(`over ${protocol}, a request that its client aborts has spans`, async (t) => {
    const waiting: ServerResponse[] = []
    const slow = await startService((request, response) => {
      if (request.url === '/slow/begun') response.write('begun')
      waiting.push(response)
    })
    t.teardown(slow.close)
    const { leave, collector } = await start(t, protocol, {
      services: { slow: { instances: [slow.url] } },
      routes: [{ name: 'slow', match: { path: '/slow' }, service: 'slow' }]
    })
    await leave('/slow', () => eventually(() => waiting.length === 1))
    await leave('/slow/begun', ({ data }) => data)
    const [early, late] = await collector.servers(2)
    t.match(early!.attributes, { 'error.type': 'JW_CLIENT_GONE', 'http.response.status_code': 499 })
    t.match(late!.attributes, { 'error.type': 'JW_CLIENT_GONE' })
    for (const client of await collector.clients(2)) t.match(client.attributes, { 'error.type': 'JW_CLIENT_GONE' })
  })
}

t.test('a response that breaks off is an error, whatever its status', async (t) => {
  const broken = await startService((_request, response) => {
    response.writeHead(200, { 'content-length': 10 }).write('half')
    setTimeout(() => response.destroy(), 20)
  })
  t.teardown(broken.close)
  const { begin, collector } = await start(t, 'HTTP/1.1', {
    services: { broken: { instances: [broken.url] } },
    routes: [{ name: 'broken', match: { path: '/broken' }, service: 'broken' }]
  })
  t.notOk((await begin('/broken').response).isWhole)
  const [server] = await collector.servers(1)
  const [client] = await collector.clients(1)
  t.match(server, {
    attributes: { 'http.response.status_code': 200, 'error.type': /^JW_UPSTREAM/ },
    status: { code: 2 }
  })
  t.match(client, { attributes: { 'error.type': /^JW_UPSTREAM/ }, status: { code: 2 } })
})

/** Values that are no trace context of version 00, or none at all. */
const hostile = [
  '', ' ', '-', '00', '00-', `00-${traceId}`, `00-${traceId}-${spanId}`, `00-${traceId}-${spanId}-`, `00-${traceId}-${spanId}-1`,
  `00-${traceId}-${spanId}-01-`, `00-${traceId}-${spanId}-01-extra`, `00-${traceId}-${spanId}-011`, `ff-${traceId}-${spanId}-01`,
  `00-${'0'.repeat(32)}-${spanId}-01`, `00-${traceId}-${'0'.repeat(16)}-01`, `00-${traceId.toUpperCase()}-${spanId}-01`,
  `00-${traceId}-${spanId}-0g`, `00-${'g'.repeat(32)}-${spanId}-01`, `0-${traceId}-${spanId}-01`, `00_${traceId}_${spanId}_01`,
  `00-${traceId}-${spanId}-01, 00-${traceId}-${spanId}-01`, `"00-${traceId}-${spanId}-01"`, 'a'.repeat(4000), `${'-'.repeat(4000)}`
] // biome-ignore format: a list

t.test('malformed trace contexts begin new traces, and do not reach the service', async (t) => {
  const started = await start(t, 'HTTP/1.1', { tracing: { trustClient: true } })
  const { ask, collector } = started
  for (const [index, traceparent] of hostile.entries()) {
    const headers = headersOf(await ask('/api', { headers: { traceparent, tracestate: 'a=b' } }))
    const server = (await collector.servers(index + 1))[index]!
    const client = (await collector.clients(index + 1))[index]!
    t.not(server.traceId, traceId, traceparent)
    t.match(server.traceId, /^[\da-f]{32}$/)
    t.notOk(server.links, 'nothing can be linked')
    t.equal(headers.traceparent, `00-${server.traceId}-${client.spanId}-03`, traceparent)
    t.equal(headers.tracestate, undefined, 'the state belongs to another trace')
  }
  const twice = await raw(
    started.port,
    `GET /api HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTraceparent: ${given.traceparent}\r\ntraceparent: ${given.traceparent}\r\n\r\n`
  )
  const { traceId: own } = (await collector.servers(hostile.length + 1)).at(-1)!
  t.not(own, traceId, 'a repeated field')
  t.match(twice, own)
  t.equal(twice.match(/"traceparent"/gi)!.length, 2, 'once as a field, once in the raw header section')
})

t.test('a trace context of a later version is continued as version 00', async (t) => {
  const { ask, collector } = await start(t, 'HTTP/1.1', { tracing: { trustClient: true } })
  const headers = headersOf(await ask('/api', { headers: { traceparent: `01-${traceId}-${spanId}-ff-more` } }))
  const [client] = await collector.clients(1)
  t.equal(headers.traceparent, `00-${traceId}-${client!.spanId}-03`, 'flags that are unknown are not passed on')
})

t.test('the trace context of untrusted clients is linked to, but not continued', async (t) => {
  const cases: [tracing: object, listen: object, isContinued: boolean][] = [
    [{}, {}, false],
    [{}, { trustProxy: ['127.0.0.1'] }, true],
    [{}, { trustProxy: ['192.0.2.1'] }, false],
    [{ trustClient: 'proxies' }, { direction: 'east-west' }, true],
    [{ trustClient: true }, {}, true],
    [{ trustClient: false }, { trustProxy: ['127.0.0.1'] }, false]
  ]
  for (const [tracing, listen, isContinued] of cases) {
    const started = await start(t, 'HTTP/1.1', { tracing, listen })
    const { tracestate, traceparent } = headersOf(await started.ask('/api', { headers: given }))
    const [server] = await started.collector.servers(1)
    const [client] = await started.collector.clients(1)
    const what = JSON.stringify([tracing, listen])
    t.equal(server!.traceId === traceId, isContinued, what)
    t.equal(server!.parentSpanId, isContinued ? spanId : undefined, what)
    t.equal(server!.links?.[0]?.spanId, isContinued ? undefined : spanId, what)
    t.equal(tracestate, isContinued ? given.tracestate : undefined, what)
    t.match(traceparent, `${server!.traceId}-${client!.spanId}`, what)
    await eventually(() => lines(started).length === 1)
    t.equal(lines(started)[0]!.traceId, server!.traceId, what)
  }
})

t.test('sampling: the decision of a trusted caller, else the rate', async (t) => {
  const off = given.traceparent.replace(/01$/, '00')
  const cases: [tracing: object, edge: object, traceparent: string | undefined, isRecorded: boolean][] = [
    [{ sampleRate: 0 }, {}, undefined, false],
    [{ sampleRate: '0%' }, {}, undefined, false],
    [{ sampleRate: 1 }, {}, undefined, true],
    [{ sampleRate: 0 }, {}, given.traceparent, true],
    [{ sampleRate: 1 }, {}, off, false],
    [{ sampleRate: 0 }, { tracing: { sampleRate: 1 } }, undefined, true],
    [{ sampleRate: 1 }, { tracing: { sampleRate: 0 } }, undefined, false],
    [{ sampleRate: 0, trustClient: false }, {}, given.traceparent, false],
    [{ sampleRate: 1, trustClient: false }, {}, off, true]
  ]
  for (const [tracing, edge, traceparent, isRecorded] of cases) {
    const routes = [{ name: 'one', match: { path: '/one' }, service: 'any', edge }]
    const started = await start(t, 'HTTP/1.1', { tracing: { trustClient: true, ...tracing }, routes })
    const sent = headersOf(await started.ask('/one', { headers: traceparent === undefined ? {} : { traceparent } }))
    const what = JSON.stringify([tracing, edge, traceparent])
    await eventually(() => lines(started).length === 1)
    const [line] = lines(started)
    t.match(sent.traceparent, new RegExp(`^00-[\\da-f]{32}-[\\da-f]{16}-0${isRecorded ? '[13]' : '[02]'}$`), what)
    t.equal(
      line!.traceId,
      sent.traceparent!.slice(3, 35),
      'the log and the service have the same trace, recorded or not'
    )
    t.equal((await settled(started, isRecorded ? 2 : 0)).length, isRecorded ? 2 : 0, what)
    t.equal('spanId' in line!, isRecorded, what)
  }
})

t.test('a rate between none and all', async (t) => {
  const started = await start(t, 'HTTP/1.1', { tracing: { sampleRate: '50%' } })
  for (let i = 0; i < 40; i++) await started.ask('/api')
  const spans = await settled(started, 2)
  const servers = spans.filter(({ kind }) => kind === 2)
  t.ok(servers.length > 0 && servers.length < 40, `${servers.length} of 40`)
  t.equal(spans.length, 2 * servers.length, 'a request and its call share the decision')
})

t.test('a route without tracing passes the trace context on, and makes no span', async (t) => {
  for (const edge of [
    { edge: { tracing: false } },
    { routes: [{ name: 'one', match: { path: '/api/x' }, service: 'any', edge: { tracing: false } }] }
  ]) {
    const started = await start(t, 'HTTP/1.1', { tracing: { trustClient: true }, ...edge })
    const headers = headersOf(await started.ask('/api/x', { headers: given }))
    t.match(headers, given)
    if ('edge' in edge) t.equal((await started.ask('/nowhere')).status, 404)
    await eventually(() => lines(started).length === ('edge' in edge ? 2 : 1))
    t.equal(lines(started)[0]!.traceId, traceId)
    t.notOk('spanId' in lines(started)[0]!)
    t.strictSame(await settled(started, 0), [])
  }
})

t.test('own routes of plugins have spans, and calls on their behalf', async (t) => {
  const started = await start(
    t,
    'HTTP/1.1',
    { tracing: { trustClient: true } },
    {
      before: (server) =>
        void server.register(async (server) => {
          server.get('/own/:id', async (request) => request.mesh.json('any', '/a'))
          server.get('/silent', { config: { edge: { tracing: false } } }, async (request) =>
            request.mesh.json('any', '/b')
          )
        })
    }
  )
  const headers = headersOf(await started.ask('/own/7?a=hunter2', { headers: given }))
  const [server] = await started.collector.servers(1)
  const [client] = await started.collector.clients(1)
  t.match(server, { name: 'GET /own/:id', traceId, attributes: { 'http.route': '/own/:id', 'url.path': '/own/7' } })
  t.match(client, { traceId, parentSpanId: server!.spanId })
  t.match(headers, { traceparent: `00-${traceId}-${client!.spanId}-01`, tracestate: given.tracestate })
  t.match(headersOf(await started.ask('/silent', { headers: given })), given)
  t.equal((await settled(started, 2)).length, 2)
})

t.test('composed routes have a span, and one for each call', async (t) => {
  const started = await start(t, 'HTTP/1.1', {
    routes: [{
      name: 'home', match: { path: '/home', methods: ['GET'] },
      compose: { calls: { a: { service: 'any', path: '/a' }, b: { service: 'any', path: '/b' } } }
    }]
  }) // biome-ignore format: a route
  t.equal((await started.ask('/home')).status, 200)
  const [server] = await started.collector.servers(1)
  const calls = await started.collector.clients(2)
  t.equal(server!.name, 'GET /home')
  t.strictSame(
    calls.map(({ parentSpanId }) => parentSpanId),
    [server!.spanId, server!.spanId]
  )
  t.strictSame(calls.map(({ attributes }) => String(attributes['url.full']).slice(-2)).sort(), ['/a', '/b'])
})

t.test('a WebSocket: the call ends with the handshake, the request with the connection', async (t) => {
  const service = await startWebSocketService({ onPeer: echo })
  t.teardown(service.close)
  const { port, collector } = await start(t, 'HTTP/1.1', {
    services: { ws: { instances: [service.url] } },
    routes: [{ name: 'ws', match: { path: '/ws' }, service: 'ws' }]
  })
  const { peer } = await open(port)
  const [client] = await collector.clients(1)
  t.match(client, { attributes: { 'http.response.status_code': 101 }, status: {} })
  t.equal(collector.spans.length, 1)
  peer.socket.destroy()
  const [server] = await collector.servers(1)
  t.match(server, { spanId: client!.parentSpanId, attributes: { 'http.response.status_code': 101 } })
})

t.test('requests that are refused before they have been read have a span, too', async (t) => {
  const { port, collector } = await start(t, 'HTTP/1.1')
  t.match(await raw(port, 'GET / HTTP/1.1\r\nHost: h\r\nbroken\r\n\r\n'), /^HTTP\/1\.1 400/)
  t.match(await collector.servers(1), [{
    name: 'HTTP',
    attributes: { 'http.request.method': '_OTHER', 'http.response.status_code': 400, 'error.type': 'malformed' }
  }]) // biome-ignore format: a span
})

t.test('captured headers, and texts of clients, have a limit', async (t) => {
  const { ask, port, collector } = await start(t, 'HTTP/1.1', {
    tracing: {
      capturedRequestHeaders: ['X-Tenant', 'x-none', 'x-long']
    }
  })
  const long = 'x'.repeat(5000)
  await ask(`/api/${long}`, {
    headers: { 'x-tenant': 'a\u00e9', 'x-long': long, 'user-agent': long }
  })
  const [server] = await collector.servers(1)
  const { attributes } = server!
  t.strictSame(attributes['http.request.header.x-tenant'], ['a\u00e9'])
  t.notOk('http.request.header.x-none' in attributes)
  for (const name of ['url.path', 'user_agent.original']) t.equal(String(attributes[name]).length, 1024, name)
  t.equal((attributes['http.request.header.x-long'] as string[])[0]!.length, 1024)
  await raw(port, 'BREW /api HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  await raw(port, 'GET http://me:hunter2@h/api?hunter2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  const spans = await collector.servers(3)
  t.ok(
    spans.every(({ name }) => ['GET /api', 'HTTP', 'GET'].includes(name)),
    spans.map(({ name }) => name).join()
  )
  for (const { text } of collector.exports) t.notMatch(text, /hunter2/)
})

t.test('odd values of Host, and names of headers that every object has, make no failure', async (t) => {
  const { port, collector, log } = await start(t, 'HTTP/1.1', {
    tracing: { capturedRequestHeaders: ['constructor', '__proto__', 'toString', 'host'] }
  })
  const hosts = [
    '',
    ':',
    ':80',
    'a:',
    'a:b',
    'a:99999',
    'a:b:c',
    '[::1]',
    '[::1]:8080',
    '[::1',
    '[',
    ']',
    'a b',
    '.',
    'a.',
    '@',
    '\u00e9'
  ]
  const first = await raw(port, 'GET /api HTTP/1.0\r\n\r\n')
  const statuses = [
    first,
    ...(await Promise.all(
      hosts.map((host) => raw(port, `GET /api HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`))
    ))
  ].map((text) => text.slice(9, 12))
  t.ok(
    statuses.every((status) => status === '200' || status === '400'),
    statuses.join()
  )
  const spans = await collector.servers(hosts.length + 1)
  t.ok(spans.length > hosts.length)
  t.strictSame(
    log.filter(({ level }) => Number(level) > 30),
    []
  )
})

t.test('calls of a hook for all requests are below the span of the request', async (t) => {
  let hook = ''
  const started = await start(
    t,
    'HTTP/1.1',
    {},
    {
      before: (server) =>
        void server.after(() =>
          server.addHook('onRequest', async (request) => {
            const seen = await request.mesh.json<{ headers: { traceparent: string } }>('any', '/check')
            hook = seen.headers.traceparent
          })
        )
    }
  )
  t.equal((await started.ask('/api', { headers: given })).status, 200)
  const [server] = await started.collector.servers(1)
  const calls = await started.collector.clients(2)
  t.ok(calls.every(({ parentSpanId }) => parentSpanId === server!.spanId))
  t.ok(calls.some(({ spanId }) => hook.includes(spanId)))
  t.notMatch(hook, traceId, 'nor does a hook pass the trace of an untrusted client on')
})

t.test('the server that decides for forwardAuth is below the span, too', async (t) => {
  const seen: (string | undefined)[] = []
  const auth = await startService(({ headers }, response) => {
    seen.push(headers.traceparent as string | undefined)
    response.end()
  })
  t.teardown(auth.close)
  const { ask, collector } = await start(t, 'HTTP/1.1', {
    services: { auth: { instances: [auth.url] } },
    edge: { forwardAuth: { service: 'auth', path: '/check' } }
  })
  t.equal((await ask('/api', { headers: given })).status, 200)
  const [server] = await collector.servers(1)
  const calls = await collector.clients(2)
  t.ok(calls.every(({ parentSpanId }) => parentSpanId === server!.spanId))
  const check = calls.find(({ attributes }) => attributes['peer.service'] === 'auth')!
  t.strictSame(seen, [`00-${check.traceId}-${check.spanId}-03`])
})

t.test('spans do not keep requests from sharing responses', async (t) => {
  let count = 0
  const slow = await startService((_request, response) => {
    count++
    setTimeout(() => response.setHeader('cache-control', 'max-age=60').end('same'), 100)
  })
  t.teardown(slow.close)
  const { ask, collector } = await start(t, 'HTTP/1.1', {
    services: { slow: { instances: [slow.url], mesh: { collapse: true } } },
    routes: [
      { name: 'collapsed', match: { path: '/collapsed' }, service: 'slow' },
      { name: 'cached', match: { path: '/cached' }, service: 'slow', edge: { cache: {} } }
    ]
  })
  for (const response of await Promise.all([1, 2, 3].map(() => ask('/collapsed')))) t.equal(response.status, 200)
  t.equal(count, 1)
  for (let i = 0; i < 3; i++) t.equal((await ask('/cached')).body.toString(), 'same')
  t.equal(count, 2)
  t.equal(new Set((await collector.servers(6)).map(({ traceId }) => traceId)).size, 6)
  t.equal((await collector.clients(2)).length, 2)
})
