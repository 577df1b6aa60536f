// Changes in Consul apply to the next request, and affect no request on the other instances.
import t from 'tap'
import { startConsul } from '../helpers/consul.ts'
import { inProcess } from '../helpers/e2e/gateway.ts'
import { steadyLoad } from '../helpers/e2e/load.ts'
import type { Upstream } from '../helpers/e2e/upstream.ts'
import { upstream } from '../helpers/e2e/upstream.ts'
import { freePort, waitFor } from '../helpers/processes.ts'

const check = { TTL: '10m', Status: 'passing' }

const consul = await startConsul()
t.teardown(consul.stop)

const register = (service: string, { name, port }: Upstream, more: object = {}) =>
  consul.register({ id: `${service}-${name}`, name: service, port, check, ...more })

t.test('registrations, critical checks and deregistrations change the instances', async (t) => {
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b')]
  // Select at random: clients in step can each stay with one instance, with round robin as well as with least request.
  const mesh = { retry: false, balance: 'random' }
  const client = await inProcess(t, { consul: consul.url, services: { orders: {} }, mesh })
  const none = await client.send('/orders')
  t.equal(none.status, 503)
  t.match(JSON.parse(none.text), { code: 'JW_NO_INSTANCE' })
  t.equal((await client.health()).code, 200, 'a service without instances leaves the gateway ready')

  await register('orders', a)
  await client.until('orders', [a.port])
  t.strictSame(await client.spread('/orders', 10), { a: 10 })

  const background = steadyLoad(client, ['/orders'], { concurrency: 3 })
  const changed = performance.now()
  await register('orders', b)
  await waitFor('a request on it', async () => (await client.send('/orders')).instance === 'b')
  t.comment(`from the registration to the first request on it: ${(performance.now() - changed).toFixed(0)} ms`)

  await consul.setCheck('service:orders-b', 'critical')
  await client.until('orders', [a.port])
  t.strictSame(await client.spread('/orders', 50), { a: 50 }, 'a critical instance gets no more requests')
  await consul.setCheck('service:orders-b', 'passing')
  await client.until('orders', [a.port, b.port])
  const both = await client.spread('/orders', 50)
  t.ok(both.a && both.b, 'both instances get requests once the check passes')

  await consul.deregister('orders-b')
  await client.until('orders', [a.port])
  const hits = b.hits()
  t.strictSame(await client.spread('/orders', 50), { a: 50 })
  const { sent, failures } = await background.stop()
  t.equal(b.hits(), hits, 'the deregistered instance got no more requests')
  t.strictSame(failures, [], `none of the ${sent} requests meanwhile failed`)
  t.ok(sent > 100)
})

t.test('a changed address moves the requests', async (t) => {
  const [old, next] = [await upstream(t, 'old'), await upstream(t, 'next')]
  const client = await inProcess(t, { consul: consul.url, services: { moving: {} }, mesh: { retry: false } })
  await consul.register({ id: 'moving-1', name: 'moving', port: old.port })
  await client.until('moving', [old.port])
  const background = steadyLoad(client, ['/moving'], { concurrency: 3 })
  t.strictSame(await client.spread('/moving', 5), { old: 5 })
  await consul.register({ id: 'moving-1', name: 'moving', port: next.port })
  await client.until('moving', [next.port])
  t.strictSame(await client.spread('/moving', 50), { next: 50 })
  t.strictSame((await background.stop()).failures, [], 'no request fails, not even one in flight at the old address')
})

t.test("a request in flight outlives its instance's registration", async (t) => {
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b')]
  const client = await inProcess(t, { consul: consul.url, services: { slow: {} }, mesh: { retry: false } })
  await register('slow', a)
  await client.until('slow', [a.port])
  const response = client.send('/slow?delay=1500')
  await waitFor('it is in flight', () => a.hits() === 1)
  await register('slow', b)
  await consul.deregister('slow-a')
  await client.until('slow', [b.port])
  t.match(await response, { status: 200, instance: 'a' })
})

