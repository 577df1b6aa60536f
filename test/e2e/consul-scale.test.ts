// 50 services with 500 instances: each is discovered and called, a change of one arrives, and nothing grows. Then more,
// for the figures; JINGWEI_SCALE=full: 1,000 services with 10,000 instances.
import type { Test } from 'tap'
import t from 'tap'
import type { Consul } from '../helpers/consul.ts'
import { startConsul } from '../helpers/consul.ts'
import type { GatewayProcess } from '../helpers/e2e/gateway.ts'
import { asProcess } from '../helpers/e2e/gateway.ts'
import { upstream } from '../helpers/e2e/upstream.ts'
import { waitFor } from '../helpers/processes.ts'

const names = Array.from({ length: 50 }, (_, index) => `service-${index}`)
const perService = 10
/** Each instance has its own loopback address. */
const addressOf = (service: number, instance: number) => `127.1.${service + 1}.${instance + 1}`

function register(consul: Consul, service: number, instance: number, port: number) {
  const name = names[service]!
  const Service = { ID: `${name}-${instance}`, Service: name, Address: addressOf(service, instance), Port: port }
  return consul.api('PUT', '/v1/catalog/register', { Node: 'farm', Address: '127.0.0.1', Service })
}

async function registerAll(t: Test, consul: Consul, port: number): Promise<void> {
  const all = names.flatMap((_, service) => Array.from({ length: perService }, (_, i) => [service, i] as const))
  const statuses = await Promise.all(
    Array.from({ length: 8 }, async () => {
      const statuses: number[] = []
      for (let next = all.pop(); next !== undefined; next = all.pop()) {
        statuses.push((await register(consul, ...next, port)).status)
      }
      return statuses
    })
  )
  t.strictSame(new Set(statuses.flat()), new Set([200]))
  t.equal(statuses.flat().length, 500)
}

async function processMetric(gateway: GatewayProcess, name: string): Promise<number> {
  const text = await (await fetch(`${gateway.adminUrl}/metrics`)).text()
  return Number(
    text
      .split('\n')
      .find((line) => line.startsWith(`${name} `))!
      .split(' ')[1]
  )
}

const everyInstance = async (gateway: GatewayProcess) =>
  (await gateway.services()).reduce((sum, { instances }) => sum + instances.length, 0)

t.test('500 instances of 50 services are discovered and called', async (t) => {
  const consul = await startConsul()
  t.teardown(consul.stop)
  const { port } = await upstream(t, '', { host: '0.0.0.0' })
  const services = Object.fromEntries(names.map((name) => [name, {}]))
  const gateway = await asProcess(t, { consul: consul.url, services, mesh: { balance: 'round-robin' } })
  await waitFor('ready', async () => (await gateway.health()).code === 200)

  const began = performance.now()
  await registerAll(t, consul, port)
  const registered = performance.now()
  await waitFor('all are discovered', async () => (await everyInstance(gateway)) === 500, 30_000)
  t.comment(
    `registered in ${(registered - began).toFixed(0)} ms, all seen ${(performance.now() - registered).toFixed(0)} ms later`
  )

  for (const [index, name] of names.entries()) {
    const seen = await gateway.spread(`/${name}`, perService)
    const all = Array.from({ length: perService }, (_, instance) => [addressOf(index, instance), 1])
    t.strictSame(seen, Object.fromEntries(all), `each instance of ${name} responded once`)
  }
  t.equal(await gateway.metric('jingwei_mesh_discovery_errors_total', 'service-0'), 0)

  t.comment('a change of one service affects only that service')
  const updates = () => gateway.metric('jingwei_mesh_discovery_updates_total', 'service-8')
  const before = await updates()
  await register(consul, 7, perService, port)
  const seesNew = async () => (await gateway.health()).services['service-7']?.instances === perService + 1
  await waitFor('the eleventh instance is discovered', seesNew)
  t.ok((await gateway.spread('/service-7', perService + 1))[addressOf(7, perService)])
  t.equal(await gateway.metric('jingwei_mesh_discovery_first_request_seconds_count', 'service-7'), perService + 1)
  await consul.api('PUT', '/v1/catalog/deregister', { Node: 'farm', ServiceID: 'service-7-0' })
  await waitFor('the first instance is removed', async () => !(await seesNew()))
  const left = await gateway.spread('/service-7', 3 * perService)
  t.equal(left[addressOf(7, 0)], undefined)
  t.equal(
    Object.values(left).reduce((sum, count) => sum + count),
    3 * perService
  )
  t.equal(await updates(), before)

  t.comment('churn leaves nothing behind')
  const descriptors = await processMetric(gateway, 'process_open_fds')
  for (let round = 0; round < 5; round++) {
    await consul.api('PUT', '/v1/catalog/deregister', { Node: 'farm' })
    await waitFor('all instances are removed', async () => (await everyInstance(gateway)) === 0, 30_000)
    await registerAll(t, consul, port)
    await waitFor('all instances are discovered again', async () => (await everyInstance(gateway)) === 500, 30_000)
    t.equal((await gateway.send('/service-3')).status, 200)
  }
  const after = await processMetric(gateway, 'process_open_fds')
  const memory = Math.round((await processMetric(gateway, 'process_resident_memory_bytes')) / 2 ** 20)
  t.comment(`open files ${descriptors}, after five rounds ${after}; ${memory} MB resident`)
  t.ok(after <= descriptors + 10, 'connections to removed instances are closed')
  t.ok(memory < 400)

  const cpu = await processMetric(gateway, 'process_cpu_seconds_total')
  await new Promise((resolve) => setTimeout(resolve, 3000))
  const idle = (await processMetric(gateway, 'process_cpu_seconds_total')) - cpu
  t.comment(`${(idle * 1000).toFixed(0)} ms of CPU in 3 s without changes`)
  t.ok(idle < 1, 'blocking queries use almost no CPU')

  const stopping = performance.now()
  gateway.running.kill('SIGTERM')
  t.match(await gateway.running.exited, { code: 0 })
  t.comment(`stopped in ${(performance.now() - stopping).toFixed(0)} ms`)
  t.ok(performance.now() - stopping < 4000)
})

