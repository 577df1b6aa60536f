/** Limits of a connection's lifetime, and of the header sections that are read on it. */
export interface ConnectionOptions {
  /** Idle timeout if the service sends none in `Keep-Alive`; 0: connections are not reused. */
  readonly idleMs: number
  /** Age after which no request is started on the connection. */
  readonly maxAgeMs: number
  readonly maxRequests: number
  /** Most bytes of a header section, and of a trailer section. */
  readonly maxHeaderSize: number
}

/** Default limits. `idleMs` is undici's: services that close idle connections sooner are rare. */
export const usualConnection: ConnectionOptions = {
  idleMs: 4000,
  maxAgeMs: Number.POSITIVE_INFINITY,
  maxRequests: Number.POSITIVE_INFINITY,
  maxHeaderSize: 64 * 1024
}

/** Longest idle timeout that a service can set by `Keep-Alive: timeout`. */
const longestHintMs = 600_000
/** Time by which the gateway closes earlier than the service would. */
const marginMs = 1000
/** Share by which maximum ages differ, so that connections which were opened together do not all close together. */
const ageSpread = 0.1

/** Age and number of requests of one connection, compared with its limits. */
export class Lifetime {
  readonly #options: ConnectionOptions
  readonly #endsAt: number
  #requests = 0

  constructor(options: ConnectionOptions) {
    this.#options = options
    const { maxAgeMs } = options
    // Without a maximum age, the clock is not read.
    this.#endsAt =
      maxAgeMs === Number.POSITIVE_INFINITY ? maxAgeMs : performance.now() + maxAgeMs * (1 - ageSpread * Math.random())
  }

  /** Counts a request. Returns whether it must be the last one. */
  begin(): boolean {
    return ++this.#requests >= this.#options.maxRequests || this.#leftMs() <= 0
  }

  /**
   * Returns how long the connection may stay idle; 0 or less: it must close. `hintMs` is the service's `Keep-Alive:
   * timeout`.
   */
  idleMs(hintMs: number | null): number {
    const { idleMs } = this.#options
    return Math.min(hintMs === null ? idleMs : Math.min(hintMs - marginMs, longestHintMs), this.#leftMs())
  }

  #leftMs(): number {
    return this.#endsAt === Number.POSITIVE_INFINITY ? this.#endsAt : this.#endsAt - performance.now()
  }
}
