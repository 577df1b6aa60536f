// slow: takes about 4 s
/** Ends of an attempt that count against its instance, over real sockets. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { PassThrough } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import type { MeshPolicy } from '../../../config/schema.ts'
import type { Interceptor } from '../../../plugins/mesh/core/types.ts'
import { eventually } from '../../helpers/eventually.ts'
import { outlierOptions } from '../../helpers/mesh/health.ts'
import { meshOf, meterStub, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { policyOf } from '../../helpers/mesh/policy.ts'
import { connecting, raw, refused, resetting, silent, upstream } from '../../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const get = { origin, path: '/', method: 'GET' } as const

/** A mesh over one instance, which is never ejected (it is the last), so that every attempt meets it. */
function meshTo(t: Test, url: string, policy: Partial<MeshPolicy> = {}, used?: Interceptor) {
  const outlierDetection = outlierOptions({ consecutive5xx: 1000, consecutiveGatewayFailures: 1000 })
  const mesh = meshOf(t, [service('orders', [url], { outlierDetection, ...policy })])
  if (used !== undefined) mesh.use(used, { per: 'attempt' })
  const counts = () => {
    const status = mesh.status()[0]!.instances[0]!.concerns['outlier-detection'] as Record<string, number>
    return [status.consecutive5xx, status.consecutiveGatewayFailures]
  }
  return { mesh, counts }
}

class Upgraded extends Recorder {
  override onRequestUpgrade(_controller?: unknown, _status?: unknown, _headers?: unknown, socket?: Duplex): void {
    socket?.destroy()
    super.onRequestUpgrade()
  }
}

const failed = async (call: Promise<unknown>) => void (await call.catch(() => {}))

t.test('a failing instance is ejected at once, and only the first call fails', async (t) => {
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b', (_request, response) => response.writeHead(500).end())]
  const { meter, counts, gauges } = meterStub()
  const outlierDetection = outlierOptions({ consecutive5xx: 3 })
  const mesh = meshOf(t, [service('orders', [a.url, b.url], { outlierDetection })], { meter })
  const statuses: number[] = []
  for (let call = 0; call < 20; call++) {
    const { statusCode, body } = await mesh.request(get)
    // Not even its body need be read.
    if (statusCode === 200) await body.dump()
    else body.on('error', () => {}).destroy()
    statuses.push(statusCode)
  }
  t.equal(statuses.filter((status) => status === 500).length, 3)
  t.equal(b.requests.length, 3)
  t.equal(counts['jingwei_mesh_ejections_total{orders,consecutive-5xx}'], 1)
  t.equal(counts['jingwei_mesh_health_flips_total{orders,outlier-detection,unavailable}'], 1)
  t.strictSame(gauges.jingwei_mesh_ejections_active!(), [[{ service: 'orders' }, 1]])
  t.match(mesh.status()[0], {
    concerns: { 'outlier-detection': { mode: 'enforce', ejected: 1 } },
    instances: [
      { available: true, concerns: { 'outlier-detection': { ejected: false, ejections: 0 } } },
      {
        available: false,
        obstacles: { 'outlier-detection': /^3 attempts in a row failed \(5xx or no response\); ejected for 30000 ms$/ },
        concerns: { 'outlier-detection': { ejected: true, ejections: 1, returnsInMs: Number } }
      }
    ]
  })
})

t.test('with a retry, not even the first call fails', async (t) => {
  const [a, gone] = [await upstream(t, 'a'), await refused()]
  const policy = { outlierDetection: outlierOptions({ consecutiveGatewayFailures: 2 }), retry: retryOptions }
  const mesh = meshOf(t, [service('orders', [gone, a.url], policy)])
  for (let call = 0; call < 10; call++) t.equal(await (await mesh.request(get)).body.text(), 'a')
  t.match(mesh.status()[0]!.instances[0]!, { available: false, active: 0 })
})

