// 50 services with 500 instances: each found, each reached, a change of one seen, and nothing grows.
import type { Test } from 'tap'
import t from 'tap'
import type { Consul } from '../helpers/consul.ts'
import { startConsul } from '../helpers/consul.ts'
import { waitFor } from '../helpers/processes.ts'
import type { GatewayProcess } from './helpers/gateway.ts'
import { asProcess } from './helpers/gateway.ts'
import { upstream } from './helpers/upstream.ts'

const names = Array.from({ length: 50 }, (_, index) => `service-${index}`)
const perService = 10
/** Each instance has an address of its own on loopback. */
const addressOf = (service: number, instance: number) => `127.1.${service + 1}.${instance + 1}`

function register(consul: Consul, service: number, instance: number, port: number) {
  const name = names[service]!
  const Service = { ID: `${name}-${instance}`, Service: name, Address: addressOf(service, instance), Port: port }
  return consul.api('PUT', '/v1/catalog/register', { Node: 'farm', Address: '127.0.0.1', Service })
}

async function registerAll(t: Test, consul: Consul, port: number): Promise<void> {
  const all = names.flatMap((_, service) => Array.from({ length: perService }, (_, i) => [service, i] as const))
  const answers = await Promise.all(
    Array.from({ length: 8 }, async () => {
      const statuses: number[] = []
      for (let next = all.pop(); next !== undefined; next = all.pop()) {
        statuses.push((await register(consul, ...next, port)).status)
      }
      return statuses
    })
  )
  t.strictSame(new Set(answers.flat()), new Set([200]))
  t.equal(answers.flat().length, 500)
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

t.test('50 services, 500 instances', async (t) => {
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
    t.strictSame(seen, Object.fromEntries(all), `each instance of ${name} answered once`)
  }
  t.equal(await gateway.metric('jingwei_mesh_discovery_errors_total', 'service-0'), null)

  t.comment('a change of one is seen, and only by it')
  const updates = () => gateway.metric('jingwei_mesh_discovery_updates_total', 'service-8')
  const before = await updates()
  await register(consul, 7, perService, port)
  const seesNew = async () => (await gateway.health()).services['service-7']?.instances === perService + 1
  await waitFor('the eleventh is seen', seesNew)
  t.ok((await gateway.spread('/service-7', perService + 1))[addressOf(7, perService)])
  await consul.api('PUT', '/v1/catalog/deregister', { Node: 'farm', ServiceID: 'service-7-0' })
  await waitFor('the first has left', async () => !(await seesNew()))
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
    await waitFor('all have left', async () => (await everyInstance(gateway)) === 0, 30_000)
    await registerAll(t, consul, port)
    await waitFor('all are back', async () => (await everyInstance(gateway)) === 500, 30_000)
    t.equal((await gateway.send('/service-3')).status, 200)
  }
  const after = await processMetric(gateway, 'process_open_fds')
  const memory = Math.round((await processMetric(gateway, 'process_resident_memory_bytes')) / 2 ** 20)
  t.comment(`open files ${descriptors}, after five rounds ${after}; ${memory} MB resident`)
  t.ok(after <= descriptors + 10, 'connections to instances that left are closed')
  t.ok(memory < 400)

  const cpu = await processMetric(gateway, 'process_cpu_seconds_total')
  await new Promise((resolve) => setTimeout(resolve, 3000))
  const idle = (await processMetric(gateway, 'process_cpu_seconds_total')) - cpu
  t.comment(`${(idle * 1000).toFixed(0)} ms of CPU in 3 s of silence`)
  t.ok(idle < 1, 'held questions cost nothing')

  const stopping = performance.now()
  gateway.running.kill('SIGTERM')
  t.match(await gateway.running.exited, { code: 0 })
  t.comment(`stopped in ${(performance.now() - stopping).toFixed(0)} ms`)
  t.ok(performance.now() - stopping < 4000)
})
