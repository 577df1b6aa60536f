/** The load of these tests detects whatever a reload may break: a restart in place of a reload breaks all of it. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { selfSigned } from '../../helpers/self-signed.ts'
import { startTraffic, warmUpMs } from './traffic.ts'

t.test('a restart causes failures of every kind of client', async (t) => {
  const { gateway, load } = await startTraffic(t, selfSigned(t))
  await sleep(warmUpMs)
  t.strictSame(load.summary(), {}, 'no failure without a restart')
  await gateway.restart()
  await sleep(warmUpMs)
  await load.stop()
  const kinds = new Set(load.failures.map(({ kind }) => kind))
  for (const kind of ['get', 'get h2', 'events', 'events h2', 'upload', 'upload h2', 'websocket'] as const) {
    t.ok(kinds.has(kind), `${kind} requests fail`)
  }
  t.ok(load.closes > 0, 'closed connections are counted')
})