t.test('an instance is available again after its ejection time', async (t) => {
  let broken = true
  const [a, b] = [
    await upstream(t, 'a'),
    await upstream(t, 'b', (_, response) => response.writeHead(broken ? 503 : 200).end('b'))
  ]
  const outlierDetection = outlierOptions({ interval: '20ms', baseEjection: '50ms', consecutiveGatewayFailures: 2 })
  const mesh = meshOf(t, [service('orders', [a.url, b.url], { outlierDetection })])
  const isOut = () => !mesh.status()[0]!.instances[1]!.available
  while (!isOut()) await (await mesh.request(get)).body.dump()
  broken = false
  await eventually(() => !isOut(), 'the instance to be available')
  const responders = new Set<string>()
  for (let call = 0; call < 4; call++) responders.add(await (await mesh.request(get)).body.text())
  t.strictSame([...responders].sort(), ['a', 'b'])
})

t.test('responses are counted by their status', async (t) => {
  const { url } = await upstream(t, 'a', (request, response) => {
    response.writeHead(Number(request.url!.slice(1))).end('answer')
  })
  const { mesh, counts } = meshTo(t, url)
  const table: [status: number, consecutive: [number, number]][] = [
    [500, [1, 0]],
    [502, [2, 1]],
    [503, [3, 2]],
    [504, [4, 3]],
    [505, [5, 0]],
    [404, [0, 0]],
    [503, [1, 1]],
    [429, [0, 0]],
    [503, [1, 1]],
    [302, [0, 0]]
  ]
  for (const [status, consecutive] of table) {
    await (await mesh.request({ ...get, path: `/${status}` })).body.dump()
    t.strictSame(counts(), consecutive, `after ${status}`)
  }
})

t.test('a call without a response counts as a failure', async (t) => {
  const babbling = await raw(t, (socket) => socket.once('data', () => socket.end('SSH-2.0-OpenSSH_9\r\n')))
  const closing = await raw(t, (socket) =>
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort'))
  )
  const table: [what: string, url: string, policy: Partial<MeshPolicy>][] = [
    ['refused', await refused(), {}],
    ['reset', (await resetting(t)).url, {}],
    ['closed', (await raw(t, (socket) => socket.once('data', () => socket.end()))).url, {}],
    ['attempt timeout', (await silent(t)).url, { attemptTimeout: 20 }],
    ['attempt timeout without a connection', (await connecting(t)).url, { attemptTimeout: 20 }],
    ['connect timeout', (await connecting(t)).url, { connectTimeout: 20 }],
    ['no HTTP', babbling.url, {}],
    ['a body that breaks off', closing.url, {}]
  ]
  for (const [what, url, policy] of table) {
    const { mesh, counts } = meshTo(t, url, policy)
    await failed(mesh.request(get).then(({ body }) => body.dump()))
    t.strictSame(counts(), [1, 1], what)
  }
})

t.test('incomplete bodies do not reset the count of failures', async (t) => {
  const closing = await raw(t, (socket) =>
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort'))
  )
  const { mesh, counts } = meshTo(t, closing.url)
  for (let call = 0; call < 3; call++) await failed(mesh.request(get).then(({ body }) => body.text()))
  t.strictSame(counts(), [3, 3])
})

t.test("the call's deadline counts against the instance that used most of it", async (t) => {
  const { url } = await silent(t)
  const alone = meshTo(t, url, { timeout: 50 })
  await t.rejects(alone.mesh.request(get), { code: 'JW_CALL_TIMEOUT' })
  t.strictSame(alone.counts(), [1, 1], 'otherwise an instance that never responds would never be ejected')

  // The first attempt takes most of the time, the second goes to the same, only instance.
  const late = meshTo(t, url, { timeout: 500, attemptTimeout: 400, retry: { ...retryOptions, on: ['gateway-error'] } })
  await t.rejects(late.mesh.request(get), { code: 'JW_CALL_TIMEOUT' })
  t.strictSame(late.counts(), [1, 1], 'the second has used little')
})

