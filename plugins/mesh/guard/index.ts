import { AsyncResource } from 'node:async_hooks'
import { asError } from '../../thrown.ts'
import { InterceptorFailed } from '../core/errors.ts'
import type { Layer } from '../core/layer.ts'
import type { Dispatch, Interceptor } from '../core/types.ts'
import type { Guard } from './faults.ts'
import { GuardedHandler } from './guarded-handler.ts'
import { assertHandler } from './handler-contract.ts'
import { Interception } from './interception.ts'

/** The calls that an interceptor is for; null: all. */
export interface Only {
  readonly routes: ReadonlySet<string> | null
  readonly services: ReadonlySet<string> | null
}

/**
 * Composes a user's interceptor so that its faults end its own call and nothing else. An `Interception` stands between
 * the interceptor and the layer above, a `GuardedHandler` between each handler that it dispatches and the layer below.
 */
export function guarded(
  interceptor: Interceptor,
  names: Pick<Guard, 'name' | 'plugin' | 'per'>,
  { routes, services }: Only
): Layer {
  return (service, policy, { log, owners = null }) => {
    if (services !== null && !services.has(service.name)) return null
    const holdMs = names.per === 'request' ? policy.timeout : (policy.attemptTimeout ?? policy.timeout)
    const guard: Guard = { ...names, service: service.name, holdMs, log, owners }
    return (dispatch) => {
      /** Entered last, for an interceptor that dispatches `opts` of its own making. */
      let entered: Interception | null = null
      const below: Dispatch = (opts, handler) => {
        assertHandler(handler, Boolean(opts.upgrade))
        const interception = opts.interception?.guard === guard ? opts.interception : entered
        if (interception === null) throw new Error('dispatch() needs the opts that the interceptor was given')
        // The interceptor may have entered a context of its own: its handler is called there, and so are those below.
        const asyncContext = new AsyncResource('jingwei.interceptor')
        const guardedHandler = new GuardedHandler(handler, interception, asyncContext)
        const { route, request } = interception.opts
        // The interceptors further in need them, also of one that dispatches `opts` of its own making.
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

/** Composes a layer of a user's: its interceptor is guarded, and faults of the layer itself are faults of its calls. */
export function containedLayer(layer: Layer, names: Pick<Guard, 'name' | 'plugin' | 'per'>): Layer {
  return (service, policy, context) => {
    const interceptor = layer(service, policy, context)
    return interceptor === null
      ? null
      : guarded(interceptor, names, { routes: null, services: null })(service, policy, context)
  }
}

function compose(interceptor: Interceptor, below: Dispatch, guard: Guard): Dispatch {
  try {
    const inner: unknown = interceptor(below)
    if (typeof inner === 'function') return inner as Dispatch
    throw new Error('it returned no function')
  } catch (error) {
    const failure = new InterceptorFailed(guard, 'compose', asError(error))
    guard.log.error({ ...failure.fields, err: failure.cause }, failure.message)
    throw failure
  }
}
