/** Locality: shares of zone, datacenter and the rest, and their spill-over. */
import t from 'tap'
import { eligible } from '../../../plugins/mesh/balancing/eligible.ts'
import { createBalancer } from '../../../plugins/mesh/balancing/index.ts'
import type { BalanceOptions } from '../../../plugins/mesh/balancing/schema.ts'
import type { Instance, Locality } from '../../../plugins/mesh/core/types.ts'
import { chiSquare, hashes, instanceOf, options, seeded, tally } from '../../helpers/mesh/instances.ts'

const here: Locality = { datacenter: 'dc1', zone: 'z1' }

/** `count` instances of a place, the last `failed` of them unavailable. */
function group(place: string, count: number, failed = 0, weight = 1): Instance[] {
  const [datacenter, zone] = place.split('/') as [string, string | undefined]
  const meta = { 'consul-dc': datacenter, ...(zone !== undefined && { 'consul-zone': zone }) }
  return Array.from({ length: count }, (_, i) => {
    const instance = instanceOf(`${place}/${i}`, { meta, weight })
    if (i >= count - failed) instance.endpoint.health.obstruct('test', 'failed')
    return instance
  })
}

function sharesOf(some: readonly Instance[], locality = here, more: Partial<BalanceOptions> = {}) {
  const policy = options({ locality: 'prefer', panicThreshold: 0, ...more })
  const { instances } = eligible(some, policy, locality, 0)
  const whole = instances.reduce((sum, { weight }) => sum + weight, 0)
  const shares: Record<string, number> = {}
  for (const { id, weight } of instances) {
    const place = id.slice(0, id.lastIndexOf('/'))
    shares[place] = (shares[place] ?? 0) + weight / whole
  }
  return Object.fromEntries(Object.entries(shares).map(([place, share]) => [place, round(share)]))
}

const round = (value: number) => Number(value.toFixed(9))

t.test('instances of the local zone precede those of the local datacenter, and these precede the rest', async (t) => {
  const zone = group('dc1/z1', 2)
  const datacenter = group('dc1/z2', 3)
  const rest = group('dc2/z1', 5)
  const all = [...rest, ...datacenter, ...zone]
  t.strictSame(sharesOf(all), { 'dc1/z1': 1 })
  t.strictSame(sharesOf([...rest, ...datacenter]), { 'dc1/z2': 1 })
  t.strictSame(sharesOf(rest), { 'dc2/z1': 1 }, 'a zone of the same name in another datacenter is not local')
  t.strictSame(sharesOf(all, here, { locality: 'ignore' }), { 'dc1/z1': 0.2, 'dc1/z2': 0.3, 'dc2/z1': 0.5 })
})

t.test('without a known zone or datacenter, there is no preference for it', async (t) => {
  const all = [...group('dc1/z1', 2), ...group('dc1/z2', 2), ...group('dc2/z1', 4)]
  t.strictSame(sharesOf(all, { datacenter: 'dc1', zone: null }), { 'dc1/z1': 0.5, 'dc1/z2': 0.5 })
  t.strictSame(sharesOf(all, { datacenter: null, zone: 'z2' }), { 'dc1/z2': 1 })
  t.strictSame(sharesOf(all, { datacenter: null, zone: null }), { 'dc1/z1': 0.25, 'dc1/z2': 0.25, 'dc2/z1': 0.5 })
  const unmarked = [instanceOf('nowhere/0'), ...group('dc1', 1)]
  t.strictSame(sharesOf(unmarked), { dc1: 1 }, 'no zone, but the datacenter')
})

