/** Balancing policies: exact sequences where defined, distributions by chi-square over a seeded generator. */
import t from 'tap'
import type { MeshPolicy } from '../../../config/schema.ts'
import { createBalancer } from '../../../plugins/mesh/balancing/index.ts'
import { weightedSampler } from '../../../plugins/mesh/balancing/weighted.ts'
import type { Instance } from '../../../plugins/mesh/core/types.ts'
import { chiSquare, fleet, instances, options, seeded, tally } from '../../helpers/mesh/instances.ts'

const policies = [
  'round-robin', 'least-request', 'random', 'ring-hash', 'maglev', 'peak-ewma'
] as const satisfies readonly MeshPolicy['balance'][] // biome-ignore format: a table

function draw(policy: MeshPolicy['balance'], among: Instance[], times: number, random = seeded(1)) {
  const balancer = createBalancer(policy, among, { random: random, now: () => 0 })
  return Array.from({ length: times }, () => balancer.pick(null)!)
}

t.test('round robin: in rotation, from a random start', async (t) => {
  const order = (start: number) =>
    draw('round-robin', instances([1, 1, 1]), 7, () => start)
      .map(({ id }) => id)
      .join('')
  t.equal(order(0), 'bcabcab')
  t.equal(order(0.5), 'cabcabc')
  t.equal(order(0.9999), 'abcabca')
})

t.test('round robin: instances are picked smoothly by weight', async (t) => {
  const order = (weights: number[], times: number) =>
    draw('round-robin', instances(weights), times)
      .map(({ id }) => id)
      .join('')
  t.equal(order([5, 1, 1], 7), 'aabacaa')
  t.equal(order([5, 1, 1], 14), 'aabacaaaabacaa')
  t.equal(order([1, 2], 6), 'babbab')
  t.equal(order([3, 3], 4).length, 4)
})

t.test('round robin: each of many instances is picked at the rate of its weight', async (t) => {
  const among = fleet(100, (i) => 1 + (i % 4))
  const balancer = createBalancer('round-robin', among, { random: seeded(6), now: () => 0 })
  const picks = Array.from({ length: 2500 }, () => balancer.pick(null)!)
  const counts = tally(among, picks)
  t.ok(
    counts.every((count, i) => Math.abs(count - 10 * (1 + (i % 4))) <= 1),
    `counts of ten rounds by weight: ${counts}`
  )
  const positions = picks.flatMap((pick, at) => (pick === among[3] ? [at] : []))
  const gaps = positions.slice(1).map((at, i) => at - positions[i]!)
  t.ok(Math.min(...gaps) > 55 && Math.max(...gaps) < 70, `gaps between picks of an instance, expected 62.5: ${gaps}`)
  const one = new Set(among.slice(1).map(({ endpoint }) => endpoint))
  for (let i = 0; i < 10; i++) t.equal(balancer.pick(one), among[0])
})

t.test('random: instances are picked by weight', async (t) => {
  // 13.8 is the 99.9th percentile for two degrees of freedom.
  for (const weights of [
    [1, 1, 1],
    [1, 2, 3],
    [10, 1, 1]
  ]) {
    const among = instances(weights)
    const chi = chiSquare(tally(among, draw('random', among, 12_000)), weights)
    t.ok(chi < 13.8, `${weights}: ${chi}`)
  }
})

t.test('least request: with equal load, instances are picked by weight', async (t) => {
  for (const weights of [
    [1, 1, 1],
    [1, 2, 3]
  ]) {
    const among = instances(weights)
    const chi = chiSquare(tally(among, draw('least-request', among, 12_000)), weights)
    t.ok(chi < 13.8, `${weights}: ${chi}`)
  }
})

t.test('least request: the less loaded of two is picked, and the most loaded of many is not', async (t) => {
  const two = instances([1, 1], [5, 4])
  t.strictSame(tally(two, draw('least-request', two, 500)), [0, 500])
  const many = instances([1, 1, 1, 1], [9, 1, 1, 1])
  const seen = tally(many, draw('least-request', many, 2000))
  t.equal(seen[0], 0)
  t.ok(Math.min(...seen.slice(1)) > 400, `${seen}`)
  const weighted = instances([1, 4], [2, 6])
  t.strictSame(tally(weighted, draw('least-request', weighted, 200)), [0, 200], 'load counts per weight')
})

t.test('least request: keeps load even with one slower instance, without comparing all', async (t) => {
  const among = instances([1, 1, 1, 1, 1])
  const balancer = createBalancer('least-request', among, { random: seeded(7), now: () => 0 })
  const busy: Instance[] = []
  for (let i = 0; i < 5000; i++) {
    const instance = balancer.pick(null)!
    instance.endpoint.active++
    busy.push(instance)
    // The first instance is ten times slower to respond.
    if (busy.length > 50) {
      const index = busy.findIndex(({ id }, at) => id !== 'a' || at < busy.length - 20)
      busy.splice(index, 1)[0]!.endpoint.active--
    }
  }
  const loads = among.map(({ endpoint }) => endpoint.active)
  t.ok(Math.max(...loads) - Math.min(...loads) <= 6, `${loads}`)
})

