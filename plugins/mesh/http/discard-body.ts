import type { Readable } from 'node:stream'
import { IncomingMessage } from '../../node-http.ts'

/**
 * Discards the rest of a streamed request body. A stream is destroyed, except an incoming request of a server in this
 * process: its destruction would close the client's connection, on which the response (413, 502) must still be sent.
 * The rest of such a body is read and dropped. `iterator` is the one that reads the body, if any: the stream flows only
 * after the iterator has returned, which must not destroy the stream.
 */
export function discardBody(
  source: Readable,
  error: Error | null,
  iterator: AsyncIterator<unknown> | null = null
): void {
  // `method` distinguishes a server's request from a client's response, which is destroyed.
  if (!(source instanceof IncomingMessage && typeof source.method === 'string')) source.destroy(error ?? undefined)
  else if (iterator === null) source.resume()
  else void drain(source, iterator)
}

async function drain(source: Readable, iterator: AsyncIterator<unknown>): Promise<void> {
  await iterator.return?.().catch(() => {})
  source.resume()
}
