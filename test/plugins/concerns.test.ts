// slow: takes about 8 s
/** Concerns that users' modules define: validated, inherited, placed and shown as the bundled ones are. */
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { build } from '../../app.ts'
import { loadConfig, schemaOf } from '../../plugins/config.ts'
import { ask, get, startEcho, startService } from '../helpers/gateway.ts'
import { startFault } from '../helpers/plugins.ts'
import { runToEnd } from '../helpers/processes.ts'

const hmac = `
export default {
  name: 'tenant',
  options: {
    type: 'object',
    additionalProperties: false,
    required: ['header'],
    properties: {
      header: { type: 'string', description: 'Header that names the tenant.' },
      most: { type: 'string', unit: 'size', default: '1kb' }
    }
  },
  order: { before: 'jwt' },
  check(options, at, { report }) {
    if (options.header === 'host') report.fault(at + '/header', 'host names no tenant')
  },
  async plugin(fastify) {
    return (options, route) => ({
      onRequest(request, reply, done) {
        if (request.headers[options.header] === 'throw') throw new Error('no such tenant')
        reply.header('x-tenant', request.headers[options.header] + ' of ' + options.most)
        done()
      }
    })
  }
}
`
const stamp = `
export default {
  name: 'stamp',
  options: { type: 'object', additionalProperties: false, properties: { text: { type: 'string', default: 'plain' } } },
  order: { after: 'retry' },
  layer: (service, { stamp }) => stamp
    ? (dispatch) => (opts, handler) =>
        dispatch({ ...opts, headers: [...opts.headers, 'x-stamp', service.name + ' ' + stamp.text] }, handler)
    : null
}
`

let folders = 0

/** Writes a configuration and its modules into a folder of their own, as Node imports a module once. */
async function folderOf(t: Test, modules: Record<string, string>, yaml: string): Promise<string> {
  const name = `${folders++}`
  return join(t.testdir({ [name]: { ...modules, 'gateway.yaml': yaml } }), name, 'gateway.yaml')
}

const faultsOf = async (t: Test, modules: Record<string, string>, yaml: string): Promise<string> => {
  const file = await folderOf(t, modules, yaml)
  return startFault(t, file)
}

/** A concern that speaks CORS in its own way. */
const pages = `
export default {
  name: 'pages',
  options: { type: 'object', additionalProperties: false, properties: { from: { type: 'string' } } },
  answersPreflights: true,
  ownsHeaders: ['Access-Control-', 'x-pages'],
  order: { before: 'jwt' },
  async plugin() {
    return ({ from }, route) => ({
      onRequest(request, reply, done) {
        reply.header('access-control-allow-origin', from)
        if (request.method !== 'OPTIONS' || !request.headers['access-control-request-method']) return done()
        reply.code(204).header('access-control-allow-methods', route.config.preflightFor.join()).send()
      }
    })
  }
}
`

