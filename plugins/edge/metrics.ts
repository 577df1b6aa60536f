import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Registry } from 'prom-client'
import { Gauge } from 'prom-client'
import type { Direction } from '../../config/direction.ts'
import { directionsOf } from '../../config/direction.ts'
import type { Config } from '../../config/schema.ts'
import stores from '../keep-stores.ts'
import { listeningOf } from '../listener-of.ts'
import { attach, edgeRouteOf, onUnroutedResponse } from './attach.ts'
import type { Named } from './consumers/metrics.ts'
import { consumerCounter } from './consumers/metrics.ts'
import { connectionsOf } from './protocol/listener-status.ts'
import { onRefused, reasons } from './protocol/refusals.ts'

/** Buckets of the duration histogram, in seconds. */
const buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

/**
 * Counts and times requests by route. Label values come only from the configuration, so clients cannot create series:
 * requests that match no route count as `(none)`, and a route has only the methods that it accepts.
 */
export default fp<Config>(
  async (fastify, config) => {
    if (!fastify.hasDecorator('meter')) return
    const registers = [fastify.getDecorator<Registry>('metrics')]
    const { meter } = fastify
    const requests = meter.counter({
      name: 'jingwei_edge_requests_total',
      help: 'Requests, by route, method, status and direction of the traffic.',
      labelNames: ['route', 'method', 'status', 'direction']
    })
    const duration = meter.histogram({
      name: 'jingwei_edge_request_duration_seconds',
      help: 'Time from the header section of the request to the end of the response, by route and direction of the traffic.',
      labelNames: ['route', 'direction'],
      buckets
    })
    const refused = meter.counter({
      name: 'jingwei_edge_refused_total',
      help: 'Connections and requests refused before routing, by reason and listener.',
      labelNames: ['reason', 'listener']
    })
    // Made at start: rate() does not see the first increment of a series that starts with it.
    for (const { name } of config.listeners) for (const reason of reasons) refused.labels(reason, name)
    const main = config.listen.name
    onRefused(fastify.server, ({ reason, listener = main }) => refused.labels(reason, listener).inc())
    const active = new Gauge({
      name: 'jingwei_edge_connections',
      help: 'Open client connections, by listener.',
      labelNames: ['listener'],
      registers,
      async collect() {
        await Promise.all(
          listeningOf(fastify.server).map(async ({ name, server }) => {
            active.set({ listener: name }, await connectionsOf(server))
          })
        )
      }
    })

    /** Returns a function that counts and times the requests of a route and direction, with series that are bound once. */
    const seriesOf = (route: string, direction: Direction, methodOf: (request: FastifyRequest) => string) => {
      const timer = duration.labels(route, direction)
      // Bound once per method and status: finding a child by its labels costs more than counting.
      const children = new Map<string, ReturnType<typeof requests.labels>>()
      return (request: FastifyRequest, reply: FastifyReply) => {
        const method = methodOf(request)
        const key = method + reply.statusCode
        let child = children.get(key)
        if (child === undefined) {
          child = requests.labels(route, method, String(reply.statusCode), direction)
          children.set(key, child)
        }
        child.inc()
        // The duration of a WebSocket says nothing about the gateway.
        if (reply.statusCode !== 101) timer.observe(reply.elapsedTime / 1000)
      }
    }
    const observe = (
      route: string,
      methodOf: (request: FastifyRequest) => string,
      directions: readonly Direction[] = directionsOf(config.listeners)
    ) => {
      const [first, ...others] = directions.map(
        (direction) => [direction, seriesOf(route, direction, methodOf)] as const
      )
      const byDirection = new Map([first!, ...others])
      const count = others.length === 0 ? first![1] : null
      return (request: FastifyRequest, reply: FastifyReply, done: () => void) => {
        const counted = count ?? byDirection.get(request.direction)!
        counted(request, reply)
        done()
      }
    }
    const { metrics } = config.edge
    const countConsumer = metrics ? await consumerCounterOf(fastify, metrics.consumers) : null
    fastify.addHook('onRoute', (routeOptions) => {
      const route = edgeRouteOf(routeOptions.config)
      if (route === undefined) return
      if (countConsumer !== null) {
        attach(routeOptions, 'onResponse', (request, reply, done) => {
          countConsumer(request, reply)
          done()
        })
      }
      const directions = directionsOf(config.listeners, routeOptions.config?.route?.match.listeners)
      attach(
        routeOptions,
        'onResponse',
        observe(route.name, (request) => request.method, directions)
      )
    })
    onUnroutedResponse(
      fastify,
      observe('(none)', () => '(any)')
    )
  },
  { name: 'jingwei-edge-metrics', fastify: '5.x' }
)

async function consumerCounterOf(fastify: FastifyInstance, most: number) {
  await fastify.register(stores, {})
  const named = fastify.stores.claim('jingwei.consumer-metrics', null, (): Named => new Set())
  return consumerCounter(fastify.meter, named, most)
}
