/** Loads configurations with the keys of both halves' concerns and, optionally, those of plugins. */
import { Loader } from '../config/load.ts'
import type { ImportModule } from '../config/plugin-concerns.ts'
import { edgeKeys, edgePositions, edgeRouteConfig } from './edge/index.ts'
import { moduleOnFirstUse } from './on-first-use.ts'
import { importPlugin, isConcern } from './operations/plugin-modules.ts'

const meshHalf = moduleOnFirstUse<typeof import('./mesh-half.mts')>('./mesh-half.mts', import.meta.url)

export const loader = new Loader({
  edge: edgeKeys,
  // A getter: a configuration without the mesh loads none of its modules.
  get mesh() {
    return meshHalf().meshKeys
  },
  routeConfig: edgeRouteConfig,
  positions: edgePositions
})

/**
 * Reads a configuration file without importing the modules of its plugins, whose concerns are therefore unknown keys; see
 * `Loader`. It accepts any key of `routes[].config`, which hooks of an embedding program may read.
 */
export const loadWithoutPlugins: Loader['load'] = loader.load.bind(loader)
/** Reads the text of a configuration file, without importing the modules of its plugins; see `Loader`. */
export const parseConfig: Loader['parse'] = loader.parse.bind(loader)

const imported: ImportModule = async (plugin, configFile) => {
  const { exported, routeConfig, hasChanged } = await importPlugin(plugin, configFile)
  return { concern: isConcern(exported) ? exported : null, routeConfig, hasChanged }
}

/** Loads a configuration file with the concerns and keys that the modules of its plugins declare; see `Loader`. */
export const loadConfig = loader.loadWithPlugins.bind(loader, imported)

/** The same for a configuration that is changed before it is checked. */
export const loadAmended = loader.loadAmended.bind(loader, imported)

/** Returns the schema of a file with the concerns of its plugins; for null, the schema without any. */
export async function schemaOf(file: string | null): Promise<object> {
  return file === null ? loader.schema : loader.schemaOf(imported, file)
}
