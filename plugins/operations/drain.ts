import type { FastifyBaseLogger } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'
import { connectionsOf } from './connections.ts'
import { logFlushed } from './logging.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Says "not ready" and goes on serving, so that load balancers look elsewhere before the sockets close. */
    drain: () => Promise<void>
    isDraining: () => boolean
    /** Returns whether exchanges that end now were broken off by the shutdown. */
    isCutting: () => boolean
    /** Ends every client's connection, whatever is under way on it; resolves once they are closed. */
    cutClients: () => Promise<void>
  }
}

/** The first half of an orderly end; closing the server is the second. */
export default fp<Config>(
  async (fastify, { listen }) => {
    const connections = connectionsOf(fastify.server)
    fastify.decorate('isDraining', () => connections.isDraining)
    fastify.decorate('drain', () => connections.drain(listen.drain.delay))
    fastify.decorate('isCutting', () => connections.isCutting)
    fastify.decorate('cutClients', () => connections.cut())
    fastify.addHook('onRequest', (request, reply, done) => {
      if (request.raw.httpVersionMajor === 1) connections.meet(reply.raw)
      done()
    })
    // Connections of a process outlive this configuration.
    if (fastify.host !== null) return
    fastify.addHook('preClose', async () => {
      connections.sendElsewhere()
      connections.sweep(fastify.server)
    })
  },
  { name: 'jingwei-drain', fastify: '5.x' }
)

interface Stoppable {
  readonly log: FastifyBaseLogger
  drain: () => Promise<void>
  cutClients: () => Promise<void>
  close: () => Promise<void>
}

/** Time for the log lines of requests that were cut. */
const lastMs = 1000

/** Ends the process in order, once; a second cause while it ends ends it at once. */
export type Stop = (cause: NodeJS.Signals | 'fault') => Promise<void>

/**
 * Drains and closes the gateway; then the process exits with 0, or with 1 after a fault or if that takes longer than the
 * timeout.
 */
export function stopper(gateway: Stoppable, config: () => Config): Stop {
  let stopping = false
  return async (cause) => {
    const { listen } = config()
    const isFault = cause === 'fault'
    if (stopping) {
      if (isFault) return
      gateway.log.warn({ signal: cause }, 'second signal: stopping at once')
      process.exit(1)
    }
    stopping = true
    gateway.log.info({ ...(!isFault && { signal: cause }), ...listen.drain }, 'draining')
    let cut: Promise<void> | null = null
    const overdue = setTimeout(() => {
      gateway.log.error('requests in flight were cut: the drain timeout is over')
      cut = gateway.cutClients()
      setTimeout(() => process.exit(1), lastMs).unref()
    }, listen.drain.delay + listen.drain.timeout)
    overdue.unref()
    let failed = isFault
    try {
      await gateway.drain()
      await gateway.close()
    } catch (err) {
      failed = true
      gateway.log.error({ err }, 'a plugin failed to close')
    }
    await cut
    gateway.log.info('stopped')
    await logFlushed(lastMs)
    process.exit(cut === null && !failed ? 0 : 1)
  }
}

/**
 * SIGTERM, SIGINT and SIGQUIT stop the gateway; a second signal exits at once. SIGHUP reloads the configuration. The other
 * signals that people send to servers change nothing. Returns the function that ends this.
 */
export function obeySignals(gateway: Stoppable, stop: Stop, reload: () => void): () => void {
  const listeners = new Map<NodeJS.Signals, (signal: NodeJS.Signals) => void>([['SIGHUP', reload]])
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGQUIT'] as const) listeners.set(signal, (name) => void stop(name))
  for (const signal of ['SIGUSR1', 'SIGUSR2'] as const) {
    listeners.set(signal, () => gateway.log.info({ signal }, 'signal ignored'))
  }
  for (const [signal, listener] of listeners) process.on(signal, listener)
  return () => {
    for (const [signal, listener] of listeners) process.off(signal, listener)
  }
}
