/**
 * Shadow mode of a concern, by its option `mode`: a refusal is counted and listed in the access line, and the request goes
 * on. A refusal is an error of one of the concern's hooks that run before the response.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Meter } from '../meter.ts'
import { asError, isThenable } from '../thrown.ts'
import type { Done, RecordRefusal, RefusingHook } from './concern-refusals.ts'
import { codeOf, isFault } from './concern-refusals.ts'
import { goneSignal, isFinished } from './protocol/client-gone.ts'
import { isCutOff } from './protocol/request-body.ts'

/** A refusal that did not happen, for the access log. */
export interface ShadowRefusal {
  readonly concern: string
  /** Code of the error. */
  readonly error: string
  /** The concern's reason, if the code leaves it open. */
  readonly reason?: string
}

/** Returns whether options put a concern into shadow mode. */
export const isShadow = (options: unknown): boolean =>
  typeof options === 'object' && options !== null && (options as { mode?: unknown }).mode === 'shadow'

/** Returns the function that counts refusals of a concern on one route and lists them in the access line. */
export function shadowRecorder(meter: Meter, concern: string, route: string): RecordRefusal {
  // Made at start: rate() does not see the first increment of a series that starts with it.
  const refusals = meter
    .counter({
      name: 'jingwei_edge_shadow_refusals_total',
      help: 'Requests that a concern in shadow mode would have refused.',
      labelNames: ['concern', 'route']
    })
    .labels(concern, route)
  return (request, error, reason, late) => {
    if (isCutOff(request.raw)) return
    refusals.inc()
    const refusal: ShadowRefusal = { concern, error, ...(reason !== undefined && { reason }) }
    if (late !== undefined && isFinished(late.raw)) {
      request.log.info({ shadow: [refusal] }, 'a concern in shadow mode decided after the response')
      return
    }
    request.shadowRefusals ??= []
    request.shadowRefusals.push(refusal)
  }
}

/** Records an error of a concern in shadow mode. `late`: the reply, if the request has not waited for the concern. */
export function recordError(
  record: RecordRefusal,
  request: FastifyRequest,
  thrown: unknown,
  reason?: string,
  late?: FastifyReply
): void {
  // The client has disconnected, which ends the work of the concern.
  if (late !== undefined && goneSignal(request).aborted) return
  const error = asError(thrown)
  if (isFault(error) && !isCutOff(request.raw))
    request.log.error({ err: error }, 'a concern in shadow mode failed: the request goes on')
  record(request, codeOf(error), reason, late)
}

/** Returns a hook that records the errors of `hook` instead of failing the request with them. */
export function inShadow(hook: RefusingHook, record: RecordRefusal): RefusingHook {
  return function shadowed(this: unknown, request: FastifyRequest, reply: FastifyReply, ...rest: unknown[]): unknown {
    // A preParsing hook has the payload before the callback.
    const done = rest.pop() as Done
    const restore = stateOf(request, reply)
    const pass = (thrown: unknown): void => {
      recordError(record, request, thrown, restore())
    }
    let isDone = false
    const next: Done = (error, ...more) => {
      isDone = true
      if (error === undefined || error === null) return done(undefined, ...more)
      pass(error)
      done()
    }
    let returned: unknown
    try {
      returned = Reflect.apply(hook, this, [request, reply, ...rest, next])
    } catch (error) {
      // An error after the callback is of a later hook.
      if (isDone) throw error
      return next(error)
    }
    return isThenable(returned) ? Promise.resolve(returned).catch(pass) : undefined
  }
}

/**
 * Stores the fields of the reply and the reason of a refusal before a hook runs. The returned function removes what the hook
 * has set, such as `WWW-Authenticate`, and returns the reason.
 */
function stateOf(request: FastifyRequest, reply: FastifyReply): () => string | undefined {
  const fields = { ...reply.getHeaders() }
  const { refusalReason } = request
  const { statusCode } = reply
  return () => {
    for (const [name, value] of Object.entries(reply.getHeaders())) {
      if (value === fields[name]) continue
      reply.removeHeader(name)
      if (fields[name] !== undefined) reply.header(name, fields[name])
    }
    reply.statusCode = statusCode
    const reason = request.refusalReason
    request.refusalReason = refusalReason
    return reason !== null && reason !== refusalReason ? reason : undefined
  }
}
