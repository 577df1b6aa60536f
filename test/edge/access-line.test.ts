// slow: takes about 5 s
/** Fields of the access line: times, trace, the origin of the response, and the reason of a refusal. */
import type { ServerResponse } from 'node:http'
import { PassThrough } from 'node:stream'
import type { Test } from 'tap'
import t from 'tap'
import type { Dispatcher } from 'undici'
import { MockAgent } from 'undici'
import type { Protocol } from '../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { echo, open, startWebSocketService } from '../helpers/edge/websocket.ts'
import { eventually } from '../helpers/eventually.ts'
import type { GatewayOptions } from '../helpers/gateway.ts'
import { connect, startGateway, startService } from '../helpers/gateway.ts'

type Interceptor = Dispatcher.DispatcherComposeInterceptor
type Line = Record<string, unknown>

const trace = '4bf92f3577b34da6a3ce929d0e0e4736'

interface Started {
  ask: ReturnType<typeof anyClient>['ask']
  leave: ReturnType<typeof anyClient>['leave']
  begin: ReturnType<typeof anyClient>['begin']
  port: number
  /** Resolves with the access line of the request with this number. */
  line(index: number): Promise<Line>
}

async function start(t: Test, protocol: Protocol, config: object, options: GatewayOptions = {}): Promise<Started> {
  const gateway = await startGateway({ listen: listenFor(t, protocol), ...config }, { log: true, ...options })
  t.teardown(gateway.close)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  const line = async (index: number) => {
    await eventually(() => lines().length > index)
    return lines()[index]!
  }
  return { ...anyClient(t, protocol, gateway.port), port: gateway.port, line }
}

/** A service that holds each request until the test responds. */
async function waitingService(t: Test) {
  const waiting: ServerResponse[] = []
  const service = await startService((_request, response) => waiting.push(response))
  t.teardown(service.close)
  const next = async (index = 0) => {
    await eventually(() => waiting.length > index)
    return waiting[index]!
  }
  return { url: service.url, next }
}

const onSend: GatewayOptions = {
  before: (server) => void server.addHook('onSend', (_request, _reply, payload, done) => done(null, payload))
}

const ways: readonly (readonly [path: string, options: GatewayOptions, route: object])[] = [
  ['raw', {}, {}],
  ['reply', onSend, {}],
  ['http-proxy', {}, { via: 'http-proxy' }]
]

