/** The gateway's locality, and its use by the balancer as soon as it is known. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import type { DiscoveryOptions } from '../../../config/schema.ts'
import { localityOf, OwnLocality } from '../../../plugins/mesh/discovery/locality.ts'
import { eventually } from '../../helpers/eventually.ts'
import { byHand } from '../../helpers/mesh/discovery.ts'
import { service } from '../../helpers/mesh/mesh.ts'
import { recording } from '../../helpers/mesh/sources.ts'
import { startMesh } from '../../helpers/mesh/start-mesh.ts'

const self = { Config: { Datacenter: 'dc1' }, Meta: { zone: 'a' } }

async function agent(t: Test, responseTo: (requests: number) => [status: number, body: string]) {
  const requests: (string | undefined)[] = []
  const server = createServer((request, response) => {
    requests.push(request.url)
    const [status, body] = responseTo(requests.length)
    response.writeHead(status).end(body)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return { requests, consul: { url, wait: 1000, maxStale: 1000 } }
}

function own(t: Test, options: DiscoveryOptions, wanted = true) {
  const { surroundings, lines } = recording()
  let known = 0
  // Retries almost without a pause.
  const locality = new OwnLocality(options, { ...surroundings, random: () => 0.01 }, () => known++)
  t.teardown(() => locality.close())
  locality.start(wanted)
  return { locality, lines, known: () => known }
}

t.test("an agent's description of itself", async (t) => {
  t.same(localityOf(self), { datacenter: 'dc1', zone: 'a' })
  t.same(localityOf({ ...self, DebugConfig: { Locality: { Region: 'r', Zone: 'b' } } }), {
    datacenter: 'dc1',
    zone: 'b'
  })
  t.same(localityOf({ Config: { Datacenter: 'dc1' }, Meta: { zone: '' } }), { datacenter: 'dc1', zone: null })
  for (const odd of [null, [], 'x', { Config: 7, Meta: null, DebugConfig: { Locality: null } }]) {
    t.same(localityOf(odd), { datacenter: null, zone: null })
  }
})

t.test('the agent is queried until it responds, and the failure is logged once', async (t) => {
  const { requests, consul } = await agent(t, (count) => (count < 4 ? [500, 'not yet'] : [200, JSON.stringify(self)]))
  const { locality, lines, known } = own(t, { consul })
  t.same(locality.current, { datacenter: null, zone: null }, 'the start does not wait for the agent')
  await eventually(() => known() === 1)
  t.same(locality.current, { datacenter: 'dc1', zone: 'a' })
  t.same(requests[0]?.split('?')[0], '/v1/agent/self')
  t.match(lines, [
    { level: 'warn', fields: { err: { message: 'Consul responded with 500: not yet' } } },
    { level: 'info', fields: { datacenter: 'dc1', zone: 'a' } }
  ])
})

t.test('a token without the right: the log names the remedy', async (t) => {
  const { requests, consul } = await agent(t, () => [403, 'Permission denied'])
  const { lines } = own(t, { consul })
  await eventually(() => requests.length > 2)
  t.match(lines, [{ level: 'warn', fields: { err: { message: /agent:read, or set discovery\.locality/ } } }])
  t.equal(lines.length, 1)
})

t.test('a configured locality wins, and the agent is queried only if needed', async (t) => {
  const { requests, consul } = await agent(t, () => [200, JSON.stringify(self)])
  const both = own(t, { consul, locality: { datacenter: 'x', zone: 'y' } })
  const unwanted = own(t, { consul }, false)
  const without = own(t, { locality: { zone: 'y' } })
  const zone = own(t, { consul, locality: { zone: 'y' } })
  await eventually(() => zone.known() === 1)
  t.same(zone.locality.current, { datacenter: 'dc1', zone: 'y' })
  t.same(both.locality.current, { datacenter: 'x', zone: 'y' })
  t.same(unwanted.locality.current, { datacenter: null, zone: null })
  t.same(without.locality.current, { datacenter: null, zone: 'y' })
  t.equal(requests.length, 1)
})

t.test('closed during a query and during a pause', async (t) => {
  const { requests, consul } = await agent(t, () => [500, 'no'])
  const { surroundings } = recording()
  const locality = new OwnLocality({ consul }, { ...surroundings, random: () => 0.9 }, () => {})
  locality.start(true)
  await eventually(() => requests.length === 1)
  await new Promise((resolve) => setTimeout(resolve, 50))
  await locality.close()
  const early = new OwnLocality({ consul }, surroundings, () => {})
  early.start(true)
  await early.close()
  t.ok(requests.length <= 2)
})

t.test('the mesh rebuilds its balancers when its locality is known', async (t) => {
  const gate = Promise.withResolvers<void>()
  const server = createServer((_request, response) => {
    void gate.promise.then(() => response.end(JSON.stringify(self)))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  const { discovery } = byHand()
  const places = ['a', 'b', 'a', 'c']
  const source = discovery.source
  discovery.source = (config) => ({
    ...source(config),
    start: (publish) =>
      publish(
        places.map((zone, i) => {
          const origin = `http://127.0.0.1:${i + 1}`
          return { id: origin, origin, weight: 1, tags: [], meta: { 'consul-dc': 'dc1', 'consul-zone': zone } }
        })
      )
  })
  const balance = {
    policy: 'round-robin',
    choices: 2,
    ringSize: 1024,
    tableSize: 65_537,
    decay: 10_000,
    panicThreshold: 0.5,
    locality: 'prefer',
    localThreshold: 0.7
  } as const
  const consul = { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, wait: 1000, maxStale: 1000 }
  const services = { web: service('web', ['http://127.0.0.1:1'], { balance }) }
  const mesh = startMesh({ services, discovery: { consul } }, { discovery })
  t.teardown(() => mesh.close())
  const picked = () => {
    const balancer = mesh.service('web').snapshot!.balancers['']!
    return new Set(Array.from({ length: 20 }, () => balancer.pick(null)?.meta['consul-zone']))
  }
  t.same(picked(), new Set(['a', 'b', 'c']), 'all instances while the locality is unknown')
  gate.resolve()
  await eventually(() => picked().size === 1)
  t.same(picked(), new Set(['a']))
})
