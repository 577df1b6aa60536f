/** Choice of the source of a service's instances. */
import type { SourceKey } from './concern.ts'
import type { DiscoveryOptions, ServiceConfig, ServiceOptions } from './schema.ts'

/** Returns the sources that a service names. */
export const sourcesOf = (
  service: Omit<ServiceOptions, 'mesh' | 'forward'>,
  sources: readonly SourceKey[]
): SourceKey[] => sources.filter(({ name }) => Reflect.get(service, name) !== undefined)

/** Returns the sources that can find a service which names none; with `discovery.default`, that one. */
export function defaultSources(discovery: DiscoveryOptions, sources: readonly SourceKey[]): SourceKey[] {
  const usable = sources.filter(({ name, findsByName }) => {
    const options: unknown = Reflect.get(discovery, name)
    return options !== undefined && findsByName?.(options)
  })
  return discovery.default === undefined ? usable : usable.filter(({ name }) => name === discovery.default)
}

/** Returns names of the instances of a service: two services with a name in common share instances. */
export function backendsOf(service: ServiceConfig, sources: readonly SourceKey[]): string[] {
  const found = sourcesOf(service, sources).flatMap((source) => {
    const own: unknown = Reflect.get(service, source.name)
    const text = JSON.stringify(own)
    return source.backends?.(own, service.name) ?? [`${source.name} ${text === '{}' ? service.name : text}`]
  })
  return service.sidecar === undefined ? found : [...found, `at ${new URL(service.sidecar).host}`]
}
