import { Readable } from 'node:stream'
import createError from '@fastify/error'
import type { FastifyRequest, preParsingHookHandler } from 'fastify'
import { Either, orOff, SizeOrZero, strict } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import { sizeText } from '../../../config/units.ts'
import type { TransferringBody } from '../../seam.ts'
import { edgeConcern } from '../concern.ts'
import type { RecordRefusal } from '../concern-refusals.ts'
import { hasUnknownLength, readersOf } from '../protocol/request-body.ts'

const tooLarge = 'JW_BODY_TOO_LARGE'
const TooLarge = createError(tooLarge, 'The body is larger than %d bytes', 413)

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    /** Bytes. */
    bodyLimit?: number | { readonly max: number } | false
  }
}

const largest = SizeOrZero('Largest request body.')

/** Refuses bodies above the route's limit: by their Content-Length at once, chunked ones when they exceed it. */
export default edgeConcern({
  name: 'bodyLimit',
  apiFacts: () => ({ responses: { 413: 'The request body is too large.' }, ofBodies: true }),
  options: orOff(
    Either({ type: 'object' }, Type.Object({ max: largest }, strict), largest, {
      description: 'Largest request body, or a mapping with `max` and `mode`.'
    })
  ),
  default: '10mb',
  forConsumers: { phases: ['preParsing'] },
  aliases: Object.fromEntries(
    [
      'body', 'bodyLimit', 'upload', 'maxBodySize', 'maxBodyBytes', 'maxRequestBodyBytes', 'maxRequestBytes', 'clientMaxBodySize',
      'allowedPayloadSize', 'requestSizeLimiting', 'requestSize', 'buffering', 'clientControl'
    ].map((name) => [name, 'write edge.bodyLimit'])
  ), // biome-ignore format: a list
  explain(options, { method, headers }) {
    const limit = maxOf(options)
    const length = headers['content-length']
    if (length !== undefined && Number(length) > limit) return `refuses: the body is larger than ${sizeText(limit)}`
    return length === undefined && (method === 'GET' || method === 'HEAD')
      ? null
      : `allows a body of at most ${sizeText(limit)}`
  },
  plugin: async () => (options, route, shadow, refused, level) => {
    const limit = maxOf(options)
    // For Fastify's parsers, whose limit is 1 MB by default. Bodies of most proxied routes are not parsed.
    if (level === 'route' && shadow !== null) route.bodyLimit ??= Number.MAX_SAFE_INTEGER
    else if (level === 'route' && limit > 0) route.bodyLimit ??= limit
    return { preParsing: limiter(limit, shadow ?? refused, shadow !== null) }
  }
})

const maxOf = (options: number | { readonly max: number }): number =>
  typeof options === 'number' ? options : options.max

function limiter(limit: number, refused: RecordRefusal, isShadow: boolean): preParsingHookHandler {
  return (request, _reply, payload, done) => {
    if (Number(request.headers['content-length'] ?? 0) > limit) done(new TooLarge(limit))
    else if (hasUnknownLength(request.raw))
      done(null, new CountedBody(request, payload as Readable, limit, refused, isShadow))
    else done(null, payload)
  }
}

/**
 * A body of unknown length, counted as it is read. It reads the source only while it is read itself. Destroying it, as
 * undici does, does not close the client's connection.
 */
class CountedBody extends Readable implements TransferringBody {
  /** False once another reader has seen a chunk, which it may keep. */
  transfers: boolean
  readonly #request: FastifyRequest
  readonly #source: Readable
  readonly #limit: number
  /** Counts a refusal: it comes after the hook has ended. */
  readonly #refused: RecordRefusal
  readonly #isShadow: boolean
  #isStarted = false
  #size = 0

  constructor(request: FastifyRequest, source: Readable, limit: number, refused: RecordRefusal, isShadow: boolean) {
    super()
    this.#request = request
    // Chunks of another stream than the request may be in use elsewhere, so they must not be freed.
    this.transfers = source === request.raw && !source.readableDidRead
    this.#source = source
    this.#limit = limit
    this.#refused = refused
    this.#isShadow = isShadow
    // Without a listener an error would end the process. A request that is refused for another reason has none.
    this.on('error', () => {})
  }

  override _read(): void {
    if (this.#isStarted) {
      this.#source.resume()
      return
    }
    this.#isStarted = true
    this.#source.prependListener('data', (chunk: Buffer) => this.#count(chunk))
    this.#source.once('end', () => this.push(null)).resume()
  }

  #count(chunk: Buffer): void {
    // The rest is read and dropped, because the next request on the connection follows it.
    if (this.destroyed) return
    // Chunks that were read before the exchange began may be referenced elsewhere, so they must not be freed.
    if (!this.#request.exchange || readersOf(this) > 1 || readersOf(this.#source) > 1) this.transfers = false
    const wasWithin = this.#size <= this.#limit
    this.#size += chunk.length
    const isOver = this.#size > this.#limit
    if (isOver && wasWithin) this.#refused(this.#request, tooLarge)
    if (isOver && !this.#isShadow) this.destroy(new TooLarge(this.#limit))
    else if (!this.push(chunk)) this.#source.pause()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (this.#isStarted) this.#source.resume()
    done(error)
  }
}
