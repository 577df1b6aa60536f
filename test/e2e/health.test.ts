// Consul and the gateway disagree on an instance: the gateway uses its own checks, and no request fails.
import t from 'tap'
import { startConsul } from '../helpers/consul.ts'
import type { Client } from '../helpers/e2e/gateway.ts'
import { inProcess } from '../helpers/e2e/gateway.ts'
import { steadyLoad } from '../helpers/e2e/load.ts'
import { upstream, upstreamProcess } from '../helpers/e2e/upstream.ts'
import { waitFor } from '../helpers/processes.ts'

const consul = await startConsul()
t.teardown(consul.stop)

const register = (service: string, { name, port }: { name: string; port: number }, Status = 'passing') =>
  consul.register({ id: `${service}-${name}`, name: service, port, check: { TTL: '10m', Status } })

/** Returns the admin port's view of the instance at a port. */
async function seen(client: Client, service: string, port: number) {
  const services = (await client.services()) as unknown as {
    name: string
    instances: { origin: string; available: boolean; obstacles: Record<string, string>; concerns: object }[]
  }[]
  const { instances } = services.find(({ name }) => name === service)!
  return instances.find(({ origin }) => origin === `http://127.0.0.1:${port}`)
}

/** Round robin, with retries also after a timeout or a reset. */
const mesh = { balance: 'round-robin', retry: { on: ['gateway-error'], budget: '100%' } }

t.test('outlier detection ejects an instance that has died, though Consul reports it as passing', async (t) => {
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b')]
  await register('orders', a)
  await register('orders', b)
  const outlierDetection = { interval: '100ms', baseEjection: '300ms', consecutiveGatewayFailures: 3 }
  const client = await inProcess(t, {
    consul: consul.url,
    services: { orders: {} },
    mesh: { ...mesh, outlierDetection }
  })
  await client.until('orders', [a.port, b.port])
  const load = steadyLoad(client, ['/orders'], { concurrency: 2, pauseMs: 2 })
  await waitFor('both serve', () => load.tally.by.a! > 10 && load.tally.by.b! > 10)

  await b.stop()
  await waitFor('it is ejected', async () => (await seen(client, 'orders', b.port))?.available === false)
  const { obstacles, concerns } = (await seen(client, 'orders', b.port))!
  t.match(obstacles, {
    'outlier-detection': /^3 attempts in a row failed \(502, 503, 504 or no response\); ejected for \d+ ms$/
  })
  t.match(concerns, { 'outlier-detection': { ejected: true } })
  t.equal((await seen(client, 'orders', a.port))?.available, true)

  const again = await upstream(t, 'b again', { port: b.port })
  await waitFor('it serves again', () => load.tally.by['b again']! > 10)
  const { sent, failures } = await load.stop()
  t.strictSame(failures, [], `none of ${sent} requests failed`)
  t.ok(again.hits() > 0)
  const metrics = await (await fetch(`${client.adminUrl}/metrics`)).text()
  t.match(metrics, /jingwei_mesh_ejections_total\{service="orders",reason="consecutive-gateway-failures"\} [1-9]/)
  t.match(
    metrics,
    /jingwei_mesh_ejections_total\{service="orders",reason="success-rate"\} 0/,
    'the series exists from the start'
  )
})

t.test('active checks remove an instance that is frozen, though Consul reports it as passing', async (t) => {
  const [a, b] = [await upstream(t, 'a'), await upstreamProcess(t, 'b')]
  await register('frozen', a)
  await register('frozen', b)
  const healthCheck = { path: '/health', interval: '100ms', timeout: '250ms', unhealthyThreshold: 2 }
  const client = await inProcess(t, {
    consul: consul.url,
    services: { frozen: {} },
    mesh: { ...mesh, healthCheck, attemptTimeout: '400ms' }
  })
  await client.until('frozen', [a.port, b.port])
  const load = steadyLoad(client, ['/frozen'], { concurrency: 2, pauseMs: 2 })
  await waitFor('both serve', () => load.tally.by.a! > 10 && load.tally.by.b! > 10)

  b.kill('SIGSTOP')
  await waitFor('it is unavailable', async () => (await seen(client, 'frozen', b.port))?.available === false)
  t.match((await seen(client, 'frozen', b.port))!.obstacles, {
    'health-check': /^GET \/health: no response within 250 ms$/
  })
  const before = load.tally.by.a!
  await waitFor('the other serves', () => load.tally.by.a! > before + 50)

  b.kill('SIGCONT')
  await waitFor('it is available again', async () => (await seen(client, 'frozen', b.port))?.available === true)
  const served = load.tally.by.b!
  await waitFor('it serves again', () => load.tally.by.b! > served + 10)
  const { sent, failures } = await load.stop()
  t.strictSame(failures, [], `none of ${sent} requests failed`)
})

t.test("active checks can replace Consul's", async (t) => {
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b')]
  await register('own', a, 'critical')
  await register('own', b, 'critical')
  const healthCheck = { path: '/health', interval: '100ms', timeout: '5s', insteadOfConsul: true }
  const client = await inProcess(t, { consul: consul.url, services: { own: {} }, mesh: { ...mesh, healthCheck } })
  await client.until('own', [a.port, b.port])
  const both = await client.spread('/own', 20)
  t.ok(both.a && both.b, 'critical in Consul, but serving')

  await b.stop()
  await waitFor('it is unavailable', async () => (await seen(client, 'own', b.port))?.available === false)
  t.strictSame(await client.spread('/own', 20), { a: 20 })

  await upstream(t, 'b', { port: b.port })
  await waitFor('it is available again', async () => (await seen(client, 'own', b.port))?.available === true)
  await consul.api('PUT', '/v1/agent/service/maintenance/own-a?enable=true&reason=test')
  await client.until('own', [b.port])
  t.strictSame(await client.spread('/own', 20), { b: 20 }, 'maintenance mode applies, since an operator set it')
})
