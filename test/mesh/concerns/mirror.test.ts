/** Copies of calls for a shadow service: its requests, and its absence of effects on the call. */
import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import t from 'tap'
import type { MirrorOptions } from '../../../plugins/mesh/concerns/mirror.ts'
import type { DispatchOptions } from '../../../plugins/mesh/core/types.ts'
import { eventually } from '../../helpers/eventually.ts'
import { meshOf, meterStub, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { silent, upstream } from '../../helpers/mesh/servers.ts'

const options: MirrorOptions = { service: 'shadow', percent: 1, maxBody: 1000, maxActive: 100 }
const get = { origin: 'http://orders.mesh', path: '/a?b=c', method: 'GET' } as const

/** A service that records its requests and their bodies. */
async function keeping(t: Parameters<typeof upstream>[0], name: string, status = 200) {
  const got: { request: IncomingMessage; body: string }[] = []
  const { url } = await upstream(t, name, (request, response) => {
    let body = ''
    request.on('data', (chunk) => {
      body += chunk
    })
    request.on('end', () => {
      got.push({ request, body })
      response.statusCode = status
      response.end(name)
    })
  })
  return { url, got }
}

async function send(mesh: ReturnType<typeof meshOf>, opts: Partial<DispatchOptions> = {}) {
  const recorder = new Recorder()
  mesh.dispatch({ ...get, ...opts } as DispatchOptions, recorder)
  await recorder.done
  return recorder
}

t.test('the copy equals the call; its response is ignored', async (t) => {
  const real = await keeping(t, 'real')
  const shadow = await keeping(t, 'shadow', 500)
  const { meter, counts } = meterStub()
  const mesh = meshOf(t, [service('orders', [real.url], { mirror: options }), service('shadow', [shadow.url])], {
    meter
  })
  const response = await send(mesh, { headers: ['host', 'api.example.com:8080', 'x-a', '1', 'x-a', '2'] })
  t.equal(response.body, 'real')
  await eventually(() => shadow.got.length === 1, 'the mirrored request')
  const { request } = shadow.got[0]!
  t.equal(request.url, '/a?b=c')
  t.equal(request.headers.host, 'api.example.com-shadow:8080')
  t.equal(request.headers['x-a'], '1, 2')
  t.equal(counts['jingwei_mesh_mirrored_total{orders,sent}'], 1)
  t.equal(real.got.length, 1)
})

t.test('the Host of a copy is marked in every format of headers', async (t) => {
  const real = await keeping(t, 'real')
  const shadow = await keeping(t, 'shadow')
  const mesh = meshOf(t, [service('orders', [real.url], { mirror: options }), service('shadow', [shadow.url])])
  const shapes: DispatchOptions['headers'][] = [
    ['host', 'api.example', 'x-a', '1'],
    ['Host', 'api.example', 'X-A', '1'],
    { host: 'api.example', 'x-a': '1' },
    { Host: 'api.example', 'X-A': ['1'] },
    new Map([
      ['Host', 'api.example'],
      ['x-a', '1']
    ])
  ]
  for (const [index, headers] of shapes.entries()) {
    await send(mesh, { headers })
    await eventually(() => shadow.got.length === index + 1, 'the mirrored request')
    t.match(shadow.got[index]!.request.headers, { host: 'api.example-shadow', 'x-a': '1' })
    t.match(real.got[index]!.request.headers, { host: 'api.example', 'x-a': '1' })
  }
  await send(mesh)
  await eventually(() => shadow.got.length === shapes.length + 1, 'the copy of a call without headers')
})

t.test('bodies of every kind are copied, up to the limit', async (t) => {
  const real = await keeping(t, 'real')
  const shadow = await keeping(t, 'shadow')
  const { meter, counts } = meterStub()
  const mesh = meshOf(t, [service('orders', [real.url], { mirror: options }), service('shadow', [shadow.url])], {
    meter
  })
  const post = (body: DispatchOptions['body']) => send(mesh, { method: 'POST', body })
  await post('text')
  await post(Buffer.from('bytes'))
  await post(Readable.from([Buffer.from('a '), Buffer.from('stream')]))
  await post('x'.repeat(1001))
  await post(Readable.from([Buffer.alloc(600, 'x'), Buffer.alloc(600, 'x')]))
  t.strictSame(
    real.got.map(({ body }) => body.length),
    [4, 5, 8, 1001, 1200]
  )
  await eventually(() => shadow.got.length === 3, 'the mirrored requests')
  t.strictSame(shadow.got.map(({ body }) => body).sort(), ['a stream', 'bytes', 'text'])
  t.equal(counts['jingwei_mesh_mirrored_total{orders,too-large}'], 2)
})

t.test('a retried call is copied once, with its whole body', async (t) => {
  const shadow = await keeping(t, 'shadow')
  let failures = 1
  const real = await upstream(t, 'real', (request, response) => {
    request.resume().on('end', () => {
      response.statusCode = failures-- > 0 ? 503 : 200
      response.end()
    })
  })
  const retry = { ...retryOptions, on: [503 as const] }
  const mesh = meshOf(t, [service('orders', [real.url], { mirror: options, retry }), service('shadow', [shadow.url])])
  t.equal((await send(mesh, { method: 'PUT', body: 'once' })).status, 200)
  t.equal(real.requests.length, 2)
  await eventually(() => shadow.got.length === 1, 'the mirrored request')
  t.equal(shadow.got[0]!.body, 'once')
})

t.test('a silent, unavailable or unknown shadow affects no call, and copies in flight are bounded', async (t) => {
  const real = await keeping(t, 'real')
  const mute = await silent(t)
  const { meter, counts } = meterStub()
  const mirror = { ...options, maxActive: 3 }
  const mesh = meshOf(
    t,
    [
      service('orders', [real.url], { mirror }),
      service('gone', [real.url], { mirror: { ...options, service: 'nowhere' } }),
      service('shadow', [mute.url])
    ],
    { meter }
  )
  for (let i = 0; i < 10; i++) t.equal((await send(mesh)).body, 'real')
  t.equal(counts['jingwei_mesh_mirrored_total{orders,sent}'], 3)
  t.equal(counts['jingwei_mesh_mirrored_total{orders,dropped}'], 7)
  t.equal((await send(mesh, { origin: 'http://gone.mesh' })).body, 'real')
  t.equal(counts['jingwei_mesh_mirrored_total{gone,failed}'], 1)
})

t.test('a percentage of calls is mirrored, and upgrades are not', async (t) => {
  const real = await keeping(t, 'real')
  const shadow = await keeping(t, 'shadow')
  let draws = 0
  const mirror = { ...options, percent: 0.2 }
  const mesh = meshOf(t, [service('orders', [real.url], { mirror }), service('shadow', [shadow.url])], {
    random: () => (draws++ % 10) / 10
  })
  draws = 0
  for (let i = 0; i < 10; i++) await send(mesh)
  await eventually(() => shadow.got.length >= 1, 'copies')
  t.ok(shadow.got.length <= 4, String(shadow.got.length))
})

t.test('a body of text is mirrored', async (t) => {
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
  await eventually(() => got.length === 1, 'the mirrored request')
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
