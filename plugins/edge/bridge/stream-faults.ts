/** Faults in streams that `onSend` hooks use in place of a service's body, and in responses of plugins. */
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

/** Returns the names of the plugin that owns the request's route, if any, and of the plugins with an `onSend` hook on it. */
function pluginsOf({ server, routeOptions: { config } }: FastifyRequest): string {
  if (!server.hasDecorator('pluginRecord')) return 'unknown'
  const { pluginRecord } = server
  const own = pluginRecord.routes.find(
    ({ route }) => config.ownRoute !== undefined && route.config?.ownRoute === config.ownRoute
  )
  const key = config.route?.name ?? own?.route
  // A not-found handler has only the hooks for all requests.
  const hooks = pluginRecord.hooksOf(key ?? '')
  const hooking = hooks.filter(({ everywhere, here }) => [...everywhere, ...here].includes('onSend'))
  const names = new Set([...(own === undefined ? [] : [own.owner.plugin]), ...hooking.map(({ plugin }) => plugin)])
  return [...names].join(', ') || 'unknown'
}

/** Default of `hookTimeout`, also for hooks that were not added by a configured plugin. */
export const defaultHookTimeoutMs = 30_000

/**
 * Returns the milliseconds for which streams of `onSend` hooks may delay a response of a route: the longest `hookTimeout` of
 * their plugins, because the plugin of a stream is unknown. 0: no limit.
 */
export function streamTimeout(fastify: FastifyInstance, route: string): number {
  const timeouts = fastify.hasDecorator('pluginRecord') ? fastify.pluginRecord.hookTimeoutsOf(route, 'onSend') : []
  if (timeouts.length === 0) return defaultHookTimeoutMs
  return timeouts.includes(0) ? 0 : Math.max(...timeouts)
}

/**
 * Passes errors in the request's async context to `fail` from now on: those that a plugin's stream throws in a callback or
 * a timer, or emits without a listener. Otherwise they would end the process.
 */
export function containStreamErrors(request: FastifyRequest, fail: (error: Error) => void): void {
  const { server } = request
  if (request.asyncContext === null || !server.hasDecorator('faultOwners')) return
  const contain = (error: Error) => {
    fail(error)
    return true
  }
  server.faultOwners.run({ plugin: 'onSend', contain }, () => captureContext(request))
}