t.test('below the threshold, a share spills over', async (t) => {
  const cases: [failed: [number, number, number], shares: [number, number, number]][] = [
    [[0, 0, 0], [1, 0, 0]],
    [[3, 0, 0], [1, 0, 0]], // 70 % are left: just enough
    [[4, 0, 0], [6 / 7, 1 / 7, 0]],
    [[5, 0, 0], [5 / 7, 2 / 7, 0]],
    [[9, 0, 0], [1 / 7, 6 / 7, 0]],
    [[10, 0, 0], [0, 1, 0]],
    [[5, 8, 0], [5 / 7, 2 / 7, 0]], // the datacenter has capacity for the rest only
    [[5, 9, 0], [5 / 7, 1 / 7, 1 / 7]],
    [[8, 9, 0], [2 / 7, 1 / 7, 4 / 7]],
    [[8, 9, 9], [2 / 4, 1 / 4, 1 / 4]], // the total capacity is too small: the deficit is shared
    [[9, 10, 10], [1, 0, 0]]
  ] // biome-ignore format: a table
  for (const [[inZone, inDatacenter, elsewhere], [zone, datacenter, rest]] of cases) {
    const all = [
      ...group('dc1/z1', 10, inZone),
      ...group('dc1/z2', 10, inDatacenter),
      ...group('dc2/z1', 10, elsewhere)
    ]
    const expected = { 'dc1/z1': round(zone), 'dc1/z2': round(datacenter), 'dc2/z1': round(rest) }
    const some = Object.fromEntries(Object.entries(expected).filter(([, share]) => share > 0))
    t.strictSame(sharesOf(all), some, `${inZone}, ${inDatacenter} and ${elsewhere} of 10 failed`)
  }
  const half = [...group('dc1/z1', 10, 5), ...group('dc2/z1', 2)]
  t.strictSame(sharesOf(half, here, { localThreshold: 0.5 }), { 'dc1/z1': 1 })
  t.strictSame(sharesOf(half, here, { localThreshold: 1 }), { 'dc1/z1': 0.5, 'dc2/z1': 0.5 })
  t.strictSame(
    sharesOf(half, here, { localThreshold: 0 }),
    { 'dc1/z1': 1 },
    'with a threshold of 0 %, no share spills over while a local instance is available'
  )
})

t.test('within a tier, instances are picked by weight, independent of the other tiers', async (t) => {
  const zone = [...group('dc1/z1', 1, 0, 3), ...group('dc1/z1b', 0), ...group('dc1/z1', 2, 1, 1).slice(1)]
  const rest = group('dc2/z1', 2, 0, 100)
  const policy = options({ locality: 'prefer', localThreshold: 1, panicThreshold: 0 })
  const { instances } = eligible([...zone, ...rest], policy, here, 0)
  t.strictSame(
    instances.map(({ weight }) => weight),
    [3, 1.5, 1.5],
    'with half of the zone available, half spills over and the nearest keep their weights'
  )
  t.equal(instances[0], zone[0])
  const drained = [...group('dc1/z1', 2, 0, 0), ...group('dc2/z1', 1)]
  t.strictSame(sharesOf(drained), { 'dc2/z1': 1 }, 'weight 0 gets no calls, even if near')
})

t.test('the rank of failover datacenters precedes the tier', async (t) => {
  const own = group('dc1/z1', 2, 1)
  const far = group('dc9/z1', 4).map((each) => ({ ...each, meta: { ...each.meta, 'failover-rank': '1' } }))
  t.strictSame(
    sharesOf([...own, ...far]),
    { 'dc1/z1': 1 },
    'nothing spills over while an instance of the first rank is available'
  )
  own[0]!.endpoint.health.obstruct('test', 'failed')
  t.strictSame(sharesOf([...own, ...far]), { 'dc9/z1': 1 })
})

t.test('every policy respects the shares', async (t) => {
  const all = [...group('dc1/z1', 10, 5), ...group('dc2/z1', 5)]
  const expected = [...new Array<number>(5).fill(1 / 7), ...new Array<number>(5).fill(2 / 35)]
  const keys = hashes(14_000)
  for (const policy of ['round-robin', 'least-request', 'random', 'ring-hash', 'maglev'] as const) {
    const balance = options({ policy, locality: 'prefer', panicThreshold: 0 })
    const { instances } = eligible(all, balance, here, 0)
    const balancer = createBalancer(balance, instances, { random: seeded(2), now: () => 0 })
    const seen = tally(
      instances,
      keys.map((hash) => balancer.pick(null, hash)!)
    )
    const nearby = seen.slice(0, 5).reduce((sum, count) => sum + count, 0) / keys.length
    t.ok(Math.abs(nearby - 5 / 7) < 0.03, `${policy}: ${nearby}`)
    // The 99.9th percentile for 9 degrees of freedom; a ring is not that even.
    if (policy !== 'ring-hash') t.ok(chiSquare(seen, expected) < 27.9, `${policy}: ${seen}`)
  }
})
