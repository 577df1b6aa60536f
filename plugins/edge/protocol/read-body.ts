import type { Readable } from 'node:stream'
import createError from '@fastify/error'
import { ChunkList } from '../../chunk-list.ts'

/** The memory for bodies is in use. */
export const BodiesBusy = createError('JW_BODY_BUSY', 'Too many bodies are in memory', 503)

/**
 * Reads a whole body of at most `maxBytes`. Calls back once: with the bytes, with an error, or, if the body is larger, with
 * the chunks that were read; the rest is then paused. The client's connection stays open; `edge.bodyTimeout` and the
 * listener's timeouts bound the time.
 * `take` takes memory for each chunk; without any, the error is `JW_BODY_BUSY`.
 */
export function readBody(
  body: Readable,
  maxBytes: number,
  done: (error: Error | null, bytes: Buffer | null, chunks: readonly Buffer[]) => void,
  take?: (bytes: number) => boolean
): void {
  let list = new ChunkList()
  let isOver = false
  const finish = (error: Error | null, bytes: Buffer | null): void => {
    if (isOver) return
    isOver = true
    body.off('data', onData)
    const { chunks } = list
    list = new ChunkList()
    done(error, bytes, chunks)
  }
  const onData = (given: Buffer | string): void => {
    // A stream of a plugin may have chunks of any type.
    const chunk = typeof given === 'string' ? Buffer.from(given) : given
    if (!(chunk instanceof Uint8Array)) {
      finish(new TypeError('a stream has chunks that are neither bytes nor texts'), null)
      return
    }
    list.add(chunk)
    const isTooLarge = list.size > maxBytes
    if (!isTooLarge && take?.(chunk.length) !== false) return
    body.pause()
    finish(isTooLarge ? null : new BodiesBusy(), null)
  }
  body.on('data', onData)
  body.once('end', () => finish(null, list.join()))
  body.once('error', (error: Error) => finish(error, null))
  body.once('close', () => finish(new Error('the client disconnected within the request body'), null))
}
