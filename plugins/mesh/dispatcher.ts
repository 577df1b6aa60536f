import { Dispatcher } from '../undici.ts'

/** The part of the mesh that makes it complete as a `Dispatcher` of undici and of Node's `fetch`. */
export abstract class MeshDispatcher extends Dispatcher {
  /**
   * Node's `fetch` through this mesh: `mesh.fetch('http://orders.mesh/42')`. Bound, so that it can be passed to a client
   * library that takes a `fetch` function. A redirect to a host that is no service fails.
   */
  readonly fetch: typeof globalThis.fetch = (input: string | URL | Request, init?: RequestInit) =>
    // Not the type of Node's option: that is of the undici that @types/node comes with.
    globalThis.fetch(input, { ...init, dispatcher: this } as object)

  constructor() {
    super()
    // Bound, because `compose()` of undici calls them on a Proxy, which has no private fields.
    Object.assign(this, { close: this.close.bind(this), destroy: this.destroy.bind(this) })
  }

  /** Refuses new calls, and closes once those in flight have ended. */
  abstract shutdown(graceMs?: number): Promise<void>

  /** Aborts the calls in flight with the error, and closes. */
  protected abstract abort(error: Error | null): Promise<void>

  override close(): Promise<void>
  override close(callback: () => void): void
  override close(callback?: () => void): Promise<void> | void {
    const closed = this.shutdown()
    if (callback === undefined) return closed
    void closed.then(callback)
  }

  override destroy(): Promise<void>
  override destroy(error: Error | null): Promise<void>
  override destroy(callback: () => void): void
  override destroy(error: Error | null, callback: () => void): void
  override destroy(first?: Error | null | (() => void), second?: () => void): Promise<void> | void {
    const callback = typeof first === 'function' ? first : second
    const destroyed = this.abort(typeof first === 'function' ? null : (first ?? null))
    if (callback === undefined) return destroyed
    void destroyed.then(callback)
  }
}
