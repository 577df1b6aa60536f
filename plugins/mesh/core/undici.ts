/**
 * The parts of undici that the mesh consists of. The package itself also loads fetch, caches, mocks and WebSockets: 95
 * modules and 15 MB that no call of the mesh needs. The parts are the same objects as the package's.
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