t.test("a user's concern responds to preflights and replaces response headers of the service", async (t) => {
  const service = await startService((_request, response) => {
    response.setHeader('access-control-allow-credentials', 'true')
    response.setHeader('x-pages-of', 'the service')
    response.setHeader('x-other', 'kept')
    response.end()
  })
  t.teardown(service.close)
  const own = `export default async (fastify) => {
    const config = { edge: { pages: { from: 'https://c.example' } } }
    fastify.get('/mine', { config }, async () => 'mine')
    fastify.put('/mine', { config }, async () => 'mine')
  }`
  const yaml = `
admin: false
edge: { pages: { from: https://a.example } }
services: { a: { instances: ["${service.url}"] } }
routes:
  - { name: read, service: a, match: { path: /x, methods: [GET] } }
  - { name: write, service: a, match: { path: /x, methods: [POST] }, edge: { pages: { from: https://b.example } } }
  - { name: off, service: a, match: { path: /off, methods: [GET] }, edge: { pages: false } }
plugins: [{ path: ./pages.ts }, { path: ./own.ts }]
`
  const file = await folderOf(t, { 'pages.ts': pages, 'own.ts': own }, yaml)
  const gateway = build(await loadConfig(file, {}), { logger: false })
  t.teardown(() => gateway.close())
  await gateway.listen({ host: '127.0.0.1', port: 0 })
  const { port } = gateway.server.address() as { port: number }
  const preflight = async (path: string, method: string) => {
    const headers = [`Origin: https://any.example`, `Access-Control-Request-Method: ${method}`]
    const { status, headers: received } = await get(port, path, headers, 'OPTIONS')
    return [status, received['access-control-allow-origin'], received['access-control-allow-methods']]
  }
  t.strictSame(await preflight('/x', 'GET'), [204, 'https://a.example', 'GET,HEAD'])
  t.strictSame(
    await preflight('/x', 'POST'),
    [204, 'https://b.example', 'POST'],
    'the options are those of the route with the requested method'
  )
  t.strictSame(await preflight('/x', 'DELETE'), [405, undefined, undefined])
  t.strictSame(
    await preflight('/x/a%2fb', 'GET'),
    [204, 'https://a.example', 'GET,HEAD'],
    'a preflight gets its response for every path'
  )
  t.strictSame(
    await preflight('/off', 'GET'),
    [405, undefined, undefined],
    'a route that switches the concern off has no preflight'
  )
  t.strictSame(
    await preflight('/mine', 'PUT'),
    [204, 'https://c.example', 'GET,HEAD,PUT'],
    "the preflight of a plugin's own route"
  )

  const { headers } = await get(port, '/x')
  t.match(headers, { 'access-control-allow-origin': 'https://a.example', 'x-other': 'kept' })
  t.notOk(
    headers['access-control-allow-credentials'] ?? headers['x-pages-of'],
    "the service's headers with these prefixes are removed"
  )
  const off = await get(port, '/off')
  t.match(off.headers, { 'access-control-allow-credentials': 'true', 'x-pages-of': 'the service' })
})

/** A concern that sends calls elsewhere, and that a trusted peer may instruct. */
const detour = `
export default {
  name: 'detour',
  options: {
    type: 'object',
    additionalProperties: false,
    properties: { to: { type: 'string' }, header: { type: 'boolean', default: false } }
  },
  otherServices: ({ to }) => [to],
  instructions: { headers: ['X-Detour'], areObeyed: ({ header }) => header },
  layer: (service, { detour }, { toService }) => detour ? () => toService(detour.to) : null
}
`

t.test("a user's concern declares its other services, and the headers that it obeys from trusted peers", async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const secret = 'a secret of more than thirty-two characters'
  const seenWith = async (listen: object, header: boolean) => {
    const yaml = JSON.stringify({
      listen,
      admin: false,
      services: {
        a: { instances: ['http://127.0.0.1:1'], mesh: { detour: { to: 'b', header } } },
        b: { instances: [service.url] }
      },
      routes: [
        { name: 'open', service: 'a', match: { path: '/open' } },
        { name: 'me', service: 'b', match: { path: '/me' }, edge: { jwt: { secret, forward: { sub: 'x-user' } } } }
      ],
      plugins: [{ path: './detour.ts' }]
    })
    const file = await folderOf(t, { 'detour.ts': detour }, yaml)
    const gateway = build(await loadConfig(file, {}), { logger: false })
    t.teardown(() => gateway.close())
    await gateway.listen({ host: '127.0.0.1', port: 0 })
    const { port } = gateway.server.address() as { port: number }
    const { headers } = await ask(port, '/open', ['X-User: eve', 'X-Detour: now', 'X-Other: kept'])
    return [headers['x-other'], headers['x-user'], headers['x-detour']]
  }
  const trusting = { trustProxy: ['127.0.0.0/8'] }
  t.strictSame(await seenWith({}, true), ['kept', undefined, undefined], 'headers of an untrusted peer are removed')
  t.strictSame(await seenWith(trusting, true), ['kept', undefined, 'now'])
  t.strictSame(
    await seenWith(trusting, false),
    ['kept', undefined, undefined],
    'a header that the concern does not obey is removed'
  )
  const trustHeaders = ['x-detour']
  t.strictSame(
    await seenWith({ ...trusting, trustHeaders }, false),
    ['kept', undefined, 'now'],
    'listen.trustHeaders passes it on'
  )
})

