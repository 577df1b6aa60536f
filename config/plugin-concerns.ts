/** Collects the keys of concerns that a file's plugins define, before the file is validated. */
import { dirname, resolve } from 'node:path'
import type { PluginSource } from '../plugins/thrown-at.ts'
import { textWithPlace } from '../plugins/thrown-at.ts'
import { atOnce } from '../plugins/time-slices.ts'
import { compile, schemaFault } from './compile.ts'
import type { Key, Keys } from './concern.ts'
import { everyLevel, gatewayAndRoute } from './concern.ts'
import { pointer, Report } from './faults.ts'
import { orOff } from './schema/kit.ts'
import { withId } from './schema-id.ts'
import type { PluginSourceKey } from './source-definition.ts'
import { Validator } from './validate.ts'

/** A concern of a plugin; one with `layer` is a mesh concern. */
interface PluginConcern extends Omit<Key, 'levels'> {
  readonly levels?: Key['levels']
  readonly layer?: unknown
  /** For a mesh concern: returns which requests it may send again. */
  readonly repeats?: unknown
}

/** A plugin's module. */
export interface PluginModule {
  /** The concern that it defines; null if it defines none. */
  readonly concern: PluginConcern | null
  /** The source of instances that it defines; null if it defines none. */
  readonly instanceSource: PluginSourceKey | null
  /** Declaration of the keys of `routes[].config` that it reads. */
  readonly routeConfig: unknown
  /** True if its file has changed since its code was loaded. */
  readonly hasChanged: boolean
}

/** Imports a plugin's module, given by an absolute path or a package. */
export type ImportModule = (plugin: PluginSource, configFile: string) => Promise<PluginModule>

/** A module and the entry that names it. */
interface ImportedModule extends PluginModule {
  readonly source: PluginSource
}

/** Imports the modules of the entries of `plugins`; an item is null if the import failed, and `failed` gets the error. */
export async function pluginModules(
  entries: readonly unknown[],
  file: string,
  imported: ImportModule,
  failed: (index: number, error: unknown) => void
): Promise<(ImportedModule | null)[]> {
  const modules: (ImportedModule | null)[] = []
  for (const [index, entry] of entries.entries()) {
    const source = sourceOf(entry, file)
    try {
      modules.push(source === null ? null : { ...(await imported(source, file)), source })
    } catch (error) {
      failed(index, error)
      modules.push(null)
    }
  }
  return modules
}

export function pluginConcerns(
  modules: readonly (ImportedModule | null)[],
  report: Report,
  known: Keys
): { edge: Key[]; mesh: Key[]; areSound: boolean } {
  const found: { edge: Key[]; mesh: Key[]; areSound: boolean } = { edge: [], mesh: [], areSound: true }
  for (const [index, module] of modules.entries()) {
    const concern = module?.concern ?? null
    if (concern === null) continue
    const half = concern.layer === undefined ? 'edge' : 'mesh'
    const taken = [...known[half], ...found[half]].some(({ name }) => name === concern.name)
    const fault = taken
      ? `duplicate concern ${half}.${concern.name}: its name is already in use`
      : faultOf(concern, half)
    if (fault !== null) {
      report.fault(pointer('/plugins', index), fault)
      found.areSound = false
    } else {
      const own = concern.levels ?? (half === 'edge' ? gatewayAndRoute : everyLevel)
      const levels: Key['levels'] = concern.forConsumers ? [...own, 'consumer'] : own
      found[half].push({
        ...contained(concern, module!.source, pointer('/plugins', index), report),
        options: orOff(withId(concern.options, `${half}/${concern.name}`)),
        levels
      })
    }
  }
  return found
}

/**
 * Wraps the functions of a user's concern, so that what they throw becomes a fault. `entry`: pointer of its plugin's entry.
 */
