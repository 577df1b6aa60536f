import { Readable } from 'node:stream'
import createError from '@fastify/error'
import type { FastifyRequest, preParsingHookHandler } from 'fastify'
import { orOff, SizeOrZero } from '../../../config/schema/kit.ts'
import type { TransferringBody } from '../../seam.ts'
import { edgeConcern } from '../concern.ts'
import type { RecordRefusal } from '../concern-refusals.ts'
import { hasUnknownLength, readersOf } from '../protocol/request-body.ts'

const TooLarge = createError('JW_BODY_TOO_LARGE', 'The body is larger than %d bytes', 413)

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    /** Bytes. */
    bodyLimit?: number | false
  }
}

/** Refuses bodies above the route's limit: by their Content-Length at once, chunked ones when they exceed it. */
export default edgeConcern({
  name: 'bodyLimit',
  options: orOff(SizeOrZero('Largest request body.')),
  default: '10mb',
  forConsumers: { phases: ['preParsing'] },
  aliases: Object.fromEntries(
    [
      'body', 'bodyLimit', 'upload', 'maxBodySize', 'maxBodyBytes', 'maxRequestBodyBytes', 'maxRequestBytes', 'clientMaxBodySize',
      'allowedPayloadSize', 'requestSizeLimiting', 'buffering'
    ].map((name) => [name, 'write edge.bodyLimit'])
  ), // biome-ignore format: a list
  plugin: async () => (limit, route, _shadow, refused, level) => {
    // For Fastify's parsers, whose limit is 1 MB by default. Bodies of most proxied routes are not parsed.
    if (limit > 0 && level === 'route') route.bodyLimit ??= limit
    return { preParsing: limiter(limit, refused) }
  }
})

function limiter(limit: number, refused: RecordRefusal): preParsingHookHandler {
  return (request, _reply, payload, done) => {
    if (Number(request.headers['content-length'] ?? 0) > limit) done(new TooLarge(limit))
    else if (hasUnknownLength(request.raw)) done(null, new CountedBody(request, payload as Readable, limit, refused))
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
  #isStarted = false
  #size = 0

  constructor(request: FastifyRequest, source: Readable, limit: number, refused: RecordRefusal) {
    super()
    this.#request = request
    // Chunks of another stream than the request may be in use elsewhere, so they must not be freed.
    this.transfers = source === request.raw && !source.readableDidRead
    this.#source = source
    this.#limit = limit
    this.#refused = refused
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
    this.#size += chunk.length
    if (this.#size > this.#limit) {
      const error = new TooLarge(this.#limit)
      this.#refused(this.#request, error.code)
      this.destroy(error)
    } else if (!this.push(chunk)) this.#source.pause()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (this.#isStarted) this.#source.resume()
    done(error)
  }
}
