import { ConfigError } from '../../config/faults.ts'
import type { PluginOptions } from '../../config/schema.ts'
import { textWithPlace } from '../thrown-at.ts'
import type { PluginOwner } from './fault-owners.ts'

/** Creates the fault of a plugin that could not start, with the position of its entry in the file. */
export function startFailure(error: unknown, plugin: PluginOptions, owner: PluginOwner): Error {
  if (error instanceof ConfigError) return error
  return owner.fault(`${plugin.path ?? plugin.package} failed to start: ${textWithPlace(error, plugin)}`, error)
}
