import type { FastifyInstance } from 'fastify'
import type { Fault } from '../../config/faults.ts'
import { ConfigError } from '../../config/faults.ts'

/**
 * Runs the `onReady` hooks of plugins for the command `check`, but not those of the gateway, which start discovery. The mesh
 * refuses all calls: a hook that fails for this reason is reported as a warning that it was not checked.
 * @throws {ConfigError} with the fault of every hook that fails.
 */
export async function runReadyHooks(gateway: FastifyInstance, file: string): Promise<Fault[]> {
  const faults: Fault[] = []
  const warnings: Fault[] = []
  let cause: unknown
  await gateway.mesh.shutdown(0)
  for (const run of gateway.pluginRecord.readyHooks) {
    try {
      await run()
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      const message = 'its onReady hook was not checked: it calls a service, and check sends no calls'
      if (isByRefusal(error)) warnings.push(...error.faults.map((fault) => ({ ...fault, message })))
      else {
        cause ??= error.cause
        faults.push(...error.faults)
      }
    }
  }
  if (faults.length > 0) throw new ConfigError(file, faults, { cause })
  return warnings
}

/** Maximum depth of the chain of causes, which may be circular. */
const mostCauses = 10

/** Returns whether an error, or one of its causes, is that of a call to the closed mesh. */
function isByRefusal(error: unknown): boolean {
  let each = error
  for (let count = 0; each instanceof Error && count < mostCauses; count++) {
    if ((each as { code?: unknown }).code === 'JW_MESH_CLOSED') return true
    each = each.cause
  }
  return false
}
