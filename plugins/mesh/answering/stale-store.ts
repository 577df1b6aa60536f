import type { IncomingHttpHeaders } from 'node:http'
import type { FallbackOptions } from '../../../config/schema.ts'
import { headerOf } from '../request-facts.ts'
import type { Keeper } from '../service.ts'
import type { DispatchOptions } from '../types.ts'
import { cacheControl, varyOf } from './cache-control.ts'

export type StaleOptions = NonNullable<FallbackOptions['stale']>

/** An answer that may be given again. */
export interface Stored {
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  readonly storedMs: number
  /** Its age when it came. */
  readonly ageMs: number
  /** Also to those whose request says who they are. */
  readonly isPublic: boolean
  /** How long the service allows it, once stored. */
  readonly usableMs: number
  /** The request headers that it depends on, and their values. */
  readonly vary: readonly (readonly [name: string, value: string | undefined])[]
}

/** Of one resource; more would be a Vary on something endless. */
const mostVariants = 8
/** Of the connection, or told anew with each answer. */
const dropped = new Set(
  'connection keep-alive transfer-encoding upgrade te trailer proxy-connection proxy-authenticate age'.split(' ')
)

/** The last good answers of a service; the least recently used go first. RFC 9111 says which may be kept. */
export class StaleStore {
  readonly #options: StaleOptions
  readonly #now: () => number
  readonly #resources = new Map<string, Stored[]>()
  #count = 0
  #bytes = 0

  constructor(options: StaleOptions, now: () => number) {
    this.#options = options
    this.#now = now
  }

