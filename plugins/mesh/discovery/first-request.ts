/**
 * How long after a change reached the gateway a new instance was first tried. On an instance's first attempt only: the
 * timing takes itself away, and no other attempt pays for it.
 */
import type { Keeper, Service } from '../core/service.ts'
import type { Dispatch, Endpoint, Instance, Meter, Surroundings } from '../core/types.ts'

type Histogram = ReturnType<ReturnType<Meter['histogram']>['labels']>

export function timeFirstRequests(service: Service, { meter, now }: Pick<Surroundings, 'meter' | 'now'>): void {
  if (meter === null) return
  const histogram = meter
    .histogram({
      name: 'jingwei_mesh_discovery_first_request_seconds',
      help: 'From the arrival of a change to the first attempt at an instance that it brought.',
      labelNames: ['service'],
      buckets: [0.001, 0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300]
    })
    .labels(service.name)
  service.keep('first-request', () => new FirstRequests(histogram, now))
}

export class FirstRequests implements Keeper {
  readonly #histogram: Histogram
  readonly #now: () => number
  #known: ReadonlySet<Endpoint> | null = null

  constructor(histogram: Histogram, now: () => number) {
    this.#histogram = histogram
    this.#now = now
  }

  update(instances: readonly Instance[]): void {
    const listed = new Set(instances.map(({ endpoint }) => endpoint))
    // Those found at the start came by no change.
    if (this.#known !== null) for (const endpoint of listed.difference(this.#known)) this.#time(endpoint)
    this.#known = listed
  }

  #time(endpoint: { dispatch: Dispatch }): void {
    const arrived = this.#now()
    const { dispatch } = endpoint
    endpoint.dispatch = (opts, handler) => {
      endpoint.dispatch = dispatch
      this.#histogram.observe((this.#now() - arrived) / 1000)
      return dispatch(opts, handler)
    }
  }
}
