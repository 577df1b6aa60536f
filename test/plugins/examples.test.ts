// The example plugins, each by its own configuration file, through the whole gateway.
import { join } from 'node:path'
import t from 'tap'
import { loadConfig, loadWithoutPlugins, parseConfig } from '../../plugins/config.ts'
import { importPlugin } from '../../plugins/operations/plugin-modules.ts'
import { startMesh } from '../helpers/mesh/start-mesh.ts'
import { folder, listen, service } from '../helpers/plugins.ts'
import { freePort } from '../helpers/processes.ts'

const examples = join(import.meta.dirname, '../../config/examples')
// Importing a plugin provides `jingwei/plugin`, which the example imports.
await importPlugin({ path: join(examples, 'request-signature.ts') }, join(examples, 'request-signature.yaml'))
const { requestSignature, signature } = await import('../../config/examples/request-signature.ts')
const secret = 'a secret that is long enough for it'

t.test('stamp: sets a header on the routes that configure it only', async (t) => {
  const env = { PORT: '0', ADMIN_PORT: '0', ORDERS_PORT: String(await freePort()) }
  const { url } = await listen(t, await loadConfig(join(examples, 'stamp.yaml'), env))

  const stamped = await fetch(`${url}/api/orders`)
  t.equal(stamped.status, 200)
  t.equal(stamped.headers.get('x-stamp'), 'fresh')
  t.match(await stamped.json(), { service: 'orders' })

  const plain = await fetch(`${url}/plain`)
  t.equal(plain.status, 200)
  t.equal(plain.headers.get('x-stamp'), null)
  await plain.body?.cancel()

  const unknown = await fetch(`${url}/nothing`)
  t.equal(unknown.status, 404)
  t.equal(unknown.headers.get('x-stamp'), null)
  await unknown.body?.cancel()
})

t.test('stamp: replaces the header of the service, and is set on errors of its route, too', async (t) => {
  let up = true
  const origin = await service(t, (request, response) => {
    if (!up) return void request.socket.destroy()
    response.setHeader('x-stamp', 'of the service')
    response.end('ok')
  })
  const text = JSON.stringify({
    listen: { port: 0 },
    admin: false,
    services: { orders: { instances: [origin], mesh: { retry: false } } },
    routes: [{ name: 'a', match: { path: '/' }, service: 'orders', config: { stamp: 'ours' } }],
    plugins: [{ path: join(examples, 'stamp.ts') }]
  })
  const root = await folder(t, { 'gateway.yaml': text })
  const { url } = await listen(t, await loadConfig(join(root, 'gateway.yaml'), {}))
  const responded = await fetch(url)
  t.equal(responded.headers.get('x-stamp'), 'ours')
  t.equal(await responded.text(), 'ok')
  up = false
  const failed = await fetch(url)
  t.equal(failed.status, 502)
  t.equal(failed.headers.get('x-stamp'), 'ours')
  await failed.body?.cancel()
})

t.test('stamp: a value that is not a string is a fault of the configuration', async (t) => {
  const text = JSON.stringify({
    listen: { port: 0 },
    admin: false,
    services: { orders: { instances: ['http://127.0.0.1:9'] } },
    routes: [{ name: 'a', match: { path: '/a' }, service: 'orders', config: { stamp: 7 } }],
    plugins: [{ path: join(examples, 'stamp.ts') }]
  })
  const file = join(await folder(t, { 'gateway.yaml': text }), 'gateway.yaml')
  await t.rejects(loadConfig(file, {}), { message: /routes\[0\]\.config\.stamp: expected a string, found 7/ })
})

t.test('request-signature: every attempt has its number and its own signature', async (t) => {
  const seen: { headers: NodeJS.Dict<string | string[]>; raw: string[]; path: string }[] = []
  const origin = await service(t, (request, response) => {
    seen.push({ headers: request.headers, raw: request.rawHeaders, path: request.url! })
    response.statusCode = seen.length === 1 ? 503 : 200
    response.end('ok')
  })
  const env = { PORT: '0', ADMIN_PORT: '0', ORDERS_PORT: new URL(origin).port, SIGNING_SECRET: secret }
  const { url } = await listen(t, loadWithoutPlugins(join(examples, 'request-signature.yaml'), env))
  const response = await fetch(`${url}/api/orders/7?deep=1`, {
    headers: {
      'x-mine': 'kept',
      'x-gateway-attempt': '9',
      x_gateway_signature: 'forged',
      'X-Gateway-Signature': 'forged'
    }
  })
  t.equal(response.status, 200)
  await response.text()

  t.equal(seen.length, 2)
  for (const [index, { headers, raw, path }] of seen.entries()) {
    const attempt = index + 1
    t.equal(path, '/orders/7?deep=1')
    t.equal(headers['x-mine'], 'kept')
    t.equal(headers['x-gateway-attempt'], String(attempt))
    const [, time] = /^t=(\d+),/.exec(String(headers['x-gateway-signature'])) ?? []
    t.ok(Math.abs(Number(time) - Date.now() / 1000) < 60, 'signed just now')
    t.equal(headers['x-gateway-signature'], signature(secret, Number(time), attempt, 'GET', '/orders/7?deep=1'))
    t.notOk(raw.includes('forged'), 'forged signatures are removed')
  }
})

t.test('request-signature: refuses a short secret, and the message names the plugin', async (t) => {
  const config = { PORT: '0', ADMIN_PORT: '0', SIGNING_SECRET: 'short' }
  const loaded = loadWithoutPlugins(join(examples, 'request-signature.yaml'), config)
  await t.rejects(listen(t, loaded), { message: /: plugins\[0\]: .*options\.secret: at least 32 characters/ })
})

t.test('request-signature: the interceptor also signs in a mesh without Fastify', async (t) => {
  const seen: NodeJS.Dict<string | string[]>[] = []
  const origin = await service(t, (request, response) => {
    seen.push(request.headers)
    response.end()
  })
  const { services } = parseConfig(JSON.stringify({ services: { orders: { instances: [origin] } } }), '/x.yaml')
  const mesh = startMesh({ services }).use(requestSignature(secret), { per: 'attempt' })
  t.teardown(() => mesh.close())
  const call = { origin: 'http://orders.mesh', path: '/', method: 'GET' } as const
  for (const headers of [undefined, { a: '1', b: ['2', '3'] }, ['a', '1', 'b', '2'], new Map([['a', '1']])]) {
    const { statusCode, body } = await mesh.request({ ...call, ...(headers && { headers }) })
    t.equal(statusCode, 200)
    await body.dump()
  }
  t.ok(seen.every((headers) => headers['x-gateway-attempt'] === '1'))
  t.match(seen, [{}, { a: '1', b: '2, 3' }, { a: '1', b: '2' }, { a: '1' }])
})
