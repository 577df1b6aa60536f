// slow: takes about 12 s
// Plugins under `plugins:` are found, get their options, and run in order. The error for a plugin that fails has its
// position in the file, and nothing of the gateway stays running.
import { join } from 'node:path'
import Fastify from 'fastify'
import t from 'tap'
import { gateway, start } from '../../app.ts'
import { ConfigError } from '../../config/load.ts'
import { corsOptions } from '../helpers/edge/cors-options.ts'
import { jwtOptions } from '../helpers/edge/jwt-options.ts'
import { claims, secret, token } from '../helpers/edge/tokens.ts'
import { configIn, folder, listen, service } from '../helpers/plugins.ts'
import { freePort, runToEnd } from '../helpers/processes.ts'

/** Adds its name to the header `x-order` when a request comes. */
const orderly = (name: string) => `export default async function ${name} (fastify, options) {
  fastify.addHook('onRequest', async (request, reply) => {
    reply.header('x-order', [reply.getHeader('x-order'), options.as ?? '${name}'].filter(Boolean).join(' '))
  })
}`
const fpLike = `const plugin = async (fastify) => fastify.addHook('onRequest', async (_, reply) => {
  reply.header('x-order', [reply.getHeader('x-order'), 'shared'].filter(Boolean).join(' '))
})
plugin[Symbol.for('skip-override')] = true
plugin[Symbol.for('fastify.display-name')] = 'shared'
plugin[Symbol.for('plugin-meta')] = { name: 'shared' }
export default plugin`

const ok = (t: Parameters<typeof service>[0]) => service(t, (_request, response) => response.end('ok'))

t.test('plugins run in the order of the list with their options, with or without fastify-plugin', async (t) => {
  const root = await folder(t, { 'a.mjs': orderly('a'), 'shared.mjs': fpLike, 'sub/c.mjs': orderly('c') })
  const config = configIn(root, await ok(t), [
    { path: './sub/c.mjs' },
    { path: 'shared.mjs' },
    { path: './a.mjs', options: { as: 'renamed' } },
    { path: join(root, 'a.mjs') }
  ])
  const { url } = await listen(t, config)
  const response = await fetch(`${url}/orders`)
  t.equal(response.headers.get('x-order'), 'c shared renamed a')
  t.equal(await response.text(), 'ok')
})

t.test('packages of every module kind are found from the folder of the configuration', async (t) => {
  const root = await folder(t, {
    'node_modules/esm-only/package.json': '{"name":"esm-only","type":"module","exports":{"import":"./i.js"}}',
    'node_modules/esm-only/i.js': orderly('esm'),
    'node_modules/@of/commonjs/package.json': '{"name":"@of/commonjs","main":"i.js"}',
    'node_modules/@of/commonjs/i.js': `module.exports = function commonjs (fastify, options, done) {
      fastify.addHook('onSend', (request, reply, payload, next) => next())
      fastify.addHook('onRequest', (request, reply, next) => {
        reply.header('x-order', reply.getHeader('x-order') + ' ' + options.name)
        next()
      })
      done()
    }`,
    'node_modules/transpiled/package.json': '{"name":"transpiled","main":"i.js"}',
    'node_modules/transpiled/i.js': `Object.defineProperty(exports, '__esModule', { value: true })
    exports.default = async (fastify) => fastify.addHook('onRequest', async (request, reply) => {
      reply.header('x-order', reply.getHeader('x-order') + ' transpiled')
    })`
  })
  const plugins = [
    { package: 'esm-only' },
    { package: '@of/commonjs', options: { name: 'commonjs' } },
    { package: 'transpiled' }
  ]
  const { url } = await listen(t, configIn(root, await ok(t), plugins))
  const response = await fetch(`${url}/orders`)
  t.equal(response.headers.get('x-order'), 'esm commonjs transpiled')
  await response.text()
})

