import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Says "not ready" and goes on serving, so that load balancers look elsewhere before the sockets close. */
    drain: () => Promise<void>
    isDraining: () => boolean
  }
}

/** The first half of an orderly end; closing the server is the second. */
export default fp<Config>(
  async (fastify, { listen }) => {
    let draining: Promise<void> | null = null
    fastify.decorate('isDraining', () => draining !== null)
    fastify.decorate('drain', () => {
      draining ??= sleep(listen.drain.delay)
      return draining
    })
  },
  { name: 'jingwei-drain', fastify: '5.x' }
)

interface Stoppable {
  readonly log: FastifyBaseLogger
  drain: () => Promise<void>
  close: () => Promise<void>
}

/**
 * SIGTERM and SIGINT drain and close, then the process ends with 0; with 1 if that takes longer than the
 * timeout. A second signal ends it at once.
 */
export function stopOnSignals(gateway: Stoppable, { listen }: Config): void {
  let stopping = false
  const stop = async (signal: NodeJS.Signals) => {
    if (stopping) {
      gateway.log.warn({ signal }, 'second signal: stopping at once')
      process.exit(1)
    }
    stopping = true
    gateway.log.info({ signal, ...listen.drain }, 'draining')
    const overdue = setTimeout(() => {
      gateway.log.error('requests in flight were cut: the drain timeout is over')
      process.exit(1)
    }, listen.drain.delay + listen.drain.timeout)
    overdue.unref()
    await gateway.drain()
    await gateway.close()
    gateway.log.info('stopped')
    process.exit(0)
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, (name) => void stop(name))
}