  /** What may be given for this request now. */
  find(opts: DispatchOptions): Stored | null {
    if (!isPlain(opts)) return null
    const key = keyOf(opts)
    const variants = this.#resources.get(key)
    const stored = variants?.findLast(({ vary }) => vary.every(([name, value]) => headerOf(opts, name) === value))
    if (variants === undefined || stored === undefined) return null
    const forMs = this.#now() - stored.storedMs
    if (forMs > Math.min(this.#options.maxAge, stored.usableMs) || (isPersonal(opts) && !stored.isPublic)) return null
    this.#resources.delete(key)
    this.#resources.set(key, variants)
    return stored
  }

  /** Seconds, as in the header. */
  ageOf({ ageMs, storedMs }: Stored): number {
    return Math.floor((ageMs + this.#now() - storedMs) / 1000)
  }

  /** Takes the answer down as it comes; null where it is not to be kept. */
  record(opts: DispatchOptions, status: number, headers: IncomingHttpHeaders): Recording | null {
    if (status !== 200 || opts.method !== 'GET' || !isPlain(opts)) return null
    const vary = varyOf(headers)
    if (vary === null || headers['set-cookie'] !== undefined) return null
    if (Number(headers['content-length'] ?? 0) > this.#options.maxBody) return null
    const directives = cacheControl(headers['cache-control'])
    if (directives.has('no-store') || directives.has('private') || directives.has('no-cache')) return null
    const isPublic = directives.has('public')
    if (isPersonal(opts) && !isPublic) return null
    const ageMs = seconds(headers.age)
    const usableMs = allowedMs(directives) - ageMs
    if (usableMs <= 0) return null
    const entry = {
      headers: endToEnd(headers),
      storedMs: this.#now(),
      ageMs,
      isPublic,
      usableMs,
      vary: vary.map((name) => [name, headerOf(opts, name)] as const)
    }
    return new Recording(this.#options.maxBody, (body) => this.#put(keyOf(opts), { ...entry, body }))
  }

  #put(key: string, stored: Stored): void {
    const before = this.#resources.get(key) ?? []
    const same = (other: Stored) =>
      other.vary.length === stored.vary.length &&
      other.vary.every(([name, value], i) => stored.vary[i]![0] === name && stored.vary[i]![1] === value)
    const variants = [...before.filter((other) => !same(other)), stored].slice(
      -Math.min(mostVariants, this.#options.maxEntries)
    )
    this.#remove(key)
    this.#resources.set(key, variants)
    this.#count += variants.length
    this.#bytes += bytesOf(variants)
    for (const [oldest] of this.#resources) {
      if (this.#count <= this.#options.maxEntries) break
      this.#remove(oldest)
    }
  }

  #remove(key: string): void {
    const variants = this.#resources.get(key)
    if (variants === undefined) return
    this.#resources.delete(key)
    this.#count -= variants.length
    this.#bytes -= bytesOf(variants)
  }

  status() {
    return { answers: this.#count, bytes: this.#bytes }
  }
}

/** An answer on its way into the store. */
export class Recording {
  readonly #most: number
  readonly #put: (body: Buffer) => void
  #chunks: Buffer[] | null = []
  #bytes = 0

  constructor(most: number, put: (body: Buffer) => void) {
    this.#most = most
    this.#put = put
  }

  add(chunk: Buffer): void {
    this.#bytes += chunk.length
    if (this.#bytes > this.#most) this.#chunks = null
    else this.#chunks?.push(chunk)
  }

  /** Only what came whole is an answer. The copy lets go of the much larger buffers that chunks are cut from. */
  end(): void {
    if (this.#chunks !== null) this.#put(Buffer.concat(this.#chunks))
  }
}

/** A service's stores: one for each way of keeping answers, whichever chains use it. */
export class StaleStores implements Keeper {
  readonly #now: () => number
  readonly #stores = new Map<string, StaleStore>()

  constructor(now: () => number) {
    this.#now = now
  }

  of(subset: string, options: StaleOptions): StaleStore {
    const key = JSON.stringify([subset, options.maxAge, options.maxEntries, options.maxBody])
    const store = this.#stores.get(key) ?? new StaleStore(options, this.#now)
    this.#stores.set(key, store)
    return store
  }

  status() {
    const all = [...this.#stores.values()].map((store) => store.status())
    const sum = (key: 'answers' | 'bytes') => all.reduce((total, each) => total + each[key], 0)
    return { answers: sum('answers'), bytes: sum('bytes') }
  }
}

const bytesOf = (variants: readonly Stored[]) => variants.reduce((sum, { body }) => sum + body.length, 0)

/** HEAD is answered with what GET got. */
const keyOf = (opts: DispatchOptions) => `${headerOf(opts, 'host') ?? ''} ${opts.path}`

/** A request that what is stored may answer. */
function isPlain(opts: DispatchOptions): boolean {
  const { method, upgrade, query, body } = opts
  if ((method !== 'GET' && method !== 'HEAD') || upgrade || query || (body !== null && body !== undefined)) return false
  const asked = cacheControl(headerOf(opts, 'cache-control'))
  return !(asked.has('no-store') || asked.has('no-cache'))
}

/** It says who asks: what comes back may be that person's. */
function isPersonal(opts: DispatchOptions): boolean {
  const { caller } = opts
  return Boolean(caller?.consumer ?? headerOf(opts, 'authorization') ?? headerOf(opts, 'cookie'))
}

/** RFC 9111, 4.2.4: some answers must not be given when stale, unless the service allows it on errors (RFC 5861). */
function allowedMs(directives: ReadonlyMap<string, string>): number {
  const shared = directives.has('s-maxage') && !directives.has('stale-if-error')
  if (!shared && !directives.has('must-revalidate') && !directives.has('proxy-revalidate')) {
    return Number.POSITIVE_INFINITY
  }
  return seconds(directives.get('s-maxage') ?? directives.get('max-age'))
}

function seconds(value: string | string[] | undefined): number {
  const number = Number(value ?? 0)
  return number > 0 ? number * 1000 : 0
}

function endToEnd(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const nominated = String(headers.connection ?? '')
    .toLowerCase()
    .split(',')
    .map((name) => name.trim())
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !dropped.has(name) && !nominated.includes(name)))
}
