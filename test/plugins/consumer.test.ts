// A plugin that authenticates: the gateway counts by its consumers, if it says that it provides them.
import { join } from 'node:path'
import t from 'tap'
import { build } from '../../app.ts'
import { parseConfig } from '../../plugins/config.ts'
import { folder, listen, service } from '../helpers/plugins.ts'

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

t.test('a limit by consumer counts the consumers that a plugin provides', async (t) => {
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

t.test('a consumer that a plugin sets is complete, frozen and of its request only', async (t) => {
  const module = `export default async function own (fastify) {
    const given = { id: 'amy', groups: ['gold'] }
    fastify.addHook('onRequest', async (request) => { if (request.query.as) request.consumer = given })
    fastify.get('/own', async ({ consumer }) => {
      const { groups = [], tags = [] } = consumer ?? {}
      return { consumer, isFrozen: [consumer, groups, tags].every(Object.isFrozen), isCopy: consumer !== given }
    })
  }`
  const root = await folder(t, { 'own.mjs': module })
  const text = JSON.stringify({ listen: { port: 0 }, admin: false, plugins: [{ path: './own.mjs' }] })
  const { url } = await listen(t, parseConfig(text, join(root, 'gateway.yaml')))
  const get = async (query: string) => (await fetch(`${url}/own${query}`)).json()
  const amy = { id: 'amy', groups: ['gold'], tags: [], edge: {} }
  t.same(await get('?as=amy'), { consumer: amy, isFrozen: true, isCopy: true })
  t.match(await get(''), { consumer: null })
})

t.test('a limit by consumer without a provider is a fault that names the remedy', async (t) => {
  const root = await folder(t, { 'keys.mjs': keys })
  t.throws(() => parseConfig(written('http://127.0.0.1:9', {}), join(root, 'gateway.yaml')), {
    message:
      /nothing on this route identifies the consumer; add .*keyAuth, .*forwardAuth or a plugin that declares provides: \[consumer\]/
  })
})

t.test('a limit by consumer is a fault on a route on which the providing plugin does not run', async (t) => {
  const root = await folder(t, { 'keys.mjs': keys })
  const parse = (plugin: object, route: object) => {
    const config = JSON.parse(written('http://127.0.0.1:9', { provides: ['consumer'], ...plugin }))
    Object.assign(config.routes[0], route)
    return parseConfig(JSON.stringify(config), join(root, 'gateway.yaml'))
  }
  t.throws(() => parse({ scope: 'routes' }, {}), { message: /nothing on this route identifies the consumer/ })
  t.throws(() => parse({ prefix: '/own' }, {}), { message: /nothing on this route identifies the consumer/ })
  t.doesNotThrow(() => parse({ scope: 'routes' }, { plugins: ['keys'] }))
})

const own = (config: object) =>
  `export default async function own (fastify) {
    fastify.addHook('onRequest', async () => {})
    fastify.get('/own', { config: ${JSON.stringify(config)} }, async ({ consumer }) => consumer?.id ?? 'anonymous')
  }`

t.test("a limit by consumer on a plugin's own route needs a provider that runs there", async (t) => {
  const limit = { max: 1, window: '1h', by: 'consumer' }
  const byConsumer = { edge: { rateLimit: limit } }
  const provides = ['consumer']
  const key = { path: './keys.mjs', provides }
  const cases: [what: string, plugins: object[], module: string, edge: object, isFault: boolean][] = [
    ['a provider for all', [key], own(byConsumer), {}, false],
    ['one listed later', [{ path: './own.mjs' }, key], own(byConsumer), {}, false],
    ['one for some routes', [{ ...key, scope: 'routes' }], own(byConsumer), {}, true],
    ['one with a prefix', [{ ...key, prefix: '/x' }], own(byConsumer), {}, true],
    ['none', [], own(byConsumer), {}, true],
    ['the plugin itself', [{ path: './own.mjs', provides, scope: 'routes' }], own(byConsumer), {}, false],
    ['the plugin itself, with a prefix', [{ path: './own.mjs', provides, prefix: '/x' }], own(byConsumer), {}, false],
    ['a limit of the top level', [{ ...key, scope: 'routes' }], own({ edge: { rateLimit: true } }), { rateLimit: limit }, true],
    ['an inherited limit', [{ ...key, scope: 'routes' }, { path: './own.mjs', guarded: true }], own({}), { rateLimit: limit }, true],
    ['a limit that is off', [{ ...key, scope: 'routes' }, { path: './own.mjs', guarded: true }], own({ edge: { rateLimit: false } }), { rateLimit: limit }, false]
  ] // biome-ignore format: a table
  for (const [what, plugins, module, edge, isFault] of cases) {
    const root = await folder(t, { 'keys.mjs': keys, 'own.mjs': `${module}\n// ${what}` })
    const hasOwn = plugins.some((plugin) => Reflect.get(plugin, 'path') === './own.mjs')
    const text = JSON.stringify({
      admin: false,
      listen: { port: 0 },
      edge,
      services: { any: { instances: ['http://127.0.0.1:9'] } },
      routes: [{ name: 'any', match: { path: '/any' }, service: 'any', edge: { rateLimit: false } }],
      plugins: hasOwn ? plugins : [...plugins, { path: './own.mjs' }]
    })
    const gateway = build(parseConfig(text, join(root, 'gateway.yaml')), { logger: false })
    t.teardown(() => gateway.close())
    const fault = await gateway.ready().then(
      () => '',
      (error: Error) => error.message
    )
    if (!isFault) t.equal(fault, '', what)
    else
      t.match(
        fault,
        /gateway\.yaml:1:\d+: plugins\[\d\]: .*route GET \/own: config\.edge\.rateLimit\.by: consumer: nothing on this route identifies the consumer/,
        what
      )
  }
})
