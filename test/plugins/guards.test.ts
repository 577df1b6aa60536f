// slow: takes about 26 s
/** Plugins that misbehave in a running gateway: in every hook and callback, in every way, over every version of HTTP. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import http from 'node:http'
import type { ClientHttp2Session } from 'node:http2'
import http2 from 'node:http2'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { accept } from '../helpers/edge/websocket.ts'
import { folder } from '../helpers/plugins.ts'
import type { Running } from '../helpers/processes.ts'
import { freePort, freePorts, runToEnd, start, waitFor } from '../helpers/processes.ts'
import { selfSigned } from '../helpers/self-signed.ts'

const app = join(import.meta.dirname, '../../app.ts')
const env = { ...process.env, NODE_OPTIONS: '' }

const blockingHooks = ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'preSerialization', 'onSend']
const observingHooks = ['onError', 'onResponse', 'onTimeout', 'onRequestAbort']
const callbackWays = [
  'throw', 'error', 'error later', 'never', 'throw in a timer', 'throw in an immediate', 'throw in a socket', 'twice',
  'throw after'
] // biome-ignore format: a list
const asyncWays = ['throw', 'never', 'throw in a timer', 'throw in an immediate', 'throw in a socket', 'floating']
/** Ways after which the request continues. */
const harmless = new Set(['twice', 'throw after', 'floating'])
const callbacks = [
  'dispatch',
  'onRequestStart',
  'onRequestUpgrade',
  'onResponseStart',
  'onResponseData',
  'onResponseEnd',
  'onResponseError'
]
const interceptorWays = ['throw', 'reject', 'throw in a timer', 'throw in an immediate', 'throw in a socket']

const bad = `
import net from 'node:net'
const fault = () => new Error('a fault of the plugin')
const raise = () => { throw fault() }
const ways = {
  throw: raise,
  reject: () => Promise.reject(fault()),
  error: (done) => done(fault()),
  'error later': (done) => void setTimeout(() => done(fault()), 5),
  never: () => {},
  'throw in a timer': () => void setTimeout(raise, 5),
  'throw in an immediate': () => void setImmediate(raise),
  'throw in a socket': (_done, port) => {
    const socket = net.connect(port, '127.0.0.1', () => { socket.destroy(); raise() })
  },
  twice: (done) => { done(); done() },
  'throw after': (done) => { done(); raise() },
}
export default async function bad (fastify, { port }) {
  for (const hook of ${JSON.stringify([...blockingHooks, ...observingHooks])}) {
    fastify.addHook(hook, (...args) => {
      const [name, style, way] = (args[0].headers['x-bad'] ?? '').split(':')
      const done = args.at(-1)
      if (name === hook && style === 'callback') ways[way](done, port)
      else done()
    })
    const later = async (...args) => {
      const [name, style, way] = (args[0].headers['x-bad'] ?? '').split(':')
      if (name !== hook || style !== 'async') return
      if (way === 'floating') void Promise.reject(fault())
      else {
        ways[way](null, port)
        await new Promise(() => {})
      }
    }
    fastify.addHook(hook, hook === 'onRequestAbort' ? async (request) => later(request) : later)
  }
  fastify.addHook('onRequest', async ({ headers, raw }, reply) => {
    if (headers['x-bad']?.startsWith('onTimeout')) raw.socket.setTimeout(50)
    if (headers['x-bad']?.startsWith('onRequestAbort')) reply.raw.writeProcessing()
  })
  fastify.get('/own', async () => ({ own: true }))
  fastify.get('/own/throw', async () => raise())
  fastify.get('/own/later', async () => {
    setTimeout(raise, 5)
    await new Promise(() => {})
  })
  fastify.get('/own/twice', (request, reply) => {
    reply.send('once')
    reply.send('twice')
  })
  let crash = null
  fastify.get('/own/crash/:way', async ({ params }) => { crash = params.way; return {} })
  setInterval(() => {
    const way = crash
    crash = null
    if (way === 'throw') throw new Error('in the background')
    if (way === 'reject') void Promise.reject(new Error('in the background'))
  }, 20).unref()

  for (const per of ['request', 'attempt']) {
    fastify.mesh.use((dispatch) => (opts, handler) => {
      const at = opts.headers.indexOf('x-bad')
      const [name, style, way] = at < 0 ? [] : opts.headers[at + 1].split(':')
      if (style !== per) return dispatch(opts, handler)
      if (name === 'dispatch') return ways[way](null, port)
      const proxy = {}
      for (const method of ${JSON.stringify(callbacks.slice(1))}) {
        proxy[method] = (...args) => method === name ? ways[way](null, port) : handler[method](...args)
      }
      return dispatch(opts, proxy)
    }, { per })
  }
}`

