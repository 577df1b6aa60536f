// Mixed load on a gateway: short requests at a steady rate, and streams, uploads and WebSockets that last over several
// reloads. Every response is compared byte for byte; each difference is recorded as a failure.
import { once } from 'node:events'
import type { ClientHttp2Session } from 'node:http2'
import { connect as connectHttp2 } from 'node:http2'
import type { Socket } from 'node:net'
import { connect } from 'node:net'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { Pool } from 'undici'
import { handshake, opcodes, Peer } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { lasting } from './gateway.ts'
import { bodyOf, eventsOf, sha256 } from './service.ts'

export type Kind = 'get' | 'post' | 'events' | 'upload' | 'websocket' | 'get h2' | 'events h2' | 'upload h2'

export interface Failure {
  kind: Kind
  /** Since the start, in milliseconds. */
  at: number
  what: string
}

export interface LoadOptions {
  /** Short requests per second; fewer if the machine is too slow. */
  rate: number
  /** Paths of the routes to the service of `startCounting`. */
  paths: string[]
}

const tickMs = 10
/** Limit of short requests in flight. At the limit, requests that are due are skipped. */
const mostPending = 200
const limitMs = 30_000
const insecure = { rejectUnauthorized: false }
const webSockets = 6
/** Events of a stream, which takes about three seconds. */
const events = 100
const eventMs = 30
const uploadChunks = 40
const uploadMs = 60

export class Load {
  readonly done: Partial<Record<Kind, number>> = {}
  readonly failures: Failure[] = []
  /** Number of HTTP/1.1 connections, without WebSockets, that were closed before the load ended. */
  closes = 0
  readonly #paths: string[]
  readonly #pool: Pool
  readonly #sessions: ClientHttp2Session[] = []
  readonly #sockets: Socket[] = []
  readonly #began = performance.now()
  readonly #timer: NodeJS.Timeout
  readonly #lasting: Promise<void>[] = []
  #pending = 0
  #started = 0
  #going = true

