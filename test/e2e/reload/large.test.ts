/** A reload of many routes under load. The time for which it blocks the event loop is reported, not asserted. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { Changing } from './gateway.ts'
import { startReloading } from './gateway.ts'
import { Load } from './load.ts'
import { startCounting } from './service.ts'

t.test('no request fails while 1,000 routes are reloaded', async (t) => {
  const service = await startCounting(t)
  const configOf = (number: number): Changing => ({
    services: { steady: { instances: [service.url] } },
    routes: Array.from({ length: 1000 }, (_, n) => ({
      name: `route-${n}`,
      match: { path: n === 0 ? '/steady' : `/number-${number}/${n}` },
      service: 'steady'
    }))
  })
  const gateway = await startReloading(t, configOf(0))
  const load = await Load.start(gateway.url, { rate: 100, paths: ['/steady'] })
  t.teardown(() => load.destroy())
  await sleep(1000)
  await gateway.probe()
  const held: string[] = []
  for (let number = 1; number <= 5; number++) {
    await gateway.reload(configOf(number))
    t.equal((await gateway.get(`/number-${number}/999`)).status, 200)
    t.equal((await gateway.get(`/number-${number - 1}/999`)).status, 404)
    const { blockedMs, blockedCpuMs } = await gateway.probe()
    held.push(`${blockedMs} (CPU: ${blockedCpuMs})`)
    await sleep(500)
  }
  await load.stop()
  t.strictSame(load.summary(), {}, 'no request fails')
  t.comment(`the event loop was blocked for at most ${held.join(', ')} ms`)
})
