// slow: takes about 14 s
/**
 * The request's own async context in every hook and every callback of an interceptor, as plugins such as
 * @fastify/request-context need it: 200 requests of 200 users, 10 at a time, over few connections.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { EventEmitter } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import http from 'node:http'
import type { ClientHttp2Session } from 'node:http2'
import http2 from 'node:http2'
import { Readable, Transform } from 'node:stream'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Test } from 'tap'
import t from 'tap'
import { ForwardingHandler } from '../../plugins/mesh/core/handlers/forwarding-handler.ts'
import type { DispatchController, DispatchHandler, Interceptor } from '../../plugins/mesh/core/types.ts'
import { eventually } from '../helpers/eventually.ts'
import { connect, startGateway, startService } from '../helpers/gateway.ts'
import { selfSigned } from '../helpers/self-signed.ts'

const users = 200
const atOnce = 10

interface Store {
  readonly user: string
}

/** Places where code of a plugin ran, and whether each had the store of its own request. */
class Sightings {
  readonly storage = new AsyncLocalStorage<Store>()
  readonly places = new Map<string, number>()
  readonly wrong: string[] = []

  see(place: string, user: string): void {
    this.places.set(place, (this.places.get(place) ?? 0) + 1)
    const found = this.storage.getStore()?.user
    if (found !== user) this.wrong.push(`${place}: ${found} instead of ${user}`)
  }
}

/** Tells how far a user's request has come, `hook` or `service`, for clients that leave there. */
const reached = new EventEmitter().setMaxListeners(0)

const userOf = (request: FastifyRequest) => String(request.headers['x-user'])

/** As @fastify/request-context does it. */
function requestContext(fastify: FastifyInstance, sightings: Sightings): void {
  const { storage } = sightings
  fastify.addHook('onRequest', (request, _reply, done) => storage.run({ user: userOf(request) }, done))
  const see = (place: string, request: FastifyRequest) => sightings.see(place, userOf(request))
  fastify.addHook('onRequest', async (request) => see('onRequest', request))
  fastify.addHook('preParsing', async (request) => see('preParsing', request))
  fastify.addHook('preValidation', async (request) => see('preValidation', request))
  fastify.addHook('preHandler', async (request) => {
    see('preHandler', request)
    reached.emit(`hook ${userOf(request)}`)
    if (request.url === '/hook-waits') await new Promise((resolve) => setTimeout(resolve, 50))
  })
  fastify.addHook('onError', async (request) => see('onError', request))
  fastify.addHook('onSend', async (request, _reply, payload) => {
    see('onSend', request)
    if (!(payload instanceof Readable)) return payload
    const transform = (chunk: Buffer, _encoding: string, done: (error: null, chunk: Buffer) => void) => {
      see('transform', request)
      done(null, chunk)
    }
    return payload.pipe(new Transform({ transform }))
  })
  fastify.addHook('onResponse', async (request) => see('onResponse', request))
  fastify.addHook('onRequestAbort', async (request) => see('onRequestAbort', request))
}

function userIn(headers: unknown): string {
  const list = headers as string[]
  return list[list.indexOf('x-user') + 1] ?? ''
}

/** Looks in every callback. With a context of its own around what it dispatches, inner interceptors have that. */
function looking(sightings: Sightings, kind: string): Interceptor {
  return (dispatch) => (opts, next) => {
    const user = userIn(opts.headers)
    const see = (place: string) => sightings.see(`${kind} ${place}`, user)
    see('dispatch')
    const handler: DispatchHandler = {
      onRequestStart(controller: DispatchController, context: unknown) {
        see('onRequestStart')
        next.onRequestStart?.(controller, context)
      },
      onRequestUpgrade(controller, status, headers, socket) {
        see('onRequestUpgrade')
        next.onRequestUpgrade?.(controller, status, headers, socket)
      },
      onResponseStart(controller, status, headers, text) {
        see('onResponseStart')
        next.onResponseStart?.(controller, status, headers, text)
      },
      onResponseData(controller, chunk) {
        see('onResponseData')
        next.onResponseData?.(controller, chunk)
      },
      onResponseEnd(controller, trailers) {
        see('onResponseEnd')
        next.onResponseEnd?.(controller, trailers)
      },
      onResponseError(controller, error) {
        see('onResponseError')
        next.onResponseError?.(controller, error)
      },
      onBodySent(chunk: Buffer) {
        see('onBodySent')
        next.onBodySent?.(chunk)
      },
      onRequestSent() {
        see('onRequestSent')
        next.onRequestSent?.()
      }
    }
    return dispatch(opts, handler)
  }
}

interface Client {
  /** Sends a request and resolves when it is over, however it ends. */
  send(user: string, path: string, options?: SendOptions): Promise<void>
  close(): void
}

interface SendOptions {
  readonly method?: string
  readonly body?: string
  /** The client leaves when the request has come so far. */
  readonly leave?: 'hook' | 'service' | 'response'
}

