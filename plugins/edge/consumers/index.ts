/** Decorates a server with its declared consumers, and follows the file that lists them. */
import { dirname, resolve } from 'node:path'
import type { FastifyInstance } from 'fastify'
import type { Key } from '../../../config/concern.ts'
import type { Surroundings } from '../../../config/consumers.ts'
import { readConsumers } from '../../../config/consumers.ts'
import { line } from '../../../config/faults.ts'
import type { Config, Written } from '../../../config/schema.ts'
import { asError } from '../../thrown.ts'
import { inSlices } from '../../time-slices.ts'
import type { Watch } from '../../watch-files.ts'
import { watchFile } from '../../watch-files.ts'
import { meterOf } from '../concern.ts'
import { followKey, refuseUntilKnown } from './consul.ts'
import { decorateConsumer } from './consumer.ts'
import { ConsumerRegistry } from './registry.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** The declared consumers. */
    consumers: ConsumerRegistry
  }
}

/** Time between two looks at the file; a change is used after two looks. Only tests change it. */
export const consumersTiming = { intervalMs: 500 }

/** `keys` returns the keys of all concerns, once those of users are known. */
export function decorateConsumers(fastify: FastifyInstance, config: Config, keys: () => readonly Key[]): void {
  decorateConsumer(fastify)
  const registry = new ConsumerRegistry()
  fastify.decorate('consumers', registry)
  const { file, digest, stored, list } = config.consumers
  if (list.length === 0 && file === null && stored === null) return
  registry.file = file
  if (stored !== null) {
    registry.key = stored.key
    registry.isKnown = false
    refuseUntilKnown(fastify, registry, keys)
  }
  const ends: (() => void)[] = []
  fastify.addHook('onReady', async () => {
    await inSlices(registry.replace(list, keys()))
    ends.push(...measure(fastify, registry))
    if (stored !== null) {
      const surroundings = surroundingsOf(config, keys(), fastify.log)
      ends.push(await followKey(await fastify.watchKey(stored), registry, surroundings, fastify.log))
    }
    if (file === null) return
    const watch = follow(file, digest!, registry, surroundingsOf(config, keys(), fastify.log), fastify.log)
    ends.push(() => watch.close())
  })
  fastify.addHook('onClose', async () => {
    for (const end of ends) end()
  })
}

function measure(fastify: FastifyInstance, registry: ConsumerRegistry): (() => void)[] {
  const meter = meterOf(fastify)
  return [
    meter.gauge({
      name: 'jingwei_edge_consumers',
      help: 'Number of declared consumers.',
      collect: (set) => set({}, registry.size)
    }),
    meter.gauge({
      name: 'jingwei_edge_consumers_usable',
      help: '1, or 0 while the file or the key of Consul with consumers cannot be used and the last good list stays in use.',
      collect: (set) => set({}, registry.error === null ? 1 : 0)
    })
  ]
}

/** Returns the configuration in force, for the checks of a list that is read while it is in use. */
const surroundingsOf = (config: Config, edge: readonly Key[], log: FastifyInstance['log']): Surroundings => ({
  // The checks read what both forms have in common.
  data: config as unknown as Written,
  keys: { edge, mesh: [], sources: [] },
  absolute: (path) => resolve(dirname(config.file), path),
  warn: (warning) => log.warn(`consumers: ${line(warning)}`)
})

/** Reads the file again when its content changes. */
function follow(
  file: string,
  known: string,
  registry: ConsumerRegistry,
  surroundings: Surroundings,
  log: FastifyInstance['log']
): Watch {
  const fail = (error: Error) => {
    if (registry.error === error.message) return
    registry.error = error.message
    const message = `the file with consumers cannot be used; the last good list stays in use: ${error.message}`
    log.error({ path: file, consumers: registry.size }, message)
  }
  return watchFile(file, {
    intervalMs: consumersTiming.intervalMs,
    known,
    onChange: async () => {
      try {
        await inSlices(registry.replace(await readConsumers(file, surroundings), surroundings.keys.edge))
        registry.error = null
        log.info({ path: file, consumers: registry.size }, 'consumers changed')
      } catch (error) {
        fail(asError(error))
      }
    },
    onError: fail
  })
}