t.test("faulty declarations of a user's concern are reported with a position", async (t) => {
  const yaml = `
admin: false
services: { a: { instances: ["http://127.0.0.1:1"], mesh: { detour: { to: b } } } }
plugins:
  - path: ./detour.ts
`
  for (const [before, after, fault] of [
    [
      'otherServices: ({ to })',
      'otherServices: ({ no: { to } })',
      '"otherServices" of concern detour failed: Cannot read'
    ],
    [
      'areObeyed: ({ header })',
      'areObeyed: ({ no: { header } })',
      '"instructions" of concern detour failed: Cannot read'
    ],
    ["headers: ['X-Detour']", "headers: 'X-Detour'", '"instructions" of its concern detour has no list "headers"'],
    [
      'instructions:',
      'ownsHeaders: [1], instructions:',
      '"ownsHeaders" of its concern detour is not a list of name prefixes'
    ]
  ] as const) {
    const faults = await faultsOf(t, { 'detour.ts': detour.replace(before, after) }, yaml)
    t.match(faults, `gateway.yaml:5:5: plugins[0]: ${fault}`)
  }
})

t.test("a user's edge concern and mesh concern run, inherit options and are shown by the commands", async (t) => {
  const service = await startService((request, response) => response.end(String(request.headers['x-stamp'])))
  t.teardown(service.close)
  const yaml = `
admin: false
edge: { tenant: { header: x-tenant } }
mesh: { stamp: {} }
services:
  a: { instances: ["${service.url}"] }
  b: { instances: ["${service.url}"], mesh: { stamp: { text: of the service } } }
routes:
  - { name: top, service: a, match: { path: /top } }
  - { name: own, service: b, match: { path: /own }, edge: { tenant: { header: x-own, most: 2kb } } }
  - { name: off, service: a, match: { path: /off }, edge: { tenant: false }, mesh: { stamp: false } }
plugins: [{ path: ./tenant.ts }, { path: ./stamp.ts }]
`
  const file = await folderOf(t, { 'tenant.ts': hmac, 'stamp.ts': stamp }, yaml)
  const gateway = build(await loadConfig(file, {}), { logger: false })
  t.teardown(() => gateway.close())
  await gateway.listen({ host: '127.0.0.1', port: 0 })
  const { port } = gateway.server.address() as { port: number }
  const ask = async (path: string, headers: Record<string, string>) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers })
    return [response.status, response.headers.get('x-tenant'), await response.text()]
  }
  t.strictSame(
    await ask('/top', { 'x-tenant': 'red' }),
    [200, 'red of 1024', 'a plain'],
    'the options of the top level apply'
  )
  t.strictSame(
    await ask('/own', { 'x-own': 'blue' }),
    [200, 'blue of 2048', 'b of the service'],
    'the options of the nearest level apply'
  )
  t.strictSame(await ask('/off', { 'x-tenant': 'red' }), [200, null, 'undefined'], 'false switches the concern off')
  const [status, , body] = await ask('/top', { 'x-tenant': 'throw' })
  t.equal(status, 500, 'a hook that throws fails its own request')
  t.notMatch(body, /no such tenant/)
  t.strictSame(await ask('/top', { 'x-tenant': 'red' }), [200, 'red of 1024', 'a plain'])

  const main = join(import.meta.dirname, '../../app.ts')
  const routes = await runToEnd(process.execPath, [main, 'routes', file])
  t.match(
    routes.stdout,
    /top .*request-target → to-https → body-timeout → tenant → websocket/,
    'the command `routes` shows the concern at its position'
  )
  t.match(routes.stdout, /retry → stamp → select/)
  t.notMatch(/^off.*$/m.exec(routes.stdout)?.[0], /tenant|stamp/)
  const explained = await runToEnd(process.execPath, [main, 'explain', file, 'GET', '/own'])
  t.match(explained.stdout, /edge .*tenant → websocket/)
  t.match(explained.stdout, /mesh .*retry → stamp/)
  t.match(await schemaOf(file), { properties: { edge: { properties: { tenant: Object, jwt: Object } } } })
  const schema = await runToEnd(process.execPath, [main, 'schema', file])
  t.match(schema.stdout, /Header that names the tenant/)
})

