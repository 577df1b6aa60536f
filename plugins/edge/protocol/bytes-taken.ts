import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'

/** Node's handle of a connection: the bytes written to it, and those that the kernel has not accepted yet. */
interface Handle {
  readonly bytesWritten: number
  readonly writeQueueSize: number
  /** The TCP connection below a TLS connection. */
  readonly _parent?: Handle
}

function handleOf(socket: Duplex): Handle | null {
  const { _handle: handle } = socket as Socket & { _handle?: Handle | null }
  // The TLS layer reports a write as queued until all of it has been sent.
  return handle?._parent ?? handle ?? null
}

/**
 * Returns the bytes that the kernel has accepted for a connection since it was opened. Node has no public count of them:
 * `bytesWritten` includes bytes that are queued in the process. 0 for a closed connection or another kind of stream.
 */
export function bytesTaken(socket: Duplex): number {
  const handle = handleOf(socket)
  return handle === null ? 0 : handle.bytesWritten - handle.writeQueueSize
}

/** Returns whether bytes are queued in the process because the kernel accepts no more: the peer reads slowly. */
export function isBlocked(socket: Duplex): boolean {
  return (handleOf(socket)?.writeQueueSize ?? 0) > 0
}
