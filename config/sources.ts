/** Choice of the source of a service's instances. */
import type { SourceKey } from './concern.ts'
import type { DiscoveryOptions, ServiceOptions } from './schema.ts'

/** Returns the sources that a service names. */
export const sourcesOf = (service: ServiceOptions, sources: readonly SourceKey[]): SourceKey[] =>
  sources.filter(({ name }) => Reflect.get(service, name) !== undefined)

/** Returns the sources that can find a service which names none; with `discovery.default`, that one. */
export function defaultSources(discovery: DiscoveryOptions, sources: readonly SourceKey[]): SourceKey[] {
  const usable = sources.filter(({ name, findsByName }) => {
    const options: unknown = Reflect.get(discovery, name)
    return options !== undefined && findsByName?.(options)
  })
  return discovery.default === undefined ? usable : usable.filter(({ name }) => name === discovery.default)
}
