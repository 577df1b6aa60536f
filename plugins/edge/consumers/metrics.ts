/** `edge.metrics`: counts the requests of each consumer. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import type { Key } from '../../../config/concern.ts'
import { gatewayOnly } from '../../../config/concern.ts'
import { Count, orOff, strict } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import type { Meter } from '../../meter.ts'

const Metrics = Type.Object(
  {
    consumers: Count(
      'Consumers that are counted by their names in `jingwei_edge_consumer_requests_total`: the first ones that call; further ones count as `(other)`. Each has up to 5 series.',
      { maximum: 10_000 }
    )
  },
  { ...strict, description: 'Additional metrics, whose labels have values of requests.' }
)

declare module '../../../config/schema.ts' {
  interface EdgeDefaults {
    metrics?: Static<typeof Metrics> | false
  }
}

export const metricsKeys: readonly Key[] = [
  { name: 'metrics', options: orOff(Metrics), levels: gatewayOnly, protects: false }
]

interface Counter {
  inc(): void
}

/** Names that have series. They outlive a configuration, as the series do. */
export type Named = Set<string>

/** Returns the function that counts a request by its consumer and the class of its status. */
export function consumerCounter(
  meter: Meter,
  named: Named,
  most: number
): (request: FastifyRequest, reply: FastifyReply) => void {
  const requests = meter.counter({
    name: 'jingwei_edge_consumer_requests_total',
    help: 'Requests, by consumer and class of the status; (none): without a consumer, (other): of further consumers.',
    labelNames: ['consumer', 'status']
  })
  const series = new Map<string, Counter>()
  return ({ consumer }, { statusCode }) => {
    const status = `${Math.trunc(statusCode / 100)}xx`
    const name = consumer === null ? '(none)' : labelFor(consumer.id, named, most)
    const id = `${status} ${name}`
    let counter = series.get(id)
    if (counter === undefined) {
      counter = requests.labels(name, status)
      series.set(id, counter)
    }
    counter.inc()
  }
}

/** Longest name of a label; longer names are not of declared consumers. */
const LONGEST = 256

function labelFor(id: string, named: Named, most: number): string {
  if (named.has(id)) return id
  if (named.size >= most || id.length > LONGEST) return '(other)'
  named.add(id)
  return id
}
