// A plugin that authenticates: the gateway counts by its consumers, if it says that it provides them.
import { join } from 'node:path'
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'
import { folder, listen, service } from './support.ts'

const keys = `export default async function keys (fastify) {
  fastify.addHook('onRequest', async (request) => {
    const id = { one: 'amy', two: 'bob' }[request.headers['x-api-key']]
    if (id === undefined) throw Object.assign(new Error('who are you?'), { statusCode: 401 })
    request.consumer = { id }
  })
}`

const written = (origin: string, plugin: object) =>
  JSON.stringify({
    listen: { port: 0 },
    admin: false,
    services: { orders: { instances: [origin] } },
    edge: { rateLimit: { max: 1, window: '1h', by: 'consumer' } },
    routes: [{ name: 'orders', match: { path: '/' }, service: 'orders' }],
    plugins: [{ path: './keys.mjs', ...plugin }]
  })

t.test('a limit by consumer takes the consumers of a plugin that provides them', async (t) => {
  const origin = await service(t, (_request, response) => response.end('ok'))
  const root = await folder(t, { 'keys.mjs': keys })
  const config = parseConfig(written(origin, { provides: ['consumer'] }), join(root, 'gateway.yaml'))
  const { url } = await listen(t, config)
  const statusWith = async (key: string) => {
    const response = await fetch(url, { headers: { 'x-api-key': key } })
    await response.text()
    return response.status
  }
  t.same([await statusWith('one'), await statusWith('one'), await statusWith('two')], [200, 429, 200])
  t.equal(await statusWith('none'), 401)
})

t.test('it is a fault without, and the fault tells the way out', async (t) => {
  const root = await folder(t, { 'keys.mjs': keys })
  t.throws(() => parseConfig(written('http://127.0.0.1:9', {}), join(root, 'gateway.yaml')), {
    message:
      /without jwt the route doesn't know its consumers; a plugin that sets them says so by provides: \[consumer\]/
  })
})

t.test('it is a fault on a route on which the plugin does not run', async (t) => {
  const root = await folder(t, { 'keys.mjs': keys })
  const parse = (plugin: object, route: object) => {
    const config = JSON.parse(written('http://127.0.0.1:9', { provides: ['consumer'], ...plugin }))
    Object.assign(config.routes[0], route)
    return parseConfig(JSON.stringify(config), join(root, 'gateway.yaml'))
  }
  t.throws(() => parse({ scope: 'routes' }, {}), { message: /without jwt the route doesn't know its consumers/ })
  t.throws(() => parse({ prefix: '/own' }, {}), { message: /without jwt the route doesn't know its consumers/ })
  t.doesNotThrow(() => parse({ scope: 'routes' }, { plugins: ['keys'] }))
})
