import { hash } from 'node:crypto'
import { LruMap } from 'toad-cache'

/** Most bytes of token text in a cache; the claims take two to three times as much. */
const mostBytes = 32 * 1024 * 1024

interface Entry<T> {
  readonly value: T
  readonly expiresMs: number
  readonly bytes: number
}

/**
 * Caches the results of verified tokens by digest until the tokens expire, and evicts the least recently used. It is used
 * instead of the verifier's own cache, which parses each token first: 20 µs for a cached token, 3 µs with this cache.
 */
export class TokenCache<T> {
  readonly #known: LruMap<Entry<T>>
  readonly #most: number
  #bytes = 0

  constructor(most: number) {
    this.#most = most
    this.#known = new LruMap(most)
  }

  /** Returns the cached result for a token; undefined if there is none. */
  get(token: string, nowMs: number): T | undefined {
    const digest = digestOf(token)
    const entry = this.#known.get(digest)
    if (entry === undefined) return undefined
    if (nowMs < entry.expiresMs) return entry.value
    this.#delete(digest, entry)
    return undefined
  }

  set(token: string, value: T, expiresMs: number): void {
    if (this.#most === 0 || token.length > mostBytes) return
    const digest = digestOf(token)
    const before = this.#known.get(digest)
    if (before !== undefined) this.#delete(digest, before)
    const bytes = token.length
    while (this.#known.size > 0 && (this.#known.size >= this.#most || this.#bytes + bytes > mostBytes)) {
      const { key, value: oldest } = this.#known.first as { key: string; value: Entry<T> }
      this.#delete(key, oldest)
    }
    this.#known.set(digest, { value, expiresMs, bytes })
    this.#bytes += bytes
  }

  #delete(digest: string, { bytes }: Entry<T>): void {
    this.#known.delete(digest)
    this.#bytes -= bytes
  }
}

const digestOf = (token: string) => hash('sha256', token, 'base64')
