import type { ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import { asError, isThenable } from '../thrown.ts'
import type { FaultOwner, PluginOwner } from './fault-owners.ts'
import type { Code } from './guarded-handler.ts'
import { faultOf, guardedErrorHandler, guardedHandler } from './guarded-handler.ts'

/** Hooks that a request must pass: if one fails, the request fails. */
const blocking = ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'preSerialization', 'onSend'] as const
/** Hooks that only observe: if one fails, the request continues. */
const observers = ['onError', 'onResponse', 'onTimeout', 'onRequestAbort'] as const

export const requestHooks = [...blocking, ...observers] as const
export type RequestHook = (typeof requestHooks)[number]

export const isRequestHook = (name: string): name is RequestHook => (requestHooks as readonly string[]).includes(name)
const isObserver = (name: RequestHook) => (observers as readonly string[]).includes(name)

/** Position of a hook's callback among its arguments. */
export function callbackAt(name: RequestHook): number {
  if (name === 'onRequestAbort') return 1
  return ['preParsing', 'preSerialization', 'onSend', 'onError'].includes(name) ? 3 : 2
}

type Done = (error?: unknown, payload?: unknown) => void
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

/** One call of a plugin's hook. It calls back once, with or without an error, within a time limit. */
class HookRun implements FaultOwner {
  readonly plugin: string
  readonly #of: PluginOwner
  readonly #name: RequestHook
  readonly #request: FastifyRequest
  readonly #reply: FastifyReply | null
  readonly #done: Done
  #isOver = false
  /** True once the hook has returned: then no Fastify frame on the stack would catch an exception. */
  #hasReturned = false
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
    this.#hasReturned = true
    if (this.#isOver) return
    if (!isAsync && !isObserver(this.#name)) this.#watch(this.#reply!.raw)
    this.#arm()
  }

  /** Stops the timer when the response closes: a callback hook that responds itself, as middlewares do, never calls back. */
  #watch(response: ServerResponse): void {
    this.#onClose = () => clearTimeout(this.#timer)
    response.once('close', this.#onClose)
  }

  contain(error: Error): boolean {
    this.#fail(error)
    return true
  }

  /**
   * Fails an `onSend` hook that calls `reply.send()` for its own request, and returns whether it did: the new payload would
   * reach the same hook again, in an endless loop.
   */
  refuseResponse(request: FastifyRequest): boolean {
    if (this.#name !== 'onSend' || this.#isOver || this.#request !== request) return false
    this.#fail(new Error('it called reply.send(); return the payload in its place'))
    return true
  }

  #arm(): void {
    const { hookTimeoutMs } = this.#of
    if (hookTimeoutMs > 0 && !this.#isAnswered()) this.#timer = setTimeout(() => this.#expire(), hookTimeoutMs)
  }

  #expire(): void {
    if (this.#isAnswered()) return
    const { raw } = this.#request
    // A slow request body is not the hook's fault; limits for clients apply to it.
    if (!isObserver(this.#name) && !raw.complete && raw.readableDidRead) this.#arm()
    else this.#fail(new Error(`it did not continue within ${this.#of.hookTimeoutMs} ms`))
  }

  /** Returns whether the hook has responded itself or the client has left, so that nothing waits for the hook. */
  #isAnswered(): boolean {
    if (isObserver(this.#name)) return false
    const { sent, raw } = this.#reply!
    return sent || raw.headersSent || raw.destroyed
  }

  /** Fails the request; once the hook has called back, the fault is only logged. */
  #fail(error: Error): void {
    const fault = faultOf(this.#request, this.plugin, this.#name, error)
    if (this.#isOver) return
    if (isObserver(this.#name)) this.#continue(undefined)
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
      // Fastify catches exceptions while it calls a hook.
      if (!this.#hasReturned) throw error
      const [{ plugin }, hook, reply] = [this, this.#name, this.#reply]
      const closes = reply !== null && !reply.raw.writableEnded
      const consequence = closes ? 'connection closed' : 'the response has ended already'
      const fields = { plugin, hook, ...(reply !== null && { status: reply.statusCode }), err: error }
      this.#request.log.error(fields, `request failed after ${hook} of plugin ${plugin} ended: ${consequence}`)
      if (closes) reply.raw.destroy()
    }
  }
}

/** Wraps a hook so that its faults fail only its own request, or are only logged if the hook is an observer. */
export function guardedHook(name: RequestHook, hook: Code, of: PluginOwner): Code {
  const last = callbackAt(name)
  function guarded(this: unknown, ...args: unknown[]): void {
    const given = args.slice(0, last)
    if (name === 'onSend') {
      const { current } = of.owners
      if (current instanceof HookRun && current.refuseResponse(given[0] as FastifyRequest)) return
    }
    new HookRun(of, name, given, args[last] as Done).run((done) => Reflect.apply(hook, this, [...given, done]))
  }
  return Object.defineProperty(guarded, 'name', { value: hook.name })
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

/** Returns whether a hook is Fastify's own: on the HEAD route that it adds to a GET route, it drops the body. */
const isOfFastify = (hook: Code) => hook.name === 'headRouteOnSendHandler'

/** Guards the hooks, the handler and the error handler of a route that a plugin added. Returns the names of its hooks. */
export function guardRoute(route: RouteOptions, of: PluginOwner): Set<RequestHook> {
  const guarded = guardHooksOf(route, new Set([...hooksOf(route)].filter(isOfFastify)), of)
  route.handler = guardedHandler(route.handler, of) as RouteOptions['handler']
  const { errorHandler } = route
  if (typeof errorHandler === 'function') {
    route.errorHandler = guardedErrorHandler(errorHandler, of) as NonNullable<RouteOptions['errorHandler']>
  }
  return guarded
}
