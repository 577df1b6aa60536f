import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'

/** Keeps the address of a connection for `addressOf`: Node closes it before it reports that it has refused a certificate. */
export function keepAddress(raw: Socket): void {
  // The getter caches it.
  void raw.remoteAddress
}

/** Returns the address of a client whose handshake has failed; undefined for one at a Unix socket. */
export function addressOf(socket: TLSSocket): string | undefined {
  return socket.remoteAddress ?? (socket as { _parent?: Socket | null })._parent?.remoteAddress
}
