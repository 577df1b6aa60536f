/** Breaker, caps and limits through the whole gateway: responses, requests to services, metrics, the admin port. */
import type { ServerResponse } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { connect, get, startGateway, startService } from '../../helpers/gateway.ts'

interface ServiceView {
  concerns: Record<string, Record<string, unknown>>
  instances: { active: number; concerns: Record<string, unknown> }[]
}

/** A gateway in front of services that hold their responses until the test sends them. */
async function gatewayTo(t: Test, mesh: object, count = 1) {
  const held: ServerResponse[] = []
  const arrived: string[] = []
  const services = await Promise.all(
    Array.from({ length: count }, (_, i) =>
      startService((request, response) => {
        arrived.push(`${i}${request.url}`)
        held.push(response)
      })
    )
  )
  const gateway = await startGateway({
    mesh: { balance: 'round-robin' },
    admin: { port: 0 },
    services: { orders: { instances: services.map(({ url }) => url), mesh } },
    routes: [{ name: 'orders', match: { path: '/' }, service: 'orders' }]
  })
  t.teardown(async () => {
    await Promise.all(services.map((service) => service.close()))
    await gateway.close()
  })
  const view = () => gateway.server.mesh.status()[0] as unknown as ServiceView
  const shown = async () => {
    const response = await gateway.server.admin!.inject('/admin/services')
    return (response.json() as ServiceView[])[0]!
  }
  const metrics = async () => (await gateway.server.admin!.inject('/metrics')).body
  const send = (path: string) => connect(gateway.port, `GET ${path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`)
  return { ...gateway, held, arrived, view, shown, metrics, send }
}

t.test(
  'an instance at its cap is skipped, and with all at their caps, calls get 503 with Retry-After at once',
  async (t) => {
    const perInstance = { maxConnections: 1, maxPendingRequests: 1 }
    const { port, held, arrived, view, metrics, send } = await gatewayTo(t, { circuitBreaker: { perInstance } }, 2)
    const clients = ['/1', '/2'].map(send)
    await eventually(() => held.length === 2)
    t.strictSame(arrived.map((name) => name[0]).toSorted(), ['0', '1'])
    clients.push(...['/3', '/4'].map(send))
    await eventually(() => view().instances.every(({ active }) => active === 2))
    const full = await get(port, '/5')
    t.equal(full.status, 503)
    t.match(full.headers, { 'retry-after': '1', 'proxy-status': 'jingwei; error=connection_limit_reached' })
    t.match(JSON.parse(full.body), { code: 'JW_OVERLOADED', statusCode: 503 })
    const text = await metrics()
    t.match(text, 'jingwei_mesh_overflows_total{service="orders",cap="instance"} 1')
    t.match(text, 'jingwei_mesh_pending_requests{service="orders"} 2')
    for (let i = 0; i < 4; i++) {
      await eventually(() => held.length > i)
      held[i]!.end('done')
    }
    for (const client of clients) t.match((await client.closed).text, /^HTTP\/1\.1 200/)
    t.match(await metrics(), 'jingwei_mesh_pending_requests{service="orders"} 0')
  }
)

for (const [whose, circuitBreaker] of [
  ['an instance', { perInstance: { maxConnections: 1, maxPendingRequests: 3 } }],
  ['a service', { maxConnections: 1, maxPendingRequests: 3 }]
] as const) {
  t.test(`pending at ${whose}: served in order; a client who leaves is not sent to the service`, async (t) => {
    const { port, held, arrived, view, send } = await gatewayTo(t, { circuitBreaker })
    const pending = () => {
      const { concerns, instances } = view()
      return Number(concerns.caps!.pending) + Number((instances[0]!.concerns.caps as { pending: number }).pending)
    }
    const clients = []
    for (const path of ['/1', '/2', '/3', '/4']) {
      clients.push(send(path))
      await eventually(() => held.length === 1 && pending() === clients.length - 1)
    }
    t.equal((await get(port, '/5')).status, 503)
    clients[2]!.socket.destroy()
    await eventually(() => pending() === 2)
    const late = send('/6')
    await eventually(() => pending() === 3)
    t.equal((await get(port, '/7')).status, 503, 'the slot that the caller left is taken')
    for (let i = 0; i < 4; i++) {
      await eventually(() => held.length > i)
      held[i]!.end()
    }
    for (const client of [clients[0]!, clients[1]!, clients[3]!, late]) {
      t.match((await client.closed).text, /^HTTP\/1\.1 200/)
    }
    t.strictSame(arrived, ['0/1', '0/2', '0/4', '0/6'])
    await eventually(() => view().instances[0]!.active === 0)
  })
}

