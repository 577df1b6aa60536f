/**
 * Headers that services trust because a concern or a plugin sets them on some route. Copies that clients send must not
 * reach such a service by any route, because a service cannot tell by which route a request came.
 *
 * Two entries of `services` with the same instances count as one service. A route reaches its service, the services of its
 * split, those to which concerns send calls or copies (fallback, mirror), and the services that these reach in turn.
 */
import type { Config, RouteConfig } from '../../../config/schema.ts'
import type { HeaderFilter } from './upstream-headers.ts'
import { headerFilter } from './upstream-headers.ts'

type Target = Pick<RouteConfig, 'services'>

export class HeaderTrust {
  readonly #shared: Config['backends']
  readonly #others: Config['otherServices']
  /** By backend: the headers that some route sets. */
  readonly #trusted = new Map<string, Set<string>>()
  /** Headers that may reach all backends. */
  readonly #everywhere = new Set<string>()
  /** By service: the backends that a call to it may reach. */
  readonly #reached = new Map<string, ReadonlySet<string>>()
  /** Cached filters by the services of a route; cleared when a header is added. */
  readonly #filters = new Map<string, HeaderFilter | null>()

  constructor({ backends, otherServices }: Pick<Config, 'backends' | 'otherServices'>) {
    this.#shared = backends
    this.#others = otherServices
  }

  /** Records the headers that a route drops, for all backends that it reaches. */
  add(route: Target, names: readonly string[]): void {
    if (names.length === 0) return
    this.#filters.clear()
    for (const backend of this.#backendsOf(route)) {
      const trusted = this.#trusted.get(backend) ?? new Set()
      this.#trusted.set(backend, trusted)
      for (const name of names) trusted.add(name)
    }
  }

  /** Records headers that a plugin's own route sets; the route may call any service. */
  addEverywhere(names: readonly string[]): void {
    this.#filters.clear()
    for (const name of names) this.#everywhere.add(name)
  }

  /** Returns the filter of a route; null if it drops no header. Complete once all routes are added. */
  filterFor(route: Target): HeaderFilter | null {
    if (this.#trusted.size + this.#everywhere.size === 0) return null
    const key = route.services.join()
    const known = this.#filters.get(key)
    if (known !== undefined) return known
    const trusted = [...this.#backendsOf(route)].flatMap((backend) => [...(this.#trusted.get(backend) ?? [])])
    const filter = headerFilter([...this.#everywhere, ...trusted])
    this.#filters.set(key, filter)
    return filter
  }

  #backendsOf({ services }: Target): Set<string> {
    return new Set(services.flatMap((name) => [...this.#backendsOfService(name)]))
  }

  #backendsOfService(name: string): ReadonlySet<string> {
    const known = this.#reached.get(name)
    if (known !== undefined) return known
    const names = new Set([name])
    // Iterating a Set includes members added meanwhile: the services that these services call in turn.
    for (const each of names) for (const other of this.#others[each] ?? []) names.add(other)
    const backends = new Set([...names].flatMap((each) => [each, ...(this.#shared[each] ?? [])]))
    this.#reached.set(name, backends)
    return backends
  }
}
