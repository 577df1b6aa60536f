/** The seam: an undici `Dispatcher` whose origins are services. */
import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { fetch, request, upgrade } from 'undici'
import type { Interceptor } from '../../plugins/mesh/core/types.ts'
import { meshOf, Recorder, retryOptions, service } from '../helpers/mesh/mesh.ts'
import { raw, refused, upstream } from '../helpers/mesh/servers.ts'

const get = { path: '/', method: 'GET' } as const

t.test('an origin names a service', async (t) => {
  const orders = await upstream(t, 'orders')
  const users = await upstream(t, 'users')
  const mesh = meshOf(t, [service('orders', [orders.url]), service('users', [users.url])])
  for (const name of ['orders', 'users']) {
    const { body } = await mesh.request({ ...get, origin: `http://${name}.mesh` })
    t.equal(await body.text(), name)
  }
  const { body } = await mesh.request({ ...get, origin: new URL('http://users.mesh') })
  t.equal(await body.text(), 'users')
})

t.test('an unknown service and a closed mesh are errors', async (t) => {
  const { url } = await upstream(t, 'orders')
  const mesh = meshOf(t, [service('orders', [url])])
  for (const origin of ['http://nope.mesh', 'https://orders.mesh', 'http://orders', url]) {
    await t.rejects(mesh.request({ ...get, origin }), { code: 'JW_NO_SERVICE' }, origin)
  }
  await t.rejects(mesh.request({ ...get, origin: 'http://nope.mesh' }), { message: 'nope: no such service' })
  await mesh.close()
  await t.rejects(mesh.request({ ...get, origin: 'http://orders.mesh' }), { code: 'JW_MESH_CLOSED' })
  await mesh.close()
})

t.test("undici's API works: request, stream, pipeline, upgrade, fetch", async (t) => {
  const { url, server } = await upstream(t, 'echo', (request, response) => request.pipe(response))
  server.on('upgrade', (_request, socket) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n')
    socket.pipe(socket)
  })
  const mesh = meshOf(t, [service('echo', [url])])
  const origin = 'http://echo.mesh'

  const response = await request('http://echo.mesh/a?b=c', { dispatcher: mesh, method: 'POST', body: 'over request' })
  t.equal(await response.body.text(), 'over request')

  const sink = new PassThrough()
  const read = text(sink)
  await mesh.stream({ origin, path: '/', method: 'POST', body: 'over stream' }, () => sink)
  t.equal(await read, 'over stream')

  const piped = mesh.pipeline({ origin, path: '/', method: 'POST' }, ({ body }) => body)
  piped.end('over pipeline')
  t.equal(await text(piped), 'over pipeline')

  const { socket, headers } = await upgrade(origin, { dispatcher: mesh, protocol: 'echo' })
  t.equal(headers.upgrade, 'echo')
  const received = text(socket)
  socket.end('over upgrade')
  t.equal(await received, 'over upgrade')

  const fetched = await fetch('http://echo.mesh/', { dispatcher: mesh, method: 'POST', body: 'over fetch' })
  t.equal(await fetched.text(), 'over fetch')
  await t.rejects(fetch('http://nope.mesh/', { dispatcher: mesh }), { cause: { code: 'JW_NO_SERVICE' } })

  const composed = mesh.compose((dispatch) => (opts, handler) => dispatch({ ...opts, body: 'over compose' }, handler))
  t.equal(await (await composed.request({ origin, path: '/', method: 'POST' })).body.text(), 'over compose')
  await composed.close()
  await t.rejects(mesh.request({ ...get, origin }), { code: 'JW_MESH_CLOSED' })
  await composed.destroy()
})

t.test('a refused upgrade is an error, and no call stays in flight', async (t) => {
  const { url } = await upstream(t, 'plain')
  const mesh = meshOf(t, [service('plain', [url], { retry: retryOptions })])
  await t.rejects(upgrade('http://plain.mesh', { dispatcher: mesh }), { code: 'UND_ERR_SOCKET' })
  t.equal(mesh.status()[0]!.instances[0]!.active, 0)
})

t.test('a chain is composed once for each service and route policy', async (t) => {
  const { url } = await upstream(t, 'orders')
  const mesh = meshOf(t, [service('orders', [url]), service('users', [url])])
  let composed = 0
  const counting: Interceptor = (dispatch) => {
    composed++
    return (opts, handler) => dispatch(opts, handler)
  }
  mesh.use(counting, { per: 'request' })
  const origin = 'http://orders.mesh'
  const send = async (opts: object) => (await mesh.request({ ...get, origin, ...opts })).body.dump()

  for (let i = 0; i < 3; i++) await send({})
  t.equal(composed, 1)
  const policy = Object.freeze({ timeout: 5000 })
  for (let i = 0; i < 3; i++) await send({ mesh: policy })
  t.equal(composed, 2)
  await send({ mesh: Object.freeze({ timeout: 5000 }) })
  t.equal(composed, 3, 'policies are compared by identity')
  await send({ origin: 'http://users.mesh', mesh: policy })
  t.equal(composed, 4, 'the same policy over another service')
  await send({})
  t.equal(composed, 4)
})

t.test('a route overrides the policy of its service', async (t) => {
  const gone = await refused()
  const good = await upstream(t, 'good')
  const mesh = meshOf(t, [service('orders', [gone, good.url], { retry: retryOptions })])
  const origin = 'http://orders.mesh'
  const off = Object.freeze({ retry: false as const })
  const response = await mesh.request({ ...get, origin })
  t.equal(await response.body.text(), 'good')
  let refusals = 0
  for (let i = 0; i < 4; i++) {
    const response = await mesh.request({ ...get, origin, mesh: off }).catch((error: Error) => error)
    if (response instanceof Error) refusals++
    else await response.body.dump()
  }
  t.equal(refusals, 2, 'round robin selects the dead instance every other time')
})

