/** The mesh in a Fastify server without a gateway. */
import { once } from 'node:events'
import { connect } from 'node:http2'
import type { FastifyInstance, FastifyServerOptions } from 'fastify'
import Fastify from 'fastify'
import { Registry } from 'prom-client'
import type { Test } from 'tap'
import t from 'tap'
import type { FastifyMeshOptions } from '../../../plugins/mesh-fastify.ts'
import mesh from '../../../plugins/mesh-fastify.ts'
import { refused, silent, upstream } from '../../helpers/mesh/servers.ts'

const traceparent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`

const isUuid = (text: unknown) => /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/.test(String(text))

function server(t: Test, options: FastifyServerOptions = {}): FastifyInstance {
  const fastify = Fastify({ forceCloseConnections: true, ...options })
  t.teardown(() => fastify.close())
  return fastify
}

async function withMesh(t: Test, options: FastifyMeshOptions, ofServer: FastifyServerOptions = {}) {
  const fastify = server(t, ofServer)
  await fastify.register(mesh, options)
  return fastify
}

async function listen(fastify: FastifyInstance): Promise<string> {
  return fastify.listen({ host: '127.0.0.1', port: 0 })
}

t.test('calls on behalf of a request have its id and its trace context', async (t) => {
  const orders = await upstream(t, 'orders', (_request, response) => response.end('{"items":[7]}'))
  const services = { orders: { instances: [orders.url] } }
  const fastify = await withMesh(t, { services }, { requestIdHeader: 'x-request-id', genReqId: () => 'made' })
  fastify.get('/json', (request) => request.mesh.json('orders', '/json?a=1'))
  fastify.get('/own', async (request) => {
    const headers = { traceparent: 'own' }
    const { body } = await request.mesh.request({ origin: 'http://orders.mesh', path: '/own', headers })
    return body.text()
  })
  fastify.get('/plain', async () => (await fastify.mesh.fetch('http://orders.mesh/plain')).text())
  await fastify.register(async (child) => {
    child.get('/child', (request) => request.mesh.json('orders', '/child'))
  })
  const seen = (path: string) => orders.requests.find(({ url }) => url === path)!.headers
  const headers = { traceparent, tracestate: 'a=1', baggage: 'b=2', authorization: 'secret' }
  for (const url of ['/json', '/own', '/plain', '/child']) {
    t.equal((await fastify.inject({ url, headers })).body, '{"items":[7]}', url)
  }
  t.match(seen('/json?a=1'), { 'x-request-id': 'made', traceparent, tracestate: 'a=1', baggage: 'b=2' })
  t.equal(seen('/json?a=1').authorization, undefined)
  t.equal(seen('/own').traceparent, 'own', 'a header of the call takes precedence')
  t.match(seen('/child'), { traceparent })
  t.equal(seen('/plain').traceparent, undefined, 'a call of no request')
  await fastify.inject({ url: '/child', headers: { 'x-request-id': 'given' } })
  t.equal(orders.requests.at(-1)!.headers['x-request-id'], 'given')
})

t.test('calls have the id of the client, of genReqId, or one that no other process has', async (t) => {
  const orders = await upstream(t, 'orders', (_request, response) => response.end('1'))
  const services = { orders: { instances: [orders.url] } }
  const idsOf = async (options: FastifyServerOptions, id?: string) => {
    const fastify = await withMesh(t, { services }, options)
    fastify.get('/', async ({ mesh }) => [await mesh.json('orders', '/'), await mesh.json('orders', '/')])
    await fastify.inject({ url: '/', headers: id === undefined ? {} : { 'x-request-id': id } })
    return orders.requests.slice(-2).map(({ headers }) => headers['x-request-id'])
  }
  const genReqId = () => 'made'
  t.strictSame(await idsOf({}, '0b7c-from-the-gateway'), Array(2).fill('0b7c-from-the-gateway'))
  t.strictSame(await idsOf({ genReqId }, '0b7c'), ['0b7c', '0b7c'])
  t.strictSame(await idsOf({ genReqId }), ['made', 'made'])
  t.strictSame(await idsOf({ genReqId }, 'two words'), ['made', 'made'], 'a malformed id')
  t.strictSame(await idsOf({ genReqId: () => 'two words' }, 'x'.repeat(200)).then((ids) => ids.map(isUuid)), [
    true,
    true
  ])
  for (const options of [{}, { requestIdHeader: 'x-request-id' }]) {
    const [first, second] = await idsOf(options)
    t.ok(isUuid(first), String(first))
    t.equal(first, second, 'calls of one request have one id')
  }
})

t.test("the program's headers take precedence over those of the request", async (t) => {
  const orders = await upstream(t, 'orders', (_request, response) => response.end('1'))
  const services = { orders: { instances: [orders.url] } }
  const fastify = await withMesh(t, { services, headers: () => ({ Traceparent: 'span', 'x-team': 'billing' }) })
  fastify.get('/', (request) => request.mesh.json('orders', '/'))
  await fastify.inject({ url: '/', headers: { traceparent, tracestate: 'a=1' } })
  const { rawHeaders, headers } = orders.requests[0]!
  t.match(headers, { traceparent: 'span', tracestate: 'a=1', 'x-team': 'billing' })
  t.equal(rawHeaders.filter((text) => text.toLowerCase() === 'traceparent').length, 1)
})

for (const http2 of [false, true]) {
  t.test(`a client that leaves over HTTP/${http2 ? 2 : 1.1} aborts its calls`, async (t) => {
    const gone = Promise.withResolvers<void>()
    const begun = Promise.withResolvers<void>()
    const orders = await upstream(t, 'orders', (_request, response) => {
      response.on('close', () => gone.resolve())
      response.write('part')
      begun.resolve()
    })
    const options = { services: { orders: { instances: [orders.url] } } }
    const fastify = await withMesh(t, options, (http2 ? { http2: true } : {}) as FastifyServerOptions)
    const errors: unknown[] = []
    const ended = Promise.withResolvers<void>()
    fastify.post('/', async (request) => {
      try {
        return await request.mesh.json('orders', '/')
      } catch (error) {
        errors.push(error)
        throw error
      } finally {
        ended.resolve()
      }
    })
    const url = await listen(fastify)
    if (http2) {
      const session = connect(url)
      const stream = session.request({ ':path': '/', ':method': 'POST', 'content-type': 'application/json' })
      stream.on('error', () => {})
      stream.end('{}')
      await begun.promise
      stream.close(8)
      await Promise.all([gone.promise, ended.promise])
      session.close()
    } else {
      const controller = new AbortController()
      const init = { method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } }
      const response = fetch(url, { ...init, signal: controller.signal })
      const failed = t.rejects(response)
      await begun.promise
      controller.abort()
      await Promise.all([gone.promise, ended.promise, failed])
    }
    t.match(errors, [{ code: 'JW_CLIENT_GONE', statusCode: 499 }])
  })
}

t.test('errors of calls have the status of a gateway', async (t) => {
  const slow = await silent(t)
  const empty = await upstream(t, 'empty', (_request, response) => response.writeHead(404).end())
  const fastify = await withMesh(t, {
    services: {
      gone: { instances: [await refused()] },
      slow: { instances: [slow.url], mesh: { timeout: '30ms', retry: false } },
      empty: { instances: [empty.url] }
    }
  })
  fastify.get('/:service', (request) => request.mesh.json((request.params as { service: string }).service, '/'))
  const ends = [
    ['gone', 502, 'JW_UPSTREAM_REFUSED'], ['slow', 504, 'JW_CALL_TIMEOUT'], ['empty', 502, 'JW_UPSTREAM_STATUS'],
    ['gnoe', 503, 'JW_NO_SERVICE']
  ] as const // biome-ignore format: a table
  for (const [service, statusCode, code] of ends) {
    const response = await fastify.inject(`/${service}`)
    t.match({ statusCode: response.statusCode, ...response.json() }, { statusCode, code }, service)
  }
})

t.test('a body that a handler does not read is destroyed with the response', async (t) => {
  const closed = Promise.withResolvers<void>()
  const orders = await upstream(t, 'orders', (_request, response) => {
    response.on('close', () => closed.resolve())
    response.write('endless')
  })
  const fastify = await withMesh(t, { services: { orders: { instances: [orders.url] } } })
  fastify.get('/', async (request) => {
    const { statusCode } = await request.mesh.request({ origin: 'http://orders.mesh', path: '/' })
    return { statusCode }
  })
  const url = await listen(fastify)
  t.strictSame(await (await fetch(url)).json(), { statusCode: 200 })
  await closed.promise
})

t.test('the start waits for discovery, and for no longer than readyTimeout', async (t) => {
  const lines: string[] = []
  const logger = { level: 'warn', stream: { write: (line: string) => void lines.push(line) } }
  const consul = await silent(t)
  const options = { discovery: { consul: { url: consul.url } }, services: { orders: {} } }
  const fastify = await withMesh(t, { ...options, readyTimeout: '50ms' }, { logger })
  fastify.get('/', (request) => request.mesh.json('orders', '/'))
  await fastify.ready()
  t.match(
    lines.map((line) => JSON.parse(line)),
    [{ services: ['orders'], msg: /^mesh\.ready: no result of discovery within 50 ms for orders; the server starts/ }]
  )
  t.match((await fastify.inject('/')).json(), { code: 'JW_NO_INSTANCE', statusCode: 503 })
  await t.rejects(fastify.mesh.ready({ timeout: 10 }), { code: 'JW_NOT_READY' })
})

t.test('a server that is closed while it waits', async (t) => {
  const consul = await silent(t)
  const options = { discovery: { consul: { url: consul.url } }, services: { orders: {} } }
  const fastify = await withMesh(t, options)
  const ready = t.rejects(
    async () => {
      await fastify.ready()
    },
    { code: 'JW_MESH_CLOSED' }
  )
  await once(consul.server, 'connection')
  await fastify.mesh.close()
  await ready
})

t.test('the mesh closes after the last request', async (t) => {
  const orders = await upstream(t, 'orders', (_request, response) => response.end('1'))
  const registry = new Registry()
  const services = { orders: { instances: [orders.url] } }
  const fastify = await withMesh(t, { services, registry }, { forceCloseConnections: false })
  const closing = Promise.withResolvers<void>()
  const begun = Promise.withResolvers<void>()
  fastify.get('/', async (request, reply) => {
    begun.resolve()
    await closing.promise
    reply.header('connection', 'close')
    const order = await request.mesh.json('orders', '/')
    t.match(await registry.metrics(), /^jingwei_mesh_attempts_total\{service="orders",outcome="success"\} 1$/m)
    return order
  })
  fastify.addHook('preClose', async () => closing.resolve())
  const url = await listen(fastify)
  const response = fetch(url)
  await begun.promise
  const closed = fastify.close()
  t.equal(await (await response).text(), '1')
  await closed
  t.strictSame(registry.getMetricsAsArray(), [])
  await t.rejects(fastify.mesh.request({ origin: 'http://orders.mesh', path: '/', method: 'GET' }), {
    code: 'JW_MESH_CLOSED'
  })
})

t.test('misuse', async (t) => {
  const services = { orders: { instances: ['http://127.0.0.1:1'] } }
  const rejected = async (
    options: FastifyMeshOptions,
    of: { message: RegExp | string },
    ofServer: FastifyServerOptions = {}
  ) => t.rejects(withMesh(t, options, ofServer), of)
  await rejected(
    { services, readyTimeout: 'soon' },
    { message: 'readyTimeout: expected a duration such as "5s", found "soon"' }
  )
  await rejected(
    { services, readyTimeout: '10s' },
    { message: /must be less than Fastify's pluginTimeout, which is 10000 ms/ }
  )
  await (await withMesh(t, { services, readyTimeout: '10s' }, { pluginTimeout: 11_000 })).ready()
  await rejected(
    { services: { orders: { instances: ['nowhere'] } } },
    { message: /^createMesh: services\.orders\.instances\[0\]: expected a URL/ }
  )
  await rejected({ services, mesh: { timout: '3s' } } as never, { message: /did you mean "timeout"/ })
  await rejected({ services, servises: {} } as never, { message: /servises: unknown key; did you mean "services"/ })

  const twice = await withMesh(t, { services })
  await t.rejects(async () => twice.register(mesh, { services }), { message: /this server has a mesh already/ })
})
