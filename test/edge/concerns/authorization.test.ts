// slow: takes about 10 s
/** `edge.authorization`: ordered rules on each property of a request, over each protocol, and attempts to evade them. */
import type { Test } from 'tap'
import t from 'tap'
import { CLOCK } from '../../../plugins/clock.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, get, startEcho, startGateway } from '../../helpers/gateway.ts'

const consumers = [
  { name: 'alice', groups: ['staff'], jwt: { sub: 'sub-alice' } },
  { name: 'bob', groups: ['guests'], jwt: { sub: 'sub-bob' } }
]

const bearer = (more: object = {}) => `Bearer ${token(claims(more as never))}`

interface Settings {
  default?: 'allow' | 'deny'
  mode?: 'shadow'
  listen?: object
  date?: () => number
  more?: object
}

async function start(t: Test, rules: object[], { default: otherwise, mode, listen, date, more }: Settings = {}) {
  const service = await startEcho()
  t.teardown(service.close)
  const authorization = { rules, ...(otherwise && { default: otherwise }), ...(mode && { mode }) }
  const gateway = await startGateway(
    {
      consumers,
      listen: { trustProxy: ['127.0.0.1'], ...listen },
      services: { any: { instances: [service.url] } },
      edge: { jwt: { secret }, authorization },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
      ...more
    },
    {
      log: true,
      before: (server) => {
        if (date !== undefined) server.decorate(CLOCK, { now: () => performance.now(), date })
      }
    }
  )
  t.teardown(gateway.close)
  const ask = (path: string, headers: string[] = [], method = 'GET', user: object = {}) =>
    get(gateway.port, path, [`Authorization: ${bearer(user)}`, ...headers], method)
  const status = async (...asked: Parameters<typeof ask>) => (await ask(...asked)).status
  const lineOf = async (index: number) => {
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    await eventually(() => lines().length > index)
    return lines()[index]!
  }
  return { ...gateway, ask, status, lineOf }
}

