// slow: takes about 4 s
// A server of a program's own with the gateway in it, run by `serve`.
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { FastifyInstance } from 'fastify'
import Fastify from 'fastify'
import fp from 'fastify-plugin'
import type { Test } from 'tap'
import t from 'tap'
import type { Config } from '../../app.ts'
import { gateway, serve, serverOptions } from '../../app.ts'
import { configOf, startEcho } from '../helpers/gateway.ts'
import { selfSigned } from '../helpers/self-signed.ts'

/** Wrapped, since `fp` marks the function itself, for all tests of this file. */
const whole = fp((fastify: FastifyInstance, config: Config) => gateway(fastify, config))

async function configured(t: Test, more: object = {}) {
  const echo = await startEcho()
  t.teardown(echo.close)
  return configOf({
    listen: { host: '127.0.0.1', port: 0, drain: { delay: 0, timeout: '10s' } },
    admin: { host: '127.0.0.1', port: 0 },
    edge: { rateLimit: { max: 2, window: '1m' } },
    services: { any: { instances: [echo.url] } },
    routes: [{ name: 'api', match: { path: '/api' }, service: 'any', edge: { rateLimit: false } }],
    ...more
  })
}

async function served(t: Test, more: object = {}) {
  const config = await configured(t, more)
  const server = Fastify({ ...serverOptions(config), logger: false }) as FastifyInstance
  await server.register(whole, config)
  server.get('/own', { config: { guarded: true } }, async () => ({ mine: true }))
  server.get('/slow', async () => {
    await sleep(200)
    return 'late'
  })
  const serving = await serve(server, config)
  t.teardown(() => serving.close())
  return {
    server,
    serving,
    url: `http://127.0.0.1:${serving.address.port}`,
    admin: `http://127.0.0.1:${serving.admin?.port}`
  }
}

t.test('it listens for clients and on the admin port; the edge guards own routes', async (t) => {
  const { url, admin } = await served(t)
  t.equal((await fetch(`${url}/api/x`)).status, 200)
  const own = [await fetch(`${url}/own`), await fetch(`${url}/own`), await fetch(`${url}/own`)]
  t.same(
    own.map(({ status }) => status),
    [200, 200, 429]
  )
  t.ok(own[0]!.headers.get('x-request-id'))
  t.match(await (await fetch(`${admin}/metrics`)).text(), /jingwei_edge_requests_total\{.*route="\/own".*\} /)
  t.equal((await fetch(`${admin}/health/ready`)).status, 200)
})

t.test('close drains: readiness fails first, and requests in flight end', async (t) => {
  const drain = { delay: '3s', timeout: '10s' }
  const { url, admin, serving } = await served(t, { listen: { host: '127.0.0.1', port: 0, drain } })
  const slow = fetch(`${url}/slow`)
  const closing = serving.close()
  const ready = await fetch(`${admin}/health/ready`)
  t.equal(ready.status, 503)
  t.match(await ready.json(), { status: 'draining' })
  t.equal(await (await slow).text(), 'late')
  await closing
  await t.rejects(fetch(url))
  await t.rejects(fetch(`${admin}/health/live`))
})

t.test('close aborts requests that exceed the drain timeout', async (t) => {
  const { serving, url } = await served(t, {
    listen: { host: '127.0.0.1', port: 0, drain: { delay: 0, timeout: '200ms' } }
  })
  const socket = connect(serving.address.port, '127.0.0.1')
  socket.on('error', () => {})
  socket.write('POST /api HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nx')
  await sleep(50)
  const closed = new Promise((resolve) => socket.once('close', resolve))
  await serving.close()
  await closed
  await t.rejects(fetch(url))
})

t.test('TLS and limits are those of the configuration', async (t) => {
  const { cert, key } = selfSigned(t)
  const { serving } = await served(t, {
    listen: {
      host: '127.0.0.1',
      port: 0,
      tls: { cert, key },
      limits: { headers: '1kb' },
      drain: { delay: 0, timeout: '1s' }
    }
  })
  const get = (headers: Record<string, string>) =>
    new Promise<number | undefined>((resolve, reject) => {
      const options = {
        host: '127.0.0.1',
        port: serving.address.port,
        path: '/own',
        rejectUnauthorized: false,
        headers,
        agent: false
      }
      https.get(options, (response) => resolve(response.resume().statusCode)).on('error', reject)
    })
  t.equal(await get({}), 200)
  t.equal(await get({ 'x-large': 'x'.repeat(2000) }), 431)
})

