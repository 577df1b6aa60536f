/**
 * Entry `jingwei/mesh`: the mesh without a gateway, for any Node program.
 *
 * ```ts
 * const mesh = createMesh({ mesh: { timeout: '3s' }, services: { orders: { instances: ['http://127.0.0.1:9101'] } } })
 * const { body } = await mesh.request({ origin: 'http://orders.mesh', path: '/orders', method: 'GET' })
 * ```
 */
import { resolve } from 'node:path'
import { checkConcerns } from '../config/check-concerns.ts'
import { checkServices } from '../config/check-services.ts'
import { completeServices, freeze } from '../config/complete-services.ts'
import type { Place } from '../config/faults.ts'
import { ConfigError, Report, segmentsOf } from '../config/faults.ts'
import { meshSchema } from '../config/mesh-schema.ts'
import { didYouMean } from '../config/nearest.ts'
import type { DiscoveryOptions, MeshPolicy, ServiceOptions, Written } from '../config/schema.ts'
import { withDefaults } from '../config/settings.ts'
import { looksLikeSource, sourceFault } from '../config/source-definition.ts'
import { meshKeys } from './mesh/chain.ts'
import type { DiscoverySource } from './mesh/discovery/contract.ts'
import { sources } from './mesh/discovery/sources.ts'
import type { UserDiscoverySource } from './mesh/discovery/user-source.ts'
import { userSource } from './mesh/discovery/user-source.ts'
import { installFetch } from './mesh/fetch.ts'
import type { LibraryOptions } from './mesh/library.ts'
import { LibraryMesh } from './mesh/library.ts'
import type { Mesh, MeshConfig } from './mesh/mesh.ts'
import { NotReadyError } from './mesh/ready.ts'
import type { MetricsRegistry } from './registry-meter.ts'
import { RegistryMeter } from './registry-meter.ts'
import { atOnce } from './time-slices.ts'

export type * from '../config/schema.ts'
export type { Interceptor, Logger } from './mesh/core/types.ts'
export type { PublishedInstance, UserDiscoverySource } from './mesh/discovery/user-source.ts'
export type { UseOptions } from './mesh/interceptors.ts'
export type { CallHeaders } from './mesh/library.ts'
export type { Mesh } from './mesh/mesh.ts'
export type { ReadyOptions } from './mesh/ready.ts'
export type { Meter } from './meter.ts'
export type { MetricsRegistry } from './registry-meter.ts'
export { ConfigError, installFetch, NotReadyError }

/**
 * A value as in a configuration file: a text with its unit (`15s`, `1mb`, `20%`). Durations may also be numbers of
 * milliseconds, sizes numbers of bytes.
 */
export type Setting<T> = T extends number
  ? number | string
  : T extends readonly (infer I)[]
    ? readonly Setting<I>[]
    : T extends object
      ? { readonly [K in keyof T]?: Setting<T[K]> | undefined }
      : T

/** The sections of a configuration file that the mesh reads. */
export interface MeshSettings {
  readonly discovery?: Setting<DiscoveryOptions>
  /** Defaults for every service. */
  readonly mesh?: Setting<MeshPolicy>
  readonly services: Readonly<Record<string, Setting<ServiceOptions>>>
}

/** Empty values of the sections about clients, which a mesh does not have. */
const withoutEdge = { listeners: [], edge: {}, routes: [], plugins: [], consumers: [] }

/** Returns a place without a position, since there is no file; it only distinguishes keys from indexes. */
function placeIn(settings: unknown, at: string, column: number): Place {
  const value = segmentsOf(at).reduce((holder, key) => Reflect.get(Object(holder), key), settings)
  return { line: 0, column, key: undefined, isList: Array.isArray(value) }
}

/** Throws a `ConfigError` with every fault of the settings. */
function configOf(settings: MeshSettings, users: readonly UserDiscoverySource[]): MeshConfig {
  const keys = { edge: [], mesh: meshKeys, sources: [...sources, ...users] }
  const report = new Report('createMesh')
  const pointers: string[] = []
  report.locateBy((at) => {
    if (!pointers.includes(at)) pointers.push(at)
    return placeIn(settings, at, pointers.indexOf(at))
  })
  const data = withDefaults(meshSchema(keys), settings, '', report) as Written
  const written = { ...data, ...withoutEdge } as unknown as Written
  const absolute = (path: string) => resolve(path)
  const checked = { data: written, keys, report, absolute }
  atOnce(checkServices(checked))
  atOnce(checkConcerns(checked))
  report.throwIfAny()
  return freeze(atOnce(completeServices(written, keys, absolute)))
}

export interface MeshOptions extends Omit<LibraryOptions, 'sources' | 'sourcesKey'> {
  /** prom-client registry of the program, to which the mesh adds its metrics until it is closed; or `meter`, not both. */
  readonly registry?: MetricsRegistry
  /** Sources of instances of your own, besides those of the package; see `discoverySource` of `jingwei/plugin`. */
  readonly sources?: readonly UserDiscoverySource[]
}

const optionNames: readonly string[] = [
  'registry', 'meter', 'headers', 'perRequestHeaders', 'log', 'owners', 'claims', 'pluginsKey', 'discovery', 'sources',
  'transport', 'now', 'timers', 'random'
] satisfies (keyof MeshOptions)[] // biome-ignore format: a list

/**
 * Creates a mesh and starts discovery. Paths are relative to the current folder.
 * @throws {ConfigError} with every fault of the settings.
 * @throws {TypeError} for an unknown option.
 */
export function createMesh(settings: MeshSettings, { registry, sources: users = [], ...rest }: MeshOptions = {}): Mesh {
  const unknown = Object.keys(rest).find((name) => !optionNames.includes(name))
  if (unknown !== undefined) {
    throw new TypeError(`createMesh: unknown option ${unknown}${didYouMean(unknown, optionNames)}`)
  }
  const options = { ...rest, sources: checkedSources(users) }
  if (registry !== undefined && options.meter !== undefined) {
    throw new TypeError('createMesh: set registry or meter, not both')
  }
  if (registry !== undefined && typeof registry?.getSingleMetric !== 'function') {
    throw new TypeError(
      'createMesh: registry is no registry of prom-client: new Registry(), or register for the default one'
    )
  }
  const config = configOf(settings, users)
  if (registry === undefined) return new LibraryMesh(config, options).start()
  const meter = new RegistryMeter(registry)
  try {
    return new LibraryMesh(config, { ...options, meter }).start()
  } catch (error) {
    meter.close()
    throw error
  }
}

/** Returns the sources of users. Throws for a definition with a fault. */
function checkedSources(users: readonly UserDiscoverySource[]): DiscoverySource[] {
  const taken = new Set(sources.map(({ name }) => name))
  for (const definition of users) {
    const reason = looksLikeSource(definition) ? sourceFault(definition) : 'it is no source of instances'
    if (reason !== null) throw new TypeError(`createMesh: sources: ${reason}`)
    const { name } = definition
    if (taken.has(name)) throw new TypeError(`createMesh: sources: duplicate ${name}: its name is already in use`)
    taken.add(name)
  }
  return users.map((user) => userSource(user))
}
