/** Nothing grows with the number of reloads: no memory, listener, timer, handle, descriptor or metric. */

import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import t from 'tap'
import { waitFor } from '../../helpers/processes.ts'
import { selfSigned } from '../../helpers/self-signed.ts'
import type { Changing, ReloadingGateway } from './gateway.ts'
import { startReloading } from './gateway.ts'
import { startCounting } from './service.ts'

const warmUp = 40
const reloads = 200
/** Compiled code takes some megabytes. Retained configurations are detected by their number, not by the heap. */
const allowedBytes = 16 * 1024 * 1024

/** Resources of file system requests that may be in progress at the time of a probe. */
const passing = new Set(['FSReqPromise', 'FSReqCallback', 'FILEHANDLE', 'CloseReq', 'Immediate'])

async function look(gateway: ReloadingGateway) {
  const { heapUsed, resources, timers, descriptors, listeners } = await gateway.probe()
  const lasting = Object.fromEntries(Object.entries(resources).filter(([type]) => !passing.has(type)))
  return { heapUsed, counted: { resources: lasting, timers, descriptors, listeners } }
}

/** Waits until earlier configurations have ended and the resources equal `wanted`, or no longer change; returns them. */
async function settled(gateway: ReloadingGateway, wanted?: object) {
  await waitFor('the earlier configurations have ended', async () => (await gateway.probe()).generations === 1, 30_000)
  let before: object | undefined
  let seen = await look(gateway)
  // A request in progress may have a timer or a descriptor at the time of a probe.
  for (let n = 0; n < 20 && !isDeepStrictEqual(seen.counted, wanted ?? before); n++) {
    await sleep(500)
    before = seen.counted
    seen = await look(gateway)
  }
  const { text } = await gateway.getAdmin('/metrics')
  const lines = text.split('\n').filter((line) => !/^(#|$|nodejs_gc_|jingwei_config_info)/.test(line))
  return { ...seen, series: lines.map((line) => line.slice(0, line.lastIndexOf(' '))) }
}

t.test(`${reloads} reloads leave no additional resources`, async (t) => {
  const service = await startCounting(t)
  const tls = selfSigned(t)
  const configOf = (number: number): Changing => ({
    listen: { tls, http2: true },
    mesh: {
      // Longer than the test: no connection reaches its idle timeout.
      connections: { idle: '10m' },
      healthCheck: { path: '/', interval: '1h' },
      outlierDetection: {},
      circuitBreaker: {},
      retry: { attempts: 1 }
    },
    services: {
      steady: { instances: [service.url] },
      changing: { instances: [service.url], mesh: { timeout: `${5000 + number}ms` } }
    },
    routes: [
      {
        name: 'steady',
        match: { path: '/steady' },
        service: 'steady',
        edge: { rateLimit: { max: 1e6, window: '1h' } }
      },
      { name: 'changing', match: { path: '/changing' }, service: 'changing', edge: { cors: { origin: '*' } } },
      { name: 'by-number', match: { path: `/number/${number}` }, service: 'steady' },
      ...Array.from({ length: number % 5 }, (_, n) => ({
        name: `r-${n}`,
        match: { path: `/r/${n}` },
        service: 'steady'
      }))
    ]
  })
  const gateway = await startReloading(t, configOf(0))
  const run = async (from: number, to: number) => {
    for (let number = from; number <= to; number++) {
      await gateway.reload(configOf(number))
      for (const path of ['/steady', '/changing', `/number/${number}`]) {
        const { status } = await gateway.get(path)
        if (status !== 200) t.fail(`configuration ${number}: ${status} of ${path}`)
      }
    }
  }
  await run(1, warmUp)
  const before = await settled(gateway)
  const began = performance.now()
  await run(warmUp + 1, warmUp + reloads)
  const ms = (performance.now() - began) / reloads
  const after = await settled(gateway, before.counted)
  t.strictSame(after.counted, before.counted)
  t.strictSame(
    after.series.filter((name) => !before.series.includes(name)),
    [],
    'no additional metric series'
  )
  const grown = after.heapUsed - before.heapUsed
  t.comment(
    `heap: ${(before.heapUsed / 1e6).toFixed(1)} MB, grown by ${(grown / 1e6).toFixed(1)} MB; ${ms.toFixed(0)} ms a reload`
  )
  t.ok(grown < allowedBytes, `${grown} bytes more`)
  t.notMatch(gateway.running().output(), /MaxListenersExceededWarning/)
})
