/**
 * Sessions in Redis. The cookie has the random id; Redis has the sealed session under the id's digest, so that whoever reads
 * Redis gets neither ids nor tokens. Each command is bounded in time; without Redis no session is valid.
 */
import { hash } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import type { Redis } from 'ioredis'
import { onFirstUse } from '../../../on-first-use.ts'
import { asError } from '../../../thrown.ts'
import { OidcFailure } from './failures.ts'
import { logoutTokenAge } from './logout-token.ts'
import type { SessionOptions } from './options.ts'
import { packed, unpacked } from './packing.ts'
import type { Seal } from './seal.ts'
import type { Session, SessionStore } from './session.ts'
import { newId } from './session.ts'

const ioredis = onFirstUse<typeof import('ioredis')>('ioredis')

/** Time without a connection attempt's success after which it is given up. */
const connectMs = 5000
/** Time for which the id of a logout token is kept: longer than the provider's token is accepted. */
const usedTokenMs = (logoutTokenAge + 60) * 1000
const idForm = /^[\w-]{43}$/

/** Deletes a lock if it is still the caller's. */
const unlockScript = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`

export class RedisSessions implements SessionStore {
  readonly #client: Redis
  readonly #seal: Seal
  readonly #prefix: string
  readonly #options: SessionOptions
  readonly #lockMs: number
  /** True if sessions can be ended by their users. */
  readonly #isIndexed: boolean
  readonly #log: Pick<FastifyBaseLogger, 'info' | 'warn'>
  #isFailing = false
  #isClosed = false

  constructor(
    url: string,
    seal: Seal,
    party: string,
    options: SessionOptions,
    lockMs: number,
    isIndexed: boolean,
    log: Pick<FastifyBaseLogger, 'info' | 'warn'>
  ) {
    this.#seal = seal
    this.#prefix = `jingwei:session:${party}:`
    this.#options = options
    this.#lockMs = lockMs
    this.#isIndexed = isIndexed
    this.#log = log
    this.#client = new (ioredis().Redis)(url, {
      lazyConnect: true,
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      autoResendUnfulfilledCommands: false,
      connectTimeout: connectMs,
      commandTimeout: options.timeout,
      // After a failover, this Redis node may have become a replica.
      reconnectOnError: (error) => error.message.startsWith('READONLY'),
      retryStrategy: (times) => Math.min(50 * 2 ** Math.min(times, 10), 2000) * (0.75 + Math.random() / 2)
    })
    this.#client.on('error', (error: Error) => this.#report(error))
  }

  /** Starts to connect, and reconnects until `close`. */
  connect(): void {
    if (this.#client.status === 'wait') this.#client.connect().catch(() => {})
  }

  async load(value: string): Promise<Session | null> {
    if (!idForm.test(value)) return null
    const sealed = await this.#run(() => this.#client.getex(this.#keyOf(value), 'PX', this.#options.idleTimeout))
    const opened = sealed === null ? null : ((await this.#seal.open(sealed)) as Session | null)
    // The time of the last request is the key's expiry.
    return opened === null ? null : { ...unpacked(opened), seen: Number.POSITIVE_INFINITY }
  }

  async save(session: Session, isNew: boolean): Promise<string> {
    const sealed = await this.#seal.seal(packed(session))
    const key = this.#keyOf(session.id)
    const { idleTimeout } = this.#options
    // A logout may have ended it meanwhile.
    const isStored = await this.#run(() =>
      isNew ? this.#client.set(key, sealed, 'PX', idleTimeout) : this.#client.set(key, sealed, 'PX', idleTimeout, 'XX')
    )
    if (isStored === null) throw new OidcFailure('oidc_session')
    if (isNew && this.#isIndexed) await this.#index(session, key)
    return session.id
  }

  async end({ id }: Session): Promise<void> {
    await this.#run(() => this.#client.del(this.#keyOf(id)))
  }

  /** Adds a session to the lists of its user, and of its session at the provider. Members are removed once they have expired. */
  async #index({ claims, started }: Session, key: string): Promise<void> {
    const { lifetime } = this.#options
    for (const claim of ['sub', 'sid'] as const) {
      const value = claims[claim]
      if (typeof value !== 'string') continue
      const list = this.#listOf(claim, value)
      const commands = this.#client.multi().zadd(list, started + lifetime, key)
      await this.#run(() => commands.zremrangebyscore(list, '-inf', started).pexpire(list, lifetime).exec())
    }
  }

  async endAll(claim: 'sub' | 'sid', value: string, jti: string): Promise<boolean> {
    const used = `${this.#prefix}jti:${hash('sha256', jti, 'base64url')}`
    if ((await this.#run(() => this.#client.exists(used))) > 0) return false
    const list = this.#listOf(claim, value)
    const keys = await this.#run(() => this.#client.zrange(list, 0, '-1'))
    await this.#run(() => this.#client.del(list, ...keys))
    // Last: the provider sends the token again if Redis fails before.
    await this.#run(() => this.#client.set(used, '', 'PX', usedTokenMs))
    return true
  }

  #listOf(claim: string, value: string): string {
    return `${this.#prefix}${claim}:${hash('sha256', value, 'base64url')}`
  }

  async touch(): Promise<null> {
    return null
  }

  async lock({ id }: Session): Promise<(() => void) | null> {
    const key = `${this.#keyOf(id)}:refresh`
    const owner = newId()
    const isTaken = (await this.#run(() => this.#client.set(key, owner, 'PX', this.#lockMs, 'NX'))) === null
    return isTaken ? null : () => void this.#client.eval(unlockScript, 1, key, owner).catch(() => {})
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#client.disconnect()
  }

  #keyOf(id: string): string {
    return `${this.#prefix}${hash('sha256', id, 'base64url')}`
  }

  async #run<T>(command: () => Promise<T>): Promise<T> {
    try {
      const result = await command()
      if (this.#isFailing) this.#log.info('Redis responds again: sessions are valid')
      this.#isFailing = false
      return result
    } catch (thrown) {
      const error = asError(thrown)
      this.#report(error)
      throw new OidcFailure('oidc_store', error.message, error)
    }
  }

  /** Logs an error, once per outage. */
  #report(error: Error): void {
    if (this.#isFailing || this.#isClosed) return
    this.#isFailing = true
    this.#log.warn({ err: error }, 'Redis is unavailable: requests with sessions get 503')
  }
}
