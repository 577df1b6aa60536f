import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'

/** Node's handle of a connection: bytes handed to it, and those of them that the kernel has not taken yet. */
interface Handle {
  readonly bytesWritten: number
  readonly writeQueueSize: number
  /** Of TLS: the TCP connection below. */
  readonly _parent?: Handle
}

/**
 * Counts the bytes that the kernel has taken for a connection since it was opened. Node has no public count of them:
 * `bytesWritten` includes what waits in the process. 0 for a connection that is closed, or is no socket.
 */
export function bytesTaken(socket: Duplex): number {
  const { _handle: handle } = socket as Socket & { _handle?: Handle | null }
  if (handle === undefined || handle === null) return 0
  // The TLS layer reports a write as waiting until the whole of it is gone.
  const { bytesWritten, writeQueueSize } = handle._parent ?? handle
  return bytesWritten - writeQueueSize
}

/** Whether the process holds bytes that the kernel has not taken. */
export function hasPending(socket: Duplex): boolean {
  if (socket.writableLength > 0) return true
  const { _handle: handle } = socket as Socket & { _handle?: Handle | null }
  // HTTP/2 writes to the handle itself.
  return handle !== undefined && handle !== null && (handle._parent ?? handle).writeQueueSize > 0
}
