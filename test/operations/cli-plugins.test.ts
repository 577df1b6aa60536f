// slow: takes about 52 s
// The commands and plugins: `check` loads them, and reports a failure with its line.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { folder } from '../helpers/plugins.ts'
import { runToEnd } from '../helpers/processes.ts'

const app = join(import.meta.dirname, '../../app.ts')

async function run(t: Test, command: string[], files: Record<string, string>, env: NodeJS.ProcessEnv = {}) {
  const root = await folder(t, files)
  const args = command.map((word) => (word === 'FILE' ? join(root, 'gateway.yaml') : word))
  const ended = await runToEnd(process.execPath, [app, ...args], {
    env: { ...process.env, JINGWEI_LOG_LEVEL: 'silent', ...env }
  })
  return { ...ended, stdout: ended.stdout.replaceAll(`${root}/`, ''), stderr: ended.stderr.replaceAll(`${root}/`, '') }
}

const yaml = `listen: { port: 0 }
admin: false
plugins:
  - path: a.mjs
  - path: b.mjs
    options: {}
  - path: c.mjs
`
const good = 'export default async function good () {}'

t.test('check reports every plugin that cannot be loaded', async (t) => {
  const files = {
    'gateway.yaml': yaml,
    'a.mjs': 'import "no-such-package-at-all"',
    'b.mjs': good,
    'c.mjs': 'export const plugin = 1'
  }
  const { code, stdout, stderr } = await run(t, ['check', 'FILE'], files)
  t.equal(code, 1)
  t.equal(stdout, '')
  const [first, second, sum] = stderr.split('\n')
  t.match(first, /^gateway\.yaml:4:5: plugins\[0\]: cannot load a\.mjs: Cannot find package 'no-such-package-at-all'/)
  t.equal(
    second,
    'gateway.yaml:7:5: plugins[2]: cannot load c.mjs: it has no default export that is a Fastify plugin, a concern or a source of instances'
  )
  t.equal(sum, '2 faults in gateway.yaml; nothing was started')
})

t.test('check reports a plugin that cannot start', async (t) => {
  const files = {
    'gateway.yaml': yaml,
    'a.mjs': good,
    'b.mjs': `export default async function bad (fastify) {
      fastify.register((below, options, done) => done(new Error('no luck')))
    }`,
    'c.mjs': good
  }
  const { code, stderr } = await run(t, ['check', 'FILE'], files)
  t.equal(code, 1)
  t.equal(
    stderr,
    'gateway.yaml:5:5: plugins[1]: b.mjs failed to start: no luck (b.mjs:2:55)\n1 fault in gateway.yaml; nothing was started\n'
  )
  const debug = await run(t, ['check', 'FILE'], files, { JINGWEI_LOG_LEVEL: 'debug' })
  t.match(debug.stderr, /Error: no luck\n +at .*b\.mjs/, 'the stack names the place where the error was thrown')
  const fine = await run(t, ['check', 'FILE'], { ...files, 'b.mjs': good })
  t.strictSame([fine.code, fine.stdout], [0, 'gateway.yaml: ok, 0 routes, 0 services\n'])
})

t.test('an onClose hook that never ends is reported, and does not delay the exit', { timeout: 60_000 }, async (t) => {
  const files = {
    'gateway.yaml': yaml,
    'a.mjs': `export default async function (fastify) {
      fastify.addHook('onClose', async (instance) => { if (instance !== fastify) throw new Error('instance') })
      fastify.addHook('onClose', (instance, done) => done())
    }`,
    'b.mjs': `export default async function (fastify) { fastify.addHook('onClose', () => new Promise(() => {})) }`,
    'c.mjs': `export default async function (fastify) { fastify.addHook('onClose', (instance, done) => {}) }`
  }
  const { code, stdout, stderr } = await run(t, ['check', 'FILE'], files)
  t.strictSame([code, stdout], [0, 'gateway.yaml: ok, 0 routes, 0 services\n'])
  const late = 'its onClose hook has not ended within 10 s; going on without it'
  t.same(stderr.trim().split('\n'), [
    `warning: gateway.yaml:7:5: plugins[2]: ${late}`,
    `warning: gateway.yaml:5:5: plugins[1]: ${late}`
  ])
})