  private constructor(url: string, { rate, paths }: LoadOptions, sessions: ClientHttp2Session[]) {
    this.#paths = paths
    this.#pool = new Pool(url, {
      connections: 32,
      connect: insecure,
      allowH2: false,
      headersTimeout: limitMs,
      bodyTimeout: limitMs,
      ...lasting
    })
    this.#pool.on('disconnect', () => {
      if (this.#going) this.closes++
    })
    this.#sessions = sessions
    for (const session of sessions) {
      session.on('goaway', () => this.#fail('get h2', 'the session received GOAWAY'))
      session.on('error', () => {}) // its streams fail, too
      session.on('close', () => {
        if (this.#going) this.#fail('get h2', 'the session was closed')
      })
    }
    let due = 0
    let last = performance.now()
    this.#timer = setInterval(() => {
      const now = performance.now()
      due = Math.min(mostPending, due + ((now - last) / 1000) * rate)
      last = now
      for (; due >= 1; due--) if (this.#pending < mostPending) void this.#short()
    }, tickMs)
  }

  /** Starts the load. Resolves once all WebSockets and sessions are open. */
  static async start(url: string, options: LoadOptions): Promise<Load> {
    const isTls = url.startsWith('https:')
    const sessions = isTls ? [connectHttp2(url, insecure), connectHttp2(url, insecure)] : []
    await Promise.all(sessions.map((session) => once(session, 'connect')))
    const load = new Load(url, options, sessions)
    const peers = await Promise.all(Array.from({ length: webSockets }, (_, n) => load.#open(url, n)))
    load.#lasting.push(...peers.map((peer) => load.#frames(peer)))
    // Start several of each kind, at different times, so that each is in progress during every reload.
    for (let n = 0; n < 3; n++) {
      load.#repeat(n, 'events', (path) => load.#events(path))
      load.#repeat(n, 'upload', (path) => load.#upload(path))
      if (isTls) load.#repeat(n, 'events h2', (path) => load.#eventsOverHttp2(path))
      if (isTls) load.#repeat(n, 'upload h2', (path) => load.#uploadOverHttp2(path))
    }
    return load
  }

  /** Starts no more requests, and resolves when those in progress are complete. */
  async stop(): Promise<void> {
    this.#going = false
    clearInterval(this.#timer)
    await Promise.all(this.#lasting)
    while (this.#pending > 0) await sleep(5)
    await this.destroy()
  }

  async destroy(): Promise<void> {
    this.#going = false
    clearInterval(this.#timer)
    for (const session of this.#sessions) session.destroy()
    for (const socket of this.#sockets) socket.destroy()
    await this.#pool.destroy()
  }

  /** Returns the failures by kind, with the messages of the first ones. */
  summary(): Record<string, string[]> {
    const kinds = Map.groupBy(this.failures, ({ kind }) => kind)
    return Object.fromEntries(
      [...kinds].map(([kind, some]) => [
        `${some.length} × ${kind}`,
        some.slice(0, 5).map(({ at, what }) => `${at} ms: ${what}`)
      ])
    )
  }

  #fail(kind: Kind, what: string): void {
    if (this.failures.length < 10_000)
      this.failures.push({ kind, at: Math.round(performance.now() - this.#began), what })
  }

  /** Runs an exchange and counts it; an error that `run` throws is a failure. */
  async #count(kind: Kind, run: () => Promise<void>): Promise<void> {
    try {
      await run()
      this.done[kind] = (this.done[kind] ?? 0) + 1
    } catch (error) {
      this.#fail(kind, error instanceof AggregateError ? String(error.errors) : String(error))
    }
  }

  async #short(): Promise<void> {
    const n = this.#started++
    const path = `${this.#paths[n % this.#paths.length]}?n=${n}`
    this.#pending++
    if (n % 20 === 19) await this.#count('post', () => this.#post(path, n))
    else if (n % 3 === 2 && this.#sessions.length > 0) await this.#count('get h2', () => this.#getOverHttp2(path, n))
    else await this.#count('get', () => this.#get(path, n))
    this.#pending--
  }

  async #get(path: string, n: number): Promise<void> {
    const { statusCode, body } = await this.#pool.request({ path, method: 'GET' })
    expect(statusCode, Buffer.from(await body.arrayBuffer()), bodyOf(n))
  }

  async #post(path: string, n: number): Promise<void> {
    const sent = bodyOf(n + 1)
    const { statusCode, body } = await this.#pool.request({ path, method: 'POST', body: sent })
    expect(statusCode, Buffer.from(await body.arrayBuffer()), sha256(sent))
  }

  async #events(path: string): Promise<void> {
    const { statusCode, body } = await this.#pool.request({
      path: `${path}?events=${events}&every=${eventMs}`,
      method: 'GET'
    })
    expect(statusCode, Buffer.from(await body.arrayBuffer()), eventsOf(events))
  }

  async #upload(path: string): Promise<void> {
    const upload = new Upload()
    const { statusCode, body } = await this.#pool.request({ path, method: 'POST', body: upload.stream })
    expect(statusCode, Buffer.from(await body.arrayBuffer()), upload.digest())
  }

  /** Returns an HTTP/2 stream and its response. */
  #http2(path: string, method: string) {
    const session = this.#sessions[this.#started % this.#sessions.length]!
    const stream = session.request({ ':path': path, ':method': method }, { endStream: method === 'GET' })
    stream.setTimeout(limitMs, () => stream.destroy(new Error('timed out')))
    const { promise: status, resolve, reject } = Promise.withResolvers<number>()
    stream.once('response', (headers) => resolve(headers[':status'] ?? 0)).once('error', reject)
    // A stream may close without an error if its session closes.
    stream.once('close', () => reject(new Error('closed without a response')))
    const response = Promise.all([status, buffer(stream)])
    return { stream, response }
  }

  async #getOverHttp2(path: string, n: number): Promise<void> {
    const [status, body] = await this.#http2(path, 'GET').response
    expect(status, body, bodyOf(n))
  }

  async #eventsOverHttp2(path: string): Promise<void> {
    const [status, body] = await this.#http2(`${path}?events=${events}&every=${eventMs}`, 'GET').response
    expect(status, body, eventsOf(events))
  }

  async #uploadOverHttp2(path: string): Promise<void> {
    const upload = new Upload()
    const { stream, response } = this.#http2(path, 'POST')
    upload.stream.pipe(stream)
    const [status, body] = await response
    expect(status, body, upload.digest())
  }

  /** Repeats an exchange until the load ends, each time to the next route. */
  #repeat(first: number, kind: Kind, run: (path: string) => Promise<void>): void {
    const loop = async () => {
      await sleep(first * 700)
      for (let n = first; this.#going; n++) {
        await this.#count(kind, () => run(this.#paths[n % this.#paths.length]!))
        await sleep(20)
      }
    }
    this.#lasting.push(loop())
  }

  async #open(url: string, n: number): Promise<Peer> {
    const { hostname, port, protocol } = new URL(url)
    const at = { host: hostname, port: Number(port) }
    const socket = protocol === 'https:' ? connectTls({ ...at, ...insecure, ALPNProtocols: ['http/1.1'] }) : connect(at)
    this.#sockets.push(socket)
    socket.write(handshake(this.#paths[n % this.#paths.length]))
    let seen = Buffer.alloc(0)
    const collect = (chunk: Buffer) => {
      seen = Buffer.concat([seen, chunk])
    }
    socket.on('error', () => {}).on('data', collect)
    await eventually(() => seen.includes('\r\n\r\n') || socket.destroyed, 'the handshake', limitMs)
    socket.off('data', collect)
    if (!seen.toString('latin1').startsWith('HTTP/1.1 101 ')) throw new Error(seen.toString('latin1'))
    return new Peer(socket, true, seen.subarray(seen.indexOf('\r\n\r\n') + 4))
  }

  /** Sends numbered frames until the load ends, each after the echo of the previous one. */
  async #frames(peer: Peer): Promise<void> {
    for (let n = 0; this.#going; n++) {
      const sent = `frame ${n} ${'x'.repeat((n % 7) * 100)}`
      peer.send(opcodes.text, sent)
      const end = performance.now() + limitMs
      while (peer.frames.length === 0 && !peer.over && performance.now() < end) await sleep(5)
      const frame = peer.frames.shift()
      if (frame === undefined) {
        this.#fail('websocket', `${peer.over ? 'closed' : 'silent'} after ${n} frames`)
        return
      }
      if (frame.payload.toString() !== sent) this.#fail('websocket', `frame ${n} came back as ${frame.payload}`)
      this.done.websocket = (this.done.websocket ?? 0) + 1
      await sleep(20)
    }
    peer.close(1000)
    const end = performance.now() + limitMs
    while (!peer.over && performance.now() < end) await sleep(5)
    if (peer.frames.at(-1)?.opcode !== opcodes.close) this.#fail('websocket', 'no close frame in response')
  }
}

/** A request body that is sent slowly. */
class Upload {
  readonly stream: Readable
  #sent: Buffer[] = []

  constructor() {
    this.stream = Readable.from(this.#chunks())
  }

  async *#chunks() {
    for (let n = 0; n < uploadChunks; n++) {
      const chunk = Buffer.alloc(1000 + n * 100, `chunk ${n} `)
      this.#sent.push(chunk)
      yield chunk
      await sleep(uploadMs)
    }
  }

  /** Hash of the sent body. */
  digest(): string {
    return sha256(Buffer.concat(this.#sent))
  }
}

function expect(status: number, body: Buffer, wanted: Buffer | string): void {
  if (status !== 200) throw new Error(`${status} ${body.subarray(0, 300)}`)
  if (!body.equals(Buffer.from(wanted))) {
    throw new Error(`${body.length} bytes, not as expected: ${body.subarray(0, 100)}`)
  }
}
