import type { Static } from 'typebox'
import Type from 'typebox'
import type { Key } from '../../../config/concern.ts'
import { gatewayAndService } from '../../../config/concern.ts'
import { Mode, orOff, strict } from '../../../config/schema/kit.ts'
import type { MeshConcern } from '../concern.ts'
import { checkHasConsul } from '../connect/options.ts'
import { MeshError } from '../core/errors.ts'
import type { Layer } from '../core/layer.ts'
import { counterOf, shadowCounter } from '../core/metrics.ts'

/**
 * Refuses a call that Consul's intentions deny, without a connection: the instance's sidecar would refuse it too, as
 * a broken connection. Where Consul has not said, the sidecar decides.
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

const Intentions = Type.Object({ mode: Mode }, strict)

declare module '../../../config/schema.ts' {
  interface MeshPolicy {
    intentions?: Static<typeof Intentions> | false
  }
}

export const intentionsKey: Key = {
  name: 'intentions',
  options: orOff(Intentions, { description: "Consul's intentions, asked before a call; on in `mode: connect`." }),
  levels: gatewayAndService,
  check(_options, at, checked) {
    if (checked.report.sound(at)) checkHasConsul(at, checked)
  }
}

export default { name: 'intentions', keys: [intentionsKey], layer: intentions } satisfies MeshConcern
