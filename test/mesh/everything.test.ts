// slow: takes about 9 s
/**
 * All concerns together, with arbitrary services, callers and discovery, and a shutdown in the middle.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import type { Config } from '../../config/schema.ts'
import { parseConfig } from '../../plugins/config.ts'
import type { DispatchController, DispatchOptions, Endpoint } from '../../plugins/mesh/core/types.ts'
import type { Mesh } from '../../plugins/mesh/mesh.ts'
import { eventually } from '../helpers/eventually.ts'
import { Watched, watchTimers } from '../helpers/mesh/chaos.ts'
import { byHand } from '../helpers/mesh/discovery.ts'
import { seeded } from '../helpers/mesh/instances.ts'
import { meterStub } from '../helpers/mesh/mesh.ts'
import { connecting, refused, resetting, silent, upstream } from '../helpers/mesh/servers.ts'
import { startMesh } from '../helpers/mesh/start-mesh.ts'

const conditions = ['no-instance', 'circuit-open', 'overloaded', 'connect-failure', 'reset', 'timeout', '5xx']
const instances = ['http://127.0.0.1:1'] // the test publishes the serving ones

const protections = {
  timeout: '900ms',
  attemptTimeout: '200ms',
  connectTimeout: '150ms',
  healthCheck: { path: '/health', interval: '20ms', timeout: '50ms', unhealthyThreshold: 2 },
  outlierDetection: { consecutive5xx: 3, interval: '40ms', baseEjection: '40ms', maxEjectionPercent: '50%' },
  circuitBreaker: {
    maxConnections: 12,
    maxPendingRequests: 8,
    maxRequests: 18,
    maxRetries: 6,
    perInstance: { maxConnections: 3, maxPendingRequests: 2 },
    errorRatio: '90%',
    minRequests: 10,
    window: '300ms',
    openFor: '30ms',
    rampFor: '30ms'
  },
  adaptiveConcurrency: { initialLimit: 15, minLimit: 8, maxLimit: 25, window: '50ms' },
  limit: { rate: 400, burst: 20, queue: 10, queueTimeout: '50ms' },
  fault: {
    delay: { for: '40ms', percent: '10%' },
    abort: { status: 503, percent: '5%' },
    bandwidth: { limit: '200kb', percent: '10%' },
    header: true,
    maxActive: 10
  }
}

const mesh = {
  ...protections,
  retry: { attempts: 2, on: ['gateway-error', 429], budget: '100%', backoff: { base: '5ms', max: '10ms' } },
  hedge: { after: '15ms', attempts: 2, methods: ['GET', 'PUT'] },
  collapse: { maxBody: '50kb' },
  mirror: { service: 'shadow', percent: '20%', maxBody: '10kb', maxActive: 5 },
  fallback: [
    { on: conditions, stale: { maxAge: '1s', maxEntries: 10 } },
    { on: conditions, service: 'other' },
    { on: conditions, status: 200, body: 'fixed' }
  ]
}

const written = {
  services: {
    orders: { instances, mesh: { ...mesh, balance: { policy: 'ring-hash', hashOn: 'cookie:user', cookieTtl: '1m', maxLoad: '150%' } } },
    canary: { instances, mesh: { ...mesh, balance: { policy: 'maglev', hashOn: 'ip', tableSize: 101, slowStart: '100ms' } } },
    other: { instances, mesh: { ...protections, balance: 'peak-ewma' } },
    shadow: { instances, mesh: { timeout: '300ms' } }
  },
  routes: [
    { name: 'plain', match: { path: '/' }, service: 'orders' },
    {
      name: 'split',
      match: { path: '/split' },
      split: [
        { service: 'orders', weight: 70 },
        { service: 'canary', weight: 30, match: { headers: { 'x-beta': '1' } } }
      ],
      stickOn: 'cookie:share'
    },
    {
      name: 'bare',
      match: { path: '/bare' },
      service: 'orders',
      mesh: { retry: false, hedge: false, collapse: false, mirror: false, fallback: false }
    }
  ]
} // biome-ignore format: a configuration
const config: Config = parseConfig(JSON.stringify(written), `${import.meta.dirname}/gateway.yaml`, {})

/** Responds properly, late, partially, with a failure, or not at all; echoes the request body. */
function misbehaving(random: () => number) {
  return (request: IncomingMessage, response: ServerResponse) => {
    const chunks: Buffer[] = []
    request.on('error', () => {}).on('data', (chunk: Buffer) => chunks.push(chunk))
    if (request.url === '/health') response.writeHead(random() < 0.9 ? 200 : 500).end()
    else if (random() < 0.05) response.writeHead(413).end('early')
    else request.on('end', () => respond(response, Buffer.concat(chunks).toString()))
  }

  function respond(response: ServerResponse, echo: string): void {
    const draw = random()
    const text = echo || 'x'.repeat([0, 10, 20_000, 200_000][Math.floor(random() * 4)]!)
    const well = () => {
      if (response.socket === null || response.socket.destroyed) return
      if (random() < 0.5) response.setHeader('content-length', text.length)
      response.write(text.slice(0, text.length / 2))
      response.end(text.slice(text.length / 2))
    }
    if (draw < 0.6) well()
    else if (draw < 0.75) setTimeout(well, 30)
    else if (draw < 0.8) response.writeHead(503).end('x'.repeat(random() < 0.5 ? 10 : 200_000))
    else if (draw < 0.83) response.writeHead(429, { 'retry-after': '0' }).end()
    else if (draw < 0.88) response.socket?.resetAndDestroy()
    else if (draw < 0.93) {
      response.writeHead(200, { 'content-length': 100 }).write('part')
      setTimeout(() => response.socket?.resetAndDestroy(), 5)
    } else if (draw < 0.95) {
      response.writeEarlyHints({ link: '</a.css>; rel=preload' })
      setTimeout(well, 5)
    }
    // Else never.
  }
}

