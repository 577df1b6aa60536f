import type { Source } from '../../core/types.ts'
import type { ConnectIdentity } from './connect.ts'

/** A source that says nothing until the gateway can show who it is: a call would only fail at the first instance. */
export function gated(source: Source, identity: Pick<ConnectIdentity, 'credentials' | 'error' | 'whenReady'>): Source {
  let closed = false
  return {
    start: (publish) => {
      identity.whenReady(() => {
        if (!closed) source.start(publish)
      })
    },
    status: () => {
      const status = source.status()
      return identity.credentials === null ? { ...status, error: identity.error } : status
    },
    close: () => {
      closed = true
      return source.close()
    }
  }
}
