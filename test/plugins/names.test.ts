// slow: installs packages
// Plugins that the gateway uses itself, or whose names it takes, registered by a user as well.
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'
import { claims, secret, token } from '../helpers/edge/tokens.ts'
import { ecosystemPackages } from '../helpers/packages.ts'
import type { Gateway } from '../helpers/plugins.ts'
import { folder, listen, service } from '../helpers/plugins.ts'

const edges = {
  'while edge.cors and edge.jwt are on': {
    cors: { origin: 'https://edge.example.com' },
    jwt: { secret, algorithms: ['HS256'] }
  },
  'while edge.cors and edge.jwt are off': {}
}

async function gatewayWith(
  t: Test,
  edge: object,
  plugins: object[],
  files: Record<string, string> = {}
): Promise<Gateway> {
  const origin = await service(t, (_request, response) => response.end('ok'))
  const root = await folder(t, files)
  const text = JSON.stringify({
    listen: { port: 0 },
    admin: false,
    services: { orders: { instances: [origin] } },
    edge,
    routes: [{ name: 'orders', match: { path: '/api' }, service: 'orders' }],
    plugins
  })
  return listen(t, parseConfig(text, join(root, 'gateway.yaml')))
}

for (const [what, edge] of Object.entries(edges)) {
  t.test(`@fastify/cors, ${what}`, async (t) => {
    const plugins = [{ package: '@fastify/cors', options: { origin: 'https://plugin.example.com' } }]
    const { url } = await gatewayWith(t, edge, plugins)
    const headers = { origin: 'https://plugin.example.com', 'access-control-request-method': 'GET' }
    const preflight = await fetch(`${url}/elsewhere`, { method: 'OPTIONS', headers })
    t.equal(preflight.status, 204)
    t.equal(preflight.headers.get('access-control-allow-origin'), 'https://plugin.example.com')
  })

  t.test(`@fastify/jwt, ${what}`, async (t) => {
    const plugins = [{ package: '@fastify/jwt', options: { secret: 'of the plugin' } }, { path: './tokens.mjs' }]
    const files = {
      'tokens.mjs': `export default async function tokens (fastify) {
        fastify.get('/token', async () => fastify.jwt.sign({ sub: 'plugin' }))
        fastify.get('/who', { onRequest: (request) => request.jwtVerify() }, async ({ user }) => user.sub)
        fastify.addHook('onResponse', async (request) => { fastify.users.push(request.user?.sub) })
        fastify.decorate('users', [])
      }`
    }
    const { url, server } = await gatewayWith(t, edge, plugins, files)
    const own = await (await fetch(`${url}/token`)).text()
    const who = await fetch(`${url}/who`, { headers: { authorization: `Bearer ${own}` } })
    t.equal(await who.text(), 'plugin')
    const proxied = await fetch(`${url}/api`, { headers: { authorization: `Bearer ${token(claims())}` } })
    t.equal(await proxied.text(), 'ok')
    await new Promise(setImmediate)
    const { users } = server as unknown as { users: unknown[] }
    t.same(users, [undefined, 'plugin', 'jwt' in edge ? 'ann' : undefined])
  })
}

t.test('@fastify/cors as a plugin takes the options of a route with edge.cors', async (t) => {
  const origin = 'https://app.example.com'
  const plugins = [{ package: '@fastify/cors', options: { origin: 'https://plugin.example.com' } }]
  const { url } = await gatewayWith(t, { cors: { origin: [origin] } }, plugins)
  const allowed = async (from: string, method: string) => {
    const headers = { origin: from, 'access-control-request-method': 'GET' }
    const response = await fetch(`${url}/api`, { method, headers })
    await response.text()
    return response.headers.get('access-control-allow-origin')
  }
  for (const method of ['OPTIONS', 'GET']) {
    t.equal(await allowed(origin, method), origin, method)
    t.equal(await allowed('https://evil.example.com', method), null, method)
  }
})

t.test('a plugin may decorate the server with `metrics`, as fastify-metrics does', async (t) => {
  const files = {
    'theirs.mjs': `const theirs = async (fastify) => fastify.decorate('metrics', { theirs: true })
      theirs[Symbol.for('skip-override')] = true
      export default theirs`
  }
  const { url, server } = await gatewayWith(t, {}, [{ path: './theirs.mjs' }], files)
  t.same(server.metrics, { theirs: true })
  await (await fetch(`${url}/api`)).text()
  t.match(
    await server.meter.registry.metrics(),
    /jingwei_edge_requests_total\{route="orders",method="GET",status="200",direction="north-south"\} 1/
  )
})

t.test('fastify-metrics and the gateway count in separate registries', async (t) => {
  const file = join(await ecosystemPackages(), 'gateway.yaml')
  const origin = await service(t, (_request, response) => response.end('ok'))
  const text = JSON.stringify({
    listen: { port: 0 },
    admin: false,
    services: { orders: { instances: [origin] } },
    routes: [{ name: 'orders', match: { path: '/api' }, service: 'orders' }],
    plugins: [{ package: 'fastify-metrics', options: { endpoint: '/theirs' } }]
  })
  const { url, server } = await listen(t, parseConfig(text, file))
  await (await fetch(`${url}/api`)).text()
  t.match(await (await fetch(`${url}/theirs`)).text(), /^http_request_duration_seconds_count/m)
  t.match(
    await server.meter.registry.metrics(),
    /jingwei_edge_requests_total\{route="orders",method="GET",status="200",direction="north-south"\} 1/
  )
})

t.test('two plugins cannot both add the decorator `metrics`', async (t) => {
  const files = {
    'theirs.mjs': `export default async (fastify) => fastify.decorate('metrics', { theirs: true })`
  }
  const twice = [{ path: './theirs.mjs' }, { path: './theirs.mjs' }]
  await t.rejects(gatewayWith(t, {}, twice, files), {
    message: /plugins\[1\]: .*decorator "metrics" .*plugin theirs has added already/
  })
})

t.test('metrics of plugins are counted without the admin port', async (t) => {
  const files = {
    'count.mjs': `export default async function count (fastify) {
      const seen = fastify.meter.counter({ name: 'seen_total', help: 'Seen.', labelNames: ['status'] })
      const all = fastify.meter.counter({ name: 'all_total', help: 'All.' }).labels()
      fastify.addHook('onResponse', async (request, reply) => { seen.labels(reply.statusCode).inc(); all.inc(2) })
      fastify.meter.gauge({ name: 'ready', help: 'Ready.', collect: (set) => set({}, 1) })
    }`
  }
  const { url, server } = await gatewayWith(t, {}, [{ path: './count.mjs' }], files)
  await (await fetch(`${url}/api`)).text()
  await (await fetch(`${url}/nothing`)).text()
  const text = await (server as FastifyInstance).metrics.metrics()
  for (const line of ['seen_total{status="200"} 1', 'seen_total{status="404"} 1', 'all_total 4', 'ready 1']) {
    t.ok(text.split('\n').includes(line), line)
  }
  t.match(text, /jingwei_edge_requests_total\{route="orders",method="GET",status="200",direction="north-south"\} 1/)
  t.match(text, /jingwei_mesh_attempts_total\{[^}]*\} 1/)
})
