import { isIP } from 'node:net'
import { buildConnector } from 'undici'
import type { MeshPolicy } from '../../../config/schema.ts'
import { MeshError } from '../errors.ts'
import type { Open } from '../http/pool.ts'
import type { CredentialSource } from './credentials.ts'
import type { Identify } from './names.ts'

/** How a service's connections are secured, where it is not just Node's way. */
export interface Security {
  readonly source: CredentialSource
  /** SNI, and without `identify` the name in the certificate, instead of the instance's host. */
  readonly serverName?: (() => string | undefined) | undefined
  /** Who the peer must be, instead of a host name. */
  readonly identify?: Identify | undefined
  /** Nothing goes out in the clear, and nothing without credentials. */
  readonly always: boolean
}

/**
 * Ways to a service's instances. Each new connection is made with the newest credentials, and those that stand stay.
 * TLS sessions are never resumed: a resumed one skips the check of the name and of the chain, so it would outlive the
 * authority that vouched for it. Connections are kept, so a whole handshake each costs little.
 */
export class Connectors {
  readonly #service: string
  readonly #timeout: number
  readonly #security: Security | null

  constructor(service: string, { connectTimeout }: MeshPolicy, security: Security | null) {
    this.#service = service
    this.#timeout = connectTimeout
    this.#security = security
  }

  to(origin: string): Open {
    const { protocol, hostname, host, port } = new URL(origin)
    const bare = hostname.replace(/^\[|\]$/g, '')
    const secure = protocol === 'https:'
    const own = isIP(bare) === 0 ? bare : undefined
    const security = this.#security
    const common = { timeout: this.#timeout, allowH2: false, maxCachedSessions: 0 }
    return (callback, onread) => {
      const credentials = security?.source.credentials ?? null
      if (security?.always && (!secure || credentials === null)) {
        queueMicrotask(() => callback(new MeshError('JW_IDENTITY_MISMATCH', this.#service), null))
        return undefined
      }
      const connect = buildConnector({
        ...common,
        ...(onread && { onread }),
        // Else an environment variable of Node's switches the verification off.
        rejectUnauthorized: true,
        ...(credentials !== null && { secureContext: credentials.context }),
        ...(security?.identify && { checkServerIdentity: security.identify })
      })
      // Whom the certificate must name is the instance's own matter, not the Host header's, which clients write.
      const servername = (secure && security?.serverName?.()) || own
      const address = { protocol, hostname: bare, host, port, servername }
      // The types withhold the socket that it returns.
      return connect(address as never, (error, socket) => callback(error, socket)) as unknown as ReturnType<Open>
    }
  }
}
