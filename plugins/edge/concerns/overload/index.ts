import type { Socket } from 'node:net'
import createError from '@fastify/error'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../../../../config/schema.ts'
import { durationText } from '../../../../config/units.ts'
import stores from '../../../keep-stores.ts'
import { edgeRouteOf } from '../../attach.ts'
import { globalConcern, meterOf } from '../../concern.ts'
import type { RecordRefusal } from '../../concern-refusals.ts'
import { refusalRecorder } from '../../concern-refusals.ts'
import { isHandshake } from '../../protocol/handshake.ts'
import type { InFlightCount } from '../../protocol/in-flight.ts'
import { countInFlight, uncount } from '../../protocol/in-flight.ts'
import { refuseConnection } from '../../protocol/refusals.ts'
import { isShadow, shadowRecorder } from '../../shadow.ts'
import { Descriptors } from './descriptors.ts'
import type { Resource } from './load.ts'
import { Load, margins } from './load.ts'
import type { OverloadOptions } from './options.ts'
import { keys } from './options.ts'
import { Priorities } from './priorities.ts'

const OutOfDescriptors = createError('JW_OUT_OF_DESCRIPTORS', 'The gateway is overloaded (file descriptors)', 503)

/** Time without a refusal after which the shortage is over. */
const quietMs = 10_000

/**
 * Returns the reserved descriptors. Below `connections`, new client connections are refused: the reserve is for connections
 * to services, the admin port, DNS, Consul and Redis. Below `requests`, a quarter of it, requests are refused too.
 */
export function reserveOf(limit: number): { connections: number; requests: number } {
  const connections = Math.min(1024, Math.max(32, Math.floor(limit / 10)))
  return { connections, requests: Math.floor(connections / 4) }
}

/** Returns the limit of open files that a number of client connections needs: each request has a descriptor on either side. */
export const limitFor = (connections: number): number =>
  Math.ceil(Math.max(2.5 * connections, connections + reserveOf(0).connections))

/**
 * Sheds load while the gateway itself is overloaded. When file descriptors run out, it first refuses new connections and
 * WebSockets, then requests on open connections; otherwise every request and the gateway's own look-ups would fail. While
 * the event loop lags, or another limit of `edge.overload` is reached, it refuses requests, so that requests in flight can
 * complete.
 *
 * Not @fastify/under-pressure: it treats all routes alike, sheds on a single sample, and cannot count requests.
 */
const plugin = fp<Config>(
  async (fastify, config) => {
    const {
      listeners,
      edge: { overload }
    } = config
    const counter = meterOf(fastify).counter({
      name: 'jingwei_edge_shed_total',
      help: 'Requests refused with 503 because the gateway itself is overloaded, by reason.',
      labelNames: ['reason']
    })
    const count = (reason: string) => {
      const child = counter.labels(reason)
      child.inc(0)
      return () => child.inc()
    }
    if (overload) await watchLoad(fastify, config, overload, count)
    const descriptors = new Descriptors()
    if (Number.isFinite(descriptors.limit)) watchDescriptors(fastify, listeners, descriptors, count('descriptors'))
  },
  { name: 'jingwei-overload', fastify: '5.x' }
)

export default globalConcern('overload', plugin, {
  keys,
  isShadow: (_route, { overload }) => isShadow(overload),
  explain({ edge }, { consumer }, { overload } = {}) {
    if (!overload) return null
    const { eventLoopDelay, memory, requests } = overload
    const limits = [
      ...(eventLoopDelay === false ? [] : [`timers are ${durationText(eventLoopDelay)} late`]),
      ...(memory === false ? [] : [`${Math.round(memory * 100)} % of memory are used`]),
      ...(requests === false ? [] : [`${requests} requests are in flight`])
    ]
    if (limits.length === 0) return null
    const own = consumer?.edge.shedPriority
    const priority = own ?? edge.shedPriority ?? 'normal'
    const by = own === undefined ? '' : ` (by consumers[].edge of ${consumer!.id})`
    const from = priority === 'normal' ? '' : `, from ${Math.round(margins[priority] * 100)} % of that on`
    return `refuses with 503 while ${limits.join(', or ')}${from}; shedPriority ${priority}${by}`
  }
})

/** Error, and text of the log, for each resource. */
const shortages = {
  'event-loop': [createError('JW_OUT_OF_CPU', 'The gateway is overloaded (event loop)', 503), 'event loop'],
  memory: [createError('JW_OUT_OF_MEMORY', 'The gateway is overloaded (memory)', 503), 'memory'],
  requests: [createError('JW_OUT_OF_CAPACITY', 'The gateway is overloaded (requests in flight)', 503), 'requests']
} as const