interface Received {
  status: number
  body: string
}
/** With `leaves`, the client disconnects within its body, once the gateway has the request. */
type Ask = (path: string, bad?: string, leaves?: boolean) => Promise<Received>

/** The result of a request that failed without a response: the connection or the stream was reset. */
const noResponse = (): Received => ({ status: 0, body: '' })
const waitMs = 20_000

/** A connection for each request: some hooks set its timeout. */
function overHttp1(url: string, ca?: string): Ask {
  return (path, bad, leaves) =>
    new Promise<Received>((resolve) => {
      const options = {
        headers: bad === undefined ? {} : { 'x-bad': bad },
        // After the end of its body, Fastify does not see a client leave.
        method: leaves ? 'POST' : 'GET',
        agent: false as const,
        signal: AbortSignal.timeout(waitMs)
      }
      const onResponse = (response: IncomingMessage) => {
        const received = { status: response.statusCode!, body: '' }
        response.setEncoding('utf8').on('data', (chunk: string) => {
          received.body += chunk
        })
        response.on('end', () => resolve(received))
        response.on('error', () => resolve({ ...received, body: 'reset' }))
      }
      const request =
        ca === undefined
          ? http.request(url + path, options, onResponse)
          : https.request(url + path, { ...options, ca }, onResponse)
      request.on('error', () => resolve(noResponse()))
      request.on('information', () => request.destroy())
      if (leaves) request.write('half')
      else request.end()
    })
}

function overSession(session: ClientHttp2Session): Ask {
  return (path, bad) =>
    new Promise<Received>((resolve) => {
      const stream = session.request({ ':path': path, ...(bad !== undefined && { 'x-bad': bad }) })
      const received = noResponse()
      const timer = setTimeout(() => stream.close(http2.constants.NGHTTP2_CANCEL), waitMs)
      stream.setEncoding('utf8')
      stream.on('response', (headers) => {
        received.status = headers[':status']!
      })
      stream.on('data', (chunk: string) => {
        received.body += chunk
      })
      stream.on('error', () => {
        received.body = 'reset'
      })
      stream.on('close', () => {
        clearTimeout(timer)
        if (stream.rstCode !== 0) received.body = 'reset'
        resolve(received)
      })
    })
}

/** A WebSocket handshake: 101 where it was accepted; then it is closed. */
function overWebSocket(url: string): Ask {
  return (path, bad) =>
    new Promise<Received>((resolve) => {
      const handshake = {
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ=='
      }
      const headers = { ...handshake, ...(bad !== undefined && { 'x-bad': bad }) }
      const request = http.get(url + path, { headers, signal: AbortSignal.timeout(waitMs) })
      request.on('response', (response) => {
        response.resume()
        resolve({ status: response.statusCode!, body: '' })
      })
      request.on('upgrade', (_response, socket) => {
        socket.destroy()
        resolve({ status: 101, body: 'whole' })
      })
      request.on('error', () => resolve(noResponse()))
    })
}

interface Gateway {
  readonly running: Running
  readonly admin: string
  readonly url: string
  lines(): Line[]
}
type Line = Record<string, unknown> & { err?: { message: string } }

/** A gateway in a process of its own, before a service that responds, is silent, or is not there, as the path says. */
async function gateway(t: Test, listen: object = {}): Promise<Gateway> {
  const service = http.createServer((request, response) => {
    if (request.url === '/slow') setTimeout(() => response.end('whole'), 500)
    else if (request.url !== '/silent') response.end('whole')
  })
  service.on('upgrade', (request, socket) => {
    socket.on('error', () => {})
    const headerSection = `HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n`
    socket.write(`${headerSection}sec-websocket-accept: ${accept(request)}\r\n\r\n`)
  })
  service.listen(0, '127.0.0.1')
  await once(service, 'listening')
  t.teardown(() => {
    service.close()
    service.closeAllConnections()
  })
  const { port } = service.address() as AddressInfo
  const [edge, admin, closedPort] = (await freePorts(3)) as [number, number, number]
  const config = {
    listen: { host: '127.0.0.1', port: edge, drain: { delay: '0s', timeout: '10s' }, ...listen },
    admin: { port: admin },
    mesh: { retry: false, timeout: '2s', attemptTimeout: '1s' },
    services: {
      orders: { instances: [`http://127.0.0.1:${port}`] },
      dead: { instances: [`http://127.0.0.1:${closedPort}`] }
    },
    routes: [
      { name: 'orders', match: { path: '/' }, service: 'orders', edge: { websocket: {} } },
      { name: 'dead', match: { path: '/dead' }, service: 'dead' }
    ],
    plugins: [{ path: './bad.mjs', hookTimeout: '500ms', options: { port } }]
  }
  const root = await folder(t, { 'bad.mjs': bad, 'gateway.yaml': JSON.stringify(config) })
  const log = join(root, 'log')
  const running = await start({
    command: 'sh',
    args: ['-c', 'exec "$@" >"$0"', log, process.execPath, app, '-c', join(root, 'gateway.yaml')],
    env,
    name: 'the gateway',
    ready: /admin +http/
  })
  t.teardown(() => running.stop())
  const lines = () =>
    readFileSync(log, 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Line)
  const scheme = 'tls' in listen ? 'https' : 'http'
  return { running, admin: `http://127.0.0.1:${admin}`, url: `${scheme}://127.0.0.1:${edge}`, lines }
}

