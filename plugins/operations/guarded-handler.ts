/** Guards for handlers and error handlers of plugins: what they throw or reject with fails only their own request. */
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { asError, isMadeToRespond, isThenable } from '../thrown.ts'
import type { FaultOwner, FaultOwners, PluginOwner } from './fault-owners.ts'

const PluginFailed = createError('JW_PLUGIN_FAILED', 'plugin %s failed in %s: %s', 500)

/** Any hook or handler; its arguments depend on its kind. */
// biome-ignore lint/complexity/noBannedTypes: of all signatures
export type Code = Function

/**
 * Returns the error that ends the request. An error with a status, or with a code of the gateway, is the response that the
 * plugin chose. Any other error, and a 5xx that was not made to be a response, is a failure of the plugin and is logged.
 */
export function faultOf(request: FastifyRequest, plugin: string, where: string, error: Error): Error {
  const { code, statusCode } = error as { code?: unknown; statusCode?: unknown }
  const hasStatus = typeof statusCode === 'number' && statusCode >= 400 && statusCode <= 599
  if (typeof code === 'string' && code.startsWith('JW_')) return error
  if (!hasStatus || (statusCode >= 500 && !isMadeToRespond(error))) {
    request.log.error({ plugin, hook: where, err: error }, `plugin ${plugin} failed in ${where}: ${error.message}`)
  }
  return hasStatus ? error : Object.assign(new PluginFailed(plugin, where, error.message), { cause: error })
}

/** One call of a plugin's handler. */
class HandlerRun implements FaultOwner {
  readonly plugin: string
  readonly #request: FastifyRequest
  readonly reply: FastifyReply
  readonly #where: string

  constructor(plugin: string, request: FastifyRequest, reply: FastifyReply, where: string) {
    this.plugin = plugin
    this.#where = where
    this.#request = request
    this.reply = reply
  }

  fault(error: unknown): Error {
    return faultOf(this.#request, this.plugin, this.#where, asError(error))
  }

  contain(error: Error): boolean {
    const fault = this.fault(error)
    const { raw } = this.reply
    if (raw.headersSent) {
      if (!raw.writableEnded) raw.destroy()
    } else if (!this.reply.sent) this.reply.send(fault)
    return true
  }
}

/** One call of a plugin's error handler, with a time limit. */
class ErrorHandlerRun extends HandlerRun {
  constructor({ plugin, owners, hookTimeoutMs }: PluginOwner, request: FastifyRequest, reply: FastifyReply) {
    super(plugin, request, reply, 'error handler')
    const { send, raw } = reply
    if (hookTimeoutMs === 0 || raw.closed) return
    const timer = setTimeout(() => {
      // `reply.send` is this handler's own function until the first call removes it from the reply.
      if (reply.send === send) owners.run(null, () => this.#expire(hookTimeoutMs))
    }, hookTimeoutMs)
    raw.once('close', () => clearTimeout(timer))
  }

  #expire(limitMs: number): void {
    const { reply } = this
    const { raw, sent, log } = reply
    if (sent || raw.headersSent || raw.destroyed) return
    try {
      this.contain(new Error(`it did not respond within ${limitMs} ms`))
    } catch (error) {
      // No caller catches this, so it would end the process.
      const fields = { plugin: this.plugin, status: reply.statusCode, err: error }
      log.error(
        fields,
        `request failed: no response after the error handler of plugin ${this.plugin} timed out; connection closed`
      )
      raw.destroy()
    }
  }
}

/** Runs a handler. What it throws or rejects with becomes its fault, unless it is the error that the handler was given. */
function runHandler(run: HandlerRun, owners: FaultOwners, code: () => unknown, given: unknown): unknown {
  const rethrow = (error: unknown): never => {
    throw error === given && given !== undefined ? error : run.fault(error)
  }
  try {
    const result = owners.run(run, code)
    return isThenable(result) && (result as unknown) !== run.reply ? result.then((value) => value, rethrow) : result
  } catch (error) {
    return rethrow(error)
  }
}

export function guardedHandler(handler: Code, { plugin, owners }: PluginOwner): Code {
  return function guarded(this: unknown, request: FastifyRequest, reply: FastifyReply): unknown {
    const run = new HandlerRun(plugin, request, reply, 'handler')
    return runHandler(run, owners, () => Reflect.apply(handler, this, [request, reply]), undefined)
  }
}

export function guardedErrorHandler(handler: Code, of: PluginOwner): Code {
  return function guarded(this: unknown, error: unknown, request: FastifyRequest, reply: FastifyReply): unknown {
    const run = new ErrorHandlerRun(of, request, reply)
    return runHandler(run, of.owners, () => Reflect.apply(handler, this, [error, request, reply]), error)
  }
}