t.test('misuse is refused with the way out, and leaves nothing open', async (t) => {
  const config = await configured(t)
  const bare = Fastify()
  await bare.register(gateway, config)
  await t.rejects(serve(bare, config), {
    name: 'TypeError',
    message: /register it with fastify-plugin, as in `server\.register\(fp\(gateway\), config\)`/
  })
  await bare.close()

  const two = await configured(t, {
    listen: [
      { name: 'a', host: '127.0.0.1', port: 0 },
      { name: 'b', host: '127.0.0.1', port: 1 }
    ]
  })
  const server = Fastify()
  await server.register(whole, two)
  await t.rejects(serve(server, two), {
    message: /a server has one listener, and the configuration has 2; use `start`/
  })
  await server.close()

  const socket = await configured(t, { listen: { path: '/tmp/never-made.sock' } })
  const onSocket = Fastify()
  await onSocket.register(whole, socket)
  await t.rejects(serve(onSocket, socket), { message: /found a Unix socket \(listen\.path\)/ })
  await onSocket.close()

  const inMesh = await configured(t, {
    listen: { host: '127.0.0.1', port: 0, connect: { service: 'a' } },
    discovery: { consul: { url: 'http://127.0.0.1:1' } }
  })
  const open = Fastify()
  await t.rejects(async () => open.register(whole, inMesh), {
    message: /listener default: connect works only in a process of the gateway: use `start`/
  })
  await open.close().catch(() => {})

  const taken = http.createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.teardown(() => taken.close())
  const { port } = taken.address() as AddressInfo
  const inUse = await configured(t, { listen: { host: '127.0.0.1', port } })
  const late = Fastify()
  await late.register(whole, inUse)
  await t.rejects(serve(late, inUse), {
    name: 'ConfigError',
    message: /cannot listen on 127\.0\.0\.1:\d+: the address is in use/
  })
  t.equal(late.admin?.server.listening, false, 'the admin port is closed again')
})

t.test('a route that asks for concerns and cannot have them stops the start', async (t) => {
  const config = await configured(t)
  const own = async () => 'open'
  const guarded = { config: { guarded: true } }
  type Add = (server: FastifyInstance) => unknown
  const cases: [what: string, add: Add, fault: RegExp][] = [
    [
      'before the gateway',
      async (server) => {
        server.get('/own', guarded, own)
        await server.register(whole, config)
      },
      /GET \/own: config\.guarded has no effect .* call `await server\.register\(fp\(gateway\), config\)` first/
    ],
    [
      'without await',
      (server) => {
        server.register(whole, config)
        server.post('/own', { config: { edge: { bodyLimit: '1kb' } } }, own)
      },
      /POST \/own: config\.edge has no effect/
    ],
    [
      'in a plugin before the gateway',
      async (server) => {
        await server.register(async (child) => child.get('/own', guarded, own), { prefix: '/child' })
        await server.register(whole, config)
      },
      /GET \/child\/own: config\.guarded/
    ],
    [
      'without fp',
      async (server) => {
        await server.register((fastify: FastifyInstance) => gateway(fastify, config))
        server.get('/own', guarded, own)
      },
      /GET \/own: config\.guarded/
    ]
  ]
  for (const [what, add, fault] of cases) {
    const server = Fastify() as FastifyInstance
    t.teardown(() => server.close())
    await add(server)
    await t.rejects(server.listen({ host: '127.0.0.1', port: 0 }), { message: fault }, what)
  }

  const child = Fastify() as FastifyInstance
  t.teardown(() => child.close())
  child.get('/plain', own)
  await child.register(async (inner) => {
    await inner.register(whole, config)
    inner.get('/own', guarded, own)
  })
  await child.ready()
  t.equal(
    (await child.inject('/own')).headers['ratelimit-limit'],
    '2',
    'a gateway in a context of its own guards routes there'
  )
  t.equal((await child.inject('/plain')).body, 'open')
})

t.test('such a route of a server that was created before the gateway was imported refuses its requests', async (t) => {
  const program = `
    const { default: Fastify } = await import('fastify')
    const server = Fastify()
    server.get('/own', { config: { guarded: true } }, async () => 'open')
    server.get('/plain', async () => 'open')
    const { gateway, parseConfig } = await import('./app.ts')
    const { default: fp } = await import('fastify-plugin')
    const text = '{ admin: false, services: { a: { instances: ["http://127.0.0.1:1"] } }, routes: [{ name: a, match: { path: /a }, service: a }] }'
    await server.register(fp(gateway), parseConfig(text, 'gateway.yaml'))
    server.get('/later', { config: { guarded: true } }, async () => 'guarded')
    for (const path of ['/own', '/plain', '/later']) console.log((await server.inject(path)).statusCode)
    await server.close()`
  const cwd = `${import.meta.dirname}/../..`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], { cwd })
  t.same(stdout.trim().split('\n'), ['500', '200', '200'])
})
