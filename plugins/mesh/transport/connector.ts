import { isIP } from 'node:net'
import { buildConnector } from 'undici'
import type { MeshPolicy } from '../../../config/schema.ts'

/** Opens connections to one address. */
export interface Connector {
  readonly connect: buildConnector.connector
  /** SNI, which is also what tells connections apart; null where there is no TLS. */
  readonly servername: string | null
}

/** How an instance is reached under a service's policy. */
export function connectorFor(origin: string, policy: MeshPolicy): Connector {
  const { protocol, hostname } = new URL(origin)
  const host = hostname.replace(/^\[|\]$/g, '')
  const connect = buildConnector({ timeout: policy.connectTimeout, allowH2: false })
  // Whom the certificate must name is the instance's own matter: undici would take it from the Host header,
  // which a gateway's clients write.
  const servername = isIP(host) === 0 ? host : undefined
  return {
    connect: (options, callback) => connect({ ...options, servername }, callback),
    servername: protocol === 'https:' ? host : null
  }
}
