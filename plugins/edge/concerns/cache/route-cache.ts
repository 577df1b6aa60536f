/** The cache of one route: an interceptor of its calls, which decides for each request between memory and the service. */
import type { IncomingHttpHeaders } from 'node:http'
import createError from '@fastify/error'
import type { Dispatcher } from 'undici'
import type { RouteConfig } from '../../../../config/schema.ts'
import type { Clock } from '../../../clock.ts'
import type { Asked, Reader } from './asked.ts'
import { conditionalHeaders, differs, hasConditions, hasValidator } from './conditions.ts'
import { Delivery } from './delivery.ts'
import type { FetchContext } from './fetch.ts'
import { Fetch } from './fetch.ts'
import type { Flight, Flights } from './flights.ts'
import { Invalidation } from './invalidation.ts'
import type { MemoryStore } from './memory-store.ts'
import type { Count } from './metrics.ts'
import type { CacheOptions } from './options.ts'
import { responseFrom } from './respond.ts'
import { annotated, hitStatus, withFields } from './status-field.ts'
import type { StoredHead, StoredResponse } from './stored.ts'
import { storable, updatedHeaders } from './stored.ts'
import { choose, isUsableOnError, usability } from './usable.ts'

const NotCached = createError(
  'JW_NOT_CACHED',
  'The response is not in the cache, and only-if-cached asks for no other',
  504
)

/** Fetches in the background at a time, for each route. */
const maxBackground = 100
/** Rounds after which a request that has waited for others fetches on its own. */
const maxRounds = 2

/** A request with its response to be. */
interface Turn {
  readonly asked: Asked
  readonly delivery: Delivery
  /** Number of fetches of others that it has waited for. */
  rounds: number
}

export class RouteCache implements FetchContext {
  readonly #options: CacheOptions
  readonly #route: RouteConfig
  readonly #reader: Reader
  readonly #store: MemoryStore
  readonly #flights: Flights
  readonly #clock: Clock
  readonly #count: Count
  readonly #dispatch: Dispatcher['dispatch']
  readonly #flightOf = new WeakMap<Fetch, { readonly key: string; readonly flight: Flight }>()
  readonly #background = new Set<Fetch>()
  readonly maxEntry: number

  constructor(
    facts: {
      readonly options: CacheOptions
      readonly route: RouteConfig
      readonly reader: Reader
      readonly store: MemoryStore
      readonly flights: Flights
      readonly clock: Clock
      readonly count: Count
    },
    dispatch: Dispatcher['dispatch']
  ) {
    this.#options = facts.options
    this.#route = facts.route
    this.#reader = facts.reader
    this.#store = facts.store
    this.#flights = facts.flights
    this.#clock = facts.clock
    this.#count = facts.count
    this.#dispatch = dispatch
    this.maxEntry = facts.options.maxEntry
  }

