import { AsyncResource } from 'node:async_hooks'
import { asError } from '../../thrown.ts'
import { InterceptorFailed } from '../core/errors.ts'
import type { Layer } from '../core/layer.ts'
import type { Repeating, Repeats } from '../core/repeating/repeats.ts'
import type { Dispatch, DispatchOptions, Interceptor, Logger } from '../core/types.ts'
import type { Guard } from './faults.ts'
import { GuardedHandler } from './guarded-handler.ts'
import { assertHandler } from './handler-contract.ts'
import { Interception } from './interception.ts'

type Names = Pick<Guard, 'name' | 'plugin' | 'per'>

/** Restriction of an interceptor to the calls of some routes and services; null: all. */
export interface Only {
  readonly routes: ReadonlySet<string> | null
  readonly services: ReadonlySet<string> | null
}

/**
 * Composes a plugin's interceptor so that its faults fail only its own call. An `Interception` is between the
 * interceptor and the layer above, a `GuardedHandler` between each handler that it dispatches and the layer below.
 */
export function guarded(interceptor: Interceptor, names: Names, { routes, services }: Only): Layer {
  return (service, policy, { log, owners = null }) => {
    if (services !== null && !services.has(service.name)) return null
    const holdMs = names.per === 'request' ? policy.timeout : (policy.attemptTimeout ?? policy.timeout)
    const guard: Guard = { ...names, service: service.name, holdMs, log, owners }
    return (dispatch) => {
      /** Call that is entering the interceptor, for an interceptor that dispatches `opts` of its own making. */
      let entered: Interception | null = null
      const below: Dispatch = (opts, handler) => {
        assertHandler(handler, Boolean(opts.upgrade))
        const interception = opts.interception?.guard === guard ? opts.interception : entered
        if (interception === null) throw new Error('dispatch() needs the opts that the interceptor was given')
        // The interceptor may have entered an async context of its own: its handler and the layers below run there.
        const asyncContext = new AsyncResource('jingwei.interceptor')
        const guardedHandler = new GuardedHandler(handler, interception, asyncContext)
        const { route, request } = interception.opts
        // Inner interceptors need route and request, even if this one dispatches `opts` of its own making.
        interception.outside(() => guardedHandler.begin(dispatch, { route, request, ...opts, asyncContext }))
        return true
      }
      const inner = compose(interceptor, below, guard)
      const intercept: Dispatch = (opts, handler) => {
        const interception = new Interception(handler, guard, opts)
        const outer = entered
        entered = interception
        interception.begin(inner)
        entered = outer
        return true
      }
      if (routes === null) return intercept
      return (opts, handler) => (routes.has(opts.route?.name ?? '') ? intercept : dispatch)(opts, handler)
    }
  }
}

/** Composes a plugin's layer: its interceptor is guarded, and faults of the layer itself fail its calls. */
export function containedLayer(layer: Layer, names: Names): Layer {
  return (service, policy, context) => {
    const of = { ...names, service: service.name, log: context.log }
    const interceptor = contained(of, 'layer', () => layer(service, policy, context))
    return interceptor === null
      ? null
      : guarded(interceptor, names, { routes: null, services: null })(service, policy, context)
  }
}

/** Contains faults of `repeats` of a plugin's concern: they fail its calls. */
export function containedRepeats(repeats: Repeats, names: Names): Repeats {
  return (policy, service, context) => {
    const of = { ...names, service: service.name, log: context.log }
    return contained(of, 'repeats', () => {
      const repeating: unknown = repeats(policy, service, context)
      if (repeating === null) return null
      const { maxBody, mayRepeat, budget } = (repeating ?? {}) as Record<keyof Repeating, unknown>
      const isSize = maxBody === null || (typeof maxBody === 'number' && maxBody >= 0)
      if (!isSize || typeof mayRepeat !== 'function') {
        throw new Error('expected null or { maxBody, mayRepeat } (bytes or null, and a function)')
      }
      const isShare = budget === undefined || (typeof budget === 'number' && budget >= 0)
      if (!isShare) throw new Error('the returned budget is not a share such as 0.2')
      const answers = (opts: DispatchOptions) =>
        contained({ ...of, requestId: opts.caller?.id }, 'repeats.mayRepeat', () => {
          const may: unknown = Reflect.apply(mayRepeat, repeating, [opts])
          if (typeof may === 'boolean') return may
          throw new Error('expected true or false as the result')
        })
      return { maxBody, mayRepeat: answers, ...(budget !== undefined && { budget }) }
    })
  }
}

function compose(interceptor: Interceptor, below: Dispatch, guard: Guard): Dispatch {
  return contained(guard, 'compose', () => {
    const inner: unknown = interceptor(below)
    if (typeof inner === 'function') return inner as Dispatch
    throw new Error('the interceptor returned no function')
  })
}

/** Origin of a fault: the plugin's interceptor and, if known, the request. */
interface Origin extends Names {
  readonly service: string
  readonly log: Logger
  readonly requestId?: string | undefined
}

/** Runs a plugin's code. Logs an error that it throws, and rethrows it as a fault of the plugin. */
function contained<T>(of: Origin, where: string, code: () => T): T {
  try {
    return code()
  } catch (error) {
    const failure = new InterceptorFailed(of, where, asError(error))
    const { log, requestId } = of
    log.error({ ...failure.fields, ...(requestId !== undefined && { requestId }), err: failure.cause }, failure.message)
    throw failure
  }
}