t.test('two folders may have different packages of one name', async (t) => {
  const make = (name: string) =>
    folder(t, {
      'node_modules/same/package.json': '{"name":"same","type":"module","exports":"./i.js"}',
      'node_modules/same/i.js': orderly(name)
    })
  for (const name of ['one', 'two']) {
    const { url } = await listen(t, configIn(await make(name), await ok(t), [{ package: 'same' }]))
    const response = await fetch(`${url}/orders`)
    t.equal(response.headers.get('x-order'), name)
    await response.text()
  }
})

t.test('hooks see route, consumer and exchange from the hook on that the guide names', async (t) => {
  const root = await folder(t, {
    'watch.mjs': `export default async function watch (fastify, { seen }) {
      const note = (what) => fastify.noted.push(what)
      fastify.decorate('noted', [])
      fastify.addHook('onRoute', (routeOptions) => {
        const { route, greeting } = routeOptions.config ?? {}
        if (route) note('route ' + route.name + ' ' + greeting)
      })
      fastify.addHook('onRequest', async (request) => note('onRequest ' + typeof request.id + ' ' + request.exchange))
      fastify.addHook('preHandler', async (request) => note('preHandler ' + request.consumer))
      fastify.addHook('onSend', async () => { note('onSend') })
      fastify.addHook('onResponse', async ({ exchange }, reply) => {
        note('onResponse ' + reply.statusCode + ' ' + exchange?.call?.service + ' ' + exchange?.call?.attempts + ' ' + exchange?.bytesSent)
      })
      fastify.get('/own', async () => ({ own: true }))
    }`
  })
  const { url, server } = await listen(t, configIn(root, await ok(t), [{ path: './watch.mjs' }]))
  const { noted } = server as unknown as { noted: string[] }
  t.same([...new Set(noted.splice(0))], ['route orders hello'])

  t.equal(await (await fetch(`${url}/orders`)).text(), 'ok')
  await new Promise(setImmediate)
  t.same(noted.splice(0), ['onRequest string null', 'preHandler null', 'onSend', 'onResponse 200 orders 1 2'])

  t.same(await (await fetch(`${url}/own`)).json(), { own: true })
  await new Promise(setImmediate)
  t.match(noted.splice(0), ['onRequest string null', 'preHandler null', 'onSend', /^onResponse 200 undefined/])
})

t.test('hooks for all requests run before authentication, hooks of a route after it', async (t) => {
  const root = await folder(t, {
    'who.mjs': `export default async function who (fastify) {
      const show = (name) => async (request, reply) => { reply.header(name, request.consumer?.id ?? 'anonymous') }
      fastify.addHook('onRequest', show('x-all'))
      fastify.addHook('preHandler', show('x-pre'))
      fastify.addHook('onRoute', (routeOptions) => {
        routeOptions.onRequest = [...[routeOptions.onRequest ?? []].flat(), show('x-route')]
      })
    }`
  })
  const written = configIn(root, await ok(t), [{ path: './who.mjs' }])
  const jwt = jwtOptions({ secret })
  const cors = corsOptions()
  const routes = written.routes.map((route) => ({ ...route, edge: { ...route.edge, jwt, cors } }))
  const { url } = await listen(t, { ...written, routes })
  const received = async (init: RequestInit, path = '/orders') => {
    const response = await fetch(url + path, init)
    await response.text()
    return [response.status, ...['x-all', 'x-route', 'x-pre'].map((name) => response.headers.get(name))]
  }
  t.same(await received({ headers: { authorization: `Bearer ${token(claims())}` } }), [200, 'anonymous', 'ann', 'ann'])
  t.same(await received({}), [401, 'anonymous', null, null])
  t.same(await received({}, '/nothing'), [404, 'anonymous', null, 'anonymous'])
  const preflight = { origin: 'https://app.example.com', 'access-control-request-method': 'GET' }
  t.same(await received({ method: 'OPTIONS', headers: preflight }), [204, 'anonymous', null, null])
})

