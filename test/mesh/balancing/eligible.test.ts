/** Eligible instances: panic, ranks of failover, and the slow start's ramp by an injected clock. */
import t from 'tap'
import { eligible } from '../../../plugins/mesh/balancing/eligible.ts'
import type { Instance } from '../../../plugins/mesh/core/types.ts'
import { byHand } from '../../helpers/mesh/discovery.ts'
import { instanceOf, instances, options } from '../../helpers/mesh/instances.ts'
import { meshOf } from '../../helpers/mesh/mesh.ts'

const nowhere = { datacenter: null, zone: null }
const ids = (some: readonly Instance[]) => some.map(({ id }) => id).join('')
const weights = (some: readonly Instance[]) => some.map(({ weight }) => Number(weight.toFixed(6)))
const fail = (...some: Instance[]) => {
  for (const { endpoint } of some) endpoint.health.obstruct('test', 'failed')
}

t.test('only available instances are eligible, until too few are available', async (t) => {
  const among = instances([1, 1, 1, 1])
  const look = (panicThreshold: number) => eligible(among, options({ panicThreshold }), nowhere, 0)
  t.strictSame(look(0.5), { instances: among, panic: false, changesInMs: null })
  fail(among[0]!, among[1]!)
  t.match(look(0.5), { panic: false }, 'no panic at exactly the threshold')
  t.equal(ids(look(0.5).instances), 'cd')
  fail(among[2]!)
  t.match(look(0.5), { panic: true })
  t.equal(ids(look(0.5).instances), 'abcd')
  t.equal(ids(look(0.25).instances), 'd')
  fail(among[3]!)
  t.strictSame(look(0), { instances: [], panic: false, changesInMs: null }, 'no panic with a threshold of 0 %')
  t.match(eligible([], options(), nowhere, 0), { instances: [], panic: false })
})

t.test('panic ignores slow start and locality', async (t) => {
  const clock = { ms: 0 }
  const here = { 'consul-dc': 'here' }
  const among = ['a', 'b', 'c', 'd'].map((id) => instanceOf(id, { now: () => clock.ms, meta: id < 'c' ? here : {} }))
  clock.ms = 100_000
  fail(...among)
  among[0]!.endpoint.health.clear('test', 'well')
  const policy = options({ slowStart: 30_000, locality: 'prefer' })
  const seen = eligible(among, policy, { datacenter: 'here', zone: null }, clock.ms)
  t.strictSame(seen, { instances: among, panic: true, changesInMs: null })
})

t.test('a failover rank serves while none before it is available, each with its own panic threshold', async (t) => {
  const of = (id: string, rank: string) => instanceOf(id, { meta: { 'failover-rank': rank } })
  const among = [of('e', '2'), instanceOf('a'), instanceOf('b'), of('c', '1'), of('d', '1'), of('f', '10')]
  const [e, a, b, c, d, f] = among as [Instance, Instance, Instance, Instance, Instance, Instance]
  const look = (panicThreshold = 0.5) => eligible(among, options({ panicThreshold }), nowhere, 0)
  const seen = () => `${ids(look().instances)}${look().panic ? ' in panic' : ''}`
  t.equal(seen(), 'ab')
  fail(a)
  t.equal(seen(), 'b')
  fail(b)
  t.equal(seen(), 'cd')
  fail(c)
  t.equal(seen(), 'd')
  fail(d)
  t.equal(seen(), 'e')
  fail(e)
  t.equal(seen(), 'f', 'failover ranks are compared as numbers')
  fail(f)
  t.equal(seen(), 'ab in panic', 'without an available rank, the first rank is used')
  t.strictSame(look(0).instances, [])
  b.endpoint.health.clear('test', 'well')
  t.equal(seen(), 'b', 'back')
  t.equal(
    ids(eligible([a, b, c], options({ panicThreshold: 0.9 }), nowhere, 0).instances),
    'ab',
    'each rank has its own panic threshold'
  )
})

t.test('slow start: the weight grows step by step', async (t) => {
  const clock = { ms: 0 }
  const now = () => clock.ms
  const old = instanceOf('a', { now, weight: 2 })
  clock.ms = 100_000
  const fresh = instanceOf('b', { now, weight: 2 })
  const policy = options({ slowStart: 30_000 })
  const look = (afterMs: number) => eligible([old, fresh], policy, nowhere, 100_000 + afterMs)
  t.strictSame(weights(look(0).instances), [2, 0.2], 'a new instance has a tenth of its weight')
  t.strictSame(weights(look(3000).instances), [2, 0.2])
  t.strictSame(weights(look(6000).instances), [2, 0.4])
  t.strictSame(weights(look(15_000).instances), [2, 1])
  t.strictSame(weights(look(29_999).instances), [2, 1.999933])
  t.strictSame(look(30_000), { instances: [old, fresh], panic: false, changesInMs: null })
  t.equal(look(0).changesInMs, 3000, 'a tenth of the window')
  t.equal(look(28_500.5).changesInMs, 1500)
  t.equal(eligible([old, fresh], options({ slowStart: 4000 }), nowhere, 100_000).changesInMs, 1000, 'no finer than 1 s')
  t.equal(eligible([old, fresh], options({ slowStart: 500 }), nowhere, 100_000).changesInMs, 500)

  fresh.endpoint.health.obstruct('test', 'failed')
  clock.ms = 200_000
  fresh.endpoint.health.clear('test', 'well')
  t.strictSame(
    weights(eligible([old, fresh], policy, nowhere, 215_000).instances),
    [2, 1],
    'a recovered instance has slow start, too'
  )
})