t.test('Consul weights are honoured', async (t) => {
  const [heavy, light, off] = [await upstream(t, 'heavy'), await upstream(t, 'light'), await upstream(t, 'off')]
  const services = { weighted: { mesh: { balance: 'round-robin' } }, drawn: { consul: { service: 'weighted' } } }
  const client = await inProcess(t, { consul: consul.url, services })
  await register('weighted', heavy, { weights: { passing: 4, warning: 1 } })
  await register('weighted', light, { weights: { passing: 1, warning: 1 } })
  await client.until('weighted', [heavy.port, light.port])
  await client.until('drawn', [heavy.port, light.port])
  t.strictSame(
    await client.spread('/weighted', 100),
    { heavy: 80, light: 20 },
    'round robin distributes exactly by weight'
  )
  // Selected at random, without active requests: 4:1 of 400 is 320, with a standard deviation of 8.
  const drawn = await client.spread('/drawn', 400)
  t.ok(drawn.heavy! > 270 && drawn.heavy! < 370, `least request selected ${JSON.stringify(drawn)}`)

  await register('weighted', heavy, { weights: { passing: 1, warning: 1 } })
  const weightOf = async () => (await client.services())[0]?.instances.find(({ id }) => id.endsWith('heavy'))?.weight
  await waitFor('the gateway has the new weight', async () => (await weightOf()) === 1)
  t.strictSame(await client.spread('/weighted', 100), { heavy: 50, light: 50 }, 'a changed weight counts at once')
  t.equal(off.hits(), 0)
})

t.test('maintenance mode of an instance or of the node removes instances', async (t) => {
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b')]
  const client = await inProcess(t, { consul: consul.url, services: { kept: {} } })
  await register('kept', a)
  await register('kept', b)
  await client.until('kept', [a.port, b.port])
  const maintain = (path: string, on: boolean) => consul.api('PUT', `/v1/agent/${path}?enable=${on}&reason=work`)

  await maintain('service/maintenance/kept-b', true)
  await client.until('kept', [a.port])
  t.strictSame(await client.spread('/kept', 30), { a: 30 })
  await maintain('service/maintenance/kept-b', false)
  await client.until('kept', [a.port, b.port])

  await maintain('maintenance', true)
  await client.until('kept', [])
  t.equal((await client.send('/kept')).status, 503)
  await maintain('maintenance', false)
  await client.until('kept', [a.port, b.port])
  t.equal((await client.send('/kept')).status, 200)
})

t.test('tags, another service name and the warning state select instances', async (t) => {
  const [plain, canary, shaky] = [await upstream(t, 'plain'), await upstream(t, 'canary'), await upstream(t, 'shaky')]
  const services = {
    every: { consul: { service: 'tagged' } },
    http: { consul: { service: 'tagged', tags: ['http'] } },
    canary: { consul: { service: 'tagged', tags: ['http', 'canary'] } },
    lenient: { consul: { service: 'tagged', passingOnly: false } }
  }
  const client = await inProcess(t, { consul: consul.url, services })
  await register('tagged', plain, { tags: ['http'] })
  await register('tagged', canary, { tags: ['canary', 'http'] })
  await register('tagged', shaky, { check: { ...check, Status: 'warning' } })
  await client.until('every', [plain.port, canary.port])
  await client.until('http', [plain.port, canary.port])
  await client.until('canary', [canary.port])
  await client.until('lenient', [plain.port, canary.port, shaky.port])
  t.strictSame(await client.spread('/canary', 20), { canary: 20 })
  t.match(await client.spread('/lenient', 60), { plain: Number, canary: Number, shaky: Number })

  await register('tagged', plain, { tags: ['http', 'canary'] })
  await client.until('canary', [plain.port, canary.port])
  await register('tagged', canary, { tags: [] })
  await client.until('http', [plain.port])
  await client.until('canary', [plain.port])
  t.strictSame(await client.spread('/canary', 20), { plain: 20 })
})

t.test('a registered instance that does not listen fails no request', async (t) => {
  const a = await upstream(t, 'a')
  const port = await freePort()
  const client = await inProcess(t, { consul: consul.url, services: { half: {} } })
  await register('half', a)
  await consul.register({ id: 'half-gone', name: 'half', port })
  await client.until('half', [a.port, port])
  t.strictSame(await client.spread('/half', 50), { a: 50 })
  const posts = await Promise.all(Array.from({ length: 10 }, () => client.send('/half', { method: 'POST', body: 'x' })))
  t.strictSame(
    new Set(posts.map(({ status }) => status)),
    new Set([200]),
    'no POST fails, since no byte of it was sent'
  )
})

t.end() // all subtests are queued; without this call the end would wait for Consul
