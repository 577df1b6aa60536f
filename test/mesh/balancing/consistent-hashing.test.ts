/** ring-hash and maglev: shares, keys that move when instances change, and bounded load. */
import t from 'tap'
import { LoadBound } from '../../../plugins/mesh/balancing/bounded-load.ts'
import { createBalancer } from '../../../plugins/mesh/balancing/index.ts'
import type { BalanceOptions } from '../../../plugins/mesh/balancing/schema.ts'
import type { Instance } from '../../../plugins/mesh/core/types.ts'
import { fleet, hashes, instances, options, placed, seeded, tally } from '../../helpers/mesh/instances.ts'

const keys = hashes(20_000)

function balancerOf(policy: BalanceOptions['policy'], among: readonly Instance[], more: Partial<BalanceOptions> = {}) {
  return createBalancer(options({ ...more, policy }), among, { random: seeded(5), now: () => 0 })
}

function place(policy: BalanceOptions['policy'], among: readonly Instance[], more: Partial<BalanceOptions> = {}) {
  return placed(balancerOf(policy, among, more), keys)
}

for (const policy of ['ring-hash', 'maglev'] as const) {
  // A ring's shares vary by the root of its points.
  const tolerance = policy === 'maglev' ? 0.05 : 0.2

  t.test(`${policy}: shares by weight, as described and as measured`, async (t) => {
    for (const weights of [
      [1, 1],
      [1, 1, 1, 1, 1],
      [1, 2, 3, 4],
      [100, 50, 50],
      [0.1, 1, 1]
    ]) {
      const among = instances(weights)
      const whole = weights.reduce((sum, weight) => sum + weight, 0)
      const balancer = balancerOf(policy, among)
      const counts = tally(
        among,
        keys.map((hash) => balancer.pick(null, hash)!)
      )
      let described = 0
      for (const [i, instance] of among.entries()) {
        const fair = weights[i]! / whole
        const share = Number(balancer.describe!(instance).share)
        described += share
        t.ok(Math.abs(share / fair - 1) < tolerance, `${weights}: ${instance.id} has ${share} of ${fair}`)
        t.ok(Math.abs(counts[i]! / keys.length - share) < 0.015, `${weights}: ${instance.id} got ${counts[i]}`)
      }
      t.ok(Math.abs(described - 1) < 1e-4, `sum of the described shares: ${described}`)
    }
  })

  t.test(`${policy}: the same in every gateway, independent of the order of instances`, async (t) => {
    const among = fleet(20, (i) => 1 + (i % 3))
    const reference = place(policy, among)
    t.strictSame(place(policy, among.toReversed()), reference)
    const shuffled = among.toSorted((a, b) => (a.id.at(5)! < b.id.at(5)! ? -1 : 1))
    t.strictSame(place(policy, shuffled), reference)
    t.strictSame(
      place(
        policy,
        fleet(20, (i) => 1 + (i % 3))
      ),
      reference,
      'the ring does not depend on the objects of the instances'
    )
  })

  t.test(`${policy}: about 1/n of the keys moves when an instance is added or removed`, async (t) => {
    for (const n of [2, 3, 4, 7, 10, 31]) {
      const more = fleet(n + 1)
      const joined = more[n]!.id
      const before = place(policy, more.slice(0, n))
      const after = place(policy, more)
      const moved = keys.flatMap((_, i) => (before[i] === after[i] ? [] : [i]))
      const among = moved.filter((i) => after[i] !== joined)
      const fair = 1 / (n + 1)
      t.ok(Math.abs((moved.length - among.length) / keys.length / fair - 1) < tolerance + 0.05, `${n}: to the new one`)
      // The same two sets in reverse order: an instance is removed.
      if (policy === 'ring-hash') t.equal(among.length, 0, `${n}: none among those that stay`)
      else t.ok(among.length / keys.length < 0.04, `${n}: ${among.length} of ${keys.length} among those that stay`)
    }
  })

  t.test(`${policy}: a growing weight only adds keys to its instance`, async (t) => {
    const before = place(policy, instances([1, 1, 1, 1, 0.4]))
    const after = place(policy, instances([1, 1, 1, 1, 0.6]))
    const others = keys.filter((_, i) => before[i] !== after[i] && after[i] !== 'e')
    t.ok(others.length / keys.length < (policy === 'maglev' ? 0.03 : 1e-9), `${others.length} moved elsewhere`)
    t.ok(after.filter((id) => id === 'e').length > before.filter((id) => id === 'e').length * 1.2)
  })

  t.test(`${policy}: a tried instance is skipped, each key has one alternative, and its keys are spread`, async (t) => {
    const among = fleet(5)
    const balancer = balancerOf(policy, among)
    const first = balancer.pick(null, keys[0]!)!
    const second = balancer.pick(new Set([first.endpoint]), keys[0]!)!
    t.not(second, first)
    t.equal(balancer.pick(new Set([first.endpoint]), keys[0]!), second)
    const overflow = keys
      .filter((hash) => balancer.pick(null, hash) === first)
      .map((hash) => balancer.pick(new Set([first.endpoint]), hash)!)
    for (const count of tally(among, overflow).filter((count) => count > 0)) {
      t.ok(Math.abs(count / overflow.length - 0.25) < 0.1, `${count} of ${overflow.length}`)
    }
    t.equal(balancer.pick(new Set(among.map(({ endpoint }) => endpoint)), keys[0]!), null)
  })

  t.test(`${policy}: without a hash, any instance`, async (t) => {
    const among = fleet(4)
    const balancer = balancerOf(policy, among)
    const counts = tally(
      among,
      Array.from({ length: 4000 }, () => balancer.pick(null, null)!)
    )
    t.ok(Math.min(...counts) > 700, `${counts}`)
  })

  t.test(`${policy}: bounded load is never exceeded`, async (t) => {
    for (const [weights, maxLoad] of [
      [[1, 1, 1, 1, 1, 1, 1, 1], 1.25],
      [[1, 1, 1, 1], 1],
      [[1, 2, 3, 4], 1.5]
    ] as const) {
      const among = instances(weights)
      const whole = weights.reduce<number>((sum, weight) => sum + weight, 0)
      const balancer = balancerOf(policy, among, { maxLoad })
      const random = seeded(9)
      const busy: Instance[] = []
      let own = 0
      for (let i = 0; i < 3000; i++) {
        // Most calls have one of three popular keys.
        const hash = random() < 0.8 ? keys[Math.floor(random() * 3)]! : random() * 2 ** 32
        const instance = balancer.pick(null, hash)!
        const bound = Math.ceil(((busy.length + 1) * maxLoad * instance.weight) / whole - 1e-9)
        if (instance.endpoint.active + 1 > bound) t.fail(`${instance.endpoint.active + 1} of ${bound}`)
        if (busy.length === 0 && instance === balancerOf(policy, among).pick(null, hash)) own++
        instance.endpoint.active++
        busy.push(instance)
        if (busy.length > 60) busy.splice(Math.floor(random() * busy.length), 1)[0]!.endpoint.active--
      }
      t.equal(own, 1, 'with nothing in flight, a key goes to its own instance')
      t.equal(
        among.reduce((sum, { endpoint }) => sum + endpoint.active, 0),
        busy.length
      )
    }
  })

  t.test(`${policy}: if all but the overloaded instances were tried, one of these serves`, async (t) => {
    const among = instances([1, 1, 1], [50, 0, 0])
    const balancer = balancerOf(policy, among, { maxLoad: 1.1 })
    const [a, b, c] = among
    for (const hash of keys.slice(0, 200)) t.not(balancer.pick(null, hash), a)
    t.equal(balancer.pick(new Set([b!.endpoint, c!.endpoint]), keys[0]!), a)
    t.equal(balancer.describe!(b!).limit, Math.ceil((1.1 * 51) / 3))
  })

  t.test(`${policy}: ten thousand instances`, async (t) => {
    const among = fleet(10_000)
    const started = performance.now()
    const balancer = balancerOf(policy, among)
    const tookMs = performance.now() - started
    t.ok(tookMs < 5000, `build time: ${tookMs} ms`)
    const counts = tally(
      among,
      hashes(200_000).map((hash) => balancer.pick(null, hash)!)
    )
    t.ok(Math.max(...counts) < 20 * 4, `at most ${Math.max(...counts)} of a mean of 20`)
    t.ok(counts.filter((count) => count === 0).length < 20)
  })
}