async function watchLoad(
  fastify: FastifyInstance,
  config: Config,
  options: OverloadOptions,
  countOf: (reason: string) => () => void
): Promise<void> {
  await fastify.register(stores, {})
  const { log } = fastify
  // In a store, since requests in flight continue after a reload.
  const requests = fastify.stores.claim('jingwei.overload', 'requests', (): InFlightCount => ({ count: 0 }))
  const limits = { 'event-loop': options.eventLoopDelay, memory: options.memory, requests: options.requests }
  const active = Object.entries(limits).flatMap(([name, limit]) => (limit === false ? [] : [name as Resource]))
  const counts = new Map(active.map((name) => [name, countOf(name)]))
  const isTrial = isShadow(options)
  const load = new Load(options, requests, (resource, isShort) => {
    const [, what] = shortages[resource]
    const fields = { limit: limits[resource] }
    const then = isTrial ? 'mode shadow refuses none' : isShort ? 'requests are refused' : 'requests are accepted again'
    if (isShort) log.error(fields, `${what} over the limit of edge.overload: ${then}`)
    else log.info(fields, `${what} below the limit of edge.overload: ${then}`)
  })
  const meter = meterOf(fastify)
  const recorders = new Map<string, RecordRefusal>()
  const recorderOf = (route: string): RecordRefusal => {
    const known = recorders.get(route)
    if (known !== undefined) return known
    const recorder = (isTrial ? shadowRecorder : refusalRecorder)(meter, 'overload', route)
    recorders.set(route, recorder)
    return recorder
  }
  fastify.addHook('onClose', async () => load.close())
  /** Counts a refusal. Returns its error; null in shadow mode. */
  const refusal = (request: FastifyRequest, short: Resource): Error | null => {
    const error = new shortages[short][0]()
    recorderOf(edgeRouteOf(request.routeOptions.config)?.name ?? '(none)')(request, error.code)
    if (isTrial) return null
    counts.get(short)!()
    return error
  }
  const count = (request: FastifyRequest) => {
    if (options.requests !== false && !isHandshake(request.raw)) countInFlight(request, requests)
  }
  const priorities = new Priorities(fastify, config)
  /** Requests whose consumer decides. They are not in flight yet: else they would take the place of those with a higher priority. */
  const waiting: InFlightCount = { count: 0 }
  const mostWaiting = options.requests === false ? Number.POSITIVE_INFINITY : options.requests
  const waitingHandshakes = new WeakSet<FastifyRequest>()
  fastify.addHook('onRequest', (request, _reply, done) => {
    if (!load.isCalm) {
      const { lowest, highest } = priorities.rangeOn(edgeRouteOf(request.routeOptions.config))
      const hasToWait = lowest !== highest && load.shortage(lowest) !== null
      const short = load.shortage(highest) ?? (hasToWait && waiting.count >= mostWaiting ? 'requests' : null)
      const error = short === null ? null : refusal(request, short)
      if (error !== null) return done(error)
      if (short === null && hasToWait) {
        if (isHandshake(request.raw)) waitingHandshakes.add(request)
        else countInFlight(request, waiting)
        return done()
      }
    }
    count(request)
    done()
  })
  priorities.onceKnown((request, done) => {
    const isHandshake = request.raw.headers.upgrade !== undefined && waitingHandshakes.has(request)
    if (request.inFlightCount !== waiting && !isHandshake) return done()
    const short = load.shortage(priorities.of(request))
    const error = short === null ? null : refusal(request, short)
    if (error !== null) return done(error)
    uncount(request)
    count(request)
    done()
  })
}

function watchDescriptors(
  fastify: FastifyInstance,
  listeners: Config['listeners'],
  descriptors: Descriptors,
  count: () => void
): void {
  const { log, server } = fastify
  const { limit } = descriptors
  const reserve = reserveOf(limit)
  const connections = listeners.reduce((sum, { limits }) => sum + limits.connections, 0)
  if (connections > limit - reserve.connections) {
    const needed = limitFor(connections)
    log.warn(
      { limit, connections, needed },
      `listen.limits.connections cannot be reached: ${connections} connections of clients need ${needed} open files, and the process may open ${limit}; raise the limit (ulimit -n ${needed}, LimitNOFILE) or lower listen.limits.connections`
    )
  }
  let quiet: NodeJS.Timeout | null = null
  const noteShortage = () => {
    if (quiet !== null) {
      quiet.refresh()
      return
    }
    log.error(
      { limit },
      'short of file descriptors: new connections are refused; raise the limit (ulimit -n, LimitNOFILE)'
    )
    quiet = setTimeout(() => {
      quiet = null
      log.info({ limit }, `no longer short of file descriptors: nothing was refused for ${quietMs / 1000} s`)
    }, quietMs).unref()
  }
  fastify.addHook('onClose', async () => {
    if (quiet !== null) clearTimeout(quiet)
  })
  server.on('connection', (socket: Socket) => {
    descriptors.noteOpen()
    if (!descriptors.isShort(reserve.connections)) return
    noteShortage()
    refuseConnection(server, socket, 'descriptors')
  })
  fastify.addHook('onRequest', (request, _reply, done) => {
    // The request may need a connection to the service.
    descriptors.announce()
    if (!descriptors.isShort(isHandshake(request.raw) ? reserve.connections : reserve.requests)) return done()
    noteShortage()
    count()
    done(new OutOfDescriptors())
  })
}
