/** Regressions where two concerns met, each named after the fault. */
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { systemTimers } from '../../plugins/clock.ts'
import type { HedgeContext } from '../../plugins/mesh/concerns/hedge/attempts.ts'
import { Hedge } from '../../plugins/mesh/concerns/hedge/attempts.ts'
import { ServiceConnector } from '../../plugins/mesh/connect/connector.ts'
import { PooledEndpoint } from '../../plugins/mesh/connect/endpoint.ts'
import { Call } from '../../plugins/mesh/core/call.ts'
import { StateKey } from '../../plugins/mesh/core/service-state.ts'
import type { Balancer, DispatchController, DispatchOptions, Instance } from '../../plugins/mesh/core/types.ts'
import { InstanceHealth } from '../../plugins/mesh/health/health.ts'
import { eventually } from '../helpers/eventually.ts'
import { startService } from '../helpers/gateway.ts'
import { byHand } from '../helpers/mesh/discovery.ts'
import { outlierOptions } from '../helpers/mesh/health.ts'
import { meshOf, meterStub, Recorder, retryOptions, service } from '../helpers/mesh/mesh.ts'
import { policyOf } from '../helpers/mesh/policy.ts'
import { raw, silent, upstream } from '../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const get = { origin, path: '/', method: 'GET' } as const

/** A body that the test destroys, also while it has no reader. */
function breaking() {
  const body = new Readable({ read() {} })
  body.push('half')
  return { body, breakOff: () => void body.destroy(Object.assign(new Error('left'), { code: 'ECONNRESET' })) }
}

t.test('an instance that is removed with a queue, and whose connections are closed, leaves no state', async (t) => {
  const { url } = await silent(t)
  const { circuitBreaker } = policyOf({ circuitBreaker: { perInstance: { maxConnections: 1 } } })
  const { name: _, mesh } = service('orders', [], { circuitBreaker: circuitBreaker! })
  const health = new InstanceHealth(() => 0, () => {}) // biome-ignore format: short
  const log = { info() {}, warn() {}, error() {} }
  const open = new ServiceConnector('orders', mesh, null, { log }).to(url)
  const endpoint = new PooledEndpoint(url, mesh, health, open)
  const recorders = [new Recorder(), new Recorder()]
  for (const recorder of recorders) endpoint.dispatch(get as DispatchOptions, recorder)
  const closed = endpoint.close()
  await endpoint.destroy()
  await Promise.all(recorders.map(({ done }) => done))
  t.equal(await Promise.race([closed.then(() => 'closed'), sleep(1000, 'still closing')]), 'closed')
})

t.test('a request body that fails in a queue ends the call, not the process', async (t) => {
  const { url } = await upstream(t, 'a')
  const { limit } = policyOf({ limit: { rate: 1, per: '1h', burst: 1, queueTimeout: '2h' } })
  const mesh = meshOf(t, [service('orders', [url], { limit: limit! })])
  await mesh.request(get).then(({ body }) => body.text())
  const { body, breakOff } = breaking()
  const recorder = new Recorder()
  mesh.dispatch({ ...get, method: 'POST', body } as DispatchOptions, recorder)
  breakOff()
  await recorder.done
  t.equal(recorder.error?.message, 'left')
  t.equal(mesh.status()[0]!.active, 0)
  t.match(mesh.status()[0]!.concerns, { 'rate-limit': { pending: 0 } })
})

t.test('a caller of request() that destroys the body of the response ends the call', async (t) => {
  const { url, close } = await startService((_request, response) => void response.write('begun'))
  t.teardown(close)
  const mesh = meshOf(t, [service('orders', [url])])
  const { body } = await mesh.request(get)
  body.on('error', () => {}).destroy()
  await eventually(() => mesh.status()[0]!.active === 0, 'the end')
})

