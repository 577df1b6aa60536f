import type { Readable } from 'node:stream'

/**
 * Reads a whole body of at most `maxBytes`. Calls back once: with the bytes, with null if the body is larger, or with an
 * error. The client's connection stays open; `edge.bodyTimeout` and the listener's timeouts bound the time.
 */
export function readBody(
  body: Readable,
  maxBytes: number,
  done: (error: Error | null, bytes: Buffer | null) => void
): void {
  let chunks: Buffer[] = []
  let size = 0
  let isOver = false
  const finish = (error: Error | null, bytes: Buffer | null): void => {
    if (isOver) return
    isOver = true
    chunks = []
    done(error, bytes)
  }
  body.on('data', (chunk: Buffer) => {
    // The rest is read and dropped, because the next request on the connection follows it.
    if (isOver) return
    size += chunk.length
    if (size > maxBytes) finish(null, null)
    else chunks.push(chunk)
  })
  body.once('end', () => finish(null, Buffer.concat(chunks, size)))
  body.once('error', (error: Error) => finish(error, null))
  body.once('close', () => finish(new Error('the client disconnected within the request body'), null))
}
