// Interceptors of plugins: the route and request that they get, and the calls that they apply to.
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'
import { folder, listen, service } from '../helpers/plugins.ts'
import { runToEnd } from '../helpers/processes.ts'

interface Options {
  plugins: object[]
  files: Record<string, string>
  services?: (origin: string) => object
  routes?: object[]
  /** Number of the first attempts that fail. */
  failing?: number
}

async function gateway(t: Test, { plugins, files, services, routes, failing = 0 }: Options) {
  let attempts = 0
  const seen: string[] = []
  const origin = await service(t, ({ url, headers }, response) => {
    seen.push(`${url} ${headers['x-signed'] ?? '-'}`)
    response.statusCode = attempts++ < failing ? 503 : 200
    setTimeout(() => response.end('ok'), 20)
  })
  const text = JSON.stringify({
    listen: { host: '127.0.0.1', port: 0 },
    admin: { port: 0 },
    services: services?.(origin) ?? { orders: { instances: [origin] }, users: { instances: [origin] } },
    routes: routes ?? [
      { name: 'orders', match: { path: '/orders' }, service: 'orders', config: { signed: 'yes' }, plugins: ['some'] },
      { name: 'users', match: { path: '/users' }, service: 'users' }
    ],
    plugins: [...plugins, { path: './some.mjs', name: 'some', scope: 'routes' }]
  })
  const some = `export default async (fastify) => fastify.addHook('onRequest', async () => {})`
  const whole = await folder(t, { 'some.mjs': some, ...files })
  const { url, server } = await listen(t, parseConfig(text, `${whole}/gateway.yaml`))
  const get = async (path: string) => {
    const response = await fetch(url + path)
    await response.text()
    return response
  }
  return { url, server, get, seen }
}

t.test('an interceptor gets the route and the request of a call, if it has them', async (t) => {
  const files = {
    'note.mjs': `export default async function note (fastify) {
      const noted = []
      fastify.decorate('noted', noted)
      for (const per of ['request', 'attempt']) {
        fastify.mesh.use((dispatch) => (opts, handler) => {
          const { route, request } = opts
          noted.push([per, route?.name ?? null, route?.config.signed ?? null, request?.url ?? null, request?.headers.host ?? null])
          return dispatch(opts, handler)
        }, { per, name: per })
      }
      fastify.get('/own', async ({ mesh }) => {
        const { body } = await mesh.request({ origin: 'http://orders.mesh', path: '/x' })
        return body.text()
      })
    }`
  }
  const { url, server, get } = await gateway(t, { plugins: [{ path: './note.mjs' }], files })
  const { noted } = server as unknown as { noted: unknown[][] }
  const { host } = new URL(url)
  await get('/orders/7?a=b')
  t.strictSame(noted.splice(0), [
    ['request', 'orders', 'yes', '/orders/7?a=b', host],
    ['attempt', 'orders', 'yes', '/orders/7?a=b', host]
  ])
  await get('/users')
  t.strictSame(noted.splice(0)[0], ['request', 'users', null, '/users', host])
  await get('/own')
  t.strictSame(noted.splice(0)[0], ['request', null, null, '/own', host], 'a call of an own route has the request')
  const { body } = await server.mesh.request({ origin: 'http://orders.mesh', path: '/x', method: 'GET' })
  await body.text()
  t.strictSame(noted.splice(0)[0], ['request', null, null, null, null])
})

/** Signs each attempt; `options` go to `use`. */
const signs = `export default async function sign (fastify, options) {
  fastify.mesh.use((dispatch) => (opts, handler) =>
    dispatch({ ...opts, headers: [...(opts.headers ?? []), 'x-signed', options.as ?? 'yes'] }, handler),
    { per: 'attempt', name: 'sign', ...options.use })
}`

t.test('an interceptor runs for the routes and services that its options name', async (t) => {
  const uses: Record<string, [use: object, orders: string, users: string]> = {
    routes: [{ routes: ['users'] }, '-', 'yes'],
    services: [{ services: ['orders'] }, 'yes', '-'],
    both: [{ routes: ['users'], services: ['orders'] }, '-', '-'],
    none: [{ routes: [] }, '-', '-']
  }
  for (const [what, [use, orders, users]] of Object.entries(uses)) {
    const plugins = [{ path: './sign.mjs', options: { use } }]
    const { get, seen, server } = await gateway(t, { plugins, files: { 'sign.mjs': signs } })
    await get('/orders')
    await get('/users')
    t.strictSame(seen, [`/orders ${orders}`, `/users ${users}`], what)
    const shown = (await server.admin!.inject('/admin/routes')).json<{ mesh: string[] }[]>()
    t.strictSame(
      shown.map(({ mesh }) => mesh.includes('sign')),
      [orders === 'yes', users === 'yes'],
      `${what}: /admin/routes`
    )
    const explained = (await server.admin!.inject('/admin/explain?path=/users')).json()
    t.equal(explained.mesh[0].chain.includes('sign'), users === 'yes', what)
  }
})