t.test('slow start: if all are new, none is slowed', async (t) => {
  const clock = { ms: 0 }
  const among = ['a', 'b', 'c'].map((id) => {
    clock.ms += 0.1
    return instanceOf(id, { now: () => clock.ms })
  })
  const policy = options({ slowStart: 30_000 })
  for (const nowMs of [1, 5000, 29_999]) {
    t.strictSame(eligible(among, policy, nowhere, nowMs), { instances: among, panic: false, changesInMs: null })
  }
  clock.ms = 10_000
  const later = instanceOf('d', { now: () => clock.ms })
  const look = (nowMs: number) => weights(eligible([...among, later], policy, nowhere, nowMs).instances)
  t.ok(
    look(10_000.3)
      .slice(0, 3)
      .every((weight) => weight > 0.9999),
    'the weights are almost equal'
  )
  t.equal(look(10_000.1)[3], 0.3, 'in proportion to the oldest')
  t.ok(Math.abs(look(20_000.1)[3]! - 0.5) < 1e-5)
})

t.test('slow start: weight 0 stays 0, and all 0 is equal to all 1', async (t) => {
  const clock = { ms: 0 }
  const now = () => clock.ms
  const [old, none] = [instanceOf('a', { now }), instanceOf('z', { now, weight: 0 })]
  clock.ms = 60_000
  const fresh = instanceOf('b', { now })
  const policy = options({ slowStart: 30_000 })
  t.strictSame(weights(eligible([old, none, fresh], policy, nowhere, 60_000).instances), [1, 0.1])
  const freshNone = instanceOf('y', { now, weight: 0 })
  t.strictSame(weights(eligible([none, freshNone], policy, nowhere, 60_000).instances), [1, 0.1])
})

t.test('slow start in a service: the first instances are not new, added ones are', async (t) => {
  let nowMs = 1000
  const { discovery, publish } = byHand()
  const balance = options({ policy: 'random', slowStart: 20_000 })
  const mesh = meshOf(
    t,
    [
      {
        name: 'orders',
        mesh: {
          balance,
          timeout: 1000,
          attemptTimeout: 1000,
          connectTimeout: 1000,
          idleTimeout: 1000,
          retry: false
        }
      }
    ],
    { discovery, now: () => nowMs }
  )
  const shares = () =>
    mesh.status()[0]!.instances.map(({ concerns }) => (concerns.balance as { weight: number }).weight)
  publish('orders', ['http://127.0.0.1:1', 'http://127.0.0.1:2'])
  t.strictSame(shares(), [1, 1])
  nowMs = 5000
  publish('orders', ['http://127.0.0.1:1', 'http://127.0.0.1:2', 'http://127.0.0.1:3'])
  t.strictSame(shares(), [1, 1, 0.1])
  nowMs = 15_000
  publish('orders', ['http://127.0.0.1:1', 'http://127.0.0.1:3'])
  t.strictSame(shares(), [1, 0.5])
  nowMs = 25_000
  publish('orders', ['http://127.0.0.1:3', 'http://127.0.0.1:4'])
  t.strictSame(shares(), [1, 0.1])
})

t.test('slow start in a service: the ramp continues without further changes', async (t) => {
  let nowMs = 0
  const { discovery, publish } = byHand()
  const balance = options({ policy: 'random', slowStart: 60 })
  const timeouts = { timeout: 1000, attemptTimeout: 1000, connectTimeout: 1000, idleTimeout: 1000 }
  const mesh = meshOf(t, [{ name: 'orders', mesh: { balance, retry: false, ...timeouts } }], {
    discovery,
    now: () => nowMs
  })
  const weightOf = (index: number) =>
    (mesh.status()[0]!.instances[index]!.concerns.balance as { weight: number }).weight
  publish('orders', ['http://127.0.0.1:1'])
  nowMs = 1000
  publish('orders', ['http://127.0.0.1:1', 'http://127.0.0.1:2'])
  t.equal(weightOf(1), 0.1)
  nowMs = 1060
  const end = performance.now() + 10_000
  while (weightOf(1) !== 1 && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 5))
  t.equal(weightOf(1), 1)
})