for (const protocol of protocols) {
  t.test(`over ${protocol}, the first rule whose conditions all hold decides`, async (t) => {
    const gateway = await start(
      t,
      [
        { action: 'deny', paths: ['/orders/secret'] },
        { action: 'allow', paths: ['/orders'], methods: ['GET'] },
        { action: 'allow', paths: ['/orders'], methods: ['POST', 'PUT'], groups: ['staff'] },
        { action: 'allow', paths: ['/reports'], scopes: ['reports:read'] }
      ],
      { listen: listenFor(t, protocol) }
    )
    const { ask } = anyClient(t, protocol, gateway.port)
    for (const [index, [method, path, user, status, reason]] of (
      [
        ['GET', '/orders/7', {}, 200],
        ['HEAD', '/orders/7', {}, 200],
        ['GET', '/orders/secret', { sub: 'sub-alice' }, 403, 'rule_denied'],
        ['GET', '/orders/secret/7?a=/orders', {}, 403, 'rule_denied'],
        ['POST', '/orders', { sub: 'sub-alice' }, 200],
        ['POST', '/orders', { sub: 'sub-bob' }, 403, 'rule_default'],
        ['DELETE', '/orders', { sub: 'sub-alice' }, 403, 'rule_default'],
        ['GET', '/ordersX', {}, 403, 'rule_default'],
        ['GET', '/', {}, 403, 'rule_default'],
        ['GET', '/reports', { scope: 'reports:read' }, 200],
        ['GET', '/reports', { scope: 'reports' }, 403, 'rule_scope']
      ] as const
    ).entries()) {
      const body = method === 'POST' ? { body: 'x'.repeat(100_000) } : {}
      const received = await ask(path, { method, headers: { authorization: bearer(user) }, ...body })
      t.equal(received.status, status, `${method} ${path}`)
      t.ok(received.isWhole, `${method} ${path}`)
      t.equal((await gateway.lineOf(index)).reason, reason, `${method} ${path}`)
      const challenge = 'Bearer realm="jingwei", error="insufficient_scope", scope="reports:read"'
      t.equal(received.headers['www-authenticate'], reason === 'rule_scope' ? challenge : undefined)
      if (reason !== undefined && method !== 'HEAD') {
        const code = reason === 'rule_scope' ? 'JW_INSUFFICIENT_SCOPE' : 'JW_REQUEST_DENIED'
        t.equal(JSON.parse(received.body.toString()).code, code)
      }
    }
    t.equal((await ask('/orders')).status, 401, 'authentication comes first')
  })

  t.test(`over ${protocol}, no spelling of a path evades a rule`, async (t) => {
    const listen = listenFor(t, protocol)
    const denying = await start(t, [{ action: 'deny', paths: ['/admin'] }], { default: 'allow', listen })
    const allowing = await start(t, [{ action: 'allow', paths: ['/public'] }], { listen })
    const statusOf = (port: number) => {
      const { ask } = anyClient(t, protocol, port)
      return async (path: string) => (await ask(path, { headers: { authorization: bearer() } })).status
    }
    const [denied, allowed] = [statusOf(denying.port), statusOf(allowing.port)]
    for (const path of [
      '/admin',
      '/admin/',
      '/admin/x',
      '/%61dmin',
      '//admin',
      '/admin//x',
      '/admin?x',
      '/%61%64min/%78'
    ]) {
      t.equal(await denied(path), 403, path)
    }
    for (const path of [
      '/Admin', '/ADMIN/x', '/admin.', '/admin%20', '/admin./x', '/aDmin%2e', '/x/../admin', '/x/%2e%2e/admin', '/./admin', '/admin;x=1',
      '/;/admin', '/x%2f..%2fadmin', '/x%5c..%5cadmin', '/%EF%BC%A1dmin', '/adm%C4%B1n'
    ]) {
      t.equal(await denied(path), 400, path)
    } // biome-ignore format: a list
    for (const path of ['/administrator', '/x/admin', '/admi', '/']) t.equal(await denied(path), 200, path)
    for (const path of ['/public', '/public/x', '/publi%63']) t.equal(await allowed(path), 200, path)
    for (const path of ['/Public', '/public.', '/public%20']) t.equal(await allowed(path), 400, path)
    for (const path of ['/publicx', '/private', '/private/public', '/?/public', '/public%252e']) {
      t.equal(await allowed(path), 403, path)
    }
  })

  t.test(
    `over ${protocol}, of repeated headers one value is enough to deny, and all are needed to allow`,
    async (t) => {
      const listen = listenFor(t, protocol)
      const denying = await start(t, [{ action: 'deny', headers: { 'x-role': 'debug' } }], { default: 'allow', listen })
      const allowing = await start(t, [{ action: 'allow', headers: { 'X-Role': ['reader', '/^w[a-z]+r$/'] } }], {
        listen
      })
      const statusOf = (port: number) => {
        const { ask } = anyClient(t, protocol, port)
        return async (headers: Record<string, string | string[]>) =>
          (await ask('/', { headers: { authorization: bearer(), ...headers } as Record<string, string> })).status
      }
      const [denied, allowed] = [statusOf(denying.port), statusOf(allowing.port)]
      t.equal(await denied({ 'x-role': 'debug' }), 403)
      t.equal(await denied({ x_role: 'debug' }), 403)
      t.equal(await denied({ 'x-role': 'other', x_role: 'debug' }), 403)
      t.equal(await denied({ 'x-role': 'debugger' }), 200)
      t.equal(await denied({}), 200)
      t.equal(await allowed({ 'x-role': 'reader' }), 200)
      t.equal(await allowed({ 'x-role': 'writer' }), 200)
      t.equal(await allowed({ 'x-role': 'writers' }), 403)
      t.equal(await allowed({ 'x-role': 'reader', x_role: 'admin' }), 403)
      t.equal(await allowed({ 'x-role': '' }), 403)
      t.equal(await allowed({}), 403)
    }
  )
}