for (const kept of [false, true]) {
  t.test(`an aborted upload counts against no instance, buffered for a fallback or not: ${kept}`, async (t) => {
    const { url } = await silent(t)
    const policy = {
      ...policyOf({ circuitBreaker: { minRequests: 1, errorRatio: '1%' } }),
      outlierDetection: outlierOptions({ consecutive5xx: 1 }),
      retry: retryOptions,
      ...(kept && { fallback: [{ on: ['5xx'] as never, service: 'other' }] })
    }
    const { meter, counts } = meterStub()
    const mesh = meshOf(t, [service('orders', [url, (await silent(t)).url], policy)], { meter })
    const { body, breakOff } = breaking()
    const recorder = new Recorder()
    mesh.dispatch({ ...get, method: 'PUT', body } as DispatchOptions, recorder)
    await eventually(() => mesh.status()[0]!.instances.some(({ active }) => active > 0), 'the attempt')
    await sleep(50)
    breakOff()
    await recorder.done
    t.match(mesh.status()[0]!.concerns, { 'circuit-breaker': { state: 'closed', requests: 0 } })
    t.strictSame(
      mesh.status()[0]!.instances.map(({ available }) => available),
      [true, true]
    )
    t.equal(counts['jingwei_mesh_retries_total{orders,reset}'], undefined)
  })
}

t.test('a copy of a body that came as text', async (t) => {
  const got: string[] = []
  const { url } = await upstream(t, 'a')
  const shadow = await upstream(t, 'shadow', (request, response) => {
    let text = ''
    request.on('data', (chunk: Buffer) => {
      text += chunk
    })
    request.on('end', () => response.end(String(got.push(text))))
  })
  const mirror = { service: 'shadow', percent: 1, maxBody: 1000, maxActive: 10 }
  const mesh = meshOf(t, [service('orders', [url], { mirror }), service('shadow', [shadow.url])])
  const recorder = new Recorder()
  mesh.dispatch({ ...get, method: 'PUT', body: Readable.from(['grüß', ' dich']) } as DispatchOptions, recorder)
  await recorder.done
  t.equal(recorder.error, null)
  await eventually(() => got.length === 1, 'the copy')
  t.strictSame(got, ['grüß dich'])
})

t.test('each route has its own cap on copies in flight', async (t) => {
  const { url } = await upstream(t, 'a')
  const mirror = (maxActive: number) => ({ mirror: { service: 'shadow', percent: 1, maxBody: 1000, maxActive } })
  const { meter, counts } = meterStub()
  const mesh = meshOf(t, [service('orders', [url]), service('shadow', [(await silent(t)).url])], { meter })
  const [few, many] = [mirror(1), mirror(3)]
  for (const policy of [few, few, many])
    await mesh.request({ ...get, mesh: policy } as never).then(({ body }) => body.text())
  t.equal(counts['jingwei_mesh_mirrored_total{orders,sent}'], 2)
  t.equal(counts['jingwei_mesh_mirrored_total{orders,dropped}'], 1)
})

t.test('a response that varies by caller goes to no other caller when its own leaves', async (t) => {
  const answers: (() => void)[] = []
  const { url, requests } = await upstream(t, 'a', (request, response) => {
    const { traceparent } = request.headers
    answers.push(() => response.writeHead(200, { 'cache-control': 'private' }).end(`for ${traceparent}`))
  })
  const mesh = meshOf(t, [service('orders', [url], { collapse: true })])
  const [a, b] = ['a', 'b'].map((traceparent) => {
    const recorder = new Recorder()
    mesh.dispatch({ ...get, headers: ['traceparent', traceparent] } as DispatchOptions, recorder)
    return recorder
  }) as [Recorder, Recorder]
  await eventually(() => requests.length === 1, 'the shared request')
  a.controller.abort(new Error('left'))
  answers[0]!()
  await eventually(() => requests.length === 2, 'a request of its own')
  answers[1]!()
  await b.done
  t.equal(b.body, 'for b')
  await eventually(() => mesh.status()[0]!.active === 0, 'the end')
})

t.test('a fault that one caller requested is not shared with others', async (t) => {
  const { url } = await upstream(t, 'fine')
  const policy = { collapse: true, fault: { header: true, maxActive: 10 } } as const
  const mesh = meshOf(t, [service('orders', [url], policy)])
  const ask = (headers: string[], trusted: boolean) => {
    const recorder = new Recorder()
    const caller = { ip: '', consumer: null, trusted }
    mesh.dispatch({ ...get, headers, caller } as DispatchOptions, recorder)
    return recorder
  }
  const faulty = ask(['x-jingwei-fault-delay', '50', 'x-jingwei-fault-abort', '503'], true)
  const innocent = ask([], false)
  await Promise.all([faulty.done, innocent.done])
  t.strictSame([faulty.status, innocent.status], [503, 200])
})

