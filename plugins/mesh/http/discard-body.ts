import { IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'

/**
 * Ends a streamed request body of which no more is needed. A stream is destroyed, but not a request that a server of
 * this process answers: destroying that closes the client's connection, on which the response (413, 502) is still to go
 * out. What is left of it is read and dropped. `iterator` is the one that reads it, if any: it keeps the stream from
 * flowing until it returns, and must not destroy it then.
 */
export function discardBody(
  source: Readable,
  error: Error | null,
  iterator: AsyncIterator<unknown> | null = null
): void {
  // `method` tells it from the response of a client, which is destroyed.
  if (!(source instanceof IncomingMessage && typeof source.method === 'string')) source.destroy(error ?? undefined)
  else if (iterator === null) source.resume()
  else void drain(source, iterator)
}

async function drain(source: Readable, iterator: AsyncIterator<unknown>): Promise<void> {
  await iterator.return?.().catch(() => {})
  source.resume()
}
