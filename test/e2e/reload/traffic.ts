// A gateway under mixed load whose configuration changes repeatedly.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import type { Changing, ReloadingGateway } from './gateway.ts'
import { startReloading } from './gateway.ts'
import { Load } from './load.ts'
import type { CountingService } from './service.ts'
import { startCounting } from './service.ts'

/** Short requests a second. Increase it for a manual measurement. */
const rate = Number(process.env.JINGWEI_RELOAD_RATE ?? 300)

export interface Traffic {
  gateway: ReloadingGateway
  steady: CountingService
  load: Load
  /** Returns a configuration by number: every second one has another route; a service and a route change each time. */
  configOf(number: number): Changing
}

export async function startTraffic(t: Test, tls?: { cert: string; key: string }): Promise<Traffic> {
  const steady = await startCounting(t)
  const changing = await startCounting(t)
  const configOf = (number: number): Changing => ({
    ...(tls && { listen: { tls, http2: true } }),
    // Longer than the test: no connection reaches its idle timeout.
    mesh: { connections: { idle: '10m' } },
    services: {
      steady: { instances: [steady.url] },
      changing: { instances: [changing.url], mesh: { timeout: `${10_000 + number}ms` } }
    },
    routes: [
      { name: 'steady', match: { path: '/steady' }, service: 'steady' },
      {
        name: 'changing',
        match: { path: '/changing' },
        service: 'changing',
        path: { rewrite: { prefix: `/${number}` } }
      },
      ...(number % 2 === 0 ? [{ name: 'sometimes', match: { path: '/sometimes' }, service: 'steady' }] : [])
    ]
  })
  const gateway = await startReloading(t, configOf(0))
  const load = await Load.start(gateway.url, { rate, paths: ['/steady', '/changing'] })
  t.teardown(() => load.destroy())
  return { gateway, steady, load, configOf }
}

/** Time until the streams and uploads that must survive a reload have begun. */
export const warmUpMs = 2500

/** Time between two reloads, so short that several fall into each stream and each upload. */
const pauseMs = 250

export async function reloadsUnderLoad(t: Test, reloads: number, tls?: { cert: string; key: string }): Promise<void> {
  const { gateway, steady, load, configOf } = await startTraffic(t, tls)
  await sleep(warmUpMs)
  t.strictSame(load.summary(), {}, 'no failure without a reload')
  const closes = steady.closes()
  const began = performance.now()
  const times: number[] = []
  for (let number = 1; number <= reloads; number++) {
    const at = performance.now()
    await gateway.reload(configOf(number))
    times.push(performance.now() - at)
    const { status } = await gateway.get('/sometimes')
    if (status !== (number % 2 === 0 ? 200 : 404))
      t.fail(`configuration ${number}: ${status} of the route that only every second one has`)
    await sleep(pauseMs)
  }
  const seconds = (performance.now() - began) / 1000
  const closed = { byGateway: load.closes, toSteady: steady.closes() - closes }
  const { blockedMs, blockedCpuMs } = await gateway.probe()
  const count = { ...load.done }
  await load.stop()
  t.strictSame(load.summary(), {}, 'no request fails')
  t.strictSame(
    closed,
    { byGateway: 0, toSteady: 0 },
    'no connection of a client or to the unchanged service was closed'
  )
  for (const kind of ['get', 'post', 'events', 'upload', 'websocket'] as const) t.ok((count[kind] ?? 0) > 0, kind)
  t.strictSame(
    gateway.log().filter(({ level, reason }) => ['warn', 'error', 'fatal'].includes(level) && reason !== 'cpu'),
    [],
    'the log has no warning or error'
  )
  const short = (count.get ?? 0) + (count['get h2'] ?? 0) + (count.post ?? 0)
  times.sort((a, b) => a - b)
  t.comment(`${Math.round(short / seconds)} short requests a second; ${JSON.stringify(count)}`)
  t.comment(`a reload took ${Math.round(times[times.length >> 1]!)} ms, at most ${Math.round(times.at(-1)!)} ms`)
  t.comment(`the event loop was blocked for at most ${blockedMs} ms, ${blockedCpuMs} ms of it on the CPU`)
}
