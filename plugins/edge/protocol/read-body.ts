import type { Readable } from 'node:stream'
import createError from '@fastify/error'
import { ChunkList } from '../../chunk-list.ts'

/** The memory for bodies is in use. */
export const BodiesBusy = createError('JW_BODY_BUSY', 'Too many bodies are in memory', 503)

/** Takes the chunks of a body in place of a stream's reader. */
export interface Collector {
  /** Returns false if it takes no more: the next chunks are for a reader of the stream. */
  add(chunk: Buffer): boolean
  end(): void
  fail(error: Error): void
}

/**
 * Method of a stream that can pass its chunks to a collector, which takes less than half the time of a stream's events.
 * Returns false if the stream is in use.
 */
export const collect = Symbol('jingwei.collect')

interface Collectable {
  [collect]?(collector: Collector): boolean
}

const cutOff = 'the client disconnected within the request body'

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
    const { chunks } = list
    list = new ChunkList()
    done(error, bytes, chunks)
  }
  // No event follows if the stream has failed, or was closed, before.
  if (body.destroyed) {
    finish(body.errored ?? new Error(cutOff), null)
    return
  }
  /** Returns false if the body cannot be read as a whole. */
  const add = (chunk: Buffer): boolean => {
    list.add(chunk)
    return list.size <= maxBytes && take?.(chunk.length) !== false
  }
  const stop = (): void => finish(list.size > maxBytes ? null : new BodiesBusy(), null)
  const isCollected = (body as Collectable)[collect]?.({
    add(chunk) {
      const isTaken = add(chunk)
      if (!isTaken) stop()
      return isTaken
    },
    end: () => finish(null, list.chunks.length === 1 ? list.chunks[0]! : list.join()),
    fail: (error) => finish(error, null)
  })
  if (isCollected === true) return
  const onData = (given: Buffer | string): void => {
    // A stream of a plugin may have chunks of any type.
    const chunk = typeof given === 'string' ? Buffer.from(given) : given
    if (!(chunk instanceof Uint8Array)) {
      body.off('data', onData)
      finish(new TypeError('a stream has chunks that are neither bytes nor texts'), null)
      return
    }
    if (add(chunk)) return
    body.off('data', onData).pause()
    stop()
  }
  body.on('data', onData)
  body.once('end', () => finish(null, list.join()))
  body.once('error', (error: Error) => finish(error, null))
  body.once('close', () => finish(new Error(cutOff), null))
}