t.test('some failures count against no instance', async (t) => {
  const mute = await silent(t)
  const slow: ServerResponse[] = []
  const endless = await upstream(t, 'a', (_request: IncomingMessage, response) => {
    response.write('begun')
    slow.push(response)
  })
  const fail = (code: string): Interceptor => {
    return () => (opts, handler) => {
      queueMicrotask(() => handler.onResponseError?.(opts.call!, Object.assign(new Error(code), { code })))
      return true
    }
  }

  await t.test('the caller leaves before the response', async (t) => {
    const { mesh, counts } = meshTo(t, mute.url)
    for (const reason of [
      new Error('gone'),
      Object.assign(new Error('gone'), { code: 'ECONNRESET', syscall: 'read' })
    ]) {
      const recorder = new Recorder()
      mesh.dispatch(get, recorder)
      await eventually(() => mute.sockets.size > 0, 'the connection')
      await sleep(10)
      recorder.controller.abort(reason)
      await recorder.done
      await sleep(10)
      t.strictSame(counts(), [0, 0])
    }
  })

  await t.test('the caller leaves while it connects, and the attempt times out later', async (t) => {
    const { mesh, counts } = meshTo(t, (await connecting(t)).url, { attemptTimeout: 30 })
    const recorder = new Recorder()
    mesh.dispatch(get, recorder)
    recorder.controller.abort(new Error('gone'))
    await sleep(60)
    t.strictSame(counts(), [0, 0])
  })

  await t.test('the caller leaves within the response: it counts as a response', async (t) => {
    const { mesh, counts } = meshTo(t, endless.url)
    const recorder = new Recorder()
    mesh.dispatch(get, recorder)
    await eventually(() => recorder.body === 'begun', 'the beginning of the response')
    recorder.controller.abort(new Error('gone'))
    await recorder.done
    t.strictSame(counts(), [0, 0])
  })

  await t.test('the idle timeout of a stream', async (t) => {
    const { mesh, counts } = meshTo(t, endless.url, { idleTimeout: 50 })
    await t.rejects((await mesh.request(get)).body.text(), { code: 'JW_UPSTREAM_TIMEOUT' })
    t.strictSame(counts(), [0, 0])
  })

  await t.test('refusals of the mesh, and losers of hedging', async (t) => {
    for (const code of ['JW_OVERLOADED', 'JW_CIRCUIT_OPEN', 'JW_UPSTREAM_LIMITED', 'JW_CALL_TIMEOUT']) {
      const { mesh, counts } = meshTo(t, mute.url, {}, fail(code))
      await t.rejects(mesh.request(get), { code })
      t.strictSame(counts(), [0, 0], code)
    }
    // Faults of the interceptor itself.
    for (const code of ['JW_HEDGE_LOST', 'UND_ERR_INVALID_ARG']) {
      const { mesh, counts } = meshTo(t, mute.url, {}, fail(code))
      await t.rejects(mesh.request(get), { code: 'JW_PLUGIN_FAILED', cause: { code } })
      t.strictSame(counts(), [0, 0], code)
    }
    const { mesh, counts } = meshTo(t, mute.url, {}, fail('JW_UPSTREAM_UNTRUSTED'))
    await t.rejects(mesh.request(get), { code: 'JW_UPSTREAM_UNTRUSTED' })
    t.strictSame(counts(), [1, 1], 'but an address that another service has taken over is')
  })

  await t.test("the caller's own stream fails", async (t) => {
    const { mesh, counts } = meshTo(t, mute.url)
    const body = new PassThrough()
    body.write('begun')
    const call = mesh.request({ ...get, method: 'POST', body })
    await sleep(20)
    body.destroy(Object.assign(new Error('its own source was reset'), { code: 'ECONNRESET', syscall: 'read' }))
    await failed(call)
    t.strictSame(counts(), [0, 0])
    // A reset by the instance destroys the stream as well.
    const reset = meshTo(t, (await resetting(t)).url)
    const other = new PassThrough()
    other.write('begun')
    await failed(reset.mesh.request({ ...get, method: 'POST', body: other }))
    t.strictSame(reset.counts(), [1, 1])
  })

  await t.test('it waits for a connection within maxConnections', async (t) => {
    for (const policy of [{ attemptTimeout: 100 }, { timeout: 300, attemptTimeout: 100 }, { timeout: 300 }]) {
      const { circuitBreaker } = policyOf({ circuitBreaker: { perInstance: { maxConnections: 1 } } })
      const { mesh, counts } = meshTo(t, endless.url, {
        ...policy,
        circuitBreaker: circuitBreaker!,
        retry: retryOptions
      })
      const first = new Recorder()
      mesh.dispatch(get, first)
      await eventually(() => first.body === 'begun', 'the only connection to be taken')
      const attempts: unknown[] = []
      const second = new Recorder()
      second.onRequestStart = (controller, context?: unknown) => {
        second.controller = controller
        attempts.push((context as { call: unknown }).call)
      }
      mesh.dispatch(get, second)
      if (policy.timeout === undefined) {
        await sleep(250)
        slow.at(-1)!.end()
        await eventually(() => second.body === 'begun', 'the response to the second call')
        second.controller.abort(new Error('enough'))
      } else {
        await second.done
        t.equal(second.error?.code, 'JW_CALL_TIMEOUT')
        first.controller.abort(new Error('enough'))
      }
      t.match(attempts, [{ attempts: 1 }], 'the call is not retried')
      t.strictSame(counts(), [0, 0])
    }
  })

  await t.test('the mesh closes', async (t) => {
    const { mesh, counts } = meshTo(t, mute.url)
    const call = t.rejects(mesh.request(get), { code: 'JW_MESH_CLOSED' })
    await sleep(20)
    await mesh.destroy()
    await call
    t.strictSame(counts(), [0, 0])
  })
})

