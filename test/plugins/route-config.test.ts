// slow: takes about 9 s
/** `routes[].config`: keys that plugins declare are checked, and a key that no plugin reads is a fault with its place. */
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { build } from '../../app.ts'
import type { Config } from '../../config/schema.ts'
import { loadConfig, loadWithoutPlugins, schemaOf } from '../../plugins/config.ts'
import { startService } from '../helpers/gateway.ts'
import { folder } from '../helpers/plugins.ts'
import { runToEnd } from '../helpers/processes.ts'

const app = join(import.meta.dirname, '../../app.ts')

/** Reads `keySign` of routes, and shows it in a header of their responses. */
const keySign = `
export const routeConfig = {
  keySign: {
    type: 'object',
    additionalProperties: false,
    required: ['header'],
    properties: {
      header: { type: 'string', description: 'Header that has the key.' },
      ttl: { type: 'string', unit: 'duration', default: '15s' }
    }
  }
}
export default async function keySign (fastify) {
  fastify.addHook('onRoute', (route) => {
    const { keySign } = route.config ?? {}
    if (keySign === undefined) return
    route.onRequest = [...[route.onRequest ?? []].flat(), async (request, reply) => {
      reply.header('x-key-auth', JSON.stringify(keySign))
    }]
  })
}
`
/** Runs on the routes that name it. */
const placed = `
export const routeConfig = { tier: { type: 'string', enum: ['gold', 'silver'] } }
export default async function placed (fastify) {
  fastify.addHook('onRequest', async (request, reply) => void reply.header('x-tier', request.routeOptions.config.tier))
}
`
const plain = 'export default async function plain (fastify) { fastify.addHook("onRequest", async () => {}) }'

const yaml = (config: string, plugins: string, route = '') => `
admin: false
services: { a: { instances: ["http://127.0.0.1:1"] } }
routes:
  - { name: one, service: a, match: { path: /one }${route}, config: ${config} }
  - { name: two, service: a, match: { path: /two } }
plugins: [${plugins}]
`

async function fileOf(t: Test, text: string, modules: Record<string, string> = {}): Promise<string> {
  const files = { 'key-auth.mjs': keySign, 'placed.mjs': placed, 'plain.mjs': plain, ...modules }
  return join(await folder(t, { ...files, 'gateway.yaml': text }), 'gateway.yaml')
}

async function faultsOf(t: Test, text: string, modules?: Record<string, string>): Promise<string[]> {
  const file = await fileOf(t, text, modules)
  const faults = await loadConfig(file, {}).then(
    () => '',
    ({ message }: Error) => message
  )
  return faults.replaceAll(file, 'gateway.yaml').split('\n').slice(0, -1)
}

const declared = '{ path: key-auth.mjs }'

t.test('declared values are checked and converted, and get defaults for missing fields', async (t) => {
  const service = await startService((_request, response) => response.end('ok'))
  t.teardown(service.close)
  const text = yaml('{ keySign: { header: x-key } }', declared).replace('http://127.0.0.1:1', service.url)
  const gateway = build(await loadConfig(await fileOf(t, text), {}), { logger: false })
  t.teardown(() => gateway.close())
  const url = await gateway.listen({ host: '127.0.0.1', port: 0 })
  const shown = async (path: string) => {
    const response = await fetch(url + path)
    await response.text()
    return response.headers.get('x-key-auth')
  }
  t.equal(await shown('/one'), '{"header":"x-key","ttl":15000}')
  t.equal(await shown('/two'), null, 'a route without the key does not get it')

  t.strictSame(await faultsOf(t, yaml('{ keySign: { header: 5 } }', declared)), [
    'gateway.yaml:5:82: routes[0].config.keySign.header: expected a string, found 5; put it in quotes'
  ])
  t.strictSame(await faultsOf(t, yaml('{ keySign: { headers: x } }', declared)), [
    'gateway.yaml:5:72: routes[0].config.keySign: missing key "header"',
    'gateway.yaml:5:74: routes[0].config.keySign.headers: unknown key; did you mean "header"?'
  ])
  t.strictSame(await faultsOf(t, yaml('{ keySign: { header: x, ttl: 5 } }', declared)), [
    'gateway.yaml:5:90: routes[0].config.keySign.ttl: expected a duration such as 250ms, 15s or 5m, found 5'
  ])
})

