/**
 * Headers that a service trusts, because a concern or a plugin sets them on some route, and the client's copies of
 * them, which must reach that service over no route at all: a service cannot tell by which route a request came.
 *
 * Two names in `services` that lead to the same instances are one service here. A route reaches the services of its
 * split, of its fallbacks and of its mirror as well, and those of these services.
 */
import type { Config, RouteConfig, ServiceConfig } from '../../../config/schema.ts'
import type { HeaderFilter } from './upstream-headers.ts'
import { headerFilter } from './upstream-headers.ts'

type Policy = Pick<RouteConfig['mesh'], 'fallback' | 'mirror' | 'split'>

export class HeaderTrust {
  readonly #services: Config['services']
  /** For each backend, the headers that some route sets. */
  readonly #trusted = new Map<string, Set<string>>()
  /** Those that may reach all of them. */
  readonly #everywhere = new Set<string>()
  /** For each service, the backends that a call to it may reach. */
  readonly #reached = new Map<string, ReadonlySet<string>>()

  constructor({ services }: Pick<Config, 'services'>) {
    this.#services = services
  }

  /** Records the headers that a route drops, for all that it reaches. */
  add(route: RouteConfig, names: readonly string[]): void {
    if (names.length === 0) return
    for (const backend of this.#backendsOf(route)) {
      const trusted = this.#trusted.get(backend) ?? new Set()
      this.#trusted.set(backend, trusted)
      for (const name of names) trusted.add(name)
    }
  }

  /** Records headers that a plugin's own route sets: it may call any service. */
  addEverywhere(names: readonly string[]): void {
    for (const name of names) this.#everywhere.add(name)
  }

  /** Returns the filter of a route; null if no header is dropped. Complete once all routes have been added. */
  filterFor(route: Pick<RouteConfig, 'service' | 'mesh'>): HeaderFilter | null {
    if (this.#trusted.size + this.#everywhere.size === 0) return null
    const trusted = [...this.#backendsOf(route)].flatMap((backend) => [...(this.#trusted.get(backend) ?? [])])
    return headerFilter([...this.#everywhere, ...trusted])
  }

  #backendsOf(route: Pick<RouteConfig, 'service' | 'mesh'>): Set<string> {
    const names = [route.service, ...servicesIn(route.mesh)]
    return new Set(names.flatMap((name) => [...this.#backendsOfService(name)]))
  }

  #backendsOfService(name: string): ReadonlySet<string> {
    const known = this.#reached.get(name)
    if (known !== undefined) return known
    const names = new Set([name])
    // A Set's iteration includes what is added meanwhile: the services of a fallback's own fallback.
    for (const each of names) {
      const service = this.#services[each]
      if (service !== undefined) for (const other of servicesIn(service.mesh)) names.add(other)
    }
    const backends = new Set([...names].flatMap((each) => [each, ...addressesOf(this.#services[each])]))
    this.#reached.set(name, backends)
    return backends
  }
}

/** The other services that a policy sends calls to. */
function servicesIn({ split, fallback, mirror }: Policy): string[] {
  return [
    ...(split ?? []).map(({ service }) => service),
    ...(fallback || []).flatMap(({ service }) => service ?? []),
    ...(mirror ? [mirror.service] : [])
  ]
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
