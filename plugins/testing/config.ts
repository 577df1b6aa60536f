/** The configuration of a gateway under test: the team's own, but for what leads out of the process. */
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Key, Keys } from '../../config/concern.ts'
import { segmentsOf } from '../../config/faults.ts'
import type { Amend } from '../../config/load.ts'
import { Discovery } from '../../config/schema/gateway.ts'
import { Service } from '../../config/schema/service.ts'
import type { Config, MeshPolicy, ServiceConfig } from '../../config/schema.ts'
import { loadAmended, parseConfig } from '../config.ts'

/** Settings as a configuration file has them. */
export type Settings = Readonly<Record<string, unknown>>

export interface ConfigSource {
  /** Path of a file, or settings as the file has them. */
  readonly config: string | URL | Settings
  /** Folder for paths in settings. Default: the working directory. */
  readonly folder?: string | undefined
  /** Environment for `${NAME}` in the configuration. Default: `process.env`. */
  readonly env?: NodeJS.ProcessEnv | undefined
  /** Settings that are merged into the configuration as JSON merge patch does: `null` removes a key. */
  readonly override?: Settings | undefined
  /** Entries that are added to `plugins`. */
  readonly plugins?: readonly Settings[] | undefined
}

/**
 * Loads a configuration with the validation of the command line, and returns it with the keys of all concerns.
 * @throws {ConfigError} with every fault.
 */
export function loadConfig(
  { config, folder = '.', env = process.env, override, plugins = [] }: ConfigSource,
  scripted: readonly string[]
): Promise<{ readonly config: Config; readonly keys: Keys }> {
  const isFile = typeof config === 'string' || config instanceof URL
  const file = isFile
    ? resolve(config instanceof URL ? fileURLToPath(config) : config)
    : resolve(folder, 'config of testGateway')
  const amend: Amend = (written) => {
    const data = override === undefined ? written : merged(written, override)
    const own = isMapping(data) && Array.isArray(data.plugins) ? data.plugins : []
    const sourceOf = (at: string) => {
      const [section, item] = segmentsOf(at)
      if (section === 'plugins' && Number(item) >= own.length) return 'plugins of testGateway'
      return isOf(override, written, segmentsOf(at)) ? 'override of testGateway' : undefined
    }
    if (!isMapping(data)) return { data, sourceOf }
    if (plugins.length > 0) data.plugins = [...own, ...plugins.map((entry) => withAbsolutePath(entry, folder))]
    return { data: isFile ? data : withServices(data, scripted), sourceOf }
  }
  return loadAmended({ file, text: isFile ? undefined : JSON.stringify(config, null, 2), amend, env })
}

type Mapping = Record<string, unknown>

export const isMapping = (value: unknown): value is Mapping =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** RFC 7396. */
function merged(target: unknown, patch: unknown): unknown {
  if (!isMapping(patch)) return patch
  const result: Mapping = isMapping(target) ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key]
    else result[key] = merged(result[key], value)
  }
  return result
}

/** Returns whether a merged value is that of the patch. A mapping that both have is the target's. */
function isOf(patch: unknown, target: unknown, [key, ...path]: readonly string[]): boolean {
  const isBoth = isMapping(patch) && isMapping(target)
  if (key === undefined || !isBoth) return patch !== undefined && !isBoth
  return isOf(patch[key], target[key], path)
}

function withAbsolutePath(entry: Settings, folder: string): Settings {
  return typeof entry.path === 'string' ? { ...entry, path: resolve(folder, entry.path) } : entry
}

/** Keys of `discovery` and of a service that name no source of instances. */
const locations = new Set(Object.keys(Discovery.properties))
const places = new Set(['mesh', ...Object.keys(Service.properties)])

/** Gives a place to services that settings leave to discovery, since settings of a test name no registry. */
function withServices(settings: Mapping, scripted: readonly string[]): Mapping {
  const { services = {}, discovery } = settings
  if (!isMapping(services)) return settings
  const known = Object.fromEntries(scripted.map((name) => [name, {}]))
  const hasRegistry = isMapping(discovery) && Object.keys(discovery).some((key) => !locations.has(key))
  const placed = Object.entries({ ...known, ...services }).map(([name, service]) => {
    const isPlaced = !isMapping(service) || hasRegistry || Object.keys(service).some((key) => !places.has(key))
    return [name, isPlaced ? service : { ...service, instances: [`http://${name}-1.test`] }]
  })
  return { ...settings, services: Object.fromEntries(placed) }
}

/**
 * Returns the configuration for a gateway that uses no other program: without registries, Redis and a collector of spans, and with the options that
 * concerns return from `isolate`. Listeners have no certificates, since injected requests use no connection.
 */
export function isolated(config: Config, keys: Keys): Config {
  const { redis: _redis, tracing: _tracing, discovery, forward: _replaced, ...rest } = config
  const { locality } = discovery
  const listeners = config.listeners.map(({ tls: _tls, connect: _connect, ...listener }) => listener)
  const services = Object.entries(config.services).map(([name, service]) => {
    return [name, { ...withScriptedCalls(service), mesh: isolatedPolicy(policyOf(service), keys.mesh) }] as const
  })
  return {
    ...rest,
    discovery: locality === undefined ? {} : { locality },
    // The consumers of a store are not known.
    consumers: { ...config.consumers, stored: null },
    listen: listeners[0]!,
    listeners,
    edge: isolatedPolicy(config.edge, keys.edge),
    mesh: isolatedPolicy(config.mesh, keys.mesh),
    services: Object.fromEntries(services),
    routes: config.routes.map((route) => {
      const targets = route.targets.map((target) => ({ ...target, mesh: isolatedPolicy(target.mesh, keys.mesh) }))
      const [first] = targets
      const mesh = first?.call === null ? first.mesh : isolatedPolicy(route.mesh, keys.mesh)
      return { ...route, targets, edge: isolatedPolicy(route.edge, keys.edge), mesh }
    })
  }
}

/** Removes `forward`: with `mesh: false`, too, the scripted services are called by the mesh. */
const withScriptedCalls = ({ forward: _replaced, ...service }: ServiceConfig): ServiceConfig => service

/** Returns the policy of a service; with `mesh: false`, a policy with its timeouts and without retries. */
function policyOf({ mesh, forward }: ServiceConfig): MeshPolicy {
  if (forward === undefined) return mesh
  const { connectTimeout, timeout, idleTimeout, responseTimeout, maxHeaderSize } = forward
  const { mesh: defaults } = parseConfig('{}', 'defaults', {})
  // An object of its own: the type of a policy has no keys of concerns that were deleted.
  const replaced = { retry: false, connectTimeout, timeout, idleTimeout, responseTimeout, maxHeaderSize } as const
  return { ...defaults, ...mesh, ...replaced }
}

function isolatedPolicy<P extends object>(policy: P, keys: readonly Key[]): P {
  const copy = { ...policy }
  for (const key of keys) {
    const options: unknown = Reflect.get(copy, key.name)
    if (options && key.isolate) Object.assign(copy, { [key.name]: key.isolate(options) })
  }
  return copy
}