t.test('repeated lines of a header, and its presence', async (t) => {
  const lines = await start(t, [{ action: 'deny', headers: { 'x-role': 'debug' } }], { default: 'allow' })
  t.equal(await lines.status('/', ['X-Role: other', 'X-Role: debug']), 403)
  t.equal(await lines.status('/', ['X-Role: debug', 'X-Role: other']), 403)
  t.equal(await lines.status('/', ['X-Role: other', 'X-Role: others']), 200)
  const allow = await start(t, [{ action: 'allow', headers: { 'x-role': 'reader' } }])
  t.equal(await allow.status('/', ['X-Role: reader', 'X-Role: reader']), 200)
  t.equal(await allow.status('/', ['X-Role: reader', 'X-Role: admin']), 403)
  t.equal(await allow.status('/', ['X-Role: reader, admin']), 403)
  const present = await start(t, [{ action: 'deny', headers: { 'x-debug': true } }], { default: 'allow' })
  t.strictSame([await present.status('/'), await present.status('/', ['x-debug:'])], [200, 403])
  t.equal(await present.status('/', ['x_debug: 1']), 403)
  const absent = await start(t, [{ action: 'allow', headers: { 'x-debug': false } }])
  t.strictSame([await absent.status('/'), await absent.status('/', ['x_debug: 1'])], [200, 403])
  const required = await start(t, [{ action: 'deny', headers: { 'x-tenant': false } }], { default: 'allow' })
  t.strictSame([await required.status('/'), await required.status('/', ['X-Tenant: a'])], [403, 200])
  t.equal(await required.status('/', ['x_tenant: a']), 403, 'a service may overlook the other spelling')
})

t.test('patterns of paths', async (t) => {
  const rules = ['/users/:id', '/files/*', '/teams/:id/*', { exact: '/exact' }, '/Upper'].map((path) => ({
    action: 'allow',
    paths: [path]
  }))
  const { status } = await start(t, rules)
  for (const path of [
    '/users/7',
    '/users/7/',
    '/files/a',
    '/files/a/b',
    '/teams/7/x/y',
    '/exact',
    '/exact/',
    '/Upper/x'
  ]) {
    t.equal(await status(path), 200, path)
  }
  for (const path of ['/users', '/users/7/x', '/files', '/files/', '/teams/7', '/exact/x', '/other']) {
    t.equal(await status(path), 403, path)
  }
  for (const path of ['/upper', '/UPPER', '/EXACT', '/Users/7']) t.equal(await status(path), 400, path)
})

t.test('listen.paths decides how spellings are read', async (t) => {
  const rules = [{ action: 'deny', paths: ['/admin'] }]
  const ignoring = await start(t, rules, {
    default: 'allow',
    listen: { paths: { case: 'ignore', trailingDot: 'ignore' } }
  })
  t.strictSame([await ignoring.status('/Admin'), await ignoring.status('/admin.')], [403, 403])
  const distinct = await start(t, rules, {
    default: 'allow',
    listen: { paths: { case: 'distinct', trailingDot: 'distinct' } }
  })
  t.strictSame(
    [await distinct.status('/Admin'), await distinct.status('/admin.'), await distinct.status('/admin')],
    [200, 200, 403]
  )
})

t.test('consumers, groups and claims', async (t) => {
  const { status } = await start(t, [
    { action: 'deny', consumers: ['bob'], paths: ['/a'] },
    { action: 'allow', consumers: ['*'], paths: ['/a'] },
    { action: 'allow', groups: ['staff', 'ops'], paths: ['/b'] },
    { action: 'allow', claims: { 'realm_access.roles': ['admin'], level: 7 }, paths: ['/c'] },
    { action: 'allow', claims: { '__proto__.admin': true }, paths: ['/d'] },
    { action: 'allow', consumers: ['alice'], paths: ['/e'] }
  ])
  const [alice, bob] = [{ sub: 'sub-alice' }, { sub: 'sub-bob' }]
  const all = async (path: string, ...users: object[]) =>
    Promise.all(users.map((user) => status(path, [], 'GET', user)))
  t.strictSame(await all('/a', alice, bob, { sub: 'carl' }, { sub: '' }), [200, 403, 200, 403])
  t.strictSame(await all('/b', alice, bob, { sub: 'staff' }), [200, 403, 403])
  const roles = { roles: ['admin'] }
  t.strictSame(
    await all(
      '/c',
      { realm_access: roles, level: 7 },
      { realm_access: roles, level: '7' },
      { level: 7 },
      { realm_access: null, level: 7 }
    ),
    [200, 403, 403, 403]
  )
  t.strictSame(await all('/d', {}, { admin: true }), [403, 403])
  t.strictSame(await all('/e', alice, { sub: 'alice' }, { sub: '*' }), [200, 403, 403])
})