t.test('a key that no plugin declares is a fault', async (t) => {
  t.strictSame(await faultsOf(t, yaml('{ keySing: { header: x } }', declared)), [
    'gateway.yaml:5:63: routes[0].config.keySing: unknown key; did you mean "keySign"?'
  ])
  const unread = (key: string) =>
    `routes[0].config.${key}: unknown key; no plugin declares this key; write routeConfig: [${key}] in the entry of the plugin that reads it`
  t.strictSame(await faultsOf(t, yaml('{ tier: gold }', declared)), [`gateway.yaml:5:63: ${unread('tier')}`])
  t.strictSame(await faultsOf(t, yaml('{ tier: gold }', '{ path: plain.mjs }')), [
    `gateway.yaml:5:63: ${unread('tier')}`
  ])
  t.strictSame(await faultsOf(t, yaml('{ tier: gold }', '')), [`gateway.yaml:5:63: ${unread('tier')}`])
  t.match(await faultsOf(t, yaml('{ rateLimit: {} }', declared)), [
    /config\.rateLimit: unknown key; .*; the gateway's own rateLimit: it belongs under "edge"; a plugin's: write routeConfig: \[rateLimit\]/
  ])
  t.strictSame(await faultsOf(t, yaml('{}', declared, ', keySign: {}')), [
    'gateway.yaml:5:53: routes[0].keySign: unknown key; it belongs under "config"'
  ])
  t.strictSame(await faultsOf(t, yaml('{}', declared, ', edge: { keySign: {} }')), [
    'gateway.yaml:5:61: routes[0].edge.keySign: unknown key; it belongs under "config"'
  ])
})

t.test('keys of the gateway cannot be set or declared, except dropHeaders', async (t) => {
  const file = await fileOf(t, yaml('{ dropHeaders: [x-user], unrouted: true }', ''))
  const message = /config\.unrouted: unknown key; the gateway itself sets it/
  t.throws(() => loadWithoutPlugins(file, {}), { message }, 'loadWithoutPlugins reports it, too')
  await t.rejects(loadConfig(file, {}), { message })
  t.match(await faultsOf(t, yaml('{ edge: { jwt: true } }', '')), [
    /config\.edge: unknown key; write the concerns of a configured route in its "edge"/
  ])
  t.strictSame(await faultsOf(t, yaml('{ dropHeaders: [x-user] }', '')), [])
  t.match(await faultsOf(t, yaml('{ dropHeaders: x-user }', '')), [
    /config\.dropHeaders: expected a list, found a string; put it in brackets/
  ])
  t.strictSame(await faultsOf(t, yaml('{}', '{ path: plain.mjs, routeConfig: [tier, route] }')), [
    'gateway.yaml:7:50: plugins[0].routeConfig[1]: reserved key; the gateway itself sets it'
  ])
})

t.test('the entry of a published package, which declares nothing, can list the keys', async (t) => {
  const listed = '{ path: plain.mjs, routeConfig: [tier, rateLimit] }'
  t.strictSame(await faultsOf(t, yaml('{ tier: { any: [thing] } }', listed)), [])
  t.strictSame(await faultsOf(t, yaml('{ rateLimit: { max: 1 } }', listed)), [])
  t.strictSame(await faultsOf(t, yaml('{ teir: 1 }', listed)), [
    'gateway.yaml:5:63: routes[0].config.teir: unknown key; did you mean "tier"?'
  ])
  t.match(await faultsOf(t, yaml('{}', '{ path: plain.mjs, routeConfig: tier }')), [
    /plugins\[0\]\.routeConfig: expected a list with at least one item/
  ])
})

t.test('@fastify/rate-limit can be configured on one route', async (t) => {
  const service = await startService((_request, response) => response.end('ok'))
  t.teardown(service.close)
  const plugin = '{ package: "@fastify/rate-limit", routeConfig: [rateLimit], options: { global: false } }'
  const text = yaml('{ rateLimit: { max: 1, timeWindow: 1h } }', plugin).replace('http://127.0.0.1:1', service.url)
  const gateway = build(await loadConfig(await fileOf(t, text), {}), { logger: false })
  t.teardown(() => gateway.close())
  const url = await gateway.listen({ host: '127.0.0.1', port: 0 })
  const statuses = []
  for (const path of ['/one', '/one', '/two', '/two']) {
    const response = await fetch(url + path)
    await response.text()
    statuses.push(response.status)
  }
  t.strictSame(statuses, [200, 429, 200, 200])
})

