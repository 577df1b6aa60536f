// slow: takes about 9 s
/** A blocked event loop: timeouts that it causes count against no instance. */
import type { Test } from 'tap'
import t from 'tap'
import { LoopClock } from '../../../plugins/mesh/core/loop-clock.ts'
import { eventually } from '../../helpers/eventually.ts'
import { checkOptions, outlierOptions } from '../../helpers/mesh/health.ts'
import { meterStub, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { connecting, upstream } from '../../helpers/mesh/servers.ts'
import { startMesh } from '../../helpers/mesh/start-mesh.ts'

const get = { origin: 'http://orders.mesh', path: '/', method: 'GET' } as const

function block(ms: number): void {
  const end = performance.now() + ms
  while (performance.now() < end);
}

t.test('the clock stands still while no timer runs', async (t) => {
  let wallMs = 1000
  const blocks: number[] = []
  const clock = new LoopClock((ms) => blocks.push(ms), () => wallMs) // biome-ignore format: short
  t.equal(clock.now(), 1000)
  wallMs = 5000
  t.equal(clock.now(), 5000, 'there is no lag before the first timer')
  clock.start()
  t.teardown(() => clock.close())
  wallMs = 5200
  t.equal(clock.now(), 5200, 'a lag within the tolerance is ignored')
  wallMs = 8200
  t.strictSame([clock.now(), clock.stalledMs()], [5200, 3000], 'the lag is excluded before the timer runs')
  clock.tick()
  t.strictSame([clock.now(), clock.stalledMs(), blocks], [5200, 3000, [3000]])
  wallMs = 8300
  clock.tick()
  t.strictSame([clock.now(), clock.stalledMs(), blocks], [5300, 3000, [3000]])
})

/** A mesh that would eject, open its circuit and retry at the first failure. */
function touchy(t: Test, instances: string[], policy: object) {
  const stub = meterStub()
  const lines: { reason?: unknown }[] = []
  const note = (fields: object) => void lines.push(fields)
  const log = { info: note, warn: note, error: note }
  const outlierDetection = outlierOptions({ consecutive5xx: 1, consecutiveGatewayFailures: 1 })
  const retry = {
    ...retryOptions,
    on: ['connect-failure', 'reset', 'gateway-error', '5xx'] as (typeof retryOptions)['on']
  }
  const orders = service('orders', instances, { outlierDetection, retry, ...policy })
  const mesh = startMesh({ services: { orders } }, { ...stub, log })
  t.teardown(() => mesh.destroy())
  const assertNoneBlamed = () => {
    for (const { available, origin } of mesh.status()[0]!.instances) t.ok(available, origin)
    t.strictSame(
      Object.keys(stub.counts).filter((name) => /ejection|retries|flips|failure/.test(name)),
      []
    )
  }
  return { mesh, assertNoneBlamed, warnings: () => lines.filter(({ reason }) => reason === 'cpu').length, ...stub }
}

t.test('timeouts of attempts and calls in flight are extended by the block', async (t) => {
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b')]
  for (const policy of [{ attemptTimeout: 300 }, { timeout: 300 }]) {
    const { mesh, assertNoneBlamed, warnings, counts } = touchy(t, [a.url, b.url], policy)
    await mesh.ready()
    const calls = [1, 2, 3, 4].map(() => mesh.request(get).then(({ body }) => body.text()))
    setImmediate(() => block(1500))
    t.strictSame((await Promise.all(calls)).sort(), ['a', 'a', 'b', 'b'])
    assertNoneBlamed()
    t.equal(warnings(), 1, 'the block is logged once')
    t.equal(counts['jingwei_mesh_exhausted_total{cpu}'], 1)
  }
})

t.test('calls of a loop that is blocked repeatedly fail with 503, and no instance is blamed', async (t) => {
  // Handshakes never end, so no attempt would.
  const { url } = await connecting(t)
  for (const policy of [{ attemptTimeout: 200 }, { timeout: 200 }, { connectTimeout: 200 }]) {
    const { mesh, assertNoneBlamed } = touchy(t, [url], policy)
    await mesh.ready()
    let over = false
    const call = mesh.request(get).finally(() => {
      over = true
    })
    const again = () => {
      if (over) return
      block(400)
      setTimeout(again, 1)
    }
    again()
    await t.rejects(call, { code: 'JW_OUT_OF_CPU' }, JSON.stringify(policy))
    assertNoneBlamed()
  }
})

t.test('active checks have no result during a block', async (t) => {
  const { server, url } = await upstream(t, 'a')
  let checks = 0
  server.on('request', () => checks++)
  const healthCheck = checkOptions({ interval: '20ms', timeout: '50ms', unhealthyThreshold: 1 })
  const { assertNoneBlamed } = touchy(t, [url], { healthCheck })
  await eventually(() => checks > 0, 'the first check')
  for (let i = 0; i < 4; i++) {
    block(400)
    await eventually(
      (
        (before) => () =>
          checks > before
      )(checks),
      'the next check'
    )
  }
  assertNoneBlamed()
})
