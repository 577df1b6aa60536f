/** The gateway in Consul Connect: real Consul, its own authority and intentions, its own proxy as the peer. */
import { generateKeyPairSync } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { intentionTiming } from '../../plugins/mesh/connect/identity/intention-query.ts'
import type { Consul } from '../helpers/consul.ts'
import { startConsul } from '../helpers/consul.ts'
import type { Client } from '../helpers/e2e/gateway.ts'
import { inProcess } from '../helpers/e2e/gateway.ts'
import { steadyLoad } from '../helpers/e2e/load.ts'
import { behindSidecar, impostor, intend, issuerAt, native, plain, proxy, rotate } from '../helpers/mesh/connect.ts'
import { freePort, waitFor } from '../helpers/processes.ts'

intentionTiming.every = 100

async function consulFor(t: Test, options = {}): Promise<Consul> {
  const consul = await startConsul(options)
  t.teardown(consul.stop)
  return consul
}

const connect = { mode: 'connect', identity: { service: 'gateway' }, retry: false }

const gatewayFor = (t: Test, consul: Consul, services: object, mesh: object = {}, more = {}) =>
  inProcess(t, { consul: consul.url, services: services as never, mesh: { ...connect, ...mesh }, ...more })

const codeOf = (text: string) => (JSON.parse(text) as { code: string }).code

const transportOf = async (client: Client, name: string) => {
  const services = (await client.services()) as unknown as { name: string; concerns: { transport: object } }[]
  return services.find((service) => service.name === name)!.concerns.transport
}

t.test('the gateway calls sidecars by mTLS under intentions, beside a service without a sidecar', async (t) => {
  const consul = await consulFor(t)
  const orders = await plain(t, 'orders')
  const legacy = await plain(t, 'legacy')
  const sidecar = await behindSidecar(t, consul, 'orders', orders.port)
  await consul.register({ name: 'legacy', port: legacy.port })
  const services = { orders: {}, legacy: { mesh: { mode: 'direct' } } }
  const gateway = await gatewayFor(t, consul, services)
  await gateway.until('orders', [sidecar.port])
  t.match(await gateway.send('/orders'), { status: 200, text: /^orders / })
  t.match(await gateway.send('/orders', { method: 'POST', body: 'x' }), { status: 200, text: /^orders / })
  t.match(
    await gateway.send('/legacy'),
    { status: 200, text: /^legacy / },
    'a service without a sidecar is reached directly'
  )
  const days =
    ((await gateway.metric('jingwei_mesh_certificate_expiry_timestamp_seconds', 'orders'))! - Date.now() / 1000) /
    86_400
  t.ok(days > 2 && days < 4, `${days}`)
  t.match(await transportOf(gateway, 'orders'), {
    mode: 'connect',
    spiffeId: /^spiffe:\/\/[\w.-]+\/ns\/default\/dc\/dc1\/svc\/gateway$/,
    intention: 'allowed',
    error: null
  })

  const deny = await intend(consul, 'gateway', 'orders', 'deny')
  await waitFor('the denial', async () => (await gateway.send('/orders')).status === 403)
  const reached = orders.count()
  const refused = await gateway.send('/orders')
  t.equal(codeOf(refused.text), 'JW_INTENTION_DENIED')
  t.equal(orders.count(), reached)
  t.ok((await gateway.metric('jingwei_mesh_intention_denials_total', 'orders'))! > 0)
  t.equal((await gateway.send('/legacy')).status, 200)
  await deny.remove()
  await waitFor('the permission', async () => (await gateway.send('/orders')).status === 200)

  // A wildcard intention denies; an exact one has precedence.
  await intend(consul, '*', '*', 'deny')
  await waitFor('the denial of all', async () => (await gateway.send('/orders')).status === 403)
  await intend(consul, 'gateway', 'orders', 'allow')
  await waitFor('the exception', async () => (await gateway.send('/orders')).status === 200)
})

t.test('with intentions off or in shadow mode, the sidecar decides', async (t) => {
  const consul = await consulFor(t)
  const orders = await plain(t, 'orders')
  await behindSidecar(t, consul, 'orders', orders.port)
  await intend(consul, 'gateway', 'orders', 'deny')
  const services = {
    blind: { consul: { service: 'orders' }, mesh: { intentions: false } },
    shadow: { consul: { service: 'orders' }, mesh: { intentions: { mode: 'shadow' } } }
  }
  const gateway = await gatewayFor(t, consul, services)
  await waitFor(
    'instances',
    async () => (await gateway.ports('blind')).length + (await gateway.ports('shadow')).length === 2
  )
  t.equal((await gateway.send('/blind')).status, 502)
  const shadowed = () => gateway.metric('jingwei_mesh_shadowed_total', 'shadow')
  await waitFor('the shadowed denial is counted', async () => {
    t.equal((await gateway.send('/shadow')).status, 502)
    return (await shadowed())! > 0
  })
  t.equal(orders.count(), 0)
})