/** Asserts that the process serves, has no call or attempt in flight, and shuts down with code 0. */
async function assertHealthy(t: Test, { running, admin }: Gateway, asks: readonly Ask[]): Promise<void> {
  for (const ask of asks) t.match(await ask('/'), { body: 'whole' })
  await waitFor('no call is left', async () => {
    const services = (await (await fetch(`${admin}/admin/services`)).json()) as {
      active: number
      instances: { active: number }[]
    }[]
    return services.every(({ active, instances }) => active === 0 && instances.every((each) => each.active === 0))
  })
  running.kill('SIGTERM')
  t.strictSame(await running.exited, { code: 0, signal: null })
}

const pathOf = (hook: string) =>
  hook === 'onSend' || hook === 'preSerialization'
    ? '/own'
    : hook === 'onError'
      ? '/dead'
      : hook === 'onTimeout' || hook === 'onRequestAbort'
        ? '/silent'
        : '/'
/** Status of a request that the fault in its hook does not fail. Clients that leave or time out get no response. */
const expectedStatus = (hook: string, well: number) =>
  ({ '/': well, '/own': 200, '/dead': 502, '/silent': 0 })[pathOf(hook)]

/** All hooks in all ways, at once: they must not disturb each other either. */
async function hooks(t: Test, { lines }: Gateway, name: string, ask: Ask, well: number, isHttp1: boolean) {
  const cases = [...blockingHooks, ...observingHooks].flatMap((hook) => [
    ...callbackWays.map((way) => [hook, 'callback', way] as const),
    ...asyncWays.map((way) => [hook, 'async', way] as const)
  ])
  const isUpgrade = well === 101
  const reached = cases.filter(([hook]) => {
    return (isHttp1 && !isUpgrade) || !['onTimeout', 'onRequestAbort'].includes(hook)
  })
  const before = lines().length
  await Promise.all(
    reached.map(async ([hook, style, way]) => {
      const path = pathOf(hook)
      const { status } = await ask(path, `${hook}:${style}:${way}`, hook === 'onRequestAbort')
      const goesOn = observingHooks.includes(hook) || harmless.has(way)
      const expected = isUpgrade && path === '/own' ? status : goesOn ? expectedStatus(hook, well) : 500
      t.equal(status, expected, `${name}: ${hook}, ${style}: ${way}`)
    })
  )
  // A handshake is a route of the gateway's.
  const logged = reached.filter(([hook]) => !isUpgrade || pathOf(hook) !== '/own')
  const missing = () => {
    const hooks = lines()
      .slice(before)
      .map(({ plugin, hook, err }) => (plugin === 'bad' && err !== undefined ? hook : null))
    return new Set(logged.map(([hook]) => hook)).difference(new Set(hooks))
  }
  await waitFor(`a log line for each hook over ${name}`, () => missing().size === 0).catch(() =>
    t.strictSame([...missing()], [])
  )
}

async function interceptors(t: Test, name: string, ask: Ask) {
  const isUpgrade = name === 'WebSocket'
  for (const per of ['request', 'attempt']) {
    await Promise.all(
      callbacks.flatMap((callback) =>
        interceptorWays.map(async (way) => {
          if (callback === 'onRequestUpgrade' ? !isUpgrade : isUpgrade && /^onResponse[SDE]/.test(callback)) return
          const path = callback === 'onResponseError' ? '/silent' : '/'
          const { status, body } = await ask(path, `${callback}:${per}:${way}`)
          const what = `${name}: ${callback}, per ${per}: ${way}: ${status}`
          // The header section, or all of the body, has been sent.
          const isReset = callback === 'onResponseData' && body !== 'whole'
          const isWhole = callback === 'onResponseEnd' || (callback === 'onRequestStart' && way !== 'throw')
          t.ok(status === 500 || isReset || isWhole, what)
        })
      )
    )
  }
}

