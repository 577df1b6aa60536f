/** Regressions of the mesh as a whole, each named after the fault. Those of a concern stand in its own tests. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { StateKey } from '../../plugins/mesh/core/service-state.ts'
import type { Balancer, DispatchController, DispatchOptions, Instance } from '../../plugins/mesh/core/types.ts'
import { eventually } from '../helpers/eventually.ts'
import { startService } from '../helpers/gateway.ts'
import { byHand } from '../helpers/mesh/discovery.ts'
import { meshOf, meterStub, Recorder, service } from '../helpers/mesh/mesh.ts'
import { silent, upstream } from '../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const get = { origin, path: '/', method: 'GET' } as const

t.test('a caller of request() that destroys the body of the response ends the call', async (t) => {
  const { url, close } = await startService((_request, response) => void response.write('begun'))
  t.teardown(close)
  const mesh = meshOf(t, [service('orders', [url])])
  const { body } = await mesh.request(get)
  body.on('error', () => {}).destroy()
  await eventually(() => mesh.status()[0]!.active === 0, 'no call in flight')
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

t.test('with few free instances, the balancer picks once', async (t) => {
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
    await eventually(() => paused.body !== '', 'the first part of the body')
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
