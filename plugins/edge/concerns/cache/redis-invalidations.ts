/**
 * Invalidations in Redis. Those that Redis does not confirm are repeated until it does: otherwise it would show responses
 * again that a change has made outdated.
 */

/** Most invalidations that wait for Redis; if there are more, everything is purged. */
const maxUnsent = 10_000
/** Invalidations that are repeated by one command. */
const maxRepeated = 1000
const retryMs = 500

/** Sends a command, and calls back with true if Redis has confirmed it. */
type Send<T extends unknown[]> = (...args: [...T, done: (isConfirmed: boolean) => void]) => void

export class RedisInvalidations {
  readonly #send: Send<[resources: readonly string[], isRepeated: boolean]>
  readonly #purgeAll: Send<[]>
  readonly #isUp: () => boolean
  /** Resources whose invalidation Redis has not confirmed; null: so many that everything is purged. */
  #unsent: Set<string> | null = new Set()
  #isRepeating = false
  #retry: NodeJS.Timeout | undefined

  constructor(
    send: Send<[resources: readonly string[], isRepeated: boolean]>,
    purgeAll: Send<[]>,
    isUp: () => boolean
  ) {
    this.#send = send
    this.#purgeAll = purgeAll
    this.#isUp = isUp
  }

  /** True if Redis has confirmed all. */
  get areConfirmed(): boolean {
    return this.#unsent?.size === 0
  }

  /** Invalidates, and calls back once Redis has confirmed it or will not in time. */
  add(resources: readonly string[], done: () => void): void {
    this.#send(resources, false, (isConfirmed) => {
      if (!isConfirmed) this.#keep(resources)
      done()
    })
  }

  #keep(resources: readonly string[]): void {
    for (const resource of resources) this.#unsent?.add(resource)
    if (this.#unsent !== null && this.#unsent.size > maxUnsent) this.#unsent = null
    this.#schedule()
  }

  #schedule(): void {
    clearTimeout(this.#retry)
    this.#retry = setTimeout(() => this.repeat(), retryMs).unref()
  }

  /** Repeats the invalidations that Redis has not confirmed. */
  repeat(): void {
    if (this.#isRepeating || this.areConfirmed || !this.#isUp()) return
    this.#isRepeating = true
    const unsent = this.#unsent
    const sent = unsent === null ? [] : [...unsent].slice(0, maxRepeated)
    const done = (isConfirmed: boolean): void => {
      this.#isRepeating = false
      if (isConfirmed && unsent === null) this.#unsent = new Set()
      else if (isConfirmed) for (const each of sent) unsent?.delete(each)
      if (isConfirmed && !this.areConfirmed) this.repeat()
      else if (!isConfirmed) this.#schedule()
    }
    if (unsent === null) this.#purgeAll(done)
    else this.#send(sent, true, done)
  }

  close(): void {
    clearTimeout(this.#retry)
  }
}