t.test('ring-hash: at least as many points as configured, and at most the maximum', async (t) => {
  const points = (among: Instance[], ringSize: number) => {
    const { describe } = balancerOf('ring-hash', among, { ringSize })
    return among.reduce((sum, instance) => sum + Number(describe!(instance).slots), 0)
  }
  for (const ringSize of [1, 100, 1024, 262_144]) {
    for (const among of [fleet(1), fleet(2), instances([1, 2]), instances([1, 1, 9]), instances([0.3, 0.2])]) {
      const count = points(among, ringSize)
      t.ok(count >= ringSize && count <= 2 * ringSize * among.length + 4, `${ringSize}: ${count}`)
    }
  }
  t.equal(points(fleet(10), 1024), 10 * 725)
  t.ok(points(fleet(5000), 1024) < 530_000)
  const even = (ringSize: number) => {
    const balancer = balancerOf('ring-hash', fleet(20), { ringSize })
    return Math.max(...fleet(20).map((instance) => Math.abs(Number(balancer.describe!(instance).share) * 20 - 1)))
  }
  t.ok(even(65_536) < 0.03, `${even(65_536)}`)
  t.ok(even(65_536) < even(64), 'a larger ring is more even')
})

t.test('maglev: the table size is rounded to a prime', async (t) => {
  for (const tableSize of [1, 2, 4, 100, 65_536]) {
    const among = fleet(3)
    const balancer = balancerOf('maglev', among, { tableSize })
    const shares = among.map((instance) => Number(balancer.describe!(instance).share))
    t.ok(Math.abs(shares.reduce((sum, share) => sum + share, 0) - 1) < 1e-4, `${tableSize}: ${shares}`)
  }
  const few = balancerOf('maglev', fleet(11), { tableSize: 2 })
  t.equal(few.pick(new Set(), 7) !== null, true, 'more instances than slots')
})

t.test('the bound of many instances is recomputed from time to time', async (t) => {
  const among = fleet(1024)
  const bound = new LoadBound(among, 1.25)
  const { endpoint } = among[0]!
  bound.refresh()
  t.equal(bound.limit(endpoint), 1)
  for (const instance of among) instance.endpoint.active = 4
  for (let i = 0; i < 4; i++) bound.refresh()
  t.equal(bound.limit(endpoint), 6, 'ceil(1.25 × 4097 / 1024)')
})