t.test('addresses: an unreadable one is never allowed by its rule, and always denied', async (t) => {
  const from = (address: string): [string, string[]] => ['/', [`X-Forwarded-For: ${address}`]]
  const allow = await start(t, [{ action: 'allow', addresses: ['192.0.2.0/24', '2001:db8::/32'] }])
  for (const address of ['192.0.2.7', '::ffff:192.0.2.7', '192.0.2.7:80', '2001:DB8::1']) {
    t.equal(await allow.status(...from(address)), 200, address)
  }
  for (const address of ['192.0.3.7', 'unknown', '192.0.2', '::1'])
    t.equal(await allow.status(...from(address)), 403, address)
  const deny = await start(t, [{ action: 'deny', addresses: ['192.0.2.0/24'] }], { default: 'allow' })
  for (const address of ['192.0.2.7', '::ffff:c000:0207', 'unknown', '192.0.02.7']) {
    t.equal(await deny.status(...from(address)), 403, address)
  }
  t.equal(await deny.status(...from('192.0.3.7')), 200)
})

t.test('days and times of day in a time zone, also over midnight and in summer time', async (t) => {
  const at = (text: string) => Date.parse(text)
  let date = at('2026-07-06T07:59:00+02:00')
  const zone = 'Europe/Berlin'
  const { status } = await start(
    t,
    [
      {
        action: 'allow',
        paths: ['/day'],
        time: { days: ['mon', 'tue', 'wed', 'thu', 'fri'], from: '08:00', to: '18:00', zone }
      },
      { action: 'allow', paths: ['/night'], time: { days: ['fri'], from: '22:00', to: '06:00', zone } },
      { action: 'allow', paths: ['/utc'], time: { from: '23:00' } }
    ],
    { date: () => date }
  )
  for (const [text, path, expected] of [
    ['2026-07-06T07:59:59+02:00', '/day', 403],
    ['2026-07-06T08:00:00+02:00', '/day', 200],
    ['2026-07-06T17:59:59+02:00', '/day', 200],
    ['2026-07-06T18:00:00+02:00', '/day', 403],
    ['2026-01-05T08:00:00+01:00', '/day', 200],
    ['2026-01-05T07:30:00+01:00', '/day', 403],
    ['2026-07-05T12:00:00+02:00', '/day', 403],
    ['2026-07-10T21:59:00+02:00', '/night', 403],
    ['2026-07-10T22:00:00+02:00', '/night', 200],
    ['2026-07-11T00:00:00+02:00', '/night', 200],
    ['2026-07-11T05:59:00+02:00', '/night', 200],
    ['2026-07-11T06:00:00+02:00', '/night', 403],
    ['2026-07-11T22:30:00+02:00', '/night', 403],
    ['2026-07-10T05:00:00+02:00', '/night', 403],
    ['2026-07-10T22:59:00Z', '/utc', 403],
    ['2026-07-10T23:59:00Z', '/utc', 200]
  ] as const) {
    date = at(text)
    const iat = Math.floor(date / 1000)
    t.equal(await status(path, [], 'GET', { iat, exp: iat + 60 }), expected, `${path} at ${text}`)
  }
})

