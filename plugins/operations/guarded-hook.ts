import type { ServerResponse } from 'node:http'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import { asError, isMadeToRespond, isThenable } from '../thrown.ts'
import type { FaultOwner, FaultOwners, PluginOwner } from './fault-owners.ts'

const PluginFailed = createError('JW_PLUGIN_FAILED', 'plugin %s failed in %s: %s', 500)

/** Hooks that a request passes on its way: their failure is its failure. */
const inTheWay = ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'preSerialization', 'onSend'] as const
/** Hooks that only look on: after their failure, all goes on. */
const lookingOn = ['onError', 'onResponse', 'onTimeout', 'onRequestAbort'] as const

export const requestHooks = [...inTheWay, ...lookingOn] as const
export type RequestHook = (typeof requestHooks)[number]

export const isRequestHook = (name: string): name is RequestHook => (requestHooks as readonly string[]).includes(name)
const isLookingOn = (name: RequestHook) => (lookingOn as readonly string[]).includes(name)

/** Position of a hook's callback among its arguments. */
export function callbackAt(name: RequestHook): number {
  if (name === 'onRequestAbort') return 1
  return ['preParsing', 'preSerialization', 'onSend', 'onError'].includes(name) ? 3 : 2
}

type Done = (error?: unknown, payload?: unknown) => void
/** Any hook or handler; what it is called with depends on its kind. */
// biome-ignore lint/complexity/noBannedTypes: of all signatures
export type Code = Function

/**
 * The error that ends the request. One with a status, or with a code of the gateway, is the response that the plugin
 * chose; anything else, and a status of 5xx that is not made to be a response, is its fault and goes to the log.
 */
function faultOf(request: FastifyRequest, plugin: string, where: string, error: Error): Error {
  const { code, statusCode } = error as { code?: unknown; statusCode?: unknown }
  const hasStatus = typeof statusCode === 'number' && statusCode >= 400 && statusCode <= 599
  if (typeof code === 'string' && code.startsWith('JW_')) return error
  if (!hasStatus || (statusCode >= 500 && !isMadeToRespond(error))) {
    request.log.error({ plugin, hook: where, err: error }, `plugin ${plugin} failed in ${where}: ${error.message}`)
  }
  return hasStatus ? error : Object.assign(new PluginFailed(plugin, where, error.message), { cause: error })
}

/** Returns whether Fastify can send what an `onSend` hook returns; undefined leaves the payload as it is. */
function isSendable(payload: unknown): boolean {
  if (payload === undefined || payload === null || typeof payload === 'string') return true
  if (typeof payload !== 'object') return false
  if (Buffer.isBuffer(payload) || kindOf(payload) === 'Response') return true
  const { pipe, getReader } = payload as { pipe?: unknown; getReader?: unknown }
  return typeof pipe === 'function' || typeof getReader === 'function'
}

/** Returns the tag of a value without `[object ` before it: `Object`, `Number`, `Response`. */
const kindOf = (value: unknown) => String(Reflect.apply(Object.prototype.toString, value, [])).slice(8, -1)

/** One run of a plugin's hook. It continues once, with an error or without, in bounded time. */
class HookRun implements FaultOwner {
  readonly plugin: string
  readonly #of: PluginOwner
  readonly #name: RequestHook
  readonly #request: FastifyRequest
  readonly #reply: FastifyReply | null
  readonly #done: Done
  #isOver = false
  /** The hook has returned: nothing of Fastify's is below on the stack to catch what it throws. */
  #isAlone = false
  #timer: NodeJS.Timeout | undefined
  #onClose: (() => void) | undefined

  constructor(of: PluginOwner, name: RequestHook, args: readonly unknown[], done: Done) {
    this.plugin = of.plugin
    this.#of = of
    this.#name = name
    this.#request = args[0] as FastifyRequest
    this.#reply = name === 'onRequestAbort' ? null : (args[1] as FastifyReply)
    this.#done = done
  }

