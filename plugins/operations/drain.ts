import type { FastifyBaseLogger } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'
import { logCloseFailure } from './close-failure.ts'
import { connectionsOf } from './connections.ts'
import { logFlushed } from './logging.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Makes readiness fail while requests are still served, so that load balancers stop sending before the sockets close. */
    drain: () => Promise<void>
    isDraining: () => boolean
    /** Returns whether exchanges that end now were aborted by the shutdown. */
    isAborting: () => boolean
    /** Aborts all client connections, also those with requests in flight; resolves when they are closed. */
    abortClients: () => Promise<void>
  }
}

/** Draining: the first half of a graceful shutdown; closing the server is the second. */
export default fp<Config>(
  async (fastify, { listen }) => {
    const connections = connectionsOf(fastify.server)
    fastify.decorate('isDraining', () => connections.isDraining)
    fastify.decorate('drain', () => connections.drain(listen.drain.delay))
    fastify.decorate('isAborting', () => connections.isAborting)
    fastify.decorate('abortClients', () => connections.abortAll())
    fastify.addHook('onRequest', (request, reply, done) => {
      if (request.raw.httpVersionMajor === 1) connections.prepareResponse(reply.raw)
      done()
    })
    // The listening servers of a process, and their connections, outlive this configuration.
    if (fastify.host !== null) return
    fastify.addHook('preClose', async () => {
      connections.disableKeepAlive()
      connections.sweep(fastify.server)
    })
  },
  { name: 'jingwei-drain', fastify: '5.x' }
)

interface Stoppable {
  readonly log: FastifyBaseLogger
  drain: () => Promise<void>
  abortClients: () => Promise<void>
  close: () => Promise<void>
}

/** Time for the access lines of aborted requests. */
const lastMs = 1000

/** Shuts the process down gracefully, once. A second signal during the shutdown exits at once. */
export type Stop = (cause: NodeJS.Signals | 'fault') => Promise<void>

/**
 * Drains and closes the gateway. The process then exits with 0, or with 1 if the cause was a fault, a plugin failed to close,
 * or the drain timeout was exceeded.
 */
export function createShutdown(gateway: Stoppable, config: () => Config): Stop {
  let stopping = false
  return async (cause) => {
    const { listen, hash } = config()
    const isFault = cause === 'fault'
    if (stopping) {
      if (isFault) return
      gateway.log.warn({ signal: cause }, 'second signal: exiting without waiting for requests in flight')
      process.exit(1)
    }
    stopping = true
    const [delay, timeout] = [listen.drain.delay / 1000, listen.drain.timeout / 1000]
    gateway.log.info(
      { ...(!isFault && { signal: cause }), ...listen.drain },
      `draining: not ready from now on; refuses connections after ${delay} s, then waits at most ${timeout} s for requests`
    )
    let aborted: Promise<void> | null = null
    const overdue = setTimeout(() => {
      gateway.log.error('drain timeout exceeded: aborting the requests in flight')
      aborted = gateway.abortClients()
      setTimeout(() => process.exit(1), lastMs).unref()
    }, listen.drain.delay + listen.drain.timeout)
    overdue.unref()
    let failed = isFault
    try {
      await gateway.drain()
      await gateway.close()
    } catch (err) {
      failed = true
      logCloseFailure(gateway.log, err, hash)
    }
    await aborted
    gateway.log.info('stopped')
    await logFlushed(lastMs)
    process.exit(aborted === null && !failed ? 0 : 1)
  }
}

/**
 * Installs the signal handlers. SIGTERM, SIGINT and SIGQUIT shut down; a second one exits at once. SIGHUP reloads the
 * configuration. SIGUSR1 and SIGUSR2 are logged and ignored. Returns a function that removes the handlers.
 */
export function handleSignals(gateway: Stoppable, stop: Stop, reload: () => void): () => void {
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
