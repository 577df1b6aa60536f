/** Imports the modules of users whose functions concerns of the edge call, and guards these functions. */
import { basename } from 'node:path'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import type { Fault } from '../../config/faults.ts'
import { ConfigError } from '../../config/faults.ts'
import type { Config } from '../../config/schema.ts'
import { textWithPlace } from '../thrown-at.ts'
import type { GuardedFunction } from '../user-function.ts'
import type { FaultOwner } from './fault-owners.ts'
import { importLatest } from './plugin-modules.ts'

/** Imports the modules before the edge starts, whose routes need the functions at once. */
export default fp<Config>(
  async (fastify, { calledModules, file }) => {
    if (calledModules.length === 0) return
    const loaded = new Map<string, GuardedFunction>()
    const faults: Fault[] = []
    let cause: unknown
    for (const { module, path, position } of calledModules) {
      try {
        loaded.set(module, await load(module, fastify))
      } catch (error) {
        cause ??= error
        const message = `cannot load ${module}: ${textWithPlace(error, { path: module })}`
        faults.push({ file, ...position, path, message })
      }
    }
    if (faults.length > 0) throw new ConfigError(file, faults, { cause })
    fastify.decorate('userFunctions', loaded)
  },
  { name: 'jingwei-user-functions', fastify: '5.x' }
)

async function load(module: string, { faultOwners, host }: FastifyInstance): Promise<GuardedFunction> {
  const plugin = basename(module)
  const loading: FaultOwner = { plugin, contain: (error) => host?.containStray(plugin, error) ?? false }
  const { default: exported } = (await faultOwners.run(loading, () => importLatest(module))) as { default?: unknown }
  // CommonJS that was compiled from TypeScript has its default export at `default.default`.
  const candidates = [exported, (exported as { default?: unknown } | undefined)?.default]
  const found = candidates.find((each) => typeof each === 'function') as ((...args: unknown[]) => unknown) | undefined
  if (found === undefined) throw new Error('it has no default export that is a function')
  return (request, { signal, ...context }) => {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    let isOver = false
    const owner: FaultOwner = {
      plugin,
      contain(error) {
        if (isOver)
          request.log.error({ err: error, plugin }, `the function of ${plugin} failed after its call had ended`)
        reject(error)
        return true
      }
    }
    // Its listeners run where it is aborted: there, their errors would have no owner, and end the process.
    const own = new AbortController()
    const abort = () => {
      isOver = true
      faultOwners.run(owner, () => own.abort(signal.reason))
    }
    signal.addEventListener('abort', abort, { once: true })
    faultOwners.run(owner, async () => found(request, { ...context, signal: own.signal })).then(resolve, reject)
    return promise.finally(() => {
      isOver = true
    })
  }
}
