// slow: takes about 2 s
/** Circuits of routes: own state, metrics and options; connections and caps of the service; kept over reloads. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Test } from 'tap'
import t from 'tap'
import { Mesh } from '../../../plugins/mesh/mesh.ts'
import { Stores } from '../../../plugins/stores.ts'
import { configOf, get, startGateway } from '../../helpers/gateway.ts'
import { meterStub } from '../../helpers/mesh/mesh.ts'
import { upstream } from '../../helpers/mesh/servers.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** A service whose status is the last segment of the path. */
const statusService = (t: Test) =>
  upstream(t, 'a', (request, response) => {
    response.statusCode = Number(request.url!.split('/').at(-1))
    request.resume().on('end', () => response.end())
  })

const inRow = (more: object = {}) => ({ consecutiveFailures: 2, errorRatio: false, slowRatio: false, ...more })

const configFor = (url: string, circuitBreaker: object | false, mesh: object = {}) => ({
  admin: { port: 0 },
  services: { shop: { instances: [url], mesh } },
  routes: [
    { name: 'pay', match: { path: '/pay' }, service: 'shop', mesh: { circuitBreaker } },
    { name: 'search', match: { path: '/search' }, service: 'shop', mesh: { circuitBreaker: inRow() } },
    { name: 'rest', match: { path: '/' }, service: 'shop' }
  ]
})

t.test('the circuit of a route opens for this route alone', async (t) => {
  const { url, requests, sockets } = await statusService(t)
  const gateway = await startGateway(configFor(url, inRow({ openFor: '30s' })))
  t.teardown(() => gateway.close())
  const ask = async (path: string) => (await get(gateway.port, path)).status
  t.equal(await ask('/pay/500'), 500)
  t.equal(await ask('/search/500'), 500, 'failures of another route do not count')
  t.equal(await ask('/other/500'), 500)
  t.equal(await ask('/pay/503'), 503)
  t.equal(requests.length, 4)
  const refused = await get(gateway.port, '/pay/200')
  t.equal(refused.status, 503)
  t.match(JSON.parse(refused.body), { code: 'JW_CIRCUIT_OPEN' })
  t.ok(Number(refused.headers['retry-after']) > 20)
  t.equal(requests.length, 4)
  t.equal(await ask('/search/200'), 200)
  t.equal(await ask('/other/200'), 200)
  t.equal(sockets.size, 1, 'the routes share the connections of the service')

  const { admin } = gateway.server
  const metrics = (await admin!.inject('/metrics')).body
  t.match(metrics, 'jingwei_mesh_route_circuit_state{route="pay",service="shop"} 2')
  t.match(metrics, 'jingwei_mesh_route_circuit_state{route="search",service="shop"} 0')
  t.match(metrics, 'jingwei_mesh_route_circuit_transitions_total{route="pay",service="shop",to="open"} 1')
  t.match(metrics, 'jingwei_mesh_route_circuit_refusals_total{route="pay",service="shop"} 1')
  t.notMatch(metrics, 'jingwei_mesh_circuit_state{service="shop"}')
  const explained = (await admin!.inject('/admin/explain?path=/pay/1')).json()
  t.ok(explained.mesh[0].chain.includes('circuit-breaker'))
  t.match(explained.mesh[0].decisions, [
    ['circuit-breaker', 'the circuit of this route opens after 2 failures in a row (500-599, or no response), for 30s']
  ])
  t.match(explained.mesh[0].status.concerns['circuit-breaker pay'], { state: 'open', failuresInRow: 2 })
  const other = (await admin!.inject('/admin/explain?path=/other')).json()
  t.notOk(other.mesh[0].chain.includes('circuit-breaker'))
})

t.test('the circuit of a route replaces that of the service; the caps of the service apply', async (t) => {
  const { url } = await statusService(t)
  const mesh = { circuitBreaker: inRow({ consecutiveFailures: 1, maxRequests: 7 }) }
  const gateway = await startGateway(configFor(url, false, mesh))
  t.teardown(() => gateway.close())
  const ask = async (path: string) => (await get(gateway.port, path)).status
  for (let i = 0; i < 3; i++) t.equal(await ask('/pay/500'), 500, 'off')
  t.equal(await ask('/search/500'), 500)
  t.equal(await ask('/search/200'), 200, 'one failure of two')
  t.equal(await ask('/other/500'), 500)
  t.equal(await ask('/other/200'), 503, 'the circuit of the service')
  t.equal(await ask('/search/200'), 200)
  const { concerns } = gateway.server.mesh.status()[0]!
  t.match(concerns.caps, { maxRequests: 7 })
  t.match(concerns['circuit-breaker'], { state: 'open' })
  t.match(concerns['circuit-breaker search'], { state: 'closed' })
  t.notOk(Object.hasOwn(concerns, 'circuit-breaker pay'))
})

t.test('failureStatuses: what counts as a failure', async (t) => {
  const { url } = await statusService(t)
  const gateway = await startGateway(configFor(url, inRow({ failureStatuses: [429, '502-504'] })))
  t.teardown(() => gateway.close())
  const ask = async (path: string) => (await get(gateway.port, path)).status
  for (const status of [500, 501, 429, 500, 504, 404, 429]) t.equal(await ask(`/pay/${status}`), status)
  t.equal(await ask('/pay/502'), 502)
  t.equal(await ask('/pay/200'), 503, '429 and 502 in a row')
})