/** A caller of an upgrade, which uses it briefly or not at all. */
class Upgrading extends Watched {
  override onRequestUpgrade(_controller?: unknown, _status?: unknown, _headers?: unknown, socket?: Duplex): void {
    super.onRequestUpgrade()
    socket?.on('error', () => {})
    setTimeout(() => socket?.destroy(), 20)
  }
}

/** A body that arrives in pieces, slowly, or fails. */
function bodyOf(text: string, random: () => number): { body: Readable; breaks: boolean } {
  const breaks = random() < 0.15
  const slow = random() < 0.3
  async function* pieces() {
    yield Buffer.from(text.slice(0, 7))
    if (slow) await sleep(10)
    if (breaks) throw Object.assign(new Error('the upload broke off'), { code: 'ECONNRESET' })
    yield Buffer.from(text.slice(7))
  }
  return { body: Readable.from(pieces(), { objectMode: false }), breaks }
}

async function servers(t: Test, random: () => number) {
  const urls: string[] = []
  for (const name of 'abcd') {
    const { url, server } = await upstream(t, name, misbehaving(random))
    server.on('upgrade', (_request, socket) => {
      socket
        .on('error', () => {})
        .on('end', () => socket.destroy())
        .resume()
      if (random() < 0.8)
        socket.write('HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n')
      else if (random() < 0.5) socket.destroy()
    })
    urls.push(url)
  }
  const dead = [await resetting(t), await silent(t), await connecting(t)].map(({ url }) => url)
  return { urls, dead: [...dead, await refused()] }
}

type Ending = 'idle' | 'shutdown' | 'destroy'

