// Consul absent, lost, suspended and back: the gateway uses the last known instances, logs it, and recovers.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import type { ConsulOptions } from '../helpers/consul.ts'
import { startConsul } from '../helpers/consul.ts'
import { asProcess } from '../helpers/e2e/gateway.ts'
import { steadyLoad } from '../helpers/e2e/load.ts'
import { upstream } from '../helpers/e2e/upstream.ts'
import { freePorts, waitFor } from '../helpers/processes.ts'

async function freeConsulPorts() {
  const [http, dns, server, serfLan] = (await freePorts(4)) as [number, number, number, number]
  return { http, dns, server, serfLan }
}

async function consulFor(t: Test, options?: ConsulOptions) {
  const consul = await startConsul(options)
  t.teardown(consul.stop)
  return consul
}

t.test('without Consul at the start, the gateway is not ready, and lists the services that it waits for', async (t) => {
  const [a, fixed] = [await upstream(t, 'a'), await upstream(t, 'fixed')]
  const ports = await freeConsulPorts()
  const gateway = await asProcess(t, {
    consul: `http://127.0.0.1:${ports.http}`,
    services: { orders: {}, users: {}, fixed: { instances: [`http://127.0.0.1:${fixed.port}`] } }
  })
  await waitFor('the admin port shows the error', async () => (await gateway.health()).services.orders?.error !== null)
  const early = await gateway.health()
  t.match(early, { code: 503, status: 'discovering', waitingFor: ['orders', 'users'] })
  t.match(early.services.orders, { source: 'consul', instances: 0, discoveryAgeMs: null, error: /ECONNREFUSED/ })
  t.match(early.services.fixed, { source: 'static', instances: 1, error: null })
  t.strictSame(await gateway.spread('/fixed', 5), { fixed: 5 }, 'a service with static instances works')
  t.equal((await gateway.send('/orders')).status, 503)
  t.equal(
    await gateway.metric('jingwei_mesh_discovery_age_seconds', 'orders'),
    null,
    'no age before the first response'
  )
  t.equal(await gateway.metric('jingwei_mesh_discovery_up', 'orders'), 0)
  await sleep(1500) // more attempts
  t.equal(gateway.log().filter(({ level }) => level === 'warn').length, 1, 'one log line, not one per poll or service')

  const consul = await consulFor(t, { ports })
  await consul.register({ id: 'orders-1', name: 'orders', port: a.port })
  await waitFor('ready', async () => (await gateway.health()).code === 200, 30_000)
  await gateway.until('orders', [a.port])
  t.strictSame(await gateway.spread('/orders', 5), { a: 5 })
  t.match((await gateway.health()).services.users, { instances: 0, error: null, discoveryAgeMs: Number })
  const back = () => gateway.log().filter(({ msg }) => msg === 'Consul available again').length
  await waitFor('the log line of the recovery', () => back() > 0)
  t.equal(back(), 1)
  t.equal(gateway.running.output().includes('unhandled'), false)
})

t.test('Consul is lost and comes back with its data', async (t) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'jingwei-e2e-consul-'))
  t.teardown(() => rm(dataDir, { recursive: true, force: true }))
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b')]
  const first = await consulFor(t, { dataDir })
  await first.register({ id: 'orders-a', name: 'orders', port: a.port })
  await first.register({ id: 'users-a', name: 'users', port: a.port })
  const gateway = await asProcess(t, { consul: first.url, services: { orders: {}, users: {} } })
  await gateway.until('orders', [a.port])
  await gateway.until('users', [a.port])
  t.equal(await gateway.metric('jingwei_mesh_discovery_up', 'orders'), 1)
  const load = steadyLoad(gateway, ['/orders', '/users'], { concurrency: 2, pauseMs: 5 })

  await first.kill()
  await waitFor('the admin port shows the outage', async () => (await gateway.health()).services.orders?.error !== null)
  const before = await gateway.health()
  const ageBefore = await gateway.metric('jingwei_mesh_discovery_age_seconds', 'orders')
  await sleep(2500)
  const after = await gateway.health()
  t.match(after, { code: 200, status: 'ready' }, 'the gateway stays ready')
  t.match(after.services.orders, { instances: 1, error: /ECONNREFUSED|ECONNRESET|socket hang up/ })
  t.ok(after.services.orders!.discoveryAgeMs! >= before.services.orders!.discoveryAgeMs! + 2000, 'the age grows')
  t.ok((await gateway.metric('jingwei_mesh_discovery_age_seconds', 'orders'))! >= ageBefore! + 2)
  t.equal(await gateway.metric('jingwei_mesh_discovery_up', 'orders'), 0)
  t.ok((await gateway.metric('jingwei_mesh_discovery_errors_total', 'orders'))! > 1)
  const losses = () => gateway.log().filter(({ msg }) => msg.startsWith('Consul unavailable'))
  t.equal(losses().length, 1, 'one log line for all services and polls')
  t.match(losses()[0], { level: 'warn', url: first.url, err: { type: String, message: String, stack: String } })

  const second = await consulFor(t, { dataDir, ports: first.ports })
  await waitFor('recovered', async () => (await gateway.health()).services.orders?.error === null, 30_000)
  t.equal(await gateway.metric('jingwei_mesh_discovery_up', 'orders'), 1)
  await waitFor(
    'both services are discovered again',
    () => gateway.log().some(({ msg }) => msg === 'Consul available again'),
    30_000
  )
  await second.register({ id: 'orders-b', name: 'orders', port: b.port })
  await gateway.until('orders', [a.port, b.port], 20_000)
  t.ok((await gateway.spread('/orders', 40)).b, 'changes are discovered again')

  const { sent, failures } = await load.stop()
  t.strictSame(failures, [], `no request of ${sent} failed`)
  t.equal(losses().length, 1)
})

