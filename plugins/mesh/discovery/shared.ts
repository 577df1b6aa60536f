/** The latest result of a registry that several services share. */
import { TimeSlice } from '../../time-slices.ts'
import type { Watching } from './watched.ts'

type Follower<T> = (result: Result<T>) => void
type Result<T> = { readonly value: T } | { readonly error: unknown }

export class Shared<T> {
  readonly #begin: (shared: Shared<T>) => () => void
  readonly #followers = new Set<Follower<T>>()
  #latest: Result<T> | null = null
  #end: (() => void) | null = null

  /** Takes a function that is called for the first follower; it returns one that is called after the last. */
  constructor(begin: (shared: Shared<T>) => () => void) {
    this.#begin = begin
  }

  /** Passes a result to all services, in time slices, since there may be hundreds. A later result ends it. */
  async set(value: T): Promise<void> {
    if (this.#end === null) return
    const latest = { value }
    this.#latest = latest
    const slice = new TimeSlice()
    for (const follower of this.#followers) {
      follower(latest)
      if (slice.isOver) await slice.next()
      if (this.#latest !== latest) return
    }
  }

  fail(error: unknown): void {
    if (this.#end === null) return
    const latest = { error }
    this.#latest = latest
    for (const follower of this.#followers) follower(latest)
  }

  /** Passes the latest result and all further ones to a service, until it ends. */
  async follow({ signal, fail }: Watching, take: (value: T) => void): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const follower: Follower<T> = (result) => ('value' in result ? take(result.value) : fail(result.error))
    this.#followers.add(follower)
    signal.addEventListener('abort', () => resolve(), { once: true })
    if (this.#latest !== null) follower(this.#latest)
    this.#end ??= this.#begin(this)
    await promise
    this.#followers.delete(follower)
    if (this.#followers.size > 0) return
    this.#end?.()
    this.#end = null
    // The result may be outdated when the next service follows.
    this.#latest = null
  }
}
