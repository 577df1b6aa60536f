/** A compressed body as a stream, for Fastify's reply. */
import { Readable } from 'node:stream'
import type { EncoderSink } from '../../bridge/body-encoder.ts'
import { BodyCompressor } from './body-compressor.ts'
import type { Zlib } from './compressors.ts'

export class CompressedBody extends Readable implements EncoderSink {
  readonly #source: Readable
  readonly #compressor: BodyCompressor

  constructor(source: Readable, zlib: Zlib, flushKind: number) {
    super()
    this.#source = source
    this.#compressor = new BodyCompressor(zlib, flushKind, this)
    source.on('error', (error) => this.destroy(error))
    source.once('close', () => {
      if (!source.readableEnded) this.destroy(new Error('the stream of the body was destroyed before its end'))
    })
    source.once('end', () => this.#compressor.end())
    source.on('data', (chunk: Buffer | string) => {
      if (!this.#compressor.write(typeof chunk === 'string' ? Buffer.from(chunk) : chunk)) source.pause()
    })
  }

  data(chunk: Buffer): void {
    if (!this.push(chunk)) this.#compressor.pause()
  }

  drain(): void {
    this.#source.resume()
  }

  end(): void {
    this.push(null)
  }

  fail(error: Error): void {
    this.destroy(error)
  }

  override _read(): void {
    this.#compressor.resume()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#compressor.destroy()
    this.#source.destroy()
    done(error)
  }
}