t.test('a route with several services has a circuit for each', async (t) => {
  const [good, bad] = [await upstream(t, 'good'), await statusService(t)]
  const gateway = await startGateway({
    services: { good: { instances: [good.url] }, bad: { instances: [bad.url] } },
    routes: [
      {
        name: 'all',
        match: { path: '/' },
        split: [
          { service: 'good', weight: 1 },
          { service: 'bad', weight: 0, match: { headers: { 'x-bad': '1' } } }
        ],
        mesh: { circuitBreaker: inRow() }
      }
    ]
  })
  t.teardown(() => gateway.close())
  const ask = async (...headers: string[]) => (await get(gateway.port, '/500', headers)).status
  for (let i = 0; i < 2; i++) t.equal(await ask('x-bad: 1'), 500)
  t.equal(await ask('x-bad: 1'), 503)
  t.equal(await ask(), 200)
})

t.test('shadow mode refuses nothing', async (t) => {
  const { url } = await statusService(t)
  const gateway = await startGateway(configFor(url, inRow({ mode: 'shadow' })))
  t.teardown(() => gateway.close())
  for (let i = 0; i < 4; i++) t.equal((await get(gateway.port, '/pay/500')).status, 500)
  const metrics = (await gateway.server.admin!.inject('/metrics')).body
  t.match(metrics, 'jingwei_mesh_shadowed_total{service="shop",concern="route-circuit-breaker"} 2')
  t.match(metrics, 'jingwei_mesh_route_circuit_refusals_total{route="pay",service="shop"} 0')
  t.match(metrics, 'jingwei_mesh_route_circuit_transitions_total{route="pay",service="shop",to="open"} 1')
  t.notMatch(metrics, 'jingwei_mesh_route_circuit_state{route="pay"')
})

t.test('a reload keeps the circuit of an unchanged route, and ends those of changed and removed ones', async (t) => {
  const { url } = await statusService(t)
  const log = { info() {}, warn() {}, error() {} }
  const { meter, gauges } = meterStub()
  const stores = new Stores()
  const start = async (config: object) => {
    const claims = stores.open(log)
    const { services, routes, discovery } = configOf(config)
    const mesh = await Mesh.create({ services, routes, discovery }, { log, claims, meter })
    await mesh.startInSlices()
    const ask = async (route: number, status: number) => {
      const { mesh: policy } = routes[route]!.targets[0]!
      const call = { origin: 'http://shop.mesh', path: `/${status}`, method: 'GET', mesh: policy } as const
      const { statusCode, body } = await mesh.request(call).catch((error) => ({ statusCode: error.code, body: null }))
      await body?.dump()
      return statusCode
    }
    const retire = async () => {
      await mesh.shutdown()
      await claims.release()
    }
    return { ask, retire, states: () => mesh.status()[0]!.concerns, mesh: new WeakRef(mesh) }
  }
  const config = configFor(url, inRow({ openFor: '1h' }))
  const first = await start(config)
  for (let i = 0; i < 2; i++) t.equal(await first.ask(0, 500), 500)
  t.equal(await first.ask(0, 200), 'JW_CIRCUIT_OPEN')

  const second = await start({ ...config, edge: { bodyLimit: '1mb' } })
  t.equal(await second.ask(0, 200), 'JW_CIRCUIT_OPEN', 'still open')
  await first.retire()
  t.equal(await second.ask(0, 200), 'JW_CIRCUIT_OPEN')
  t.strictSame(
    Object.keys(second.states()).filter((name) => name.startsWith('circuit')),
    ['circuit-breaker pay', 'circuit-breaker search']
  )

  const changed = { ...config, routes: [{ ...config.routes[0]!, mesh: { circuitBreaker: inRow({ openFor: '2h' }) } }] }
  const third = await start(changed)
  t.equal(await third.ask(0, 200), 200, 'a new circuit')
  await second.retire()
  t.strictSame(
    Object.keys(third.states()).filter((name) => name.startsWith('circuit')),
    ['circuit-breaker pay']
  )
  t.strictSame(gauges.jingwei_mesh_route_circuit_state!(), [[{ route: 'pay', service: 'shop' }, 0]])
  for (const former of [first, second]) {
    const { mesh } = former
    for (const key of ['ask', 'retire', 'states']) Reflect.deleteProperty(former, key)
    for (let i = 0; i < 20 && mesh.deref() !== undefined; i++) {
      await new Promise((resolve) => setImmediate(resolve))
      collect()
    }
    t.equal(mesh.deref(), undefined, 'the circuits hold no reference to a former mesh')
  }
  await third.retire()
  t.strictSame(gauges.jingwei_mesh_route_circuit_state!(), [])
})

t.test('a policy of a call itself has its circuit, shared by calls with the same options', async (t) => {
  const { url } = await statusService(t)
  const gateway = await startGateway(configFor(url, inRow()))
  t.teardown(() => gateway.close())
  const { mesh: policy } = configOf(configFor(url, inRow({ window: '7s' }))).routes[0]!
  const ask = async () => {
    // A policy of its own for each call.
    const call = { origin: 'http://shop.mesh', path: '/500', method: 'GET', mesh: { ...policy } } as const
    const { statusCode, body } = await gateway.server.mesh.request(call)
    await body.dump()
    return statusCode
  }
  t.equal(await ask(), 500)
  t.equal(await ask(), 500)
  await t.rejects(ask(), { code: 'JW_CIRCUIT_OPEN' })
})
