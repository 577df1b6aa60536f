import type { MeshConcern } from '../../concern.ts'
import type { Layer } from '../../core/layer.ts'
import { counterOf } from '../../core/metrics.ts'
import { governing } from '../../core/repeating/governing.ts'
import { idempotency } from '../../core/repeating/idempotency.ts'
import { defaultBufferBytes } from '../../core/repeating/replay-body.ts'
import { StateKey } from '../../core/service-state.ts'
import { FallbackCall } from './call.ts'
import { fallbackKey } from './options.ts'
import { StaleStores } from './stale-store.ts'
import { compileStep } from './steps.ts'

const staleStores = new StateKey<StaleStores>('stale')

/**
 * Requests that may be sent twice without a retry policy: idempotent methods (RFC 9110, 9.2.2) or `Idempotency-Key`.
 */
const byDefinition = idempotency({
  methods: ['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'],
  idempotencyKey: true
})

/** Responds in place of a failed service: by another service, its last good response, or a configured one. */
export const fallback: Layer = (service, policy, deps) => {
  const { fallback: options, subset = '' } = policy
  if (!options) return null
  const { meter, toService, perRequestHeaders = [], pluginsKey } = deps
  const repeating = governing(policy, service, deps)
  const steps = options.map(compileStep)
  const stale = options.find((entry) => entry.stale !== undefined)?.stale
  const fallbacks = {
    name: 'jingwei_mesh_fallbacks_total',
    help: 'Calls whose response came from a fallback, by its kind.'
  }
  const countOf = (kind: string) => counterOf(meter, fallbacks, { service: service.name, kind })
  const count = { service: countOf('service'), stale: countOf('stale'), static: countOf('static') }
  const context = {
    service,
    steps,
    toService,
    count,
    store:
      stale === undefined
        ? null
        : service
            .state(staleStores, ({ now }) => new StaleStores(now))
            .of(stale, { subset, perRequest: perRequestHeaders, plugins: pluginsKey() }),
    idempotent: repeating?.mayRepeat ?? byDefinition,
    bufferBytes: steps.some((step) => step.service !== null) ? (repeating?.maxBody ?? defaultBufferBytes) : 0
  }
  return (dispatch) => (opts, handler) => new FallbackCall(handler, opts, context).begin(dispatch)
}

export default { name: 'fallback', keys: [fallbackKey], layer: fallback } satisfies MeshConcern
