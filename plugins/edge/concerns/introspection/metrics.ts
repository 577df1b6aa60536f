import type { Meter } from '../../../meter.ts'

/** Functions that count the checked tokens of a route. */
export interface Counters {
  readonly asked: (isActive: boolean) => void
  readonly cached: () => void
  readonly failed: () => void
}

export function countersOf(meter: Meter, route: string): Counters {
  const counter = meter.counter({
    name: 'jingwei_edge_introspection_requests_total',
    help: 'Requests with tokens to introspect, by route and result: active, inactive, cached or failed.',
    labelNames: ['route', 'result']
  })
  // Made at start: rate() does not see the first increment of a series that starts with it.
  const [active, inactive, cached, failed] = ['active', 'inactive', 'cached', 'failed'].map((result) => {
    const series = counter.labels(route, result)
    return () => series.inc()
  }) as [() => void, () => void, () => void, () => void]
  return { asked: (isActive) => (isActive ? active() : inactive()), cached, failed }
}
