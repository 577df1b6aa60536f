/** The modules of all entries of `plugins:`. */
import type { Fault } from '../../config/faults.ts'
import { ConfigError } from '../../config/faults.ts'
import type { Config, PluginOptions } from '../../config/schema.ts'
import { textWithPlace } from '../thrown-at.ts'
import type { PluginModule } from './plugin-modules.ts'
import { importPlugin } from './plugin-modules.ts'

/** Imports all modules before one of them is used, so that every failing import is reported. */
export async function importAll({ plugins, file }: Config): Promise<PluginModule[]> {
  const modules: PluginModule[] = []
  const faults: Fault[] = []
  let cause: unknown
  for (const [index, plugin] of plugins.entries()) {
    try {
      modules.push(await importPlugin(plugin, file))
    } catch (error) {
      cause ??= error
      const message = `cannot load ${plugin.path ?? plugin.package}: ${textWithPlace(error, plugin)}`
      faults.push(faultAt(file, index, plugin, message))
    }
  }
  if (faults.length > 0) throw new ConfigError(file, faults, { cause })
  return modules
}

/** Returns a fault of an entry. */
export function faultAt(file: string, index: number, { position }: PluginOptions, message: string): Fault {
  return { file, ...position, path: `plugins[${index}]`, message }
}
