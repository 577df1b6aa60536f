import { hash } from 'node:crypto'

/** Tokens remembered, per verifier. */
const mostTokens = 1000

/**
 * Tokens that were verified, under a digest of each, until they expire. In front of the verifier, which even with a
 * cache of its own takes a token apart before it looks: 20 µs for a token that is known, 3 µs with this.
 */
export class TokenCache<T> {
  readonly #known = new Map<string, { readonly value: T; readonly expiresMs: number }>()

  /** What was verified of a token, or undefined. */
  get(token: string, nowMs: number): T | undefined {
    const digest = hash('sha256', token, 'base64')
    const entry = this.#known.get(digest)
    if (entry === undefined) return undefined
    if (nowMs < entry.expiresMs) return entry.value
    this.#known.delete(digest)
    return undefined
  }

  set(token: string, value: T, expiresMs: number): void {
    if (this.#known.size >= mostTokens) {
      // Oldest first: cheaper than to note each use, and a token in use is soon back.
      for (const digest of this.#known.keys()) {
        this.#known.delete(digest)
        break
      }
    }
    this.#known.set(hash('sha256', token, 'base64'), { value, expiresMs })
  }
}
