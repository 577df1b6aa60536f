// slow: starts Consul and several processes for each case
/** Sidecars in Consul Connect: real Consul, its authority and intentions, and its own proxy at either end. */
import { randomBytes } from 'node:crypto'
import type { Test } from 'tap'
import t from 'tap'
import type { Consul } from '../helpers/consul.ts'
import { startConsul } from '../helpers/consul.ts'
import { asProcess } from '../helpers/e2e/gateway.ts'
import { startService } from '../helpers/gateway.ts'
import { behindSidecar, intend, proxy } from '../helpers/mesh/connect.ts'
import { freePort, waitFor } from '../helpers/processes.ts'
import { startSidecar } from '../helpers/sidecar.ts'

t.setTimeout(300_000)

async function consulFor(t: Test): Promise<Consul> {
  const consul = await startConsul()
  t.teardown(consul.stop)
  return consul
}

/** A service that sends the body back, and the caller's certificate as its sidecar tells it. */
async function orders(t: Test) {
  const { url, port, close } = await startService((request, response) => {
    response.setHeader('x-caller', String(request.headers['x-forwarded-client-cert'] ?? ''))
    request.pipe(response)
  })
  t.teardown(close)
  return { url, port }
}

const discoveryOf = (consul: Consul) => ({ consul: { url: consul.url } })

/** Our sidecar of the service orders, which Consul knows. */
async function inboundFor(t: Test, consul: Consul, url: string, http2 = false) {
  const inbound = { url, connect: { service: 'orders' }, http2 }
  const sidecar = await startSidecar(t, { discovery: discoveryOf(consul), inbound })
  const Check = { TTL: '10m', Status: 'passing' }
  const Port = sidecar.ports.inbound
  const registered = { Name: 'orders', Port, Address: '127.0.0.1', Check, Connect: { Native: true } }
  await consul.api('PUT', '/v1/agent/service/register', registered)
  return sidecar
}

/** Our sidecar of a service that calls orders. */
async function outboundFor(t: Test, consul: Consul, service: string) {
  const sidecar = await startSidecar(t, {
    discovery: discoveryOf(consul),
    mesh: { mode: 'connect', identity: { service }, retry: false },
    services: { orders: {} },
    outbound: [{ service: 'orders' }]
  })
  return { ...sidecar, port: sidecar.ports['outbound-orders']! }
}

const big = randomBytes(1024 * 1024)

/** A client of a local port. */
function clientOf(port: number) {
  const send = async (body: Buffer = Buffer.from('x'), headers: Record<string, string> = {}) => {
    const options = { method: 'POST', body: new Uint8Array(body), headers: { connection: 'close', ...headers } }
    const response = await fetch(`http://127.0.0.1:${port}/orders`, options)
    const caller = response.headers.get('x-caller')
    return { status: response.status, caller, body: Buffer.from(await response.arrayBuffer()) }
  }
  const until = (status: number) =>
    waitFor(`${status}`, async () => (await send().catch(() => ({ status: 0 }))).status === status, 60_000)
  return { send, until }
}

const codeOf = ({ body }: { body: Buffer }) => (JSON.parse(body.toString()) as { code: string }).code

t.test('both ends ours, behind a gateway: mTLS, the name of the caller, intentions', async (t) => {
  const consul = await consulFor(t)
  const service = await orders(t)
  const inbound = await inboundFor(t, consul, service.url)
  const outbound = await outboundFor(t, consul, 'web')
  const gateway = await asProcess(t, {
    services: { orders: { sidecar: `http://127.0.0.1:${outbound.port}`, mesh: { mode: 'sidecar', retry: false } } }
  })
  const client = clientOf(outbound.port)
  await client.until(200)
  const answer = await client.send(big, { 'x-forwarded-client-cert': 'URI=spiffe://x/svc/admin' })
  t.ok(answer.body.equals(big), 'the same bytes')
  t.match(answer.caller, /^By=spiffe:[^;]+\/svc\/orders;Hash=[\da-f]{64};URI=spiffe:[^;]+\/svc\/web$/)
  t.match(await gateway.send('/orders', { method: 'POST', body: 'through' }), { status: 200, text: 'through' })
  t.match(await inbound.admin.health(), { code: 200 })

  const denied = await intend(consul, 'web', 'orders', 'deny')
  await client.until(403)
  t.match(codeOf(await client.send()), /^JW_(INTENTION_DENIED|CALLER_DENIED)$/)
  t.equal((await gateway.send('/orders')).status, 403)
  await denied.remove()
  await client.until(200)
})

t.test("ours at the caller, Consul's proxy at the service", async (t) => {
  const consul = await consulFor(t)
  const service = await orders(t)
  await behindSidecar(t, consul, 'orders', service.port)
  const outbound = await outboundFor(t, consul, 'web')
  const client = clientOf(outbound.port)
  await client.until(200)
  t.ok((await client.send(big)).body.equals(big), 'the same bytes')
  await intend(consul, 'web', 'orders', 'deny')
  await client.until(403)
  t.equal(codeOf(await client.send()), 'JW_INTENTION_DENIED')
})

for (const http2 of [false, true]) {
  t.test(`Consul's proxy at the caller, ours at the service, with http2: ${http2}`, async (t) => {
    const consul = await consulFor(t)
    const service = await orders(t)
    const inbound = await inboundFor(t, consul, service.url, http2)
    const port = await freePort()
    await proxy(t, consul, ['-service=web', `-upstream=orders:127.0.0.1:${port}`], port)
    const client = clientOf(port)
    await client.until(200)
    const answer = await client.send(big)
    t.ok(answer.body.equals(big), 'the same bytes')
    t.match(answer.caller, /URI=spiffe:[^;]+\/svc\/web$/)
    await intend(consul, 'web', 'orders', 'deny')
    await client.until(403)
    t.equal(codeOf(await client.send()), 'JW_CALLER_DENIED')
    const attempts = await inbound.admin.metric('jingwei_mesh_attempts_total', 'local')
    await client.send()
    t.equal(await inbound.admin.metric('jingwei_mesh_attempts_total', 'local'), attempts, 'the service hears nothing')
  })
}
