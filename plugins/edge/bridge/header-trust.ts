/**
 * Headers that a service trusts, because a concern or a plugin sets them on some route, and the client's copies of
 * them, which must reach that service over no route at all: a service cannot tell by which route a request came.
 *
 * Two names in `services` that lead to the same instances are one service here. A route reaches the services of its
 * split and those to which concerns send calls or copies of them, and those that these services reach.
 */
import type { Config, RouteConfig, ServiceConfig } from '../../../config/schema.ts'
import type { HeaderFilter } from './upstream-headers.ts'
import { headerFilter } from './upstream-headers.ts'

type Target = Pick<RouteConfig, 'services'>

export class HeaderTrust {
  readonly #services: Config['services']
  readonly #others: Config['otherServices']
  /** For each backend, the headers that some route sets. */
  readonly #trusted = new Map<string, Set<string>>()
  /** Those that may reach all of them. */
  readonly #everywhere = new Set<string>()
  /** For each service, the backends that a call to it may reach. */
  readonly #reached = new Map<string, ReadonlySet<string>>()
  /** For the same services, the filter as of the header that was added last. */
  readonly #filters = new Map<string, HeaderFilter | null>()

  constructor({ services, otherServices }: Pick<Config, 'services' | 'otherServices'>) {
    this.#services = services
    this.#others = otherServices
  }

  /** Records the headers that a route drops, for all that it reaches. */
  add(route: Target, names: readonly string[]): void {
    if (names.length === 0) return
    this.#filters.clear()
    for (const backend of this.#backendsOf(route)) {
      const trusted = this.#trusted.get(backend) ?? new Set()
      this.#trusted.set(backend, trusted)
      for (const name of names) trusted.add(name)
    }
  }

  /** Records headers that a plugin's own route sets: it may call any service. */
  addEverywhere(names: readonly string[]): void {
    this.#filters.clear()
    for (const name of names) this.#everywhere.add(name)
  }

  /** Returns the filter of a route; null if no header is dropped. Complete once all routes have been added. */
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
    // A Set's iteration includes what is added meanwhile: the services to which those send calls in turn.
    for (const each of names) for (const other of this.#others[each] ?? []) names.add(other)
    const backends = new Set([...names].flatMap((each) => [each, ...addressesOf(this.#services[each])]))
    this.#reached.set(name, backends)
    return backends
  }
}

/**
 * Returns the addresses at which a service's instances are found. Services with one of them in common share instances.
 */
function addressesOf(service: ServiceConfig | undefined): string[] {
  if (service === undefined) return []
  const { consul, dns, instances, sidecar } = service
  const urls = (instances ?? []).map((instance) => (typeof instance === 'string' ? instance : instance.url))
  return [
    ...(consul === undefined ? [] : [`consul ${consul.service?.toLowerCase()}`]),
    ...(dns === undefined ? [] : [`dns ${dns.host.toLowerCase()} ${dns.port ?? 'srv'}`]),
    ...[...urls, ...(sidecar === undefined ? [] : [sidecar])].map((url) => `at ${new URL(url).host}`)
  ]
}
