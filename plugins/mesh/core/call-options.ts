/**
 * Keys of undici's `DispatchOptions` that outer layers of the mesh set for inner ones. Callers set none of them: the
 * keys of the seam are declared in plugins/seam.ts. A key that only one concern uses is declared in that concern's
 * file.
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
       * Set by `retry`: this endpoint, or with true any endpoint, must open a new connection, because idle ones may
       * have been lost together with the one that failed.
       */
      fresh?: Endpoint | true | undefined
      /** Set by the mesh: calls of different variants pass different interceptors and must not share responses. */
      variant?: string | undefined
      /** Set by `split`: the sticky cookie that the caller will get. `hash` on the same cookie treats it as sent. */
      minted?: Minted
      /** Set by the guard of a plugin's interceptor: the call that the interceptor passes on. */
      interception?: Interception
    }
  }
}
