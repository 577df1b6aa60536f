/** Fetches of one key that others wait for, so that the service gets one request at a time for a response that is not stored. */
import type { Clock } from '../../../clock.ts'
import type { Asked } from './asked.ts'
import type { Found } from './store.ts'
import type { StoredResponse } from './stored.ts'

/** Called with the response of the fetch; with null if it is not for others. `isLate`: the time is over. */
type Callback = (stored: StoredResponse | null, isLate: boolean) => void

/** Most requests that wait for one fetch. */
const maxWaiting = 1000
/** Keys whose response could not be stored the last time, so that requests for them do not wait. */
const maxUnshared = 10_000
const unsharedMs = 60_000

class Flight {
  readonly #onEnd: () => void
  #waiting: Callback[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(onEnd: () => void) {
    this.#onEnd = onEnd
  }

  /** Calls back when the fetch has ended, or after the time. Returns false if too many wait. */
  join(callback: Callback, waitMs: number): boolean {
    if (this.#waiting.length >= maxWaiting) return false
    this.#waiting.push(callback)
    this.#timer ??= setTimeout(() => this.#giveUp(), waitMs)
    return true
  }

  /** Ends the fetch for those that wait. A later call has no effect. */
  end(stored: StoredResponse | null): void {
    this.#onEnd()
    this.#wake(stored, false)
  }

  /** Wakes those that have waited long enough. Later requests wait for the fetch of one of these. */
  #giveUp(): void {
    this.#onEnd()
    this.#wake(null, true)
  }

  #wake(stored: StoredResponse | null, isLate: boolean): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const waiting = this.#waiting
    this.#waiting = []
    for (const callback of waiting) callback(stored, isLate)
  }
}

export type { Flight }

export class Flights {
  readonly #flights = new Map<string, Flight>()
  readonly #unshared = new Map<string, number>()
  readonly #now: Clock['now']

  constructor(now: Clock['now']) {
    this.#now = now
  }

  get(key: string): Flight | undefined {
    return this.#flights.get(key)
  }

  begin(key: string): Flight {
    const flight = new Flight(() => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key)
    })
    this.#flights.set(key, flight)
    return flight
  }

  /** Returns whether the last response of a key could not be stored, a short time ago. */
  isUnshared(key: string): boolean {
    const until = this.#unshared.get(key)
    if (until === undefined) return false
    if (until > this.#now()) return true
    this.#unshared.delete(key)
    return false
  }

  noteUnshared(key: string): void {
    this.#unshared.delete(key)
    this.#unshared.set(key, this.#now() + unsharedMs)
    if (this.#unshared.size <= maxUnshared) return
    const [oldest] = this.#unshared.keys()
    this.#unshared.delete(oldest!)
  }

  noteShared(key: string): void {
    this.#unshared.delete(key)
  }
}

/** Requests for different variants do not wait for each other, once it is known what they differ in. */
export function flightKey(asked: Asked, { varyNames }: Found): string {
  // Callers with credentials often get responses that are not stored, for which no other client should wait.
  const key = asked.isPersonal ? `personal ${asked.publicKey}` : asked.ownKey
  return varyNames.length === 0 ? key : `${key} ${varyNames.map((name) => asked.headers.get(name)).join('\n')}`
}
