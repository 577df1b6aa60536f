// Placement of a plugin's hooks: on all routes or on some, at a position among the edge's concerns, or below a prefix.
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'
import { secret, token } from '../helpers/edge/tokens.ts'
import { folder, listen, service } from '../helpers/plugins.ts'

/** Requires a secret header; records each hook that runs. Its hooks are in the root context of the gateway. */
const guardPlugin = `export default async function guard (fastify, { word }) {
  fastify.addHook('onRequest', async (request, reply) => {
    reply.header('x-guard', [reply.getHeader('x-guard'), word].filter(Boolean).join(' '))
    if (request.headers['x-word'] !== word) return reply.code(401).send({ refused: word })
  })
}`
/** Records the order of its hooks among those of the edge. */
const watcher = `export default async function watch (fastify, { as }) {
  const note = (request, what) => {
    request.raw.noted = [...(request.raw.noted ?? []), as + what]
  }
  fastify.addHook('onRequest', async (request, reply) => {
    const cors = reply.hasHeader('vary') ? ' cors' : ''
    const limited = reply.hasHeader('ratelimit-limit') ? ' limit' : ''
    const caller = request.consumer === null ? '' : ' ' + request.consumer.id
    note(request, cors + limited + caller)
    reply.header('x-noted', request.raw.noted.join(', '))
  })
}`

interface Options {
  plugins: object[]
  route?: object
  files?: Record<string, string>
}

async function gateway(t: Test, { plugins, route = {}, files = {} }: Options) {
  const root = await folder(t, { 'guard.mjs': guardPlugin, 'watch.mjs': watcher, ...files })
  const origin = await service(t, (_request, response) => response.end('ok'))
  const edge = {
    cors: { origin: ['https://app.example.com'] },
    rateLimit: { max: 100, window: '1m' },
    jwt: { secret, algorithms: ['HS256'] }
  }
  const text = JSON.stringify({
    listen: { host: '127.0.0.1', port: 0 },
    admin: { port: 0 },
    services: { orders: { instances: [origin] } },
    routes: [
      { name: 'orders', match: { path: '/orders' }, service: 'orders', ...route },
      { name: 'open', match: { path: '/open' }, service: 'orders' },
      { name: 'edge', match: { path: '/edge' }, service: 'orders', edge }
    ],
    plugins
  })
  const { url, server } = await listen(t, parseConfig(text, `${root}/gateway.yaml`))
  const ask = async (path: string, init: RequestInit = {}) => {
    const response = await fetch(url + path, init)
    return { status: response.status, headers: response.headers, text: await response.text() }
  }
  return { ask, server }
}

t.test('a plugin for some routes runs on the routes that name it, and on nothing else', async (t) => {
  const plugins = [{ path: './guard.mjs', scope: 'routes', options: { word: 'yes' } }]
  const { ask } = await gateway(t, { plugins, route: { plugins: ['guard'] } })
  t.match(await ask('/orders'), { status: 401, text: '{"refused":"yes"}' })
  t.match(await ask('/orders', { headers: { 'x-word': 'yes' } }), { status: 200, text: 'ok' })
  t.match(await ask('/open'), { status: 200, text: 'ok' })
  t.match(await ask('/nothing'), { status: 404 })
  t.equal((await ask('/open')).headers.get('x-guard'), null)
})

t.test('plugins on one route run in the order of `plugins`, each only on the routes that name it', async (t) => {
  const named = (name: string) => ({ path: './watch.mjs', name, scope: 'routes', options: { as: name } })
  const plugins = ['first', 'second', 'third'].map(named)
  const { ask } = await gateway(t, { plugins, route: { plugins: ['third', 'first'] } })
  t.equal((await ask('/orders')).headers.get('x-noted'), 'first, third')
})

t.test('hooks that a plugin adds in onRoute run on its scoped routes and on its own routes only', async (t) => {
  const files = {
    'by-route.mjs': `export default async function byRoute (fastify) {
      fastify.addHook('onRoute', (route) => {
        const { url } = route
        route.onRequest = [...[route.onRequest ?? []].flat(), async (request, reply) => { reply.header('x-by-route', url) }]
      })
      fastify.get('/own', async () => 'own')
      fastify.addHook('preHandler', async (request, reply) => { reply.header('x-late', 'yes') })
      fastify.addHook('onSend', (request, reply, payload, done) => done(null, payload + '!'))
    }`
  }
  const plugins = [{ path: './by-route.mjs', name: 'it', scope: 'routes' }]
  const { ask } = await gateway(t, { plugins, files, route: { plugins: ['it'] } })
  const proxied = await ask('/orders')
  t.strictSame([proxied.headers.get('x-by-route'), proxied.headers.get('x-late')], ['/orders', 'yes'])
  const own = await ask('/own')
  t.strictSame([own.headers.get('x-by-route'), own.headers.get('x-late'), own.text], ['/own', 'yes', 'own!'])
  const other = await ask('/open')
  t.strictSame([other.headers.get('x-by-route'), other.headers.get('x-late')], [null, null])
})

