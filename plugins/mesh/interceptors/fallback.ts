import { FallbackCall } from '../answering/fallback-call.ts'
import { compileStep } from '../answering/fallback-steps.ts'
import { StaleStores } from '../answering/stale-store.ts'
import type { Layer } from '../layer.ts'
import { idempotency } from '../retrying/retry-rules.ts'

/** Where no retry policy says which requests may be sent twice: RFC 9110, 9.2.2, and what says so of itself. */
const byDefinition = {
  methods: ['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'],
  idempotencyKey: true
}
const keptBytes = 64 * 1024

/** What is answered when the service does not: by another service, as it last was, or as the configuration says. */
export const fallback: Layer = (service, policy, { meter, now, toService }) => {
  const { fallback: options, retry, subset = '' } = policy
  if (!options) return null
  const steps = options.map(compileStep)
  const stale = options.find((entry) => entry.stale !== undefined)?.stale
  const counter = meter?.counter({
    name: 'jingwei_mesh_fallbacks_total',
    help: 'Calls that were answered by a fallback, by its kind.',
    labelNames: ['service', 'kind']
  })
  const count = (kind: string, by = 1) => counter?.labels(service.name, kind).inc(by)
  for (const kind of ['service', 'stale', 'static']) count(kind, 0)
  const context = {
    service,
    steps,
    toService,
    count,
    store: stale === undefined ? null : service.keep('stale', () => new StaleStores(now)).of(subset, stale),
    idempotent: idempotency(retry || byDefinition),
    keptBytes: steps.some((step) => step.service !== null) ? (retry ? retry.maxBody : keptBytes) : 0
  }
  return (dispatch) => (opts, handler) => new FallbackCall(handler, opts, context).begin(dispatch)
}
