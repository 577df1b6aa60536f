import type { Source } from '../../core/types.ts'
import type { ConnectIdentity } from './connect.ts'

/** Wraps a source so that it starts only when the gateway has a client certificate; calls without one would fail. */
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
