import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'

/** Node's handle of a connection: bytes handed to it, and those of them that the kernel has not taken yet. */
interface Handle {
  readonly bytesWritten: number
  readonly writeQueueSize: number
  /** The TCP connection below a TLS connection. */
  readonly _parent?: Handle
}

function handleOf(socket: Duplex): Handle | null {
  const { _handle: handle } = socket as Socket & { _handle?: Handle | null }
  // The TLS layer reports a write as waiting until the whole of it is gone.
  return handle?._parent ?? handle ?? null
}

/**
 * Counts the bytes that the kernel has taken for a connection since it was opened. Node has no public count of them:
 * `bytesWritten` includes what waits in the process. 0 for a connection that is closed, or is no socket.
 */
export function bytesTaken(socket: Duplex): number {
  const handle = handleOf(socket)
  return handle === null ? 0 : handle.bytesWritten - handle.writeQueueSize
}

/** Returns whether bytes wait in the process for the kernel to take them: the peer reads more slowly than we write. */
export function isBlocked(socket: Duplex): boolean {
  return (handleOf(socket)?.writeQueueSize ?? 0) > 0
}
