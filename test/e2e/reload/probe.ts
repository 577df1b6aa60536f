// A user's plugin that shows the gateway's process from inside: resources that reloads must not let grow, its own state.
import { createHook } from 'node:async_hooks'
import { readdirSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setImmediate as nextIteration } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'

export interface Seen {
  heapUsed: number
  /** Number of configurations whose server is not garbage collected. */
  generations: number
  /** Resources that keep the process running, timers of any kind, open descriptors. */
  resources: Record<string, number>
  timers: number
  descriptors: number
  /** Listeners of the process and of the real server, by event. */
  listeners: Record<string, number>
  /**
   * The longest event-loop iteration since the last probe, in milliseconds: wall-clock time, which includes other
   * processes of the machine, and CPU time.
   */
  blockedMs: number
  blockedCpuMs: number
}

const timers = new Set<number>()
createHook({
  init: (id, type) => void (type === 'Timeout' && timers.add(id)),
  destroy: (id) => void timers.delete(id)
}).enable()

const loop = monitorEventLoopDelay({ resolution: 1 })
loop.enable()

let last = process.threadCpuUsage()
let mostCpuMs = 0
setInterval(() => {
  const { user, system } = process.threadCpuUsage()
  mostCpuMs = Math.max(mostCpuMs, (user + system - last.user - last.system) / 1000)
  last = { user, system }
}, 1).unref()

const servers = new Set<WeakRef<FastifyInstance>>()

const collect = (globalThis as { gc?: () => void }).gc

async function seenFrom(request: IncomingMessage): Promise<Seen> {
  const [blockedMs, blockedCpuMs] = [Math.round(loop.max / 1e6), Math.round(mostCpuMs)]
  // Memory of a finished exchange is released after some event-loop iterations.
  for (let n = 0; n < 5; n++) {
    collect?.()
    await nextIteration()
  }
  const resources: Record<string, number> = {}
  for (const type of process.getActiveResourcesInfo()) resources[type] = (resources[type] ?? 0) + 1
  const listeners: Record<string, number> = {}
  const { server } = request.socket as unknown as { server: NodeJS.EventEmitter }
  const emitters: [string, NodeJS.EventEmitter][] = [
    ['process', process],
    ['server', server]
  ]
  for (const [name, emitter] of emitters) {
    for (const event of emitter.eventNames()) listeners[`${name} ${String(event)}`] = emitter.listenerCount(event)
  }
  for (const reference of servers) if (reference.deref() === undefined) servers.delete(reference)
  const seen: Seen = {
    heapUsed: process.memoryUsage().heapUsed,
    generations: servers.size,
    resources,
    timers: timers.size,
    descriptors: readdirSync('/proc/self/fd').length,
    listeners,
    blockedMs,
    blockedCpuMs
  }
  loop.reset()
  // Exclude the garbage collection above.
  last = process.threadCpuUsage()
  mostCpuMs = 0
  return seen
}

export default async function probe(fastify: FastifyInstance) {
  servers.add(new WeakRef(fastify))
  const kept = fastify.stores.claim('probe.kept', {}, () => ({ count: 0 }))
  let own = 0
  fastify.get('/probe', async ({ raw }) => seenFrom(raw))
  fastify.get('/kept', async () => ({ kept: ++kept.count, own: ++own }))
  fastify.addHook('onClose', async () => fastify.log.info('probe closed'))
}
