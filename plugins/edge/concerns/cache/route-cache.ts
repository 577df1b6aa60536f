/** The cache of one route: an interceptor of its calls, which decides for each request between the store and the service. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'
import type { RouteConfig } from '../../../../config/schema.ts'
import type { Clock } from '../../../clock.ts'
import type { Asked, Reader } from './asked.ts'
import { conditionalHeaders, differs, hasValidator } from './conditions.ts'
import { Delivery } from './delivery.ts'
import type { FetchContext } from './fetch.ts'
import { Fetch } from './fetch.ts'
import type { Flight, Flights } from './flights.ts'
import { flightKey } from './flights.ts'
import type { HeldBodies } from './held-bodies.ts'
import { passing } from './invalidation.ts'
import type { Count } from './metrics.ts'
import type { CacheOptions } from './options.ts'
import { NotCached, responseFrom } from './respond.ts'
import { annotated, hitStatus, reasonOf, withFields } from './status-field.ts'
import type { Found, ResponseStore } from './store.ts'
import type { StoredHead, StoredResponse } from './stored.ts'
import { hasConditions, storable, updatedHeaders } from './stored.ts'
import { fits, isUsableOnError, usability } from './usable.ts'

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

/** A flight, and the fetch on whose response its requests wait. */
interface LedFlight {
  readonly key: string
  readonly flight: Flight
}

export class RouteCache implements FetchContext {
  readonly #options: CacheOptions
  readonly #route: RouteConfig
  readonly #reader: Reader
  readonly #store: ResponseStore
  readonly #flights: Flights
  readonly #held: HeldBodies
  readonly #clock: Clock
  readonly #count: Count
  readonly #dispatch: Dispatcher['dispatch']
  readonly #flightOf = new WeakMap<Fetch, LedFlight>()
  readonly #background = new Set<Fetch>()
  readonly maxEntry: number

  constructor(
    facts: {
      readonly options: CacheOptions
      readonly route: RouteConfig
      readonly reader: Reader
      readonly store: ResponseStore
      readonly flights: Flights
      readonly held: HeldBodies
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
    this.#held = facts.held
    this.#clock = facts.clock
    this.#count = facts.count
    this.#dispatch = dispatch
    this.maxEntry = facts.options.maxEntry
  }

  /** The interceptor: dispatches a request, or answers it from the store. */
  dispatch(opts: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const asked = this.#reader.read(opts)
    if (asked === null) {
      if (!opts.upgrade) this.#count('bypass')
      return this.#dispatch(opts, passing(handler, opts, this.#store, this.#options, this.#route.service))
    }
    const delivery = new Delivery(handler, this.#route.service)
    delivery.start()
    this.#lookUp({ asked, delivery, rounds: 0 })
    return true
  }

  #lookUp(turn: Turn): void {
    this.#store.lookup(turn.asked, (found) => this.#decide(turn, found))
  }

  /** Decides. An error ends this request alone: the caller may be a store, or a fetch on which others wait as well. */
  #decide(turn: Turn, found: Found): void {
    try {
      this.#proceed(turn, found)
    } catch (error) {
      turn.delivery.fail(error as Error)
    }
  }

  #proceed(turn: Turn, found: Found): void {
    const { asked, delivery } = turn
    if (delivery.isOver) return
    const stored = delivery.hold(found.stored, this.#held, asked)
    const state = stored === null || asked.directives.has('no-store') ? null : usability(stored, asked, this.now())
    if (state === 'fresh' || state === 'stale' || state === 'refresh') {
      this.#count(turn.rounds > 0 ? 'collapsed' : state === 'fresh' ? 'hit' : 'stale')
      if (state === 'refresh') this.#refresh(asked, stored!, found)
      const status = hitStatus(this.#options, stored!, asked, this.now(), turn.rounds > 0)
      this.#respond(asked, delivery, stored!, state === 'fresh' ? 'hit' : 'stale', status)
    } else if (asked.directives.has('only-if-cached')) {
      this.#count('miss')
      delivery.fail(new NotCached())
    } else this.#fetch(turn, state === null ? null : stored, { ...found, stored }, reasonOf(asked, found, state))
  }

  #fetch(turn: Turn, stored: StoredResponse | null, found: Found, reason: string): void {
    const { asked, delivery } = turn
    const key = flightKey(asked, found)
    const waitMs = this.#options.coalesce
    // A response to a condition, a range or HEAD may not be stored, so others do not wait for it.
    const mayLead = !hasConditions(asked) || (stored !== null && hasValidator(stored))
    const mayShare = waitMs > 0 && mayLead && !asked.isHead && !asked.directives.has('no-store')
    let flight: Flight | undefined
    if (mayShare && !this.#flights.isUnshared(key)) {
      const other = this.#flights.get(key)
      const wait = (shared: StoredResponse | null, isLate: boolean) => {
        turn.rounds = isLate ? maxRounds : turn.rounds + 1
        if (shared !== null && fits(shared, asked)) this.#decide(turn, { ...found, stored: shared })
        else this.#lookUp(turn)
      }
      if (other !== undefined && turn.rounds < maxRounds && other.join(wait, waitMs)) return
      if (other === undefined) flight = this.#flights.begin(key)
    }
    this.#count(stored === null ? 'miss' : 'expired')
    this.#send(asked, delivery, stored, found, reason, flight && { key, flight })
  }

