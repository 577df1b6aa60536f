/** The token bucket toward a service: calls that pass, wait or are refused. */
import type { Test } from 'tap'
import t from 'tap'
import type { DispatchOptions } from '../../../plugins/mesh/core/types.ts'
import type { Mesh } from '../../../plugins/mesh/mesh.ts'
import { breakingBody } from '../../helpers/mesh/breaking-body.ts'
import { meshOf, meterStub, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { policyOf } from '../../helpers/mesh/policy.ts'
import { upstream } from '../../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const get = { origin, path: '/', method: 'GET' } as const
const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length
const statusOf = (mesh: Mesh) => mesh.status()[0]!.concerns['rate-limit'] as { tokens: number; pending: number }

async function limited(t: Test, limit: object, policy: Parameters<typeof service>[2] = {}, clock = true) {
  const at = { now: 1_000 }
  const stub = meterStub()
  const { url, requests } = await upstream(t, 'a')
  const services = [service('orders', [url], { ...policyOf({ limit }), ...policy })]
  const mesh = meshOf(t, services, { meter: stub.meter, ...(clock && { now: () => at.now }) })
  const send = (path: string) => {
    const recorder = new Recorder()
    mesh.dispatch({ ...get, path }, recorder)
    return recorder
  }
  const count = (outcome: string) => stub.counts[`jingwei_mesh_limited_total{orders,${outcome}}`] ?? 0
  const arrived = () => requests.map(({ url }) => url)
  return { mesh, at, send, count, arrived, counts: stub.counts }
}

t.test('a burst passes, the next calls wait in order, more are refused', async (t) => {
  const { mesh, at, send, count, arrived } = await limited(t, { rate: 10, burst: 2, queue: 2 })
  t.ok(mesh.describe('orders').includes('rate-limit'))
  const burst = [send('/1'), send('/2')]
  const waiting = [send('/3'), send('/4')]
  const refusal = send('/5')
  t.match(refusal.error, { code: 'JW_UPSTREAM_LIMITED', retryAfterMs: 300 }, 'the call is refused at once')
  t.strictSame([count('queued'), count('refused')], [2, 1])
  t.match(statusOf(mesh), { mode: 'enforce', rate: 10, perMs: 1_000, burst: 2, tokens: 0, pending: 2 })
  await Promise.all(burst.map(({ done }) => done))
  t.strictSame(arrived().toSorted(), ['/1', '/2'])
  at.now += 100
  await waiting[0]!.done
  t.equal(statusOf(mesh).pending, 1)
  at.now += 100
  await waiting[1]!.done
  t.strictSame(arrived().slice(2), ['/3', '/4'])
})

t.test('no call waits for longer than queueTimeout; one that would is refused at once', async (t) => {
  const { send, at } = await limited(t, { rate: 10, burst: 1, queueTimeout: '250ms' })
  const calls = [send('/1'), send('/2'), send('/3')]
  t.match(
    send('/4').error,
    { code: 'JW_UPSTREAM_LIMITED', retryAfterMs: 300 },
    'the call is refused, since its token would come after 300 ms'
  )
  at.now += 200
  await Promise.all(calls.map(({ done }) => done))
  t.ok(calls.every(({ error }) => error === null))
})

t.test('without a queue, more are refused at once', async (t) => {
  const before = timers()
  const { send, at, count } = await limited(t, { rate: 1, queue: 0 })
  const first = send('/1')
  t.match(send('/2').error, { code: 'JW_UPSTREAM_LIMITED' })
  await first.done
  at.now += 1_000
  const second = send('/3')
  await second.done
  t.strictSame([second.error, count('queued'), count('refused')], [null, 0, 1])
  t.ok(timers() <= before + 3, 'no timer remains, except those of the connection and the call')
})

t.test('an abort frees the slot in the queue at once; its token goes to the next call', async (t) => {
  const { mesh, send, at, arrived } = await limited(t, { rate: 10, burst: 1, queue: 2 })
  const first = send('/1')
  const [second, third] = [send('/2'), send('/3')]
  t.match(send('/4').error, { code: 'JW_UPSTREAM_LIMITED' })
  second.controller.abort(new Error('gone'))
  const fifth = send('/5')
  t.equal(fifth.error, null)
  await first.done
  at.now += 100
  await third.done
  at.now += 100
  await fifth.done
  t.strictSame(arrived(), ['/1', '/3', '/5'])
  t.equal(statusOf(mesh).pending, 0)
})

t.test('all waiting calls share one timer, which ends without them', async (t) => {
  const { send, at, mesh } = await limited(t, { rate: 1, burst: 1, queueTimeout: '1h' }, { timeout: 3_600_000 })
  await send('/1').done
  const before = timers()
  const one = send('/2')
  const withOne = timers()
  const others = Array.from({ length: 50 }, () => send('/3'))
  // Each call also has its deadline.
  t.equal(timers() - withOne, 50)
  t.equal(withOne - before, 2)
  for (const { controller } of [one, ...others]) controller.abort(new Error('gone'))
  t.equal(timers(), before)
  t.equal(statusOf(mesh).pending, 0)
  at.now += 1_000
  await send('/4').done
})

t.test('the wait counts against the deadline', async (t) => {
  const { mesh, send, arrived } = await limited(t, { rate: 1, burst: 1 }, { timeout: 100 })
  await send('/1').done
  const late = send('/2')
  await late.done
  t.match(late.error, { code: 'JW_CALL_TIMEOUT' })
  t.equal(statusOf(mesh).pending, 0)
  t.strictSame(arrived(), ['/1'])
})

t.test('a retry consumes a token, too', async (t) => {
  const requests: string[] = []
  const { url } = await upstream(t, 'a', (request, response) => {
    requests.push(request.url!)
    response.writeHead(503).end()
  })
  const retry = { ...retryOptions, on: [503 as const], attempts: 5 }
  const mesh = meshOf(t, [service('orders', [url], { ...policyOf({ limit: { rate: 1, burst: 3, queue: 0 } }), retry })])
  await t.rejects(mesh.request(get), { code: 'JW_UPSTREAM_LIMITED' })
  t.equal(requests.length, 3)
})

t.test('by the real clock, all calls pass in order, no faster than the rate', async (t) => {
  const { send, arrived } = await limited(t, { rate: 100, burst: 1, queueTimeout: '5s' }, {}, false)
  const from = performance.now()
  const calls = Array.from({ length: 21 }, (_, i) => send(`/${i}`))
  await Promise.all(calls.map(({ done }) => done))
  const elapsed = performance.now() - from
  t.ok(elapsed >= 195, `${elapsed} ms`)
  t.strictSame(
    arrived(),
    calls.map((_, i) => `/${i}`)
  )
})

t.test('a mesh that shuts down completes calls that wait', async (t) => {
  const { send, mesh } = await limited(t, { rate: 20, burst: 1 }, {}, false)
  const calls = [send('/1'), send('/2'), send('/3')]
  await mesh.shutdown(5_000)
  await Promise.all(calls.map(({ done }) => done))
  t.ok(calls.every(({ error }) => error === null))
})

t.test('shadow: counts calls that would be refused, and delays none', async (t) => {
  const { mesh, at, send, counts } = await limited(t, { mode: 'shadow', rate: 10, burst: 2, queue: 1 })
  const shadowed = () => counts['jingwei_mesh_shadowed_total{orders,rate-limit}'] ?? 0
  const calls = [send('/1'), send('/2'), send('/3'), send('/4'), send('/5')]
  await Promise.all(calls.map(({ done }) => done))
  t.ok(calls.every(({ error }) => error === null))
  t.equal(shadowed(), 2, 'two calls pass, the third would have waited')
  t.match(statusOf(mesh), { mode: 'shadow', pending: 1 })
  at.now += 100
  await send('/6').done
  t.equal(shadowed(), 2)
  await send('/7').done
  t.equal(shadowed(), 3)
})

t.test('a request body that fails in a queue ends the call, not the process', async (t) => {
  const { url } = await upstream(t, 'a')
  const { limit } = policyOf({ limit: { rate: 1, per: '1h', burst: 1, queueTimeout: '2h' } })
  const mesh = meshOf(t, [service('orders', [url], { limit: limit! })])
  await mesh.request(get).then(({ body }) => body.text())
  const { body, breakOff } = breakingBody()
  const recorder = new Recorder()
  mesh.dispatch({ ...get, method: 'POST', body } as DispatchOptions, recorder)
  breakOff()
  await recorder.done
  t.equal(recorder.error?.message, 'left')
  t.equal(mesh.status()[0]!.active, 0)
  t.match(mesh.status()[0]!.concerns, { 'rate-limit': { pending: 0 } })
})
