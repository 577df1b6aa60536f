// slow: takes about 5 s
/** `edge.acl`: groups and names of consumers; scopes, roles and claims of tokens; over each protocol. */
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { ConfigError } from '../../../config/load.ts'
import { loadConfig } from '../../../plugins/config.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { configOf, connect, get, startEcho, startGateway, startWith } from '../../helpers/gateway.ts'
import { folder } from '../../helpers/plugins.ts'

const consumers = [
  { name: 'alice', groups: ['gold', 'staff'], jwt: { sub: 'sub-alice' } },
  { name: 'bob', groups: ['silver'], jwt: { sub: 'sub-bob' } },
  { name: 'eve', groups: ['gold', 'blocked'], jwt: { sub: 'sub-eve' } },
  { name: 'gold', groups: [], jwt: { sub: 'sub-gold' } }
]

const bearer = (more: object = {}) => `Bearer ${token(claims(more as never))}`

async function start(t: Test, acl: object, more: object = {}) {
  const service = await startEcho()
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      consumers,
      services: { any: { instances: [service.url] } },
      edge: { jwt: { secret }, acl },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
      ...more
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const lineOf = async (index: number) => {
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    await eventually(() => lines().length > index)
    return lines()[index]!
  }
  const ask = (more: object | null, headers: string[] = []) =>
    get(gateway.port, '/', [...(more === null ? [] : [`Authorization: ${bearer(more)}`]), ...headers])
  return { ...gateway, ask, lineOf }
}

for (const protocol of protocols) {
  t.test(`over ${protocol}, consumers are allowed or refused by their groups and names`, async (t) => {
    const gateway = await start(
      t,
      { allow: ['gold'], deny: ['blocked'], allowConsumers: ['carl', 'alice'], denyConsumers: ['dora'] },
      { listen: listenFor(t, protocol) }
    )
    const { ask } = anyClient(t, protocol, gateway.port)
    for (const [index, [sub, status, reason]] of (
      [
        ['sub-alice', 200],
        ['sub-bob', 403, 'acl_not_allowed'],
        ['sub-eve', 403, 'acl_denied'],
        ['sub-gold', 403, 'acl_not_allowed'],
        // No declared consumer has this subject: it is the consumer's name.
        ['carl', 200],
        ['dora', 403, 'acl_denied'],
        // A subject with the name of a declared consumer is not that consumer.
        ['alice', 403, 'acl_not_allowed'],
        ['', 403, 'acl_no_consumer']
      ] as const
    ).entries()) {
      const method = index % 2 === 0 ? 'POST' : 'GET'
      const body = method === 'POST' ? { body: 'x'.repeat(100_000) } : {}
      const received = await ask('/', { method, headers: { authorization: bearer({ sub }) }, ...body })
      t.equal(received.status, status, sub)
      t.ok(received.isWhole, sub)
      const line = await gateway.lineOf(index)
      t.equal(line.reason, reason, sub)
      t.equal(line.error, status === 200 ? undefined : 'JW_ACCESS_DENIED', sub)
      if (status !== 200) {
        t.match(JSON.parse(received.body.toString()), { code: 'JW_ACCESS_DENIED', statusCode: 403 })
        t.equal(received.headers['www-authenticate'], undefined)
      }
    }
  })

  t.test(`over ${protocol}, a token without the scopes gets a challenge with them`, async (t) => {
    const gateway = await start(t, { scopes: ['orders:read', 'orders:write'] }, { listen: listenFor(t, protocol) })
    const { ask } = anyClient(t, protocol, gateway.port)
    const asked = (more: object) => ask('/', { headers: { authorization: bearer(more) } })
    for (const more of [
      { scope: 'orders:write openid orders:read' },
      { scope: ['orders:read', 'orders:write'] },
      { scp: 'orders:read orders:write' },
      { scp: ['orders:read', 'orders:write'] },
      { scope: 'orders:read', scp: ['orders:write'] },
      { scope: '  orders:read   orders:write ' }
    ]) {
      t.equal((await asked(more)).status, 200, JSON.stringify(more))
    }
    for (const more of [
      {},
      { scope: 'orders:read' },
      { scope: '' },
      { scope: 'orders:readorders:write' },
      { scope: 'orders:read,orders:write' },
      { scope: 'ORDERS:READ ORDERS:WRITE' },
      { scope: 7 },
      { scope: null, scp: { 'orders:read': true, 'orders:write': true } },
      { scope: [['orders:read', 'orders:write']] },
      { scope: { 0: 'orders:read orders:write', length: 1 } }
    ]) {
      const { status, headers, body } = await asked(more)
      t.equal(status, 403, JSON.stringify(more))
      t.equal(
        headers['www-authenticate'],
        'Bearer realm="jingwei", error="insufficient_scope", scope="orders:read orders:write"'
      )
      t.equal(JSON.parse(body.toString()).code, 'JW_INSUFFICIENT_SCOPE')
    }
    const missing = await ask('/')
    t.equal(missing.status, 401)
    t.equal(missing.headers['www-authenticate'], 'Bearer realm="jingwei"')
  })
}

