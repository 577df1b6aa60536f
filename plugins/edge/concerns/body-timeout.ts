import type { IncomingMessage } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import { constants } from 'node:http2'
import { Duplex } from 'node:stream'
import createError from '@fastify/error'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Key } from '../../../config/concern.ts'
import { gatewayAndRoute } from '../../../config/concern.ts'
import { Duration, orOff, SizeOrZero } from '../../../config/schema/kit.ts'
import type { Config, EdgePolicy } from '../../../config/schema.ts'
import { edgeRouteOf } from '../attach.ts'
import { globalConcern, meterOf } from '../concern.ts'
import type { RecordRefusal } from '../concern-refusals.ts'
import { refusalRecorder } from '../concern-refusals.ts'
import { Allowance } from '../protocol/allowance.ts'
import { byListener } from '../protocol/peers.ts'
import { hasBody } from '../protocol/request-body.ts'
import { SmallChunks } from '../protocol/small-chunks.ts'
import { Sweep } from '../protocol/sweep.ts'

const Silent = createError('JW_BODY_TIMEOUT', 'The client paused for too long within the request body', 408)
const TooSlow = createError('JW_BODY_TOO_SLOW', 'The client sends its body too slowly', 408)

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    /** Milliseconds. */
    bodyTimeout?: number | false
    /** Bytes per second. */
    bodyRate?: number | false
  }
}

const keys: readonly Key[] = [
  {
    name: 'bodyTimeout',
    options: orOff(
      Duration('Longest time that a client may take to send a request body. Default: `listen.timeouts.body`.')
    ),
    levels: [...gatewayAndRoute, 'consumer']
  },
  {
    name: 'bodyRate',
    options: orOff(
      SizeOrZero(
        'Lowest rate, in bytes per second, at which a client may send a request body. Default: `listen.limits.bodyRate`.'
      )
    ),
    levels: [...gatewayAndRoute, 'consumer']
  }
]

/** Shortest allowance, in milliseconds: rates are per second, so less time cannot measure one. */
const shortestGraceMs = 1000

/**
 * Ends requests whose client pauses too long within the body, sends it too slowly or for too long, or keeps sending long
 * after the response. Otherwise slow bodies would hold connections to services.
 */
const plugin = fp<Config>(
  async (fastify, config) => {
    const optionsOf = byListener(config, ({ timeouts, limits }) => ({ ...timeouts, bodyRate: limits.bodyRate }))
    const shortest = config.listeners.map(({ timeouts: { bodyIdle, body } }) => Math.min(bodyIdle, body || bodyIdle))
    const bodies = new Sweep<ArrivingBody>(Math.min(...shortest), (arriving, elapsedMs) => {
      if (arriving.isOver) bodies.delete(arriving)
      else arriving.check(elapsedMs)
    })
    const recorders = new Map<string, RecordRefusal>()
    fastify.addHook('onRoute', ({ config }) => {
      const name = edgeRouteOf(config)?.name
      if (name === undefined || recorders.has(name)) return
      recorders.set(name, refusalRecorder(meterOf(fastify), 'body-timeout', name))
    })
    const record: RecordRefusal = (request, code) =>
      recorders.get(edgeRouteOf(request.routeOptions.config)?.name ?? '')?.(request, code)
    fastify.addHook('onRequest', (request, reply, done) => {
      const { raw } = request
      if (!hasBody(raw)) return done()
      const { bodyIdle, body, bodyRate } = optionsOf(raw)
      const edge = edgeRouteOf(request.routeOptions.config)?.edge
      const limits = { idleMs: bodyIdle, totalMs: edge?.bodyTimeout ?? body, rate: edge?.bodyRate ?? bodyRate }
      // Deleted when the body ends, not at the next check: until then the whole request would stay in memory.
      const arriving: ArrivingBody = new ArrivingBody(request, reply, limits, record, () => bodies.delete(arriving))
      bodies.add(arriving)
      if (raw.httpVersionMajor === 1) reply.raw.once('finish', () => limitRest(raw, bodyIdle))
      done()
    })
  },
  { name: 'jingwei-body-timeout', fastify: '5.x' }
)

