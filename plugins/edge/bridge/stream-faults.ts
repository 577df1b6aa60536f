/** Faults in streams that `onSend` hooks have put in place of a service's body. */
import createError from '@fastify/error'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { captureContext } from '../async-context.ts'

const StreamFailed = createError('JW_PLUGIN_FAILED', 'a stream of an onSend hook of plugin %s failed: %s', 500)

const ReplyFailed = createError('JW_PLUGIN_FAILED', 'a response that plugin %s made or changed cannot be sent: %s', 500)

/** Logs why a response cannot be sent, and returns the error that ends it. */
export function replyFault(request: FastifyRequest, error: Error): Error {
  const plugin = pluginsOf(request)
  const fault = Object.assign(new ReplyFailed(plugin, error.message), { cause: error })
  request.log.error({ plugin, err: error }, fault.message)
  return fault
}

/** Logs a stream's fault, and returns the error that ends the response. */
export function streamFault(request: FastifyRequest, error: Error): Error {
  const plugin = pluginsOf(request)
  const fault = Object.assign(new StreamFailed(plugin, error.message), { cause: error })
  request.log.error({ plugin, hook: 'onSend', err: error }, fault.message)
  return fault
}

/** Returns the plugin of the request's route, if it is a plugin's own, and those with an `onSend` hook on it. */
function pluginsOf({ server, routeOptions: { config } }: FastifyRequest): string {
  if (!server.hasDecorator('pluginRecord')) return 'unknown'
  const { pluginRecord } = server
  const own = pluginRecord.routes.find(
    ({ route }) => config.ownRoute !== undefined && route.config?.ownRoute === config.ownRoute
  )
  const key = config.route?.name ?? own?.route
  // A not-found handler has none but the hooks for every request.
  const hooks = pluginRecord.hooksOf(key ?? '')
  const hooking = hooks.filter(({ everywhere, here }) => [...everywhere, ...here].includes('onSend'))
  const names = new Set([...(own === undefined ? [] : [own.owner.plugin]), ...hooking.map(({ plugin }) => plugin)])
  return [...names].join(', ') || 'unknown'
}

/** Time for the streams of hooks that no plugin of the configuration has added; the default of `hookTimeout`. */
export const usualTimeoutMs = 30_000

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