t.test('roles and claims of odd types match only what they say', async (t) => {
  const gateway = await start(
    t,
    {},
    {
      edge: { jwt: { secret } },
      routes: [
        ['roles', { roles: ['admin', 'ops'] }],
        ['nested', { roles: ['admin'], rolesClaim: 'realm_access.roles' }],
        ['url', { claims: { 'https://example.com/tenant': 'acme' } }],
        ['boolean', { claims: { email_verified: true } }],
        ['number', { claims: { level: [7, 8] } }],
        ['list', { claims: { amr: ['mfa', 'otp'], tenant: 'acme' } }],
        ['proto', { claims: { '__proto__.admin': true } }],
        ['constructor', { claims: { 'constructor.name': 'Object' } }]
      ].map(([name, acl]) => ({ name, match: { path: `/${name}` }, service: 'any', edge: { acl } }))
    }
  )
  const status = async (path: string, more: object) =>
    (await get(gateway.port, `/${path}`, [`Authorization: ${bearer(more)}`])).status
  const cases: [path: string, allowed: object[], refused: object[]][] = [
    ['roles', [{ roles: ['ops'] }, { roles: 'admin' }, { roles: [1, null, 'admin'] }], [{ roles: 'admin ops' }, { roles: ['Admin'] }, { roles: { admin: true } }, { roles: [['admin']] }, { role: 'admin' }]],
    ['nested', [{ realm_access: { roles: ['admin'] } }, { 'realm_access.roles': ['admin'] }], [{ realm_access: ['admin'] }, { realm_access: null }, { roles: ['admin'] }, { realm_access: { roles: ['user'] } }]],
    ['url', [{ 'https://example.com/tenant': 'acme' }], [{ 'https://example.com/tenant': 'other' }, { tenant: 'acme' }, { 'https://example': { 'com/tenant': 'other' } }]],
    ['boolean', [{ email_verified: true }, { email_verified: [true] }], [{ email_verified: 'true' }, { email_verified: 1 }, { email_verified: false }, { email_verified: null }, {}]],
    ['number', [{ level: 7 }, { level: 8.0 }, { level: [1, 8] }], [{ level: '7' }, { level: 7.5 }, { level: 78 }]],
    ['list', [{ amr: ['otp'], tenant: 'acme' }, { amr: 'mfa', tenant: ['acme', 'x'] }], [{ amr: ['otp'] }, { tenant: 'acme' }, { amr: [], tenant: 'acme' }, { amr: ['pwd'], tenant: 'acme' }]],
    ['proto', [], [{}, { admin: true }]],
    ['constructor', [{ constructor: { name: 'Object' } }], [{}]]
  ] // biome-ignore format: a table
  for (const [path, allowed, refused] of cases) {
    for (const more of allowed) t.equal(await status(path, more), 200, `${path} allows ${JSON.stringify(more)}`)
    for (const more of refused) t.equal(await status(path, more), 403, `${path} refuses ${JSON.stringify(more)}`)
  }
  const { headers } = await get(gateway.port, '/roles', [`Authorization: ${bearer()}`])
  t.equal(headers['www-authenticate'], 'Bearer realm="jingwei", error="insufficient_scope"')
})

/** A plugin whose hook runs after all concerns, and sets the consumer that a header has. */
const plugin = `export default async (fastify) => {
  fastify.addHook('onRequest', async (request) => {
    const { 'x-consumer': consumer } = request.headers
    if (consumer !== undefined) request.consumer = JSON.parse(consumer)
  })
}`

t.test("a plugin's consumer counts, and without a consumer or a token the request is refused", async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const config = {
    admin: false,
    services: { any: { instances: [service.url] } },
    routes: [
      ['denied', { deny: ['blocked'] }],
      ['allowed', { allow: ['gold'] }],
      ['scopes', { scopes: ['a'] }]
    ].map(([name, acl]) => ({ name, match: { path: `/${name}` }, service: 'any', plugins: ['own'], edge: { acl } })),
    plugins: [{ path: './own.mjs', provides: ['consumer'], scope: 'routes' }]
  }
  const root = await folder(t, { 'own.mjs': plugin, 'gateway.yaml': JSON.stringify(config) })
  const { port, close } = await startWith(await loadConfig(join(root, 'gateway.yaml'), {}))
  t.teardown(close)
  const ask = (path: string, consumer?: object) =>
    get(port, path, consumer === undefined ? [] : [`X-Consumer: ${JSON.stringify(consumer)}`])
  t.equal((await ask('/denied')).status, 403, 'also if only some groups are refused')
  t.equal((await ask('/denied', { id: 'key' })).status, 200)
  t.equal((await ask('/denied', { id: 'key', groups: ['blocked'] })).status, 403)
  t.equal((await ask('/allowed', { id: 'gold' })).status, 403, 'a name is no group')
  t.equal((await ask('/allowed', { id: 'key', groups: ['gold'] })).status, 200)
  const missing = await ask('/scopes')
  t.match(missing, { status: 401, headers: { 'www-authenticate': 'Bearer realm="jingwei"' } })
  t.match(JSON.parse(missing.body), { code: 'JW_CREDENTIALS_MISSING' })
  const byKey = await ask('/scopes', { id: 'key' })
  t.equal(byKey.status, 403, 'another kind of credentials cannot have scopes')
  t.notOk('www-authenticate' in byKey.headers)
})

