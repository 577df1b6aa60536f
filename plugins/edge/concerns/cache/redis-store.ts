/**
 * Stored responses in Redis, for all nodes of a cluster. No request depends on it: where Redis does not respond in time, the
 * service is asked. Invalidations that Redis has not confirmed are repeated, and until then this node uses nothing of it.
 */
import type { FastifyBaseLogger } from 'fastify'
import type { Redis, Result } from 'ioredis'
import type { RedisOptions } from '../../../../config/schema.ts'
import type { RedisFailure } from '../../redis-connection.ts'
import { RedisConnection } from '../../redis-connection.ts'
import type { Asked } from './asked.ts'
import { RedisInvalidations } from './redis-invalidations.ts'
import {
  isName,
  markerKey,
  purgesKey,
  randomText,
  responsesKey,
  timeToLive,
  variantText,
  variantTexts
} from './redis-keys.ts'
import { KnownPurges, purgeText } from './redis-purges.ts'
import {
  epochLength,
  findScript,
  invalidateScript,
  markerLength,
  purgeScript,
  putScript,
  removeScript
} from './redis-scripts.ts'
import { decoded, encoded } from './redis-values.ts'
import type { Found, Pending, Purge, ResponseStore } from './store.ts'
import { BodyMemory, PendingFetches } from './store.ts'
import type { StoredHead, StoredResponse } from './stored.ts'
import { pick } from './usable.ts'

type Values = (string | number | Buffer)[]

declare module 'ioredis' {
  interface RedisCommander<Context> {
    jingweiCacheFindBuffer(keys: number, ...values: Values): Result<(Buffer | Buffer[] | null)[], Context>
    jingweiCachePut(...values: Values): Result<number, Context>
    jingweiCacheRemove(...values: Values): Result<number, Context>
    jingweiCacheInvalidate(keys: number, ...values: Values): Result<number, Context>
    jingweiCachePurge(...values: Values): Result<number, Context>
  }
}

/** Time for which the marker of an invalidation is kept: longer than any fetch that began before it. */
const invalidatedMs = 3_600_000
/** Bytes of a value besides its body. */
const maxHeadBytes = 128 * 1024
/** Time after which a refusal of Redis is logged again. */
const logEvery = 60_000
/** Time for commands on which no request waits. */
const writeMs = 2000

type Count = (command: 'lookup' | 'store' | 'invalidate' | 'purge', result: string) => void

interface Seen {
  readonly version: string
  readonly marker: string
}

const nothing: Found = { stored: null, hasVariants: false, varyNames: [], state: null }

export class RedisStore implements ResponseStore {
  readonly isRemote = true
  readonly maxSize: number
  readonly bodies: BodyMemory
  readonly #connection: RedisConnection
  readonly #count: Count
  readonly #pending = new PendingFetches()
  readonly #purges = new KnownPurges()
  readonly #invalidations: RedisInvalidations

  readonly #log: Pick<FastifyBaseLogger, 'warn'>
  /** Time until which refusals of Redis are not logged again. */
  #silentUntil = 0

