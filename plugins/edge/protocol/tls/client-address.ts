import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'

/** Caches the address of a connection for `addressOf`: Node closes the connection before it reports a refused certificate. */
export function cacheAddress(raw: Socket): void {
  // The getter caches the address.
  void raw.remoteAddress
}

/** Returns the address of a client whose handshake has failed; undefined for a client at a Unix socket. */
export function addressOf(socket: TLSSocket): string | undefined {
  return socket.remoteAddress ?? (socket as { _parent?: Socket | null })._parent?.remoteAddress
}
