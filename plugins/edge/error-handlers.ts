/**
 * Error handlers of plugins (`setErrorHandler`), which stand between an error and the error table. They render errors as
 * in any Fastify. What the table says of the gateway and of services stays as it is: status, Proxy-Status, log.
 */
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { errorToRender, forgetErrorHandler, isOurs, keepError, prepareReply, recordFailure, settle } from './errors.ts'

type Handler = (this: FastifyInstance, error: FastifyError, request: FastifyRequest, reply: FastifyReply) => unknown

/** An error of the table as a plugin's handler gets it: with what the client may learn. `cause` is the error itself. */
class GatewayError extends Error {
  override readonly name = 'GatewayError'
  readonly code: string | undefined
  readonly statusCode: number

  constructor(message: string, code: string | undefined, statusCode: number, cause: Error) {
    super(message, { cause })
    this.code = code
    this.statusCode = statusCode
  }
}

/** Passes errors to `handler` such that the table holds whatever it does. */
function withTable(handler: Handler): Handler {
  return function handleError(given, request, reply) {
    // The client has left.
    if (reply.sent) return undefined
    const error = errorToRender(given, request, reply)
    const { handed, isKept } = prepare(error, request, reply)
    if (isKept) keepError(error, reply)
    const status = reply.statusCode
    const fields = ['proxy-status', 'retry-after'].map((name) => [name, reply.getHeader(name)] as const)
    const { send } = reply
    const own = Object.getOwnPropertyDescriptor(reply, 'send')
    const sendOnce = (payload: unknown): FastifyReply => {
      // A hook may have put its own function on the reply.
      if (own === undefined) Reflect.deleteProperty(reply, 'send')
      else Reflect.defineProperty(reply, 'send', own)
      // The next handler is the one that was set before, and at last the table.
      if (payload === handed) return Reflect.apply(send, reply, [error])
      if (isKept && !(payload instanceof Error)) {
        reply.code(status)
        for (const [name, value] of fields) if (value !== undefined) reply.header(name, value)
      }
      // Not `reply.send`: where it could not be restored, that is still this function.
      return Reflect.apply(send, reply, [payload])
    }
    // Fastify sends by it what the handler returns, throws or rejects with.
    Object.defineProperty(reply, 'send', { value: sendOnce, configurable: true, writable: true })
    return Reflect.apply(handler, this, [handed, request, reply])
  }
}

const isPluginFault = (error: Error) => Reflect.get(error, 'code') === 'JW_PLUGIN_FAILED'

/** Returns the error for the handler, and whether status and fields of the response stay as the table says. */
function prepare(error: FastifyError, request: FastifyRequest, reply: FastifyReply) {
  if (isOurs(error, request) && !isPluginFault(error)) {
    const { status, message, code, isKept } = settle(error, request, reply)
    const isProxied = request.routeOptions.config.route !== undefined
    return { handed: new GatewayError(message, code, status, error), isKept: isKept && isProxied }
  }
  prepareReply(error, request, reply)
  // A plugin's own error, as its handler knows it.
  const handed = isPluginFault(error) && error.cause instanceof Error ? error.cause : error
  if (isPluginFault(error)) recordFailure(request, error)
  else request.failure = typeof error.code === 'string' ? error.code : null
  const { statusCode = 500 } = handed as { statusCode?: number }
  if (reply.statusCode < 400) reply.code(statusCode >= 400 && statusCode <= 599 ? statusCode : 500)
  return { handed, isKept: false }
}

/** Lets error handlers that are set from here on, in this context or below, and those of routes, stand before the table. */
export function watchErrorHandlers(fastify: FastifyInstance): void {
  const original: FastifyInstance['setErrorHandler'] = fastify.setErrorHandler
  let isFirst = true
  Object.assign(fastify, {
    setErrorHandler(this: FastifyInstance, handler: unknown): FastifyInstance {
      // Fastify warns of a second handler in one context: the gateway's own does not count.
      if (this === fastify && isFirst) {
        isFirst = false
        forgetErrorHandler(this)
      }
      const safe = typeof handler === 'function' ? withTable(handler as Handler) : handler
      return Reflect.apply(original, this, [safe]) as FastifyInstance
    }
  })
  fastify.addHook('onRoute', (route) => {
    const { errorHandler } = route
    if (errorHandler !== undefined) route.errorHandler = withTable(errorHandler as Handler)
  })
}
