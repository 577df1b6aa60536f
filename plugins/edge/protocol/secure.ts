import type { IncomingMessage } from 'node:http'
import type { Peers } from './peers.ts'

/** Returns whether the client used TLS, possibly to a trusted proxy. For handshakes, some proxies send `wss`. */
export function isSecure(raw: IncomingMessage, peers: Peers): boolean {
  if ((raw.socket as { encrypted?: boolean }).encrypted === true) return true
  const schemes = raw.headers['x-forwarded-proto']
  if (schemes === undefined || !peers.trustedHeadersOf(raw)?.names.has('x-forwarded-proto')) return false
  return /(?:^|,)\s*(?:https|wss)\s*$/i.test(String(schemes))
}
