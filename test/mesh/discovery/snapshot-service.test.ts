/** Sets of instances change under traffic: calls continue, and connections to removed instances close. */
import type { ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Mesh } from '../../../plugins/mesh/mesh.ts'
import { eventually } from '../../helpers/eventually.ts'
import { byHand } from '../../helpers/mesh/discovery.ts'
import { meshOf, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { connecting, raw, refused, upstream } from '../../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const get = { origin, path: '/', method: 'GET' } as const
const nowhere: [] = []

t.test('no snapshot, and an empty one', async (t) => {
  const { discovery, publish } = byHand()
  const mesh = meshOf(t, [service('orders', nowhere, { retry: retryOptions })], { discovery })
  await t.rejects(mesh.request(get), { code: 'JW_NO_INSTANCE' })
  publish('orders', [])
  await t.rejects(mesh.request(get), { code: 'JW_NO_INSTANCE' })
  const { url } = await upstream(t, 'a')
  publish('orders', [url])
  t.equal(await (await mesh.request(get)).body.text(), 'a', 'on the very next request')
})

t.test('a removed instance: its calls complete, its connections close, it gets no new calls', async (t) => {
  const held: ServerResponse[] = []
  const a = await upstream(t, 'a', (request, response) => {
    if (request.url === '/slow') held.push(response)
    else response.end('a')
  })
  const b = await upstream(t, 'b')
  const { discovery, publish } = byHand()
  const mesh = meshOf(t, [service('orders', nowhere)], { discovery })
  publish('orders', [a.url])
  const queued = new Recorder()
  const slow = mesh.request({ ...get, path: '/slow' })
  await eventually(() => held.length === 1, 'the slow request in flight')
  await (await mesh.request(get)).body.dump()
  // Needs a connection of its own, which is still connecting when the instance is removed.
  const late = Promise.all([mesh.request(get), mesh.request(get), mesh.request(get)])
  mesh.dispatch({ ...get, path: '/slow' }, queued)

  publish('orders', [b.url])
  for (const { body } of await late) t.equal(await body.text(), 'a', 'calls sent before the removal complete')
  const before = a.requests.length
  for (let i = 0; i < 20; i++) t.equal(await (await mesh.request(get)).body.text(), 'b')
  t.ok(a.requests.length <= before + 1, 'a removed instance only gets queued calls')

  await eventually(() => held.length === 2, 'the queued slow request in flight')
  for (const response of held) response.end('slow a')
  t.equal(await (await slow).body.text(), 'slow a')
  await queued.done
  t.equal(queued.body, 'slow a')
  await eventually(() => a.sockets.size === 0, 'the connections to the removed instance to close')
})

t.test('an address that stays keeps its connections, with any id and weight', async (t) => {
  const a = await upstream(t, 'a')
  let connections = 0
  a.server.on('connection', () => connections++)
  const { discovery, publish } = byHand()
  const mesh = meshOf(t, [service('orders', nowhere)], { discovery })
  const b = await upstream(t, 'b')
  const ask = async () => {
    await (await mesh.request(get)).body.dump()
    // undici reuses a connection one event-loop iteration after a response.
    await sleep(10)
  }
  publish('orders', [a.url])
  await ask()
  publish('orders', [a.url, b.url])
  publish('orders', [b.url, a.url])
  for (let i = 0; i < 4; i++) await ask()
  publish('orders', [a.url])
  await ask()
  t.equal(connections, 1)
  await eventually(() => b.sockets.size === 0, 'the connections to the other instance to close')

  publish('orders', [b.url])
  publish('orders', [a.url])
  t.equal(await (await mesh.request(get)).body.text(), 'a', 'an address that comes back is used again')
})

t.test('a retry avoids the failed address also in a new snapshot', async (t) => {
  const gone = await refused()
  const good = await upstream(t, 'good')
  const { discovery, publish } = byHand()
  const mesh = meshOf(t, [service('orders', nowhere, { retry: { ...retryOptions, attempts: 1 } })], { discovery })
  // Published between the two attempts of each call, with the failed address first in the rotation.
  mesh.use(
    (dispatch) => (opts, handler) =>
      dispatch(opts, {
        onRequestStart: (...args) => handler.onRequestStart?.(...args),
        onResponseStart: (...args) => handler.onResponseStart?.(...args),
        onResponseData: (...args) => handler.onResponseData?.(...args),
        onResponseEnd: (...args) => handler.onResponseEnd?.(...args),
        onResponseError: (...args) => {
          publish('orders', [gone, good.url])
          handler.onResponseError?.(...args)
        }
      }),
    { per: 'attempt' }
  )
  publish('orders', [gone, good.url])
  for (let i = 0; i < 6; i++) t.equal(await (await mesh.request(get)).body.text(), 'good')
})

t.test('close() waits for calls in flight, those between two attempts too', async (t) => {
  const good = await upstream(t, 'good', (_request, response) => setTimeout(() => response.end('good'), 50))
  const gone = await refused()
  const { discovery, publish, closed } = byHand()
  const retry = { ...retryOptions, backoff: { base: 100, max: 100 } }
  const mesh = meshOf(t, [service('orders', nowhere, { retry })], { discovery })
  publish('orders', [gone, good.url])
  const calls = Promise.all(Array.from({ length: 4 }, async () => (await mesh.request(get)).body.text()))
  const end = mesh.close()
  await t.rejects(mesh.request(get), { code: 'JW_MESH_CLOSED' })
  t.strictSame(await calls, ['good', 'good', 'good', 'good'])
  await end
  t.strictSame(closed.at(-1), 'discovery')
  t.ok(closed.includes('orders'))
  await eventually(() => good.sockets.size === 0, 'the connections to close')
})

t.test('close() aborts calls that exceed the grace period; destroy() aborts at once', async (t) => {
  const never = await upstream(t, 'never', () => {})
  const stuck = await connecting(t)
  for (const end of ['shutdown', 'destroy'] as const) {
    const mesh = meshOf(t, [
      service('orders', [never.url], { retry: retryOptions }),
      service('users', [stuck.url]),
      service('gone', [await refused()], { retry: { ...retryOptions, backoff: { base: 60_000, max: 60_000 } } })
    ])
    const recorders = ['orders', 'users', 'gone'].map((name) => {
      const recorder = new Recorder()
      mesh.dispatch({ ...get, origin: `http://${name}.mesh` }, recorder)
      return recorder
    })
    const before = never.requests.length
    await eventually(
      () => never.requests.length === before + 1 || never.requests.length > before,
      'the request at the silent instance'
    )
    await (end === 'shutdown' ? mesh.shutdown(50) : mesh.destroy(new Error('enough')))
    for (const { events, error } of recorders) {
      t.strictSame(events, ['start', 'error'])
      if (end === 'shutdown') t.equal(error?.code, 'JW_MESH_CLOSED')
      else t.equal(error?.message, 'enough')
    }
    await eventually(() => never.sockets.size === 0 && stuck.sockets.size === 0, 'the connections to close')
    await mesh.close()
    await mesh.destroy()
  }
})

t.test('close() and destroy() take callbacks, and close a mesh that was never used', async (t) => {
  const config = { services: { orders: service('orders', ['http://127.0.0.1:1']) } }
  await new Promise<void>((resolve) => new Mesh(config).close(resolve))
  await new Promise<void>((resolve) => new Mesh(config).destroy(resolve))
  await new Promise<void>((resolve) => new Mesh(config).destroy(null, resolve))
  t.pass()
})

t.test('the name that a certificate must have is never the Host that a client sent', async (t) => {
  const hello = Promise.withResolvers<Buffer>()
  const tls = await raw(t, (socket) => socket.once('data', hello.resolve))
  const port = new URL(tls.url).port
  const mesh = meshOf(t, [service('orders', [`https://localhost:${port}`])])
  const recorder = new Recorder()
  mesh.dispatch({ ...get, headers: { host: 'of-the-client.example' } }, recorder)
  const bytes = (await hello.promise).toString('latin1')
  t.notOk(bytes.includes('of-the-client'))
  t.ok(bytes.includes('localhost'))
  recorder.controller.abort(new Error('seen'))
})
