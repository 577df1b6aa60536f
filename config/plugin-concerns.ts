/** Keys of concerns that the plugins of a file define, gathered before the file is validated. */
import { dirname, resolve } from 'node:path'
import type { Key, Keys } from './concern.ts'
import { everyLevel, gatewayAndRoute } from './concern.ts'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import { orOff } from './schema/kit.ts'
import { schemaFault } from './validate.ts'

/** A plugin's concern: `layer` makes it one of the mesh. */
export interface PluginConcern extends Omit<Key, 'levels'> {
  readonly levels?: Key['levels']
  readonly layer?: unknown
  /** For a mesh concern: says which requests it may send again. */
  readonly repeats?: unknown
}

/** A plugin's module. */
export interface PluginModule {
  /** The concern that it defines; null if it defines none. */
  readonly concern: PluginConcern | null
  /** Its declaration of the keys of `routes[].config` that it reads. */
  readonly routeConfig: unknown
}

/** Imports a plugin's module, given by an absolute path or a package. */
export type ImportModule = (
  plugin: { readonly path?: string; readonly package?: string },
  configFile: string
) => Promise<PluginModule>

/** Imports the modules of entries of `plugins`; null for one that cannot be imported. */
export async function pluginModules(
  entries: readonly unknown[],
  file: string,
  imported: ImportModule
): Promise<(PluginModule | null)[]> {
  const modules: (PluginModule | null)[] = []
  for (const entry of entries) {
    const module = moduleOf(entry, file)
    // A module that cannot be imported, or not in time, is reported when the gateway is built.
    modules.push(module === null ? null : await imported(module, file).catch(() => null))
  }
  return modules
}

export function pluginConcerns(
  modules: readonly (PluginModule | null)[],
  report: Report,
  known: Keys
): { edge: Key[]; mesh: Key[] } {
  const found: { edge: Key[]; mesh: Key[] } = { edge: [], mesh: [] }
  for (const [index, module] of modules.entries()) {
    const concern = module?.concern ?? null
    if (concern === null) continue
    const half = concern.layer === undefined ? 'edge' : 'mesh'
    const taken = [...known[half], ...found[half]].some(({ name }) => name === concern.name)
    const fault = taken ? `there is a concern ${half}.${concern.name} already` : faultOf(concern)
    if (fault !== null) report.fault(pointer('/plugins', index), fault)
    else {
      const levels = concern.levels ?? (half === 'edge' ? gatewayAndRoute : everyLevel)
      found[half].push({ ...contained(concern), options: orOff(concern.options), levels })
    }
  }
  return found
}

/** Returns the concern with checks that report what they throw as faults: they are a user's code. */
function contained(concern: PluginConcern): PluginConcern {
  const { name, check, checkAll } = concern
  const what = (error: unknown) =>
    `the check of concern ${name} failed: ${error instanceof Error ? error.message : String(error)}`
  return {
    ...concern,
    ...(check && {
      check(options, at, checked, place) {
        // As a user expects, options are as the schema says.
        if (!checked.report.sound(at)) return
        try {
          check.call(concern, options, at, checked, place)
        } catch (error) {
          checked.report.fault(at, what(error))
        }
      }
    }),
    ...(checkAll && {
      checkAll(checked) {
        try {
          checkAll.call(concern, checked)
        } catch (error) {
          checked.report.fault('/plugins', what(error))
        }
      }
    })
  }
}

export function entriesOf(data: unknown): readonly unknown[] {
  if (typeof data !== 'object' || data === null) return []
  const plugins: unknown = Reflect.get(data, 'plugins')
  return Array.isArray(plugins) ? plugins : []
}

function moduleOf(entry: unknown, file: string): Parameters<ImportModule>[0] | null {
  if (typeof entry !== 'object' || entry === null) return null
  const { path, package: name } = entry as { path?: unknown; package?: unknown }
  if (typeof path === 'string') return { path: resolve(dirname(file), path) }
  return typeof name === 'string' ? { package: name } : null
}

function faultOf({ name, options, layer, repeats }: PluginConcern): string | null {
  if (!/^[a-z][A-Za-z0-9]*$/.test(name)) return `its concern "${name}" needs a name like apiKey, of letters and digits`
  if (repeats !== undefined && layer === undefined)
    return `its concern ${name} has "repeats", which is for mesh concerns`
  if (repeats !== undefined && typeof repeats !== 'function') {
    return `"repeats" of its concern ${name} is no function: (policy) => ({ maxBody, mayRepeat }), or null`
  }
  const fault = schemaFault(options)
  return fault === null ? null : `the options of its concern ${name} are no JSON Schema: ${fault}`
}
