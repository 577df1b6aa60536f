/**
 * Error handlers of plugins (`setErrorHandler`), which run before the error table. They render errors as in any Fastify
 * server. For errors of the gateway and of services, the table still decides status, Proxy-Status and log entry.
 */
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import {
  applyTable,
  errorToRender,
  forgetErrorHandler,
  isOfGateway,
  keepError,
  prepareReply,
  recordFailure
} from './errors.ts'

type Handler = (this: FastifyInstance, error: FastifyError, request: FastifyRequest, reply: FastifyReply) => unknown

/** An error of the table as a plugin's handler gets it, with the fields that the client may see. `cause` is the error itself. */
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

/** Wraps an error handler of a plugin, so that it cannot change the status that the table gives to an error. */
function withTable(handler: Handler): Handler {
  return function handleError(given, request, reply) {
    // The client has disconnected.
    if (reply.sent) return undefined
    const error = errorToRender(given, request, reply)
    const { handed, isFixed } = prepare(error, request, reply)
    if (isFixed) keepError(error, reply)
    const status = reply.statusCode
    const fields = ['proxy-status', 'retry-after'].map((name) => [name, reply.getHeader(name)] as const)
    const { send } = reply
    const own = Object.getOwnPropertyDescriptor(reply, 'send')
    const sendOnce = (payload: unknown): FastifyReply => {
      // A hook may have replaced the function of the reply.
      if (own === undefined) Reflect.deleteProperty(reply, 'send')
      else Reflect.defineProperty(reply, 'send', own)
      // Passed on: the next handler is the one that was set before; the last one is the table.
      if (payload === handed) return Reflect.apply(send, reply, [error])
      if (isFixed && !(payload instanceof Error)) {
        reply.code(status)
        for (const [name, value] of fields) if (value !== undefined) reply.header(name, value)
      }
      // Not `reply.send`, which is still this function if it could not be restored.
      return Reflect.apply(send, reply, [payload])
    }
    // Fastify calls `send` with the value that the handler returns, throws or rejects with.
    Object.defineProperty(reply, 'send', { value: sendOnce, configurable: true, writable: true })
    return Reflect.apply(handler, this, [handed, request, reply])
  }
}

const isPluginFault = (error: Error) => Reflect.get(error, 'code') === 'JW_PLUGIN_FAILED'

/** Returns the error for the handler, and whether the table decides status and fields of the response. */
function prepare(error: FastifyError, request: FastifyRequest, reply: FastifyReply) {
  if (isOfGateway(error, request) && !isPluginFault(error)) {
    const { status, message, code, isFixed } = applyTable(error, request, reply)
    const isProxied = request.routeOptions.config.route !== undefined
    return { handed: new GatewayError(message, code, status, error), isFixed: isFixed && isProxied }
  }
  prepareReply(error, request, reply)
  // A plugin's own error: its handler gets the error that the plugin threw.
  const handed = isPluginFault(error) && error.cause instanceof Error ? error.cause : error
  if (isPluginFault(error)) recordFailure(request, error)
  else request.failure = typeof error.code === 'string' ? error.code : null
  const { statusCode = 500 } = handed as { statusCode?: number }
  if (reply.statusCode < 400) reply.code(statusCode >= 400 && statusCode <= 599 ? statusCode : 500)
  return { handed, isFixed: false }
}

/** Wraps the error handlers that are set from now on, in this context or below, and those of routes. */
export function watchErrorHandlers(fastify: FastifyInstance): void {
  const original: FastifyInstance['setErrorHandler'] = fastify.setErrorHandler
  let isFirst = true
  Object.assign(fastify, {
    setErrorHandler(this: FastifyInstance, handler: unknown): FastifyInstance {
      // Fastify warns about a second handler in one context; the gateway's own must not count as the first.
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
