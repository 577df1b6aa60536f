// slow: takes about 3 s
/** One name and one type for a thing in all log lines: `requestId`, and `err` as an object. */
import type net from 'node:net'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import Fastify from 'fastify'
import { pino } from 'pino'
import type { Test } from 'tap'
import t from 'tap'
import type { Dispatcher } from 'undici'
import { gateway as gatewayPlugin } from '../../app.ts'
import { loggedError } from '../../plugins/operations/logged-error.ts'
import { loggerOptions } from '../../plugins/operations/logging.ts'
import type { Protocol } from '../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { handshake } from '../helpers/edge/websocket.ts'
import { eventually } from '../helpers/eventually.ts'
import { configOf, connect, raw, startGateway, startService } from '../helpers/gateway.ts'

t.test('the serializer of errors keeps type, message, stack and code', async (t) => {
  const cause = Object.assign(new RangeError('the cause'), { code: 'ECAUSE' })
  const error = Object.assign(new TypeError('what failed', { cause }), {
    code: 'E_CODE', errno: -111, fatal: true, name: 'Other', data: 'bytes of a response', long: 'x'.repeat(1000),
    command: { name: 'auth', args: ['hunter2'] }, response: { headers: { authorization: 'hunter2' } }
  }) // biome-ignore format: a list
  const logged = loggedError(error)
  t.match(logged, { type: 'TypeError', message: 'what failed: the cause', code: 'E_CODE', errno: -111, fatal: true })
  t.match(logged.stack, /what failed[\s\S]*\ncaused by: RangeError: the cause/)
  t.strictSame(Object.keys(logged).sort(), ['code', 'errno', 'fatal', 'message', 'stack', 'type'])
  t.notMatch(JSON.stringify(logged), /hunter2|bytes of/)
  const several = new AggregateError([new Error('a')], '')
  t.equal(loggedError(Object.assign(several, { code: 'ECONNREFUSED' })).message, 'ECONNREFUSED')
  t.equal(loggedError(several).type, 'AggregateError')
  const circle = new Error('a circle')
  circle.cause = circle
  t.ok(loggedError(circle).message.length < 200)
  for (const thrown of ['a text', 7, null, undefined, { code: 'X' }]) {
    t.match(loggedError(thrown), { type: 'Error', message: String(thrown), stack: String })
  }
})

t.test('any thrown value is logged as an error object by the process', async (t) => {
  const lines: string[] = []
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(chunk.toString())
      done()
    }
  })
  const options = loggerOptions({}) as object
  const server = Fastify({ logger: { ...options, stream } as object })
  t.teardown(() => server.close())
  server.log.error({ err: 'a text' }, 'one')
  server.log.error(new RangeError('an error'))
  server.log.child({ requestId: 'r' }).error({ err: new RangeError('an error') }, 'three')
  const logged = lines.map((line) => JSON.parse(line).err)
  t.match(logged, [
    { type: 'Error', message: 'a text', stack: String },
    { type: 'RangeError', message: 'an error', stack: String },
    { type: 'RangeError', message: 'an error', stack: String }
  ])
})

type Interceptor = Dispatcher.DispatcherComposeInterceptor

/** Paths whose requests end with a line about a fault of a plugin. */
const slips = ['/hook', '/own', '/interceptor', '/handler', '/stream', '/trailer', '/end'] as const

function slipping(server: FastifyInstance): void {
  server.after(() => {
    server.addHook('preHandler', async (request) => {
      if (request.url === '/hook') throw new Error('a slip')
    })
    server.get('/own', async () => {
      throw new Error('a slip')
    })
    server.get('/trailer', async (_request, reply) => {
      reply.trailer('x-sum', async () => {
        throw new Error('a slip')
      })
      return 'with a trailer'
    })
    const fails: Interceptor = (dispatch) => (opts, handler) => {
      if (opts.path === '/interceptor') throw new Error('a slip')
      if (opts.path !== '/handler') return dispatch(opts, handler)
      return dispatch(opts, {
        ...handler,
        onRequestStart: (controller, context) => handler.onRequestStart?.(controller, context),
        onResponseStart: () => {
          throw new Error('a slip')
        },
        onResponseError: (controller, error) => handler.onResponseError?.(controller, error)
      })
    }
    server.mesh.use(fails, { per: 'request' })
    server.get('/end', async (request) => {
      const { promise, resolve } = Promise.withResolvers<string>()
      const opts = { origin: 'http://any.mesh', path: '/', method: 'GET', caller: request } as const
      server.mesh.dispatch(opts as Dispatcher.DispatchOptions, {
        onRequestStart() {},
        onResponseStart() {},
        onResponseData() {},
        onResponseEnd() {
          resolve('the end')
          throw new Error('a slip')
        },
        onResponseError() {
          throw new Error('a slip')
        }
      })
      return promise
    })
    server.get('/stream', (_request, reply) => {
      reply.header('content-length', 3)
      return reply.send(
        new ReadableStream({
          start(controller) {
            controller.enqueue(Buffer.from('too much'))
            controller.close()
          }
        })
      )
    })
  })
}