t.test('a handshake of a WebSocket is refused', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const { port } = await start(t, { allow: ['gold'] }, { services: { any: { instances: [service.url] } } })
  const refused = connect(port, handshake('/', [`Authorization: ${bearer({ sub: 'sub-bob' })}`]))
  t.match(await refused.until('JW_ACCESS_DENIED'), /^HTTP\/1.1 403 /)
  refused.socket.destroy()
  const opened = connect(port, handshake('/', [`Authorization: ${bearer({ sub: 'sub-alice' })}`]))
  t.match(await opened.until('\r\n\r\n'), /^HTTP\/1.1 101 /)
  opened.socket.destroy()
  t.equal(service.requests.length, 1)
})

t.test('a preflight gets its response without credentials', async (t) => {
  const edge = { cors: { origin: ['https://app.example'] }, jwt: { secret }, acl: { allow: ['gold'] } }
  const { port, ask } = await start(t, {}, { edge })
  const origin = 'Origin: https://app.example'
  const preflight = await get(port, '/', [origin, 'Access-Control-Request-Method: GET'], 'OPTIONS')
  t.equal(preflight.status, 204)
  const refused = await ask({ sub: 'sub-bob' }, [origin])
  t.match(refused, { status: 403, headers: { 'access-control-allow-origin': 'https://app.example' } })
})

t.test('shadow mode counts, and sends no challenge', async (t) => {
  const { ask, lineOf, server } = await start(t, { scopes: ['a'], mode: 'shadow' })
  const { status, headers } = await ask({})
  t.equal(status, 200)
  t.notOk('www-authenticate' in headers)
  const shadow = [{ concern: 'acl', error: 'JW_INSUFFICIENT_SCOPE', reason: 'acl_scope' }]
  t.strictSame((await lineOf(0)).shadow, shadow)
  t.match(await server.metrics.metrics(), 'jingwei_edge_shadow_refusals_total{concern="acl",route="all"} 1')
})

t.test('explain shows the decision for an example', async (t) => {
  const gateway = await start(t, { allow: ['gold'], scopes: ['a'] }, { admin: { port: 0 } })
  const explained = async (query: string) => {
    const { decisions } = (await gateway.server.admin!.inject(`/admin/explain?${query}`)).json()
    return (decisions as [string, string][]).filter(([name]) => name === 'acl')
  }
  t.strictSame(await explained('consumer=alice&claims={"scope":"a"}'), [['acl', 'allows']])
  t.strictSame(await explained('consumer=alice'), [['acl', 'refuses: acl_no_token']])
  t.strictSame(await explained('consumer=bob'), [['acl', 'refuses: acl_not_allowed']])
  t.strictSame(await explained(''), [
    ['acl', 'refuses: acl_no_consumer (credentials are not read: add --consumer NAME)']
  ])
  t.equal((await gateway.server.admin!.inject('/admin/explain?claims={')).statusCode, 400)
})

t.test('faults', async (t) => {
  const faults = (edge: object): string[] => {
    try {
      const routes = [{ name: 'a', match: { path: '/' }, service: 'a' }]
      configOf({ edge, services: { a: { instances: ['http://h'] } }, routes })
    } catch (error) {
      if (error instanceof ConfigError) return error.faults.map(({ path, message }) => `${path}: ${message}`)
      throw error
    }
    return []
  }
  const jwt = { secret }
  const identify =
    /^routes\[0\]\.edge\.acl: consumer \(inherited\): nothing on this route identifies the consumer; add .*\bjwt\b/
  t.match(faults({ acl: { allow: ['gold'] } }), [identify])
  t.match(faults({ acl: { scopes: ['a'] } }), [
    /^routes\[0\]\.edge\.acl\.scopes: claims \(inherited\): nothing on this route verifies a token with claims; add jwt/
  ])
  t.strictSame(faults({ jwt, acl: {} }), ['edge.acl: has no condition, such as "allow" or "scopes"'])
  t.strictSame(faults({ jwt, acl: { mode: 'shadow', rolesClaim: 'x' } }), [
    'edge.acl: has no condition, such as "allow" or "scopes"'
  ])
  t.strictSame(faults({ jwt, acl: { allow: ['a', 'b'], deny: ['b'] } }), [
    'edge.acl.allow[1]: "b" is also in "deny", which wins'
  ])
  t.strictSame(faults({ jwt, acl: { scopes: ['a b'] } }), [
    'edge.acl.scopes[0]: expected a scope, without blanks and quotes, found "a b"'
  ])
  t.equal(faults({ jwt, acl: { claims: { a: null } } }).length, 1)
  t.equal(faults({ jwt, acl: { claims: { a: { b: 1 } } } }).length, 1)
})
