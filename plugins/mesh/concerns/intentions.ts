import type { MeshConcern } from '../concern.ts'
import { MeshError } from '../core/errors.ts'
import type { Layer } from '../core/layer.ts'
import { counterOf, shadowCounter } from '../core/metrics.ts'

/**
 * Refuses a call that Consul's intentions deny, without a connection: the instance's sidecar would refuse it, too, by
 * closing the connection. If the permission is unknown, the sidecar decides.
 */
export const intentions: Layer = (service, { intentions: options }, { meter }) => {
  const { permission } = service.transport
  if (permission === null) return null
  const shadow = options !== undefined && options !== false && options.mode === 'shadow'
  const denials = {
    name: 'jingwei_mesh_intention_denials_total',
    help: 'Calls refused because an intention denies them.'
  }
  const count = shadow
    ? shadowCounter(meter, service.name, 'intentions')
    : counterOf(meter, denials, { service: service.name })
  return (dispatch) => (opts, handler) => {
    if (permission.verdict !== 'denied') return dispatch(opts, handler)
    count()
    if (shadow) return dispatch(opts, handler)
    handler.onResponseError?.(opts.call!, new MeshError('JW_INTENTION_DENIED', service.name))
    return true
  }
}

export default { name: 'intentions', layer: intentions } satisfies MeshConcern