t.test('an upgrade is a response', async (t) => {
  let upgrades = 0
  const { url } = await raw(t, (socket) =>
    socket.once('data', () => {
      if (upgrades++ === 0) socket.end('HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
      else socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n')
    })
  )
  const { mesh, counts } = meshTo(t, url)
  const upgrade = async () => {
    const handler = new Upgraded()
    mesh.dispatch({ ...get, upgrade: 'websocket' }, handler)
    await handler.done
    return handler.events
  }
  t.strictSame(await upgrade(), ['start', '503', 'end'])
  t.strictSame(counts(), [1, 1])
  t.strictSame(await upgrade(), ['start', 'upgrade'])
  t.strictSame(counts(), [0, 0])
})

t.test('outlier detection is not in the chain by default', async (t) => {
  const { url } = await upstream(t, 'a')
  t.notOk(
    meshOf(t, [service('orders', [url])])
      .describe('orders')
      .includes('outlier-detection')
  )
  t.notOk(
    meshOf(t, [service('orders', [url], { outlierDetection: false })])
      .describe('orders')
      .includes('outlier-detection')
  )
  t.ok(meshTo(t, url).mesh.describe('orders').includes('outlier-detection'))
})

t.test('shadow: the instance stays, and ejections are counted', async (t) => {
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b', (_request, response) => response.writeHead(500).end())]
  const { meter, counts } = meterStub()
  const outlierDetection = outlierOptions({ mode: 'shadow', consecutive5xx: 3 })
  const mesh = meshOf(t, [service('orders', [a.url, b.url], { outlierDetection })], { meter })
  for (let call = 0; call < 20; call++) await (await mesh.request(get)).body.dump()
  t.equal(b.requests.length, 10)
  t.equal(counts['jingwei_mesh_shadowed_total{orders,outlier-detection}'], 1)
  t.equal(counts['jingwei_mesh_ejections_total{orders,consecutive-5xx}'], undefined)
  t.match(mesh.status()[0]!.instances[1], { available: true, obstacles: {} })
})