t.test('a plugin can add headers for the service, drop the client’s, call services and add routes', async (t) => {
  const root = await folder(t, {
    'more.mjs': `export default async function more (fastify) {
      fastify.addHook('onRoute', (routeOptions) => {
        const dropHeaders = [...(routeOptions.config?.dropHeaders ?? []), 'x-tenant']
        routeOptions.config = { ...routeOptions.config, dropHeaders }
      })
      fastify.addHook('onRequest', async (request) => {
        request.upstreamHeaders = [...(request.upstreamHeaders ?? []), 'x-tenant', 'ours']
      })
      fastify.post('/own', async (request) => {
        const { body } = await fastify.mesh.request({ origin: 'http://orders.mesh', path: '/x', method: 'GET' })
        return { sent: request.body, service: await body.text() }
      })
      fastify.admin?.get('/admin/more', async () => ({ more: true }))
    }`
  })
  const origin = await service(t, ({ headers, url }, response) => response.end(`${url} ${headers['x-tenant']}`))
  const { url, server } = await listen(t, configIn(root, origin, [{ path: './more.mjs' }]))
  const proxied = await fetch(`${url}/orders`, { headers: { 'x-tenant': 'forged' } })
  t.equal(await proxied.text(), '/orders ours')
  const own = await fetch(`${url}/own`, {
    method: 'POST',
    body: '{"a":1}',
    headers: { 'content-type': 'application/json' }
  })
  t.same(await own.json(), { sent: { a: 1 }, service: '/x undefined' })
  t.same((await server.admin!.inject('/admin/more')).json(), { more: true })
})

t.test('onClose hooks of plugins run in reverse order', async (t) => {
  const closing = `export default async function x (fastify, { log, name }) {
    fastify.addHook('onClose', async () => { globalThis[log].push(name) })
  }`
  const root = await folder(t, { 'x.mjs': closing })
  const log = `closed${Date.now()}`
  const closed: string[] = []
  Reflect.set(globalThis, log, closed)
  const plugins = ['first', 'second'].map((name) => ({ path: './x.mjs', options: { log, name } }))
  const { server } = await listen(t, configIn(root, await ok(t), plugins))
  await server.close()
  t.same(closed, ['second', 'first'])
})

const broken: Record<string, [text: string, message: RegExp]> = {
  'has no default export': [
    'export const plugin = async () => {}',
    /cannot load .*it has no default export that is a Fastify/
  ],
  'exports an object': ['export default { plugin: true }', /cannot load .*it has no default export/],
  'is not JavaScript': ['export default async (', /cannot load .*Unexpected end of input/],
  'throws on import': ['throw new Error("no luck")', /cannot load .*no luck/],
  'never finishes its import': ['await new Promise(() => {})', /cannot load .*: its module has not loaded within 8 s/],
  'imports a missing package': ['import "no-such-package-at-all"', /cannot load .*no-such-package-at-all/],
  'throws when it starts': ['export default async () => { throw new Error("no luck") }', /failed to start: no luck/],
  'throws a string': ['export default async () => { throw "no luck" }', /failed to start: no luck/],
  'throws before its callback': [
    'export default (fastify, options, done) => { throw new Error("no luck") }',
    /: no luck/
  ],
  'rejects in place of its callback': [
    'export default async (a, b, done) => { throw new Error("no luck") }',
    /: no luck/
  ],
  'gives its callback an error': [
    'export default (a, b, done) => done(new Error("no luck"))',
    /failed to start: no luck/
  ],
  'depends on a missing plugin': [
    `${fpLike.replace("{ name: 'shared' }", "{ name: 'shared', dependencies: ['absent'] }")}`,
    /failed to start: .*'absent'.*'shared'/
  ],
  'depends on another version of Fastify': [
    `${fpLike.replace("{ name: 'shared' }", "{ name: 'shared', fastify: '4.x' }")}`,
    /failed to start: .*shared.*4\.x/
  ]
}