t.test('check reports every failing onReady hook of a plugin, and starts nothing else', async (t) => {
  const service = createServer((_request, response) => void response.end('ok'))
  const registry = createServer((_request, response) => void response.end('[]'))
  const requests: string[] = []
  for (const server of [service, registry]) {
    server.on('request', ({ url }) => requests.push(String(url)))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    t.teardown(() => server.close().closeAllConnections())
  }
  const urlOf = (server: typeof service) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const files = {
    'gateway.yaml': `listen: { port: 0 }
admin: false
discovery: { consul: { url: "${urlOf(registry)}" } }
redis: { url: "redis://127.0.0.1:1" }
edge: { jwt: { jwks: "${urlOf(registry)}/jwks.json", audience: api }, rateLimit: { max: 1, window: 1m, store: redis } }
services: { orders: { instances: ["${urlOf(service)}"] }, found: {} }
routes: [{ name: orders, match: { path: /orders }, service: orders }]
plugins:
  - path: a.mjs
  - path: b.mjs
  - path: c.mjs
`,
    'a.mjs': `export default async function a (fastify) {
      fastify.register(async (below) => { below.addHook('onReady', (done) => done(new Error('no luck'))) }, { prefix: '/a' })
      fastify.addHook('onClose', async () => process.stderr.write('a closed\\n'))
    }`,
    'b.mjs': `export default async function b (fastify) {
      fastify.addHook('onReady', async function () { if (this !== fastify || this.mesh === undefined) throw new Error('this') })
      fastify.addHook('onReady', async () => { throw new Error('nor here') })
    }`,
    'c.mjs': good
  }
  const { code, stdout, stderr } = await run(t, ['check', 'FILE'], files)
  t.equal(code, 1)
  t.equal(stdout, '')
  t.equal(
    stderr,
    `a closed
gateway.yaml:9:5: plugins[0]: a.mjs failed to start: no luck (a.mjs:2:83)
gateway.yaml:10:5: plugins[1]: b.mjs failed to start: nor here (b.mjs:3:54)
2 faults in gateway.yaml; nothing was started
`
  )
  const debug = await run(t, ['check', 'FILE'], files, { JINGWEI_LOG_LEVEL: 'debug' })
  t.match(debug.stderr, /Error: no luck\n +at .*a\.mjs/, 'the stack names the place where the error was thrown')

  const calling = (tail: string) => `export default async function b (fastify) {
    fastify.addHook('onReady', async () => {
      try {
        await fastify.mesh.request({ origin: 'http://orders.mesh', path: '/', method: 'GET' })
      } ${tail}
    })
  }`
  const fine = { ...files, 'a.mjs': good, 'b.mjs': calling('catch {}') }
  t.match(await run(t, ['check', 'FILE'], fine), {
    code: 0,
    stdout: 'gateway.yaml: ok, 1 route, 2 services\n',
    stderr: ''
  })
  const failed = { ...fine, 'b.mjs': calling("catch (cause) { throw new Error('no warm-up', { cause }) }") }
  t.strictSame(await run(t, ['check', 'FILE'], failed).then(({ code, stderr }) => [code, stderr]), [
    0,
    'warning: gateway.yaml:10:5: plugins[1]: its onReady hook was not checked: it calls a service, and check sends no calls\n'
  ])
  t.strictSame(requests, [], 'no service, registry or key set is queried')
})

const shown = {
  'gateway.yaml': `listen: { port: 0 }
admin: false
services: { orders: { instances: [http://127.0.0.1:9] } }
routes:
  - { name: orders, match: { path: /orders }, service: orders, plugins: [auth] }
  - { name: open, match: { path: /open }, service: orders }
plugins:
  - { path: audit.mjs }
  - { path: auth.mjs, scope: routes, order: { after: cors } }
  - { path: bff.mjs, prefix: /bff }
`,
  'audit.mjs': `export default async function (fastify) {
    const hook = async () => {}
    fastify.addHook('onRequest', hook).addHook('onResponse', hook)
    fastify.addHook('onRoute', (route) => {
      if (route.config?.route?.name === 'open') route.preHandler = hook
    })
  }`,
  'auth.mjs': `export default async function (fastify) { fastify.addHook('onRequest', async () => {}) }`,
  'bff.mjs': `export default async function (fastify) {
    const config = { edge: { rateLimit: { max: 9, window: '1m' } } }
    fastify.get('/home/:id', { config, preHandler: async () => {} }, async () => 'home')
    fastify.addHook('onSend', async () => {})
    await fastify.register(async (inner) => {
      inner.get('/inner', async () => 'inner')
      inner.addHook('preHandler', async () => {})
      await inner.register(async (innermost) => {
        innermost.addHook('onResponse', async () => {})
        innermost.get('/innermost', { preHandler: async () => {} }, async () => 'innermost')
      })
    })
    fastify.route({ method: 'PUT', url: '/only', constraints: { host: 'bff.example.com' }, handler: async () => 'ok' })
  }`
}

