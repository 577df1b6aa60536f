/** Units that this node has taken from Redis and not used yet, by key. */
import { AsyncResource } from 'node:async_hooks'
import { FifoMap } from 'toad-cache'

interface Lease {
  left: number
  /** Time after which the rest is void. */
  until: number
  /** State of the limit in Redis when the lease was given: units left, and the time at which the window ends or the bucket is full. */
  readonly remaining: number
  readonly resetAt: number
}

type Continue = (mayWait: boolean) => void

/** The question to Redis for a lease of one key. */
interface Question {
  isOpen: boolean
  /** True if the last answer was a lease. */
  isGiven: boolean
  /** True while the requests that have waited continue. */
  isEnding: boolean
  /** Functions by which waiting requests continue, in their order. */
  readonly waiting: Set<Continue>
}

const newQuestion = (): Question => ({ isOpen: false, isGiven: false, isEnding: false, waiting: new Set() })

/** Requests that wait for the leases of a limit at a time; further ones ask Redis for themselves only. */
const mostWaiting = 10_000

export class Leases {
  /** Units of a lease. */
  readonly size: number
  // A lease that is dropped was used in vain: the limit is stricter, not wider.
  readonly #leases = new FifoMap<Lease>(10_000)
  readonly #questions = new Map<string, Question>()
  #waiting = 0

  constructor(size: number) {
    this.size = size
  }

  /** Takes units of the lease of a key; null if it has not enough. */
  take(key: string, units: number, now: number): Readonly<Lease> | null {
    const lease = this.#leases.get(key)
    if (lease === undefined || lease.until <= now || lease.left < units) return null
    lease.left -= units
    return lease
  }

  giveBack(key: string, units: number): void {
    this.#bound(key, units)
  }

  /** Returns false if Redis is not asked for a lease of the key. Otherwise calls `again` after the answer. */
  wait(key: string, again: Continue): boolean {
    const question = this.#questions.get(key)
    if (question === undefined || !question.isOpen || this.#waiting >= mostWaiting) return false
    this.#waiting++
    // The answer arrives in the async context of another request.
    question.waiting.add(AsyncResource.bind(again))
    return true
  }

  /**
   * Returns the units to ask for: those of a lease, or those of all requests that wait, if these are more; of the request
   * alone while a lease is being asked for.
   */
  wanted(key: string, units: number): number {
    const question = this.#questions.get(key) ?? newQuestion()
    if (this.size <= units || question.isOpen) return units
    question.isOpen = true
    question.isGiven = false
    this.#questions.set(key, question)
    return Math.max(this.size, units * (1 + question.waiting.size))
  }

  /**
   * Ends the question for a lease. The requests that wait for it continue, until one of them asks the next question; that one
   * asks for the units of all. After an answer without a lease no request waits again, so that none waits for many questions.
   */
  answered(key: string): void {
    const question = this.#questions.get(key)!
    const { waiting, isGiven } = question
    question.isOpen = false
    // Without Redis, the next question ends at once, within the loop below.
    if (question.isEnding) return
    question.isEnding = true
    try {
      for (const again of waiting) {
        waiting.delete(again)
        this.#waiting--
        again(isGiven)
        if (isGiven && question.isOpen) break
      }
    } finally {
      question.isEnding = false
    }
    if (question.isOpen) return
    this.#questions.delete(key)
    this.#bound(key)
  }

  /** Adds a lease to that of a key. */
  add(key: string, added: Readonly<Lease>, now: number): void {
    const question = this.#questions.get(key)
    if (question !== undefined) question.isGiven = true
    const before = this.#leases.get(key)
    if (before === undefined || before.until <= now) this.#leases.set(key, { ...added })
    else this.#leases.set(key, { ...added, left: before.left + added.left, until: Math.min(before.until, added.until) })
  }

  /** Adds units, and drops those above a lease: they were for requests that another limit has refused. */
  #bound(key: string, units = 0): void {
    const lease = this.#leases.get(key)
    if (lease !== undefined) lease.left = Math.min(this.size, lease.left + units)
  }
}
