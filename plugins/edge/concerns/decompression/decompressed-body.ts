/**
 * A request body that is decompressed while it is read. The source is read only when this body is, so that a client gets
 * `100 Continue` only when a service can take its body. Destroying it, as undici does, does not close the client's connection.
 */

import type { Transform } from 'node:stream'
import { Readable } from 'node:stream'
import createError from '@fastify/error'
import type { MemoryBudget } from '../../memory-budget.ts'
import type { Coding } from './decoders.ts'
import { hasLongWindow, longWindow, open } from './decoders.ts'

export const TooLarge = createError(
  'JW_BODY_TOO_LARGE',
  'The body is larger than %d bytes when it is decompressed',
  413
)
const Malformed = createError('JW_BAD_ENCODING', 'The body is not encoded as its Content-Encoding says', 400)
export const Busy = createError('JW_DECOMPRESSION_BUSY', 'Too many request bodies are being decompressed', 503)

/** Reasons for the access log. A closed list, documented in plugins/edge/README.md. */
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

export class DecompressedBody extends Readable {
  readonly #source: Readable
  readonly #codings: readonly Coding[]
  readonly #limits: Limits
  readonly #memory: MemoryBudget
  /** Memory to give back. */
  #taken: number
  #stages: Transform[] = []
  #isStarted = false
  #read = 0
  readonly #sizes: number[]
  #isOver = false

  /** `taken`: the memory that was taken for the streams. */
  constructor(source: Readable, codings: readonly Coding[], limits: Limits, memory: MemoryBudget, taken: number) {
    super()
    this.#source = source
    this.#codings = codings
    this.#limits = limits
    this.#memory = memory
    this.#taken = taken
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
        if (!(next === undefined ? this.push(chunk) : next.write(chunk))) stage.pause()
      })
      stage.once('end', () => (next === undefined ? this.push(null) : next.end()))
    })
    source.once('error', (error) => this.destroy(error))
    source.on('data', (chunk: Buffer) => {
      // The rest is read and dropped, because the next request on the connection follows it.
      if (this.destroyed) return
      if (this.#read === 0 && !this.#takeWindow(chunk)) return
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

  /** Takes the memory for a long window of brotli; returns false if it is in use. */
  #takeWindow(chunk: Buffer): boolean {
    if (this.#codings[0] !== 'br' || chunk.length === 0 || !hasLongWindow(chunk[0]!)) return true
    if (!this.#memory.take(longWindow)) {
      this.destroy(new Busy())
      return false
    }
    this.#taken += longWindow
    return true
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
    this.#memory.give(this.#taken)
    this.#taken = 0
    if (this.#isStarted) this.#source.resume()
    done(error)
  }
}
