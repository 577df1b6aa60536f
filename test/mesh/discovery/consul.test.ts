// slow: takes about 10 s
/** The query loop against a scripted Consul, for responses that a real one gives rarely. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { consulTiming } from '../../../plugins/mesh/discovery/consul/source.ts'
import { createDiscovery } from '../../../plugins/mesh/discovery/index.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Step } from '../../helpers/mesh/scripted-consul.ts'
import { closeConnection, hold, origin, respond, scripted, status } from '../../helpers/mesh/scripted-consul.ts'
import { recording, service, watch } from '../../helpers/mesh/sources.ts'

// Each test has a Consul of its own and is idle most of the time, so tests run in parallel.
t.jobs = 8

t.test('the source queries as configured, blocks by index, and publishes only changes', async (t) => {
  const steps = [respond(5, [1]), respond(6, [1]), respond('18446744073709551615', [1, 2]), hold]
  const options = { token: 'secret', datacenter: 'dc1', namespace: 'team' }
  const { open, seen, counts } = await scripted(t, steps, options)
  const { sets, until, source } = open(service('web', { consul: { service: 'web/v2', passingOnly: true } }))
  await until([origin(1), origin(2)])
  await eventually(() => seen.length === 4)
  t.equal(sets.length, 2)
  t.equal(seen[0]?.path, '/v1/health/service/web%2Fv2')
  t.same(seen[0]?.query, { dc: 'dc1', stale: '1' })
  t.same(seen[1]?.query, { dc: 'dc1', stale: '1', index: '5', wait: '60000ms' })
  t.equal(seen[3]?.query.index, '18446744073709551615', 'an index is not rounded to a double')
  t.match(seen[3]?.headers, { 'x-consul-token': 'secret', 'x-consul-namespace': 'team' })
  t.match(source.status(), { kind: 'consul', confirmedAt: Number, error: null })
  t.same(counts, {
    'jingwei_mesh_discovery_updates_total{web}': 2,
    'jingwei_mesh_discovery_errors_total{web}': 0,
    'jingwei_mesh_discovery_index_resets_total{web}': 0
  })
})

t.test('the URL of Consul can have an IPv6 address and a path', async (t) => {
  const paths: unknown[] = []
  const server = createServer((request, response) => {
    paths.push(request.url)
    respond(null, [1])(response, request)
  })
  await new Promise<void>((resolve) => server.listen(0, '::1', resolve))
  const { surroundings } = recording()
  const url = `http://[::1]:${(server.address() as AddressInfo).port}/consul/`
  const discovery = createDiscovery({ consul: { url, wait: 1000, maxStale: 1000 } }, surroundings)
  t.teardown(async () => {
    await discovery.close()
    server.close()
  })
  await watch(discovery.source(service('web'))).until([origin(1)])
  t.equal(paths[0], '/consul/v1/health/service/web?stale=1')
})

t.test('the datacenter of the service has precedence', async (t) => {
  const { open, seen } = await scripted(t, [hold], { datacenter: 'dc1' })
  open(service('web', { consul: { datacenter: 'dc2', passingOnly: true } }))
  await eventually(() => seen.length === 1)
  t.equal(seen[0]?.query.dc, 'dc2')
})

t.test('an index that goes backwards is reset', async (t) => {
  const { open, seen, counts } = await scripted(t, [respond(50, [1]), respond(7, [2]), respond(8, [2]), hold])
  const { until } = open(service('web'))
  await until([origin(2)])
  await eventually(() => seen.length === 4)
  t.same(
    seen.map(({ query }) => query.index),
    [undefined, '50', undefined, '8']
  )
  t.equal(counts['jingwei_mesh_discovery_index_resets_total{web}'], 1)
})

for (const index of [null, 0, '-3', 'x']) {
  t.test(`with index ${index}, the source polls at an interval`, async (t) => {
    const { open, seen } = await scripted(t, [respond(index, [1])], {}, { burst: 3, interval: 300 })
    const { until, sets } = open(service('web'))
    await until([origin(1)])
    await sleep(700)
    t.ok(seen.length >= 4 && seen.length <= 6, `${seen.length} questions`)
    t.ok(seen.every(({ query }) => query.index === undefined))
    t.equal(sets.length, 1)
  })
}

t.test('a server that does not hold blocking queries is queried at the steady rate only', async (t) => {
  const { open, seen } = await scripted(t, [respond(9, [1])], {}, { burst: 3, interval: 300 })
  open(service('web'))
  await eventually(() => seen.length === 3)
  await sleep(500)
  t.ok(seen.length <= 5, `${seen.length} questions`)
})

t.test('errors of every kind keep the set, and the queries continue', async (t) => {
  const broken: Step = (response) => response.writeHead(200, { 'content-type': 'application/json' }).end('[{')
  const noList: Step = (response) => response.writeHead(200, { 'content-type': 'application/json' }).end('{"a":1}')
  const empty: Step = (response) => response.writeHead(200).end()
  const faults = [status(400, 'bad'), status(500, 'No cluster leader'), closeConnection, broken, noList, empty]
  const { open, seen, lines, counts } = await scripted(
    t,
    [respond(5, [1]), ...faults, respond(6, [2]), hold],
    {},
    { burst: 20, backoff: 20 }
  )
  const { until, sets, source } = open(service('web'))
  await eventually(() => source.status().error === 'Consul responded with 500: No cluster leader')
  t.match(source.status(), { confirmedAt: Number })
  await until([origin(2)], 30_000)
  await eventually(() => seen.length === 9)
  t.same(
    sets.map((set) => set.length),
    [1, 1]
  )
  t.equal(seen[2]?.query.index, undefined, 'the first query after an error does not block')
  t.same(
    lines.map(({ level, message }) => `${level} ${message.split(';')[0]}`),
    ['warn Consul unavailable', 'info Consul available again']
  )
  t.equal(counts['jingwei_mesh_discovery_errors_total{web}'], faults.length)
  t.equal(source.status().error, null)
})

t.test('a connection closed after the header section is noticed long before the wait ends', async (t) => {
  const half: Step = (response) => {
    response.writeHead(200, { 'content-length': '100', 'x-consul-index': '6' }).write('[')
    setTimeout(() => response.destroy(), 50)
  }
  const { open } = await scripted(t, [respond(5, [1]), half, respond(7, [2]), hold])
  await open(service('web')).until([origin(2)], 15_000)
})

t.test('responses without a leader, or too stale, are ignored', async (t) => {
  const lost = respond(6, [], { 'x-consul-knownleader': 'false' })
  const stale = respond(6, [], { 'x-consul-lastcontact': '1001' })
  const fresh = respond(6, [2], { 'x-consul-lastcontact': '1000' })
  const { open, counts } = await scripted(t, [respond(5, [1]), lost, stale, fresh, hold])
  const { until, sets } = open(service('web'))
  await until([origin(2)])
  t.same(
    sets.map((set) => set.length),
    [1, 1]
  )
  t.equal(counts['jingwei_mesh_discovery_errors_total{web}'], 2)
})

t.test('the last instance is removed while Consul is healthy: published at once', async (t) => {
  const { open } = await scripted(t, [respond(5, [1]), respond(6, []), hold])
  const { until, sets } = open(service('web'))
  await until([], 1000)
  t.equal(sets.length, 2)
})

t.test('the first response is published even when empty', async (t) => {
  const { open } = await scripted(t, [closeConnection, respond(6, []), hold])
  const { until } = open(service('web'))
  await until([], 2000)
})

t.test('empty after an outage: the set is kept, and instances that return are never removed', async (t) => {
  const { open, seen } = await scripted(t, [respond(5, [1]), closeConnection, respond(3, []), respond(4, [1, 2]), hold])
  const { until, sets } = open(service('web'))
  await until([origin(1), origin(2)])
  t.same(
    sets.map((set) => set.length),
    [1, 2]
  )
  await eventually(() => seen.length === 5)
  t.ok(
    Number.parseInt(seen[3]?.query.wait ?? '', 10) <= consulTiming.emptyGrace,
    'blocking queries are short until the response is confirmed'
  )
  t.equal(seen[4]?.query.wait, '60000ms')
})

for (const [name, steps] of [
  ['after an outage', [respond(5, [1]), closeConnection, respond(3, [])]],
  ['after an index that went backwards', [respond(5, [1]), respond(3, [])]]
] as const) {
  t.test(`empty ${name}: accepted when it persists`, async (t) => {
    const { open, seen } = await scripted(t, [...steps], {}, { emptyGrace: 600, interval: 100 })
    const { until, sets, source } = open(service('web'))
    await eventually(() => seen.length > steps.length)
    await sleep(200)
    t.equal(sets.length, 1)
    t.match(source.status().error, /no instance/)
    await until([])
    const first = seen[steps.length - 1]?.at ?? 0
    t.ok(performance.now() - first >= 600)
    t.equal(source.status().error, null)
  })
}

const noUse: Step = (response) => {
  response.writeHead(200, {
    'content-type': 'application/json',
    'x-consul-index': '6',
    'x-consul-knownleader': 'true',
    'x-consul-lastcontact': '0'
  })
  response.end(JSON.stringify([{ Node: { Node: 'n1', Address: '127.0.0.1' }, Service: { ID: 'web', Port: 0 } }]))
}
for (const [name, step] of [
  ['with index 0', respond(0, [])],
  ['without an index', respond(null, [])],
  ['with a malformed index', respond('x', [])],
  ['with the index of the previous response', respond(5, [])],
  ['since no entry made sense', noUse]
] as const) {
  t.test(
    `empty ${name}, after a good response: the set is kept, and instances that return are never removed`,
    async (t) => {
      const { open, seen } = await scripted(
        t,
        [respond(5, [1]), step, step, respond(8, [1, 2]), hold],
        {},
        { interval: 100 }
      )
      const { until, sets } = open(service('web'))
      await until([origin(1), origin(2)])
      t.same(
        sets.map((set) => set.length),
        [1, 2]
      )
      await eventually(() => seen.length === 5)
      t.equal(seen[4]?.query.wait, '60000ms')
    }
  )

  t.test(`empty ${name}: accepted when it persists`, async (t) => {
    const { open, seen } = await scripted(t, [respond(5, [1]), step], {}, { emptyGrace: 600, interval: 100 })
    const { until, sets, source } = open(service('web'))
    await eventually(() => /no instance/.test(source.status().error ?? ''))
    t.equal(sets.length, 1)
    await until([])
    t.ok(performance.now() - (seen[1]?.at ?? 0) >= 600)
    t.equal(source.status().error, null)
  })
}

t.test('an outage while an empty response is being confirmed restarts the period', async (t) => {
  const steps = [
    respond(5, [1]),
    closeConnection,
    respond(3, []),
    closeConnection,
    respond(3, [1]),
    respond(4, []),
    hold
  ]
  const { open, seen } = await scripted(t, steps, {}, { emptyGrace: 2000, backoff: 20 })
  const { sets } = open(service('web'))
  await eventually(() => seen.length === steps.length)
  t.equal(sets.length, 1, 'checks that are critical for a moment after a restart remove no instance')
})

t.test('a refused token is shown and logged once, and the set is kept', async (t) => {
  const denied = status(403, 'Permission denied')
  const { open, lines } = await scripted(t, [respond(5, [1]), denied, denied, denied, respond(6, [2]), hold])
  const { until, source } = open(service('web'))
  await eventually(() => /403: Permission denied.*service:read.*node:read/.test(source.status().error ?? ''))
  await until([origin(2)])
  t.same(
    lines.map(({ level, message }) => `${level} ${message}`),
    [
      'warn Consul refuses to list instances: the token needs service:read on the services and node:read on their nodes',
      'info Consul accepts the token again'
    ]
  )
})

t.test('an empty list that was filtered by ACLs is ignored', async (t) => {
  const filtered = respond(6, [], { 'x-consul-results-filtered-by-acls': 'true' })
  const { open, lines } = await scripted(t, [respond(5, [1]), filtered, filtered, respond(7, [2]), hold])
  const { until, sets } = open(service('web'))
  await until([origin(2)])
  t.equal(sets.length, 2)
  t.same(
    lines.map(({ level }) => level),
    ['warn', 'info']
  )
})

t.test(
  'for several services, one line is logged when Consul is unavailable, and one when it is available again',
  async (t) => {
    let away = false
    const { open, lines } = await scripted(t, [
      (response, request) => {
        if (away) return response.destroy()
        if (request.url?.includes('index=')) return setTimeout(() => response.destroy(), away ? 0 : 300)
        return respond(5, [1])(response, request)
      }
    ])
    const watches = ['a', 'b', 'c'].map((name) => open(service(name)))
    await Promise.all(watches.map(({ until }) => until([origin(1)])))
    away = true
    await eventually(() => watches.every(({ source }) => source.status().error !== null))
    away = false
    await eventually(() => watches.every(({ source }) => source.status().error === null))
    const [first, second] = lines
    t.match(first, { level: 'warn', message: /unavailable/, fields: { url: /^http:/ } })
    t.match(second, { level: 'info', message: /available again/ })
  }
)

t.test('Consul unavailable: the line differs with and without known instances', async (t) => {
  const never = await scripted(t, [closeConnection])
  const { source } = never.open(service('web'))
  await eventually(() => source.status().error !== null)
  t.equal(
    never.lines[0]?.message,
    'Consul unavailable; services without known instances respond with 503 until Consul is available'
  )
  const once = await scripted(t, [respond(5, [1]), closeConnection])
  once.open(service('web'))
  await eventually(() => once.lines.length > 0)
  t.equal(once.lines[0]?.message, 'Consul unavailable; services keep the instances last known')
})

t.test('entries without a port are reported once', async (t) => {
  const { open, lines, seen } = await scripted(t, [respond(5, [0, 1]), respond(6, [0, 2]), hold])
  const { until } = open(service('web'))
  await until([origin(2)])
  await eventually(() => seen.length === 3)
  t.equal(lines.length, 1)
})

t.test('close: the query is cancelled and no socket stays open', async (t) => {
  const { open, seen, sockets, client, lines } = await scripted(t, [respond(5, [1]), hold])
  const { source } = open(service('web'))
  const backingOff = open(service('other'))
  await eventually(() => seen.length >= 3)
  await Promise.all([source.close(), backingOff.source.close(), source.close()])
  client.close()
  await eventually(() => sockets.size === 0, 'the end of the connections', 2000)
  t.same(lines, [], 'closing logs no error')
  t.equal(source.status().error, null)
})

const restored = (port: number) => [{ id: `n1/web-${port}`, origin: origin(port), weight: 1, tags: [], meta: {} }]

t.test('restored instances: an empty response must persist before it is accepted', async (t) => {
  const { open, seen } = await scripted(t, [respond(5, [])], {}, { emptyGrace: 600, interval: 100 })
  const { until, sets, source } = open(service('web'), restored(1))
  await eventually(() => seen.length >= 2)
  t.same(sets, [])
  t.match(source.status(), { confirmedAt: null, error: /no instance/ })
  await until([])
  t.ok(performance.now() - seen[0]!.at >= 600)
  t.match(source.status(), { confirmedAt: Number, error: null })
})

t.test('restored instances: those that return after an empty response are never missed', async (t) => {
  const { open } = await scripted(t, [closeConnection, respond(5, []), respond(6, [1, 2]), hold])
  const { until, sets } = open(service('web'), restored(1))
  await until([origin(1), origin(2)])
  t.equal(sets.length, 1)
})

t.test('restored instances: the same set is a confirmation, not a change', async (t) => {
  const { open, seen, counts } = await scripted(t, [respond(5, [1]), hold])
  const meta = { 'consul-node': 'n1' }
  const { sets, source } = open(service('web'), [{ ...restored(1)[0]!, meta }])
  await eventually(() => seen.length === 2)
  t.same(sets, [])
  t.equal(counts['jingwei_mesh_discovery_updates_total{web}'], 0)
  t.match(source.status(), { confirmedAt: Number, error: null })
})