  /** The interceptor: dispatches a request, or answers it from memory. */
  dispatch(opts: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const asked = this.#reader.read(opts)
    if (asked === null) {
      if (!opts.upgrade) this.#count('bypass')
      return this.#dispatch(opts, new Invalidation(handler, opts, this.#store, this.#options))
    }
    const delivery = new Delivery(handler, this.#route.service)
    delivery.start()
    this.#decide({ asked, delivery, rounds: 0 })
    return true
  }

  #find(asked: Asked): StoredResponse | null {
    const isShared = asked.publicKey === asked.ownKey
    const shared = choose(this.#store.find(asked.publicKey), asked, asked.isPersonal || !isShared)
    if (isShared || asked.isPersonal) return shared
    const own = choose(this.#store.find(asked.ownKey), asked, false)
    return own !== null && (shared === null || own.storedAt >= shared.storedAt) ? own : shared
  }

  #decide(turn: Turn): void {
    const { asked, delivery } = turn
    if (delivery.isOver) return
    const stored = this.#find(asked)
    const state = stored === null || asked.directives.has('no-store') ? null : usability(stored, asked, this.now())
    if (state === 'fresh' || state === 'stale' || state === 'refresh') {
      this.#count(turn.rounds > 0 ? 'collapsed' : state === 'fresh' ? 'hit' : 'stale')
      if (state === 'refresh') this.#refresh(asked, stored!)
      const status = hitStatus(this.#options, stored!, asked, this.now(), turn.rounds > 0)
      this.#respond(asked, delivery, stored!, state === 'fresh' ? 'hit' : 'stale', status)
    } else if (asked.directives.has('only-if-cached')) {
      this.#count('miss')
      delivery.fail(new NotCached())
    } else this.#fetch(turn, state === null ? null : stored, reasonOf(asked, stored, state, this.#store))
  }

  #fetch(turn: Turn, stored: StoredResponse | null, reason: string): void {
    const { asked, delivery } = turn
    const key = this.#flightKey(asked)
    const waitMs = this.#options.coalesce
    // A response to a condition, a range or HEAD may not be stored, so others do not wait for it.
    const mayLead = !hasConditions(asked) || (stored !== null && hasValidator(stored))
    const mayShare = waitMs > 0 && mayLead && !asked.isHead && !asked.directives.has('no-store')
    let flight: Flight | undefined
    if (mayShare && !this.#flights.isUnshared(key)) {
      const other = this.#flights.get(key)
      const wait = () => {
        turn.rounds++
        this.#decide(turn)
      }
      if (other !== undefined && turn.rounds < maxRounds && other.join(wait, waitMs)) return
      if (other === undefined) flight = this.#flights.begin(key)
    }
    this.#count(stored === null ? 'miss' : 'expired')
    this.#send(asked, delivery, stored, reason, flight)
  }

  /** Requests for different variants do not wait for each other, once it is known what they differ in. */
  #flightKey(asked: Asked): string {
    const [known] = this.#store.find(asked.isPersonal ? asked.publicKey : asked.ownKey)
    // Callers with credentials often get responses that are not stored, for which no other client should wait.
    const key = asked.isPersonal ? `personal ${asked.publicKey}` : asked.ownKey
    if (known === undefined || known.varyNames.length === 0) return key
    return `${key} ${known.varyNames.map((name) => asked.headers.get(name)).join('\n')}`
  }

  /** Fetches a response in the background, unless that is under way. */
  #refresh(asked: Asked, stored: StoredResponse): void {
    const key = this.#flightKey(asked)
    if (this.#flights.get(key) !== undefined || this.#background.size >= maxBackground) return
    this.#send({ ...asked, isHead: false }, null, stored, 'stale', this.#flights.begin(key))
  }

