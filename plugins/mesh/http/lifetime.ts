/** Limits of a connection's use, and of the header sections that are read on it. */
export interface ConnectionOptions {
  /** Time that an idle connection waits for its next request where the service does not say; 0: not at all. */
  readonly idleMs: number
  /** After this time no request is begun on it. */
  readonly maxAgeMs: number
  readonly maxRequests: number
  /** Bytes of a header section, and of a trailer section. */
  readonly maxHeaderSize: number
}

/** In force where nothing is configured. `idleMs` is undici's: services that close idle connections sooner are rare. */
export const usualConnection: ConnectionOptions = {
  idleMs: 4000,
  maxAgeMs: Number.POSITIVE_INFINITY,
  maxRequests: Number.POSITIVE_INFINITY,
  maxHeaderSize: 64 * 1024
}

/** Longest idle time that a service can ask for by `Keep-Alive: timeout`. */
const longestHintMs = 600_000
/** We close so much earlier than the service does. */
const marginMs = 1000
/** Ages differ by up to this share, so that connections that were made together do not all end together. */
const ageSpread = 0.1

/** One connection's age and requests against its limits. */
export class Lifetime {
  readonly #options: ConnectionOptions
  readonly #endsAt: number
  #requests = 0

  constructor(options: ConnectionOptions) {
    this.#options = options
    const { maxAgeMs } = options
    // No clock is read for a connection that may live for ever.
    this.#endsAt =
      maxAgeMs === Number.POSITIVE_INFINITY ? maxAgeMs : performance.now() + maxAgeMs * (1 - ageSpread * Math.random())
  }

  /** Counts a request. Returns whether it must be the last one. */
  begin(): boolean {
    return ++this.#requests >= this.#options.maxRequests || this.#leftMs() <= 0
  }

  /** Returns how long the connection may stay idle; 0 or less: it must close. `hintMs` is what the service has said. */
  idleMs(hintMs: number | null): number {
    const { idleMs } = this.#options
    return Math.min(hintMs === null ? idleMs : Math.min(hintMs - marginMs, longestHintMs), this.#leftMs())
  }

  #leftMs(): number {
    return this.#endsAt === Number.POSITIVE_INFINITY ? this.#endsAt : this.#endsAt - performance.now()
  }
}
