/** Blocking queries of Consul: it holds a question until the index of its answer has moved, or for `wait`. */
import type { IncomingMessage } from 'node:http'

export const ANSWER_TIMEOUT = 10_000

/** Parameters of a question, and the time that Consul may take for its answer in milliseconds. */
export interface Blocking {
  readonly query: { readonly index?: string; readonly wait?: string }
  readonly timeout: number
}

/** A null `index` asks for an answer at once. `marginMs` is what Consul may take beyond the time for which it holds. */
export function blocking(index: bigint | null, waitMs: number, marginMs: number, atOnceMs = ANSWER_TIMEOUT): Blocking {
  if (index === null) return { query: {}, timeout: atOnceMs }
  // Consul itself adds up to a sixteenth to the wait, to spread the wake-ups.
  const heldMs = Math.ceil(waitMs + waitMs / 16)
  return { query: { index: String(index), wait: `${Math.ceil(waitMs)}ms` }, timeout: heldMs + marginMs }
}

/** Returns the index of an answer; null if Consul sent none that can be blocked on: with 0 it would answer at once. */
export function indexOf({ headers }: IncomingMessage): bigint | null {
  const text = String(headers['x-consul-index'] ?? '')
  return /^\d{1,20}$/.test(text) && BigInt(text) > 0n ? BigInt(text) : null
}
