// slow: starts Consul and Redis
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { ConfigError } from '../../../app.ts'
import { startConsul } from '../../helpers/consul.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { RunningGateway } from '../../helpers/gateway.ts'
import { configOf, gatewayBefore, get, startEcho, startService } from '../../helpers/gateway.ts'
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

const nodeList = (count: number) => Array.from({ length: count }, (_, i) => `http://127.0.0.1:${i + 1}`)

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

for (const protocol of protocols) {
  t.test(`share over ${protocol}: limits in memory, and requests in flight, are divided`, async (t) => {
    const held: ServerResponse[] = []
    const service = await startService((request, response) => {
      if (request.url === '/held') held.push(response)
      else response.end('x')
    })
    t.teardown(service.close)
    const folder = await mkdtemp(join(tmpdir(), 'jingwei-nodes-'))
    t.teardown(() => rm(folder, { recursive: true }))
    const list = join(folder, 'nodes.json')
    await writeFile(list, JSON.stringify(nodeList(2)))
    const by = { by: 'route', share: true }
    const route = (name: string, rateLimit: object) => ({
      name,
      match: { path: `/${name}` },
      service: 'any',
      edge: { rateLimit }
    })
    const gateway = await gatewayBefore(t, service.url, {
      admin: { port: 0 },
      listen: listenFor(t, protocol),
      services: { gateway: { file: { path: list } }, any: { instances: [service.url] } },
      edge: { gatewayNodes: 'gateway' },
      routes: [
        route('held', { ...by, maxConcurrent: 5 }),
        route('fixed', { ...by, max: 7, window: '1h' }),
        route('sliding', { ...by, max: 7, window: '1h', algorithm: 'sliding-window' }),
        route('bucket', { ...by, max: 1, burst: 7, window: '1h', algorithm: 'token-bucket', headers: 'ietf' }),
        route('small', { ...by, max: 1, window: '1h' }),
        route('both', [
          { ...by, max: 20, window: '1h', algorithm: 'token-bucket' },
          { max: 3, window: '1h' }
        ])
      ]
    })
    await eventually(async () => (await nodesOf(gateway)) === 2, 'two nodes')
    const client = anyClient(t, protocol, gateway.port)
    const passed = async (path: string) => {
      let count = 0
      for (let i = 0; i < 9; i++) if ((await client.ask(path)).status === 200) count++
      return count
    }
    t.equal(await passed('/fixed'), 3)
    t.equal(await passed('/sliding'), 3)
    t.equal(await passed('/bucket'), 3)
    t.equal(await passed('/small'), 1, 'at least one request')
    t.equal(await passed('/both'), 3)
    const waiting = [1, 2].map(() => client.begin('/held'))
    await eventually(() => held.length === 2, 'two requests in flight')
    t.equal((await client.ask('/held')).status, 429)
    await writeFile(list, JSON.stringify(nodeList(1)))
    await eventually(async () => (await nodesOf(gateway)) === 1, 'one node')
    t.equal(await passed('/fixed'), 4, 'the rest of the whole limit')
    waiting.push(...[1, 2, 3].map(() => client.begin('/held')))
    await eventually(() => held.length === 5, 'five requests in flight')
    t.equal((await client.ask('/held')).status, 429)
    for (const response of held) response.end('x')
    for (const { status } of await Promise.all(waiting.map(({ response }) => response))) t.equal(status, 200)
  })
}

t.test('share needs the number of nodes, and no Redis', async (t) => {
  const routes = [{ name: 'all', match: { path: '/' }, service: 'any' }]
  const faults =
    (rateLimit: object, more: object = {}) =>
    () =>
      configOf({
        services: { any: { instances: ['http://127.0.0.1:1'] } },
        routes,
        redis: { url: 'redis://127.0.0.1:1' },
        edge: { rateLimit, ...more }
      })
  const limit = { max: 1, window: '1s', share: true }
  t.throws(faults(limit), { message: /share: needs edge\.gatewayNodes/ })
  t.throws(faults([{ maxConcurrent: 1, share: true }]), { message: /share: needs edge\.gatewayNodes/ })
  t.throws(faults({ ...limit, store: 'redis' }, { gatewayNodes: 2 }), {
    message: /share: has no effect with store: redis/
  })
  t.doesNotThrow(faults([limit, { maxConcurrent: 1, share: true }], { gatewayNodes: 2 }))
})

t.test('a service that is not configured is a fault', async (t) => {
  const services = { gateway: { instances: ['http://127.0.0.1:1'] } }
  const routes = [{ name: 'all', match: { path: '/' }, service: 'gateway' }]
  const faults = (gatewayNodes: string) => () => configOf({ services, routes, edge: { gatewayNodes } })
  t.throws(faults('gatewy'), { message: /edge\.gatewayNodes: unknown service "gatewy"; did you mean "gateway"/ })
  t.throws(faults('gatewy'), ConfigError)
  t.doesNotThrow(faults('gateway'))
  const withoutMesh = (gatewayNodes: string | number) => () =>
    configOf({
      mesh: false,
      services: { gateway: { instances: ['http://127.0.0.1:1'] } },
      routes,
      edge: { gatewayNodes }
    })
  t.throws(withoutMesh('gateway'), { message: /edge\.gatewayNodes: .*"mesh" is false; write the number of nodes/ })
  t.doesNotThrow(withoutMesh(3))
})
