import type { BorrowingHandler, TransferringBody } from '../../seam.ts'
import type { DispatchHandler } from '../core/types.ts'

export function isBorrowing(handler: DispatchHandler): handler is BorrowingHandler {
  return handler.borrows !== undefined && handler.borrows === handler.onResponseData
}

export function isTransferring(body: unknown): body is TransferringBody {
  return (body as Partial<TransferringBody>).transfers === true
}

/**
 * Detaches the chunk's ArrayBuffer if the chunk spans all of it. A view into a shared buffer must not be detached: other
 * chunks use it.
 */
export function free({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0)
}
