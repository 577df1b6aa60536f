/** Reads a request body before the service gets it, and hands it on. */
import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'

/** By request: the body that takes the place of the one that was read. */
const bodies = new WeakMap<IncomingMessage, () => Readable>()

/** Returns the body of a request for its next reader. */
export const bodyAfter = (raw: IncomingMessage, payload: Readable): Readable => bodies.get(raw)?.() ?? payload

/**
 * Reads the whole body if it has at most `maxBytes`; resolves with null if it has more. The rest then stays unread, and
 * `bodyAfter` returns all of it. The client's connection stays open; `edge.bodyTimeout` and the listener's timeouts bound
 * the time.
 */
export function readFirst(raw: IncomingMessage, maxBytes: number): Promise<Buffer | null> {
  if (Number(raw.headers['content-length'] ?? 0) > maxBytes) return Promise.resolve(null)
  const { promise, resolve, reject } = Promise.withResolvers<Buffer | null>()
  const chunks: Buffer[] = []
  let size = 0
  const onData = (chunk: Buffer): void => {
    chunks.push(chunk)
    size += chunk.length
    if (size <= maxBytes) return
    raw.pause()
    bodies.set(raw, () => Readable.from(followed(chunks, raw)))
    finish(() => resolve(null))
  }
  const onEnd = (): void => {
    const body = Buffer.concat(chunks, size)
    bodies.set(raw, () => Readable.from(size === 0 ? [] : [body]))
    finish(() => resolve(body))
  }
  const onError = (error: Error): void => finish(() => reject(error))
  const onClose = (): void => onError(new Error('the client disconnected within the request body'))
  const finish = (then: () => void): void => {
    raw.off('data', onData).off('end', onEnd).off('error', onError).off('close', onClose)
    then()
  }
  raw.on('data', onData).once('end', onEnd).once('error', onError).once('close', onClose)
  return promise
}

async function* followed(chunks: readonly Buffer[], raw: IncomingMessage): AsyncGenerator<Buffer> {
  yield* chunks
  yield* raw as AsyncIterable<Buffer>
}