  run(code: (done: Done) => unknown): void {
    const done: Done = (error, payload) => {
      if (this.#isOver) this.#fail(new Error('it continued twice'))
      else if (error) this.#fail(asError(error))
      else this.#continue(payload)
    }
    let isAsync = false
    try {
      const result = this.#of.owners.run(this, () => code(done))
      if (isThenable(result)) {
        isAsync = true
        result.then(
          (payload) => this.#isOver || this.#continue(payload),
          (error) => this.#fail(asError(error))
        )
      }
    } catch (error) {
      this.#fail(asError(error))
    }
    this.#isAlone = true
    if (this.#isOver) return
    if (!isAsync && !isLookingOn(this.#name)) this.#watch(this.#reply!.raw)
    this.#arm()
  }

  /** A hook with a callback that responds itself, as middlewares do, does not continue: its time ends with the response. */
  #watch(response: ServerResponse): void {
    this.#onClose = () => clearTimeout(this.#timer)
    response.once('close', this.#onClose)
  }

  contain(error: Error): boolean {
    this.#fail(error)
    return true
  }

  #arm(): void {
    const { hookTimeoutMs } = this.#of
    if (hookTimeoutMs > 0 && !this.#isAnswered()) this.#timer = setTimeout(() => this.#expire(), hookTimeoutMs)
  }

  #expire(): void {
    if (this.#isAnswered()) return
    const { raw } = this.#request
    // A client that is slow with the body has limits of its own.
    if (!isLookingOn(this.#name) && !raw.complete && raw.readableDidRead) this.#arm()
    else this.#fail(new Error(`it did not continue within ${this.#of.hookTimeoutMs} ms`))
  }

  /** Returns whether the hook has responded itself, or the client has left: then nobody waits for the hook. */
  #isAnswered(): boolean {
    if (isLookingOn(this.#name)) return false
    const { sent, raw } = this.#reply!
    return sent || raw.headersSent || raw.destroyed
  }

  /** After the hook has continued, the fault is only logged. */
  #fail(error: Error): void {
    const fault = faultOf(this.#request, this.plugin, this.#name, error)
    if (this.#isOver) return
    if (isLookingOn(this.#name)) this.#continue(undefined)
    else this.#end(() => this.#done(fault))
  }

  #continue(payload: unknown): void {
    if (this.#name === 'onSend' && !isSendable(payload)) {
      this.#fail(new Error(`it returned ${kindOf(payload)}, not a string, Buffer, stream, Response or null`))
    } else this.#end(() => this.#done(undefined, payload))
  }

  #end(proceed: () => void): void {
    this.#isOver = true
    clearTimeout(this.#timer)
    if (this.#onClose !== undefined) this.#reply!.raw.off('close', this.#onClose)
    try {
      this.#of.owners.run(null, proceed)
    } catch (error) {
      // Fastify catches what is thrown while it calls a hook.
      if (!this.#isAlone) throw error
      this.#request.log.error({ err: error }, 'request failed')
      if (this.#reply !== null && !this.#reply.raw.writableEnded) this.#reply.raw.destroy()
    }
  }
}

/** Returns the hook such that its faults end its own request, or are only logged where it looks on. */
export function guardedHook(name: RequestHook, hook: Code, of: PluginOwner): Code {
  const last = callbackAt(name)
  function guarded(this: unknown, ...args: unknown[]): void {
    const given = args.slice(0, last)
    new HookRun(of, name, given, args[last] as Done).run((done) => Reflect.apply(hook, this, [...given, done]))
  }
  return Object.defineProperty(guarded, 'name', { value: hook.name })
}

/** One request that a handler of a plugin handles. */
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

/** One error that an error handler of a plugin renders, in bounded time. */
class ErrorHandlerRun extends HandlerRun {
  constructor({ plugin, owners, hookTimeoutMs }: PluginOwner, request: FastifyRequest, reply: FastifyReply) {
    super(plugin, request, reply, 'error handler')
    if (hookTimeoutMs === 0) return
    const { send, raw } = reply
    const timer = setTimeout(() => {
      // The first call of `send` takes this function, which is this handler's, off the reply.
      if (reply.send === send) owners.run(null, () => this.#expire(hookTimeoutMs))
    }, hookTimeoutMs)
    raw.once('close', () => clearTimeout(timer))
  }

  #expire(limitMs: number): void {
    const { raw, sent, log } = this.reply
    if (sent || raw.headersSent || raw.destroyed) return
    try {
      this.contain(new Error(`it did not respond within ${limitMs} ms`))
    } catch (error) {
      // No caller catches this, so it would end the process.
      log.error({ err: error }, 'request failed')
      raw.destroy()
    }
  }
}

/** Runs a handler; what it throws or rejects with becomes its fault, but for an error that it was given. */
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

function guardedHandler(handler: Code, { plugin, owners }: PluginOwner): Code {
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

type RouteHooks = Partial<Record<RequestHook, Code | Code[]>>

/** Guards the hooks of a route that are not in `others`, and returns their names. */
export function guardHooksOf(route: RouteOptions, others: ReadonlySet<Code>, of: PluginOwner): Set<RequestHook> {
  const hooks = route as unknown as RouteHooks
  const guarded = new Set<RequestHook>()
  for (const name of requestHooks) {
    const set = hooks[name]
    if (set === undefined || set === null) continue
    const guard = (hook: Code) => {
      if (others.has(hook) || typeof hook !== 'function') return hook
      guarded.add(name)
      return guardedHook(name, hook, of)
    }
    hooks[name] = Array.isArray(set) ? set.map(guard) : guard(set)
  }
  return guarded
}

export function hooksOf(route: RouteOptions): Set<Code> {
  const hooks = route as unknown as RouteHooks
  return new Set(requestHooks.flatMap((name) => hooks[name] ?? []))
}

/** Returns whether Fastify itself added a hook: on the route of HEAD that comes with one of GET, it drops the body. */
const isOfFastify = (hook: Code) => hook.name === 'headRouteOnSendHandler'

/** Guards all of a plugin's own route, and returns the names of its hooks. */
export function guardRoute(route: RouteOptions, of: PluginOwner): Set<RequestHook> {
  const guarded = guardHooksOf(route, new Set([...hooksOf(route)].filter(isOfFastify)), of)
  route.handler = guardedHandler(route.handler, of) as RouteOptions['handler']
  const { errorHandler } = route
  if (typeof errorHandler === 'function') {
    route.errorHandler = guardedErrorHandler(errorHandler, of) as NonNullable<RouteOptions['errorHandler']>
  }
  return guarded
}