  /** Fetches a response in the background, unless that is under way. */
  #refresh(asked: Asked, stored: StoredResponse, found: Found): void {
    const key = flightKey(asked, found)
    if (this.#flights.get(key) !== undefined || this.#background.size >= maxBackground) return
    const flight = this.#flights.begin(key)
    this.#send({ ...asked, isHead: false }, null, stored, found, 'stale', { key, flight })
  }

  #send(
    asked: Asked,
    delivery: Delivery | null,
    stored: StoredResponse | null,
    found: Found,
    reason: string,
    led?: LedFlight
  ): void {
    const isConditional = stored !== null && hasValidator(stored)
    const pending = this.#store.begin(asked.resource, found)
    const fetch = new Fetch(this, { asked, delivery, stored, isConditional, pending, reason })
    if (led !== undefined) this.#flightOf.set(fetch, led)
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
    return this.#store.bodies.reserve(bytes)
  }

  release(bytes: number): void {
    this.#store.bodies.release(bytes)
  }

  end(pending: Fetch['pending']): void {
    this.#store.end(pending)
  }

  judge(fetch: Fetch, status: number, headers: IncomingHttpHeaders, text: string): StoredHead | null {
    const { asked, stored, isOfService } = fetch
    if (asked.isHead) {
      if (stored !== null && differs(stored, headers)) this.#store.remove(stored, asked)
      return null
    }
    // A response that ends with the connection may be cut off, which nothing would show. Trailers are not stored.
    const isFramed = headers['content-length'] !== undefined || isChunked(headers)
    const hasEnd = isFramed && headers.trailer === undefined
    const isEmpty = status === 204
    const mayStore = isOfService && (hasEnd || isEmpty)
    const head = mayStore ? storable(asked, this.#options, status, headers, text, this.#facts(fetch)) : null
    if (head === null && stored !== null && status < 500) this.#store.remove(stored, asked)
    return fetch.pending.isOutdated ? null : head
  }

  #facts({ sentAt, instance }: Fetch) {
    return { route: this.#route.name, instance, sentAt, now: this.now() }
  }

  store({ asked, pending, stored }: Fetch, entry: StoredResponse, done: (stored: StoredResponse | null) => void): void {
    if (stored !== null && !pending.isOutdated) this.#store.remove(stored, asked)
    this.#store.put(entry, asked, pending, (isValid) => done(isValid ? entry : null))
  }

  confirm(fetch: Fetch, headers: IncomingHttpHeaders, done: (stored: StoredResponse | null) => void): StoredResponse {
    const { asked, pending } = fetch
    const stored = fetch.stored!
    const merged = updatedHeaders(stored, headers)
    const head = storable(asked, this.#options, stored.status, merged, stored.text, this.#facts(fetch))
    this.#store.remove(stored, asked)
    if (head === null) {
      done(null)
      return { ...stored, headers: merged }
    }
    const updated = { ...head, instance: stored.instance, body: stored.body }
    this.#store.put(updated, asked, pending, (isValid) => done(isValid ? updated : null))
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

  settled(fetch: Fetch, stored: StoredResponse | null): void {
    this.#background.delete(fetch)
    const own = this.#flightOf.get(fetch)
    if (own === undefined) return
    this.#flightOf.delete(fetch)
    if (stored !== null) this.#flights.noteShared(own.key)
    else if (fetch.isUnstorable) this.#flights.noteUnshared(own.key)
    own.flight.end(stored)
  }

  #respond(asked: Asked, delivery: Delivery, stored: StoredResponse, kind: string, field: string | null): void {
    const { status, text, headers, body } = responseFrom(stored, asked, this.now())
    delivery.substituteOwn = kind
    delivery.instanceOwn = stored.instance
    delivery.head(status, withFields(this.#options, headers, field), text)
    delivery.body(body)
  }
}

const isChunked = ({ 'transfer-encoding': coding }: IncomingHttpHeaders) => /(?:^|,)\s*chunked\s*$/i.test(coding ?? '')
