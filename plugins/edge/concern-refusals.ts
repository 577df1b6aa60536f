/**
 * Counter of the refusals of concerns, by concern, route and error code. The hooks of a concern that may refuse are wrapped
 * once, when a route is added; a request that is allowed costs one function call and one closure per such hook.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Meter } from '../meter.ts'
import { asError, isMadeToRespond, isThenable } from '../thrown.ts'
import type { Phase } from './attach.ts'
import { isCutOff } from './protocol/request-body.ts'

/** Records a refusal that is no error, such as a redirect to a login page. `late`: the reply, if it may have been sent already. */
export type RecordRefusal = (request: FastifyRequest, code: string, reason?: string, late?: FastifyReply) => void

export type Done = (error?: unknown, ...more: unknown[]) => void
/** A hook of one of the phases in which a concern may refuse. */
export type RefusingHook = (request: FastifyRequest, reply: FastifyReply, ...rest: never[]) => unknown

/** Phases in which a concern may refuse the request. */
const refusing = ['onRequest', 'preParsing', 'preValidation', 'preHandler'] satisfies Phase[]

export const mayRefuse = (phase: string): boolean => (refusing as string[]).includes(phase)

/** Codes per concern and route; further ones of a user's concern count as `(other)`, to bound the series. */
const largestCodes = 32

/** Returns whether an error of a hook is a fault of the concern, such as an exception, and no refusal. */
export function isFault(error: Error): boolean {
  const { statusCode } = error as { statusCode?: unknown }
  return (typeof statusCode !== 'number' || statusCode >= 500) && !isMadeToRespond(error)
}

/** Returns the code by which a refusal is counted: that of the error, or its status. */
export function codeOf(error: Error): string {
  const { code, statusCode } = error as { code?: unknown; statusCode?: unknown }
  return typeof code === 'string' ? code : isFault(error) ? 'JW_INTERNAL' : String(statusCode)
}

/** Returns the function that counts refusals of a concern on one route. */
export function refusalRecorder(meter: Meter, concern: string, route: string): RecordRefusal {
  const refusals = meter.counter({
    name: 'jingwei_edge_refusals_total',
    help: 'Requests that a concern has refused, by concern, route and error code.',
    labelNames: ['concern', 'route', 'code']
  })
  // Made on first use: most of a concern's codes never occur on a route.
  let series: Map<string, { inc(): void }> | undefined
  return (request, code) => {
    // The error of a hook that reads the body is no refusal then.
    if (isCutOff(request.raw)) return
    series ??= new Map()
    const label = series.has(code) || series.size < largestCodes ? code : '(other)'
    let counter = series.get(label)
    if (counter === undefined) {
      counter = refusals.labels(concern, route, label)
      series.set(label, counter)
    }
    counter.inc()
  }
}

/** Recorders of the concerns that have refused requests by the hook of another one. */
const refusedBy = new WeakMap<FastifyRequest, RecordRefusal>()

/** Returns a callback whose error counts as a refusal of the concern with this recorder, and not of the one that calls it. */
export function countedBy(record: RecordRefusal, request: FastifyRequest, done: (error: Error) => void) {
  return (error: Error): void => {
    refusedBy.set(request, record)
    done(error)
  }
}

type Hook = (this: unknown, request: FastifyRequest, reply: FastifyReply, ...rest: unknown[]) => unknown

/** Returns a hook that counts the errors of `hook`: thrown, passed to the callback, or of a rejected promise. */
export function countingErrors(phase: Phase, hook: RefusingHook, record: RecordRefusal): RefusingHook {
  const inner = hook as Hook
  const count = (request: FastifyRequest, thrown: unknown): void => {
    const recordBy = refusedBy.get(request) ?? record
    refusedBy.delete(request)
    recordBy(request, codeOf(asError(thrown)))
  }
  // Without a closure for the callback, which such a function does not get to use.
  if (hook.constructor.name === 'AsyncFunction') {
    return function counted(this: unknown, request: FastifyRequest, reply: FastifyReply, ...rest: unknown[]) {
      const promise = inner.call(this, request, reply, ...rest) as Promise<unknown>
      promise.then(undefined, (error) => count(request, error))
      return promise
    }
  }
  const isParsing = phase === 'preParsing'
  return function counted(
    this: unknown,
    request: FastifyRequest,
    reply: FastifyReply,
    third: unknown,
    fourth: unknown
  ) {
    let isDone = false
    // A preParsing hook has the payload before the callback.
    const done = (isParsing ? fourth : third) as Done
    const next: Done = (error, payload) => {
      isDone = true
      if (error !== undefined && error !== null) count(request, error)
      done(error, payload)
    }
    let returned: unknown
    try {
      returned = isParsing ? inner.call(this, request, reply, third, next) : inner.call(this, request, reply, next)
    } catch (error) {
      // An error after the callback is of a later hook.
      if (!isDone) count(request, error)
      throw error
    }
    if (isThenable(returned)) returned.then(undefined, (error) => count(request, error))
    return returned
  }
}
