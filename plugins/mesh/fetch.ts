/**
 * The mesh as the dispatcher of Node's global `fetch`, `WebSocket` and `EventSource`, and of undici's functions.
 *
 * They read their dispatcher from a property of `globalThis`: undici 8, that of Node 26, from `undici.globalDispatcher.2`,
 * undici 6 and 7 from `undici.globalDispatcher.1`. The numbers stand for the methods of a handler; the mesh accepts both
 * kinds. A program may have several undicis, Node's own and packages, so both properties are set.
 */
import type { Dispatcher as UndiciDispatcher } from 'undici'
import { Dispatcher } from '../undici.ts'
import type { Dispatch, DispatchHandler, DispatchOptions } from './core/types.ts'
import type { MeshDispatcher } from './dispatcher.ts'
import { isMeshOrigin, refusingRedirects } from './foreign-redirect.ts'

/** With TypeScript's `dom` library, `RequestInit` is that of browsers and lacks Node's option. */
type DispatcherOption = typeof globalThis extends { onmessage: unknown } ? { dispatcher?: UndiciDispatcher } : object

declare global {
  interface RequestInit extends DispatcherOption {}
}

const current = Symbol.for('undici.globalDispatcher.2')
const legacy = Symbol.for('undici.globalDispatcher.1')

/** Set on `globalThis` while a mesh is installed, also by another copy of this package. */
const installed = Symbol.for('jingwei.fetch')

/** A dispatcher of any undici. */
interface AnyDispatcher {
  readonly dispatch: Dispatch
  close(...callback: (() => void)[]): Promise<void>
  destroy(...errorAndCallback: unknown[]): Promise<void>
}

/** Sends calls of hosts that end with `.mesh` through the mesh, and all others to the dispatcher before it. */
class Router extends Dispatcher {
  readonly #next: AnyDispatcher
  #mesh: MeshDispatcher | null

  constructor(mesh: MeshDispatcher, next: AnyDispatcher) {
    super()
    this.#mesh = mesh
    this.#next = next
    // Its own dispatcher is the one before, which other code may want to close.
    this.close = next.close.bind(next)
    this.destroy = next.destroy.bind(next)
  }

  /** Sends all calls to the dispatcher before it from now on, for code that wraps or keeps this one. */
  disable(): void {
    this.#mesh = null
  }

  override dispatch(opts: DispatchOptions, handler: DispatchHandler): boolean {
    const origin = typeof opts.origin === 'string' ? opts.origin : String(opts.origin?.origin)
    if (this.#mesh === null) return this.#next.dispatch(opts, handler)
    if (isMeshOrigin(origin)) return this.#mesh.dispatch(opts, handler)
    return this.#next.dispatch(opts, refusingRedirects(handler, origin))
  }
}

function dispatcherOf(key: symbol): AnyDispatcher | undefined {
  return Reflect.get(globalThis, key) as AnyDispatcher | undefined
}

/** Defines the property as undici does, if an undici has not. */
function setDispatcher(key: symbol, value: AnyDispatcher): void {
  if (Object.hasOwn(globalThis, key)) Reflect.set(globalThis, key, value)
  else Object.defineProperty(globalThis, key, { value, writable: true, enumerable: false, configurable: true })
}

/**
 * Makes the mesh the dispatcher of the global `fetch` for hosts that end with `.mesh`: `fetch('http://orders.mesh/42')`.
 * Other hosts keep the dispatcher that they had; their redirects to such a host fail. Returns a function that restores the
 * dispatcher before; it does not close the mesh.
 * @throws if a mesh is installed already.
 */
export function installFetch(mesh: MeshDispatcher): () => void {
  if (typeof (mesh as Partial<MeshDispatcher> | undefined)?.dispatch !== 'function') {
    throw new TypeError('installFetch: expected the mesh that createMesh returns')
  }
  if (Object.hasOwn(globalThis, installed)) {
    throw new Error(
      'installFetch: a mesh is installed already, and fetch can use one only: configure all services in one mesh, or call the function that the first installFetch returned'
    )
  }
  // Node loads its undici, which sets the properties, with the first use of one of its classes.
  void globalThis.Headers
  const keys = [current, legacy]
  const before = dispatcherOf(legacy) ?? dispatcherOf(current)
  if (before === undefined) throw new Error('installFetch: this process has no global dispatcher for fetch')
  const routers = keys.map((key) => {
    // An undici 8 that is loaded later keeps a dispatcher that it finds, so this property must never be empty again.
    const next = dispatcherOf(key) ?? before
    const router = new Router(mesh, next)
    setDispatcher(key, router)
    return { key, router, next }
  })
  Object.defineProperty(globalThis, installed, { value: true, enumerable: false, configurable: true })
  let isInstalled = true
  return () => {
    if (!isInstalled) return
    isInstalled = false
    for (const { key, router, next } of routers) {
      router.disable()
      // Other code may have set a dispatcher since, which stays.
      if (dispatcherOf(key) === router) setDispatcher(key, next)
    }
    Reflect.deleteProperty(globalThis, installed)
  }
}
