/** Several datacenters as one set: by hand, and against a scripted Consul. */
import t from 'tap'
import type { InstanceSpec, SourceStatus } from '../../../plugins/mesh/core/types.ts'
import { FailoverSource } from '../../../plugins/mesh/discovery/consul/failover.ts'
import { createDiscovery } from '../../../plugins/mesh/discovery/index.ts'
import type { Publish, Restorable } from '../../../plugins/mesh/discovery/loop.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Step } from '../../helpers/mesh/scripted-consul.ts'
import { hold, origin, respond, scripted, status } from '../../helpers/mesh/scripted-consul.ts'
import { service, watch } from '../../helpers/mesh/sources.ts'

class ByHand implements Restorable {
  publish: Publish = () => {}
  restored: readonly InstanceSpec[] | undefined
  confirmedAt: number | null = null
  error: string | null = null
  closed = false
  start(publish: Publish, restored?: readonly InstanceSpec[]): void {
    this.publish = publish
    this.restored = restored
  }
  status(): SourceStatus {
    return { kind: 'consul', confirmedAt: this.confirmedAt, error: this.error }
  }
  async close(): Promise<void> {
    this.closed = true
  }
}

const one = (id: string, rank?: number): InstanceSpec => {
  const meta: Record<string, string> = rank === undefined ? {} : { 'failover-rank': String(rank) }
  return { id, origin: `http://${id.replaceAll('/', '.')}`, weight: 1, tags: [], meta }
}

function three(headStart = 60_000, restored?: readonly InstanceSpec[]) {
  const [primary, second, third] = [new ByHand(), new ByHand(), new ByHand()]
  const others = [
    { datacenter: 'dc2', source: second },
    { datacenter: 'dc3', source: third }
  ]
  const source = new FailoverSource(primary, others, { headStart })
  return { primary, second, third, source, ...watch(source, restored) }
}
const ids = (set: readonly InstanceSpec[] | undefined) => set?.map(({ id }) => id)

t.test('the set has the instances in the order of the datacenters', async (t) => {
  const { primary, second, third, source, sets } = three()
  t.teardown(() => source.close())
  third.publish([one('c', 2)])
  second.publish([one('b', 1)])
  t.same(sets, [], 'the first datacenter has a head start')
  t.equal(source.status().confirmedAt, null)
  primary.publish([one('a')])
  t.same(ids(sets.at(-1)), ['a', 'b', 'c'])
  primary.publish([])
  t.same(ids(sets.at(-1)), ['b', 'c'])
  second.publish([one('b', 1), one('c', 1)])
  t.same(ids(sets.at(-1)), ['b', 'c'], 'each id is listed once')
  t.equal(sets.at(-1)?.[1]?.meta['failover-rank'], '1')
  primary.confirmedAt = 7
  second.confirmedAt = 5
  third.error = 'No path to datacenter'
  t.match(source.status(), {
    kind: 'consul',
    confirmedAt: 7,
    error: null,
    failover: { dc2: null, dc3: 'No path to datacenter' }
  })
})

t.test('a first datacenter that never responds delays the set only briefly', async (t) => {
  const { primary, second, source, sets } = three(50)
  second.publish([one('b', 1)])
  second.confirmedAt = 5
  primary.error = 'No path to datacenter'
  await eventually(() => sets.length === 1)
  t.same(ids(sets[0]), ['b'])
  t.match(source.status(), { confirmedAt: 5, error: 'No path to datacenter' })
  primary.publish([one('a')])
  t.same(ids(sets.at(-1)), ['a', 'b'])
  await source.close()
  t.ok(primary.closed && second.closed)
})

t.test('nothing is published when the head start ends without any response', async (t) => {
  const { primary, second, source, sets } = three(20)
  t.teardown(() => source.close())
  await new Promise((resolve) => setTimeout(resolve, 60))
  t.same(sets, [])
  second.publish([one('b', 1)])
  t.same(ids(sets[0]), ['b'])
  primary.publish([])
  t.same(ids(sets.at(-1)), ['b'])
})

t.test('restored instances return to their datacenter, unconfirmed until the first one responds', async (t) => {
  const { primary, second, third, source, sets } = three(60_000, [one('a'), one('b', 1)])
  t.teardown(() => source.close())
  t.same(
    [primary, second, third].map(({ restored }) => ids(restored)),
    [['a'], ['b'], []]
  )
  second.publish([one('b', 1), one('b2', 1)])
  second.confirmedAt = 5
  t.same(ids(sets.at(-1)), ['a', 'b', 'b2'])
  t.equal(source.status().confirmedAt, null)
})

t.test('Consul is queried for each datacenter by name, with ranks in the meta; a failed one is reported', async (t) => {
  const byDatacenter: Record<string, Step> = { dc1: respond(5, [1]), dc2: respond(6, [1, 2]) }
  const step: Step = (response, request) => {
    const query = new URL(request.url!, 'http://x').searchParams
    const dc = query.get('dc')!
    if (dc === 'dc3') return status(500, 'No path to datacenter')(response, request)
    return (query.has('index') ? hold : byDatacenter[dc]!)(response, request)
  }
  const { url, seen, surroundings, lines } = await scripted(t, [step])
  const discovery = createDiscovery({ consul: { url, wait: 60_000, maxStale: 1000, datacenter: 'dc1' } }, surroundings)
  t.teardown(() => discovery.close())
  const source = discovery.source(service('web', { consul: { failover: ['dc2', 'dc3'], passingOnly: true } }))
  const { until, sets } = watch(source)
  await until([origin(1), origin(2)])
  t.match(
    sets.at(-1)?.map(({ id, meta }) => [id, meta['failover-rank']]),
    [
      ['n1/web-1', undefined],
      ['dc2/n1/web-2', '1']
    ],
    'an address that both list is an instance of the first'
  )
  await eventually(() => source.status().failover?.dc3 !== null)
  t.match(source.status(), { error: null, failover: { dc2: null, dc3: /No path/ } })
  await eventually(() => seen.filter(({ query }) => query.dc === 'dc3').length > 2)
  t.match(lines, [{ level: 'warn', fields: { datacenter: 'dc3', service: 'web' }, message: /Consul unavailable/ }])
  t.equal(lines.length, 1)
})
