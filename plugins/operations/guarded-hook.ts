import type { ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import { asError, isThenable } from '../thrown.ts'
import type { FaultOwner, PluginOwner } from './fault-owners.ts'
import type { Code } from './guarded-handler.ts'
import { faultOf, guardedErrorHandler, guardedHandler } from './guarded-handler.ts'

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

  /**
   * Fails if this is an `onSend` hook that sends a response to the request, and returns whether it is: the response would
   * come to the hook again, without end.
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
