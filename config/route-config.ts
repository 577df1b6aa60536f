/** Keys of `routes[].config`, their schemas, and the plugins that read them. */
import { isDeepStrictEqual } from 'node:util'
import type { TSchema } from 'typebox'
import type { Steps } from '../plugins/time-slices.ts'
import { schemaFault } from './compile.ts'
import type { Checked, RouteConfigKeys } from './concern.ts'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import { strict } from './schema/kit.ts'
import { pluginName } from './schema/plugin.ts'
import Type from './schema/type.ts'
import type { PluginOptions, RouteConfig, Written, WrittenRoute } from './schema.ts'

/** Keys for a configuration that is loaded without its plugins: any key is accepted. */
const unknownKeys: RouteConfigKeys = { schemas: new Map(), reserved: new Map(), plugins: null }

/** Returns whether the keys of every plugin are known, so that other keys are faults. */
const isComplete = ({ plugins }: RouteConfigKeys) => plugins?.every((names) => names !== null) === true

export function routeConfigSchema(keys: RouteConfigKeys = unknownKeys): TSchema {
  const properties = [...keys.schemas].map(([name, schema]) => [name, Type.Optional(schema)])
  const others = `^(?!(${[...keys.reserved.keys()].join('|')})$)`
  return Type.Object(Object.fromEntries(properties), {
    ...strict,
    ...(!isComplete(keys) && { patternProperties: { [others]: {} } }),
    description:
      "What plugins read of this route. The plugin's module declares the key (`export const routeConfig`), or `plugins[].routeConfig` lists it; any other key is a fault."
  })
}

/** A plugin's module with its export `routeConfig`. */
interface Declaring {
  readonly routeConfig: unknown
}

/** Adds the keys of plugins to those of the gateway; null for a plugin whose module could not be imported. */
export function withPluginKeys(
  own: RouteConfigKeys = unknownKeys,
  entries: readonly unknown[],
  modules: readonly (Declaring | null)[],
  report: Report
): RouteConfigKeys {
  const schemas = new Map(own.schemas)
  const holders = new Map([...own.schemas.keys()].map((name) => [name, 'the gateway']))

  /** Adds a declared key. Returns its fault instead, if it has one. */
  function declare(name: string, schema: unknown, index: number): string | null {
    const reserved = own.reserved.get(name)
    if (reserved !== undefined) return `reserved key; ${reserved}`
    if (!isMapping(schema)) return 'expected a JSON Schema; {} takes any value'
    if (Object.keys(schema).length === 0) return null
    if ('default' in schema) return 'a default has no effect: a route without the key does not get it'
    const fault = schemaFault(schema)
    if (fault !== null) return `not a valid JSON Schema: ${fault}`
    const holder = holders.get(name)
    if (holder === undefined) holders.set(name, `plugins[${index}]`)
    else if (!isDeepStrictEqual(schemas.get(name), schema)) return `${holder} has another schema for this key`
    schemas.set(name, schema as TSchema)
    return null
  }

  const plugins = modules.map((module, index): string[] | null => {
    const at = pointer('/plugins', index)
    const listed = listedKeys(entries[index])
    if (module === null || listed === null) return null
    const { routeConfig = {} } = module
    if (!isMapping(routeConfig)) {
      report.fault(at, 'its module exports a routeConfig that is not a mapping of keys to JSON Schemas')
      return null
    }
    for (const [name, schema] of Object.entries(routeConfig)) {
      const fault = declare(name, schema, index)
      if (fault !== null) report.fault(at, `its module exports routeConfig.${name}: ${fault}`)
    }
    listed.forEach((name, item) => {
      const fault = declare(name, {}, index)
      if (fault !== null) report.fault(pointer(at, 'routeConfig', item), fault)
    })
    const names = [...new Set([...Object.keys(routeConfig), ...listed])]
    for (const name of names) if (!schemas.has(name) && !own.reserved.has(name)) schemas.set(name, {})
    // The gateway's own keys are left out: it reads them on every route.
    return names.filter((name) => !own.schemas.has(name))
  })
  return { ...own, schemas, plugins }
}