t.test('a handshake of a WebSocket is refused', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const services = { any: { instances: [service.url] } }
  const { port } = await start(t, [{ action: 'allow', paths: ['/ws'], groups: ['staff'] }], { more: { services } })
  for (const [sub, path, status] of [
    ['sub-bob', '/ws', 403],
    ['sub-alice', '/other', 403],
    ['sub-alice', '/ws', 101]
  ] as const) {
    const client = connect(port, handshake(path, [`Authorization: ${bearer({ sub })}`]))
    t.match(await client.until('\r\n\r\n'), new RegExp(`^HTTP/1.1 ${status} `))
    client.socket.destroy()
  }
  t.equal(service.requests.length, 1)
})

t.test('a preflight gets its response; without `cors` an OPTIONS is a request like others', async (t) => {
  const rules = [{ action: 'allow', methods: ['GET'] }]
  const edge = { jwt: { secret }, authorization: { rules }, cors: { origin: ['https://app.example'] } }
  const { port } = await start(t, rules, { more: { edge } })
  const headers = ['Origin: https://app.example', 'Access-Control-Request-Method: GET']
  t.equal((await get(port, '/', headers, 'OPTIONS')).status, 204)
  const plain = await start(t, rules)
  t.equal(await plain.status('/', headers, 'OPTIONS'), 403)
})

t.test('shadow mode counts what each rule refuses', async (t) => {
  const { status, lineOf, server } = await start(t, [{ action: 'allow', paths: ['/a'] }], { mode: 'shadow' })
  t.strictSame([await status('/a'), await status('/b'), await status('/A')], [200, 200, 200])
  t.notOk('shadow' in (await lineOf(0)))
  const refused = (error: string, reason: string) => [{ concern: 'authorization', error, reason }]
  t.strictSame((await lineOf(1)).shadow, refused('JW_REQUEST_DENIED', 'rule_default'))
  t.strictSame((await lineOf(2)).shadow, refused('JW_PATH_UNDECIDED', 'rule_path'))
  t.match(await server.metrics.metrics(), 'jingwei_edge_shadow_refusals_total{concern="authorization",route="all"} 2')
})

t.test('own routes of plugins have the rules if they ask for them', async (t) => {
  const gateway = await startGateway(
    {
      services: { any: { instances: ['http://127.0.0.1:1'] } },
      edge: { authorization: { rules: [{ action: 'allow', paths: ['/own/:id'] }] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { authorization: false } }]
    },
    {
      before: (server) =>
        void server.register(async (own) => {
          own.get('/own/:id', { config: { edge: { authorization: true } } }, async () => 'own')
          own.get('/own/:id/more', { config: { edge: { authorization: true } } }, async () => 'more')
        })
    }
  )
  t.teardown(gateway.close)
  const status = async (path: string) => (await get(gateway.port, path)).status
  t.strictSame([await status('/own/7'), await status('/own/7/more')], [200, 403])
})

t.test('explain shows the rule that decides for an example', async (t) => {
  const rules = [
    { name: 'staff', action: 'allow', paths: ['/a'], groups: ['staff'] },
    { action: 'deny', paths: ['/a'] },
    { action: 'allow', paths: ['/b'], scopes: ['b'] },
    { action: 'allow', headers: { 'x-key': '1' }, addresses: ['192.0.2.1'] }
  ]
  const { server } = await start(t, rules, { more: { admin: { port: 0 } } })
  const explained = async (query: string) => {
    const { decisions } = (await server.admin!.inject(`/admin/explain?${query}`)).json()
    return new Map(decisions as [string, string][]).get('authorization')
  }
  t.equal(await explained('path=/a&consumer=alice'), 'rules[0] (staff) allows')
  t.equal(await explained('path=/a&consumer=bob'), 'rules[1] denies')
  t.equal(await explained('path=/a'), 'rules[1] denies (credentials are not read: add --consumer NAME)')
  t.equal(await explained('path=/b'), 'the default denies, for lack of the scopes b')
  t.equal(await explained('path=/b&claims={"scope":"b"}'), 'rules[2] allows')
  t.equal(await explained('path=/c&ip=192.0.2.1&header=x-key:1'), 'rules[3] allows')
  t.equal(
    await explained('path=/A&consumer=alice'),
    'refuses: services may read the path in ways that are not all allowed'
  )
})
