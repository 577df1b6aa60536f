import { systemTimers } from '../../../clock.ts'
import type { MeshConcern } from '../../concern.ts'
import type { Layer } from '../../core/layer.ts'
import { counterOf } from '../../core/metrics.ts'
import { governing } from '../../core/repeating/governing.ts'
import type { Repeats } from '../../core/repeating/repeats.ts'
import { RetryLimit } from '../../core/repeating/retry-limit.ts'
import { StateKey } from '../../core/service-state.ts'
import { Hedge } from './attempts.ts'
import { Latencies } from './latencies.ts'
import type { HedgeOptions } from './options.ts'
import { hedgeKey } from './options.ts'

const latenciesKey = new StateKey<Latencies>('hedge')

/** Share of the calls that hedges may add without a retry policy. */
const ownBudget = 0.2

/**
 * Starts another attempt at another instance if the first does not respond in time; the first response wins. This cuts
 * tail latency. Hedges count towards the retry budget, else a service that slows down would get even more load.
 */
export const hedge: Layer = (service, policy, deps) => {
  const { hedge: options, subset = '' } = policy
  if (!options) return null
  const { meter, now, timers = systemTimers } = deps
  const budget = governing(policy, service, deps)?.budget
  const methods = new Set<string>(options.methods)
  const latencies = service.state(latenciesKey, () => new Latencies())
  const hedges = {
    name: 'jingwei_mesh_hedges_total',
    help: 'Hedged attempts; outcome is won if the response of the hedged attempt was passed on, else lost.'
  }
  const won = counterOf(meter, hedges, { service: service.name, outcome: 'won' })
  const lost = counterOf(meter, hedges, { service: service.name, outcome: 'lost' })
  const context = {
    service,
    subset,
    attempts: options.attempts,
    afterMs: delay(options, latencies),
    latencies,
    limit: RetryLimit.of(service),
    share: budget ?? ownBudget,
    count: (isWon: boolean) => (isWon ? won : lost)(),
    now,
    timers
  }
  return (dispatch) => (opts, handler) => {
    if (opts.upgrade || !methods.has(opts.method)) return dispatch(opts, handler)
    // With a retry policy, `retry` counts the calls.
    if (budget === undefined) context.limit.call(opts.call!.startedMs)
    return new Hedge(handler, opts, dispatch, context).begin()
  }
}

/** Returns the time after which an attempt is hedged; null while too few latencies are known. */
function delay({ after, percentile }: HedgeOptions, latencies: Latencies): () => number | null {
  if (after !== undefined || percentile === undefined) return () => after ?? null
  return () => latencies.percentile(percentile)
}

const repeats: Repeats = ({ hedge }) => {
  if (!hedge) return null
  const methods = new Set<string>(hedge.methods)
  return { maxBody: null, mayRepeat: ({ method }) => methods.has(method) }
}

export default { name: 'hedge', keys: [hedgeKey], layer: hedge, repeats } satisfies MeshConcern