t.test('least request: more choices find the least busy more often', async (t) => {
  // Of 20, drawn with replacement, the idle one is among n draws with probability 1 - 0.95^n.
  for (const choices of [3, 5, 16]) {
    const among = instances(new Array(20).fill(1), [0, ...new Array(19).fill(3)])
    const policy = options({ policy: 'least-request', choices })
    const [seen] = tally(among, draw(policy, among, 20_000))
    const expected = 1 - 0.95 ** choices
    t.ok(Math.abs(seen! / 20_000 - expected) < 0.015, `${choices}: ${seen! / 20_000}, expected ${expected}`)
  }
  const weighted = instances([1, 2, 3])
  const chi = chiSquare(
    tally(weighted, draw(options({ policy: 'least-request', choices: 4 }), weighted, 12_000)),
    [1, 2, 3]
  )
  t.ok(chi < 13.8, `by weight while all are idle: ${chi}`)
})

t.test('least request: choices exclude tried instances', async (t) => {
  const among = instances([3, 1, 2, 1])
  const policy = options({ policy: 'least-request', choices: 3 })
  const balancer = createBalancer(policy, among, { random: seeded(3), now: () => 0 })
  const one = new Set(among.slice(1).map(({ endpoint }) => endpoint))
  for (let i = 0; i < 50; i++) t.equal(balancer.pick(one), among[0])
  t.equal(balancer.pick(new Set(among.map(({ endpoint }) => endpoint))), null)
})

t.test('all policies report their view of an instance', async (t) => {
  const said = {
    'round-robin': { weight: 3, share: 0.75 },
    random: { weight: 3, share: 0.75 },
    'least-request': { weight: 3, active: 6, score: 2 },
    'peak-ewma': { weight: 3, active: 6, score: 'awaiting its first response' }
  }
  for (const policy of policies) {
    const among = instances([3, 1], [6, 0])
    const { describe } = createBalancer(policy, among, { random: seeded(3), now: () => 0 })
    const seen = describe!({ ...among[0]!, weight: 30 })
    if (policy === 'ring-hash' || policy === 'maglev') {
      t.match(seen, { weight: 3, active: 6 }, policy)
      t.ok(Math.abs(Number(seen.share) - 0.75) < 0.05, `${policy}: ${seen.share}`)
    } else t.strictSame(seen, said[policy], policy)
    t.strictSame(describe!(fleet(1)[0]!), { weight: 0 }, `${policy}: takes no part`)
  }
})

t.test('a tried instance is excluded while another is available', async (t) => {
  for (const policy of policies) {
    const among = instances([3, 1, 2, 1])
    const balancer = createBalancer(policy, among, { random: seeded(3), now: () => 0 })
    for (let round = 0; round < 200; round++) {
      const tried = new Set([among[round % 4]!.endpoint, among[(round + 1) % 4]!.endpoint])
      t.notOk(tried.has(balancer.pick(tried)!.endpoint), policy)
    }
    const one = new Set(among.slice(1).map(({ endpoint }) => endpoint))
    for (let i = 0; i < 20; i++) t.equal(balancer.pick(one), among[0], policy)
    t.equal(balancer.pick(new Set(among.map(({ endpoint }) => endpoint))), null, policy)
  }
})

t.test('two instances at one address count as one for retries', async (t) => {
  const [a, b] = instances([1, 1])
  const twin = { ...a!, id: 'a#2' }
  for (const policy of policies) {
    const balancer = createBalancer(policy, [a!, twin, b!], { random: seeded(5), now: () => 0 })
    for (let i = 0; i < 50; i++) t.equal(balancer.pick(new Set([a!.endpoint])), b)
  }
})

t.test('policies work with one instance and with none', async (t) => {
  for (const policy of policies) {
    const [only] = instances([1])
    const balancer = createBalancer(policy, [only!], { random: seeded(1), now: () => 0 })
    t.equal(balancer.pick(null), only)
    t.equal(balancer.pick(new Set([only!.endpoint])), null)
    t.equal(createBalancer(policy, [], { random: seeded(1), now: () => 0 }).pick(null), null)
    t.equal(createBalancer(policy, [], { random: seeded(1), now: () => 0 }).pick(new Set([only!.endpoint])), null)
  }
})

t.test('weight 0 gets no calls, unless all have weight 0', async (t) => {
  for (const policy of policies) {
    const among = instances([0, 1, 2])
    t.equal(tally(among, draw(policy, among, 300))[0], 0, policy)
    const drained = instances([0, 0])
    t.ok(Math.min(...tally(drained, draw(policy, drained, 300))) > 50, policy)
  }
})

t.test('the sampler stays in range at both ends', async (t) => {
  for (const weights of [[1], [2, 2], [1, 0, 3], [0, 5], [65_535, 1]]) {
    const items = weights.map((weight) => ({ weight }))
    for (const point of [0, 0.5, 1 - 2 ** -53]) {
      const index = weightedSampler(items, () => point)()
      t.ok(weights[index]! > 0, `${weights} at ${point}: ${index}`)
    }
  }
})

t.test('has() agrees with pick(), and makes no choice', async (t) => {
  for (const policy of policies) {
    const some = instances([1, 2, 1])
    const [one, other] = [seeded(7), seeded(7)].map((random) =>
      createBalancer(options({ policy }), some, { random, now: () => 0 })
    )
    for (let i = 0; i < 50; i++) {
      for (let tried = 0; tried < 8; tried++) {
        const set = new Set(some.flatMap(({ endpoint }, bit) => (tried & (1 << bit) ? endpoint : [])))
        t.equal(one!.has(set), set.size < 3, policy)
      }
      t.equal(one!.pick(null)?.id, other!.pick(null)?.id, `${policy}: the next one is the same`)
    }
    t.equal(createBalancer(options({ policy }), [], { random: () => 0, now: () => 0 }).has(new Set()), false)
  }
})
