/**
 * A request body that is decompressed while it is read. The source is read only when this body is, so that a client gets
 * `100 Continue` only when a service can take its body. Destroying it, as undici does, does not close the client's connection.
 */

import { Readable } from 'node:stream'
import createError from '@fastify/error'
import type { MemoryBudget } from '../../memory-budget.ts'
import type { Coding, Decoder } from './decoders.ts'
import { hasLongWindow, longWindow, open } from './decoders.ts'

export const TooLarge = createError(
  'JW_BODY_TOO_LARGE',
  'The body is larger than %d bytes when it is decompressed',
  413
)
const Malformed = createError('JW_BAD_ENCODING', 'The body is not encoded as its Content-Encoding says', 400)
export const Busy = createError('JW_DECOMPRESSION_BUSY', 'Too many request bodies are being decompressed', 503)

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const decompressionReasons = ['decompressed_size', 'decompressed_ratio'] as const
export type Reason = (typeof decompressionReasons)[number]

/** Bytes below which the ratio does not matter. */
const harmless = 1024 * 1024

export interface Limits {
  readonly maxSize: number
  readonly maxRatio: number
  /** Called when the body exceeds a limit; returns false if the limits are only counted. */
  exceeded(reason: Reason): boolean
}

/** The part of the memory that one body has. */
export class Share {
  readonly #memory: MemoryBudget
  readonly #client: string
  #taken = 0

  constructor(memory: MemoryBudget, client: string) {
    this.#memory = memory
    this.#client = client
  }

  /** Returns false if the memory is in use. */
  take(bytes: number): boolean {
    if (!this.#memory.take(bytes, this.#client)) return false
    this.#taken += bytes
    return true
  }

  giveBack(): void {
    this.#memory.give(this.#taken, this.#client)
    this.#taken = 0
  }
}

export class DecompressedBody extends Readable {
  readonly #source: Readable
  readonly #codings: readonly Coding[]
  readonly #limits: Limits
  readonly #memory: Share
  #stages: Decoder[] = []
  #isStarted = false
  #read = 0
  readonly #sizes: number[]
  #isOver = false

  constructor(source: Readable, codings: readonly Coding[], limits: Limits, memory: Share) {
    super()
    this.#source = source
    this.#codings = codings
    this.#limits = limits
    this.#memory = memory
    this.#sizes = codings.map(() => 0)
    // Without a listener an error would end the process. A request that is refused for another reason has none.
    this.on('error', () => {})
  }

  override _read(): void {
    if (!this.#isStarted) this.#start()
    this.#stages.at(-1)?.resume()
  }

  #start(): void {
    this.#isStarted = true
    const source = this.#source
    try {
      this.#stages = this.#codings.map((coding) => open[coding]())
    } catch (error) {
      this.destroy(new Busy({ cause: error }))
      return
    }
    const first = this.#stages[0]!
    this.#stages.forEach((stage, index) => {
      const next = this.#stages[index + 1]
      stage.on('error', (cause) => this.destroy(new Malformed({ cause })))
      stage.on('drain', () => (index === 0 ? source : this.#stages[index - 1]!).resume())
      stage.on('data', (chunk: Buffer) => {
        if (!this.#count(index, chunk)) return
        if (this.#sizes[index] === chunk.length && !this.#takeWindow(index + 1, chunk)) return
        if (!(next === undefined ? this.push(chunk) : next.write(chunk))) stage.pause()
      })
      stage.once('end', () => {
        const given = index === 0 ? this.#read : this.#sizes[index - 1]!
        // The stage has ended before its input.
        if (stage.bytesWritten < given) this.destroy(new Malformed())
        else if (next === undefined) this.push(null)
        else next.end()
      })
    })
    source.once('error', (error) => this.destroy(error))
    source.on('data', (chunk: Buffer) => {
      // The rest is read and dropped, because the next request on the connection follows it.
      if (this.destroyed) return
      if (this.#read === 0 && !this.#takeWindow(0, chunk)) return
      this.#read += chunk.length
      if (!first.write(chunk)) source.pause()
    })
    source.once('end', () => {
      if (this.destroyed) return
      if (this.#read > 0) first.end()
      else this.push(null)
    })
    source.resume()
  }

  /** Takes the memory for a long window of brotli, by the first bytes that a stage gets; returns false if it is in use. */
  #takeWindow(index: number, chunk: Buffer): boolean {
    if (this.#codings[index] !== 'br' || !hasLongWindow(chunk[0]!) || this.#memory.take(longWindow)) return true
    this.destroy(new Busy())
    return false
  }

  /** Counts the output of a stage; returns false if the body is too large. */
  #count(index: number, chunk: Buffer): boolean {
    if (this.destroyed) return false
    const size = this.#sizes[index]! + chunk.length
    this.#sizes[index] = size
    const { maxSize, maxRatio } = this.#limits
    const reason =
      size > maxSize
        ? 'decompressed_size'
        : size > harmless && size > maxRatio * this.#read
          ? 'decompressed_ratio'
          : null
    if (reason === null || this.#isOver) return true
    this.#isOver = true
    if (!this.#limits.exceeded(reason)) return true
    this.destroy(new TooLarge(reason === 'decompressed_size' ? maxSize : Math.max(harmless, maxRatio * this.#read)))
    return false
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    for (const stage of this.#stages) stage.on('error', () => {}).destroy()
    this.#memory.giveBack()
    if (this.#isStarted) this.#source.resume()
    done(error)
  }
}
