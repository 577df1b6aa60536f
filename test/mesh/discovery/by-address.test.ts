/** Instances are identified by their address, whichever source names it, and however often. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import type { DiscoveryOptions } from '../../../config/schema.ts'
import type { InstanceSpec } from '../../../plugins/mesh/core/types.ts'
import { byAddress } from '../../../plugins/mesh/discovery/by-address.ts'
import { createDiscovery } from '../../../plugins/mesh/discovery/index.ts'
import { meshOf } from '../../helpers/mesh/mesh.ts'
import type { Step } from '../../helpers/mesh/scripted-consul.ts'
import { hold, scripted } from '../../helpers/mesh/scripted-consul.ts'
import { upstream } from '../../helpers/mesh/servers.ts'
import { recording, service, watch } from '../../helpers/mesh/sources.ts'

const spec = (id: string, more: Partial<InstanceSpec> = {}): InstanceSpec => {
  return { id, origin: 'http://10.0.0.7:80', weight: 1, tags: [], meta: {}, ...more }
}

t.test('merged instances have the first id and meta, the largest weight and all tags', async (t) => {
  const a = spec('a', { weight: 2, tags: ['v1', 'x'], meta: { version: '1' } })
  const b = spec('b', { weight: 5, tags: ['x', 'v2'], meta: { version: '2', 'failover-rank': '1' } })
  const other = spec('c', { origin: 'http://10.0.0.8:80' })
  t.same(byAddress([a, other, b]), [{ ...a, weight: 5, tags: ['v1', 'x', 'v2'] }, other])
  const distinct = [a, other]
  t.equal(byAddress(distinct), distinct)
})

const entryOf = (node: string, id: string) => ({
  Node: { Node: node, Address: '10.0.0.1' },
  Service: { ID: id, Address: '10.0.0.7', Port: 80, Tags: [id] },
  Checks: []
})
const registrations = [entryOf('n1', 'web-1'), entryOf('n2', 'web-1'), entryOf('n1', 'web-2')]
const listing =
  (entries: object[]): Step =>
  (response) =>
    response.writeHead(200, { 'content-type': 'application/json', 'x-consul-index': '5' }).end(JSON.stringify(entries))

t.test('instances of Consul, failover datacenters and the snapshot are merged by address', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'jingwei-snapshot-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const listed = listing(registrations)
  const { url } = await scripted(t, [listed, listed, hold])
  const options: DiscoveryOptions = {
    consul: { url, wait: 60_000, maxStale: 1000 },
    snapshot: { path: join(folder, 'instances'), maxAge: 60_000 }
  }
  const web = service('web', { consul: { service: 'web', passingOnly: true, failover: ['dc2'] } })
  const discovery = createDiscovery(options, recording().surroundings)
  discovery.startWriting?.()
  const { until, sets } = watch(discovery.source(web))
  await until(['http://10.0.0.7'])
  t.match(sets.at(-1), [{ id: 'n1/web-1', weight: 1, tags: ['web-1', 'web-2'] }])
  t.equal(
    sets.at(-1)?.[0]?.meta['failover-rank'],
    undefined,
    'an instance of the first datacenter has no failover rank'
  )
  await discovery.close()

  const restarted = createDiscovery(options, recording().surroundings)
  t.teardown(() => restarted.close())
  await watch(restarted.source(web)).until(['http://10.0.0.7'])
})

t.test('a service with an address that is registered twice is one instance to its calls', async (t) => {
  const [twice, once] = [await upstream(t, 'twice'), await upstream(t, 'once')]
  const port = (at: string) => Number(new URL(at).port)
  const entry = (node: string, at: string) => ({
    Node: { Node: node, Address: '127.0.0.1' },
    Service: { ID: `web-${port(at)}`, Port: port(at) },
    Checks: []
  })
  const entries = [entry('n1', twice.url), entry('n2', twice.url), entry('n1', once.url)]
  const consul = await scripted(t, [listing(entries), hold])
  const discovery = createDiscovery(
    { consul: { url: consul.url, wait: 60_000, maxStale: 1000 } },
    recording().surroundings
  )
  const mesh = meshOf(t, [service('web')], { discovery })
  await mesh.ready()
  for (let i = 0; i < 10; i++) {
    const { body } = await mesh.request({ origin: 'http://web.mesh', path: '/', method: 'GET' })
    await body.dump()
  }
  t.same([twice.requests.length, once.requests.length], [5, 5])
  t.equal(mesh.service('web').instances.length, 2)
})
