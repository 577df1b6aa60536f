// A token that Consul refuses is logged once, and used as soon as Consul accepts it.
import { randomUUID } from 'node:crypto'
import t from 'tap'
import { startConsul } from '../helpers/consul.ts'
import { asProcess } from '../helpers/e2e/gateway.ts'
import { upstream } from '../helpers/e2e/upstream.ts'
import { waitFor } from '../helpers/processes.ts'

const readAll = 'service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }'

t.test('a Consul token is refused, then accepted, then refused again', async (t) => {
  const consul = await startConsul({ acl: true })
  t.teardown(consul.stop)
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b')]
  await consul.register({ id: 'orders-a', name: 'orders', port: a.port })
  const token = randomUUID()
  const fixed = { instances: [`http://127.0.0.1:${a.port}`] }
  const gateway = await asProcess(t, { consul: consul.url, token, services: { orders: {}, users: {}, fixed } })

  await waitFor(
    'the admin port shows the refusal',
    async () => (await gateway.health()).services.orders?.error !== null
  )
  const early = await gateway.health()
  t.match(early, { code: 503, status: 'discovering', waitingFor: ['orders', 'users'] })
  t.match(
    early.services.orders?.error,
    /403.*ACL not found.*service:read/s,
    'the log line has the error of Consul and the required policy'
  )
  t.equal((await gateway.send('/fixed')).status, 200)
  const errors = () => gateway.metric('jingwei_mesh_discovery_errors_total', 'orders')
  await waitFor('more attempts', async () => (await errors())! >= 4)
  const refusals = () => gateway.log().filter(({ msg }) => msg.startsWith('Consul refuses'))
  t.equal(refusals().length, 1, 'the refusal is logged once')
  t.match(refusals()[0], { level: 'warn', err: { message: /ACL not found/ } })

  const made = await consul.api('PUT', '/v1/acl/policy', { Name: 'read', Rules: readAll })
  t.equal(made.status, 200)
  const accepted = await consul.api('PUT', '/v1/acl/token', { SecretID: token, Policies: [{ Name: 'read' }] })
  t.equal(accepted.status, 200)
  await waitFor('ready', async () => (await gateway.health()).code === 200, 30_000)
  await gateway.until('orders', [a.port])
  t.strictSame(await gateway.spread('/orders', 5), { a: 5 })
  t.equal((await gateway.health()).services.orders?.error, null)
  await waitFor('the log line', () => gateway.log().some(({ msg }) => msg === 'Consul accepts the token again'))

  const { AccessorID: id } = accepted.body as { AccessorID: string }
  t.equal((await consul.api('DELETE', `/v1/acl/token/${id}`)).status, 200)
  await consul.register({ id: 'orders-b', name: 'orders', port: b.port }) // wakes the blocking query
  await waitFor(
    'the admin port shows the refusal',
    async () => (await gateway.health()).services.orders?.error !== null
  )
  t.match(await gateway.health(), { code: 200, services: { orders: { instances: 1, error: /403/ } } })
  t.strictSame(await gateway.spread('/orders', 5), { a: 5 }, 'the last known instances keep serving')
  t.notMatch(gateway.running.output(), token, 'the token is in no log')
})
