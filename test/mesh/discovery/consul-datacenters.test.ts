// slow: starts Consul
/** Two real datacenters, joined over WAN: a service fails over to the second, and back. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'
import type { Consul } from '../../helpers/consul.ts'
import { startConsul } from '../../helpers/consul.ts'
import { eventually } from '../../helpers/eventually.ts'
import { recording } from '../../helpers/mesh/sources.ts'
import { startMesh } from '../../helpers/mesh/start-mesh.ts'
import { freePorts, waitFor } from '../../helpers/processes.ts'

async function datacenter(t: Test, name: string) {
  const [http, dns, server, serfLan, serfWan] = (await freePorts(5)) as [number, number, number, number, number]
  const ports = { http, dns, server, serfLan }
  const own = { http, dns, server, serf_lan: serfLan, serf_wan: serfWan, grpc: -1 }
  const config = { datacenter: name, ports: own, node_meta: { zone: `${name}-a` } }
  const consul = await startConsul({ ports, config })
  t.teardown(consul.stop)
  return { consul, serfWan }
}

async function instance(t: Test, name: string) {
  const server = createServer((_request, response) => response.end(name))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return (server.address() as AddressInfo).port
}

const knows = async (consul: Consul) => String((await consul.api('GET', '/v1/catalog/datacenters')).body)

t.test('calls fail over to a joined datacenter and back, by the locality of the agent', async (t) => {
  const [one, two] = [await datacenter(t, 'dc1'), await datacenter(t, 'dc2')]
  const joined = await one.consul.api('PUT', `/v1/agent/join/127.0.0.1:${two.serfWan}?wan=1`)
  t.equal(joined.status, 200)
  await waitFor('both know each other', async () => (await knows(one.consul)) === 'dc1,dc2', 20_000)
  const [near, far] = [await instance(t, 'near'), await instance(t, 'far')]
  await one.consul.register({ id: 'web-1', name: 'web', port: near })
  await two.consul.register({ id: 'web-1', name: 'web', port: far, meta: { 'failover-rank': '0' } })

  const config = parseConfig(
    JSON.stringify({
      listen: { port: 8080 },
      discovery: { consul: { url: one.consul.url } },
      mesh: { balance: { policy: 'round-robin', locality: 'prefer' } },
      services: { web: { consul: { failover: ['dc2', 'dc9'] } } },
      routes: []
    }),
    `${import.meta.dirname}/gateway.yaml`,
    {}
  )
  const { surroundings, lines } = recording()
  const mesh = startMesh(config, { log: surroundings.log })
  t.teardown(() => mesh.close())
  const ask = async () => {
    const { body } = await mesh.request({ origin: 'http://web.mesh', path: '/', method: 'GET' })
    return body.text()
  }
  const responders = async () => new Set([await ask(), await ask(), await ask(), await ask()])
  await eventually(() => mesh.service('web').snapshot?.instances.length === 2)
  t.match(
    mesh.service('web').snapshot?.instances.map(({ id, meta }) => [id, meta]),
    [
      ['node1/web-1', { 'consul-dc': 'dc1', 'consul-zone': 'dc1-a' }],
      ['dc2/node1/web-1', { 'consul-dc': 'dc2', 'consul-zone': 'dc2-a', 'failover-rank': '1' }]
    ]
  )
  t.same(await responders(), new Set(['near']), 'the second is on standby')
  await eventually(() =>
    lines.some(({ message }) => message === 'locality of the gateway received from the Consul agent')
  )
  t.match(lines.find(({ message }) => message === 'locality of the gateway received from the Consul agent')?.fields, {
    datacenter: 'dc1',
    zone: 'dc1-a'
  })
  await eventually(() => mesh.status()[0]?.source.failover?.dc9 !== null)
  t.match(mesh.status()[0]?.source, { error: null, failover: { dc2: null, dc9: /No path to datacenter/ } })

  await one.consul.deregister('web-1')
  await eventually(() => mesh.service('web').snapshot?.instances.length === 1)
  t.same(await responders(), new Set(['far']))
  await one.consul.register({ id: 'web-2', name: 'web', port: near })
  await eventually(() => mesh.service('web').snapshot?.instances.length === 2)
  t.same(await responders(), new Set(['near']))

  // The second datacenter becomes unavailable; its last known instances are kept.
  await two.consul.kill()
  await eventually(() => mesh.status()[0]?.source.failover?.dc2 !== null, 'the failover', 60_000)
  t.equal(mesh.status()[0]?.source.error, null)
  t.same(await responders(), new Set(['near']))
  await one.consul.deregister('web-2')
  await eventually(() => mesh.service('web').snapshot?.instances.length === 1)
  t.same(await responders(), new Set(['far']), 'instances of a datacenter without Consul are still used')
})