t.test('a route splits among services', async (t) => {
  const names = ['stable', 'canary']
  const services = await Promise.all(names.map(async (name) => service(name, [(await upstream(t, name)).url])))
  let draw = 0
  const mesh = meshOf(t, services, { random: () => draw })
  const split = Object.freeze({
    split: [
      { service: 'stable', weight: 95 },
      { service: 'canary', weight: 5 }
    ]
  })
  const served: string[] = []
  for (draw of [0, 0.5, 0.9499, 0.95, 0.9999]) {
    const { body, context } = await mesh.request({ ...get, origin: 'http://stable.mesh', mesh: split })
    const name = await body.text()
    t.equal((context as { call: { service: string } }).call.service, name, 'the call has the service that responded')
    served.push(name)
  }
  t.strictSame(served, ['stable', 'stable', 'stable', 'canary', 'canary'])
})

t.test(
  'interceptors run once per request outside of the retries or once per attempt, in the order of use()',
  async (t) => {
    const gone = await refused()
    const good = await upstream(t, 'good')
    const mesh = meshOf(t, [service('orders', [gone, good.url], { retry: retryOptions })])
    const seen: string[] = []
    const note =
      (name: string): Interceptor =>
      (dispatch) =>
      (opts, handler) => {
        seen.push(`${name} ${opts.origin}`)
        return dispatch(opts, handler)
      }
    mesh.use(note('r1'), { per: 'request', name: 'r1' }).use(note('a1'), { per: 'attempt', name: 'a1' })
    mesh.use(note('r2'), { per: 'request', name: 'r2' }).use(note('a2'), { per: 'attempt', name: 'a2' })

    const { body, context } = await mesh.request({ ...get, origin: 'http://orders.mesh' })
    t.equal(await body.text(), 'good')
    t.strictSame(seen, [
      'r1 http://orders.mesh',
      'r2 http://orders.mesh',
      `a1 ${gone}`,
      `a2 ${gone}`,
      `a1 ${good.url}`,
      `a2 ${good.url}`
    ])
    t.match(context, { call: { service: 'orders', attempts: 2, instance: good.url } })

    t.strictSame(mesh.describe('orders'), [
    'deadline', 'r1', 'r2', 'call', 'replay', 'retry', 'select', 'a1', 'a2', 'attempt-timeout'
  ]) // biome-ignore format: a list
    t.notOk(mesh.describe('orders', { retry: false }).includes('retry'))
    t.throws(() => mesh.describe('nope'), { code: 'JW_NO_SERVICE' })
  }
)

t.test('an interceptor that throws fails the call, and no call stays in flight', async (t) => {
  const { url } = await upstream(t, 'orders')
  const mesh = meshOf(t, [service('orders', [url], { retry: retryOptions })])
  mesh.use(
    () => () => {
      throw new Error('broken')
    },
    { per: 'attempt' }
  )
  await t.rejects(mesh.request({ ...get, origin: 'http://orders.mesh' }), { message: 'broken' })
  t.equal(mesh.status()[0]!.instances[0]!.active, 0)
  await mesh.close()
})

t.test('an exception of a caller’s handler is reported to it, as by undici itself', async (t) => {
  const { url } = await upstream(t, 'orders')
  const mesh = meshOf(t, [service('orders', [url])])
  for (const event of ['onRequestStart', 'onResponseStart', 'onResponseData'] as const) {
    const recorder = new Recorder()
    recorder[event] = () => {
      throw new Error(event)
    }
    mesh.dispatch({ ...get, origin: 'http://orders.mesh' }, recorder)
    await recorder.done
    t.equal(recorder.error?.message, event)
  }
  t.equal(mesh.status()[0]!.instances[0]!.active, 0)
  await mesh.close()
})

t.test('a request that undici refuses to send is reported, once', async (t) => {
  const { url, requests } = await upstream(t, 'orders')
  const mesh = meshOf(t, [service('orders', [url], { retry: retryOptions })])
  await t.rejects(mesh.request({ origin: 'http://orders.mesh', path: 'no slash', method: 'GET' }), {
    code: 'UND_ERR_INVALID_ARG'
  })
  t.equal(requests.length, 0)
  t.equal(mesh.status()[0]!.instances[0]!.active, 0)
})

t.test('informational responses, and a pause before the response', async (t) => {
  const { url } = await raw(t, (socket) =>
    socket.once('data', () => {
      socket.write('HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n')
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello')
    })
  )
  const mesh = meshOf(t, [service('orders', [url], { idleTimeout: 20_000 })])
  const recorder = new Recorder()
  mesh.dispatch({ ...get, origin: 'http://orders.mesh' }, recorder)
  recorder.controller.pause()
  const { promise, resolve } = Promise.withResolvers<void>()
  const noted = recorder.onResponseStart.bind(recorder)
  recorder.onResponseStart = (controller, status) => {
    noted(controller, status)
    if (status === 200) resolve()
  }
  await promise
  await new Promise((done) => setTimeout(done, 50))
  t.strictSame(recorder.events, ['start', '103', '200'], 'no event follows while the handler is paused')
  recorder.controller.resume()
  await recorder.done
  t.strictSame(recorder.events, ['start', '103', '200', 'data', 'end'])
})