  constructor(redis: RedisOptions, maxSize: number, log: Pick<FastifyBaseLogger, 'info' | 'warn'>, count: Count) {
    this.maxSize = maxSize
    this.bodies = new BodyMemory(maxSize)
    this.#count = count
    this.#log = log
    const facts = {
      scripts: {
        jingweiCacheFind: { lua: findScript },
        jingweiCachePut: { lua: putScript, numberOfKeys: 3 },
        jingweiCacheRemove: { lua: removeScript, numberOfKeys: 1 },
        jingweiCacheInvalidate: { lua: invalidateScript },
        jingweiCachePurge: { lua: purgeScript, numberOfKeys: 1 }
      },
      probe: (client: Redis) => client.ping(),
      suspendsOnErrors: false,
      timeoutsToSuspend: 3,
      onUp: () => this.#invalidations.repeat(),
      messages: {
        down: 'Redis is unavailable: requests are sent to the services, without stored responses',
        up: 'Redis responds again: stored responses are used'
      }
    }
    this.#connection = new RedisConnection(redis, facts, log)
    this.#invalidations = new RedisInvalidations(
      (resources, isRepeated, done) => this.#sendInvalidations(resources, isRepeated, done),
      (done) => this.#sendPurge('', done),
      () => this.#connection.isUp
    )
  }

  /** True while stored responses are used. */
  get isUp(): boolean {
    return this.#connection.isUp && this.#invalidations.areConfirmed
  }

  /** Bytes of bodies that are being received or written. */
  get bytes(): number {
    return this.bodies.bytes
  }

  connect(): void {
    this.#connection.connect()
  }

  close(): void {
    this.#invalidations.close()
    this.#connection.close()
  }

  lookup(asked: Asked, done: (found: Found) => void): void {
    if (!this.isUp) {
      this.#count('lookup', 'unavailable')
      done(nothing)
      return
    }
    const { publicKey, ownKey, isPersonal, keyed } = asked
    const isShared = publicKey === ownKey
    const keys = isShared || isPersonal ? [publicKey] : [publicKey, ownKey]
    const values: Values = [purgesKey, markerKey(asked.resource), ...keys.map(responsesKey), this.#purges.version]
    values.push(isPersonal || !isShared ? 1 : 0)
    for (const [name, value] of asked.headers) if (!keyed.has(name)) values.push(name, variantText(name, value))
    this.#connection.run(
      (client) => client.jingweiCacheFindBuffer(2 + keys.length, ...values),
      (reply, failure, error) => {
        if (reply === null) {
          this.#count('lookup', this.#resultOf(failure, error))
          done(nothing)
        } else done(this.#foundIn(asked, keys, reply))
      }
    )
  }

  /** Reads a reply. An error, which would end the process here, is a damaged value. */
  #foundIn(asked: Asked, keys: readonly string[], reply: readonly (Buffer | Buffer[] | null)[]): Found {
    try {
      return this.#found(asked, keys, reply)
    } catch {
      this.#count('lookup', 'corrupt')
      return nothing
    }
  }

  #found(asked: Asked, keys: readonly string[], reply: readonly (Buffer | Buffer[] | null)[]): Found {
    const [version, marker, purges] = reply as [Buffer, Buffer, Buffer[]]
    const state: Seen = { version: version.toString('latin1'), marker: marker.toString('latin1') }
    this.#purges.update(state.version, purges)
    const [ofAll, own = ofAll] = reply.slice(3, 3 + keys.length) as (Buffer | null)[]
    const varyNames = own?.toString().split(',').filter(Boolean) ?? []
    const found = { hasVariants: ofAll !== null, varyNames, state }
    const value = reply.at(-1) as Buffer
    if (value.length === 0) {
      this.#count('lookup', 'miss')
      return { ...found, stored: null }
    }
    const result = decoded(value, keys)
    if (result === null) {
      this.#count('lookup', 'corrupt')
      return { ...found, stored: null }
    }
    const { stored, sequence } = result
    if (this.#purges.includes(stored, sequence)) {
      this.#count('lookup', 'purged')
      this.remove(stored, asked)
      return { ...found, stored: null }
    }
    const of = (key: string) => (stored.key === key ? [stored] : [])
    const picked = pick(asked, of(asked.publicKey), of(asked.ownKey))
    this.#count('lookup', picked === null ? 'corrupt' : 'hit')
    return { ...found, stored: picked }
  }

  begin(resource: string, { state }: Found): Pending {
    return this.#pending.begin(resource, state)
  }

  end(pending: Pending): void {
    this.#pending.end(pending)
  }

  put(entry: StoredResponse, asked: Asked, pending: Pending, done: (isValid: boolean) => void): void {
    const seen = pending.state as Seen | null
    if (seen === null || !this.isUp || pending.isOutdated) {
      this.#count('store', pending.isOutdated ? 'outdated' : 'unavailable')
      done(!pending.isOutdated)
      return
    }
    const value = encoded(entry)
    const isTooLarge = value.length > entry.body.length + maxHeadBytes || !entry.varyNames.every(isName)
    if (isTooLarge || !this.bodies.reserve(value.length)) {
      this.#count('store', isTooLarge ? 'too-large' : 'busy')
      done(true)
      return
    }
    const keys = [purgesKey, markerKey(entry.resource), responsesKey(entry.key)]
    const fresh = [seen.version, seen.marker, randomText(epochLength), `p${randomText(markerLength - 1)}`]
    const { varyNames } = entry
    const values: Values = [...keys, ...fresh, timeToLive(entry), varyNames.join(), value]
    values.push(...variantTexts(varyNames, asked))
    this.#connection.run(
      (client) => client.jingweiCachePut(...values),
      (isStored, failure, error) => {
        this.bodies.release(value.length)
        const result = isStored === null ? this.#resultOf(failure, error) : isStored === 1 ? 'ok' : 'outdated'
        this.#count('store', result)
        done(result !== 'outdated' && !pending.isOutdated)
      },
      writeMs
    )
  }

  remove({ key, varyNames }: StoredHead, asked: Asked): void {
    const texts = variantTexts(varyNames, asked)
    this.#connection.run(
      (client) => client.jingweiCacheRemove(responsesKey(key), varyNames.join(), ...texts),
      () => {},
      writeMs
    )
  }

  invalidate(resources: readonly string[], done: () => void): void {
    for (const resource of resources) this.#pending.outdate(resource)
    this.#invalidations.add(resources, done)
  }

  #sendInvalidations(resources: readonly string[], isRepeated: boolean, done: (isConfirmed: boolean) => void): void {
    const markers = resources.map(() => `i${randomText(markerLength - 1)}`)
    this.#connection.run(
      (client) =>
        client.jingweiCacheInvalidate(resources.length, ...resources.map(markerKey), invalidatedMs, ...markers),
      (reply, failure, error) => {
        this.#count('invalidate', reply === null ? this.#resultOf(failure, error) : 'ok')
        done(reply !== null)
      },
      isRepeated ? writeMs : undefined
    )
  }

  /** Purges for all nodes. Calls back with null, or with the reason of a failure. */
  purge(purge: Purge, done: (failure: string | null) => void): void {
    this.#pending.outdateAll()
    this.#sendPurge(purgeText(purge), (isConfirmed, reason) => done(isConfirmed ? null : reason))
  }

  #sendPurge(text: string, done: (isConfirmed: boolean, reason: string) => void): void {
    this.#connection.run(
      (client) => client.jingweiCachePurge(purgesKey, randomText(epochLength), text),
      (reply, failure, error) => {
        this.#count('purge', reply === null ? this.#resultOf(failure, error) : 'ok')
        done(reply !== null, error?.message ?? 'Redis is not available')
      },
      writeMs
    )
  }

  /** Returns the result of a command for the metrics, and logs a refusal: otherwise only the metrics would show it. */
  #resultOf(failure: RedisFailure | null, error: Error | null): string {
    if (failure !== 'reply') return failure ?? 'error'
    if (performance.now() >= this.#silentUntil) {
      this.#silentUntil = performance.now() + logEvery
      this.#log.warn({ err: error }, 'Redis refuses a command of the response cache; requests are served without it')
    }
    return error?.message.includes('OOM') ? 'oom' : 'error'
  }
}
