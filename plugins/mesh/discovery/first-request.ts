/** Metric of the time from the arrival of a new instance to the first attempt at it. */

import type { Meter } from '../../meter.ts'
import type { Service } from '../core/service.ts'
import type { ServiceState } from '../core/service-state.ts'
import { StateKey } from '../core/service-state.ts'
import type { Endpoint, Instance, MeshDeps } from '../core/types.ts'

type Histogram = ReturnType<ReturnType<Meter['histogram']>['labels']>

const firstRequests = new StateKey<FirstRequests>('first-request')

export function timeFirstRequests(service: Service, { meter, now }: Pick<MeshDeps, 'meter' | 'now'>): void {
  if (meter === null) return
  const histogram = meter
    .histogram({
      name: 'jingwei_mesh_discovery_first_request_seconds',
      help: 'Time from the arrival of a new instance to the first attempt at it.',
      labelNames: ['service'],
      buckets: [0.001, 0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300]
    })
    .labels(service.name)
  service.state(firstRequests, () => new FirstRequests(histogram, now))
}

export class FirstRequests implements ServiceState {
  readonly #histogram: Histogram
  readonly #now: () => number
  #known: ReadonlySet<Endpoint> | null = null

  constructor(histogram: Histogram, now: () => number) {
    this.#histogram = histogram
    this.#now = now
  }

  update(instances: readonly Instance[]): void {
    const listed = new Set(instances.map(({ endpoint }) => endpoint))
    // The instances of the first set are not new.
    if (this.#known !== null) for (const endpoint of listed.difference(this.#known)) this.#time(endpoint)
    this.#known = listed
  }

  #time(endpoint: Endpoint): void {
    const arrivedMs = this.#now()
    endpoint.onAttempt = () => {
      endpoint.onAttempt = null
      this.#histogram.observe((this.#now() - arrivedMs) / 1000)
    }
  }
}