const around = (edge: string, more = '') => `
admin: false
services: { a: { instances: [http://127.0.0.1:1] } }
routes: [{ name: one, service: a, match: { path: / }, edge: { ${edge} } }]
plugins: [{ path: ./tenant.ts }${more}]
`

t.test('faults in the options and in the definition of a concern are reported', async (t) => {
  const faultsWith = (edge: string, module = hmac, more = '', modules = {}) =>
    faultsOf(t, { 'tenant.ts': module, ...modules }, around(edge, more))
  t.match(
    await faultsWith('tenant: { header: x, heder: x }'),
    'gateway.yaml:4:84: routes[0].edge.tenant.heder: unknown key; did you mean "header"?'
  )
  t.match(
    await faultsWith('tenant: { header: x, headers: x }'),
    'routes[0].edge.tenant.headers: unknown key; did you mean "header"?',
    'no advice for other gateways applies within the options of a concern'
  )
  t.match(await faultsWith('tenan: { header: x }'), 'routes[0].edge.tenan: unknown key; did you mean "tenant"?')
  t.match(await faultsWith('tenant: { header: x, most: many }'), /edge\.tenant\.most: expected a size such as/)
  t.match(await faultsWith('tenant: { header: host }'), 'edge.tenant.header: host names no tenant')
  t.match(await faultsWith('tenant: {}'), /edge\.tenant: missing key "header"/)
  t.match(
    await faultsWith('', hmac.replace("'tenant'", "'jwt'")),
    'gateway.yaml:5:11: plugins[0]: duplicate concern edge.jwt: its name is already in use'
  )
  t.match(await faultsWith('', hmac.replace("'tenant'", "'a b'")), /plugins\[0\]: its concern "a b" needs a name/)
  t.match(
    await faultsWith('', hmac.replace("type: 'object'", "type: 'nothing'")),
    /plugins\[0\]: the options .* not a valid JSON Schema/
  )
  t.match(
    await faultsWith('', hmac.replace("'jwt'", "'jwtt'")),
    /gateway.yaml:5:11: plugins\[0\]: order: unknown position "jwtt" among the edge concerns; possible are .*jwt/
  )
  for (const [key, value] of [
    ['options', '{ a: 1 }'],
    ['prefix', '/x'],
    ['guarded', 'true'],
    ['scope', 'routes']
  ]) {
    const text = around('').replace('./tenant.ts', `./tenant.ts, ${key}: ${value}`)
    const useless = new RegExp(
      `gateway.yaml:5:11: plugins\\[0\\]: "${key}" has no effect on a concern: .* by edge\\.tenant`
    )
    t.match(await faultsOf(t, { 'tenant.ts': hmac }, text), useless)
  }
  const noFunction = hmac.replace('return (options, route) => ({', 'return ({')
  t.match(await faultsWith('', noFunction), /plugins\[0\]: .*plugin of concern tenant returns no function for routes/)
  for (const [from, to, fault] of [
    ['return (options', 'return async (options', 'returns a promise: it must not be async'],
    ['route) => ({', 'route) => void ({', 'returns undefined: return hooks, or null for none'],
    ['onRequest(', 'onReqest(', 'returns an unknown hook "onReqest"; did you mean "onRequest"\\?'],
    ['onRequest(', "onSend: 'a', onRequest(", 'returns a hook onSend that is not a function']
  ] as const) {
    const wrong = new RegExp(`gateway.yaml:5:11: plugins\\[0\\]: .*the function for routes of concern tenant ${fault}`)
    t.match(await faultsWith('tenant: { header: x }', hmac.replace(from, to)), wrong)
  }
  const throwing = hmac.replace("if (options.header === 'host')", 'options.nothing.at(0)\n    if (true)')
  t.match(
    await faultsWith('tenant: { header: x }', throwing),
    /routes\[0\]\.edge\.tenant: the check of concern tenant failed: Cannot read/
  )
  t.match(await faultsWith('tenant: { header: 5 }', throwing), /edge\.tenant\.header: expected a string, found 5/)
  const other = hmac.replace("'tenant'", "'other'")
  const beside = { 'other.ts': other.replace("before: 'jwt'", "after: 'tenant'") }
  t.equal(
    await faultsWith('', hmac, ', { path: ./other.ts }', beside),
    '',
    "a concern may be placed beside a user's concern"
  )
  const circle = hmac.replace("before: 'jwt'", "before: 'other'")
  t.match(
    await faultsWith('', circle, ', { path: ./other.ts }', beside),
    /plugins\[0\]: order: the positions of "tenant" and "other" depend/
  )
  t.match(
    await faultsOf(t, { 'tenant.ts': stamp.replace("'retry'", "'retri'") }, around('')),
    /plugins\[0\].*order: no mesh concern is named "retri"/
  )
})