/** Of services 0 to `count`, in transactions: a service's instances are 127.2.x.y, `from` to `to`. */
async function setAll(consul: Consul, services: number[], from: number, to: number): Promise<void> {
  await consul.api('PUT', '/v1/catalog/register', { Node: 'farm', Address: '127.0.0.1' })
  const operations = services.flatMap((service) =>
    Array.from({ length: to - from }, (_, i) => {
      const [instance, Service] = [from + i, `scale-${service}`]
      const Address = `127.${2 + (service >> 8)}.${service & 255}.${instance + 1}`
      const settings = { ID: `${Service}-${instance}`, Service, Address, Port: 8080, Tags: ['v1'], Meta: { zone: 'a' } }
      return { Service: { Verb: 'set', Node: 'farm', Service: settings } }
    })
  )
  // A transaction takes 64.
  for (let at = 0; at < operations.length; at += 64) {
    const { status, body } = await consul.api('PUT', '/v1/txn', operations.slice(at, at + 64))
    if (status !== 200) throw new Error(`Consul: ${status} ${JSON.stringify(body)}`)
  }
}

t.test('many services: memory, CPU time without changes, and the time to converge', async (t) => {
  const full = process.env.JINGWEI_SCALE === 'full'
  const [count, changes] = full ? [1000, 100] : [100, 10]
  const all = Array.from({ length: count }, (_, i) => i)
  const consul = await startConsul({ config: { limits: { http_max_conns_per_client: count + 200 } } })
  t.teardown(consul.stop)
  await setAll(consul, all, 0, 10)

  const services = Object.fromEntries(all.map((i) => [`scale-${i}`, {}]))
  const began = performance.now()
  const gateway = await asProcess(t, { consul: consul.url, services })
  const instances = async () => {
    const health = await gateway.health()
    return Object.values(health.services).reduce((sum, each) => sum + each.instances, 0)
  }
  await waitFor('all instances are discovered', async () => (await instances()) === 10 * count, 60_000)
  t.comment(`${10 * count} instances of ${count} services ${(performance.now() - began).toFixed(0)} ms after its start`)

  // Until then, queries block only briefly.
  if (full) await new Promise((resolve) => setTimeout(resolve, 40_000))
  const cpu = await processMetric(gateway, 'process_cpu_seconds_total')
  const silence = full ? 60 : 3
  await new Promise((resolve) => setTimeout(resolve, silence * 1000))
  const idle = (await processMetric(gateway, 'process_cpu_seconds_total')) - cpu
  const memory = Math.round((await processMetric(gateway, 'process_resident_memory_bytes')) / 2 ** 20)
  t.comment(`${((idle / silence) * 100).toFixed(1)} % of a core in ${silence} s without changes; ${memory} MB resident`)
  t.ok(idle / silence < 0.3, 'blocking queries use little CPU')
  t.ok(memory < (full ? 1000 : 400))

  const changed = all.slice(0, changes)
  const before = performance.now()
  await setAll(consul, changed, 10, 11)
  const registered = performance.now()
  await waitFor('the changes arrive', async () => (await instances()) === 10 * count + changes, 60_000)
  const seen = performance.now()
  t.comment(
    `${changes} changes in ${(registered - before).toFixed(0)} ms, all discovered ${(seen - registered).toFixed(0)} ms later`
  )
  t.ok(seen - registered < 15_000)
  t.equal(await gateway.metric('jingwei_mesh_discovery_errors_total', 'scale-0'), 0)
  const updates = await Promise.all([0, changes].map((i) => gateway.metric(updatesTotal, `scale-${i}`)))
  t.same(updates, [2, 1], 'an unchanged service gets no update')
})

const updatesTotal = 'jingwei_mesh_discovery_updates_total'
