// slow: takes about 8 s
/** Timeouts, aborts, and counts in flight that return to zero at any of them. */
import type { ServerResponse } from 'node:http'
import { PassThrough, Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { upgrade } from 'undici'
import type { MeshPolicy } from '../../../config/schema.ts'
import type { Mesh } from '../../../plugins/mesh/mesh.ts'
import { eventually } from '../../helpers/eventually.ts'
import { outlierOptions } from '../../helpers/mesh/health.ts'
import { meshOf, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { connecting, raw, silent, upstream } from '../../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const get = { origin, path: '/', method: 'GET' } as const
const active = (mesh: Mesh) => mesh.status().flatMap(({ instances }) => instances.map((instance) => instance.active))
const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length

/** Without an `attemptTimeout`, which the helper sets. */
function patient(name: string, urls: string[], more: Partial<MeshPolicy> & { timeout: number }) {
  const { mesh, ...rest } = service(name, urls, more)
  const { attemptTimeout: _unset, ...policy } = mesh
  return { ...rest, mesh: policy }
}

t.test('an attemptTimeout that is unset follows the timeout of the call', async (t) => {
  const retry = { ...retryOptions, on: ['gateway-error' as const] }
  const { url } = await upstream(t, 'slow', (_request, response) => void setTimeout(() => response.end('slow'), 300))
  const hanging = await silent(t)
  const outlierDetection = outlierOptions({ consecutive5xx: 1 })
  const mesh = meshOf(t, [
    patient('slow', [url], { timeout: 60_000, retry }),
    patient('hanging', [hanging.url, url], { timeout: 150, retry, outlierDetection })
  ])
  const { body } = await mesh.request({ origin: 'http://slow.mesh', path: '/', method: 'GET' })
  t.equal(await body.text(), 'slow')
  await t.rejects(mesh.request({ origin: 'http://hanging.mesh', path: '/', method: 'GET' }), {
    code: 'JW_CALL_TIMEOUT'
  })
  t.equal(hanging.count(), 1)
  t.equal(mesh.status()[1]!.instances[0]!.available, false, 'the instance is blamed')
  t.notOk(mesh.describe('slow').includes('attempt-timeout'))
})

t.test('the attempt timeout applies without a connection and without a response', async (t) => {
  for (const { url } of [await connecting(t), await silent(t)]) {
    const mesh = meshOf(t, [service('orders', [url], { attemptTimeout: 80 })])
    await t.rejects(mesh.request(get), { code: 'JW_ATTEMPT_TIMEOUT' })
    t.strictSame(active(mesh), [0])
    await mesh.destroy()
  }
})

t.test(
  'after an attempt timeout, the call is retried at another instance if the policy retries such failures',
  async (t) => {
    const slow = await silent(t)
    const good = await upstream(t, 'good')
    const instances = [slow.url, good.url]
    for (const on of ['gateway-error', '5xx'] as const) {
      const mesh = meshOf(t, [
        service('orders', instances, { attemptTimeout: 80, retry: { ...retryOptions, on: [on] } })
      ])
      t.equal(await (await mesh.request(get)).body.text(), 'good')
    }
    const mesh = meshOf(t, [service('orders', instances, { attemptTimeout: 80, retry: retryOptions })])
    await t.rejects(mesh.request(get), { code: 'JW_ATTEMPT_TIMEOUT' })
  }
)

t.test('the deadline includes all attempts and pauses', async (t) => {
  const slow = await silent(t)
  const retry = { ...retryOptions, attempts: 10, on: ['5xx'] as (typeof retryOptions)['on'] }
  const mesh = meshOf(t, [service('orders', [slow.url], { attemptTimeout: 60, timeout: 200, retry })])
  const from = performance.now()
  await t.rejects(mesh.request(get), { code: 'JW_CALL_TIMEOUT' })
  t.ok(performance.now() - from >= 190)
  t.ok(slow.count() >= 2, `${slow.count()} attempts`)
  t.strictSame(active(mesh), [0])
  await eventually(() => slow.sockets.size === 0, 'connections to close')
})

t.test('a replayed body does not restart the deadline', async (t) => {
  const slow = await silent(t)
  const retry = { ...retryOptions, attempts: 10, on: ['5xx'] as (typeof retryOptions)['on'], budget: 1 }
  const mesh = meshOf(t, [service('orders', [slow.url], { attemptTimeout: 100, timeout: 250, retry })])
  for (const body of ['text', Readable.from(['a ', 'stream'])]) {
    const before = slow.count()
    await t.rejects(mesh.request({ ...get, method: 'PUT', body }), { code: 'JW_CALL_TIMEOUT' })
    t.ok(slow.count() > before + 1, `${slow.count() - before} attempts`)
  }
})

t.test('a long upload does not count as a slow response, nor a stalled caller as a slow service', async (t) => {
  const { url } = await upstream(t, 'upload', (request, response) => {
    let size = 0
    request.on('data', (chunk: Buffer) => {
      size += chunk.length
    })
    request.on('end', () => response.end(String(size)))
    request.on('error', () => {})
  })
  const mesh = meshOf(t, [service('orders', [url], { attemptTimeout: 150, timeout: 200 })])
  const body = new PassThrough()
  const response = mesh.request({ ...get, method: 'POST', body })
  for (let i = 0; i < 8; i++) {
    body.write('x'.repeat(1000))
    await sleep(i === 3 ? 400 : 60)
  }
  body.end()
  t.equal(await (await response).body.text(), '8000')

  for (const begun of [false, true]) {
    const stalled = new PassThrough()
    if (begun) stalled.write('x')
    const left = new AbortController()
    const call = mesh.request({ ...get, method: 'POST', body: stalled, signal: left.signal })
    await sleep(300)
    left.abort(new Error('left'))
    await t.rejects(call, { message: 'left' })
    t.strictSame(active(mesh), [0])
  }
})

t.test('a caller that stalls for longer than the idle timeout is aborted; no instance is blamed', async (t) => {
  const { url } = await silent(t)
  const outlierDetection = outlierOptions({ consecutive5xx: 1, consecutiveGatewayFailures: 1 })
  const policy = { attemptTimeout: 50, timeout: 80, outlierDetection }
  const mesh = meshOf(t, [service('orders', [url], { ...policy, idleTimeout: 200 })])
  const patient = meshOf(t, [service('orders', [url], { ...policy, idleTimeout: false })])
  for (const begun of [false, true]) {
    const body = new PassThrough()
    const from = performance.now()
    const call = mesh.request({ ...get, method: 'POST', body })
    call.catch(() => {})
    if (begun) {
      await sleep(150)
      body.write('x')
    }
    await t.rejects(call, { code: 'JW_CALLER_SILENT' })
    t.ok(performance.now() - from >= (begun ? 340 : 190), 'the timeout starts with the last bytes')
    t.ok(body.destroyed)
    t.strictSame(active(mesh), [0])
    t.equal(mesh.status()[0]!.instances[0]!.available, true)
  }
  const left = new AbortController()
  const call = patient.request({ ...get, method: 'POST', body: new PassThrough(), signal: left.signal })
  await sleep(300)
  left.abort(new Error('left'))
  await t.rejects(call, { message: 'left' })
})

t.test('the timeout runs from the end of the body, and while the service does not read it', async (t) => {
  const { url } = await silent(t)
  const mesh = meshOf(t, [service('orders', [url], { attemptTimeout: 150 })])
  const body = new PassThrough()
  const response = mesh.request({ ...get, method: 'POST', body })
  response.catch(() => {})
  body.write('x')
  await sleep(120)
  const from = performance.now()
  body.end()
  await t.rejects(response, { code: 'JW_ATTEMPT_TIMEOUT' })
  t.ok(performance.now() - from >= 140, 'the whole timeout after the end')

  const deaf = await raw(t, (socket) => socket.pause())
  const stuck = meshOf(t, [service('orders', [deaf.url], { attemptTimeout: 150 })])
  const endless = Readable.from(
    (function* () {
      for (;;) yield Buffer.alloc(1 << 20)
    })()
  )
  await t.rejects(stuck.request({ ...get, method: 'POST', body: endless }), { code: 'JW_ATTEMPT_TIMEOUT' })
  t.strictSame(active(stuck), [0])
})

t.test('neither timeout aborts a body once the headers have arrived', async (t) => {
  const { url } = await upstream(t, 'stream', async (_request, response) => {
    for (let i = 0; i < 6; i++) {
      response.write(`${i}`)
      await sleep(50)
    }
    response.end()
  })
  const mesh = meshOf(t, [service('orders', [url], { attemptTimeout: 120, timeout: 150 })])
  t.equal(await (await mesh.request(get)).body.text(), '012345')
})

t.test('informational responses do not stop the timeout', async (t) => {
  const { url } = await raw(t, (socket) => socket.once('data', () => socket.write('HTTP/1.1 103 Early Hints\r\n\r\n')))
  const mesh = meshOf(t, [service('orders', [url], { attemptTimeout: 80 })])
  await t.rejects(mesh.request(get), { code: 'JW_ATTEMPT_TIMEOUT' })
})

t.test('the idle timeout runs between bytes, and not while the caller is slow', async (t) => {
  const { url } = await upstream(t, 'stalls', (request, response) => {
    response.write('part')
    if (request.url === '/whole') setTimeout(() => response.end('x'.repeat(500_000)), 20)
  })
  const mesh = meshOf(t, [service('orders', [url], { idleTimeout: 100 })])
  const recorder = new Recorder()
  mesh.dispatch(get, recorder)
  await recorder.done
  t.equal(recorder.error?.code, 'JW_UPSTREAM_TIMEOUT')
  t.strictSame(recorder.events, ['start', '200', 'data', 'error'])

  const slow = new Recorder()
  mesh.dispatch({ ...get, path: '/whole' }, slow)
  await eventually(() => slow.body !== '', 'the first bytes of the body')
  slow.controller.pause()
  await sleep(2500)
  slow.controller.resume()
  await slow.done
  t.equal(slow.events.at(-1), 'end')
  t.strictSame(active(mesh), [0])
})

t.test('a caller can abort before the start, in the queue, while waiting and within the body', async (t) => {
  const stuck = await connecting(t)
  const held: ServerResponse[] = []
  const slow = await upstream(t, 'slow', (_request, response) => held.push(response))
  const mesh = meshOf(t, [
    service('stuck', [stuck.url], { attemptTimeout: 150, retry: retryOptions }),
    service('orders', [slow.url], { retry: retryOptions })
  ])
  const left = new Error('left')

  const aborted = AbortSignal.abort(left)
  await t.rejects(mesh.request({ ...get, signal: aborted }), { message: 'left' })
  t.equal(slow.requests.length, 0)
  t.strictSame(active(mesh), [0, 0], 'no attempt is made')

  const queued = new Recorder()
  mesh.dispatch({ ...get, origin: 'http://stuck.mesh' }, queued)
  t.strictSame(active(mesh), [1, 0])
  queued.controller.abort(left)
  t.strictSame(queued.events, ['start', 'error'], 'the abort is reported at once')
  queued.controller.abort(left)
  queued.controller.pause()
  queued.controller.resume()
  await eventually(() => active(mesh)[0] === 0, 'the load to be given back')

  const waiting = new Recorder()
  mesh.dispatch(get, waiting)
  await eventually(() => held.length === 1, 'the request at the service')
  waiting.controller.abort(left)
  t.strictSame(waiting.events, ['start', 'error'])
  t.strictSame(active(mesh), [0, 0])
  await eventually(() => slow.sockets.size === 0, 'the connection to close')

  const reading = new Recorder()
  mesh.dispatch(get, reading)
  await eventually(() => held.length === 2, 'the request at the service')
  held[1]!.write('part')
  await eventually(() => reading.body === 'part', 'the first bytes of the body')
  reading.controller.abort(left)
  t.strictSame(reading.events, ['start', '200', 'data', 'error'])
  t.equal(reading.error, left)
  t.ok(reading.controller.aborted)
  t.equal(reading.controller.reason, left)
  t.strictSame(active(mesh), [0, 0])
  await eventually(() => slow.sockets.size === 0, 'the connection to close')
})

t.test('an upgraded connection counts as load until it closes, not as a call in flight', async (t) => {
  const { url, server } = await upstream(t, 'upgrades')
  server.on('upgrade', (_request, socket) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n')
    socket.on('error', () => {})
  })
  const mesh = meshOf(t, [service('orders', [url], { timeout: 100, attemptTimeout: 100, idleTimeout: 100 })])
  const { socket } = await upgrade(origin, { dispatcher: mesh, protocol: 'echo' })
  await sleep(300)
  t.notOk(socket.destroyed, 'no timeout applies to the upgraded connection')
  t.strictSame(active(mesh), [1])
  await mesh.close()
  t.notOk(socket.destroyed, 'close() does not close the upgraded connection')
  socket.destroy()
  await eventually(() => active(mesh)[0] === 0, 'the load to be given back')
})

t.test('timers are cleared with the call', async (t) => {
  const { url } = await upstream(t, 'good')
  const slow = await silent(t)
  const mesh = meshOf(t, [
    service('orders', [url], { attemptTimeout: 600_000, timeout: 600_000, retry: retryOptions }),
    service('slow', [slow.url], { attemptTimeout: 600_000, timeout: 600_000 })
  ])
  const before = timers()
  for (let i = 0; i < 5; i++) await (await mesh.request(get)).body.dump()
  const recorder = new Recorder()
  mesh.dispatch({ ...get, origin: 'http://slow.mesh' }, recorder)
  await eventually(() => slow.count() === 1, 'the request at the service')
  recorder.controller.abort(new Error('left'))
  await mesh.destroy()
  // undici's clock, which all its clients share, stops by itself.
  await eventually(() => timers() <= before, 'all timers to be cleared')
  t.pass()
})
