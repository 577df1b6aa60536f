// Steady load while instances start, stop and crash: no request fails that an available instance could have served.
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { startConsul } from '../helpers/consul.ts'
import { inProcess } from '../helpers/e2e/gateway.ts'
import { steadyLoad } from '../helpers/e2e/load.ts'
import { upstreamProcess } from '../helpers/e2e/upstream.ts'
import { waitFor } from '../helpers/processes.ts'

t.test('no request fails while instances start, deregister and stop in order', async (t) => {
  const consul = await startConsul()
  t.teardown(consul.stop)
  const client = await inProcess(t, { consul: consul.url, services: { orders: {} } })
  const alive: Awaited<ReturnType<typeof upstreamProcess>>[] = []
  const ports = () => alive.map(({ port }) => port)
  const enter = async (name: string) => {
    const instance = await upstreamProcess(t, name)
    alive.push(instance)
    await consul.register({ id: name, name: 'orders', port: instance.port })
    await client.until('orders', ports())
  }
  await enter('first')
  const load = steadyLoad(client, ['/orders', '/orders/1', '/orders?delay=5'], {
    concurrency: 10, postEvery: 5, pauseMs: 2
  }) // biome-ignore format: short
  for (let round = 0; round < 8; round++) {
    await enter(`instance-${round}`)
    await sleep(150)
    const leaving = alive.shift()!
    await consul.deregister(leaving.name === 'first' ? 'first' : leaving.name)
    await client.until('orders', ports())
    await leaving.stop()
  }
  await waitFor('2,000 requests', () => load.tally.sent >= 2000, 60_000)
  const { sent, failures, by } = await load.stop()
  t.comment(`${sent} requests to ${Object.keys(by).length} instances`)
  t.strictSame(failures, [], 'no request fails, not even a POST')
  t.equal(Object.keys(by).length, 9)
})

t.test('no idempotent request fails while instances are killed or stop as they deregister', async (t) => {
  const consul = await startConsul()
  t.teardown(consul.stop)
  const client = await inProcess(t, { consul: consul.url, services: { orders: {} } })
  const start = async (name: string) => {
    const instance = await upstreamProcess(t, name)
    await consul.register({ id: name, name: 'orders', port: instance.port })
    return instance
  }
  const steady = [await start('steady-1'), await start('steady-2')]
  await client.until(
    'orders',
    steady.map(({ port }) => port)
  )
  const load = steadyLoad(client, ['/orders', '/orders/1', '/orders?delay=5'], {
    concurrency: 10, postEvery: 5, pauseMs: 2
  }) // biome-ignore format: short
  const ends: { from: number; to: number }[] = []
  const began = performance.now()
  for (let round = 0; round < 6; round++) {
    const victim = await start(`victim-${round}`)
    await client.until(
      'orders',
      [...steady, victim].map(({ port }) => port)
    )
    await sleep(200)
    const from = performance.now() - began
    if (round % 2 === 0) {
      victim.kill('SIGKILL')
      await sleep(300) // the victim is dead and still registered
      await consul.deregister(victim.name)
    } else {
      // The victim deregisters and ends before the gateway learns of it.
      void consul.deregister(victim.name)
      victim.kill('SIGTERM')
    }
    await client.until(
      'orders',
      steady.map(({ port }) => port)
    )
    await victim.stop()
    ends.push({ from, to: performance.now() - began })
  }
  await waitFor('2,000 requests', () => load.tally.sent >= 2000, 60_000)
  const { sent, failures, by } = await load.stop()
  t.comment(`${sent} requests to ${Object.keys(by).length} instances, ${failures.length} failed`)
  t.strictSame(
    failures.filter(({ method }) => method !== 'POST'),
    [],
    'no idempotent request failed'
  )
  const early = failures.filter(({ at }) => !ends.some(({ from, to }) => at > from - 50 && at < to + 50))
  t.strictSame(early, [], 'a POST fails only while its instance ends')
  t.ok(failures.length <= 3 * ends.length, `at most the requests in flight failed: ${failures.length}`)
  t.strictSame(new Set(failures.map(({ what }) => what.slice(0, 3))), new Set(failures.length > 0 ? ['502'] : []))
  t.equal(Object.keys(by).length, 8)
})