t.test('after a fallback with an unknown error, the next one is tried', async (t) => {
  const busy = await upstream(t, 'busy', (_request, response) => void response.writeHead(503).end())
  const garbage = await raw(t, (socket) => socket.once('data', () => socket.end('not HTTP at all\r\n\r\n')))
  const on = ['5xx'] as never
  const fallback = [
    { on, service: 'other' },
    { on, status: 200, body: 'fixed' }
  ]
  const mesh = meshOf(t, [service('orders', [busy.url], { fallback }), service('other', [garbage.url])])
  const { statusCode, body } = await mesh.request(get)
  t.strictSame([statusCode, await body.text()], [200, 'fixed'])
})

t.test('an upgrade that its caller cannot use is one call and one attempt', async (t) => {
  const { url, server } = await upstream(t, 'a')
  server.on('upgrade', (_request, socket) => {
    socket
      .on('error', () => {})
      .on('end', () => socket.destroy())
      .resume()
    socket.write('HTTP/1.1 101 Switching Protocols\r\nupgrade: other\r\nconnection: upgrade\r\n\r\n')
  })
  const { meter, counts, observed } = meterStub()
  const mesh = meshOf(t, [service('orders', [url])], { meter })
  class Picky extends Recorder {
    override onRequestUpgrade(): void {
      throw new Error('not this one')
    }
  }
  const recorder = new Picky()
  mesh.dispatch({ ...get, upgrade: 'websocket' } as DispatchOptions, recorder)
  await recorder.done
  t.equal(recorder.error?.message, 'not this one')
  const attempts = Object.entries(counts).filter(([name]) => name.startsWith('jingwei_mesh_attempts_total'))
  t.strictSame(attempts, [['jingwei_mesh_attempts_total{orders,success}', 1]])
  t.equal(observed['jingwei_mesh_request_duration_seconds{orders}']?.length, 1)
})