t.test('`order` places the hooks of a plugin among the edge concerns', async (t) => {
  const at = (as: string, order?: object) => ({ path: './watch.mjs', name: as, order, options: { as } })
  const plugins = [
    at('behind jwt:', { after: 'jwt' }),
    at('before jwt:', { before: 'jwt' }),
    at('behind cors:', { after: 'cors' }),
    at('behind limit:', { after: 'rateLimit' }),
    at('before cors:', { before: 'cors' }),
    at('everywhere:')
  ]
  const { ask } = await gateway(t, { plugins })
  const headers = {
    authorization: `Bearer ${token({ iss: 'a', sub: 'ann', exp: Date.now() })}`,
    origin: 'https://app.example.com'
  }
  const { status, headers: received } = await ask('/edge', { headers })
  t.equal(status, 200)
  t.strictSame(received.get('x-noted')?.split(', '), [
    'everywhere:',
    'before cors:',
    'behind cors: cors',
    'behind limit: cors limit',
    'before jwt: cors limit',
    'behind jwt: cors limit ann'
  ])
})

t.test('`order` also applies on the own routes of plugins that are listed earlier', async (t) => {
  const files = {
    'own.mjs': `export default async function own (fastify) {
      const note = async (request) => void (request.raw.noted = [...(request.raw.noted ?? []), 'own:'])
      const config = { edge: { jwt: { secret: '${secret}', algorithms: ['HS256'] } } }
      fastify.get('/own', { config, onRequest: note }, async ({ raw }) => raw.noted.join())
    }`,
    'late.mjs': `export default async function late (fastify) {
      fastify.get('/late', async ({ raw }) => raw.noted.join())
      fastify.addHook('onRequest', async ({ raw }) => void (raw.noted = [...(raw.noted ?? []), 'late:']))
    }`
  }
  const own = { path: './own.mjs' }
  const before = { path: './watch.mjs', name: 'before', order: { before: 'jwt' }, options: { as: 'before:' } }
  const late = { path: './late.mjs', order: { after: 'jwt' } }
  for (const plugins of [
    [own, before, late],
    [before, late, own],
    [late, own, before]
  ]) {
    const { ask, server } = await gateway(t, { plugins, files })
    const refused = await ask('/own')
    t.match(refused, { status: 401 })
    t.equal(refused.headers.get('x-noted'), 'before:', 'the hook of the plugin runs before the concern')
    const headers = { authorization: `Bearer ${token({ sub: 'ann', exp: Date.now() })}` }
    t.equal((await ask('/own', { headers })).text, 'before:,late:,own:')
    t.equal((await ask('/late')).text, 'before:,late:')
    const [shown] = server.pluginRecord.ownRoutes().filter(({ path }) => path === '/own')
    t.match(shown?.plugins.map(({ plugin, here }) => [plugin, here]).sort(), [
      ['before', ['onRequest']],
      ['late', ['onRequest']]
    ])
  }
})

t.test('the start fails if an earlier plugin has removed the position in `order` from a route', async (t) => {
  const files = {
    'own.mjs': `export default async function own (fastify) {
      fastify.addHook('onRoute', (route) => { route.onRequest = [async () => {}] })
      fastify.get('/own', async () => 'own')
    }`
  }
  const plugins = [{ path: './own.mjs' }, { path: './watch.mjs', order: { before: 'jwt' }, options: { as: '' } }]
  await t.rejects(gateway(t, { plugins, files }), {
    message:
      /plugins\[1\]: .*another plugin has replaced the onRequest hooks of GET \/own: list that plugin after watch/
  })
})