for (const [what, [text, message]] of Object.entries(broken)) {
  t.test(`the error for a plugin that ${what} has its position, and nothing is left running`, async (t) => {
    const log = `closed${what}`
    const closed: string[] = []
    Reflect.set(globalThis, log, closed)
    const root = await folder(t, {
      'good.mjs': `export default async function good (fastify) {
        fastify.addHook('onReady', async () => { globalThis[${JSON.stringify(log)}].push('ready') })
        fastify.addHook('onClose', async () => { globalThis[${JSON.stringify(log)}].push('closed') })
      }`,
      'bad.mjs': text
    })
    const config = configIn(root, 'http://127.0.0.1:9', [{ path: './good.mjs' }, { path: './bad.mjs' }])
    const port = await freePort()
    const starting = start({ ...config, listen: { ...config.listen, port } })
    await t.rejects(starting, { message: /^\S+gateway\.yaml:1:\d+: plugins\[1\]: / })
    await t.rejects(starting, { message })
    await t.rejects(fetch(`http://127.0.0.1:${port}/`), 'nothing listens')
    const begun = /cannot load/.test(String(message)) ? [] : ['closed']
    t.same(closed, begun, 'plugins that had started were closed, and no onReady hook ran')
  })
}

t.test('an onReady hook that does not end stops the start, before the time limit of Fastify', async (t) => {
  const root = await folder(t, {
    'slow.mjs': `export default async function slow (fastify) { fastify.addHook('onReady', () => new Promise(() => {})) }`
  })
  const server = Fastify({ pluginTimeout: 1500 })
  t.teardown(() => server.close())
  server.register(gateway, configIn(root, 'http://127.0.0.1:9', [{ path: 'slow.mjs' }]))
  await t.rejects(Promise.resolve(server.ready()), {
    message:
      /gateway\.yaml:1:\d+: plugins\[0\]: \S+slow\.mjs failed to start: its onReady hook has not ended within 0\.5 s/
  })
})

t.test('the error for an installed package that cannot be loaded has its position', async (t) => {
  const root = await folder(t, { 'node_modules/hollow/package.json': '{"name":"hollow","main":"gone.js"}' })
  const config = configIn(root, 'http://127.0.0.1:9', [{ package: 'hollow' }])
  await t.rejects(listen(t, config), { message: /: plugins\[0\]: cannot load hollow: Cannot find .*hollow/ })
})

t.test('a missing file or package is a fault of the configuration', async (t) => {
  const root = await folder(t, {})
  const missing = {
    path: /plugins\[0\]\.path: no such file: .*gone\.mjs/,
    package: /plugins\[0\]\.package: no such package/
  }
  for (const [key, message] of Object.entries(missing)) {
    const plugin = { [key]: './gone.mjs' }
    t.throws(() => configIn(root, 'http://127.0.0.1:9', [plugin]), ConfigError)
    t.throws(() => configIn(root, 'http://127.0.0.1:9', [plugin]), { message })
  }
})

t.test('the command reports the failure in one line, and exits with 1', async (t) => {
  const root = await folder(t, {
    'bad.mjs': 'export default () => { throw new Error("no luck") }',
    'gateway.yaml': 'listen: { port: 0 }\nadmin: false\nplugins:\n  - path: bad.mjs\n'
  })
  const app = join(import.meta.dirname, '../../app.ts')
  const env = { ...process.env, JINGWEI_LOG_LEVEL: 'silent' }
  const ended = await runToEnd(process.execPath, [app, '--config', join(root, 'gateway.yaml')], { env })
  t.equal(ended.code, 1)
  const sum = '1 fault in \\S+; nothing was started'
  t.match(
    ended.stderr,
    new RegExp(
      `^\\S+gateway\\.yaml:4:5: plugins\\[0\\]: \\S+bad\\.mjs failed to start: no luck \\(bad\\.mjs:1:30\\)\\n${sum}\\n$`
    )
  )
  t.equal(ended.stdout, '')
})
