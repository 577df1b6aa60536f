/** Fault injection, and callers that may request faults. */
import { createHash } from 'node:crypto'
import t from 'tap'
import type { FaultOptions } from '../../../plugins/mesh/concerns/fault/options.ts'
import { eventually } from '../../helpers/eventually.ts'
import { meshOf, meterStub, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { upstream } from '../../helpers/mesh/servers.ts'

const none: FaultOptions = { header: false, maxActive: 1000 }
const get = { origin: 'http://orders.mesh', path: '/', method: 'GET' } as const

t.test('delays and aborts are injected by their percentages', async (t) => {
  const { url, requests } = await upstream(t, 'a')
  const { meter, counts } = meterStub()
  let draws = 0
  const random = () => (draws++ % 10) / 10
  const fault = { ...none, abort: { status: 503, percent: 0.3 } }
  const mesh = meshOf(t, [service('orders', [url], { fault })], { meter, random })
  draws = 0
  const seen: number[] = []
  for (let i = 0; i < 10; i++) {
    const { statusCode, body, headers } = await mesh.request(get)
    seen.push(statusCode)
    if (statusCode === 503) t.strictSame([await body.text(), headers['content-length']], ['injected fault', '14'])
    else await body.dump()
  }
  t.equal(seen.filter((status) => status === 503).length, 3)
  t.equal(requests.length, 7, 'an abort reaches no instance')
  t.equal(counts['jingwei_mesh_faults_total{orders,abort}'], 3)
  t.equal(mesh.status()[0]!.instances[0]!.active, 0)
})

t.test('an injected fault is retried, and the attempt timeout applies, as to a fault of the service', async (t) => {
  const { url, requests } = await upstream(t, 'a')
  let draws = 0
  const retry = { ...retryOptions, on: [503 as const, 'gateway-error' as const] }
  const aborting = { ...none, abort: { status: 503, percent: 0.5 } }
  const delaying = { ...none, delay: { for: 10_000, percent: 1 } }
  const mesh = meshOf(
    t,
    [
      service('orders', [url], { fault: aborting, retry }),
      service('slow', [url], { fault: delaying, attemptTimeout: 50, timeout: 200 })
    ],
    { random: () => (draws++ === 1 ? 0 : 0.9) }
  )
  draws = 1
  const { statusCode, body } = await mesh.request(get)
  await body.dump()
  t.equal(statusCode, 200)
  t.equal(requests.length, 1, 'the second attempt, no fault')

  await t.rejects(mesh.request({ ...get, origin: 'http://slow.mesh' }), { code: 'JW_ATTEMPT_TIMEOUT' })
  t.equal(requests.length, 1, 'no delayed attempt reaches the service')
  await eventually(() => (mesh.status()[1]!.concerns.fault as { active: number }).active === 0, 'no delay in progress')
})

t.test('a delay ends with its caller', async (t) => {
  const { url, requests } = await upstream(t, 'a')
  const fault = { ...none, delay: { for: 60_000, percent: 1 } }
  const mesh = meshOf(t, [service('orders', [url], { fault })])
  const recorder = new Recorder()
  mesh.dispatch(get, recorder)
  t.strictSame(mesh.status()[0]!.concerns.fault, { active: 1 })
  recorder.controller.abort(new Error('left'))
  await recorder.done
  t.strictSame(mesh.status()[0]!.concerns.fault, { active: 0 })
  t.equal(mesh.status()[0]!.instances[0]!.active, 0)
  t.equal(requests.length, 0)
})

t.test('a bandwidth limit slows a body, loses no byte, and respects pauses of the caller', async (t) => {
  const sent = Buffer.alloc(300_000, 'jingwei')
  const { url } = await upstream(t, 'a', (request, response) => {
    request.resume()
    response.end(sent)
  })
  const fault = { ...none, bandwidth: { limit: 1_000_000, percent: 1 } }
  const mesh = meshOf(t, [service('orders', [url], { fault })])
  const started = performance.now()
  const { body } = await mesh.request(get)
  const digest = createHash('sha256')
  let size = 0
  for await (const chunk of body) {
    digest.update(chunk as Buffer)
    size += (chunk as Buffer).length
    if (size < 100_000) await new Promise((resolve) => setTimeout(resolve, 20))
  }
  t.equal(digest.digest('hex'), createHash('sha256').update(sent).digest('hex'))
  t.ok(performance.now() - started > 150, 'the body takes longer than without a limit')
  await eventually(() => (mesh.status()[0]!.concerns.fault as { active: number }).active === 0, 'no fault in progress')
})

t.test('headers request faults: only if enabled, and only from trusted callers', async (t) => {
  const { url } = await upstream(t, 'a')
  const mesh = meshOf(t, [
    service('open', [url], { fault: { ...none, header: true } }),
    service('shut', [url], { fault: { ...none, abort: { status: 500, percent: 0 } } })
  ])
  const ask = async (name: string, trusted: boolean, headers: string[]) => {
    const recorder = new Recorder()
    const caller = { ip: '10.0.0.1', consumer: null, trusted }
    mesh.dispatch({ ...get, origin: `http://${name}.mesh`, headers, caller }, recorder)
    await recorder.done
    return recorder.status
  }
  const abort = ['x-jingwei-fault-abort', '418']
  t.equal(await ask('open', true, abort), 418)
  t.equal(await ask('open', false, abort), 200, 'an untrusted caller cannot request a fault')
  t.equal(await ask('shut', true, abort), 200, 'a fault cannot be requested where it is off')
  t.equal(await ask('open', true, ['x-jingwei-fault-abort', '999']), 200, 'an invalid status is ignored')
  t.equal(await ask('open', true, ['x-jingwei-fault-abort', '-1; DROP']), 200)
  t.equal(await ask('open', true, ['x-jingwei-fault-delay', '20', ...abort]), 418, 'a delay and an abort')
})

t.test('at most maxActive faults at a time', async (t) => {
  const { url } = await upstream(t, 'a')
  const { meter, counts } = meterStub()
  const fault = { ...none, maxActive: 2, delay: { for: 60_000, percent: 1 } }
  const mesh = meshOf(t, [service('orders', [url], { fault })], { meter })
  const recorders = Array.from({ length: 5 }, () => new Recorder())
  for (const recorder of recorders) mesh.dispatch(get, recorder)
  await Promise.all(recorders.slice(2).map(({ done }) => done))
  t.strictSame(
    recorders.map(({ status }) => status),
    [0, 0, 200, 200, 200]
  )
  t.equal(counts['jingwei_mesh_fault_overflows_total{orders}'], 3)
  for (const recorder of recorders) recorder.controller.abort(new Error('left'))
})

t.test('HEAD and 204 have no body', async (t) => {
  const mesh = meshOf(t, [
    service('orders', ['http://127.0.0.1:1'], { fault: { ...none, abort: { status: 503, percent: 1 } } }),
    service('none', ['http://127.0.0.1:1'], { fault: { ...none, abort: { status: 204, percent: 1 } } })
  ])
  const headRecorder = new Recorder()
  mesh.dispatch({ ...get, method: 'HEAD' }, headRecorder)
  await headRecorder.done
  t.strictSame(headRecorder.events, ['start', '503', 'end'])
  const none204 = new Recorder()
  mesh.dispatch({ ...get, origin: 'http://none.mesh' }, none204)
  await none204.done
  t.strictSame(none204.events, ['start', '204', 'end'])
})

t.test('a delayed attempt that has timed out is not sent', async (t) => {
  let connections = 0
  const { url, server } = await upstream(t, 'a')
  server.on('connection', () => connections++)
  const fault = { delay: { for: 100, percent: 1 }, header: false, maxActive: 100 }
  const retry = { ...retryOptions, attempts: 10, on: ['gateway-error'] as never, budget: 1 }
  const mesh = meshOf(t, [service('orders', [url], { fault, retry, attemptTimeout: 20 })])
  await t.rejects(mesh.request(get), { code: 'JW_ATTEMPT_TIMEOUT' })
  t.equal(connections, 0)
})