t.test(
  'an interceptor for a route runs on every attempt, even if an outer interceptor passes new options',
  async (t) => {
    const files = {
      'anew.mjs': `export default async function anew (fastify) {
      fastify.mesh.use((dispatch) => ({ origin, path, method, headers }, handler) => dispatch({ origin, path, method, headers }, handler),
        { per: 'request', name: 'anew' })
    }`,
      'sign.mjs': signs
    }
    const plugins = [{ path: './anew.mjs' }, { path: './sign.mjs', options: { use: { routes: ['orders'] } } }]
    const services = (origin: string) => ({
      orders: {
        instances: [origin],
        mesh: { retry: { attempts: 2, on: [503], backoff: { base: '1ms', max: '2ms' } } }
      },
      users: { instances: [origin] }
    })
    const { get, seen } = await gateway(t, { plugins, files, services, failing: 2 })
    t.equal((await get('/orders')).status, 200)
    t.strictSame(seen, ['/orders yes', '/orders yes', '/orders yes'])
  }
)

t.test('interceptors of a plugin with scope: routes only run on those routes', async (t) => {
  const routes = ['a', 'b'].map((name) => ({
    name, match: { path: `/${name}` }, service: 'orders', ...(name === 'b' && { plugins: ['sign', 'some'] })
  })) // biome-ignore format: a list
  const plugins = [{ path: './sign.mjs', scope: 'routes' }]
  const { get, seen } = await gateway(t, { plugins, routes, files: { 'sign.mjs': signs } })
  await get('/a')
  await get('/b')
  t.strictSame(seen, ['/a -', '/b yes'])
})

t.test('calls with different interceptors are not collapsed', async (t) => {
  const routes = ['a', 'b', 'c'].map((name) => ({
    name,
    match: { path: `/${name}` },
    path: { rewrite: { prefix: '/same' } },
    service: 'orders',
    plugins: ['some']
  }))
  const services = (origin: string) => ({ orders: { instances: [origin], mesh: { collapse: true } } })
  const files = { 'sign.mjs': signs }
  const ask = async (use: object) => {
    const plugins = [{ path: './sign.mjs', options: { use } }]
    const { get, seen } = await gateway(t, { plugins, files, services, routes })
    await Promise.all([get('/a'), get('/b'), get('/c')])
    return seen.sort()
  }
  t.strictSame(await ask({ routes: ['b'] }), ['/same -', '/same yes'])
  t.strictSame(await ask({}), ['/same yes'], 'calls with the same interceptors are collapsed')
})

t.test('unknown names are reported with their plugin', async (t) => {
  const start = (use: object) =>
    gateway(t, { plugins: [{ path: './sign.mjs', options: { use } }], files: { 'sign.mjs': signs } })
  await t.rejects(start({ routes: ['users', 'ordres'] }), {
    message: /plugins\[0\]: \S+sign\.mjs failed to start: mesh\.use: interceptor sign: no route is named "ordres"/
  })
  await t.rejects(start({ services: ['user'] }), { message: /interceptor sign: no service is named "user"/ })
  await t.rejects(start({ per: 'atempt' }), {
    message: /interceptor sign: "per" must be request or attempt, found "atempt"/
  })
})

const notInterceptors: Record<string, [call: string, found: string]> = {
  'an object': ["use({}, { per: 'attempt', name: 'sign' })", 'object and object'],
  'null as options': ['use((dispatch) => dispatch, null)', 'function and null'],
  'no options': ['use((dispatch) => dispatch)', 'function and undefined']
}

for (const [what, [call, found]] of Object.entries(notInterceptors)) {
  t.test(`mesh.use refuses ${what} at the plugin's entry`, async (t) => {
    const files = { 'bad.mjs': `export default async (fastify) => { fastify.mesh.${call} }` }
    const message = 'mesh.use takes an interceptor, which is a function, and options with "per": "request" or "attempt"'
    await t.rejects(gateway(t, { plugins: [{ path: './bad.mjs' }], files }), {
      message: new RegExp(`:\\d+:\\d+: plugins\\[0\\]: \\S+bad\\.mjs failed to start: ${message}; found ${found}`)
    })
  })
}

t.test('check reports an interceptor that is not a function', async (t) => {
  const root = await folder(t, {
    'bad.mjs': "export default async (fastify) => { fastify.mesh.use({}, { per: 'attempt', name: 'sign' }) }",
    'gateway.yaml': `services: { orders: { instances: ["http://127.0.0.1:9"] } }
routes: [{ name: orders, match: { path: / }, service: orders }]
plugins:
  - path: bad.mjs
`
  })
  const app = join(import.meta.dirname, '../../app.ts')
  const checked = await runToEnd(process.execPath, [app, 'check', join(root, 'gateway.yaml')], { env: process.env })
  t.match(checked, {
    code: 1,
    stderr: /gateway\.yaml:4:\d+: plugins\[0\]: \S+bad\.mjs failed to start: mesh\.use takes/
  })
})