t.test('authentication after CORS: preflights pass, a page can read the 401, unknown paths get 404', async (t) => {
  const plugins = [{ path: './guard.mjs', order: { after: 'cors' }, options: { word: 'yes' } }]
  const { ask } = await gateway(t, { plugins })
  const origin = 'https://app.example.com'
  const preflight = { origin, 'access-control-request-method': 'GET' }
  t.match(await ask('/edge', { method: 'OPTIONS', headers: preflight }), { status: 204 })
  const refused = await ask('/edge', { headers: { origin } })
  t.strictSame([refused.status, refused.text], [401, '{"refused":"yes"}'])
  t.equal(refused.headers.get('access-control-allow-origin'), origin)
  t.equal(refused.headers.get('ratelimit-limit'), null, 'rateLimit runs after the guard')
  t.match(await ask('/orders'), { status: 401 }, 'the guard also runs on routes without CORS')
  t.match(await ask('/nothing'), { status: 404 })
})

t.test('hooks with `order` run on the routes of other plugins, whichever plugin is listed first', async (t) => {
  const bff = {
    'bff.mjs': `export default async function bff (fastify) {
      fastify.get('/home', async () => 'home')
      fastify.register(async (below) => below.get('/below', async () => 'below'))
    }`
  }
  const guard = { path: './guard.mjs', order: { after: 'cors' }, options: { word: 'yes' } }
  for (const plugins of [
    [guard, { path: './bff.mjs' }],
    [{ path: './bff.mjs' }, guard]
  ]) {
    const { ask } = await gateway(t, { plugins, files: bff })
    for (const path of ['/home', '/below']) {
      t.match(await ask(path), { status: 401 }, path)
      t.match(await ask(path, { headers: { 'x-word': 'yes' } }), { status: 200 }, path)
    }
  }
})

const fixture = {
  'home.mjs': `export default async function home (fastify, options) {
    fastify.decorate('mine', true)
    fastify.addHook('onRequest', async (request, reply) => { reply.header('x-home', options.prefix ?? 'none') })
    fastify.get('/home', async () => 'home')
    fastify.post('/sum', async ({ body }) => ({ sum: body.a + body.b }))
    fastify.setNotFoundHandler((request, reply) => reply.code(404).send('no such page'))
  }`,
  'shared.mjs': `const shared = async (fastify, { prefix }) => {
    fastify.addHook('onRequest', async (request, reply) => { reply.header('x-home', prefix ?? 'none') })
    fastify.get((prefix ?? '') + '/home', async () => 'home')
  }
  shared[Symbol.for('skip-override')] = true
  export default shared`
}

for (const [what, entry] of Object.entries({
  'prefix: /bff': { prefix: '/bff' },
  'options: { prefix: /bff }': { options: { prefix: '/bff' } }
})) {
  t.test(`a plugin with ${what} runs in an encapsulated context`, async (t) => {
    const { ask, server } = await gateway(t, { plugins: [{ path: './home.mjs', ...entry }], files: fixture })
    const home = await ask('/bff/home')
    t.strictSame([home.status, home.text, home.headers.get('x-home')], [200, 'home', '/bff'])
    t.match(await ask('/home'), { status: 404 })
    const posted = { method: 'POST', body: '{"a":1,"b":2}', headers: { 'content-type': 'application/json' } }
    t.match(await ask('/bff/sum', posted), { status: 200, text: '{"sum":3}' }, 'bodies of own routes are parsed')
    t.match(await ask('/bff/nothing'), { status: 404, text: 'no such page' })
    t.notMatch(await ask('/nothing'), { text: 'no such page' })
    t.equal((await ask('/orders')).headers.get('x-home'), null, 'hooks of the plugin run on its own routes only')
    t.notOk(server.hasDecorator('mine'))
  })
}

t.test('a prefix encapsulates a plugin with skip-override', async (t) => {
  const below = await gateway(t, { plugins: [{ path: './shared.mjs', prefix: '/bff' }], files: fixture })
  t.match(await below.ask('/bff/home'), { status: 200, text: 'home' })
  t.equal((await below.ask('/orders')).headers.get('x-home'), null)
  const both = await gateway(t, {
    plugins: [{ path: './shared.mjs', prefix: '/bff', options: { prefix: '/v1' } }],
    files: fixture
  })
  t.match(
    await both.ask('/bff/v1/home'),
    { status: 200, text: 'home' },
    'options.prefix is passed to the plugin unchanged'
  )
})

