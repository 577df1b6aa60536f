/** Every key of `mesh.healthCheck` and `mesh.outlierDetection`. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import type { Instance } from './support.ts'
import { gatewayOf, instances, urls } from './support.ts'

const state = (which: string) => `jingwei_mesh_instances{service="orders",state="${which}"}`
const flips = (concern: string, to: string) =>
  `jingwei_mesh_health_flips_total{service="orders",concern="${concern}",to="${to}"}`

async function gatewayTo(t: Test, mesh: string, names = ['a', 'b', 'c']) {
  const some = await instances(t, ...names)
  const world = await gatewayOf(
    t,
    `
services: { orders: { instances: ${urls(some)}, mesh: { balance: round-robin, retry: false, ${mesh} } } }
routes: [{ name: orders, match: { path: / }, service: orders }]
`
  )
  const view = async (name: string) => {
    const { url } = some.find((each) => each.name === name)!
    return (await world.service('orders')).instances.find(({ origin }) => origin === url)!
  }
  return { some, view, ...world }
}

const respondTo = (some: Instance[], path: string, statusOf: (each: Instance) => number) => {
  for (const each of some) {
    each.respond = ({ url }, response) => url === path && Boolean(response.writeHead(statusOf(each)).end())
  }
}

t.test(
  'healthCheck: path, host, statuses, thresholds; unavailable and available again, in the admin port, log and metrics',
  async (t) => {
    let ill = false
    const options = `healthCheck: {
    path: /up, host: orders.internal, statuses: [204, 300-399], interval: 50ms, jitter: 0%, timeout: 500ms,
    unhealthyThreshold: 2, healthyThreshold: 3 }`
    const { some, view, ...world } = await gatewayTo(t, options)
    respondTo(some, '/up', ({ name }) => (name === 'b' && ill ? 200 : name === 'c' ? 301 : 204))
    const checks = 'jingwei_mesh_health_checks_total{service="orders",outcome="success"}'
    while ((await world.metric(checks))! < 6) await sleep(10)
    t.strictSame(await world.spread(6, '/'), { a: 2, b: 2, c: 2 })
    const [check] = some[0]!.seen.filter(({ url }) => url === '/up')
    t.equal(check!.headers.host, 'orders.internal')

    ill = true
    await world.until(state('unavailable'), 1)
    t.strictSame(await world.spread(6, '/'), { a: 3, c: 3 })
    const failing = await view('b')
    t.equal(failing.available, false)
    t.match(failing.obstacles, { 'health-check': /200/ })
    t.match(failing.concerns['health-check'], { outcome: 'failure', reason: String })
    t.equal(await world.metric(flips('health-check', 'unavailable')), 1)
    ill = false
    await world.until(state('available'), 3)
    t.match((await view('b')).concerns['health-check'], { outcome: 'success' })
    const said = world.log.filter(({ msg }) => /^instance .+ is (un)?available$/.test(String(msg)))
    t.match(said, [{ msg: / is unavailable$/, concern: 'health-check' }, { msg: / is available$/ }])
  }
)

t.test('healthCheck type tcp, timeout; false for one service', async (t) => {
  const [a, b] = await instances(t, 'a', 'b')
  a!.respond = ({ url }) => url === '/health' // never responds to it
  const world = await gatewayOf(
    t,
    `
mesh: { balance: round-robin, healthCheck: { type: tcp, interval: 50ms } }
services:
  tcp: { instances: [${a!.url}, "http://127.0.0.1:1"] }
  http: { instances: [${a!.url}, ${b!.url}], mesh: { healthCheck: { interval: 100ms, timeout: 300ms } } }
  none: { instances: [${a!.url}, "http://127.0.0.1:1"], mesh: { healthCheck: false } }
routes:
  - { name: tcp, match: { path: /tcp }, service: tcp }
  - { name: http, match: { path: /http }, service: http }
`
  )
  b!.respond = () => false
  await world.until('jingwei_mesh_instances{service="tcp",state="unavailable"}', 1)
  await world.until('jingwei_mesh_instances{service="http",state="unavailable"}', 1)
  t.strictSame(await world.spread(4, '/tcp'), { a: 4 })
  t.strictSame(await world.spread(4, '/http'), { b: 4 })
  t.equal(await world.metric('jingwei_mesh_instances{service="none",state="available"}'), 2)
  t.equal(await world.metric('jingwei_mesh_health_checks_total{service="none",outcome="success"}'), null)
})

t.test(
  'outlierDetection: consecutive5xx, baseEjection, maxEjectionPercent; available again after its ejection time',
  async (t) => {
    const options = `outlierDetection: {
    consecutive5xx: 3, consecutiveGatewayFailures: false, interval: 200ms, baseEjection: 1500ms, maxEjection: 2s,
    maxEjectionPercent: 50% }`
    const { view, ...world } = await gatewayTo(t, options)
    t.match(await world.spread(9, '/?status=500&at=b'), { 500: 3 })
    t.equal(await world.metric(state('unavailable')), 1)
    t.match(await view('b'), { available: false, obstacles: { 'outlier-detection': String } })
    t.strictSame(await world.spread(6, '/?status=500&at=b'), { a: 3, c: 3 })
    t.equal(await world.metric('jingwei_mesh_ejections_total{service="orders",reason="consecutive-5xx"}'), 1)
    t.equal(await world.metric('jingwei_mesh_ejections_active{service="orders"}'), 1)
    t.ok((await world.chain('/')).includes('outlier-detection'))
    await world.until(state('available'), 3)
    t.strictSame(await world.spread(3, '/'), { a: 1, b: 1, c: 1 })
    t.equal(await world.metric(flips('outlier-detection', 'available')), 1)
  }
)

t.test('outlierDetection: consecutiveGatewayFailures; a reset counts, 4xx and 500 do not', async (t) => {
  const options = 'outlierDetection: { consecutive5xx: false, consecutiveGatewayFailures: 2 }'
  const { view, ...world } = await gatewayTo(t, options, ['a', 'b'])
  await world.spread(10, '/?status=500&at=b')
  await world.spread(10, '/?status=404&at=b')
  t.equal((await view('b')).available, true)
  await world.spread(4, '/?reset&at=b')
  t.equal((await view('b')).available, false)
  t.match(await view('b'), { obstacles: { 'outlier-detection': String } })
})

t.test('outlierDetection: successRate and failurePercentage, by the interval', async (t) => {
  const never = 'consecutive5xx: false, consecutiveGatewayFailures: false, interval: 300ms, maxEjectionPercent: 40%'
  const rate = 'successRate: { minHosts: 3, minRequests: 5, stdevFactor: 0.5 }'
  const share = 'failurePercentage: { threshold: 60%, minHosts: 3, minRequests: 5 }'
  for (const way of [rate, share]) {
    const { view, ...world } = await gatewayTo(t, `outlierDetection: { ${never}, ${way} }`)
    for (let i = 0; (await view('c')).available; i++) {
      if (i > 40) throw new Error(`not ejected: ${way}`)
      await world.spread(18, '/?status=503&at=c')
    }
    t.pass(way)
    t.strictSame(await world.spread(4, '/'), { a: 2, b: 2 })
    t.match((await view('c')).obstacles, { 'outlier-detection': String })
  }
})

t.test('outlierDetection in shadow mode ejects no instance and reports which it would have ejected', async (t) => {
  const { view, ...world } = await gatewayTo(t, 'outlierDetection: { mode: shadow, consecutive5xx: 2 }')
  t.strictSame(await world.spread(12, '/?status=500&at=b'), { a: 4, c: 4, 500: 4 })
  t.equal((await view('b')).available, true)
  t.ok((await world.metric('jingwei_mesh_shadowed_total{service="orders",concern="outlier-detection"}'))! >= 1)
  t.match((await view('b')).concerns, { 'outlier-detection': Object })
})

t.test('a passing health check ends an ejection by outlier detection early', async (t) => {
  const options = `outlierDetection: { consecutive5xx: 1, interval: 100ms, baseEjection: 1h, maxEjection: 1h },
    healthCheck: { interval: 50ms, healthyThreshold: 1 }`
  const { some, ...world } = await gatewayTo(t, options, ['a', 'b'])
  respondTo(some, '/health', () => 200)
  const checks = 'jingwei_mesh_health_checks_total{service="orders",outcome="success"}'
  while ((await world.metric(checks))! < 4) await sleep(10)
  await world.until(state('available'), 2)
  await world.spread(2, '/?status=500&at=b')
  t.equal(await world.metric(flips('outlier-detection', 'unavailable')), 1)
  await world.until(state('available'), 2)
  t.equal(await world.metric(flips('outlier-detection', 'available')), 1)
})
