// The response path of a route is chosen by its hooks, once all plugins have loaded.
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance, RouteOptions } from 'fastify'
import Fastify from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { build, gateway } from '../../../app.ts'
import { serverOptions } from '../../../plugins/edge/protocol/listener.ts'
import { echo, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts' // biome-ignore format: a list
import { configOf, get, parse, raw, startEcho, startGateway, startService } from '../../helpers/gateway.ts'

const routes = (...edges: object[]) =>
  edges.map((edge, index) => ({ name: `r${index}`, match: { path: `/r${index}` }, service: 'any', edge }))

const config = (url: string, ...edges: object[]) => ({
  services: { any: { instances: [url] } },
  routes: routes(...edges)
})

async function responding(t: Test): Promise<string> {
  const service = await startService((_request, response) => response.end('hello'))
  t.teardown(service.close)
  return service.url
}

/** Adds a hook that marks the responses that it sees. */
const marking = (fastify: FastifyInstance) =>
  fastify.addHook('onSend', async (_request, reply) => void reply.header('x-seen', 'yes'))

async function seen(port: number, count: number): Promise<(string | undefined)[]> {
  const seen = []
  for (let i = 0; i < count; i++) seen.push((await get(port, `/r${i}`)).headers['x-seen'])
  return seen
}

t.test('without hooks, the response path is raw, unless reply is forced', async (t) => {
  const { server, port, close } = await startGateway(config(await responding(t), {}, { responsePath: 'reply' }))
  t.teardown(close)
  t.equal(server.responsePath('r0'), 'raw')
  t.equal(server.responsePath('r1'), 'reply')
  t.equal(server.responsePath('none'), null)
  t.equal((await get(port, '/r1')).body, 'hello')
})

t.test('with a hook for all routes, the response path is reply, unless raw is forced', async (t) => {
  const url = await responding(t)
  const { server, port, close } = await startGateway(config(url, {}, { responsePath: 'raw' }), { before: marking })
  t.teardown(close)
  t.strictSame([server.responsePath('r0'), server.responsePath('r1')], ['reply', 'raw'])
  t.strictSame(await seen(port, 2), ['yes', undefined])
  t.equal((await get(port, '/none')).headers['x-seen'], 'yes', 'the hook runs on errors of the gateway')
})

t.test('a response path forced for all routes can have an exception', async (t) => {
  const all = { ...config(await responding(t), {}, { responsePath: 'auto' }), edge: { responsePath: 'raw' } }
  const { port, close } = await startGateway(all, { before: marking })
  t.teardown(close)
  t.strictSame(await seen(port, 2), [undefined, 'yes'])
})

for (const [when, before] of [
  ['before the gateway', true],
  ['after it', false]
] as const) {
  t.test(`the response path is reply for a hook of an onRoute hook that is added ${when}`, async (t) => {
    const parsed = configOf(config(await responding(t), {}, {}))
    const server = Fastify(serverOptions(parsed))
    t.teardown(() => server.close())
    const onRoute = (options: RouteOptions) => {
      if (options.config?.route?.name !== 'r1') return
      const others = [options.onSend ?? []].flat()
      options.onSend = [...others, async (_request, reply) => void reply.header('x-seen', 'yes')]
    }
    if (before) server.addHook('onRoute', onRoute)
    server.register(async (child) => {
      if (!before) child.addHook('onRoute', onRoute)
      await gateway(child, parsed)
    })
    await server.listen({ host: '127.0.0.1', port: 0 })
    const { port } = server.server.address() as { port: number }
    t.strictSame(await seen(port, 2), [undefined, 'yes'])
  })
}

t.test('hooks of the embedding server count, those of its other contexts do not', async (t) => {
  const parsed = configOf(config(await responding(t), {}))
  for (const around of [true, false]) {
    const server = Fastify(serverOptions(parsed))
    t.teardown(() => server.close())
    if (around) marking(server)
    server.register(async (other) => void marking(other))
    server.register(async (child) => gateway(child, parsed))
    await server.listen({ host: '127.0.0.1', port: 0 })
    const { port } = server.server.address() as { port: number }
    t.strictSame(await seen(port, 1), [around ? 'yes' : undefined])
  }
})

t.test('on a route with a hook, WebSockets are tunnelled, and a refused handshake passes the hook', async (t) => {
  const upstream = await startWebSocketService({ onPeer: echo })
  t.teardown(() => upstream.close())
  const services = { any: { instances: [upstream.url] }, none: { instances: [await responding(t)] } }
  const routes = ['any', 'none'].map((name) => ({ name, match: { path: `/${name}` }, service: name }))
  const { server, port, log, close } = await startGateway({ services, routes }, { before: marking, log: true })
  t.teardown(close)
  t.equal(server.responsePath('any'), 'reply')
  const socket = new WebSocket(`ws://127.0.0.1:${port}/any`)
  await once(socket, 'open')
  socket.send('hello')
  t.equal(((await once(socket, 'message')) as [MessageEvent])[0].data, 'hello')
  socket.close(4001)
  t.match(await once(socket, 'close'), [{ code: 4001, wasClean: true }])
  await eventually(() => log.some(({ msg, status }) => msg === 'request' && status === 101))

  const shake = [
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: YWFhYWFhYWFhYWFhYWFhYQ=='
  ]
  const refused = parse(await raw(port, `GET /none HTTP/1.1\r\nHost: h\r\n${shake.join('\r\n')}\r\n\r\n`))
  t.match(refused, { status: 200, body: 'hello', headers: { 'x-seen': 'yes' } })
})

t.test('requests are counted by the status that a hook has given them', async (t) => {
  const all = { ...config(await responding(t), {}), admin: { port: 0 } }
  const { server, port, close } = await startGateway(all, {
    before: (fastify) => fastify.addHook('onSend', async (_request, reply) => void reply.code(203))
  })
  t.teardown(close)
  t.match(await get(port, '/r0'), { status: 203, body: 'hello' })
  const counted = /^jingwei_edge_requests_total\{route="r0",method="GET",status="203",direction="north-south"\} 1$/m
  await eventually(() => server.mesh.status()[0]!.active === 0)
  t.match(await server.metrics.metrics(), counted)
})

for (const path of ['raw', 'reply'] as const) {
  t.test(`${path}: injected requests are served as any other`, async (t) => {
    const service = await startEcho()
    t.teardown(service.close)
    const server = build(configOf({ ...config(service.url, {}), edge: { responsePath: path } }), { logger: false })
    t.teardown(() => server.close())
    if (path === 'reply') marking(server)
    for (const [payload, body] of [
      [{ a: 1 }, '{"a":1}'],
      ['text', 'text'],
      [Buffer.alloc(300_000, 'a'), 'a'.repeat(300_000)]
    ] as const) {
      const response = await server.inject({ method: 'POST', url: '/r0/x?y=1', payload, headers: { 'x-a': 'b' } })
      t.equal(response.statusCode, 200)
      t.match(response.json(), { method: 'POST', url: '/r0/x?y=1', headers: { 'x-a': 'b' }, body })
      t.equal(response.headers['x-seen'], path === 'reply' ? 'yes' : undefined)
    }
    t.match(await server.inject('/r0'), { statusCode: 200, headers: { 'content-type': 'application/json' } })
    t.match(await server.inject({ method: 'HEAD', url: '/r0' }), { statusCode: 200, body: '' })
    t.match(await server.inject({ method: 'DELETE', url: '/none' }), { statusCode: 404 })
  })
}

t.test('an injected request with a body that is refused unread causes no later error', async (t) => {
  const settings = { ...config('http://127.0.0.1:9', { bodyLimit: '4b' }), listen: { timeouts: { bodyIdle: '50ms' } } }
  const server = build(configOf(settings), { logger: false })
  t.teardown(() => server.close())
  const sockets: IncomingMessage['socket'][] = []
  server.addHook('onRequest', async ({ raw }) => void sockets.push(raw.socket))
  t.match(await server.inject({ method: 'POST', url: '/r0', payload: 'too large' }), { statusCode: 413 })
  t.equal(sockets[0]!.listenerCount('close'), 0)
  // An error in a timer ends the process.
  await sleep(150)
})
