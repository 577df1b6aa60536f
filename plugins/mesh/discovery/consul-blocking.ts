/** Consul's blocking queries: it holds a query until the index of the result changes, or for `wait`. */
import type { IncomingMessage } from 'node:http'

export const ANSWER_TIMEOUT = 10_000

/** Parameters of a query, and its timeout in milliseconds. */
export interface Blocking {
  readonly query: { readonly index?: string; readonly wait?: string }
  readonly timeout: number
}

/**
 * Builds a query; a null `index` requests a response at once. `marginMs` is added to the time for which Consul holds
 * it.
 */
export function blocking(index: bigint | null, waitMs: number, marginMs: number, atOnceMs = ANSWER_TIMEOUT): Blocking {
  if (index === null) return { query: {}, timeout: atOnceMs }
  // Consul adds up to a sixteenth to the wait as jitter.
  const heldMs = Math.ceil(waitMs + waitMs / 16)
  return { query: { index: String(index), wait: `${Math.ceil(waitMs)}ms` }, timeout: heldMs + marginMs }
}

/** Returns the index of a response; null if it is unusable for a blocking query, such as 0, which would not block. */
export function indexOf({ headers }: IncomingMessage): bigint | null {
  const text = String(headers['x-consul-index'] ?? '')
  return /^\d{1,20}$/.test(text) && BigInt(text) > 0n ? BigInt(text) : null
}
