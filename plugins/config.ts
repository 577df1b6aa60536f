/** The configuration with the concerns of both halves. */
import { Loader } from '../config/load.ts'
import { edgeKeys } from './edge/index.ts'
import { meshKeys } from './mesh/chain.ts'

export const loader = new Loader({ edge: edgeKeys, mesh: meshKeys })

/** Reads a configuration file; see `Loader`. */
export const loadConfig: Loader['load'] = loader.load.bind(loader)
/** Reads the text of a configuration file; see `Loader`. */
export const parseConfig: Loader['parse'] = loader.parse.bind(loader)