t.test('modules of every kind can declare keys', async (t) => {
  const schema = '{ tier: { type: "string" } }'
  const kinds: Record<string, string> = {
    'property.mjs': `const plugin = async () => {}\nplugin.routeConfig = ${schema}\nexport default plugin`,
    'commonjs.cjs': `module.exports = async () => {}\nmodule.exports.routeConfig = ${schema}`,
    'transpiled.cjs': `exports.__esModule = true\nexports.routeConfig = ${schema}\nexports.default = async () => {}`,
    'concern.mjs': `export const routeConfig = ${schema}
      export default { name: 'some', options: { type: 'object' }, plugin: async () => () => ({}) }`
  }
  for (const name of Object.keys(kinds)) {
    t.strictSame(await faultsOf(t, yaml('{ tier: gold }', `{ path: ${name} }`), kinds), [], name)
    const faults = await faultsOf(t, yaml('{ tier: 5 }', `{ path: ${name} }`), kinds)
    t.match(faults, [/routes\[0\]\.config\.tier: expected a string, found 5/], name)
  }
})

t.test('two plugins may declare one key with the same schema', async (t) => {
  const two = (first: string, second: string) => {
    const module = (declaration: string) => `export const routeConfig = ${declaration}\n${plain}`
    return faultsOf(t, yaml('{ tier: gold }', '{ path: a.mjs }, { path: b.mjs }'), {
      'a.mjs': module(first),
      'b.mjs': module(second)
    })
  }
  const text = '{ tier: { type: "string" } }'
  t.strictSame(await two('{ tier: {} }', '{ tier: {} }'), [], 'two schemas without constraints agree')
  t.strictSame(await two(text, '{ tier: {} }'), [], 'one schema constrains the key')
  t.strictSame(await two('{ tier: {} }', text), [])
  t.strictSame(await two(text, text), [], 'equal schemas agree')
  t.strictSame(await two(text, '{ tier: { type: "number" } }'), [
    'gateway.yaml:7:28: plugins[1]: its module exports routeConfig.tier: plugins[0] has another schema for this key'
  ])
  t.match(await two(text, '{ dropHeaders: { type: "string" } }'), [/dropHeaders: the gateway has another schema/])
})

t.test('a malformed declaration is reported', async (t) => {
  const faultsWith = (declaration: string) =>
    faultsOf(t, yaml('{}', '{ path: bad.mjs }'), { 'bad.mjs': `export const routeConfig = ${declaration}\n${plain}` })
  const at = 'gateway.yaml:7:11: plugins[0]: its module exports'
  t.strictSame(await faultsWith('["tier"]'), [`${at} a routeConfig that is not a mapping of keys to JSON Schemas`])
  t.strictSame(await faultsWith('{ tier: true }'), [
    `${at} routeConfig.tier: expected a JSON Schema; {} takes any value`
  ])
  t.match(await faultsWith('{ tier: { type: "nothing" } }'), [
    /exports routeConfig\.tier: not a valid JSON Schema: .*type/
  ])
  t.strictSame(await faultsWith('{ route: {} }'), [`${at} routeConfig.route: reserved key; the gateway itself sets it`])
  t.match(await faultsWith('{ tier: { type: "string", default: "gold" } }'), [
    /routeConfig\.tier: a default has no effect: /
  ])
})

t.test('a key on a route on which its plugin does not run is a fault', async (t) => {
  const scoped = '{ path: placed.mjs, scope: routes }'
  t.strictSame(await faultsOf(t, yaml('{ tier: gold }', scoped, ', plugins: [placed]')), [])
  t.strictSame(await faultsOf(t, yaml('{ tier: gold }', scoped)), [
    'gateway.yaml:5:63: routes[0].config.tier: no effect: plugin "placed", which reads it, does not run on this route; add "placed" to the route\'s "plugins"'
  ])
  t.strictSame(await faultsOf(t, yaml('{ tier: gold }', `${scoped}, { path: plain.mjs, routeConfig: [tier] }`)), [])
  const both = `${scoped}, { path: plain.mjs, scope: routes, routeConfig: [tier] }`
  t.match(await faultsOf(t, yaml('{ tier: gold }', both)), [/plugin "placed" or "plain", which reads it, does not run/])
  t.match(await faultsOf(t, yaml('{ tier: gold }', '{ path: placed.mjs, prefix: /bff }')), [
    /config\.tier: no effect: plugin "placed", which reads it, has a prefix, so its hooks run only on its own routes/
  ])
})

