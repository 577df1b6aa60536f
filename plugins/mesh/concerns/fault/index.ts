import type { MeshConcern } from '../../concern.ts'
import { respondWith, staticResponse } from '../../core/handlers/static-response.ts'
import type { Layer } from '../../core/layer.ts'
import { counterOf } from '../../core/metrics.ts'
import { headerOf } from '../../core/request-fields.ts'
import { StateKey } from '../../core/service-state.ts'
import type { Dispatch, DispatchHandler, DispatchOptions, MeshDeps } from '../../core/types.ts'
import type { FaultOptions } from './options.ts'
import { faultHeaders, faultKey } from './options.ts'
import { ThrottledHandler } from './throttled-handler.ts'

/** Faults that are injected into one attempt. */
interface Injected {
  delayMs: number
  status: number
  bytesPerSecond: number
}

/** Longest delay that a header can request. */
const longestMs = 60_000

const activeFaults = new StateKey<ActiveFaults>('fault')

/**
 * Injects delays, aborts and slow responses, to test how outer concerns and callers cope: they see a failure of the
 * service, so they retry, eject the instance and open the circuit. (Like Envoy's fault filter.)
 */
export const fault: Layer = (service, policy, { meter, random }) => {
  const options = policy.fault
  if (!options) return null
  const { name } = service
  const faults = { name: 'jingwei_mesh_faults_total', help: 'Faults injected, by kind.' }
  const overflows = {
    name: 'jingwei_mesh_fault_overflows_total',
    help: 'Faults that were not injected because maxActive faults were in force.'
  }
  const delayed = counterOf(meter, faults, { service: name, kind: 'delay' })
  const aborted = counterOf(meter, faults, { service: name, kind: 'abort' })
  const slowed = counterOf(meter, faults, { service: name, kind: 'bandwidth' })
  const overflow = counterOf(meter, overflows, { service: name })
  const state = service.state(activeFaults, () => new ActiveFaults())

  return (dispatch) => (opts, handler) => {
    const injected = draw(options, opts, random)
    if (injected === null) return dispatch(opts, handler)
    if (state.active >= options.maxActive) {
      overflow()
      return dispatch(opts, handler)
    }
    const { delayMs, status, bytesPerSecond } = injected
    if (delayMs > 0) delayed()
    if (status > 0) aborted()
    if (bytesPerSecond > 0) slowed()
    let next = dispatch
    if (status > 0) next = abort(status)
    else if (bytesPerSecond > 0) next = state.throttle(dispatch, bytesPerSecond)
    return delayMs > 0 ? state.delay(next, delayMs, opts, handler) : next(opts, handler)
  }
}

function abort(status: number): Dispatch {
  const { headers, body } = staticResponse(status, {}, 'injected fault')
  return (opts, handler) => {
    opts.call!.substitute = 'fault'
    return respondWith(opts, handler, status, headers, body)
  }
}

function draw(options: FaultOptions, opts: DispatchOptions, random: MeshDeps['random']): Injected | null {
  const { delay, abort, bandwidth } = options
  const injected = {
    delayMs: delay !== undefined && random() < delay.percent ? delay.for : 0,
    status: abort !== undefined && random() < abort.percent ? abort.status : 0,
    bytesPerSecond: bandwidth !== undefined && random() < bandwidth.percent ? bandwidth.limit : 0
  }
  // Headers count for trusted callers only: anyone else could make a service look broken.
  if (options.header && opts.caller?.trusted) {
    injected.delayMs = Math.min(asked(opts, faultHeaders.delay) ?? injected.delayMs, longestMs)
    const status = asked(opts, faultHeaders.abort) ?? 0
    if (status >= 200 && status <= 599) injected.status = status
    injected.bytesPerSecond = asked(opts, faultHeaders.bandwidth) ?? injected.bytesPerSecond
  }
  return injected.delayMs > 0 || injected.status > 0 || injected.bytesPerSecond > 0 ? injected : null
}

function asked(opts: DispatchOptions, header: string): number | undefined {
  const text = headerOf(opts, header)
  return text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : undefined
}

/** Faults in force on one service. */
class ActiveFaults {
  active = 0

  status() {
    return { active: this.active }
  }

  delay(dispatch: Dispatch, delayMs: number, opts: DispatchOptions, handler: DispatchHandler): boolean {
    this.active++
    const call = opts.call!
    let waiting = true
    const end = () => {
      if (!waiting) return
      waiting = false
      this.active--
      clearTimeout(timer)
    }
    const timer = setTimeout(() => {
      end()
      if (opts.attempt!.over) return
      try {
        dispatch(opts, handler)
      } catch (error) {
        handler.onResponseError?.(call, error as Error)
      }
    }, delayMs)
    call.whenOver(() => {
      if (!waiting) return
      end()
      // The attempt was never dispatched, so no layer below reports its end.
      handler.onResponseError?.(call, call.reason ?? new Error('the call is over'))
    })
    return true
  }

  throttle(dispatch: Dispatch, bytesPerSecond: number): Dispatch {
    return (opts, handler) => {
      this.active++
      return dispatch(opts, new ThrottledHandler(handler, bytesPerSecond, () => this.active--))
    }
  }
}

export default { name: 'fault', keys: [faultKey], layer: fault } satisfies MeshConcern