function isMapping(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Returns the keys in `routeConfig` of an entry; null if they are malformed, which schema validation reports. */
function listedKeys(entry: unknown): string[] | null {
  const listed: unknown = isMapping(entry) ? Reflect.get(entry, 'routeConfig') : null
  if (listed === undefined) return []
  return Array.isArray(listed) && listed.every((name) => typeof name === 'string') ? listed : null
}

type Placed = Pick<PluginOptions, 'scope' | 'prefix' | 'name' | 'package' | 'path'>

/** Returns whether the hooks of a plugin run on a configured route. */
function runsOn(plugin: Placed, route: { readonly plugins?: readonly string[] }): boolean {
  if (plugin.prefix !== undefined) return false
  return plugin.scope !== 'routes' || route.plugins?.includes(pluginName(plugin)) === true
}

/** Checks that each key of a route has an effect: a plugin that reads it runs there, and no concern replaces it. */
export function* checkRouteConfig({ data, keys, report }: Checked): Steps<void> {
  const { edge, routeConfig } = keys
  const placements = routeConfig !== undefined && isComplete(routeConfig) && report.sound('/plugins')
  for (const [index, route] of data.routes.entries()) {
    yield
    const at = pointer('/routes', index)
    if (!report.usable(`${at}/config`)) continue
    for (const key of Object.keys(route.config ?? {})) {
      const place = pointer(at, 'config', key)
      if (!report.usable(place)) continue
      const setter = edge.find(({ name, setsRouteConfig }) => setsRouteConfig === key && isOn(name, route, data))
      if (setter !== undefined) {
        report.fault(place, `no effect: edge.${setter.name} is on for this route and sets this key`, 'key')
      } else if (placements && report.sound(`${at}/plugins`)) {
        const readers = readersOf(key, data, routeConfig)
        if (readers.length === 0 || readers.some((plugin) => runsOn(plugin, route))) continue
        report.fault(place, `no effect: ${unreadWhy(readers)}`, 'key')
      }
    }
  }
}

/** Returns whether a concern of the edge is on for a route. */
function isOn(name: string, { edge = {} }: WrittenRoute, top: Written): boolean {
  const options: unknown = Reflect.get(edge, name) ?? Reflect.get(top.edge, name)
  return options !== undefined && options !== false
}

const readersOf = (key: string, { plugins }: Written, routeConfig: RouteConfigKeys) =>
  plugins.filter((_, index) => routeConfig.plugins?.[index]?.includes(key))

function unreadWhy(readers: readonly Placed[]): string {
  const possible = readers.filter(({ prefix }) => prefix === undefined).map(pluginName)
  const [first] = possible
  if (first === undefined) {
    return `plugin "${pluginName(readers[0]!)}", which reads it, has a prefix, so its hooks run only on its own routes`
  }
  const names = possible.map((name) => `"${name}"`).join(' or ')
  return `plugin ${names}, which reads it, does not run on this route; add "${first}" to the route's "plugins"`
}

/** A key of a route's config, and the plugins that read it there. */
export interface RouteSetting {
  readonly key: string
  readonly plugins: readonly string[]
}

export function routeSettings(route: RouteConfig, plugins: readonly PluginOptions[]): RouteSetting[] {
  return Object.keys(route.config ?? {}).map((key) => {
    const readers = plugins.filter((plugin) => plugin.routeConfig?.includes(key) && runsOn(plugin, route))
    return { key, plugins: readers.map(pluginName) }
  })
}

/** Formats settings: `keyAuth (key-auth), tier`. */
export function settingsText(settings: readonly RouteSetting[]): string {
  const texts = settings.map(({ key, plugins }) => (plugins.length === 0 ? key : `${key} (${plugins.join(', ')})`))
  return texts.join(', ') || '–'
}
