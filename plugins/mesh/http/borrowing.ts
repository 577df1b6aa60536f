import type { DispatchHandler } from '../core/types.ts'

declare module 'undici' {
  namespace Dispatcher {
    interface DispatchHandler {
      /**
       * Its own `onResponseData`, if that is done with a chunk once it returns or, where it pauses, once it resumes: then
       * the chunk is part of a buffer that the next bytes are read into, and nothing is copied. That the method is named,
       * not just a flag set, keeps a handler safe that is derived from such a one and keeps chunks.
       */
      borrows?: DispatchHandler['onResponseData'] | undefined
    }
  }
}

export function isBorrowing(handler: DispatchHandler): boolean {
  return handler.borrows !== undefined && handler.borrows === handler.onResponseData
}

/**
 * A request body whose chunks are nobody else's: whoever has sent one may free its memory at once, or V8 lets 64 MB of
 * them gather. (Half the CPU of a large upload: the next chunk is read into memory that is still in the caches.) Asked
 * chunk by chunk. `onBodySent` sees a chunk before that, and copies what it wants to keep.
 */
export interface Transferring {
  readonly transfers: boolean
}

export function isTransferring(body: unknown): body is Transferring {
  return (body as Partial<Transferring>).transfers === true
}

/** Frees what is a whole buffer; of a part, the rest is somebody else's. */
export function free({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0)
}
