import t from 'tap'
import type { InstanceSpec } from '../../../plugins/mesh/core/types.ts'
import { backoff, discoveryCounters, messageOf, Publisher, pause } from '../../../plugins/mesh/discovery/loop.ts'
import { recording } from '../../helpers/mesh/sources.ts'

t.test('backoff: doubles from a quick first retry up to the cap, and is jittered from zero', async (t) => {
  const bounds = [1, 2, 3, 4, 5, 6, 7, 8, 1000].map((failures) => backoff(failures, () => 1))
  t.same(bounds, [200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000])
  t.equal(
    backoff(5, () => 0),
    0
  )
  t.equal(
    backoff(3, () => 0.5),
    400
  )
})

t.test('pause: ends at once when aborted', async (t) => {
  const abort = new AbortController()
  const begun = performance.now()
  setTimeout(() => abort.abort(), 20)
  await pause(60_000, abort.signal)
  await pause(60_000, abort.signal)
  t.ok(performance.now() - begun < 1000)
})

t.test('publisher: the first set always, then only changed sets', async (t) => {
  const published: number[] = []
  const { surroundings, counts } = recording()
  const counters = discoveryCounters(surroundings.meter)
  const publisher = new Publisher(
    (set) => published.push(set.length),
    () => counters.update('orders')
  )
  const one: InstanceSpec = { id: 'a', origin: 'http://a', weight: 1, tags: [], meta: {} }
  publisher.offer([])
  t.notOk(publisher.serving)
  publisher.offer([])
  publisher.offer([one])
  publisher.offer([{ ...one }])
  t.ok(publisher.serving)
  publisher.offer([{ ...one, weight: 2 }])
  t.same(published, [0, 1, 1])
  t.same(counts, { 'jingwei_mesh_discovery_updates_total{orders}': 3 })
  discoveryCounters(null).error('orders')
})

t.test('publisher: a restored set serves already, and the same set is not a change', async (t) => {
  const { surroundings, counts } = recording()
  const counters = discoveryCounters(surroundings.meter)
  const published: number[] = []
  const one: InstanceSpec = { id: 'a', origin: 'http://a', weight: 1, tags: [], meta: {} }
  const publisher = new Publisher(
    (set) => published.push(set.length),
    () => counters.update('orders'),
    [one]
  )
  t.ok(publisher.serving)
  publisher.offer([{ ...one }])
  t.same([published, counts], [[], {}])
  publisher.offer([one, { ...one, id: 'b' }])
  t.same(published, [2])
})

t.test('an error without a message is described by its code or name', async (t) => {
  t.equal(messageOf(Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' })), 'ECONNREFUSED')
  t.equal(messageOf(new TypeError('')), 'TypeError')
  t.equal(messageOf('plain'), 'plain')
})
