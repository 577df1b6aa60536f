/** Verifies passwords without occupying the thread pool, and caches the result. */
import { createHmac, randomBytes } from 'node:crypto'
import { LruMap } from 'toad-cache'
import { BcryptThread } from './bcrypt-thread.ts'
import { isBcrypt, isPasswordOf } from './hashes.ts'
import { PasswordQueue } from './password-queue.ts'

/** Passwords that are hashed at a time: half of Node's thread pool, which files and DNS use, too. */
const MOST_IN_POOL = 2
const MOST_CACHED = 10_000

/** Credentials to verify, with the hash of the user's password. */
interface Login {
  readonly username: string
  readonly hash: string
  readonly password: string
}

export class Passwords {
  // The cache holds no password and no hash of one that could be guessed without this key.
  readonly #secret = randomBytes(32)
  readonly #verified = new LruMap<true>(MOST_CACHED)
  readonly #pending = new Map<string, Promise<boolean>>()
  /** A slow hash of bcrypt delays no password of another kind. */
  readonly #inPool = new PasswordQueue(MOST_IN_POOL)
  readonly #inThread = new PasswordQueue(1)
  readonly #bcrypt = new BcryptThread()
  readonly #verify: typeof isPasswordOf

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
    const queue = isBcrypt(hash) ? this.#inThread : this.#inPool
    const result = queue
      .add(client, () => this.#verify(hash, password))
      .then((isRight) => {
        if (isRight) this.#verified.set(key, true)
        return isRight
      })
      .finally(() => this.#pending.delete(key))
    this.#pending.set(key, result)
    return result
  }

  /** Refuses the passwords that wait, and ends the thread. */
  close(): Promise<void> {
    this.#inPool.close()
    this.#inThread.close()
    return this.#bcrypt.close()
  }
}
