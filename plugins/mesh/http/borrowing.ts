import type { DispatchHandler } from '../types.ts'

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