t.test(
  'a key that an edge concern sets is a fault on its routes; dropHeaders can be read by a plugin, too',
  async (t) => {
    const listed = '{ path: plain.mjs, routeConfig: [cors] }'
    t.strictSame(await faultsOf(t, yaml('{ cors: { origin: true } }', listed)), [])
    t.strictSame(await faultsOf(t, yaml('{ cors: {} }', listed, ', edge: { cors: { origin: ["http://a"] } }')), [
      'gateway.yaml:5:105: routes[0].config.cors: no effect: edge.cors is on for this route and sets this key'
    ])
    const top = yaml('{ cors: {} }', listed).replace(
      'admin: false',
      'admin: false\nedge: { cors: { origin: ["http://a"] } }'
    )
    t.match(await faultsOf(t, top), [/config\.cors: no effect: edge\.cors is on for this route/])
    t.strictSame(await faultsOf(t, top.replace(', config:', ', edge: { cors: false }, config:')), [])
    const drops = '{ path: plain.mjs, scope: routes, routeConfig: [dropHeaders] }'
    t.strictSame(await faultsOf(t, yaml('{ dropHeaders: [x-user] }', drops)), [])
  }
)

t.test('a module that cannot be imported is reported without faults of its keys', async (t) => {
  const missing = { 'key-auth.mjs': 'import "no-such-package-at-all"' }
  const file = await fileOf(t, yaml('{ keySign: { header: x } }', declared), missing)
  const { stderr } = await runToEnd(process.execPath, [app, 'check', file])
  t.match(stderr, /plugins\[0\]: cannot load .*no-such-package-at-all/)
  t.match(stderr, '1 fault in ')
})

t.test('a configuration that was loaded without modules is refused if one of them declares keys', async (t) => {
  const start = async (config: Config) => {
    const gateway = build(config, { logger: false })
    try {
      await gateway.after()
      return ''
    } catch (error) {
      return (error as Error).message
    } finally {
      await gateway.close()
    }
  }
  const file = await fileOf(t, yaml('{ keySing: { header: x } }', declared))
  t.match(
    await start(loadWithoutPlugins(file, {})),
    /gateway\.yaml:7:11: plugins\[0\]: it declares keys of routes\[\]\.config, which were not validated: load the file with loadConfig/
  )
  t.equal(await start(loadWithoutPlugins(await fileOf(t, yaml('{}', declared)), {})), '', 'no route sets a key')
  const undeclared = await fileOf(t, yaml('{ any: thing }', '{ path: plain.mjs }'))
  t.equal(
    await start(loadWithoutPlugins(undeclared, {})),
    '',
    'no plugin declares a key: hooks of the program may read it'
  )
})

t.test('the schema for editors and the commands routes and explain show the keys', async (t) => {
  const plugins = `${declared}, { path: placed.mjs, scope: routes }`
  const file = await fileOf(t, yaml('{ keySign: { header: x }, tier: gold }', plugins, ', plugins: [placed]'))
  const route = (await schemaOf(file)) as { properties: { routes: { items: { properties: { config: object } } } } }
  t.match(route.properties.routes.items.properties.config, {
    additionalProperties: false,
    patternProperties: undefined,
    properties: {
      keySign: { properties: { header: { description: 'Header that has the key.' } } },
      dropHeaders: Object
    }
  })
  const routes = await runToEnd(process.execPath, [app, 'routes', file])
  const rows = routes.stdout.split('\n').map((row) => row.split(/ {2,}/))
  t.equal(rows[0]?.at(-1), 'CONFIG')
  t.equal(rows[1]?.at(-1), 'keySign (key-auth), tier (placed)')
  t.equal(rows[2]?.at(-1), '–')
  const explained = await runToEnd(process.execPath, [app, 'explain', file, 'GET', '/one'])
  t.match(explained.stdout, / {2}config {4}keySign \(key-auth\), tier \(placed\)\n/)
  const other = await runToEnd(process.execPath, [app, 'explain', file, 'GET', '/two'])
  t.notMatch(other.stdout, /config/)
})
