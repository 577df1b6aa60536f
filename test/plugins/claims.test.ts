// Claims that only one plugin can make: a decorator's name, the handler of requests that no route takes. An error names
// the plugin that made the claim first.
import type { Test } from 'tap'
import t from 'tap'
import { configIn, folder, listen, service } from '../helpers/plugins.ts'

async function gateway(t: Test, files: Record<string, string>) {
  const root = await folder(t, files)
  const origin = await service(t, (_request, response) => response.end('ok'))
  const plugins = Object.keys(files).map((path) => ({ path }))
  return listen(t, configIn(root, origin, plugins))
}

const decorates = (name: string, method = 'decorate') =>
  `export default async function ${name.replace(/\W/g, '')}Plugin (fastify) { fastify.${method}('${name}', null) }`

t.test('a decorator that another plugin has added is refused', async (t) => {
  const start = gateway(t, { 'one.mjs': decorates('db'), 'two.mjs': decorates('db') })
  const message =
    /gateway\.yaml:1:\d+: plugins\[1\]: \S+two\.mjs failed to start: it adds the decorator "db" of the server, which plugin one has added already/
  await t.rejects(start, { message })
})

t.test('a decorator that the gateway has added is refused', async (t) => {
  await t.rejects(gateway(t, { 'one.mjs': decorates('mesh') }), {
    message:
      /plugins\[0\]: \S+one\.mjs failed to start: it adds the decorator "mesh" of the server, which the gateway has added already/
  })
  await t.rejects(gateway(t, { 'one.mjs': decorates('failure', 'decorateRequest') }), {
    message: /it adds the decorator "failure" of requests, which the gateway has added already/
  })
  await t.rejects(gateway(t, { 'a.mjs': decorates('x'), 'one.mjs': decorates('exchange', 'decorateRequest') }), {
    message:
      /gateway\.yaml:1:\d+: plugins\[1\]: .* adds the decorator "exchange" of requests, which the gateway has added already/
  })
})

t.test('a decorator that the gateway adds later is refused', async (t) => {
  await t.rejects(gateway(t, { 'a.mjs': decorates('x'), 'one.mjs': decorates('responsePath') }), {
    message:
      /gateway\.yaml:1:\d+: plugins\[1\]: the decorator "responsePath" of the server is used by the gateway, but plugin one has added it already/
  })
})

t.test('a route that another plugin has added is refused', async (t) => {
  const one = `export default async (fastify) => fastify.get('/home', async () => 'one')`
  const two = `export default async (fastify) => {
    fastify.get('/other', async () => 'two')
    fastify.register(async (below) => below.route({ method: ['POST', 'GET'], url: '/home', handler: async () => 'two' }))
  }`
  await t.rejects(gateway(t, { 'one.mjs': one, 'two.mjs': two }), {
    message:
      /plugins\[1\]: \S+two\.mjs failed to start: it adds the route POST,GET \/home, which plugin one has added already/
  })
  await t.rejects(
    gateway(t, { 'one.mjs': `export default async (f) => { f.get('/a', () => {}); f.get('/a', () => {}) }` }),
    {
      message: /it adds the route GET \/a, which the plugin itself has added already/
    }
  )
})

t.test('encapsulated contexts may add decorators of the same name', async (t) => {
  const own = (path: string) => `export default async function own (fastify) {
    fastify.register(async (below) => {
      below.decorate('mine', '${path}')
      below.decorateReply('mine', '${path}')
      below.get('/${path}', async function (request, reply) { return this.mine + reply.mine })
    })
  }`
  const { url } = await gateway(t, { 'one.mjs': own('one'), 'two.mjs': own('two') })
  for (const path of ['one', 'two']) t.equal(await (await fetch(`${url}/${path}`)).text(), path + path)
})

const handles = (text: string) => `export default async function pages (fastify) {
  fastify.decorateReply('page', function () { return this.code(404).type('text/html').send('${text}') })
  fastify.setNotFoundHandler({
    preHandler: (request, reply, done) => { reply.header('x-pages', 'yes'); done() }
  }, function (request, reply) {
    if (request.url === '/throws') throw new Error('no luck')
    if (request.url === '/app') return { page: typeof this.mesh }
    return reply.page()
  })
}`

t.test("a plugin's not-found handler responds to unknown paths; the gateway responds to wrong methods", async (t) => {
  const { url } = await gateway(t, { 'pages.mjs': handles('nothing here') })
  const missing = await fetch(`${url}/missing`)
  t.strictSame([missing.status, missing.headers.get('x-pages'), await missing.text()], [404, 'yes', 'nothing here'])
  t.strictSame(
    await (await fetch(`${url}/app`)).json(),
    { page: 'object' },
    'the not-found handler may respond with 200, as for a single-page app'
  )
  const wrong = await fetch(`${url}/orders`, { method: 'PROPFIND' })
  t.strictSame([wrong.status, wrong.headers.get('allow') !== null], [405, true])
  await wrong.text()
  const failed = await fetch(`${url}/throws`)
  t.match(await failed.json(), { statusCode: 500, code: 'JW_PLUGIN_FAILED' })
})

t.test('a second not-found handler is refused', async (t) => {
  await t.rejects(
    gateway(t, { 'one.mjs': handles('one'), 'two.mjs': handles('two').replace(/^.*decorateReply.*$/m, '') }),
    {
      message:
        /plugins\[1\]: \S+two\.mjs failed to start: it adds the not-found handler, which plugin one has added already/
    }
  )
})
