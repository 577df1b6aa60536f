import { isIP } from 'node:net'
import { buildConnector } from 'undici'
import type { MeshPolicy } from '../../../config/schema.ts'
import { MeshError } from '../errors.ts'
import type { CredentialSource, Credentials } from './credentials.ts'
import type { Identify } from './names.ts'

/** Opens connections to one address. */
export interface Connector {
  readonly connect: buildConnector.connector
  /** What tells undici's connections apart; null where there is no TLS. */
  readonly servername: string | null
}

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
  /** Those that `#connect` was built with. */
  #credentials: Credentials | null = null
  #connect: buildConnector.connector

  constructor(service: string, { connectTimeout }: MeshPolicy, security: Security | null) {
    this.#service = service
    this.#timeout = connectTimeout
    this.#security = security
    this.#connect = this.#build()
  }

  #build(): buildConnector.connector {
    const identify = this.#security?.identify
    return buildConnector({
      timeout: this.#timeout,
      allowH2: false,
      maxCachedSessions: 0,
      // Else an environment variable of Node's switches the verification off.
      rejectUnauthorized: true,
      ...(this.#credentials !== null && { secureContext: this.#credentials.context }),
      ...(identify !== undefined && { checkServerIdentity: identify })
    })
  }

  to(origin: string): Connector {
    const { protocol, hostname } = new URL(origin)
    const host = hostname.replace(/^\[|\]$/g, '')
    const secure = protocol === 'https:'
    // Whom the certificate must name is the instance's own matter: undici would take it from the Host header,
    // which a gateway's clients write.
    const own = isIP(host) === 0 ? host : undefined
    const security = this.#security
    if (security === null) {
      return {
        connect: (options, callback) => this.#connect({ ...options, servername: own }, callback),
        servername: secure ? host : null
      }
    }
    return {
      connect: (options, callback) => {
        const { credentials } = security.source
        if (security.always && (!secure || credentials === null)) {
          queueMicrotask(() => callback(new MeshError('JW_IDENTITY_MISMATCH', this.#service), null))
          return
        }
        if (credentials !== this.#credentials) {
          this.#credentials = credentials
          this.#connect = this.#build()
        }
        return this.#connect({ ...options, servername: (secure && security.serverName?.()) || own }, callback)
      },
      servername: secure ? host : null
    }
  }
}