export default globalConcern('body-timeout', plugin, {
  keys,
  explain(_route, { consumer }) {
    const own = keys.flatMap(({ name }) => {
      const value: unknown = consumer && Reflect.get(consumer.edge, name)
      return value === undefined || value === null ? [] : [`${name} ${value}`]
    })
    return own.length === 0 ? null : `${own.join(', ')} (by consumers[].edge of ${consumer!.id})`
  },
  noShadow: 'a body that never ends would hold a connection to the service for ever'
})

interface Limits {
  readonly idleMs: number
  readonly totalMs: number | false
  readonly rate: number | false
}

/** A request body that is being received. Its time runs only while the gateway waits for the client. */
class ArrivingBody {
  readonly #request: FastifyRequest
  readonly #reply: FastifyReply
  readonly #limits: Limits
  readonly #record: RecordRefusal
  readonly #allowance: Allowance
  /** Counts received bytes. A `data` listener would make the stream flow. */
  readonly #chunks: SmallChunks
  #pausedMs = 0
  #totalMs = 0
  #wasHeldBack = true

  constructor(request: FastifyRequest, reply: FastifyReply, limits: Limits, record: RecordRefusal, onEnd: () => void) {
    this.#request = request
    this.#reply = reply
    this.#limits = limits
    this.#record = record
    this.#allowance = new Allowance(Math.max(limits.idleMs, shortestGraceMs), limits.rate)
    this.#chunks = new SmallChunks(request.raw, onEnd)
  }

  get isOver(): boolean {
    const { raw } = this.#request
    if (raw.complete || raw.destroyed) return true
    // Over HTTP/1.1, `limitRest` limits the rest of the body.
    return raw.httpVersionMajor === 1 && this.#reply.raw.writableFinished
  }

  /** True if the gateway is not waiting for the client: the service reads slowly, or the body is not read yet. */
  get #isHeldBack(): boolean {
    const { raw } = this.#request
    return raw.readableFlowing !== true || raw.readableLength > 0
  }

  /** Options of the consumer, which may become known after the first chunks have arrived. */
  get #own(): Partial<Pick<EdgePolicy, 'bodyTimeout' | 'bodyRate'>> {
    return this.#request.consumer?.edge ?? {}
  }

  check(elapsedMs: number): void {
    const heldBack = this.#isHeldBack
    const { bytes } = this.#chunks
    this.#chunks.bytes = 0
    const waitedMs = heldBack || this.#wasHeldBack ? 0 : elapsedMs
    this.#wasHeldBack = heldBack
    this.#pausedMs = bytes > 0 || heldBack ? 0 : this.#pausedMs + waitedMs
    this.#totalMs += waitedMs
    this.#allowance.rate = this.#own.bodyRate ?? this.#limits.rate
    const leftMs = this.#allowance.spend(waitedMs, bytes)
    const { idleMs } = this.#limits
    const { bodyTimeout: totalMs = this.#limits.totalMs } = this.#own
    if (totalMs !== false && this.#totalMs >= totalMs) this.#refuse(new TooSlow())
    // Timers run before reads: wait for setImmediate, since bytes may already be in the kernel.
    else if (leftMs <= 0)
      setImmediate(() => this.#allowance.spend(0, this.#chunks.bytes) > 0 || this.#refuse(new TooSlow()))
    else if (this.#pausedMs >= idleMs) setImmediate(() => this.#chunks.bytes > 0 || this.#refuse(new Silent()))
  }

  #refuse(error: FastifyError): void {
    if (this.isOver) return
    this.#record(this.#request, error.code)
    const { exchange, raw } = this.#request
    if (this.#reply.sent) {
      // The status has been sent.
      this.#request.failure ??= error.code
      if ('stream' in raw) (raw.stream as ServerHttp2Stream).close(constants.NGHTTP2_CANCEL)
      else raw.destroy()
    } else if (exchange) exchange.fail(error)
    else this.#reply.send(error)
  }
}

/** Limits the time for the rest of a body whose request already has its response. The rest is read and dropped. */
function limitRest(raw: IncomingMessage, timeoutMs: number): void {
  if (raw.readableEnded || raw.destroyed) return
  // `unknown` because Node's type omits that an injected request has no connection.
  const socket: unknown = raw.socket
  if (!(socket instanceof Duplex)) return
  const timer = setTimeout(() => socket.destroy(), timeoutMs)
  const ended = () => {
    clearTimeout(timer)
    socket.off('close', ended)
  }
  // After the response, the request emits no event when its connection closes.
  socket.once('close', ended)
  raw.once('end', ended)
}
