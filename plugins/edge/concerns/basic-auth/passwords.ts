/** Verifies passwords without occupying the thread pool, and caches the result. */
import { createHmac, randomBytes } from 'node:crypto'
import { createError } from '@fastify/error'
import { LruMap } from 'toad-cache'
import { isPasswordOf } from './hashes.ts'

export const Busy = createError('JW_AUTH_BUSY', 'Too many passwords are being verified', 503)

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
  readonly refuse: () => void
  readonly timer: NodeJS.Timeout
}

export class Passwords {
  // The cache holds no password and no hash of one that could be guessed without this key.
  readonly #secret = randomBytes(32)
  readonly #verified = new LruMap<true>(MOST_CACHED)
  readonly #pending = new Map<string, Promise<boolean>>()
  readonly #waiting: Job[] = []
  readonly #verify: typeof isPasswordOf
  #running = 0

  /** `verify`: only tests pass another one. */
  constructor(verify = isPasswordOf) {
    this.#verify = verify
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
    else if (this.#waiting.length >= MOST_WAITING || this.#waitingOf(client) >= MOST_OF_CLIENT) reject(new Busy())
    else {
      const job: Job = {
        client,
        run,
        refuse: () => reject(new Busy()),
        timer: setTimeout(() => {
          this.#waiting.splice(this.#waiting.indexOf(job), 1)
          job.refuse()
        }, LONGEST_WAIT_MS)
      }
      this.#waiting.push(job)
    }
    return promise
  }

  #waitingOf(client: string): number {
    return this.#waiting.reduce((sum, job) => sum + (job.client === client ? 1 : 0), 0)
  }

  #next(): void {
    const job = this.#waiting.shift()
    if (job === undefined) return
    clearTimeout(job.timer)
    job.run()
  }

  /** Refuses the passwords that wait. */
  close(): void {
    for (const { timer, refuse } of this.#waiting.splice(0)) {
      clearTimeout(timer)
      refuse()
    }
  }
}
