/** Completes the sections of a validated document that the mesh reads, also without a gateway. */
import type { TObject } from 'typebox'
import type { Steps } from '../plugins/time-slices.ts'
import type { Key, Keys } from './concern.ts'
import { basePathOf } from './instances.ts'
import { defaultsOf } from './schema/kit.ts'
import type { Config, DiscoveryOptions, MeshPolicy, ServiceConfig, ServiceOptions, Written } from './schema.ts'
import { defaultSources, sourcesOf } from './sources.ts'

/** A function that resolves a path relative to the configuration's folder. */
export type Absolute = (path: string) => string

/** Completes `mesh`, `services` and `discovery`. `more` returns further members of a service. */
export function* completeServices(
  data: Written,
  keys: Keys,
  absolute: Absolute,
  more: (written: ServiceOptions) => Partial<ServiceConfig> = () => ({})
): Steps<Pick<Config, 'mesh' | 'services' | 'discovery'>> {
  const mesh = completeSection(data.mesh, keys.mesh, absolute)
  const named: [name: string, service: ServiceConfig][] = []
  for (const [name, written] of Object.entries(data.services)) {
    yield
    const policy = { ...mesh, ...completeSection(written.mesh ?? {}, keys.mesh, absolute) }
    const completed = service(name, written, policy, data.discovery, keys, absolute)
    named.push([name, { ...completed, ...more(written) }])
  }
  return { mesh, services: Object.fromEntries(named), discovery: discovery(data, keys, absolute) }
}

/** Lets each concern complete its options, such as paths of files. */
export function completeSection<T extends object>(section: T, keys: readonly Key[], absolute: Absolute): T {
  const copy = { ...section }
  for (const key of keys) {
    const options: unknown = Reflect.get(copy, key.name)
    if (options && key.complete) Object.assign(copy, { [key.name]: key.complete(options, absolute) })
  }
  return copy
}

/** Returns a service with the key of its source, also if the source is the default one. */
function service(
  name: string,
  { forward: _own, ...written }: ServiceOptions,
  mesh: MeshPolicy,
  discovery: DiscoveryOptions,
  { sources }: Keys,
  absolute: Absolute
): ServiceConfig {
  const [source] = [...sourcesOf(written, sources), ...defaultSources(discovery, sources)]
  const basePath = basePathOf(written)
  const own = { ...written, name, ...(basePath !== undefined && { basePath }), mesh }
  if (source === undefined) return own
  const given: unknown =
    Reflect.get(written, source.name) ?? ('properties' in source.service ? defaultsOf(source.service as TObject) : {})
  const completed = source.completeService?.(given, name, absolute) ?? given
  return { ...own, [source.name]: completed }
}

function discovery({ discovery: written }: Written, { sources }: Keys, absolute: Absolute): DiscoveryOptions {
  const { snapshot } = written
  const completed = sources.flatMap(({ name, complete }) => {
    const options: unknown = Reflect.get(written, name)
    return options === undefined || complete === undefined ? [] : [[name, complete(options, absolute)]]
  })
  return {
    ...written,
    ...Object.fromEntries(completed),
    ...(snapshot && { snapshot: files(snapshot, ['path'], absolute) })
  }
}

export function files<T extends object, K extends keyof T>(section: T, keys: readonly K[], absolute: Absolute): T {
  const copy = { ...section }
  for (const key of keys) {
    const path = copy[key]
    if (typeof path === 'string') Object.assign(copy, { [key]: absolute(path) })
  }
  return copy
}

export function freeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  for (const inner of Object.values(value)) freeze(inner)
  return Object.freeze(value)
}