t.test('impossible positions and scopes are reported', async (t) => {
  const fails = async (entry: object, message: RegExp, route: object = {}) => {
    const files = {
      'none.mjs': 'export default async function none (fastify) { fastify.get("/own", async () => "own") }'
    }
    await t.rejects(gateway(t, { plugins: [entry], files, route }), { message })
  }
  await fails(
    { path: './watch.mjs', order: { before: 'host' } },
    /gateway\.yaml:1:\d+: plugins\[0\]\.order\.before: unknown position "host" among the edge concerns; possible are tracing, accessLog, .*cors, csrf, maintenance, rateLimit/
  )
  await fails(
    { path: './watch.mjs', order: { before: 'overload' } },
    /plugins\[0\]\.order\.before: unknown position "overload" among the edge concerns; possible are tracing, accessLog, .*cors/
  )
  await fails(
    { path: './none.mjs', order: { before: 'cors' } },
    /plugins\[0\]: none adds no hooks for routes, so that "order" would have no effect/
  )
  await fails({ path: './none.mjs', scope: 'routes' }, /none adds no hooks for routes, so that "scope" would/, {
    plugins: ['none']
  })
  await fails({ path: './watch.mjs', scope: 'routes', options: { prefix: '/a' } }, /watch adds no hooks for routes/, {
    plugins: ['watch']
  })
})

t.test('a plugin may change its options, which start as written', async (t) => {
  const files = {
    'change.mjs': `export default async function change (fastify, options) {
      options.list.push('more')
      options.deep.er.value = 'changed'
      fastify.get('/options', async () => options)
    }`
  }
  const options = { list: ['one'], deep: { er: { value: 'as written' } } }
  const plugins = [{ path: './change.mjs', options }]
  const { ask } = await gateway(t, { plugins, files })
  t.equal((await ask('/options')).text, '{"list":["one","more"],"deep":{"er":{"value":"changed"}}}')
})

t.test('a plugin whose options have a default value gets the callback, too', async (t) => {
  const files = {
    'default.mjs': `export default function withDefault (fastify, options = {}, done) {
      fastify.get('/' + typeof done, async () => 'ok')
      fastify.register(function inner (below, options = {}, done) {
        below.get('/inner-' + typeof done, async () => 'ok')
        done()
      })
      done()
    }`,
    'sync.mjs': 'export default (fastify) => { fastify.get("/sync", async () => "ok") }',
    'fails.mjs': 'export default (fastify, options = {}, done) => done(new Error("no luck"))'
  }
  const { ask } = await gateway(t, { plugins: [{ path: './default.mjs' }, { path: './sync.mjs' }], files })
  for (const path of ['/function', '/inner-function', '/sync']) t.match(await ask(path), { status: 200 }, path)
  await t.rejects(gateway(t, { plugins: [{ path: './fails.mjs' }], files }), { message: /failed to start: no luck/ })
})

t.test('onSend of a plugin with scope: routes only sees responses of those routes', async (t) => {
  const files = {
    'shout.mjs': `export default async function shout (fastify) {
      fastify.addHook('onSend', async (request, reply, payload) => {
        let text = ''
        for await (const chunk of payload) text += chunk
        reply.removeHeader('content-length')
        return text.toUpperCase() + ' ' + reply.statusCode
      })
    }`
  }
  for (const order of [undefined, { after: 'cors' }]) {
    const plugins = [{ path: './shout.mjs', scope: 'routes', order }]
    const { ask } = await gateway(t, { plugins, files, route: { plugins: ['shout'] } })
    t.match(await ask('/orders'), { status: 200, text: 'OK 200' })
    t.match(await ask('/open'), { status: 200, text: 'ok' })
  }
})

t.test('/admin/routes lists the edge concerns of configured routes and of own routes', async (t) => {
  const files = {
    'own.mjs': `export default async function own (fastify) {
      const config = { edge: { jwt: { secret: '${secret}', algorithms: ['HS256'] } } }
      fastify.get('/own', { config }, async () => 'own')
    }`
  }
  const { server } = await gateway(t, { plugins: [{ path: './own.mjs' }], files })
  const rows = (await server.admin!.inject('/admin/routes')).json<{ match: { path: string }; edge: string[] }[]>()
  const edgeOf = (path: string) => rows.find(({ match }) => match.path === path)!.edge
  const all = server.edgeOrder.concerns.map(({ name }) => name)
  const isShownWith = (...names: string[]) =>
    all.filter((name) => edgeOf('/open').includes(name) || names.includes(name))
  t.ok(edgeOf('/open').includes('access-log'))
  t.notOk(edgeOf('/open').includes('jwt'))
  t.strictSame(edgeOf('/edge'), isShownWith('cors', 'rate-limit', 'jwt'))
  t.strictSame(edgeOf('/own'), server.edgeOrder.namesOn({ edge: server.pluginRecord.ownRoutes()[0]!.edge }))
  t.ok(edgeOf('/own').includes('jwt'))
  t.notMatch(JSON.stringify(rows), secret)
})
