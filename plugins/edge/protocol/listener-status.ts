import type { Server } from 'node:net'
import type { Direction } from '../../../config/direction.ts'
import { directionOf } from '../../../config/direction.ts'
import type { Config } from '../../../config/schema.ts'
import { listeningOf } from '../../listener-of.ts'

/** A listener as the admin port shows it. */
interface ListenerStatus {
  readonly name: string
  readonly direction: Direction
  /** Host and port, or the path of a Unix socket; null while it does not listen. */
  readonly address: string | null
  readonly tls: boolean
  readonly http2: boolean
  /** Open client connections. */
  readonly connections: number
}

declare module 'fastify' {
  interface FastifyInstance {
    /** Returns the state of the listeners, for the admin port. */
    listenerStatus: () => Promise<ListenerStatus[]>
  }
}

/** Returns the number of open connections of a server. */
export function connectionsOf(server: Server): Promise<number> {
  return new Promise((resolve) => server.getConnections((error, count) => resolve(error ? 0 : count)))
}

/** Returns the state of the listeners of a configuration. */
export function statusOf(facade: Server, { listen, listeners }: Config): Promise<ListenerStatus[]> {
  return Promise.all(
    listeningOf(facade).map(async ({ name, server }) => {
      // An embedding server has the options of the first listener.
      const options = listeners.find((each) => each.name === name) ?? listen
      const { tls, connect, http2 } = options
      return {
        name,
        direction: directionOf(options),
        address: addressOf(server),
        tls: tls !== undefined || connect !== undefined,
        http2,
        connections: await connectionsOf(server)
      }
    })
  )
}

function addressOf(server: Server): string | null {
  const at = server.address()
  if (at === null || typeof at === 'string') return at
  return `${at.address.includes(':') ? `[${at.address}]` : at.address}:${at.port}`
}
