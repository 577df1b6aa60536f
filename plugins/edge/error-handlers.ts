/**
 * Error handlers of plugins (`setErrorHandler`), which stand between an error and the error table. They render errors as
 * in any Fastify. What the table says of the gateway and of services stays as it is: status, Proxy-Status, log.
 */
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { isOurs, prepareReply, recordFailure, settle } from './errors.ts'

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
  return function handleError(error, request, reply) {
    // The client has left.
    if (reply.sent) return undefined
    const { handed, isKept } = prepare(error, request, reply)
    const status = reply.statusCode
    const fields = ['proxy-status', 'retry-after'].map((name) => [name, reply.getHeader(name)] as const)
    const send = (payload: unknown): FastifyReply => {
      Reflect.deleteProperty(reply, 'send')
      // The next handler is the one that was set before, and at last the table.
      if (payload === handed) return reply.send(error)
      if (!isKept) return reply.send(payload)
      if (payload instanceof Error) {
        if (!isPluginFault(payload)) request.log.error({ err: payload }, 'an error handler failed')
        return reply.send(error)
      }
      reply.code(status)
      for (const [name, value] of fields) if (value !== undefined) reply.header(name, value)
      return reply.send(payload)
    }
    // Fastify sends by it what the handler returns, throws or rejects with.
    Object.assign(reply, { send })
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
        forgetHandler(this)
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

/** Fastify has no public way to do it; a version that remembers the handler elsewhere only warns. */
function forgetHandler(fastify: FastifyInstance): void {
  const symbols = Object.getOwnPropertySymbols(fastify)
  const isSet = symbols.find(({ description }) => description === 'fastify.errorHandlerAlreadySet')
  if (isSet !== undefined) Reflect.set(fastify, isSet, false)
}
