import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import type { Config } from '../../config/schema.ts'
import { logCloseFailure } from './close-failure.ts'
import type { Facade } from './facade.ts'

/** Time limit for closing a gateway that has no requests left. */
const closeMs = 30_000
/** Time for which a reload waits for the first instance list of new and changed services. */
const warmMs = 10_000
/** Bounds for replaced gateways that still have requests; 1,000 routes take about 50 MB. */
const mostRetired = 50
const mostRetiredRoutes = 10_000

/** The gateway of one configuration. */
export interface Generation {
  readonly config: Config
  readonly gateway: FastifyInstance
  readonly edge: Facade
}

/** Replaced gateways that still have requests, streams or WebSockets. */
export class Retired {
  readonly #log: FastifyBaseLogger
  readonly #onEnd: (generation: Generation) => void
  /** Oldest first. */
  readonly #generations = new Map<Generation, Promise<void>>()

  /** `onEnd` is called after each gateway has closed. */
  constructor(log: FastifyBaseLogger, onEnd: (generation: Generation) => void) {
    this.#log = log
    this.#onEnd = onEnd
  }

  get generations(): Iterable<Generation> {
    return this.#generations.keys()
  }

  /** Closes the gateway once its last request has ended. */
  add(generation: Generation): void {
    this.#generations.set(generation, this.#retire(generation))
    this.#bound()
  }

  async #retire(generation: Generation): Promise<void> {
    await generation.edge.idle()
    await end(generation, this.#log)
    this.#generations.delete(generation)
    this.#onEnd(generation)
  }

  /** Aborts the oldest while there are too many; its WebSockets are closed with 1001. The newest stays, whatever its size. */
  #bound(): void {
    const waiting = [...this.#generations.keys()].filter(({ edge }) => !edge.isAbandoned)
    let left = waiting.length
    let routes = waiting.reduce((sum, { config }) => sum + config.routes.length, 0)
    for (const { config, edge } of waiting) {
      if (left <= 1 || (left <= mostRetired && routes <= mostRetiredRoutes)) return
      left--
      routes -= config.routes.length
      const fields = { hash: config.hash, mostRetired, mostRetiredRoutes }
      this.#log.warn(
        fields,
        'too many replaced configurations still have requests: aborting the requests of the oldest'
      )
      edge.abandon()
    }
  }

  /** Closes all of them when the process ends. */
  async close(): Promise<void> {
    for (const generation of this.#generations.keys()) void end(generation, this.#log)
    await Promise.all(this.#generations.values())
  }
}

/**
 * Waits until each new or changed service has its first instance list, until a time limit, or until `stop`. Returns the names
 * of services without one.
 */
export async function warm(
  next: Generation,
  { gateway: before, config }: Generation,
  stop: AbortSignal
): Promise<string[]> {
  const { mesh } = next.gateway
  const isFresh = (name: string) =>
    !Object.hasOwn(config.services, name) || before.mesh.service(name) !== mesh.service(name)
  const fresh = Object.keys(next.config.services).filter(isFresh)
  const late = new AbortController()
  const overdue = sleep(warmMs, null, { signal: AbortSignal.any([late.signal, stop]) }).catch(() => null)
  await Promise.race([Promise.all(fresh.map((name) => mesh.service(name).ready)), overdue])
  late.abort()
  return fresh.filter((name) => mesh.service(name).source.confirmedAt === null)
}

/** Closes a gateway, in bounded time. Never fails. */
export async function end(
  { gateway, config: { hash } }: Pick<Generation, 'config' | 'gateway'>,
  log: FastifyBaseLogger,
  limitMs = closeMs
): Promise<void> {
  const late = new AbortController()
  const overdue = sleep(limitMs, 'overdue', { ref: false, signal: late.signal }).catch(() => null)
  const closed = gateway.close().catch((err: unknown) => logCloseFailure(log, err, hash))
  if ((await Promise.race([closed, overdue])) === 'overdue')
    log.error({ hash }, `configuration ${hash} did not close within ${limitMs / 1000} s; its resources may stay open`)
  late.abort()
}
