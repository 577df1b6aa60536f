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
  /** Resources whose invalidation is to be repeated; null: so many that everything is purged. */
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
    return this.#unsent?.size === 0 && !this.#isRepeating
  }

  /** Invalidates, and calls back once Redis has confirmed it or will not in time. */
  add(resources: readonly string[], done: () => void): void {
    this.#send(resources, false, (isConfirmed) => {
      if (!isConfirmed) this.#keep(resources)
      done()
    })
  }

  /** Keeps resources for the next repeat; null: everything. */
  #keep(resources: readonly string[] | null): void {
    for (const resource of resources ?? []) this.#unsent?.add(resource)
    if (resources === null || (this.#unsent !== null && this.#unsent.size > maxUnsent)) this.#unsent = null
    this.#schedule()
  }

  /**
   * Takes out the resources of the next repeat; null: everything. An invalidation of one of them that fails meanwhile is kept:
   * the reply to the repeat does not confirm it, since Redis may have run the repeat before the change.
   */
  #take(): readonly string[] | null {
    if (this.#unsent === null) {
      this.#unsent = new Set()
      return null
    }
    const taken = [...this.#unsent].slice(0, maxRepeated)
    for (const resource of taken) this.#unsent.delete(resource)
    return taken
  }

  #schedule(): void {
    clearTimeout(this.#retry)
    this.#retry = setTimeout(() => this.repeat(), retryMs).unref()
  }

  /** Repeats the invalidations that Redis has not confirmed. */
  repeat(): void {
    if (this.#isRepeating || this.areConfirmed || !this.#isUp()) return
    this.#isRepeating = true
    const taken = this.#take()
    const done = (isConfirmed: boolean): void => {
      this.#isRepeating = false
      if (!isConfirmed) this.#keep(taken)
      else if (!this.areConfirmed) this.repeat()
    }
    if (taken === null) this.#purgeAll(done)
    else this.#send(taken, true, done)
  }

  close(): void {
    clearTimeout(this.#retry)
  }
}