t.test('a fallback whose response is incomplete is not followed by another', async (t) => {
  const busy = await upstream(t, 'busy', (_request, response) => void response.writeHead(503).end())
  const cut = await raw(t, (socket) =>
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort'))
  )
  const on = ['5xx', 'reset'] as never
  const fallback = [
    { on, service: 'other' },
    { on, status: 200, body: 'fixed' }
  ]
  const mesh = meshOf(t, [service('orders', [busy.url], { fallback }), service('other', [cut.url])])
  const recorder = new Recorder()
  mesh.dispatch(get as DispatchOptions, recorder)
  await recorder.done
  t.strictSame(recorder.events, ['start', '200', 'data', 'error'])
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

t.test('a call that ends between two attempts releases its slot in the circuit', async (t) => {
  const { url } = await upstream(t, 'busy', (_request, response) => void response.writeHead(503).end())
  const retry = { ...retryOptions, on: ['5xx'] as never, backoff: { base: 60_000, max: 60_000 } }
  const { circuitBreaker } = policyOf({ circuitBreaker: {} })
  const mesh = meshOf(t, [service('orders', [url], { circuitBreaker: circuitBreaker!, retry, timeout: 60_000 })])
  const recorder = new Recorder()
  mesh.dispatch(get as DispatchOptions, recorder)
  const concerns = () => mesh.status()[0]!.concerns
  await eventually(() => (concerns().retries as { active: number }).active === 1, 'the pause')
  t.match(concerns(), { 'circuit-breaker': { inFlight: 1 } })
  recorder.controller.abort(new Error('left'))
  t.match(concerns(), { 'circuit-breaker': { inFlight: 0 }, retries: { active: 0 } })
})

t.test('a caller that calls again when the mesh is destroyed is refused', async (t) => {
  const { url } = await silent(t)
  const mesh = meshOf(t, [service('orders', [url])])
  let begun = 0
  mesh.use(
    (dispatch) => (opts, handler) => {
      begun++
      return dispatch(opts, handler)
    },
    { per: 'request' }
  )
  let calls = 1
  class Stubborn extends Recorder {
    override onResponseError(controller: DispatchController, error: Error & { code?: string }): void {
      super.onResponseError(controller, error)
      if (++calls < 50) mesh.dispatch(get as DispatchOptions, new Stubborn())
    }
  }
  mesh.dispatch(get as DispatchOptions, new Stubborn())
  await mesh.destroy()
  t.equal(calls, 50)
  t.equal(begun, 1)
})

t.test('a chain composed for a closed service is closed, too', async (t) => {
  const mesh = meshOf(t, [service('orders', [])])
  await mesh.close()
  let closed = 0
  mesh.service('orders').state(new StateKey('late'), () => ({ close: () => void closed++ }))
  t.equal(closed, 1)
})

t.test('with few free instances, the balancer is asked once', async (t) => {
  const { discovery, publish } = byHand()
  const mesh = meshOf(t, [service('orders', [], { attemptTimeout: 50 })], { discovery })
  publish(
    'orders',
    Array.from({ length: 50 }, (_, i) => `http://10.0.0.${i}:80`)
  )
  const { instances, balancers } = mesh.service('orders').snapshot!
  let free: Instance | null = null
  for (const instance of instances) {
    Object.assign(instance.endpoint, { isFull: () => instance !== free, dispatch: () => true })
  }
  const balancer = balancers['']!
  let picks = 0
  const pick: Balancer['pick'] = balancer.pick.bind(balancer)
  balancer.pick = (tried, hash) => {
    picks++
    return pick(tried, hash)
  }
  const full = new Recorder()
  mesh.dispatch(get as DispatchOptions, full)
  t.equal(full.error?.code, 'JW_OVERLOADED')
  t.equal(picks, 2)
  free = instances[25]!
  mesh.dispatch(get as DispatchOptions, new Recorder())
  t.equal(instances[25]!.endpoint.active, 1)
})

t.test('a response may be resumed in a callback of another one', async (t) => {
  const large = 'x'.repeat(1_000_000)
  const { url } = await upstream(t, 'a', (request, response) => {
    // Sized, and in chunks.
    if (request.url === '/1') response.setHeader('content-length', large.length)
    response.end(large)
  })
  const mesh = meshOf(t, [service('orders', [url])])
  class Pausing extends Recorder {
    override onResponseData(controller: DispatchController, chunk: Buffer): void {
      super.onResponseData(controller, chunk)
      controller.pause()
    }
  }
  for (const [one, other] of [
    ['/1', '/2'],
    ['/2', '/1']
  ]) {
    // biome-ignore format: short
    const paused = new Pausing()
    let resumed = 0
    class Resuming extends Recorder {
      override onResponseData(controller: DispatchController, chunk: Buffer): void {
        super.onResponseData(controller, chunk)
        resumed++
        paused.controller.resume()
      }
    }
    mesh.dispatch({ ...get, path: one } as DispatchOptions, paused)
    await eventually(() => paused.body !== '', 'its first part')
    const resuming = new Resuming()
    mesh.dispatch({ ...get, path: other } as DispatchOptions, resuming)
    await resuming.done
    t.ok(resumed > 1)
    const { length } = paused.body
    t.ok(length > 0)
    while (paused.status === 200 && !paused.events.includes('end') && paused.error === null) {
      paused.controller.resume()
      await sleep(1)
    }
    for (const { events, body } of [paused, resuming]) {
      t.strictSame(events, ['start', '200', 'data', 'end'])
      t.ok(body === large)
    }
  }
})

t.test('a call that ends before its hedged attempt begins sends none', async (t) => {
  const orders = meshOf(t, [service('orders', [])]).service('orders')
  const call = new Call(orders, new Recorder(), 0)
  call.abort(new Error('left'))
  const attempt = new Recorder()
  const dispatch = () => t.fail('an attempt')
  const context = { service: orders, attempts: 1, afterMs: () => 1, now: () => 0, timers: systemTimers } as HedgeContext
  new Hedge(attempt, { ...get, call } as DispatchOptions, dispatch, context).begin()
  t.strictSame([attempt.events, attempt.error?.message], [['error'], 'left'])
})
