// slow: starts Consul and Redis
import t from 'tap'
import { ConfigError } from '../../../app.ts'
import { startConsul } from '../../helpers/consul.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { RunningGateway } from '../../helpers/gateway.ts'
import { configOf, gatewayBefore, get, startEcho } from '../../helpers/gateway.ts'
import { startRedis } from '../../helpers/redis.ts'

/** Returns the number of nodes in the gateway's metrics. */
async function nodesOf({ server }: RunningGateway): Promise<number> {
  return Number(/^jingwei_edge_nodes (\d+)$/m.exec(await server.metrics.metrics())?.[1])
}

async function statuses({ port }: RunningGateway, count: number): Promise<number[]> {
  const all: number[] = []
  for (let i = 0; i < count; i++) all.push((await get(port, '/')).status)
  return all
}

const check = { TTL: '10m', Status: 'passing' }

t.test('without Redis, the limit is divided by the nodes that Consul lists', async (t) => {
  const consul = await startConsul()
  t.teardown(() => consul.stop())
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const service = await startEcho()
  t.teardown(service.close)
  for (const [id, port] of [
    ['a', 1],
    ['b', 2],
    ['c', 3]
  ] as const) {
    await consul.register({ id, name: 'gateway', port, check })
  }
  const gateway = await gatewayBefore(t, service.url, {
    admin: { port: 0 },
    discovery: { consul: { url: consul.url } },
    redis: { url: redis.url, timeout: '2s' },
    services: { gateway: {}, any: { instances: [service.url] } },
    edge: { gatewayNodes: 'gateway', rateLimit: { max: 12, window: '1h', store: 'redis' } }
  })
  await eventually(async () => (await nodesOf(gateway)) === 3, 'three nodes')
  const { metrics } = gateway.server
  await eventually(async () => (await metrics.metrics()).includes('jingwei_edge_redis_nodes 1\n'), 'Redis')
  await redis.stop()
  await eventually(async () => (await metrics.metrics()).includes('jingwei_edge_redis_up 0\n'), 'the outage')
  t.same(await statuses(gateway, 5), [200, 200, 200, 200, 429], 'a third, although Redis knew one node only')

  await consul.setCheck('service:b', 'critical')
  await eventually(async () => (await nodesOf(gateway)) === 2, 'a node whose check fails')
  t.same(await statuses(gateway, 3), [200, 200, 429], 'half of the limit')
  await consul.deregister('a')
  await eventually(async () => (await nodesOf(gateway)) === 1, 'a node that left')
  await consul.deregister('c')
  await consul.register({ id: 'd', name: 'gateway', port: 4, check })
  await consul.register({ id: 'e', name: 'gateway', port: 5, check })
  await eventually(async () => (await nodesOf(gateway)) === 2, 'new nodes')
  const listed = () => gateway.server.mesh.service('gateway').instances.length
  await consul.deregister('d')
  await eventually(async () => (await nodesOf(gateway)) === 1, 'the last node')
  await consul.deregister('e')
  await eventually(() => listed() === 0, 'an empty list')
  t.equal(await nodesOf(gateway), 1, 'the last number stays')
  await consul.register({ id: 'a', name: 'gateway', port: 1, check })
  await consul.register({ id: 'c', name: 'gateway', port: 3, check })
  await eventually(async () => (await nodesOf(gateway)) === 2, 'nodes again')
  await consul.kill()
  t.equal(await nodesOf(gateway), 2, 'the last number stays while Consul is unavailable')
})

t.test('a fixed number of nodes, also for a node that has never reached Redis', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const gateway = await gatewayBefore(t, service.url, {
    admin: { port: 0 },
    redis: { url: 'redis://127.0.0.1:1' },
    edge: { gatewayNodes: 4, rateLimit: { max: 8, window: '1h', store: 'redis' } }
  })
  t.same(await statuses(gateway, 3), [200, 200, 429])
  t.equal(await nodesOf(gateway), 4)
})

t.test('a service that is not configured is a fault', async (t) => {
  const services = { gateway: { instances: ['http://127.0.0.1:1'] } }
  const routes = [{ name: 'all', match: { path: '/' }, service: 'gateway' }]
  const faults = (gatewayNodes: string) => () => configOf({ services, routes, edge: { gatewayNodes } })
  t.throws(faults('gatewy'), { message: /edge\.gatewayNodes: unknown service "gatewy"; did you mean "gateway"/ })
  t.throws(faults('gatewy'), ConfigError)
  t.doesNotThrow(faults('gateway'))
})
