/** Verifies passwords without occupying the thread pool, and caches the result. */
import { createHmac, randomBytes } from 'node:crypto'
import { createError } from '@fastify/error'
import { LruMap } from 'toad-cache'
import { BcryptThread } from './bcrypt-thread.ts'
import { isBcrypt, isPasswordOf } from './hashes.ts'

const BusyError = createError('JW_AUTH_BUSY', 'Too many credentials are being verified', 503)

export class Busy extends BusyError {
  /** True if the client itself has caused the refusal, by the passwords that it has waiting. */
  readonly isExcess: boolean

  constructor(isExcess: boolean) {
    super()
    this.isExcess = isExcess
  }
}

/** Passwords that are hashed at a time: half of Node's thread pool, which files and DNS use, too. */
const MOST_RUNNING = 2
const MOST_WAITING = 64
/** Passwords of one client that wait at a time. */
const MOST_OF_CLIENT = 8
/** A password that has waited longer is not hashed any more. */
const LONGEST_WAIT_MS = 5000
const MOST_CACHED = 10_000

/** Credentials to verify, with the hash of the user's password. */
interface Login {
  readonly username: string
  readonly hash: string
  readonly password: string
}

interface Job {
  readonly client: string
  readonly run: () => void
  readonly refuse: (error: Busy) => void
  readonly timer: NodeJS.Timeout
}

export class Passwords {
  // The cache holds no password and no hash of one that could be guessed without this key.
  readonly #secret = randomBytes(32)
  readonly #verified = new LruMap<true>(MOST_CACHED)
  readonly #pending = new Map<string, Promise<boolean>>()
  /** Jobs by client. The first client has the next turn. */
  readonly #waiting = new Map<string, Job[]>()
  readonly #bcrypt = new BcryptThread()
  readonly #verify: typeof isPasswordOf
  #running = 0
  #length = 0

  /** `verify`: only tests pass another one. */
  constructor(verify?: typeof isPasswordOf) {
    this.#verify =
      verify ??
      ((hash, password) => {
        return isBcrypt(hash) ? this.#bcrypt.isPasswordOf(hash, password) : isPasswordOf(hash, password)
      })
  }

  /**
   * Returns whether a password has a hash: true at once if it was verified before. The hash is part of the cache's key, so that
   * a changed password is effective at once. Rejects with JW_AUTH_BUSY if too many wait.
   */
  isPasswordOf({ username, hash, password }: Login, client: string): true | Promise<boolean> {
    const key = createHmac('sha256', this.#secret)
      .update(JSON.stringify([username, hash, password]))
      .digest('base64')
    if (this.#verified.get(key)) return true
    const known = this.#pending.get(key)
    if (known !== undefined) return known
    const result = this.#queue(client, () => this.#verify(hash, password))
      .then((isRight) => {
        if (isRight) this.#verified.set(key, true)
        return isRight
      })
      .finally(() => this.#pending.delete(key))
    this.#pending.set(key, result)
    return result
  }

  #queue(client: string, work: () => Promise<boolean>): Promise<boolean> {
    const { promise, resolve, reject } = Promise.withResolvers<boolean>()
    const run = () => {
      this.#running++
      work()
        .then(resolve, reject)
        .finally(() => {
          this.#running--
          this.#next()
        })
    }
    if (this.#running < MOST_RUNNING) run()
    else {
      const timer = setTimeout(() => this.#refuse(job, false), LONGEST_WAIT_MS)
      const job: Job = { client, run, refuse: reject, timer }
      this.#enter(job)
    }
    return promise
  }

  /** Adds a job. If too many wait, the last job of the client with most of them is refused, so that no client keeps others out. */
  #enter(job: Job): void {
    const own = this.#waiting.get(job.client) ?? []
    this.#waiting.set(job.client, own)
    own.push(job)
    this.#length++
    if (own.length > MOST_OF_CLIENT) this.#refuse(job, true)
    else if (this.#length > MOST_WAITING) {
      const longest = [...this.#waiting.values()].reduce((most, jobs) => (jobs.length > most.length ? jobs : most), own)
      this.#refuse(longest.at(-1)!, longest.length > 1)
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

  /** Runs a job of the client whose turn it is. */
  #next(): void {
    for (const [client, jobs] of this.#waiting) {
      const job = jobs[0]!
      this.#remove(job)
      if (this.#waiting.delete(client)) this.#waiting.set(client, jobs)
      job.run()
      return
    }
  }

  /** Refuses the passwords that wait, and ends the thread. */
  close(): Promise<void> {
    for (const job of [...this.#waiting.values()].flat()) this.#refuse(job, false)
    return this.#bcrypt.close()
  }
}