t.test('routes shows the hooks of plugins on each route, and the routes of plugins', async (t) => {
  const { code, stdout } = await run(t, ['routes', 'FILE'], shown)
  t.equal(code, 0)
  const rows = stdout.split('\n').map((row) => row.split(/ {2,}/))
  t.equal(rows[0]?.at(-1), 'PLUGINS')
  t.equal(rows[1]?.at(-1), 'audit (onRequest, onResponse), auth (onRequest after cors)')
  t.equal(rows[2]?.at(-1), 'audit (onRequest, onResponse, preHandler)')
  const [, home, homeEdge, ...homeMore] = rows[3]!
  t.equal(home, 'GET,HEAD =/bff/home/:id')
  t.match(homeEdge, / → rate-limit → /, 'the route lists the concerns of its config.edge')
  t.strictSame(homeMore, ['plugin bff', '–', '–', 'audit (onRequest, onResponse), bff (preHandler, onSend)'])
  const hooksAt = (path: string) => rows.find((row) => row[1] === `GET,HEAD =/bff/${path}`)?.at(-1)
  t.equal(
    hooksAt('inner'),
    'audit (onRequest, onResponse), bff (onSend, preHandler)',
    'the route lists the hooks of its contexts'
  )
  t.equal(hooksAt('innermost'), 'audit (onRequest, onResponse), bff (preHandler, onSend, onResponse)')
  const [, only, onlyEdge, ...onlyMore] = rows.find((row) => row[1] === 'PUT =/bff/only')!
  t.equal(only, 'PUT =/bff/only')
  t.notMatch(onlyEdge, /rate-limit/)
  t.strictSame(onlyMore, ['plugin bff', '–', '–', 'audit (onRequest, onResponse), bff (onSend)'])
})

t.test('explain finds the hooks of plugins, and their routes', async (t) => {
  const explain = async (...args: string[]) => (await run(t, ['explain', 'FILE', ...args], shown)).stdout
  t.match(
    await explain('GET', '/orders/7'),
    / {2}plugins {3}audit \(onRequest, onResponse\), auth \(onRequest after cors\)\n/
  )
  const own = (await explain('GET', '/bff/home/7?a=b')).split('\n')
  t.equal(own[1], '  route     /bff/home/:id of plugin bff')
  t.match(own[2], /^ {2}edge {6}errors → .* → rate-limit → /)
  t.equal(
    own.find((line) => line.startsWith('  plugins')),
    '  plugins   audit (onRequest, onResponse), bff (preHandler, onSend)'
  )
  t.match(await explain('PUT', '/bff/only'), /refused {3}404/)
  t.match(await explain('PUT', '/bff/only', '-H', 'host: bff.example.com'), /route {5}\/bff\/only of plugin bff/)
})

t.test('a command ends, also if a plugin leaves handles open', async (t) => {
  const open = `import { createServer } from 'node:net'
    export default async function open () {
      setInterval(() => {}, 1000)
      createServer().listen(0, '127.0.0.1')
    }`
  const files = { 'gateway.yaml': yaml, 'a.mjs': open, 'b.mjs': good, 'c.mjs': good }
  for (const command of ['check', 'routes']) t.match(await run(t, [command, 'FILE'], files), { code: 0 }, command)
  const failing = { ...files, 'c.mjs': 'export default async () => { throw new Error("no luck") }' }
  for (const command of [
    ['check', 'FILE'],
    ['start', '-c', 'FILE']
  ]) {
    t.match(await run(t, command, failing), { code: 1, stderr: /failed to start: no luck/ }, command.join(' '))
  }
})

t.test('check warns of hooks below a prefix without routes', async (t) => {
  const hook = `fastify.addHook('onRequest', (request, reply, done) => done())`
  const files = {
    'gateway.yaml': `listen: { port: 0 }
admin: false
plugins:
  - path: a.mjs
    prefix: /a
  - path: b.mjs
    prefix: /a
  - path: c.mjs
    prefix: /a
  - path: d.mjs
    prefix: /d
  - path: e.mjs
    prefix: /d
`,
    'a.mjs': `export default async function a (fastify) { ${hook} }`,
    'b.mjs': `export default async function b (fastify) { fastify.addHook('onRoute', () => {}) }`,
    'c.mjs': `export default async function c (fastify) { ${hook}; fastify.get('/c', async () => 'c') }`,
    'd.mjs': `export default async function d (fastify) { ${hook}; fastify.setNotFoundHandler(() => 'd') }`,
    'e.mjs': `export default async function e (fastify) { fastify.decorate('e', 1) }`
  }
  const { code, stderr } = await run(t, ['check', 'FILE'], files)
  t.equal(code, 0)
  t.strictSame(stderr.trim().split('\n'), [
    'warning: gateway.yaml:4:5: plugins[0]: "a" adds no routes below its "prefix", so its hooks never run',
    'warning: gateway.yaml:6:5: plugins[1]: "b" adds no routes below its "prefix", so its hooks never run'
  ])
})

t.test('check reports a concern that is placed relative to itself', async (t) => {
  const files = {
    'gateway.yaml': 'listen: { port: 0 }\nadmin: false\nplugins:\n  - path: key.mjs\n',
    'key.mjs': `export default {
      name: 'apiKey',
      options: { type: 'object', properties: {} },
      order: { after: 'apiKey' },
      plugin: async () => () => null
    }`
  }
  const { code, stderr } = await run(t, ['check', 'FILE'], files)
  t.equal(code, 1)
  t.match(stderr, /^gateway\.yaml:4:5: plugins\[0\]: order: "apiKey" is the concern itself/)
})