t.test('unknown keys of a definition are reported with a suggestion', async (t) => {
  const faultsAfter = (from: string, to: string, edge = 'tenant: { header: x }') => {
    t.match(hmac, from)
    return faultsOf(t, { 'tenant.ts': hmac.replace(from, to) }, around(edge))
  }
  for (const [from, to, fault] of [
    ['check(', 'chek(', 'its concern "tenant" has an unknown key "chek"; did you mean "check"?'],
    ['order:', 'defualt: {}, order:', 'its concern "tenant" has an unknown key "defualt"; did you mean "default"?'],
    ['order:', 'opttions: {}, order:', 'its concern "tenant" has an unknown key "opttions"; did you mean "options"?'],
    ['plugin(', 'plugn(', 'its concern "tenant" has an unknown key "plugn"; did you mean "plugin"?'],
    ['  options:', '  optoins:', 'its concern "tenant" has an unknown key "optoins"; did you mean "options"?'],
    ['  options:', '  default:', 'its concern "tenant" has no "options", a JSON Schema'],
    ["name: 'tenant',", '', 'its concern has no "name", the key under which its options are written'],
    ['async plugin(', 'layer: () => null, async plugin(', 'its concern "tenant" has both a "plugin", which is for the edge,'],
    ['async plugin(', 'complete(', 'its concern "tenant" has neither a "plugin", for the edge, nor a "layer", for the mesh'],
    ['check(', 'check: 1, complete(', '"check" of its concern "tenant" is not a function'],
    ["{ before: 'jwt' }", "'jwt'", `"order" of its concern "tenant" is not an object such as { after: 'apiKey' }`],
    ["{ before: 'jwt' }", "{ aftr: 'jwt' }", '"order" of its concern "tenant" has an unknown key "aftr"; did you mean "after"?'],
    ["{ before: 'jwt' }", "{ before: ['jwt'] }", '"order" of its concern "tenant" must have the name of one concern in "before"'],
    ["before: 'jwt'", "before: 'jwt', after: 'cors'", '"order" of its concern "tenant" must have either "before" or "after"']
  ] as const) {
    const faults = (await faultsAfter(from, to)).split('\n')
    t.match(faults[0], `gateway.yaml:5:11: plugins[0]: cannot load ./tenant.ts: ${fault}`)
    t.equal(faults.length, 2, 'the key of the concern is not reported as well')
  } // biome-ignore format: a table
  t.match(
    await faultsAfter("unit: 'size'", "unit: 'sizes'"),
    /^gateway.yaml:5:11: plugins\[0\]: the options of its concern tenant are not a valid JSON Schema: unknown unit "sizes"; did you mean "size"\?\n1 fault/
  )
  t.match(await faultsAfter("unit: 'size'", "unit: 'weeks'"), /unknown unit "weeks"; possible are duration, /)
  t.match(
    await faultsAfter('order:', 'default: { header: 5 }, order:'),
    /^gateway.yaml:5:11: plugins\[0\]: the default of its concern tenant does not fit its options: edge.tenant.header: expected a string, found 5; put it in quotes\n1 fault/
  )
  t.match(
    await faultsAfter('order:', 'default: {}, order:'),
    /does not fit its options: edge.tenant: missing key "header"/
  )
  t.equal(await faultsAfter('order:', "default: { header: 'x', most: '2kb' }, order:"), '')
})