function http1(port: number): Client {
  const agent = new http.Agent({ keepAlive: true, maxSockets: atOnce })
  return {
    send: (user, path, { method = 'GET', body, leave } = {}) =>
      new Promise((resolve) => {
        const request = http.request({ port, host: '127.0.0.1', path, method, agent, headers: { 'x-user': user } })
        request.on('response', (response) =>
          response
            .on('error', () => {})
            .on('close', resolve)
            .resume()
        )
        request
          .on('error', () => {})
          .on('close', resolve)
          .end(body)
        if (leave === 'response') request.once('response', () => request.destroy())
        else if (leave !== undefined) reached.once(`${leave} ${user}`, () => request.destroy())
      }),
    close: () => agent.destroy()
  }
}

function overHttp2(port: number): Client {
  // As many users on one connection as are at work at a time.
  const session: ClientHttp2Session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  session.on('error', () => {})
  return {
    send: (user, path, { method = 'GET', body, leave } = {}) =>
      new Promise((resolve) => {
        const stream = session.request({ ':path': path, ':method': method, 'x-user': user })
        stream
          .on('error', () => {})
          .on('close', resolve)
          .resume()
          .end(body)
        const cancel = () => stream.close(http2.constants.NGHTTP2_CANCEL)
        if (leave === 'response') stream.once('response', cancel)
        else if (leave !== undefined) reached.once(`${leave} ${user}`, cancel)
      }),
    close: () => session.destroy()
  }
}

/** The service: its behaviour depends on the path. */
function respond({ url, headers }: IncomingMessage, response: ServerResponse): void {
  reached.emit(`service ${headers['x-user']}`)
  if (url === '/reset') response.destroy()
  else if (url === '/slow') response.writeHead(200).write('the beginning')
  else if (url !== '/silent') {
    response.writeHead(200, { 'content-type': 'text/plain' }).write('the ')
    setTimeout(() => response.end('response'), 5)
  }
}

type Path = 'raw' | 'reply'

async function started(t: Test, isHttp2: boolean, responsePath: Path, mesh: object = {}) {
  const sightings = new Sightings()
  const service = await startService((request, response) => {
    request.resume().on('end', () => respond(request, response))
  })
  const gateway = await startGateway(
    {
      listen: { ...(isHttp2 && { tls: selfSigned(t), http2: true }) },
      edge: { responsePath },
      services: { orders: { instances: [service.url], mesh: { retry: false, ...mesh } } },
      routes: [{ name: 'orders', match: { path: '/' }, service: 'orders' }]
    },
    {
      before: (server) => {
        requestContext(server, sightings)
        server.register(
          fp(async (fastify) => {
            fastify.mesh.use(looking(sightings, 'request'), { per: 'request' })
            fastify.mesh.use(looking(sightings, 'attempt'), { per: 'attempt' })
          })
        )
      }
    }
  )
  const client = isHttp2 ? overHttp2(gateway.port) : http1(gateway.port)
  t.teardown(async () => {
    client.close()
    await gateway.close()
    await service.close()
  })
  return { sightings, client, port: gateway.port }
}

/** Sends a request for each user, some at a time, and waits until the gateway has dealt with all of them. */
async function all(
  { sightings, client }: Awaited<ReturnType<typeof started>>,
  path: string,
  options: SendOptions = {}
): Promise<void> {
  const left = Array.from({ length: users }, (_, i) => `user-${i}`)
  const work = async () => {
    for (let user = left.pop(); user !== undefined; user = left.pop()) await client.send(user, path, options)
  }
  await Promise.all(Array.from({ length: atOnce }, work))
  await eventually(() => sightings.places.get('onResponse') === users)
}

const before = ['onRequest', 'preParsing', 'preValidation', 'preHandler']
const both = (...places: string[]) => places.flatMap((place) => [`request ${place}`, `attempt ${place}`])

interface Case {
  readonly path: string
  readonly options?: SendOptions
  readonly mesh?: object
  /** Places that are seen once for each user. */
  readonly places: readonly string[]
  /** True if the client waits for the whole response of the service. */
  readonly isWhole?: true
}

