/**
 * Keys of undici's `DispatchOptions` that layers of the mesh set for layers further in. Callers set none of them: what
 * crosses the seam is declared in plugins/seam.ts. A key that only one concern knows is declared in its own file.
 */
import type { Interception } from '../guard/interception.ts'
import type { Call } from './call.ts'
import type { Minted } from './sticky-cookie.ts'
import type { Attempt, Endpoint, Instance } from './types.ts'

declare module 'undici' {
  namespace Dispatcher {
    interface DispatchOptions {
      /** The call. Interceptors of plugins may read it. */
      call?: Call
      /** Set by `select`: the instance that this attempt goes to. */
      instance?: Instance
      /** Set by `select`: the attempt, which may end while its call goes on. */
      attempt?: Attempt
      /**
       * Set by `retry`: this endpoint, or with true any, has to open a new connection, since others may have been lost
       * with the one that broke.
       */
      fresh?: Endpoint | true | undefined
      /** Set by the mesh: calls of different variants have different interceptors, so that none shares a response of another. */
      variant?: string | undefined
      /** Set by `split`: the sticky cookie that the caller will get. A hash on the same cookie reads it as if sent. */
      minted?: Minted
      /** Set by the guard of a plugin's interceptor: the call that the interceptor passes on. */
      interception?: Interception
    }
  }
}