t.test(
  'Consul comes back without data: the last known instances serve until the services register again',
  async (t) => {
    const [a, b, c] = [await upstream(t, 'a'), await upstream(t, 'b'), await upstream(t, 'c')]
    const first = await consulFor(t)
    // Move the index on, so that the new Consul's is far lower.
    for (let i = 0; i < 20; i++) await first.api('PUT', `/v1/kv/noise-${i}`, 'x')
    await first.register({ id: 'orders-a', name: 'orders', port: a.port })
    await first.register({ id: 'orders-b', name: 'orders', port: b.port })
    const gateway = await asProcess(t, { consul: first.url, services: { orders: {} } })
    await gateway.until('orders', [a.port, b.port])
    const load = steadyLoad(gateway, ['/orders'], { concurrency: 2, pauseMs: 5 })
    await first.kill()
    await sleep(500)

    const second = await consulFor(t, { ports: first.ports })
    const isBack = () => gateway.log().some(({ msg }) => msg === 'Consul available again')
    await waitFor('the empty Consul has responded', isBack, 30_000)
    t.strictSame(
      await gateway.ports('orders'),
      [a.port, b.port].sort((x, y) => x - y),
      'the empty result is ignored'
    )
    t.match((await gateway.health()).services.orders, { instances: 2, error: /lists no instance/ })
    await sleep(500)
    await second.register({ id: 'orders-b', name: 'orders', port: b.port })
    await second.register({ id: 'orders-c', name: 'orders', port: c.port })
    await gateway.until('orders', [b.port, c.port], 20_000)
    t.match(Object.keys(await gateway.spread('/orders', 40)).sort(), ['b', 'c'])
    t.match((await gateway.health()).services.orders, { instances: 2, error: null })
    const { sent, failures } = await load.stop()
    t.strictSame(failures, [], `no request of ${sent} failed`)

    // An empty set that persists while Consul is healthy is accepted.
    await second.deregister('orders-b')
    await second.deregister('orders-c')
    await gateway.until('orders', [], 20_000)
    t.equal((await gateway.send('/orders')).status, 503)
    t.equal((await gateway.health()).code, 200)
  }
)

t.test('Consul is suspended with its connections open, and resumed', async (t) => {
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b')]
  const consul = await consulFor(t)
  await consul.register({ id: 'orders-a', name: 'orders', port: a.port })
  const gateway = await asProcess(t, { consul: consul.url, wait: '1s', services: { orders: {} } })
  await gateway.until('orders', [a.port])
  consul.signal('SIGSTOP')
  const errorOf = async () => (await gateway.health()).services.orders?.error
  await waitFor('the query times out', async () => (await errorOf()) !== null, 30_000)
  t.equal((await gateway.health()).code, 200)
  t.strictSame(await gateway.spread('/orders', 10), { a: 10 })
  t.equal(await gateway.metric('jingwei_mesh_discovery_up', 'orders'), 0)
  consul.signal('SIGCONT')
  await waitFor('recovered', async () => (await errorOf()) === null, 40_000)
  await consul.register({ id: 'orders-b', name: 'orders', port: b.port })
  await gateway.until('orders', [a.port, b.port])
})