const cases: Readonly<Record<string, Case>> = {
  'a response': {
    isWhole: true,
    path: '/',
    options: { method: 'POST', body: 'a body' },
    places: [...before, 'onResponse', ...both('dispatch', 'onRequestStart', 'onResponseStart', 'onResponseEnd', 'onRequestSent')]
  },
  'a service that breaks off': {
    path: '/reset',
    places: [...before, 'onError', 'onSend', 'onResponse', ...both('dispatch', 'onRequestStart', 'onResponseError')]
  },
  'a service that is silent': {
    path: '/silent',
    mesh: { timeout: '50ms', attemptTimeout: '50ms' },
    places: [...before, 'onError', 'onSend', 'onResponse', 'request onResponseError']
  },
  'waiting for other calls to end': {
    isWhole: true,
    path: '/',
    mesh: { circuitBreaker: { maxConnections: 2, maxPendingRequests: 100, minRequests: 100 } },
    places: [...before, 'onResponse', ...both('dispatch', 'onRequestStart', 'onResponseStart', 'onResponseEnd')]
  },
  'waiting for the rate limit': {
    isWhole: true,
    path: '/',
    mesh: { limit: { rate: 1000, per: '1s', burst: 1, queue: 100, queueTimeout: '5s' } },
    places: [...before, 'onResponse', ...both('dispatch', 'onRequestStart', 'onResponseStart', 'onResponseEnd')]
  },
  'retries and hedges': {
    isWhole: true,
    path: '/',
    mesh: { retry: { on: ['reset'], attempts: 1 }, hedge: { after: '1ms' }, adaptiveConcurrency: {} },
    places: [...before, 'onResponse', 'request dispatch', 'request onResponseStart', 'request onResponseEnd']
  },
  'a fallback': {
    path: '/reset',
    mesh: { collapse: true, fallback: [{ on: ['reset'], status: 200, body: 'instead' }] },
    places: [...before, 'onResponse', ...both('dispatch', 'onResponseError')]
  },
  'clients that leave before there is a response': {
    path: '/silent',
    options: { leave: 'service' },
    places: [...before, 'onResponse', ...both('dispatch', 'onResponseError')]
  },
  'clients that leave within the response': {
    path: '/slow',
    options: { leave: 'response' },
    places: [...before, 'onResponse', ...both('dispatch', 'onResponseStart', 'onResponseError')]
  },
  'clients that leave while a hook waits': {
    path: '/hook-waits',
    options: { leave: 'hook' },
    places: [...before, 'onResponse']
  }
} // biome-ignore format: a table

for (const protocol of ['HTTP/1.1', 'HTTP/2']) {
  for (const path of ['raw', 'reply'] as const) {
    for (const [name, { path: target, options, mesh, places, isWhole }] of Object.entries(cases)) {
      t.test(`${protocol}, ${path}: ${name}`, async (t) => {
        const world = await started(t, protocol === 'HTTP/2', path, mesh)
        await all(world, target, options)
        const { sightings } = world
        t.strictSame(
          sightings.wrong.slice(0, 3),
          [],
          `${sightings.wrong.length} sightings without the store of their request`
        )
        const ofPath = path === 'reply' && isWhole ? ['onSend', 'transform'] : []
        for (const place of [...places, ...ofPath])
          t.ok((sightings.places.get(place) ?? 0) >= users, `${place}: ${sightings.places.get(place)}`)
      })
    }
  }
}

t.test('callbacks of an interceptor and of those further in run in the context that it enters', async (t) => {
  const service = await startService((_request, response) => void setTimeout(() => response.end('response'), 5))
  const storage = new AsyncLocalStorage<string>()
  const seen: (string | undefined)[][] = []
  const entering: Interceptor = (dispatch) => (opts, next) => {
    const outside = storage.getStore()
    const handler: DispatchHandler = new ForwardingHandler(next)
    const id = userIn(opts.headers)
    handler.onResponseStart = (controller, status, headers, text) => {
      seen.push(['request', outside, `span of ${id}`, storage.getStore()])
      next.onResponseStart?.(controller, status, headers, text)
    }
    return storage.run(`span of ${id}`, () => dispatch(opts, handler))
  }
  const inner: Interceptor = (dispatch) => (opts, next) => {
    const handler: DispatchHandler = new ForwardingHandler(next)
    const before = storage.getStore()
    const id = userIn(opts.headers)
    handler.onResponseEnd = (controller, trailers) => {
      seen.push(['attempt', before, `span of ${id}`, storage.getStore()])
      next.onResponseEnd?.(controller, trailers)
    }
    return dispatch(opts, handler)
  }
  const mesh = { retry: false, circuitBreaker: { maxConnections: 1, maxPendingRequests: 100, minRequests: 100 } }
  const gateway = await startGateway(
    {
      services: { orders: { instances: [service.url], mesh } },
      routes: [{ name: 'orders', match: { path: '/' }, service: 'orders' }]
    },
    {
      before: (server) => {
        server.addHook('onRequest', (request, _reply, done) => storage.run(userOf(request), done))
        server.register(
          fp(async (fastify) => {
            fastify.mesh.use(entering, { per: 'request' })
            fastify.mesh.use(inner, { per: 'attempt' })
          })
        )
      }
    }
  )
  const client = http1(gateway.port)
  t.teardown(async () => {
    client.close()
    await gateway.close()
    await service.close()
  })
  await Promise.all(Array.from({ length: 10 }, (_, user) => client.send(`user-${user}`, '/')))
  t.equal(seen.length, 20)
  for (const [kind, outside, expected, found] of seen) {
    t.equal(found, expected)
    t.equal(
      outside,
      kind === 'attempt' ? expected : expected!.replace('span of ', ''),
      `${kind}: context at the dispatch`
    )
  }
})

t.test('HTTP/1.1: pipelined requests keep their own context', async (t) => {
  const { sightings, port } = await started(t, false, 'reply')
  const request = (user: number) => `GET / HTTP/1.1\r\nHost: h\r\nX-User: user-${user}\r\n`
  const text = Array.from({ length: 20 }, (_, user) => `${request(user)}\r\n`).join('')
  await connect(port, `${text}${request(20)}Connection: close\r\n\r\n`).closed
  await eventually(() => sightings.places.get('onResponse') === 21)
  t.strictSame(sightings.wrong, [])
})
