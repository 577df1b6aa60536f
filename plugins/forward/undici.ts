/**
 * The parts of undici that calls without the mesh consist of: the agent, and the methods of its `Dispatcher`. The package
 * itself also loads fetch, caches, mocks and WebSockets. These files are internal; package.json pins the minor version.
 */
import { createRequire } from 'node:module'
import type undici from 'undici'

type Undici = typeof undici

const require = createRequire(import.meta.url)

export const buildConnector = require('undici/lib/core/connect') as Undici['buildConnector']
export const Dispatcher = require('undici/lib/dispatcher/dispatcher') as Undici['Dispatcher']
export const Agent = require('undici/lib/dispatcher/agent') as Undici['Agent']

// Adds `request`, `stream` and other methods, as the package does when it is loaded.
Object.assign(Dispatcher.prototype, require('undici/lib/api/index'))
