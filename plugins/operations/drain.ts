import type { ServerResponse } from 'node:http'
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

/** How often a closing server looks for connections that have become idle. */
const sweepMs = 50

/** The first half of an orderly end; closing the server is the second. */
export default fp<Config>(
  async (fastify, { listen }) => {
    let draining: Promise<void> | null = null
    const inFlight = new Set<ServerResponse>()
    fastify.decorate('isDraining', () => draining !== null)
    fastify.decorate('drain', () => {
      if (draining === null) sendElsewhere()
      draining ??= sleep(listen.drain.delay)
      return draining
    })

    /** Clients learn from `Connection: close` that their next request belongs elsewhere. */
    function sendElsewhere(): void {
      for (const response of inFlight) response.shouldKeepAlive = false
    }
    fastify.addHook('onRequest', (request, { raw }, done) => {
      if (request.raw.httpVersionMajor === 1) {
        if (draining !== null) raw.shouldKeepAlive = false
        inFlight.add(raw)
        raw.once('close', () => inFlight.delete(raw))
      }
      done()
    })

    // Node closes the connections that are idle now, and would wait out the keep-alive time of those that become it.
    fastify.addHook('preClose', async () => {
      const { server } = fastify
      sendElsewhere()
      if (!server.listening) return
      const sweep = setInterval(() => server.closeIdleConnections(), sweepMs)
      server.once('close', () => clearInterval(sweep))
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