t.test('suggestions prefer keys of loaded concerns to advice for other gateways', async (t) => {
  const named = { 'tenant.ts': hmac.replace("'tenant'", "'apiKey'") }
  const yaml = `
admin: false
edge: { apiKeys: { header: x } }
mesh: { api-key: {} }
services: { a: { instances: [http://127.0.0.1:1] } }
routes: [{ name: one, service: a, match: { path: / }, edge: { apikey: false, ldap: {} } }]
plugins: [{ path: ./tenant.ts }]
`
  t.strictSame((await faultsOf(t, named, yaml)).split('\n').slice(0, -1), [
    'gateway.yaml:3:9: edge.apiKeys: unknown key; did you mean "apiKey"?',
    'gateway.yaml:4:9: mesh.api-key: unknown key; write apiKey under "edge"',
    'gateway.yaml:6:63: routes[0].edge.apikey: unknown key; did you mean "apiKey"?',
    'gateway.yaml:6:78: routes[0].edge.ldap: unknown key; it is not built in; a plugin can do it (plugins/README.md)'
  ])
  const missing = (await faultsOf(t, {}, yaml)).split('\n')
  t.match(
    missing[0],
    /^gateway.yaml:7:19: plugins\[0\]\.path: no such file: /,
    'keys of a missing file are not reported as unknown'
  )
  t.equal(missing.length, 2)
  const broken = (await faultsOf(t, { 'tenant.ts': 'throw new Error("no luck")' }, yaml)).split('\n')
  t.equal(broken[0], 'gateway.yaml:7:11: plugins[0]: cannot load ./tenant.ts: no luck (tenant.ts:1:7)')
  t.equal(broken.length, 2)
  const file = await folderOf(t, { 'tenant.ts': 'throw new Error("no luck")' }, yaml)
  await t.rejects(loadConfig(file, {}), { cause: { message: 'no luck' } }, 'the cause is the error that was thrown')
})

const own = (edge: string) => `
export default async function own (fastify) {
  fastify.get('/own', { config: { edge: ${edge} } }, async () => 'own')
}`

