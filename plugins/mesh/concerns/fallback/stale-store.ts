import { hash } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { hopByHop, listItems } from '../../../http-syntax.ts'
import { headerOf, lowerCasePairs } from '../../core/request-fields.ts'
import type { ServiceState } from '../../core/service-state.ts'
import { cacheControl, varyOf } from '../../core/sharing/cache-control.ts'
import type { Identity } from '../../core/sharing/identity.ts'
import { encode, identityOf, isPersonal } from '../../core/sharing/identity.ts'
import type { DispatchOptions } from '../../core/types.ts'
import type { FallbackOptions } from './options.ts'

type StaleOptions = NonNullable<FallbackOptions['stale']>

/** A stored response. */
export interface Stored {
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  readonly storedMs: number
  /** `Age` of the response when it was received. */
  readonly ageMs: number
  /** Milliseconds after storing for which the service allows its use. */
  readonly usableMs: number
  /** Request headers on which the response depends besides those of its key, with their values. */
  readonly vary: readonly (readonly [name: string, value: string | undefined])[]
}

/** Most responses per key; a `Vary` on a header with endless values would create more. */
const mostVariants = 8
/** Most names in a `Connection` header; more than any legitimate one has. */
const mostNominated = 64
/**
 * Headers that identify the resource: a `public` response to one value must not be used for another. All of
 * `X-Forwarded-*` but For, which identifies the client.
 */
const locating = /^(?:host|forwarded|x-forwarded-(?!for$).*|x-original-.*|x-rewrite-url|x-url-scheme|front-end-https)$/
/** Headers that are not stored: connection headers, and `Age`, which is computed for each response. */
const dropped = new Set([...hopByHop, 'age'])

/**
 * LRU store of the last good responses of a service. A response is used for requests that are identical to its own in
 * all headers but harmless ones; with `Cache-Control: public` for all requests for the resource, as far as `Vary`
 * allows. RFC 9111 decides which responses may be stored.
 */
export class StaleStore {
  readonly #options: StaleOptions
  readonly #identity: Identity
  readonly #now: () => number
  readonly #variants = new Map<string, Stored[]>()
  #count = 0
  #bytes = 0

  constructor(options: StaleOptions, now: () => number, perRequest: readonly string[] = []) {
    this.#options = options
    this.#identity = identityOf({ excludeHeaders: options.excludeHeaders, perRequest })
    this.#now = now
  }

  /** Returns the newest stored response that may be used for this request now, or null. */
  find(opts: DispatchOptions): Stored | null {
    const identity = this.#identity.of(opts)
    if (identity === null || !allowsStored(opts)) return null
    const forAll = this.#findIn(publicKey(opts), opts)
    const own = this.#findIn(ownKey(identity), opts)
    return own !== null && (forAll === null || own.storedMs >= forAll.storedMs) ? own : forAll
  }

  #findIn(key: string, opts: DispatchOptions): Stored | null {
    const variants = this.#variants.get(key)
    const stored = variants?.findLast(({ vary }) => vary.every(([name, value]) => headerOf(opts, name) === value))
    if (variants === undefined || stored === undefined) return null
    if (this.#now() - stored.storedMs > Math.min(this.#options.maxAge, stored.usableMs)) return null
    this.#variants.delete(key)
    this.#variants.set(key, variants)
    return stored
  }

