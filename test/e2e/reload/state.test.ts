/** State that a reload must not reset, as a client or a service observes it. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { claims, keys, token } from '../../helpers/edge/tokens.ts'
import { eventually } from '../../helpers/eventually.ts'
import { waitFor } from '../../helpers/processes.ts'
import type { Changing, ReloadingGateway } from './gateway.ts'
import { startReloading } from './gateway.ts'
import { eventsOf, startCounting } from './service.ts'

const statuses = async (gateway: ReloadingGateway, path: string, count: number): Promise<number[]> => {
  const seen: number[] = []
  for (let n = 0; n < count; n++) seen.push((await gateway.get(path)).status)
  return seen
}

/** Returns the configuration with one more route, so that it is a different configuration. */
const withRoute = (config: Changing, number: number): Changing => ({
  ...config,
  routes: [
    ...(config.routes as object[]),
    {
      name: `number-${number}`,
      match: { path: `/number/${number}` },
      service: Object.keys(config.services as object)[0]
    }
  ]
})

async function reloadSome(gateway: ReloadingGateway, config: Changing, times = 3): Promise<void> {
  for (let number = 1; number <= times; number++) await gateway.reload(withRoute(config, number))
}

const route = (name: string, more: object = {}) => ({ name, match: { path: `/${name}` }, service: name, ...more })

t.test('an open circuit stays open', async (t) => {
  const service = await startCounting(t)
  const circuitBreaker = { minRequests: 5, errorRatio: '50%', openFor: '1h' }
  const config = {
    services: { orders: { instances: [service.url], mesh: { circuitBreaker, retry: false } } },
    routes: [route('orders')]
  }
  const gateway = await startReloading(t, config)
  service.respond(500)
  await waitFor('the circuit is open', async () => (await gateway.get('/orders')).status === 503)
  service.respond(200)
  const hits = service.hits()
  await reloadSome(gateway, config)
  t.strictSame(await statuses(gateway, '/orders', 10), Array(10).fill(503))
  t.equal(service.hits(), hits, 'no call reached the service')
})

t.test('an ejected instance stays ejected', async (t) => {
  const good = await startCounting(t)
  const bad = await startCounting(t)
  const outlierDetection = {
    consecutive5xx: 3,
    interval: '1h',
    baseEjection: '1h',
    maxEjection: '1h',
    maxEjectionPercent: '50%'
  }
  const config = {
    services: {
      orders: { instances: [good.url, bad.url], mesh: { outlierDetection, retry: false, balance: 'round-robin' } }
    },
    routes: [route('orders')]
  }
  const gateway = await startReloading(t, config)
  bad.respond(500)
  for (let n = 0; n < 8; n++) await gateway.get('/orders')
  const hits = bad.hits()
  t.equal(hits, 3)
  bad.respond(200)
  await reloadSome(gateway, config)
  t.strictSame(await statuses(gateway, '/orders', 10), Array(10).fill(200))
  t.equal(bad.hits(), hits)
})

t.test('rate limits keep their counts, also with another maximum', async (t) => {
  const service = await startCounting(t)
  const configOf = (max: number) => ({
    services: { orders: { instances: [service.url] } },
    routes: [route('orders', { edge: { rateLimit: { max, window: '1h' } } })]
  })
  const gateway = await startReloading(t, configOf(6))
  t.strictSame(await statuses(gateway, '/orders', 4), [200, 200, 200, 200])
  await reloadSome(gateway, configOf(6))
  t.strictSame(await statuses(gateway, '/orders', 4), [200, 200, 429, 429])
  await gateway.reload(configOf(20))
  t.strictSame(await statuses(gateway, '/orders', 1), [200], 'a higher limit counts from the same count')
})