/** Calls for a while; in some runs the mesh is shut down or destroyed halfway. */
async function storm(t: Test, seed: number, ending: Ending): Promise<void> {
  const random = seeded(seed)
  const { urls, dead } = await servers(t, random)
  const sound = await upstream(t, 'other', (request, response) => {
    request.resume().on('end', () => response.writeHead(random() < 0.2 ? 503 : 200).end('other'))
  })
  const { discovery, publish } = byHand()
  const { meter, counts } = meterStub()
  const surprises: unknown[] = []
  const surprised = (error: unknown) => void surprises.push(error)
  process.on('unhandledRejection', surprised).on('uncaughtException', surprised)
  const timers = watchTimers('plugins/mesh/')
  const before = sockets()
  const gateway = startMesh(config, { discovery, meter, random })
  let attempts = 0
  gateway.use(
    (dispatch) => (opts, handler) => {
      attempts++
      return dispatch(opts, handler)
    },
    { per: 'attempt' }
  )
  const endpoints = new Set<Endpoint>()
  function change(): void {
    for (const name of ['orders', 'canary'])
      publish(
        name,
        [...urls, ...dead].filter(() => random() < 0.7)
      )
    publish('other', [sound.url])
    publish('shadow', [urls[0]!, dead[1]!])
    for (const name of Object.keys(config.services)) {
      for (const { endpoint } of gateway.service(name).snapshot!.instances) endpoints.add(endpoint)
    }
  }
  change()

  const recorders: Watched[] = []
  const sources: Readable[] = []
  const mixedUp: string[] = []
  function call(i: number): void {
    const draw = random()
    const upgrades = draw < 0.05
    const puts = !upgrades && draw < 0.35
    const recorder = upgrades ? new Upgrading() : new Watched()
    const sent = puts ? `body ${i} `.repeat(1 + Math.floor(random() * 3000)) : ''
    const { body, breaks } = puts ? bodyOf(sent, random) : { body: null, breaks: false }
    if (body !== null) sources.push(body.on('error', () => {}))
    const { mesh } = config.routes[Math.floor(random() * 3)]!
    const headers = ['host', 'example.com', 'cookie', `user=${i % 20}; share=${i % 7}`]
    if (random() < 0.3) headers.push('x-beta', '1')
    if (random() < 0.05) headers.push('x-jingwei-fault-delay', '20', 'x-jingwei-fault-bandwidth', '500000')
    const opts = {
      origin: 'http://orders.mesh',
      path: `/${Math.floor(random() * 5)}`,
      method: puts ? (random() < 0.7 ? 'PUT' : 'POST') : random() < 0.1 ? 'HEAD' : 'GET',
      headers,
      body,
      caller: { ip: `10.0.0.${i % 9}`, consumer: null, trusted: random() < 0.5 },
      mesh,
      ...(upgrades && { upgrade: 'websocket', method: 'GET' })
    } as DispatchOptions
    gateway.dispatch(opts, recorder)
    recorders.push(recorder)
    void recorder.done.then(() => {
      const { status, error, body: got } = recorder
      if (sent === '' || status !== 200 || error !== null) return
      if (breaks ? got === sent : ![sent, 'fixed', 'other'].includes(got)) mixedUp.push(`${i}: ${got.slice(0, 40)}`)
    })
    misuse(recorder)
  }
  function misuse(recorder: Watched): void {
    const { controller } = recorder as { controller: DispatchController }
    const act = random()
    if (act < 0.03) controller.abort(new Error('left at once'))
    else if (act < 0.15) setTimeout(() => controller.abort(new Error('left')), random() * 80)
    else if (act < 0.3) {
      controller.pause()
      setTimeout(() => controller.resume(), random() * 80)
    } else if (act < 0.35) {
      setTimeout(() => controller.pause(), random() * 20)
      setTimeout(() => controller.resume(), 20 + random() * 80)
    }
  }

  let ended: Promise<void> | null = null
  const calls = 900
  for (let i = 0; i < calls; i++) {
    call(i)
    if (i % 60 === 59) change()
    if (i % 4 === 3) await sleep(5)
    if (i === calls / 2 && ending !== 'idle') ended = ending === 'destroy' ? gateway.destroy() : gateway.shutdown(200)
    if (i === calls / 2 + 20 && ending === 'shutdown') ended = Promise.all([ended, gateway.destroy()]).then(() => {})
  }
  await Promise.all(recorders.map(({ done }) => done))
  t.strictSame(recorders.flatMap(({ wrong }) => wrong), [], 'each got one end, in order') // biome-ignore format: short
  t.strictSame(mixedUp, [], 'each caller gets its own response')
  t.ok(recorders.filter(({ status }) => status === 200).length > 50, 'more than 50 calls are served')

  await ended
  await eventually(() => active(gateway) === 0, `all calls to end: ${active(gateway)}`)
  if (ending === 'idle') await eventually(() => busy(gateway) === '', 'the concerns to be idle').catch(() => {})
  const held = () => [...endpoints].filter(({ active }) => active !== 0).map(({ origin }) => origin)
  await eventually(() => held().length === 0, 'all attempts to end').catch(() => {})
  await gateway.close()
  t.equal(busy(gateway), '', 'no concern counts anything as being under way')
  t.strictSame(held(), [], 'no attempt is counted as being under way')
  // A body that no request has begun to read belongs to its caller.
  const open = () => sources.filter(({ destroyed, readableDidRead }) => readableDidRead && !destroyed).length
  await eventually(() => open() === 0, 'the bodies').catch(() => {})
  t.equal(open(), 0, 'no body remains unread')
  const outcomes = Object.entries(counts).filter(([name]) => name.startsWith('jingwei_mesh_attempts_total'))
  t.equal(outcomes.reduce((sum, [, count]) => sum + count, 0), attempts, 'each attempt under one outcome') // biome-ignore format: short
  await eventually(() => timers.live().length === 0, 'timers').catch(() => {})
  t.strictSame(timers.live(), [], 'no timer remains')
  await eventually(() => sockets() <= before, 'sockets').catch(() => {})
  t.ok(sockets() <= before, `no socket remains: ${sockets()}, ${before} before`)
  t.strictSame(surprises, [], 'no error is thrown outside of a call')
  timers.end()
  process.off('unhandledRejection', surprised).off('uncaughtException', surprised)
}

const active = (gateway: Mesh) => gateway.status().reduce((sum, { active }) => sum + active, 0)

/** Returns the calls and attempts that the concerns count as in flight. */
function busy(gateway: Mesh): string {
  const counted = gateway.status().flatMap(({ name, concerns, instances }) => {
    const all = Object.entries(concerns).flatMap(([concern, status]) =>
      ['active', 'pending', 'inFlight', 'bytes'].flatMap((key) => {
        const value = (status as Record<string, unknown>)[key]
        return typeof value === 'number' && value !== 0 && concern !== 'stale'
          ? [`${name} ${concern} ${key} ${value}`]
          : []
      })
    )
    return [...all, ...instances.flatMap(({ id, active }) => (active === 0 ? [] : [`${name} ${id} ${active}`]))]
  })
  return counted.join(', ')
}

/** Sockets in use: an idle one that a pool keeps does not keep the process alive. */
const sockets = () => process.getActiveResourcesInfo().filter((type) => /^(TCP|TLS)/.test(type)).length

for (const [seed, ending] of [
  [1, 'idle'],
  [2, 'shutdown'],
  [3, 'destroy'],
  [11, 'destroy'],
  [12, 'idle']
] as const) {
  t.test(`all concerns under random faults, seed ${seed}, ${ending}`, (t) => storm(t, seed, ending)) // biome-ignore format: above
}