for (const protocol of protocols) {
  for (const [path, options, more] of ways) {
    t.test(
      `an access line over ${protocol}, ${path} path, has the times of the first byte and of the service`,
      async (t) => {
        const service = await waitingService(t)
        const { begin, line } = await start(
          t,
          protocol,
          {
            services: { any: { instances: [service.url] } },
            routes: [{ name: 'all', match: { path: '/' }, service: 'any', ...more }]
          },
          options
        )
        const call = begin('/')
        const response = await service.next()
        await new Promise((resolve) => setTimeout(resolve, 60))
        response.write('first')
        await call.data
        await new Promise((resolve) => setTimeout(resolve, 60))
        response.end('last')
        t.equal((await call.response).body.toString(), 'firstlast')
        const { durationMs, ttfbMs, upstreamMs, answeredBy } = (await line(0)) as Record<string, number>
        t.ok(upstreamMs! >= 50, `the service took ${upstreamMs} ms`)
        t.ok(ttfbMs! >= upstreamMs!, `the first byte was sent after ${ttfbMs} ms`)
        t.ok(durationMs! >= ttfbMs! + 50, `the last byte was sent after ${durationMs} ms`)
        t.equal(answeredBy, undefined)
      }
    )
  }

  t.test(
    `the line of a failure over ${protocol} has the time of the service until then, and no failed fallback`,
    async (t) => {
      const dead = { instances: ['http://127.0.0.1:9'], mesh: { retry: false } }
      const fallback = [{ on: ['connect-failure'], service: 'raw' }]
      const { ask, line } = await start(t, protocol, {
        services: { raw: dead, proxied: dead, both: { ...dead, mesh: { retry: false, fallback } } },
        routes: [
          { name: 'raw', match: { path: '/raw' }, service: 'raw' },
          { name: 'proxied', match: { path: '/proxied' }, service: 'proxied', via: 'http-proxy' },
          { name: 'both', match: { path: '/both' }, service: 'both' }
        ]
      })
      for (const [index, path] of ['/raw', '/proxied', '/both'].entries()) {
        t.equal((await ask(path)).status, 502, path)
        const failed = await line(index)
        const times = { ttfbMs: Number, upstreamMs: Number, durationMs: Number }
        t.match(failed, { status: 502, error: 'JW_UPSTREAM_REFUSED', answeredBy: 'gateway', ...times }, path)
        t.equal(failed.fallback, undefined, path)
      }
    }
  )

  t.test(
    `the line has the first byte of a stream over ${protocol}, of a plugin's own route and of a hook`,
    async (t) => {
      const service = await startService((_request, response) => response.end('of the service'))
      t.teardown(service.close)
      const streams: PassThrough[] = []
      const stream = () => {
        const made = new PassThrough()
        streams.push(made)
        return made
      }
      const { begin, line } = await start(
        t,
        protocol,
        {
          services: { any: { instances: [service.url] } },
          routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
        },
        {
          before: (server) => {
            server.after(() => {
              server.get('/own', (_request, reply) => reply.send(stream()))
              server.addHook('onSend', async (request, _reply, payload) =>
                request.url === '/hook' ? stream() : payload
              )
            })
          }
        }
      )
      for (const [index, path] of ['/own', '/hook'].entries()) {
        const call = begin(path)
        await eventually(() => streams.length > index)
        await new Promise((resolve) => setTimeout(resolve, 60))
        streams[index]!.write('first')
        await call.data
        await new Promise((resolve) => setTimeout(resolve, 60))
        streams[index]!.end()
        t.equal((await call.response).body.toString(), 'first')
        const { durationMs, ttfbMs } = (await line(index)) as Record<string, number>
        t.ok(ttfbMs! >= 50, `${path}: the first byte was sent after ${ttfbMs} ms`)
        t.ok(durationMs! >= ttfbMs! + 50, `${path}: the last byte was sent after ${durationMs} ms`)
      }
    }
  )

  t.test(`the line of a client that leaves over ${protocol} has its address and its waiting time`, async (t) => {
    const service = await waitingService(t)
    const { leave, line } = await start(t, protocol, {
      services: { any: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
    })
    await leave('/', () => service.next())
    const gone = await line(0)
    t.match(gone, { status: 499, ip: '127.0.0.1', error: 'JW_CLIENT_GONE', service: 'any', upstreamMs: Number })
    t.strictSame([gone.ttfbMs, gone.answeredBy], [undefined, undefined], 'no response was sent')
    await leave('/', async ({ data }) => {
      const response = await service.next(1)
      response.write('some')
      await data
    })
    t.match(await line(1), { status: 499, ip: '127.0.0.1', bytesSent: 4, ttfbMs: Number, upstreamMs: Number })
  })

  t.test(`answeredBy over ${protocol} has the source of the response`, async (t) => {
    const service = await startService(({ url }, response) => {
      if (url === '/plain/fails' || url === '/stale/fails' || url === '/other/fails') response.writeHead(503)
      else if (url === '/stale') response.setHeader('cache-control', 'public')
      response.end('of the service')
    })
    const other = await startService((_request, response) => response.end('of the other service'))
    t.teardown(service.close)
    t.teardown(other.close)
    const instances = [service.url]
    const on = ['5xx', 'connect-failure', 'no-instance']
    const dead = ['http://127.0.0.1:9']
    const { ask, line } = await start(
      t,
      protocol,
      {
        services: {
          plain: { instances },
          other: { instances: [other.url] },
          static: { instances: dead, mesh: { retry: false, fallback: [{ on, status: 200, body: 'fixed' }] } },
          moved: { instances: dead, mesh: { retry: false, fallback: [{ on, service: 'other' }] } },
          broken: { instances, mesh: { fault: { abort: { status: 503 } } } },
          intercepted: { instances }
        },
        routes: [
          ...['plain', 'static', 'moved', 'broken', 'intercepted'].map((name) => ({
            name,
            match: { path: `/${name}` },
            service: name,
            edge: { accessLog: true }
          })),
          {
            name: 'cors',
            match: { path: '/cors', methods: ['GET'] },
            service: 'plain',
            edge: { cors: { origin: 'https://a.example' } }
          }
        ]
      },
      {
        before: (server) => {
          server.after(() => {
            server.get('/own', async () => 'own')
            const answerItself: Interceptor = (dispatch) => (opts, handler) => {
              if (opts.route?.name !== 'intercepted') return dispatch(opts, handler)
              const mock = new MockAgent()
              mock.get('http://any.test').intercept({ path: '/intercepted' }).reply(200, 'of a cache')
              return mock.dispatch({ ...opts, origin: 'http://any.test' }, handler)
            }
            server.mesh.use(answerItself, { per: 'request' })
            server.addHook('onRequest', (request, reply, done) => {
              if (request.headers['x-early'] === undefined) done()
              else reply.send('early')
            })
          })
        }
      }
    )
    const lineOf = async (index: number) => {
      const { status, service, instance, attempts, answeredBy, fallback, error } = await line(index)
      return { status, service, instance, attempts, answeredBy, fallback, error }
    }
    const none = { service: undefined, instance: undefined, attempts: undefined, fallback: undefined, error: undefined }
    t.equal((await ask('/plain')).body.toString(), 'of the service')
    t.strictSame(await lineOf(0), {
      ...none,
      status: 200,
      service: 'plain',
      instance: service.url,
      attempts: 1,
      answeredBy: undefined
    })
    await ask('/plain/fails')
    t.strictSame(await lineOf(1), {
      ...none,
      status: 503,
      service: 'plain',
      instance: service.url,
      attempts: 1,
      answeredBy: undefined
    })
    t.equal((await ask('/static')).body.toString(), 'fixed')
    t.match(await lineOf(2), {
      status: 200,
      service: 'static',
      answeredBy: 'fallback',
      fallback: 'static',
      error: undefined
    })
    t.equal((await ask('/moved')).body.toString(), 'of the other service')
    t.match(await lineOf(3), {
      status: 200,
      service: 'other',
      instance: other.url,
      answeredBy: 'fallback',
      fallback: 'service'
    })
    t.equal((await ask('/broken')).status, 503)
    t.match(await lineOf(4), { status: 503, service: 'broken', answeredBy: 'fault', error: undefined })
    await ask('/nowhere')
    t.strictSame(await lineOf(5), { ...none, status: 404, answeredBy: 'gateway', error: 'JW_NO_ROUTE' })
    await ask('/plain/../x')
    t.match(await lineOf(6), { status: 400, answeredBy: 'gateway', error: 'JW_AMBIGUOUS_PATH' })
    await ask('/own')
    t.strictSame(await lineOf(7), { ...none, status: 200, answeredBy: 'plugin' })
    await ask('/plain', { headers: { 'x-early': '1' } })
    t.strictSame(await lineOf(8), { ...none, status: 200, answeredBy: 'plugin' })
    const preflight = { origin: 'https://a.example', 'access-control-request-method': 'GET' }
    await ask('/cors', { method: 'OPTIONS', headers: preflight })
    t.strictSame(await lineOf(9), { ...none, status: 204, answeredBy: 'gateway' })
    t.equal((await line(9)).reason, undefined)
    await ask('/cors', { method: 'OPTIONS', headers: { ...preflight, origin: 'https://b.example' } })
    t.strictSame(await lineOf(10), { ...none, status: 204, answeredBy: 'gateway' })
    t.equal((await line(10)).reason, 'cors_origin')
    t.equal((await ask('/intercepted')).body.toString(), 'of a cache')
    t.match(await lineOf(11), { status: 200, attempts: undefined, answeredBy: 'plugin', error: undefined })
    for (let i = 0; i < 12; i++) t.type((await line(i)).ttfbMs, 'number', `line ${i}`)
  })

  t.test(`the line of a stored or shared response over ${protocol} has its source`, async (t) => {
    const waiting: ServerResponse[] = []
    let fails = false
    const service = await startService(({ url }, response) => {
      if (url === '/shared') waiting.push(response)
      else if (fails) response.writeHead(503).end()
      else response.writeHead(200, { 'cache-control': 'public' }).end('stored')
    })
    t.teardown(service.close)
    const instances = [service.url]
    const fallback = [{ on: ['5xx'], stale: {} }]
    const { ask, begin, line } = await start(t, protocol, {
      services: {
        stale: { instances, mesh: { retry: false, fallback } },
        shared: { instances, mesh: { collapse: true, timeout: '10s', attemptTimeout: '10s' } }
      },
      routes: ['stale', 'shared'].map((name) => ({ name, match: { path: `/${name}` }, service: name }))
    })
    await ask('/stale')
    t.equal((await line(0)).answeredBy, undefined)
    fails = true
    t.equal((await ask('/stale')).body.toString(), 'stored')
    t.match(await line(1), { status: 200, answeredBy: 'fallback', fallback: 'stale', service: 'stale' })
    const first = begin('/shared')
    await eventually(() => waiting.length === 1)
    const second = begin('/shared')
    const third = begin('/plain')
    await third.response
    // The second has arrived before the response to the third: over one session, or as the gateway reads its sockets in order.
    await new Promise((resolve) => setTimeout(resolve, 50))
    waiting[0]!.end('same')
    t.equal((await first.response).body.toString(), 'same')
    t.equal((await second.response).body.toString(), 'same')
    t.equal(waiting.length, 1, 'both requests share one call')
    const lines = [await line(3), await line(4)]
    t.strictSame(lines.map(({ answeredBy }) => answeredBy).sort(), ['shared', undefined])
    for (const each of lines) t.match(each, { status: 200, instance: service.url, attempts: 1 })
  })

  t.test(`the line over ${protocol} has the trace of the request`, async (t) => {
    const service = await startService((_request, response) => response.end())
    t.teardown(service.close)
    const { ask, line } = await start(t, protocol, {
      services: { any: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
    })
    const span = '00f067aa0ba902b7'
    const cases: [traceparent: string, traceId: string | undefined][] = [
      [`00-${trace}-${span}-01`, trace],
      [`00-${trace}-${span}-00`, trace],
      [`01-${trace}-${span}-01-more`, trace],
      [`00-${trace}-${span}-01-more`, undefined],
      [`ff-${trace}-${span}-01`, undefined],
      [`00-${'0'.repeat(32)}-${span}-01`, undefined],
      [`00-${trace}-${'0'.repeat(16)}-01`, undefined],
      [`00-${trace.toUpperCase()}-${span}-01`, undefined],
      [`00-${trace}"-${span}-01`, undefined],
      ['x'.repeat(4000), undefined],
      ['', undefined]
    ]
    for (const [index, [traceparent, traceId]] of cases.entries()) {
      await ask('/', { headers: { traceparent } })
      t.equal((await line(index)).traceId, traceId, traceparent.slice(0, 60))
    }
  })
}

t.test('the lines of queued pipelined requests have the address of a client that has left', async (t) => {
  const service = await waitingService(t)
  const { port, line } = await start(t, 'HTTP/1.1', {
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  })
  const client = connect(port, 'GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n')
  await service.next()
  client.socket.destroy()
  for (const index of [0, 1]) t.match(await line(index), { status: 499, ip: '127.0.0.1', error: 'JW_CLIENT_GONE' })
})

for (const protocol of protocols) {
  t.test(`the line of a client that leaves over ${protocol} during a hook of a plugin has its address`, async (t) => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const before: GatewayOptions['before'] = (server) => {
      server.after(() => {
        server.addHook('onRequest', (request) => {
          resolve()
          return new Promise<void>((ended) => request.raw.once('close', ended))
        })
      })
    }
    const routes = [{ name: 'all', match: { path: '/' }, service: 'any' }]
    const services = { any: { instances: ['http://127.0.0.1:9'] } }
    const { leave, line } = await start(t, protocol, { services, routes }, { before })
    await leave('/', () => promise)
    t.match(await line(0), { status: 499, ip: '127.0.0.1', error: 'JW_CLIENT_GONE' })
  })
}

t.test('the line of a WebSocket has times, trace and answeredBy', async (t) => {
  const service = await startWebSocketService({ onPeer: echo })
  t.teardown(service.close)
  const { port, line } = await start(t, 'HTTP/1.1', {
    services: {
      any: { instances: [service.url] },
      none: { instances: ['http://127.0.0.1:9'], mesh: { retry: false } }
    },
    routes: [
      { name: 'ws', match: { path: '/ws' }, service: 'any' },
      { name: 'none', match: { path: '/none' }, service: 'none' }
    ]
  })
  const { peer } = await open(port, '/ws', [`traceparent: 00-${trace}-00f067aa0ba902b7-01`])
  await new Promise((resolve) => setTimeout(resolve, 60))
  peer.close(1000)
  await peer.closed()
  const opened = await line(0)
  t.match(opened, {
    status: 101,
    ip: '127.0.0.1',
    traceId: trace,
    instance: service.url,
    ttfbMs: Number,
    upstreamMs: Number
  })
  t.equal(opened.answeredBy, undefined)
  const { durationMs, ttfbMs, upstreamMs } = opened as Record<string, number>
  t.ok(durationMs! >= ttfbMs! + 50, 'the first byte is that of the 101')
  t.ok(ttfbMs! >= upstreamMs!)
  await t.rejects(open(port, '/none'), /502/)
  t.match(await line(1), {
    status: 502,
    ip: '127.0.0.1',
    answeredBy: 'gateway',
    error: 'JW_UPSTREAM_REFUSED',
    upstreamMs: Number
  })
})
