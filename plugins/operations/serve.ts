/** Runs a server of a program's own that has the gateway registered in it, as `start` runs the gateway alone. */
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Config } from '../../config/schema.ts'
import { createShutdown, handleSignals } from './drain.ts'
import { listenOn } from './listen.ts'
import type { Address } from './listener.ts'

export interface Serving {
  /** Address for clients. */
  readonly address: AddressInfo
  /** Address of the admin port; null with `admin: false`. */
  readonly admin: AddressInfo | null
  /** Drains and closes, as SIGTERM does, but does not end the process. */
  close(): Promise<void>
}

/**
 * Listens on `listen` and `admin` of the configuration. SIGTERM, SIGINT and SIGQUIT drain the server: readiness fails, after
 * `drain.delay` it accepts no connections, and when the requests in flight have ended, or after `drain.timeout`, the process
 * exits. SIGHUP is logged and ignored: a server of one's own has one configuration.
 * @throws {TypeError} if the gateway is not registered for the whole server. @throws {ConfigError} if a port cannot be opened.
 */
export async function serve(server: FastifyInstance, config: Config): Promise<Serving> {
  await server.ready()
  assertServable(server, config)
  const { admin } = server
  try {
    if (admin !== null && config.admin !== false) await listenOn(open(admin), config.file, '/admin', config.admin)
    await listenOn(open(server), config.file, config.listen.at, config.listen)
  } catch (error) {
    await server.close()
    throw error
  }
  const remove = handleSignals(
    server,
    createShutdown(server, () => config),
    () => server.log.warn('reload ignored: a server with the gateway in it keeps its configuration; restart it')
  )
  server.log.info({ configHash: config.hash }, 'the server with the gateway in it is up')
  return {
    address: server.server.address() as AddressInfo,
    admin: (admin?.server.address() as AddressInfo | null | undefined) ?? null,
    async close() {
      remove()
      const overdue = setTimeout(
        () => void server.abortClients(),
        config.listen.drain.delay + config.listen.drain.timeout
      )
      try {
        await server.drain()
        await server.close()
      } finally {
        clearTimeout(overdue)
      }
    }
  }
}

/** Fastify adds a property to its options, and the configuration is frozen. */
const open = (server: FastifyInstance) => ({ listen: ({ host, port }: Address) => server.listen({ host, port }) })

function assertServable(server: FastifyInstance, { listeners }: Config): void {
  if (!server.hasDecorator('drain')) {
    const advice = 'with fastify-plugin, as in `server.register(fp(gateway), config)`'
    throw new TypeError(`serve: the gateway is not registered for the whole server; register it ${advice}`)
  }
  if (server.host !== null) throw new TypeError('serve: this server is part of a running gateway')
  if (listeners.length > 1) {
    throw new TypeError(
      `serve: a server has one listener, and the configuration has ${listeners.length}; use \`start\``
    )
  }
  if (listeners[0]!.path !== undefined) {
    throw new TypeError('serve: expected listen.host and listen.port, found a Unix socket (listen.path); use `start`')
  }
}
