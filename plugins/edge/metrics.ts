import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Registry } from 'prom-client'
import { Gauge } from 'prom-client'
import type { Config } from '../../config/schema.ts'
import { listeningOf } from '../listener-of.ts'
import { attach, edgeRouteOf, isUnrouted } from './attach.ts'
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
      help: 'Client requests, by route, method and status.',
      labelNames: ['route', 'method', 'status']
    })
    const duration = meter.histogram({
      name: 'jingwei_edge_request_duration_seconds',
      help: 'Time from the header section of the request to the end of the response, by route.',
      labelNames: ['route'],
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
            const count = await new Promise<number>((resolve) => {
              server.getConnections((error, connections) => resolve(error ? 0 : connections))
            })
            active.set({ listener: name }, count)
          })
        )
      }
    })

    const observe = (route: string, methodOf: (request: FastifyRequest) => string) => {
      const timer = duration.labels(route)
      // Bound once per method and status: finding a child by its labels costs more than counting.
      const children = new Map<string, ReturnType<typeof requests.labels>>()
      return (request: FastifyRequest, reply: FastifyReply, done: () => void) => {
        const method = methodOf(request)
        const key = method + reply.statusCode
        let child = children.get(key)
        if (child === undefined) {
          child = requests.labels(route, method, String(reply.statusCode))
          children.set(key, child)
        }
        child.inc()
        // The duration of a WebSocket says nothing about the gateway.
        if (reply.statusCode !== 101) timer.observe(reply.elapsedTime / 1000)
        done()
      }
    }
    fastify.addHook('onRoute', (routeOptions) => {
      const route = edgeRouteOf(routeOptions.config)
      if (route !== undefined)
        attach(
          routeOptions,
          'onResponse',
          observe(route.name, (request) => request.method)
        )
    })
    const unrouted = observe('(none)', () => '(any)')
    fastify.addHook('onResponse', (request, reply, done) => {
      if (isUnrouted(request)) unrouted(request, reply, done)
      else done()
    })
  },
  { name: 'jingwei-edge-metrics', fastify: '5.x' }
)
