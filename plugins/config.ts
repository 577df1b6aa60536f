/** Loads configurations with the keys of both halves' concerns and, optionally, those of plugins. */
import type { Fault } from '../config/faults.ts'
import { Loader } from '../config/load.ts'
import type { ImportModule } from '../config/plugin-concerns.ts'
import type { Config } from '../config/schema.ts'
import { moduleOnFirstUse } from './on-first-use.ts'
import { importPlugin, isConcern, isSource } from './operations/plugin-modules.ts'
import { kindOf } from './thrown.ts'

type Warn = (warning: Fault) => void

const edgeHalf = moduleOnFirstUse<typeof import('./edge-half.mts')>('plugins/edge-half.mts')
const sidecarHalf = moduleOnFirstUse<typeof import('./sidecar-half.mts')>('plugins/sidecar-half.mts')
const meshHalf = moduleOnFirstUse<typeof import('./mesh-half.mts')>('plugins/mesh-half.mts')

export const loader = new Loader({
  // Getters: a configuration without the mesh loads none of its modules, and a sidecar's none of the edge's concerns.
  get edge() {
    return edgeHalf().edgeKeys
  },
  get mesh() {
    return meshHalf().meshKeys
  },
  get sources() {
    return meshHalf().sources
  },
  get routeConfig() {
    return edgeHalf().edgeRouteConfig
  },
  get positions() {
    return edgeHalf().edgePositions
  },
  get sidecar() {
    return sidecarHalf().sidecarKeys
  }
})

/**
 * Reads a configuration file without importing the modules of its plugins, whose concerns are therefore unknown keys; see
 * `Loader`. It accepts any key of `routes[].config`, which hooks of an embedding program may read.
 */
export function loadWithoutPlugins(file: string, env?: NodeJS.ProcessEnv, warn?: Warn): Config {
  assertPath('loadWithoutPlugins', file)
  return loader.load(file, env, warn)
}

/**
 * Reads the text of a configuration file, without importing the modules of its plugins; see `Loader`. `file` names the text in
 * messages, and paths in it are relative to the folder of `file`. Default: a name in the current folder.
 */
export function parseConfig(
  text: string,
  file = 'config of parseConfig',
  env?: NodeJS.ProcessEnv,
  warn?: Warn
): Config {
  if (typeof text !== 'string') {
    const advice = 'JSON is YAML: pass settings as JSON.stringify(settings)'
    throw new TypeError(`parseConfig: expected the text of a configuration file, found ${kindOf(text)}; ${advice}`)
  }
  assertPath('parseConfig', file)
  return loader.parse(text, file, env, warn)
}

const imported: ImportModule = async (plugin, configFile) => {
  const { exported, routeConfig, hasChanged } = await importPlugin(plugin, configFile)
  const concern = isConcern(exported) ? exported : null
  return { concern, instanceSource: isSource(exported) ? exported : null, routeConfig, hasChanged }
}

/** Loads a configuration file with the concerns and keys that the modules of its plugins declare; see `Loader`. */
export async function loadConfig(file: string, env?: NodeJS.ProcessEnv, warn?: Warn): Promise<Config> {
  assertPath('loadConfig', file)
  return loader.loadWithPlugins(imported, file, env, warn)
}

/** The same for the process that runs the mesh half of the file's gateway; see `sidecar.gateway`. */
export async function loadSidecar(file: string, env?: NodeJS.ProcessEnv, warn?: Warn): Promise<Config> {
  return loader.loadWithPlugins(imported, file, env, warn, 'sidecar')
}

/** The same for a configuration that is changed before it is checked. */
export const loadAmended = loader.loadAmended.bind(loader, imported)

/** Returns the schema of a file with the concerns of its plugins; for null, the schema of all files without any. */
export async function schemaOf(file: string | null): Promise<object> {
  return file === null ? loader.schemaOfForms : loader.schemaOf(imported, file)
}

/** Throws for an argument that is no path, as JavaScript programs may pass. */
function assertPath(caller: string, file: unknown): void {
  if (typeof file === 'string' && file !== '') return
  throw new TypeError(`${caller}: expected the path of a configuration file, found ${kindOf(file)}`)
}
