import { ConfigError } from '../../config/faults.ts'
import type { PluginOptions } from '../../config/schema.ts'
import type { PluginOwner } from './fault-owners.ts'

export const textOf = (error: unknown) => (error instanceof Error ? error.message : String(error))

/** Creates the fault of a plugin that could not start, with the position of its entry in the file. */
export function startFailure(error: unknown, { path, package: name }: PluginOptions, owner: PluginOwner): Error {
  if (error instanceof ConfigError) return error
  return owner.fault(`${path ?? name} failed to start: ${textOf(error)}`, error)
}
