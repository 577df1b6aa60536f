/** Consumers in a key of Consul's KV store, which the mesh watches. */
import { createError } from '@fastify/error'
import type { FastifyInstance } from 'fastify'
import type { Key } from '../../../config/concern.ts'
import type { Surroundings } from '../../../config/consumers.ts'
import { parseConsumers } from '../../../config/consumers.ts'
import type { WatchedKey } from '../../seam-keys.ts'
import { asError } from '../../thrown.ts'
import { inSlices } from '../../time-slices.ts'
import { attach, edgeRouteOf } from '../attach.ts'
import { meterOf } from '../concern.ts'
import { refusalRecorder } from '../concern-refusals.ts'
import { isShadow } from '../shadow.ts'
import type { ConsumerRegistry } from './registry.ts'

/** Longest time for which a start waits for the first response of Consul. */
const FIRST_MS = 3000

const Unknown = createError('JW_CONSUMERS_UNKNOWN', 'The consumers are not known yet', 503)

/**
 * Refuses requests to routes that require credentials of consumers until the consumers are known. Otherwise their keys would be
 * wrong, and rules that deny groups would let all of their tokens pass.
 */
export function refuseUntilKnown(
  fastify: FastifyInstance,
  registry: ConsumerRegistry,
  keys: () => readonly Key[]
): void {
  fastify.addHook('onRoute', (routeOptions) => {
    const { config } = routeOptions
    const route = edgeRouteOf(config)
    if (route === undefined || config?.preflightFor !== undefined) return
    const needsConsumers = ({ name, credentials }: Key): boolean => {
      const options: unknown = Reflect.get(route.edge, name)
      return credentials !== undefined && Boolean(options) && !isShadow(options)
    }
    if (!keys().some(needsConsumers)) return
    const record = refusalRecorder(meterOf(fastify), 'consumers', route.name)
    attach(routeOptions, 'onRequest', (request, _reply, done) => {
      if (registry.isKnown) return done()
      const refusal = new Unknown()
      record(request, refusal.code)
      done(refusal)
    })
  })
}

/** Uses each value of the key. Resolves once the first one is used, or is not available; with a function that ends this. */
export async function followKey(
  watched: WatchedKey,
  registry: ConsumerRegistry,
  surroundings: Surroundings,
  log: FastifyInstance['log']
): Promise<() => void> {
  const fields = { key: registry.key }
  /** The last value that was tried, and its fault. */
  let tried: string | null = null
  let fault: string | null = null
  const replaceBy = async (value: string): Promise<void> => {
    const list = await parseConsumers(value, `consul:${registry.key}`, surroundings)
    await inSlices(registry.replace(list, surroundings.keys.edge))
    registry.isKnown = true
    log.info({ ...fields, consumers: registry.size }, 'consumers changed')
  }
  const update = async (): Promise<void> => {
    const { value } = watched
    if (value !== null && value !== tried) {
      tried = value
      try {
        await replaceBy(value)
        fault = null
        watched.keep(value)
      } catch (error) {
        fault = asError(error).message
        const consequence = registry.isKnown
          ? 'the last good list stays in use'
          : 'requests that need credentials get 503'
        log.error(fields, `the consumers in Consul cannot be used; ${consequence}: ${fault}`)
      }
    }
    registry.error = watched.error ?? fault
  }
  let isRunning = false
  let isOutdated = false
  const hear = async (): Promise<void> => {
    isOutdated = true
    if (isRunning) return
    isRunning = true
    while (isOutdated) {
      isOutdated = false
      await update()
    }
    isRunning = false
  }
  await watched.first(FIRST_MS)
  await hear()
  // After a start without Consul, or a reload while the value has a fault.
  if (!registry.isKnown && watched.kept !== null) {
    await replaceBy(watched.kept).catch((error) => {
      log.error(fields, `the last usable consumers of Consul cannot be used any more: ${asError(error).message}`)
    })
  }
  const end = watched.onChange(() => void hear())
  await hear()
  return end
}
