/**
 * A key of Consul's KV store, watched by blocking queries, for code outside of the mesh. The last usable value survives a
 * restart in a file beside the discovery snapshot. Values are not logged: they may hold secrets.
 */
import { createHash } from 'node:crypto'
import type { Agent } from 'node:http'
import type { KeyName, WatchedKey } from '../../seam-keys.ts'
import { asError } from '../../thrown.ts'
import { Watch } from '../connect/identity/watch.ts'
import type { Logger } from '../core/types.ts'
import { createGet, shownUrl } from './consul-get.ts'
import type { ConsulOptions } from './consul-options.ts'
import { createAgent } from './consul-query.ts'
import { messageOf } from './loop.ts'
import { readEntries, tryToWrite, writeEntries } from './snapshot-file.ts'

/** Largest response, in bytes. Consul's own limit for a value is 512 KB unless it is raised. */
const LARGEST = 16 * 1024 * 1024

/** Changed by tests only. */
export const keyTiming = {
  /** Interval of queries that Consul does not hold. */
  every: 5000,
  /** Longest time, at most a tenth of `maxAge`, after which the file is written again with its new confirmation time. */
  refresh: 900_000
}

interface KeyOptions extends KeyName {
  readonly consul: ConsulOptions
  readonly snapshot?: { readonly path: string; readonly maxAge: number } | undefined
}

/** The value in the file. */
interface Stored {
  readonly identity: string
  /** Milliseconds since 1970. */
  readonly confirmedAt: number
  readonly value: string
}

export class ConsulKey implements WatchedKey {
  value: string | null = null
  kept: string | null = null
  error: string | null = null
  readonly #key: string
  readonly #url: string
  readonly #log: Logger
  readonly #agent: Agent
  readonly #watch: Watch
  readonly #file: { readonly path: string; readonly maxAge: number; readonly identity: string } | null
  readonly #hearers = new Set<() => void>()
  /** Time of the last confirmed value, in milliseconds since 1970; null before the first. */
  #confirmedAt: number | null = null
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()
  #isWriteFailing = false

  constructor({ consul, key, datacenter = consul.datacenter, snapshot }: KeyOptions, log: Logger) {
    this.#key = key
    this.#url = shownUrl(consul.url)
    this.#log = log
    this.#agent = createAgent(consul)
    const identity = createHash('sha256').update(JSON.stringify([consul.url, consul.namespace, datacenter, key]))
    this.#file = snapshot ? { ...snapshot, path: `${snapshot.path}.key`, identity: identity.digest('base64') } : null
    const path = `/kv/${key.split('/').map(encodeURIComponent).join('/')}`
    const query = {
      path,
      query: { ...(datacenter && { dc: datacenter }) },
      permission: `the token needs key:read on "${key}"`,
      every: keyTiming.every,
      take: (body: unknown) => this.#take(body),
      failed: (error: unknown) => this.#fail(error)
    }
    const get = createGet(consul, this.#agent, { largest: LARGEST, isAbsent: (status) => status === 404 })
    this.#watch = new Watch(query, get, consul, { now: () => performance.now(), random: Math.random })
    this.#restore()
    this.#watch.start()
    if (this.#file !== null) {
      this.#writing = tryToWrite(this.#file.path).catch((error) => this.#cannotWrite(error))
      this.#timer = setInterval(() => this.#write(), Math.min(keyTiming.refresh, this.#file.maxAge / 10)).unref()
    }
  }

  onChange(hear: () => void): () => void {
    this.#hearers.add(hear)
    return () => void this.#hearers.delete(hear)
  }

  async first(timeoutMs: number): Promise<void> {
    if (this.value !== null || this.error !== null) return
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, timeoutMs)
    const end = this.onChange(resolve)
    await promise
    clearTimeout(timer)
    end()
  }

  keep(value: string): void {
    if (value === this.kept) return
    this.kept = value
    this.#write()
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#watch.close()
    this.#agent.destroy()
    this.#write()
    await this.#writing
  }

  #take(body: unknown): void {
    if (body === null) {
      this.value = null
      this.#fail(new Error(`Consul has no key "${this.#key}"`))
      return
    }
    const value = textOf(body)
    const isNew = value !== this.value
    this.value = value
    this.#confirmedAt = Date.now()
    if (this.error !== null) {
      this.#log.info({ url: this.#url, key: this.#key }, 'Consul has the key again')
      this.error = null
    } else if (!isNew) return
    this.#tell()
  }

  #fail(thrown: unknown): void {
    const err = asError(thrown)
    const before = this.error
    this.error = messageOf(err)
    if (before === null) {
      const known = this.kept === null ? 'no value is known' : 'its last usable value stays in use'
      this.#log.warn({ url: this.#url, key: this.#key, err }, `Consul gives no value of the key; ${known}`)
    }
    if (this.error !== before) this.#tell()
  }

  #tell(): void {
    for (const hear of [...this.#hearers]) hear()
  }

  #restore(): void {
    if (this.#file === null) return
    const { path, maxAge, identity } = this.#file
    try {
      const [stored] = readEntries<Stored>(path) ?? []
      if (stored?.identity !== identity) return
      const ageMs = Math.max(0, Date.now() - stored.confirmedAt)
      const isUsable = ageMs <= maxAge
      if (isUsable) this.kept = stored.value
      const message = isUsable ? 'serves until Consul responds' : 'is too old and is ignored'
      this.#log.info({ path, key: this.#key, ageMs }, `the stored value of the key ${message}`)
    } catch (error) {
      this.#log.warn({ path, err: asError(error) }, 'the stored value of the key cannot be used')
    }
  }

  #write(): void {
    const { kept } = this
    const confirmedAt = this.#confirmedAt
    // Without a value from Consul since the start, the file is up to date.
    if (this.#file === null || kept === null || confirmedAt === null) return
    const { path, identity } = this.#file
    const stored: Stored = { identity, confirmedAt, value: kept }
    this.#writing = this.#writing.then(() =>
      writeEntries(path, [stored]).then(
        () => {
          this.#isWriteFailing = false
        },
        (error) => this.#cannotWrite(error)
      )
    )
  }

  #cannotWrite(error: unknown): void {
    if (this.#isWriteFailing) return
    this.#isWriteFailing = true
    const fields = { path: this.#file!.path, err: asError(error) }
    this.#log.warn(fields, 'the value of the key cannot be stored; a start while Consul is unavailable has none')
  }
}

/** Returns the value in a response of Consul. */
function textOf(body: unknown): string {
  const value: unknown = Array.isArray(body) ? Reflect.get(Object(body[0]), 'Value') : undefined
  if (value === null) return ''
  if (typeof value !== 'string') throw new Error('Consul responded with something else than a key')
  return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.from(value, 'base64'))
}
