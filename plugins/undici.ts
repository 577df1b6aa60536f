/**
 * The parts of undici that calls to services need, by the mesh and without it. The package itself also loads fetch, caches,
 * mocks and WebSockets: 95 modules and 15 MB. The parts are the same objects as the package's.
 *
 * These files are internal: undici may move or change them in any minor version. So package.json pins the minor version
 * (`~8.12.4`); before raising it, compare the files and the handler's methods with those that the mesh uses.
 */
import { createRequire } from 'node:module'
import type undici from 'undici'
import type { Dispatcher as Dispatching } from 'undici'

type Undici = typeof undici

const require = createRequire(import.meta.url)

export const errors = require('undici/lib/core/errors') as Undici['errors']
export const buildConnector = require('undici/lib/core/connect') as Undici['buildConnector']
export const Dispatcher = require('undici/lib/dispatcher/dispatcher') as Undici['Dispatcher']

// Adds `request`, `stream` and other methods, as the package does when it is loaded.
Object.assign(Dispatcher.prototype, require('undici/lib/api/index'))

/** Returns undici's agent, with which calls are made without the mesh. */
export const agentClass = () => require('undici/lib/dispatcher/agent') as Undici['Agent']

/** Fails a call that was not begun. */
export function failCall(handler: Dispatching.DispatchHandler, error: Error): void {
  const controller = {
    aborted: true, paused: false, reason: null, abort() {}, pause() {}, resume() {}
  } as Dispatching.DispatchController // biome-ignore format: inert
  handler.onRequestStart?.(controller, {})
  handler.onResponseError?.(controller, error)
}

interface Legacy {
  wrapHandler(handler: object): Dispatching.DispatchHandler
}

const isLegacy = (handler: object) => 'onConnect' in handler || 'onHeaders' in handler

/**
 * Returns a handler with the methods that undici has had since version 7 for one with those of earlier versions
 * (`onConnect`, `onHeaders` …), which the `fetch` of undici 7 uses. Returns any other handler as it is.
 */
export function currentHandler(handler: Dispatching.DispatchHandler): Dispatching.DispatchHandler {
  if (!isLegacy(handler)) return handler
  const { wrapHandler } = require('undici/lib/dispatcher/dispatcher1-wrapper') as Legacy
  return wrapHandler(handler)
}