  /** Returns the current age of a stored response in seconds, for the `Age` header. */
  ageOf({ ageMs, storedMs }: Stored): number {
    return Math.floor((ageMs + this.#now() - storedMs) / 1000)
  }

  /** Starts to store a response; null if it must not be stored. */
  record(opts: DispatchOptions, status: number, headers: IncomingHttpHeaders): Recording | null {
    if (status !== 200 || opts.method !== 'GET' || !allowsStored(opts)) return null
    const names = varyOf(headers)
    if (names === null || headers['set-cookie'] !== undefined) return null
    if (Number(headers['content-length'] ?? 0) > this.#options.maxBody) return null
    const directives = cacheControl(headers['cache-control'])
    if (directives.has('no-store') || directives.has('private') || directives.has('no-cache')) return null
    const isPublic = directives.has('public')
    if (!isPublic && isPersonal(opts)) return null
    const ageMs = seconds(headers.age)
    const usableMs = allowedMs(directives) - ageMs
    const kept = usableMs <= 0 ? null : endToEnd(headers)
    const identity = kept === null ? null : this.#identity.of(opts)
    if (kept === null || identity === null) return null
    // Identical requests can differ in ignored headers only.
    const vary = isPublic ? names : names.filter((name) => this.#identity.ignored.has(name))
    const entry = {
      headers: kept,
      storedMs: this.#now(),
      ageMs,
      usableMs,
      vary: vary.map((name) => [name, headerOf(opts, name)] as const)
    }
    const key = isPublic ? publicKey(opts) : ownKey(identity)
    return new Recording(this.#options.maxBody, (body) => this.#put(key, { ...entry, body }))
  }

  #put(key: string, stored: Stored): void {
    const before = this.#variants.get(key) ?? []
    const same = (other: Stored) =>
      other.vary.length === stored.vary.length &&
      other.vary.every(([name, value], i) => stored.vary[i]![0] === name && stored.vary[i]![1] === value)
    const variants = [...before.filter((other) => !same(other)), stored].slice(
      -Math.min(mostVariants, this.#options.maxEntries)
    )
    this.#remove(key)
    this.#variants.set(key, variants)
    this.#count += variants.length
    this.#bytes += bytesOf(variants)
    for (const [oldest] of this.#variants) {
      if (this.#count <= this.#options.maxEntries) break
      this.#remove(oldest)
    }
  }

  #remove(key: string): void {
    const variants = this.#variants.get(key)
    if (variants === undefined) return
    this.#variants.delete(key)
    this.#count -= variants.length
    this.#bytes -= bytesOf(variants)
  }

  status() {
    return { answers: this.#count, bytes: this.#bytes }
  }
}

/** A response that is being received and stored. */
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

  /** Stores the complete response, as a copy: chunks would keep the much larger buffers of which they are views. */
  end(): void {
    if (this.#chunks !== null) this.#put(Buffer.concat(this.#chunks))
  }
}

/** Values on which a store depends besides its options. */
interface StoreScope {
  readonly subset: string
  readonly perRequest: readonly string[]
  /** Key of the plugins that add interceptors, which may change requests and responses. */
  readonly plugins: string
}

/** Stores of a service: one for each set of options, shared by the chains that use it, until the last of them ends. */
export class StaleStores implements ServiceState {
  readonly #now: () => number
  /** Weak references, so that a store is collected with the last chain that uses it. */
  readonly #stores = new Map<string, WeakRef<StaleStore>>()

  constructor(now: () => number) {
    this.#now = now
  }

  of(options: StaleOptions, { subset, perRequest, plugins }: StoreScope): StaleStore {
    const { maxAge, maxEntries, maxBody, excludeHeaders } = options
    const key = JSON.stringify([subset, perRequest, plugins, maxAge, maxEntries, maxBody, excludeHeaders])
    const known = this.#stores.get(key)?.deref()
    if (known !== undefined) return known
    for (const [other, ref] of this.#stores) if (ref.deref() === undefined) this.#stores.delete(other)
    const store = new StaleStore(options, this.#now, perRequest)
    this.#stores.set(key, new WeakRef(store))
    return store
  }

  status() {
    const all = [...this.#stores.values()].flatMap((ref) => ref.deref()?.status() ?? [])
    const sum = (key: 'answers' | 'bytes') => all.reduce((total, each) => total + each[key], 0)
    return { answers: sum('answers'), bytes: sum('bytes') }
  }
}

const bytesOf = (variants: readonly Stored[]) => variants.reduce((sum, { body }) => sum + body.length, 0)

/** Returns a key of a fixed length, since the text may be as long as a header section. */
const ownKey = (identity: string) => `own ${hash('sha256', identity, 'base64')}`

/** Returns a key of resource and consumer: consumers share nothing, not even public responses. */
function publicKey(opts: DispatchOptions): string {
  let text = encode(opts.variant) + encode(opts.path) + encode(opts.caller?.consumer?.id)
  const pairs = lowerCasePairs(opts)
  for (let i = 0; i < pairs.length; i += 2)
    if (locating.test(pairs[i]!)) text += encode(pairs[i]) + encode(pairs[i + 1])
  return `public ${hash('sha256', text, 'base64')}`
}

/** Returns whether the request's `Cache-Control` allows a stored response, and storing its response. */
function allowsStored(opts: DispatchOptions): boolean {
  const directives = cacheControl(headerOf(opts, 'cache-control'))
  return !(directives.has('no-store') || directives.has('no-cache'))
}

/**
 * Returns for how long a response may be used: some must not be used when stale (RFC 9111, 4.2.4), unless the service
 * allows it on errors (RFC 5861).
 */
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

/** Returns the end-to-end headers; null if `Connection` cannot be parsed, which names the hop-by-hop ones. */
function endToEnd(headers: IncomingHttpHeaders): IncomingHttpHeaders | null {
  const nominated = listItems(String(headers.connection ?? '').toLowerCase(), mostNominated)
  if (nominated === null) return null
  const left = new Set([...dropped, ...nominated])
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !left.has(name)))
}