t.test("routes of plugins switch on users' concerns by config.edge, like bundled ones", async (t) => {
  const yaml = (plugins: string, edge: string) =>
    `admin: false\nlisten: { port: 0 }\nedge: ${edge}\nplugins: [${plugins}]`
  const cases: [edge: string, plugin: string, top: string, tenant: string | null][] = [
    ['{ tenant: { header: x-org, most: 2kb } }', '', '{}', 'acme of 2048'],
    ['{ tenant: true }', '', '{ tenant: { header: x-org } }', 'acme of 1024'],
    ['{}', ', guarded: true', '{ tenant: { header: x-org } }', 'acme of 1024'],
    ['{ tenant: false }', ', guarded: true', '{ tenant: { header: x-org } }', null],
    ['{}', '', '{ tenant: { header: x-org } }', null]
  ]
  for (const [edge, plugin, top, tenant] of cases) {
    const modules = { 'tenant.mjs': hmac, 'own.mjs': own(edge.replaceAll('x-org', '"x-org"').replace('2kb', '"2kb"')) }
    const file = await folderOf(t, modules, yaml(`{ path: tenant.mjs }, { path: own.mjs${plugin} }`, top))
    const gateway = build(await loadConfig(file, {}), { logger: false })
    t.teardown(() => gateway.close())
    const response = await gateway.inject({ url: '/own', headers: { 'x-org': 'acme' } })
    t.equal(response.body, 'own')
    t.equal(response.headers['x-tenant'] ?? null, tenant, edge)
  }
  const modules = { 'tenant.mjs': hmac, 'own.mjs': own('{ tenant: { header: "x-org" } }') }
  const early = await faultsOf(t, modules, yaml('{ path: own.mjs }, { path: tenant.mjs }', '{}'))
  t.match(early, /route GET \/own: edge\.tenant: list its plugin before this one under "plugins"/)
  const wrong = { 'tenant.mjs': hmac, 'own.mjs': own('{ tenant: { headr: "x" } }') }
  t.match(
    await faultsOf(t, wrong, yaml('{ path: tenant.mjs }, { path: own.mjs }', '{}')),
    /config\.edge\.tenant\.headr: unknown key/
  )
})

t.test('plugins[].order places a mesh concern among the mesh concerns', async (t) => {
  const yaml = (order: string) => `
admin: false
mesh: { stamp: {} }
services: { a: { instances: [http://127.0.0.1:1] } }
plugins: [{ path: ./stamp.ts, order: ${order} }]
`
  const file = await folderOf(t, { 'stamp.ts': stamp }, yaml('{ before: circuitBreaker }'))
  const gateway = build(await loadConfig(file, {}), { logger: false })
  t.teardown(() => gateway.close())
  await gateway.ready()
  t.match(gateway.mesh.describe('a').join(' '), /call stamp replay/)
  t.match(
    await faultsOf(t, { 'stamp.ts': stamp }, yaml('{ after: jwt }')),
    /gateway.yaml:5:11: plugins\[0\]: .*order: no mesh concern is named "jwt"; there are .*circuit-breaker/
  )
})

