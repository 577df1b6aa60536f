/**
 * Compresses one body. Chunks of one event-loop iteration are compressed together. What was compressed is flushed as soon as
 * no chunk waits, so that a client gets all that a slow service has sent, and a fast one costs few flushes.
 */
import type { BodyEncoder, EncoderSink } from '../../bridge/body-encoder.ts'
import type { Zlib } from './compressors.ts'

/** Bytes that wait before the source pauses. */
const mostWaiting = 64 * 1024

export class BodyCompressor implements BodyEncoder {
  readonly #zlib: Zlib
  readonly #flushKind: number
  readonly #sink: EncoderSink
  #waiting: Buffer[] = []
  #waitingBytes = 0
  #isScheduled = false
  /** True while zlib works on a write or a flush. */
  #isBusy = false
  #isFlushed = true
  #isEnded = false
  #needsDrain = false

  constructor(zlib: Zlib, flushKind: number, sink: EncoderSink) {
    this.#zlib = zlib
    this.#flushKind = flushKind
    this.#sink = sink
    zlib.on('data', (chunk: Buffer) => sink.data(chunk))
    zlib.once('end', () => sink.end())
    zlib.on('error', (error) => sink.fail(error))
  }

  write(chunk: Buffer): boolean {
    this.#waiting.push(chunk)
    this.#waitingBytes += chunk.length
    this.#schedule()
    if (this.#waitingBytes < mostWaiting) return true
    this.#needsDrain = true
    return false
  }

  end(): void {
    this.#isEnded = true
    this.#schedule()
  }

  pause(): void {
    this.#zlib.pause()
  }

  resume(): void {
    if (!this.#zlib.destroyed) this.#zlib.resume()
  }

  destroy(): void {
    this.#waiting = []
    this.#zlib.removeAllListeners('data').removeAllListeners('end').removeAllListeners('error')
    this.#zlib.on('error', () => {}).destroy()
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isBusy) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      this.#next()
    })
  }

  #next(): void {
    if (this.#isBusy || this.#zlib.destroyed) return
    const waiting = this.#waiting
    if (waiting.length > 0) {
      this.#waiting = []
      this.#waitingBytes = 0
      this.#isFlushed = false
      this.#isBusy = true
      const bytes = waiting.length === 1 ? waiting[0]! : Buffer.concat(waiting)
      // One piece of work for the thread pool in place of two; most bodies arrive as a whole.
      if (this.#isEnded) this.#zlib.end(bytes)
      else this.#zlib.write(bytes, this.#done)
      if (!this.#needsDrain) return
      this.#needsDrain = false
      this.#sink.drain()
    } else if (this.#isEnded) {
      this.#isBusy = true
      this.#zlib.end()
    } else if (!this.#isFlushed) {
      this.#isFlushed = true
      this.#isBusy = true
      this.#zlib.flush(this.#flushKind, this.#done)
    }
  }

  readonly #done = (): void => {
    this.#isBusy = false
    this.#next()
  }
}
