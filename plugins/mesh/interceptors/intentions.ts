import { MeshError } from '../errors.ts'
import type { Layer } from '../layer.ts'
import { shadowCounter } from '../metrics.ts'

/**
 * Refuses a call that Consul's intentions deny, without a connection: the instance's sidecar would refuse it too, as
 * a broken connection. Where Consul has not said, the sidecar decides.
 */
export const intentions: Layer = (service, { intentions: options }, { meter }) => {
  const { permission } = service.transport
  if (permission === null) return null
  const shadow = options !== undefined && options !== false && options.mode === 'shadow'
  const count = shadow ? shadowCounter(meter, service.name, 'intentions') : denials()
  function denials(): () => void {
    const counter = meter?.counter({
      name: 'jingwei_mesh_intention_denials_total',
      help: 'Calls refused because an intention denies them.',
      labelNames: ['service']
    })
    const child = counter?.labels(service.name)
    child?.inc(0)
    return () => child?.inc()
  }
  return (dispatch) => (opts, handler) => {
    if (permission.verdict !== 'denied') return dispatch(opts, handler)
    count()
    if (shadow) return dispatch(opts, handler)
    handler.onResponseError?.(opts.call!, new MeshError('JW_INTENTION_DENIED', service.name))
    return true
  }
}
