/** Signatures and nonces that this process has accepted, each for as long as it could be accepted again. */
import { hash } from 'node:crypto'
import createError from '@fastify/error'

const Full = createError('JW_AUTH_BUSY', 'Too many credentials are being verified', 503)

/** Bytes of an entry in a map, with its key of 22 characters. */
const ENTRY_BYTES = 120

export class Replays {
  /** Time at which an entry is removed, in the order of these times. */
  readonly #seen = new Map<string, number>()
  readonly #most: number
  readonly #windowMs: number
  readonly #now: () => number

  /** `windowMs`: longest time from one acceptance of a signature to the next. */
  constructor(maxBytes: number, windowMs: number, now: () => number) {
    this.#most = Math.max(1, Math.floor(maxBytes / ENTRY_BYTES))
    this.#windowMs = windowMs
    this.#now = now
  }

  /**
   * Adds an entry; returns false if it is there already. Throws JW_AUTH_BUSY if there is no memory for it: removing another
   * entry would let that one be used again.
   */
  add(...parts: readonly (string | Buffer)[]): boolean {
    const now = this.#now()
    for (const [key, until] of this.#seen) {
      if (until >= now) break
      this.#seen.delete(key)
    }
    const text = JSON.stringify(parts.map((part) => (typeof part === 'string' ? part : part.toString('base64'))))
    // Half of the digest: 128 bits.
    const key = hash('sha256', text, 'buffer').toString('base64url', 0, 16)
    if (this.#seen.has(key)) return false
    if (this.#seen.size >= this.#most) {
      const [first] = this.#seen.values()
      throw Object.assign(new Full(), { retryAfterMs: Math.max(1, (first ?? now) - now) })
    }
    this.#seen.set(key, now + this.#windowMs)
    return true
  }
}
