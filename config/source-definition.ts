/** Validation of the definition of a source of instances, which the module of a plugin exports or a program passes. */
import type { SourceKey } from './concern.ts'
import { didYouMean } from './nearest.ts'
import { Discovery } from './schema/gateway.ts'
import { Service } from './schema/service.ts'

/** A definition; `create` is checked to be a function. */
export type PluginSourceKey = SourceKey & { readonly create: unknown }

/** The keys of a definition. A key with `function` must have a function as its value. */
const definitionKeys = {
  ...({
    name: 'any', options: 'any', service: 'any', storedKey: 'any', needsOptions: 'any', findsByName: 'function', findsConnect: 'any',
    backends: 'function', check: 'function', checkService: 'function', complete: 'function', completeService: 'function'
  } satisfies Record<keyof SourceKey, 'any' | 'function'>),
  create: 'function', every: 'any', timeout: 'any', emptyGrace: 'any'
} as const // biome-ignore format: a table

/** Returns whether an object is meant to define a source of instances, also if its `create` is missing or misspelt. */
export const looksLikeSource = (value: unknown): value is object =>
  typeof value === 'object' &&
  value !== null &&
  ('create' in value || 'service' in value) &&
  !('plugin' in value) &&
  !('layer' in value)

/** Returns the first fault of a definition; null if there is none. */
export function sourceFault(definition: object): string | null {
  const { name, options, service, create, ...rest } = definition as Record<string, unknown>
  const source = typeof name === 'string' ? `its source of instances "${name}"` : 'its source of instances'
  const unknown = Object.keys(definition).find((key) => !Object.hasOwn(definitionKeys, key))
  if (unknown !== undefined) {
    return `${source} has an unknown key "${unknown}"${didYouMean(unknown, Object.keys(definitionKeys))}`
  }
  if (typeof name !== 'string')
    return `${source} has no "name", under which its options and those of services are written`
  if (!/^[a-z][A-Za-z0-9]*$/.test(name)) return `${source} needs a name like etcd, of letters and digits`
  if (isTaken(name)) return `${source}: the name is that of another key of discovery or services`
  if (typeof create !== 'function') return `"create" of ${source} is not a function: (options, context) => ({ source })`
  for (const [key, kind] of Object.entries(definitionKeys)) {
    const value = rest[key]
    if (kind === 'function' && value !== undefined && typeof value !== 'function') {
      return `"${key}" of ${source} is not a function`
    }
  }
  for (const key of ['every', 'timeout', 'emptyGrace']) {
    const value = rest[key]
    if (value !== undefined && !(typeof value === 'number' && value >= 0 && value <= 86_400_000)) {
      return `"${key}" of ${source} is not a number of milliseconds, at most a day`
    }
  }
  if (typeof service !== 'object' || service === null)
    return `${source} has no "service", the JSON Schema of services.*.${name}`
  const isSchema = options === undefined || (typeof options === 'object' && options !== null)
  return isSchema ? null : `"options" of ${source} is not a JSON Schema`
}

/** Names that a service or `discovery` has besides sources. */
const isTaken = (name: string) =>
  ['mesh', 'name', ...Object.keys(Discovery.properties), ...Object.keys(Service.properties)].includes(name)
