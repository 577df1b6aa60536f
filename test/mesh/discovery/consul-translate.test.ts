import t from 'tap'
import type { TranslateOptions } from '../../../plugins/mesh/discovery/consul/translate.ts'
import { translate } from '../../../plugins/mesh/discovery/consul/translate.ts'

type Part = Record<string, unknown>
const all: TranslateOptions = { tags: [], passingOnly: false }
const entry = (service: Part = {}, checks: unknown = [], node: Part = {}) => ({
  Node: { Node: 'n1', Address: '10.0.0.1', Datacenter: 'dc1', ...node },
  Service: { ID: 'web-1', Service: 'web', Address: '10.0.0.7', Port: 8080, Tags: [], Meta: {}, ...service },
  Checks: checks
})
const check = (Status: unknown, CheckID: unknown = 'c') => ({ CheckID, Status })
const one = (given: unknown, options = all) => translate([given], options).instances[0]

t.test('a complete entry is translated', async (t) => {
  const given = entry({ Tags: ['v1', 'http'], Meta: { version: '2' }, Weights: { Passing: 7, Warning: 2 } })
  t.same(translate([given], { tags: ['http', 'v1'], passingOnly: true }), {
    instances: [
      {
        id: 'n1/web-1',
        origin: 'http://10.0.0.7:8080',
        weight: 7,
        tags: ['v1', 'http'],
        meta: { version: '2', 'consul-node': 'n1', 'consul-dc': 'dc1' }
      }
    ],
    listed: 1,
    skipped: 0
  })
})

t.test('address and scheme are taken from service, node, tags and meta', async (t) => {
  const table: [Part, Part, string][] = [
    [{ Address: '' }, {}, 'http://10.0.0.1:8080'],
    [{ Address: null }, { Address: 'fd00::1' }, 'http://[fd00::1]:8080'],
    [{ Address: 'FD00:0:0::7' }, {}, 'http://[fd00::7]:8080'],
    [{ Address: 'web.internal' }, {}, 'http://web.internal:8080'],
    [{ Meta: { scheme: 'https' } }, {}, 'https://10.0.0.7:8080'],
    [{ Tags: ['https'] }, {}, 'https://10.0.0.7:8080'],
    [{ Tags: ['https'], Meta: { scheme: 'http' } }, {}, 'http://10.0.0.7:8080']
  ]
  for (const [service, node, origin] of table) t.equal(one(entry(service, [], node))?.origin, origin)
})

t.test('the state of the checks decides about an instance', async (t) => {
  const weights = { Weights: { Passing: 10, Warning: 2 } }
  const table: [unknown, number | undefined, number | undefined][] = [
    [[], 10, 10],
    [null, 10, 10],
    [[check('passing')], 10, 10],
    [[check('passing'), check('warning')], undefined, 2],
    [[check('warning'), check('critical')], undefined, undefined],
    [[check('critical')], undefined, undefined],
    [[check('sideways')], undefined, undefined],
    [[check('passing', '_node_maintenance')], undefined, undefined],
    [[check('passing', '_service_maintenance:web-1')], undefined, undefined]
  ]
  for (const [checks, passingOnly, withWarning] of table) {
    const label = JSON.stringify(checks)
    t.equal(one(entry(weights, checks), { tags: [], passingOnly: true })?.weight, passingOnly, label)
    t.equal(one(entry(weights, checks))?.weight, withWarning, label)
  }
})

t.test('invalid weights count as 1', async (t) => {
  const table: [unknown, number][] = [
    [undefined, 1], [{}, 1], [{ Passing: 0 }, 0], [{ Passing: -1 }, 1], [{ Passing: 1.5 }, 1], [{ Passing: '9' }, 1],
    [{ Passing: 1e9 }, 65_535], ['x', 1]
  ] // biome-ignore format: a table
  for (const [Weights, weight] of table) t.equal(one(entry({ Weights }))?.weight, weight, JSON.stringify(Weights))
})