t.test('a sidecar with the certificate of another service is not trusted', async (t) => {
  const consul = await consulFor(t)
  const users = await plain(t, 'users')
  await consul.register({ name: 'users', port: users.port })
  const { port } = await impostor(t, consul, 'orders', 'users', users.port)
  const gateway = await gatewayFor(t, consul, { orders: {}, users: {} })
  await gateway.until('orders', [port])
  const response = await gateway.send('/orders')
  t.equal(response.status, 502)
  t.equal(codeOf(response.text), 'JW_UPSTREAM_UNTRUSTED')
  t.equal(users.count(), 0)

  // With a valid sidecar beside it, the retry goes there.
  const orders = await plain(t, 'orders')
  await behindSidecar(t, consul, 'orders', orders.port)
  await waitFor('both', async () => (await gateway.ports('orders')).length === 2)
  const retry = { attempts: 1, on: ['connect-failure'], backoff: { base: '1ms', max: '1ms' }, budget: '100%' }
  const trying = await gatewayFor(t, consul, { orders: {} }, { retry, balance: 'round-robin' })
  await waitFor('both', async () => (await trying.ports('orders')).length === 2)
  t.same(await trying.spread('/orders', 10), { orders: 10 })
})

t.test('no request fails while the authority gets a new key under load', async (t) => {
  const consul = await consulFor(t)
  const [one, two] = [await plain(t, 'one'), await plain(t, 'two')]
  const first = await behindSidecar(t, consul, 'orders', one.port, 'orders-1')
  const second = await behindSidecar(t, consul, 'orders', two.port, 'orders-2')
  const gateway = await gatewayFor(t, consul, { orders: {} })
  await gateway.until('orders', [first.port, second.port])
  const reloads = async () => (await gateway.metric('jingwei_mesh_certificate_reloads_total', 'orders')) ?? 0
  const issuers = async () => [await issuerAt(first.port), await issuerAt(second.port)]
  const before = await issuers()
  const load = steadyLoad(gateway, ['/orders'], { concurrency: 4, pauseMs: 5, postEvery: 5 })
  await sleep(500)
  const { privateKey } = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    privateKeyEncoding: { type: 'sec1', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' }
  })
  const had = await reloads()
  await rotate(consul, privateKey)
  // Agents spread the renewal of leaf certificates over half a minute.
  await waitFor('new roots and a new leaf here', async () => (await reloads()) >= had + 2, 60_000)
  await waitFor('new leaves of the sidecars', async () => (await issuers()).every((cn) => !before.includes(cn)), 60_000)
  await sleep(1000)
  const { sent, failures, by } = await load.stop()
  t.same(failures, [])
  t.ok(sent > 500, `${sent}`)
  t.ok(by.one! > 0 && by.two! > 0)
  t.match(await transportOf(gateway, 'orders'), { error: null })
})

t.test('Connect-native instances are called with a minimal token, also while Consul is unavailable', async (t) => {
  const consul = await consulFor(t, { acl: true })
  const { port, callers } = await native(t, consul, 'orders')
  const rules =
    'service "gateway" { policy = "write" } service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }'
  await intend(consul, 'gateway', 'orders', 'allow')
  const gateway = await gatewayFor(t, consul, { orders: {}, other: {} }, {}, { token: await consul.createToken(rules) })
  await gateway.until('orders', [port])
  t.equal((await gateway.send('/orders')).status, 200)
  // No intention names the service `other`, so the default policy of the ACLs applies.
  await waitFor('the default', async () => (await gateway.send('/other')).status === 403)
  t.match(callers, [/^URI:spiffe:.*\/svc\/gateway$/])
  await consul.kill()
  await waitFor('the admin port shows the outage', async () => (await gateway.health()).services.orders?.error !== null)
  // Each request opens a new connection, with the last known certificate and intentions.
  for (let count = 0; count < 5; count++) t.equal((await gateway.send('/orders')).status, 200)
  t.equal((await gateway.send('/other')).status, 403)
})

t.test('without a leaf certificate there are no instances, and the gateway reports the reason', async (t) => {
  const consul = await consulFor(t, { acl: true })
  const orders = await plain(t, 'orders')
  await behindSidecar(t, consul, 'orders', orders.port)
  await intend(consul, 'gateway', 'orders', 'allow')
  const token = await consul.createToken('service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }')
  const { build } = await import('../../app.ts')
  const { parseConfig } = await import('../../plugins/config.ts')
  const { yamlOf } = await import('../helpers/e2e/config.ts')
  const yaml = yamlOf({ consul: consul.url, token, services: { orders: {} }, mesh: connect })
  const server = build(parseConfig(yaml, '/tmp/gateway.yaml'), { logger: false })
  t.teardown(() => server.close())
  await server.ready()
  const status = () => server.mesh.status()[0]!
  await waitFor('the reason', () => /service:write on gateway/.test(status().source.error ?? ''))
  t.same(status().instances, [])
  t.equal((await server.inject('/orders')).statusCode, 503)
})

t.test('mode sidecar sends calls through the upstream listener of a local proxy', async (t) => {
  const consul = await consulFor(t)
  const orders = await plain(t, 'orders')
  await behindSidecar(t, consul, 'orders', orders.port)
  const port = await freePort()
  await proxy(t, consul, ['-service=gateway', `-upstream=orders:127.0.0.1:${port}`], port)
  const services = { orders: { sidecar: `http://127.0.0.1:${port}` } }
  const gateway = await inProcess(t, { services, mesh: { mode: 'sidecar', retry: false } })
  await waitFor('the way through both', async () => (await gateway.send('/orders')).status === 200)
  t.match(await gateway.send('/orders'), { status: 200, text: /^orders / })
  t.same(await gateway.ports('orders'), [port])
})