t.test('an unchanged service keeps its connections, a changed service opens new ones', async (t) => {
  const steady = await startCounting(t)
  const changing = await startCounting(t)
  const configOf = (number: number) => ({
    services: {
      steady: { instances: [steady.url] },
      changing: { instances: [changing.url], mesh: { timeout: `${5000 + number}ms` } }
    },
    routes: [
      route('steady'),
      route('changing'),
      route('other', { service: 'steady', match: { path: `/other/${number}` } })
    ]
  })
  const gateway = await startReloading(t, configOf(0))
  for (let number = 1; number <= 10; number++) {
    for (const path of ['/steady', '/changing']) t.equal((await gateway.get(path)).status, 200)
    await gateway.reload(configOf(number))
    t.equal((await gateway.get(`/other/${number}`)).status, 200)
    t.equal((await gateway.get(`/other/${number - 1}`)).status, 404)
  }
  t.equal(steady.dials(), 1)
  t.equal(changing.dials(), 10)
})

t.test('a concurrency limit includes requests of the previous configuration', async (t) => {
  const service = await startCounting(t)
  const config = {
    services: { orders: { instances: [service.url], mesh: { circuitBreaker: { maxRequests: 2 }, retry: false } } },
    routes: [route('orders')]
  }
  const gateway = await startReloading(t, config)
  const held = [gateway.get('/orders?events=40&every=50'), gateway.get('/orders?events=40&every=50')]
  await eventually(() => service.hits() === 2)
  await gateway.reload(withRoute(config, 1))
  t.equal((await gateway.get('/orders')).status, 503, 'the limit of two is reached')
  for (const { text } of await Promise.all(held))
    t.equal(text, eventsOf(40), 'streams that began before the reload are complete')
  t.equal((await gateway.get('/orders')).status, 200)
})

t.test('state of plugins is kept in stores, and lost elsewhere', async (t) => {
  const service = await startCounting(t)
  const config = { services: { orders: { instances: [service.url] } }, routes: [route('orders')] }
  const gateway = await startReloading(t, config)
  const kept = async () => JSON.parse((await gateway.get('/kept')).text)
  t.strictSame(await kept(), { kept: 1, own: 1 })
  t.strictSame(await kept(), { kept: 2, own: 2 })
  await reloadSome(gateway, config)
  t.strictSame(await kept(), { kept: 3, own: 1 })
})

t.test('a JWT key set is fetched once for several configurations', async (t) => {
  const service = await startCounting(t)
  const jwks = { keys: [{ ...keys.rsa.publicKey.export({ format: 'jwk' }), kid: 'one', alg: 'RS256', use: 'sig' }] }
  const bearer = token(claims(), keys.rsa, { alg: 'RS256', kid: 'one' })
  let fetched = 0
  const issuer = createServer((_request, response) => {
    fetched++
    response.end(JSON.stringify(jwks))
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => issuer.once('listening', resolve))
  t.teardown(() => issuer.close())
  const url = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}/`
  const jwt = { jwks: url, algorithms: ['RS256'] }
  const config = { services: { orders: { instances: [service.url] } }, routes: [route('orders', { edge: { jwt } })] }
  const gateway = await startReloading(t, config)
  const ask = () => fetch(`${gateway.url}/orders`, { headers: { authorization: `Bearer ${bearer}` } })
  t.equal((await ask()).status, 200)
  await reloadSome(gateway, config)
  t.equal((await ask()).status, 200)
  t.equal(fetched, 1)
})

t.test('a previous configuration closes once its last request has ended', async (t) => {
  const service = await startCounting(t)
  const config = { services: { orders: { instances: [service.url] } }, routes: [route('orders')] }
  const gateway = await startReloading(t, config)
  const closed = () => gateway.log().filter(({ msg }) => msg === 'probe closed').length
  let over = false
  const stream = gateway.get('/orders?events=60&every=50').finally(() => {
    over = true
  })
  await eventually(() => service.hits() === 1)
  await gateway.reload(withRoute(config, 1))
  await gateway.reload(withRoute(config, 2))
  await eventually(() => closed() === 1, 'the second configuration, which had no request, has closed')
  await sleep(200)
  t.notOk(over, 'the stream of the first configuration is in progress')
  t.equal(closed(), 1, 'the first configuration has not closed')
  t.equal((await stream).text, eventsOf(60))
  await eventually(() => closed() === 2, 'the first configuration has closed')
  await waitFor('only the third configuration is retained', async () => (await gateway.probe()).generations === 1)
})