function contained(concern: PluginConcern, source: PluginSource, entry: string, report: Report): PluginConcern {
  const { name, check, checkAll, complete, instructions, otherServices, perRequestHeaders } = concern
  const what = (error: unknown) => `the check of concern ${name} failed: ${textWithPlace(error, source)}`
  const attempt = <T>(key: string, call: () => T, otherwise: T): T => {
    try {
      return call()
    } catch (error) {
      report.fault(entry, `"${key}" of concern ${name} failed: ${textWithPlace(error, source)}`)
      return otherwise
    }
  }
  return {
    ...concern,
    ...(check && {
      check(options, at, checked, place) {
        // Called only if the options fit the schema, which a user's check may rely on.
        if (!checked.report.sound(at)) return
        try {
          check.call(concern, options, at, checked, place)
        } catch (error) {
          checked.report.fault(at, what(error))
        }
      }
    }),
    ...(checkAll && {
      *checkAll(checked) {
        try {
          const steps: unknown = checkAll.call(concern, checked)
          if (isIterable(steps)) yield* steps
        } catch (error) {
          checked.report.fault('/plugins', what(error))
        }
      }
    }),
    ...(complete && {
      complete: (options, absolute) => attempt('complete', () => complete.call(concern, options, absolute), options)
    }),
    ...(otherServices && {
      otherServices: (options) => attempt('otherServices', () => otherServices.call(concern, options), [])
    }),
    ...(perRequestHeaders && {
      perRequestHeaders: (options) => attempt('perRequestHeaders', () => perRequestHeaders.call(concern, options), [])
    }),
    ...(instructions && {
      instructions: {
        headers: instructions.headers,
        areObeyed: (options) => attempt('instructions', () => instructions.areObeyed(options), false)
      }
    })
  }
}

const isIterable = (value: unknown): value is Iterable<void> =>
  typeof value === 'object' && value !== null && Symbol.iterator in value

/** Reports modules that could not be imported, unless the entry has a fault already, such as a missing file. */
export function reportFailed(
  failures: ReadonlyMap<number, unknown>,
  entries: readonly unknown[],
  file: string,
  report: Report
): void {
  for (const [index, error] of failures) {
    const at = pointer('/plugins', index)
    const { path, package: name } = entries[index] as PluginSource
    const text = textWithPlace(error, sourceOf(entries[index], file)!)
    if (report.sound(at)) report.fault(at, `cannot load ${path ?? name}: ${text}`)
  }
}

/** Warns of modules whose file has changed since their code was loaded: the old code stays in use until a restart. */
export function warnOfChanged(modules: readonly (PluginModule | null)[], report: Report): void {
  for (const [index, module] of modules.entries()) {
    if (!module?.hasChanged) continue
    report.warn(
      pointer('/plugins', index),
      'its file has changed since its code was loaded; restart the gateway to load the new code'
    )
  }
}

export function entriesOf(data: unknown): readonly unknown[] {
  if (typeof data !== 'object' || data === null) return []
  const plugins: unknown = Reflect.get(data, 'plugins')
  return Array.isArray(plugins) ? plugins : []
}

function sourceOf(entry: unknown, file: string): PluginSource | null {
  if (typeof entry !== 'object' || entry === null) return null
  const { path, package: name } = entry as { path?: unknown; package?: unknown }
  if (typeof path === 'string') return { path: resolve(dirname(file), path) }
  return typeof name === 'string' ? { package: name } : null
}

function faultOf(concern: PluginConcern, half: 'edge' | 'mesh'): string | null {
  const { name, options, layer, repeats, ownsHeaders, instructions } = concern
  if (!/^[a-z][A-Za-z0-9]*$/.test(name)) return `its concern "${name}" needs a name like apiKey, of letters and digits`
  if (repeats !== undefined && layer === undefined)
    return `its concern ${name} has "repeats", which is for mesh concerns`
  if (repeats !== undefined && typeof repeats !== 'function') {
    return `"repeats" of its concern ${name} is not a function: (policy) => ({ maxBody, mayRepeat }), or null`
  }
  const isNames = (value: unknown) => Array.isArray(value) && value.every((each) => typeof each === 'string')
  if (!isNames(ownsHeaders ?? [])) return `"ownsHeaders" of its concern ${name} is not a list of name prefixes`
  if (instructions !== undefined && !isNames(instructions.headers)) {
    return `"instructions" of its concern ${name} has no list "headers"`
  }
  const fault = schemaFault(options)
  if (fault !== null) return `the options of its concern ${name} are not a valid JSON Schema: ${fault}`
  const unfit = concern.default === undefined ? null : valueFault(half, concern)
  return unfit === null ? null : `the default of its concern ${name} does not fit its options: ${unfit}`
}

/** Returns why the default of a concern does not fit its options; null if it does. */
function valueFault(half: 'edge' | 'mesh', { name, options, default: value }: PluginConcern): string | null {
  const within = (key: string, schema: object) => ({ type: 'object', properties: { [key]: schema } })
  const report = new Report('')
  const compiled = compile(within(half, within(name, orOff(withId(options, `${half}/${name}`)))))
  const validator = new Validator(compiled, { edge: [], mesh: [], sources: [] })
  atOnce(validator.validate({ [half]: { [name]: structuredClone(value) } }, report))
  const [fault] = report.faults
  return fault === undefined ? null : `${fault.path}: ${fault.message}`
}