t.test('every configured tag is required', async (t) => {
  const given = entry({ Tags: ['a', 'b', 3] })
  t.same(one(given, { tags: ['b', 'a'], passingOnly: false })?.tags, ['a', 'b'])
  t.equal(one(given, { tags: ['a', 'c'], passingOnly: false }), undefined)
  t.equal(one(entry({ Tags: null }), { tags: ['a'], passingOnly: false }), undefined)
})

t.test('reserved keys and values other than text are removed from the meta', async (t) => {
  const Meta = { 'consul-node': 'forged', 'consul-zone': 'forged', n: 1, ok: 'yes' }
  const meta = one(entry({ Meta, Locality: { Region: 'eu', Zone: 'eu-1' } }))?.meta
  t.same(meta, { ok: 'yes', 'consul-node': 'n1', 'consul-dc': 'dc1', 'consul-region': 'eu', 'consul-zone': 'eu-1' })
  t.same(one(entry({ Meta: { 'consul-zone': 'forged' } }))?.meta, { 'consul-node': 'n1', 'consul-dc': 'dc1' })
  const hostile = one(entry({ Meta: JSON.parse('{"__proto__":"x"}') }))?.meta ?? {}
  t.equal(Object.getPrototypeOf(hostile), Object.prototype)
})

t.test('malformed entries are ignored, the others are not', async (t) => {
  const bad: unknown[] = [
    null, 7, 'x', [], {}, { Node: null, Service: null }, entry({ ID: '' }), entry({}, [], { Node: undefined }),
    entry({ Port: 0 }), entry({ Port: undefined }), entry({ Port: '80' }), entry({ Port: 70_000 }), entry({ Port: -1 }),
    entry({ Address: 'a/b' }), entry({ Address: 'u:p@a' }), entry({ Address: 'a b' }), entry({ Address: 'fe80::1%eth0' }),
    entry({ Address: 'a?x' }), entry({ Address: '' }, [], { Address: '' }), entry({ Address: '300.1.1.1' }),
    entry({}, 'checks')
  ] // biome-ignore format: a table
  const { instances, listed, skipped } = translate([...bad, entry(), entry({ Port: 1 })], all)
  t.same(
    instances.map(({ origin }) => origin),
    ['http://10.0.0.7:8080'],
    'an id that is listed twice counts once'
  )
  t.equal(skipped, bad.length + 1)
  t.equal(listed, bad.length + 2)
  for (const body of [null, undefined, {}, 'x', 3]) t.throws(() => translate(body, all), /not a list of instances/)
})

t.test('sorted by id; the same service id on two nodes is two instances', async (t) => {
  const given = [entry({}, [], { Node: 'n2' }), entry({ ID: 'web-2' }), entry()]
  const ids = ['n1/web-1', 'n1/web-2', 'n2/web-1']
  t.same(
    translate(given, all).instances.map(({ id }) => id),
    ids
  )
  t.same(
    translate(given.reverse(), all).instances.map(({ id }) => id),
    ids
  )
})

t.test('the zone is that of the locality, else of the node, else of the service', async (t) => {
  const zone = (service: Part, node: Part) => one(entry(service, [], node))?.meta['consul-zone']
  const [inService, inNode] = [{ Meta: { zone: 'c' } }, { Meta: { zone: 'b' } }]
  t.equal(zone({ ...inService, Locality: { Region: 'r', Zone: 'a' } }, inNode), 'a')
  t.equal(zone({ ...inService, Locality: { Region: 'r' } }, inNode), 'b')
  t.equal(zone(inService, { Meta: { zone: '' } }), 'c')
  t.equal(zone({}, { Meta: { zone: 7 } }), undefined)
})

t.test('a service cannot set the rank of its failover datacenter', async (t) => {
  const forged = entry({ Meta: { 'failover-rank': '1' } }, [], { Datacenter: 'dc2' })
  t.equal(one(forged)?.meta['failover-rank'], undefined)
  const found = one(forged, { ...all, failover: { datacenter: 'dc2', rank: 2 } })
  t.match(found, { id: 'dc2/n1/web-1', meta: { 'failover-rank': '2', 'consul-dc': 'dc2' } })
})
