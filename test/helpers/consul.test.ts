// slow: starts Consul
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { startConsul } from './consul.ts'
import { waitFor } from './processes.ts'

interface Entry {
  Service: { ID: string; Port: number; Tags: string[]; Weights: { Passing: number; Warning: number } }
  Checks: { CheckID: string; Status: string }[]
}

t.test('a registered service is in the health response, its check can be set, deregistering removes it', async (t) => {
  const consul = await startConsul()
  t.teardown(consul.stop)
  await consul.register({
    id: 'orders-1',
    name: 'orders',
    port: 4001,
    tags: ['v1'],
    weights: { passing: 10, warning: 1 },
    check: { TTL: '10m', Status: 'passing' }
  })
  const health = async () => (await consul.api('GET', '/v1/health/service/orders')).body as Entry[]
  const [entry] = await health()
  t.match(entry?.Service, { ID: 'orders-1', Port: 4001, Tags: ['v1'], Weights: { Passing: 10, Warning: 1 } })
  await consul.setCheck('service:orders-1', 'critical', 'down')
  const status = async () => (await health())[0]?.Checks.find((check) => check.CheckID === 'service:orders-1')?.Status
  await waitFor('the check is critical', async () => (await status()) === 'critical')
  t.equal(await status(), 'critical')
  await consul.deregister('orders-1')
  t.strictSame(await health(), [])
})

t.test('in memory: a restart on the same ports has no data', async (t) => {
  const first = await startConsul()
  t.teardown(first.stop)
  await first.register({ name: 'orders', port: 4001 })
  await first.kill()
  await t.rejects(fetch(`${first.url}/v1/status/leader`), 'Consul is not reachable')
  const second = await startConsul({ ports: first.ports })
  t.teardown(second.stop)
  t.equal(second.url, first.url)
  t.strictSame((await second.api('GET', '/v1/health/service/orders')).body, [])
})

t.test('with a data folder: a restart has the data of before', async (t) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'jingwei-consul-data-'))
  t.teardown(() => rm(dataDir, { recursive: true, force: true }))
  const first = await startConsul({ dataDir })
  t.teardown(first.stop)
  await first.register({ name: 'orders', port: 4001 })
  await first.api('PUT', '/v1/kv/colour', 'blue')
  await first.kill()
  const second = await startConsul({ dataDir, ports: first.ports })
  t.teardown(second.stop)
  t.equal((await second.api('GET', '/v1/kv/colour?raw')).body, 'blue')
  t.match((await second.api('GET', '/v1/health/service/orders')).body, [{ Service: { Port: 4001 } }])
})

t.test('with access control: a token has the rights of its rules', async (t) => {
  const consul = await startConsul({ acl: true })
  t.teardown(consul.stop)
  await consul.register({ name: 'orders', port: 4001 })
  const token = await consul.createToken('service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }')
  const seen = async (token: string) => (await consul.api('GET', '/v1/health/service/orders', undefined, token)).body
  t.strictSame(await seen(''), [], 'without a token, no service is visible')
  t.match(await seen(token), [{ Service: { Port: 4001 } }])
  t.equal((await consul.api('PUT', '/v1/kv/colour', 'blue', token)).status, 403)
})