t.test("users' concerns at one position keep the order of the list, and may name a later one", async (t) => {
  const edge = 'async plugin() { return () => ({}) }'
  const mesh = 'layer: () => (dispatch) => dispatch'
  const concern = (name: string, half: string, order: string) =>
    `export default { name: '${name}', default: {}, options: { type: 'object' }, order: { ${order} }, ${half} }`
  const chainsOf = async (bundled: string, next: string, half: string, listed: readonly (readonly string[])[]) => {
    const modules = Object.fromEntries(
      listed.map(([name, order]) => [
        `${name}.mjs`,
        concern(name!, half, order!.replace('BUNDLED', bundled).replace('NEXT', next))
      ])
    )
    const yaml = JSON.stringify({
      admin: false,
      services: { a: { instances: ['http://127.0.0.1:1'] } },
      routes: [{ name: 'one', service: 'a', match: { path: '/' } }],
      plugins: listed.map(([name]) => ({ path: `./${name}.mjs` }))
    })
    const gateway = build(await loadConfig(await folderOf(t, modules, yaml), {}), { logger: false })
    t.teardown(() => gateway.close())
    await gateway.ready()
    const names = half === edge ? gateway.edgeOrder.concerns.map(({ name }) => name) : gateway.mesh.describe('a')
    return names.filter((name) => listed.some(([own]) => own === name)).join(' ')
  }
  const cases = [
    [
      'after a bundled one',
      'ma mb mc',
      ['ma', "after: 'BUNDLED'"],
      ['mb', "after: 'BUNDLED'"],
      ['mc', "after: 'BUNDLED'"]
    ],
    ['before a bundled one', 'ma mb', ['ma', "before: 'BUNDLED'"], ['mb', "before: 'BUNDLED'"]],
    ['between two', 'ma mb mc', ['ma', "after: 'BUNDLED'"], ['mb', "before: 'NEXT'"], ['mc', "after: 'BUNDLED'"]],
    ["after a user's", 'ma mb mc', ['ma', "after: 'BUNDLED'"], ['mb', "after: 'ma'"], ['mc', "after: 'ma'"]],
    ["before a user's", 'mb mc ma', ['ma', "after: 'BUNDLED'"], ['mb', "before: 'ma'"], ['mc', "before: 'ma'"]],
    ['beside a later one', 'mc ma mb', ['ma', "after: 'mc'"], ['mb', "after: 'mc'"], ['mc', "after: 'BUNDLED'"]],
    [
      'each after those of the ones before',
      'ma mb mc md',
      ['ma', "after: 'BUNDLED'"],
      ['mb', "after: 'ma'"],
      ['mc', "after: 'mb'"],
      ['md', "after: 'ma'"]
    ]
  ] as const
  for (const [what, expected, ...listed] of cases) {
    t.equal(await chainsOf('jwt', 'introspection', edge, listed), expected, `edge: ${what}`)
    t.equal(await chainsOf('retry', 'hedge', mesh, listed), expected, `mesh: ${what}`)
  }
  for (const half of [edge, mesh]) {
    const circle = [
      ['ma', "after: 'mb'"],
      ['mb', "after: 'ma'"]
    ] as const
    await t.rejects(chainsOf('', '', half, circle), /plugins\[0\]: order: the positions of "ma" and "mb" depend/)
    await t.rejects(chainsOf('', '', half, [['ma', "after: 'ma'"]]), /plugins\[0\]: order: "ma" is the concern itself/)
    const lost = [
      ['ma', "after: 'mb'"],
      ['mb', "after: 'nope'"]
    ] as const
    await t.rejects(chainsOf('', '', half, lost), /plugins\[1\]: .*order: .*nope/)
  }
})

t.test('concerns and hooks of plugins at one position run in the order of `plugins`', async (t) => {
  const hook = (mark: string) => `(request, reply, done) => {
    reply.header('x-order', (reply.getHeader('x-order') ?? '') + '${mark}')
    done()
  }`
  const plugin = (mark: string) => `export default async (fastify) => void fastify.addHook('onRequest', ${hook(mark)})`
  const concern = `export default {
    name: 'mark', default: {}, options: { type: 'object' }, order: { after: 'cors' },
    async plugin() { return () => ({ onRequest: ${hook('c')} }) }
  }`
  const modules = { 'a.mjs': plugin('a'), 'b.mjs': plugin('b'), 'c.mjs': concern }
  for (const [listed, order, expected] of [
    [['a', 'c', 'b'], 'cors', 'acb'],
    [['c', 'b', 'a'], 'cors', 'cba'],
    [['a', 'b', 'c'], 'mark', 'cab']
  ] as const) {
    const yaml = JSON.stringify({
      admin: false,
      services: { a: { instances: ['http://127.0.0.1:1'] } },
      routes: [{ name: 'one', service: 'a', match: { path: '/' } }],
      plugins: listed.map((name) => ({ path: `./${name}.mjs`, ...(name !== 'c' && { order: { after: order } }) }))
    })
    const gateway = build(await loadConfig(await folderOf(t, modules, yaml), {}), { logger: false })
    t.teardown(() => gateway.close())
    const { headers } = await gateway.inject('/')
    t.equal(headers['x-order'], expected)
  }
})
