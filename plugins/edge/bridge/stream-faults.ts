/** Faults in streams that `onSend` hooks have put in place of a service's body. */
import createError from '@fastify/error'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { captureContext } from '../async-context.ts'

const StreamFailed = createError('JW_PLUGIN_FAILED', 'a stream of an onSend hook of plugin %s failed: %s', 500)

/** Logs a stream's fault, and returns the error that ends the response. */
export function streamFault(request: FastifyRequest, error: Error): Error {
  const plugin = pluginsOf(request)
  const fault = Object.assign(new StreamFailed(plugin, error.message), { cause: error })
  request.log.error({ plugin, hook: 'onSend', err: error }, fault.message)
  return fault
}

/** Returns the names of the plugins with an `onSend` hook on the request's route; there is mostly one. */
function pluginsOf({ server, routeOptions }: FastifyRequest): string {
  const route = routeOptions.config.route?.name
  if (route === undefined || !server.hasDecorator('pluginRecord')) return 'unknown'
  const hooks = server.pluginRecord.hooksOf(route)
  const names = hooks.filter(({ everywhere, here }) => [...everywhere, ...here].includes('onSend'))
  return names.map(({ plugin }) => plugin).join(', ') || 'unknown'
}

/** Time for the streams of hooks that no plugin of the configuration has added; the default of `hookTimeout`. */
const usualTimeoutMs = 30_000

/**
 * Returns for how long streams of `onSend` hooks may keep a response of a route waiting, in milliseconds: the longest
 * `hookTimeout` of their plugins, since nothing tells whose stream it is. 0: any time.
 */
export function streamTimeout(fastify: FastifyInstance, route: string): number {
  const timeouts = fastify.hasDecorator('pluginRecord') ? fastify.pluginRecord.hookTimeoutsOf(route, 'onSend') : []
  if (timeouts.length === 0) return usualTimeoutMs
  return timeouts.includes(0) ? 0 : Math.max(...timeouts)
}

/**
 * Lets the request answer for what runs in its context from here on: what a stream of a plugin throws in a callback or a
 * timer, or emits as an error without a listener, goes to `fail`. Otherwise it would end the process.
 */
export function answerForStreams(request: FastifyRequest, fail: (error: Error) => void): void {
  const { server } = request
  if (request.asyncContext === null || !server.hasDecorator('faultOwners')) return
  const contain = (error: Error) => {
    fail(error)
    return true
  }
  server.faultOwners.run({ plugin: 'onSend', contain }, () => captureContext(request))
}