t.test('an open circuit: 503 with the remaining seconds, and the admin port shows it', async (t) => {
  const circuitBreaker = { minRequests: 3, openFor: '30s', maxRequests: 50 }
  const { port, held, shown, metrics } = await gatewayTo(t, { circuitBreaker })
  for (let i = 0; i < 3; i++) {
    const response = get(port, '/')
    await eventually(() => held.length > i)
    held[i]!.writeHead(500).end()
    t.equal((await response).status, 500)
  }
  const refused = await get(port, '/')
  t.equal(refused.status, 503)
  t.equal(held.length, 3)
  const seconds = Number(refused.headers['retry-after'])
  t.ok(seconds > 20 && seconds <= 30, `${seconds} s`)
  t.match(JSON.parse(refused.body), { code: 'JW_CIRCUIT_OPEN' })
  const { concerns } = await shown()
  t.match(concerns['circuit-breaker'], { mode: 'enforce', state: 'open', admitted: 0 })
  t.match(concerns.caps, { active: 0, pending: 0, maxRequests: 50 })
  const text = await metrics()
  t.match(text, 'jingwei_mesh_circuit_state{service="orders"} 2')
  t.match(text, 'jingwei_mesh_circuit_transitions_total{service="orders",to="open"} 1')
  t.match(text, 'jingwei_mesh_circuit_transitions_total{service="orders",to="closed"} 0')
})

t.test('the rate limit toward a service: 503 with the seconds until the next token', async (t) => {
  const { port, held, shown, metrics } = await gatewayTo(t, { limit: { rate: 2, per: '1m', queue: 0 } })
  for (let i = 0; i < 2; i++) {
    const response = get(port, '/')
    await eventually(() => held.length > i)
    held[i]!.end()
    t.equal((await response).status, 200)
  }
  const refused = await get(port, '/')
  t.equal(refused.status, 503)
  const seconds = Number(refused.headers['retry-after'])
  t.ok(seconds > 20 && seconds <= 30, `${seconds} s`)
  t.match(JSON.parse(refused.body), { code: 'JW_UPSTREAM_LIMITED' })
  t.match((await shown()).concerns['rate-limit'], { mode: 'enforce', rate: 2, perMs: 60_000, burst: 2, tokens: 0 })
  t.match(await metrics(), 'jingwei_mesh_limited_total{service="orders",outcome="refused"} 1')
})

t.test('the adaptive limit: 503 at once', async (t) => {
  const { port, held, metrics, send, shown } = await gatewayTo(t, {
    adaptiveConcurrency: { initialLimit: 2, minLimit: 1 }
  })
  const clients = ['/1', '/2'].map(send)
  await eventually(() => held.length === 2)
  const refused = await get(port, '/')
  t.equal(refused.status, 503)
  t.equal(refused.headers['retry-after'], '1')
  t.match((await shown()).concerns['adaptive-concurrency'], { limit: 2, inFlight: 2 })
  const text = await metrics()
  t.match(text, 'jingwei_mesh_concurrency_limit{service="orders"} 2')
  t.match(text, 'jingwei_mesh_overflows_total{service="orders",cap="adaptive"} 1')
  for (const response of held) response.end()
  for (const client of clients) t.match((await client.closed).text, /^HTTP\/1\.1 200/)
})