async function scene(t: Test, protocol: Protocol) {
  const service = await startService((_request, response) => response.end('ok'))
  t.teardown(service.close)
  const config = {
    listen: listenFor(t, protocol),
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  }
  return config
}

function check(t: Test, lines: readonly Record<string, unknown>[]): void {
  for (const line of lines) {
    t.notOk('reqId' in line || ('error' in line && typeof line.error !== 'string'), String(line.msg))
    if (line.err !== undefined) t.match(line.err, { type: String, message: String, stack: String }, String(line.msg))
    if ('requestId' in line) t.type(line.requestId, 'string', String(line.msg))
  }
}

for (const protocol of protocols) {
  t.test(`lines about a request over ${protocol} have its id, and errors are objects`, async (t) => {
    const gateway = await startGateway(await scene(t, protocol), { log: true, before: slipping })
    t.teardown(gateway.close)
    const { begin } = anyClient(t, protocol, gateway.port)
    for (const path of slips) {
      await begin(path, { headers: { 'x-request-id': `id-of${path}` } }).response
      const about = () => gateway.log.filter(({ requestId }) => requestId === `id-of${path}`)
      await eventually(
        () => about().some(({ err }) => err !== undefined) && about().some(({ msg }) => msg === 'request')
      )
    }
    const lost = gateway.log.filter(({ err, requestId }) => err !== undefined && requestId === undefined)
    t.strictSame(lost, [], 'no line of a fault is without the id')
    check(t, gateway.log)
  })
}

t.test('lines about the handshake of a WebSocket have its id', async (t) => {
  const gateway = await startGateway(await scene(t, 'HTTP/1.1'), { log: true, before: slipping })
  t.teardown(gateway.close)
  const client = connect(gateway.port, handshake('/hook', ['X-Request-Id: of-a-socket']))
  await client.until('500')
  client.socket.destroy()
  await eventually(() => gateway.log.filter(({ requestId }) => requestId === 'of-a-socket').length >= 2)
  check(t, gateway.log)
})

t.test('an embedding server can use another name for the request id', async (t) => {
  const lines: Record<string, unknown>[] = []
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(JSON.parse(chunk.toString()) as Record<string, unknown>)
      done()
    }
  })
  const service = await startService((_request, response) => response.end('ok'))
  t.teardown(service.close)
  const config = configOf({
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  })
  const server = Fastify({ loggerInstance: pino({ level: 'info' }, stream) })
  t.teardown(() => server.close())
  server.register(gatewayPlugin, config)
  server.get('/loud', async (request) => {
    request.log.info('hello')
    return 'ok'
  })
  await server.listen({ host: '127.0.0.1', port: 0 })
  const { port } = server.server.address() as net.AddressInfo
  await raw(port, 'GET /any HTTP/1.1\r\nHost: h\r\nX-Request-Id: r1\r\nConnection: close\r\n\r\n')
  await eventually(() => lines.some(({ msg }) => msg === 'request'))
  check(t, lines)
})

t.test('failures of services, registries and other dependencies are logged as objects', async (t) => {
  const dead = 'http://127.0.0.1:9'
  const gateway = await startGateway(
    {
      discovery: { consul: { url: dead }, snapshot: { path: join(t.testdir({ broken: '{' }), 'broken') } },
      redis: { url: 'redis://127.0.0.1:9' },
      services: {
        found: {},
        named: { dns: { host: 'any.test', port: 80, server: '127.0.0.1:9' } },
        fixed: { instances: [dead], mesh: { retry: false } }
      },
      routes: [
        { name: 'keys', match: { path: '/keys' }, service: 'fixed', edge: { jwt: { jwks: `${dead}/keys` } } },
        {
          name: 'limit',
          match: { path: '/limit' },
          service: 'fixed',
          edge: { rateLimit: { max: 9, window: '1m', store: 'redis' } }
        }
      ]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  await raw(gateway.port, 'GET /limit HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  for (const about of [
    /^Consul unavailable/,
    /^Redis is unavailable/,
    /^cannot fetch the key set/,
    /^DNS/,
    /^the discovery snapshot/
  ]) {
    await eventually(() => gateway.log.some(({ msg, err }) => about.test(String(msg)) && err !== undefined))
  }
  check(t, gateway.log)
})