  #send(asked: Asked, delivery: Delivery | null, stored: StoredResponse | null, reason: string, flight?: Flight): void {
    const isConditional = stored !== null && !asked.isHead && hasValidator(stored)
    const pending = this.#store.begin(asked.resource)
    const fetch = new Fetch(this, { asked, delivery, stored, isConditional, pending, reason })
    if (flight !== undefined) this.#flightOf.set(fetch, { key: this.#flightKey(asked), flight })
    let { opts } = asked
    if (isConditional || (delivery === null && stored !== null))
      opts = { ...opts, headers: conditionalHeaders(opts.headers as readonly string[], stored!) }
    if (delivery === null) {
      this.#background.add(fetch)
      const { request: _request, ...rest } = opts
      opts = { ...rest, method: 'GET' }
    }
    try {
      this.#dispatch(opts, fetch)
    } catch (error) {
      fetch.onResponseError(delivery as never, error as Error)
    }
  }

  now(): number {
    return this.#clock.date()
  }

  reserve(bytes: number): boolean {
    return this.#store.reserve(bytes)
  }

  release(bytes: number): void {
    this.#store.release(bytes)
  }

  end(pending: Fetch['pending']): void {
    this.#store.end(pending)
  }

  judge(fetch: Fetch, status: number, headers: IncomingHttpHeaders, text: string): StoredHead | null {
    const { asked, stored, substitute } = fetch
    if (asked.isHead) {
      if (stored !== null && differs(stored, headers)) this.#store.remove(stored)
      return null
    }
    // A response that ends with the connection may be cut off, which nothing would show. Trailers are not stored.
    const isFramed = headers['content-length'] !== undefined || headers['transfer-encoding'] !== undefined
    const hasEnd = isFramed && headers.trailer === undefined
    const isEmpty = status === 204
    const mayStore = (substitute === null || substitute === 'shared') && (hasEnd || isEmpty)
    const head = mayStore ? storable(asked, this.#options, status, headers, text, this.#facts(fetch)) : null
    if (head === null && stored !== null && status < 500) this.#store.remove(stored)
    return fetch.pending.isOutdated ? null : head
  }

  #facts({ sentAt, instance }: Fetch) {
    return { route: this.#route.name, instance, sentAt, now: this.now() }
  }

  store({ pending, stored }: Fetch, entry: StoredResponse): void {
    if (pending.isOutdated) return
    if (stored !== null) this.#store.remove(stored)
    this.#store.put(entry)
  }

  confirm(fetch: Fetch, headers: IncomingHttpHeaders): StoredResponse {
    const { asked, pending } = fetch
    const stored = fetch.stored!
    const merged = updatedHeaders(stored, headers)
    const head = storable(asked, this.#options, stored.status, merged, stored.text, this.#facts(fetch))
    this.#store.remove(stored)
    if (head === null) return { ...stored, headers: merged }
    const updated = { ...head, instance: stored.instance, body: stored.body }
    if (!pending.isOutdated) this.#store.put(updated)
    return updated
  }

  rescues({ asked, stored }: Fetch): boolean {
    return stored !== null && isUsableOnError(stored, asked, this.now())
  }

  send(
    { asked, delivery, reason }: Fetch,
    stored: StoredResponse,
    kind: 'revalidated' | 'stale',
    status: number | null
  ): void {
    this.#count(kind)
    const field = annotated(this.#options, {
      reason,
      status,
      stored: kind === 'revalidated' ? stored : null,
      key: asked.publicKey,
      now: this.now()
    })
    this.#respond(asked, delivery!, stored, kind, field)
  }

  annotate(
    { asked, reason }: Fetch,
    headers: IncomingHttpHeaders,
    status: number,
    head: StoredHead | null
  ): IncomingHttpHeaders {
    const field = annotated(this.#options, {
      reason,
      status: reason === 'stale' ? status : null,
      stored: head,
      key: asked.publicKey,
      now: this.now()
    })
    return withFields(this.#options, headers, field)
  }

  settled(fetch: Fetch, isStored: boolean): void {
    this.#background.delete(fetch)
    const own = this.#flightOf.get(fetch)
    if (own === undefined) return
    this.#flightOf.delete(fetch)
    if (isStored) this.#flights.noteShared(own.key)
    else if (fetch.isUnstorable) this.#flights.noteUnshared(own.key)
    own.flight.end()
  }

  #respond(asked: Asked, delivery: Delivery, stored: StoredResponse, kind: string, field: string | null): void {
    const { status, text, headers, body } = responseFrom(stored, asked, this.now())
    delivery.substituteOwn = kind
    delivery.instanceOwn = stored.instance
    delivery.head(status, withFields(this.#options, headers, field), text)
    delivery.body(body)
  }
}

/** Returns the reason of a fetch, as in `Cache-Status` (RFC 9211, 2.2). */
function reasonOf(asked: Asked, stored: StoredResponse | null, state: string | null, store: MemoryStore): string {
  if (asked.directives.has('no-store') || state === 'asked') return 'request'
  if (stored !== null) return 'stale'
  return store.find(asked.publicKey).length > 0 ? 'vary-miss' : 'uri-miss'
}