t.test('faults of plugins over HTTP/1.1 and WebSocket', { timeout: 240_000 }, async (t) => {
  const running = await gateway(t)
  const asks = { 'HTTP/1.1': overHttp1(running.url), WebSocket: overWebSocket(running.url) }
  for (const [name, ask] of Object.entries(asks)) {
    await hooks(t, running, name, ask, name === 'WebSocket' ? 101 : 200, true)
    await interceptors(t, name, ask)
  }
  const own = asks['HTTP/1.1']
  t.match(await own('/own/throw'), { status: 500, body: /"code":"JW_PLUGIN_FAILED"/ })
  t.match(await own('/own/later'), { status: 500, body: /"code":"JW_PLUGIN_FAILED"/ })
  t.strictSame(await own('/own/twice'), { status: 200, body: 'once' })
  t.ok(running.lines().some(({ plugin, hook }) => plugin === 'bad' && hook === 'handler'))
  await assertHealthy(t, running, Object.values(asks))
})

t.test('faults of plugins over TLS and HTTP/2', { timeout: 240_000 }, async (t) => {
  const { cert, key } = selfSigned(t)
  const ca = readFileSync(cert, 'utf8')
  const running = await gateway(t, { tls: { cert, key }, http2: true })
  const sessions: ClientHttp2Session[] = []
  t.teardown(() => {
    for (const session of sessions) session.destroy()
  })
  // A session each for few requests: the gateway closes those with many errors, or many streams that were reset.
  const overHttp2: Ask = (...args) => {
    const session = http2.connect(running.url, { ca })
    sessions.push(session)
    return overSession(session)(...args).finally(() => session.close())
  }
  const asks = { TLS: overHttp1(running.url, ca), 'HTTP/2': overHttp2 }
  for (const [name, ask] of Object.entries(asks)) {
    await hooks(t, running, name, ask, 200, name === 'TLS')
    await interceptors(t, name, ask)
  }
  await assertHealthy(t, running, Object.values(asks))
})

for (const way of ['throw', 'reject']) {
  t.test(`a ${way} outside of any request is logged, and the process drains and exits with 1`, async (t) => {
    const { running, url, lines } = await gateway(t)
    const ask = overHttp1(url)
    const slow = ask('/slow')
    await ask(`/own/crash/${way}`)
    t.strictSame(await slow, { status: 200, body: 'whole' }, 'a request in flight is served')
    t.strictSame(await running.exited, { code: 1, signal: null })
    const origin = way === 'throw' ? 'uncaughtException' : 'unhandledRejection'
    t.match(lines().find(({ level }) => level === 'fatal'), {
      plugin: 'bad', origin, err: { message: 'in the background', stack: /bad\.mjs/ }
    }) // biome-ignore format: one line
  })
}

const failing: Record<string, string> = {
  'throws in a plugin that it registers': `fastify.register((nested, options, done) => { throw new Error('no luck') })`,
  'throws in a plugin two levels down': `fastify.register(async (nested) => {
    nested.register((further, options, done) => { throw new Error('no luck') })
  })`,
  'rejects in a module that it registers': `fastify.register(Promise.resolve({ default: async () => { throw new Error('no luck') } }))`,
  'fails onReady': `fastify.addHook('onReady', (done) => done(new Error('no luck')))`,
  'throws onReady': `fastify.addHook('onReady', async () => { throw new Error('no luck') })`,
  'throws in onRoute': `fastify.addHook('onRoute', () => { throw new Error('no luck') })`
}

for (const [what, code] of Object.entries(failing)) {
  t.test(`a plugin that ${what} stops the start with its position`, async (t) => {
    const root = await folder(t, {
      'bad.mjs': `export default async function bad (fastify) { ${code} }`,
      'gateway.yaml': `listen: { host: 127.0.0.1, port: ${await freePort()} }
admin: false
services: { orders: { instances: ["http://127.0.0.1:9"] } }
routes: [{ name: orders, match: { path: / }, service: orders }]
plugins: [{ path: bad.mjs }]
`
    })
    const silent = { ...env, JINGWEI_LOG_LEVEL: 'silent' }
    const ended = await runToEnd(process.execPath, [app, '-c', join(root, 'gateway.yaml')], { env: silent })
    t.equal(ended.code, 1)
    t.match(
      ended.stderr,
      /^\S+gateway\.yaml:5:11: plugins\[0\]: \S+bad\.mjs failed to start: no luck \(bad\.mjs:\d:\d+\)\n1 fault in .*\n$/
    )
    t.equal(ended.stdout, '')
  })
}
