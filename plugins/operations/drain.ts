import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'
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

/** Node's own link to the response under way. A set of responses of our own costs the collector. */
interface Connection extends Socket {
  _httpMessage?: ServerResponse | null
}

/** Milliseconds between two looks of a closing server for connections that have become idle. */
const sweepMs = 50

/** The first half of an orderly end; closing the server is the second. */
export default fp<Config>(
  async (fastify, { listen }) => {
    let draining: Promise<void> | null = null
    let leaving = false
    let cutting = false
    const connections = new Set<Connection>()
    const isPlain = !('setSecureContext' in fastify.server)
    fastify.decorate('isDraining', () => draining !== null)
    fastify.decorate('drain', () => {
      if (draining === null) sendElsewhere()
      draining ??= sleep(listen.drain.delay)
      return draining
    })

    const cut = (socket: Connection) =>
      new Promise<void>((resolve) => {
        socket.once('close', () => resolve())
        // To HTTP/1.0 a closed connection is the end of the body; only a reset is not.
        if (isPlain) socket.resetAndDestroy()
        else socket.destroy()
      })
    fastify.decorate('isCutting', () => cutting)
    fastify.decorate('cutClients', async () => {
      cutting = true
      await Promise.all([...connections].map(cut))
    })

    const track = (socket: Connection) => {
      connections.add(socket)
      socket.once('close', () => connections.delete(socket))
    }
    fastify.server.on('connection', track).on('secureConnection', track)

    /** Clients learn from `Connection: close` that their next request belongs elsewhere. */
    function sendElsewhere(): void {
      leaving = true
      for (const { _httpMessage: response } of connections) if (response) response.shouldKeepAlive = false
    }
    fastify.addHook('onRequest', (request, { raw }, done) => {
      if (request.raw.httpVersionMajor === 1) {
        if (leaving) raw.shouldKeepAlive = false
        // Behind answers to earlier requests: Node gives it the connection when its turn has come.
        else if (raw.socket === null) raw.once('socket', endIfLeaving)
      }
      done()
    })
    function endIfLeaving(this: ServerResponse): void {
      if (leaving) this.shouldKeepAlive = false
    }

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
export function stopper(gateway: Stoppable, { listen }: Config): Stop {
  let stopping = false
  return async (cause) => {
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
 * SIGTERM, SIGINT and SIGQUIT stop the gateway; a second signal exits at once. The other signals that people send to
 * servers change nothing.
 */
export function stopOnSignals(gateway: Stoppable, stop: Stop): void {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGQUIT'] as const) process.on(signal, (name) => void stop(name))
  process.on('SIGHUP', (signal) =>
    gateway.log.warn({ signal }, 'reload is not available: restart the gateway to apply a changed configuration')
  )
  for (const signal of ['SIGUSR1', 'SIGUSR2'] as const) {
    process.on(signal, () => gateway.log.info({ signal }, 'signal ignored'))
  }
}
