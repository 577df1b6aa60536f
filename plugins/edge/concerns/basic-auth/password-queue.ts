/** Hashes passwords of many clients, few at a time. Those of clients that have used it least come first. */
import { createError } from '@fastify/error'
import { LruMap } from 'toad-cache'

const BusyError = createError('JW_AUTH_BUSY', 'Too many credentials are being verified', 503)

export class Busy extends BusyError {
  /** True if the client itself has caused the refusal, by the passwords that it has waiting. */
  readonly isExcess: boolean

  constructor(isExcess: boolean) {
    super()
    this.isExcess = isExcess
  }
}

const MOST_WAITING = 64
/** Passwords of one client that wait at a time. */
const MOST_OF_CLIENT = 8
/** A password that has waited longer is not hashed any more. */
const LONGEST_WAIT_MS = 5000
/** Clients whose passwords are counted, and the time without one after which a client's count ends. */
const MOST_COUNTED = 10_000
const COUNTED_MS = 60_000

interface Job {
  readonly client: string
  readonly run: () => void
  readonly refuse: (error: Busy) => void
  readonly timer: NodeJS.Timeout
}

export class PasswordQueue {
  readonly #mostRunning: number
  /** Jobs by client, in the order in which the clients began to wait. */
  readonly #waiting = new Map<string, Job[]>()
  /** Passwords hashed for each client of late. */
  readonly #counts = new LruMap<number>(MOST_COUNTED, COUNTED_MS)
  #running = 0
  #length = 0

  constructor(mostRunning: number) {
    this.#mostRunning = mostRunning
  }

  /** Rejects with JW_AUTH_BUSY if too many wait. */
  add(client: string, work: () => Promise<boolean>): Promise<boolean> {
    const { promise, resolve, reject } = Promise.withResolvers<boolean>()
    const run = () => {
      this.#running++
      this.#counts.set(client, this.#countOf(client) + 1)
      work()
        .then(resolve, reject)
        .finally(() => {
          this.#running--
          this.#next()
        })
    }
    if (this.#running < this.#mostRunning) run()
    else {
      const timer = setTimeout(() => this.#refuse(job, false), LONGEST_WAIT_MS)
      const job: Job = { client, run, refuse: reject, timer }
      this.#enter(job)
    }
    return promise
  }

  #countOf(client: string): number {
    return this.#counts.get(client) ?? 0
  }

  /**
   * Adds a job. If too many wait, the last job of the client with most of them is refused, those that were hashed of late
   * included. So clients with many guesses, also from many addresses, keep no other client out.
   */
  #enter(job: Job): void {
    const own = this.#waiting.get(job.client) ?? []
    this.#waiting.set(job.client, own)
    own.push(job)
    this.#length++
    if (own.length > MOST_OF_CLIENT) this.#refuse(job, true)
    else if (this.#length > MOST_WAITING) {
      const weight = (jobs: readonly Job[]) => jobs.length + this.#countOf(jobs[0]!.client)
      const heaviest = [...this.#waiting.values()].reduce(
        (most, jobs) => (weight(jobs) > weight(most) ? jobs : most),
        own
      )
      this.#refuse(heaviest.at(-1)!, heaviest.length > 1)
    }
  }

  #remove(job: Job): void {
    clearTimeout(job.timer)
    const jobs = this.#waiting.get(job.client)!
    jobs.splice(jobs.indexOf(job), 1)
    this.#length--
    if (jobs.length === 0) this.#waiting.delete(job.client)
  }

  #refuse(job: Job, isExcess: boolean): void {
    this.#remove(job)
    job.refuse(new Busy(isExcess))
  }

  /** Runs a job of the client with the fewest passwords of late; of several, the one that began to wait first. */
  #next(): void {
    let next: Job | undefined
    let least = Number.POSITIVE_INFINITY
    for (const [client, [job]] of this.#waiting) {
      const count = this.#countOf(client)
      if (count >= least) continue
      least = count
      next = job
    }
    if (next === undefined) return
    this.#remove(next)
    next.run()
  }

  /** Refuses the passwords that wait. */
  close(): void {
    for (const job of [...this.#waiting.values()].flat()) this.#refuse(job, false)
  }
}
