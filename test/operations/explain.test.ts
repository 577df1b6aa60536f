// slow: takes about 6 s
/** Explanation of a request, without sending it. */
import { createHmac, hash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { startGateway, startService } from '../helpers/gateway.ts'
import { runToEnd } from '../helpers/processes.ts'

const home = join(import.meta.dirname, '../..')

async function gatewayOver(t: Test) {
  let requests = 0
  const { url: origin, close } = await startService((_request, response) => {
    requests++
    response.end('ok')
  })
  t.teardown(close)
  const config = {
    admin: { port: 0 },
    services: {
      orders: {
        instances: [origin, 'http://127.0.0.1:1'],
        mesh: { balance: { policy: 'ring-hash', hashOn: 'header:x-user' }, healthCheck: { path: '/up' } }
      },
      canary: { instances: [origin] }
    },
    edge: { rateLimit: { max: 2, window: '1h' } },
    routes: [
      {
        name: 'orders',
        match: { path: '/api/orders' },
        path: { strip: '/api' },
        split: [
          { service: 'orders', weight: 95 },
          { service: 'canary', weight: 5, match: { headers: { 'x-beta': '1' }, consumers: ['alice'] } }
        ]
      }
    ]
  }
  return { config, requests: () => requests }
}

t.test('/admin/explain shows the route, target and chains of a request', async (t) => {
  const { config, requests } = await gatewayOver(t)
  delete (config.services.orders.mesh as { healthCheck?: unknown }).healthCheck
  const gateway = await startGateway(config)
  t.teardown(() => gateway.close())
  const ask = async (query: string) => (await gateway.server.admin!.inject(`/admin/explain?${query}`)).json()

  for (let i = 0; i < 5; i++) {
    const explained = await ask('path=/api/orders/7%3Fx=1&header=x-user:bob')
    t.match(explained, { route: 'orders', refused: null, target: '/orders/7?x=1', responsePath: 'raw' })
    t.ok(explained.edge.indexOf('rate-limit') > explained.edge.indexOf('request-id'))
    t.strictSame(
      explained.mesh.map(({ service, share }: { service: string; share: object }) => [service, share]),
      [
        ['orders', { weight: 95, matched: false }],
        ['canary', { weight: 5, matched: false }]
      ]
    )
    const [orders] = explained.mesh
    t.ok(orders.chain.includes('hash') && orders.chain.includes('retry'))
    t.equal(orders.status.instances.length, 2)
    t.ok(orders.status.instances.some(({ id }: { id: string }) => id === orders.hashed))
  }
  const beta = await ask('method=POST&path=/api/orders&header=X-Beta:%201&consumer=alice')
  t.match(beta.mesh, [{ service: 'canary', share: { matched: true } }])
  t.equal(beta.mesh.length, 1)
  t.match(await ask('path=/nothing'), { route: null, refused: { status: 404, code: 'JW_NO_ROUTE' } })
  t.match(await ask('method=TRACE&path=/api/orders'), { refused: { status: 405, code: 'JW_METHOD_NOT_ALLOWED' } })
  t.match(await ask('path=/api/../admin'), { refused: { status: 400, code: 'JW_AMBIGUOUS_PATH' } })
  t.match(await ask('path=nonsense'), { statusCode: 400 })
  t.match(await ask('method=ge%20t'), { statusCode: 400 })
  t.match(await ask('method=PATCHY&path=/api/orders'), { statusCode: 400 })

  t.equal(requests(), 0, 'explain sends no request')
  const served = await fetch(`${gateway.url}/api/orders`, { headers: { 'x-beta': '1' } })
  await served.arrayBuffer()
  t.equal(served.headers.get('ratelimit-remaining'), '1', 'explain does not count for a limit')

  const admin = gateway.server.admin!
  t.match((await admin.inject('/admin/services/orders')).json(), { name: 'orders', instances: [{}, {}] })
  t.equal((await admin.inject('/admin/services/nope')).statusCode, 404)
})

t.test('the command explain knows the declared consumers', async (t) => {
  const config = {
    consumers: [{ name: 'bob', groups: ['staff'] }],
    services: { any: { instances: ['http://127.0.0.1:1'] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { keyAuth: {}, acl: { allow: ['staff'] } } }]
  }
  const dir = t.testdir({ 'gateway.yaml': JSON.stringify(config) })
  const inConsul = {
    ...config,
    discovery: { consul: { url: 'http://127.0.0.1:1' } },
    consumers: { consul: { key: 'people' } }
  }
  await writeFile(join(dir, 'consul.yaml'), JSON.stringify(inConsul))
  const explain = (consumer: string, file = 'gateway.yaml') => {
    const args = ['explain', join(dir, file), 'GET', '/', '--consumer', consumer]
    return runToEnd(process.execPath, [join(home, 'app.ts'), ...args])
  }
  t.match(await explain('bob'), { code: 0, stdout: /acl +allows/ })
  t.notMatch((await explain('bob')).stdout, /declared/)
  const eve = await explain('eve')
  t.match(eve, { code: 0, stdout: /acl +refuses: acl_not_allowed/ })
  t.match(eve.stdout, /^ {2}consumer {2}eve: is not declared; explained as a caller without groups/m)
  const unknown = /^ {2}consumer {2}bob: the list in Consul \(people\) is not known here; /m
  t.match(await explain('bob', 'consul.yaml'), { code: 0, stdout: unknown })
})

t.test('the command explain finds the consumer of a credential', async (t) => {
  const key = { hash: `sha256:${hash('sha256', 'a key')}` }
  const config = {
    consumers: [{ name: 'bob', keyAuth: key, hmacAuth: { username: 'bob', secret: 'a secret' } }],
    services: { any: { instances: ['http://127.0.0.1:1'] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { keyAuth: {}, hmacAuth: {} } }]
  }
  const { consumers, ...rest } = config
  const dir = t.testdir({
    'gateway.yaml': JSON.stringify(config),
    'filed.yaml': JSON.stringify({ ...rest, consumers: { file: './consumers.yaml' } }),
    'consumers.yaml': JSON.stringify(consumers)
  })
  const date = new Date().toUTCString()
  const mac = createHmac('sha256', 'a secret').update(`date: ${date}\nGET / HTTP/1.1`).digest('base64')
  const signed = `hmac username="bob", algorithm="hmac-sha256", headers="date request-line", signature="${mac}"`
  for (const file of ['gateway.yaml', 'filed.yaml']) {
    const args = ['explain', join(dir, file), 'GET', '/', '-H', `date: ${date}`, '-H', `authorization: ${signed}`]
    const explain = (text: string) =>
      runToEnd(process.execPath, [join(home, 'app.ts'), ...args, '-H', `x-api-key: ${text}`])
    const right = await explain('a key')
    t.match(right, { code: 0, stdout: /key-auth +accepts bob$/m }, file)
    t.match(right.stdout, /hmac-auth +accepts bob$/m, file)
    t.match(await explain('another key'), { code: 0, stdout: /key-auth +does not accept: key_unknown$/m }, file)
  }
})

t.test('the command explain takes a request without --claims for one without a token', async (t) => {
  const acl = { scopes: ['read'] }
  const config = {
    services: { any: { instances: ['http://127.0.0.1:1'] } },
    routes: [
      {
        name: 'all',
        match: { path: '/' },
        service: 'any',
        edge: { jwt: { secret: 's'.repeat(32), optional: true }, acl }
      }
    ]
  }
  const dir = t.testdir({ 'gateway.yaml': JSON.stringify(config) })
  const explain = (...more: string[]) =>
    runToEnd(process.execPath, [join(home, 'app.ts'), 'explain', join(dir, 'gateway.yaml'), 'GET', '/', ...more])
  t.match(await explain(), { code: 0, stdout: /acl +refuses: acl_no_token/ })
  t.match(await explain('--claims', '{}'), { code: 0, stdout: /acl +refuses: acl_scope/ })
})

t.test('the command explain shows the options of a consumer, where they apply', async (t) => {
  const edge = {
    bodyLimit: false,
    rateLimit: { max: 5, window: '1s' },
    acl: { allow: ['gold'] },
    websocket: {},
    graphql: {}
  }
  const config = {
    consumers: [{ name: 'bob', keyAuth: { hash: `sha256:${'a'.repeat(64)}` }, edge }],
    services: { any: { instances: ['http://127.0.0.1:1'] } },
    edge: { keyAuth: {}, websocket: false },
    routes: [
      { name: 'all', match: { path: '/' }, service: 'any' },
      { name: 'proxied', match: { path: '/proxied' }, service: 'any', via: 'http-proxy' },
      { name: 'open', match: { path: '/open' }, service: 'any', edge: { keyAuth: false } }
    ]
  }
  const dir = t.testdir({ 'gateway.yaml': JSON.stringify(config) })
  const explain = async (path: string, ...more: string[]) => {
    const args = ['explain', join(dir, 'gateway.yaml'), 'GET', path, ...more]
    const { code, stdout } = await runToEnd(process.execPath, [join(home, 'app.ts'), ...args])
    t.equal(code, 0)
    return stdout
  }
  const by = '\\(by consumers\\[\\]\\.edge of bob\\)'
  const all = await explain('/', '--consumer', 'bob')
  for (const line of [
    'rate-limit +allows 5 in 1s of consumer bob',
    'acl +refuses: acl_not_allowed',
    'websocket +on',
    'body-limit +off'
  ]) {
    t.match(all, new RegExp(`^ {4}${line} ${by}$`, 'm'))
  }
  t.notMatch(all, /graphql/, 'which only routes have')
  const proxied = await explain('/proxied', '--consumer', 'bob')
  t.match(proxied, new RegExp(`rate-limit +allows 5 in 1s of consumer bob ${by}`))
  t.notMatch(proxied, /websocket/)
  const open = await explain('/open', '--consumer', 'bob')
  t.match(open, /^ {2}consumer {2}bob: nothing on this route identifies it, so its own options do not apply$/m)
  for (const text of [open, await explain('/')]) t.notMatch(text, /edge of bob/)
})

t.test('explain says what limits and concerns that ask a server would do', async (t) => {
  let asked = 0
  const server = await startService((_request, response) => {
    asked++
    response.end()
  })
  t.teardown(server.close)
  const root = t.testdir({ 'authorizer.mjs': 'export default () => null' })
  const limits = [
    { max: 20, window: '1s', algorithm: 'token-bucket' },
    { max: 100, window: '1h', by: ['header:x-key', 'claim:tenant'], maxPerAddress: 500 },
    { max: 5, window: '30d', by: 'consumer', mode: 'shadow' },
    { maxConcurrent: 7, by: 'route' }
  ]
  const config = {
    admin: { port: 0 },
    consumers: [{ name: 'bob', jwt: { sub: 'bob' }, edge: { rateLimit: { max: 9, window: '2m' } } }],
    services: { any: { instances: [server.url] } },
    edge: {
      jwt: { secret: 'x'.repeat(32), algorithms: ['HS256'], issuer: 'i', audience: 'a', optional: true },
      rateLimit: limits,
      overload: { eventLoopDelay: '2s', memory: '90%', requests: 40 },
      shedPriority: 'low'
    },
    routes: [
      { name: 'limits', match: { path: '/' }, service: 'any' },
      {
        name: 'asking',
        match: { path: '/asking' },
        service: 'any',
        edge: {
          rateLimit: false,
          introspection: { url: `${server.url}/introspect?secret=1`, clientId: 'a', clientSecret: 'b' },
          authorizer: { module: join(root, 'authorizer.mjs'), timeout: '3s' },
          forwardAuth: { service: 'any', path: '/check' },
          bodyLimit: '5mb'
        }
      },
      {
        name: 'trial',
        match: { path: '/trial' },
        service: 'any',
        edge: { forwardAuth: { url: `${server.url}/check`, mode: 'shadow' }, bodyLimit: '10b' }
      },
      {
        name: 'failing',
        match: { path: '/failing' },
        service: 'any',
        edge: {
          rateLimit: { max: 3, window: '1h', by: 'header:Host', maxPerAddress: 9 },
          forwardAuth: { url: `${server.url}/check`, onFailure: 'allow', timeout: '250ms' }
        }
      }
    ]
  }
  const gateway = await startGateway(config)
  t.teardown(() => gateway.close())
  const decisions = async (query: string) =>
    Object.fromEntries((await gateway.server.admin!.inject(`/admin/explain?${query}`)).json().decisions)
  const plain = await decisions('path=/&ip=192.0.2.7')
  t.equal(
    plain['rate-limit'],
    'allows 20 in 1s of address 192.0.2.7; ' +
      '100 in 1h of address 192.0.2.7, for lack of header x-key and address 192.0.2.7, for lack of claim tenant, and 500 of address 192.0.2.7; ' +
      '5 in 30d of address 192.0.2.7, for lack of a consumer (shadow); 7 in flight of all clients'
  )
  t.equal(
    plain.overload,
    'refuses with 503 while timers are 2s late, or 90 % of memory are used, or 40 requests are in flight, from 90 % of that on; shedPriority low'
  )
  t.notOk('body-limit' in plain)
  const claims = encodeURIComponent('{"tenant":"secret"}')
  const bob = await decisions(`path=/&ip=192.0.2.7&consumer=bob&header=x-key:secret&claims=${claims}`)
  t.equal(
    bob['rate-limit'],
    'allows 20 in 1s of address 192.0.2.7; 7 in flight of all clients; allows 9 in 2m of consumer bob (by consumers[].edge of bob)'
  )
  const amy = await decisions(`path=/&ip=192.0.2.7&consumer=amy&header=x-key:secret`)
  t.match(amy['rate-limit'], /one value of header x-key .* 5 in 30d of consumer amy \(shadow\)/)
  t.notMatch(amy['rate-limit'], /secret/)
  const asking = await decisions('path=/asking&method=POST&header=content-length:5242881')
  t.match(asking, {
    introspection: 'finds no bearer token',
    authorizer: 'asks the function of authorizer.mjs, which has 3s to decide',
    'forward-auth': 'asks any/check whether the request may pass; without a decision in 5s refuses with 503',
    'body-limit': 'refuses: the body is larger than 5mb'
  })
  const withToken = await decisions('path=/asking&method=POST&header=authorization:Bearer%20x')
  t.match(withToken, {
    introspection: `asks ${server.url}/introspect whether the token is active, unless that is known`,
    'body-limit': 'allows a body of at most 5mb'
  })
  const trial = await decisions('path=/trial&method=POST')
  t.equal(trial['forward-auth'], `asks ${server.url}/check whether the request may pass; the request does not wait`)
  t.equal(trial['body-limit'], 'allows a body of at most 10b')
  const failing = await decisions('path=/failing')
  t.match(failing['forward-auth'], /; without a decision in 250ms lets it pass$/)
  t.match(failing['rate-limit'], /^allows 3 in 1h of one value of header Host, and 9 of address /)
  t.equal(asked, 0)
})

t.test('the command explain sends no request to an instance', async (t) => {
  const { config, requests } = await gatewayOver(t)
  const dir = t.testdir({ 'gateway.yaml': JSON.stringify(config) })
  const explain = (...args: string[]) =>
    runToEnd(process.execPath, [join(home, 'app.ts'), 'explain', join(dir, 'gateway.yaml'), ...args])
  const { code, stdout } = await explain('get', '/api/orders/7', '-H', 'x-user: bob', '--ip', '10.0.0.1')
  t.equal(code, 0)
  for (const line of [
    /^GET \/api\/orders\/7$/m,
    /^ {2}route {5}orders$/m,
    /^ {2}edge {6}errors → request-id .* rate-limit/m,
    /^ {2}forwards {2}\/orders\/7$/m,
    /^ {2}response {2}raw$/m,
    /^ {2}service {3}orders, weight 95$/m,
    /mesh {6}.*→ hash → .*→ select/,
    /instances 2 from static$/m,
    /http:\/\/127\.0\.0\.1:1 {2}weight 1 {2}active 0 {2}available/,
    /← by hash$/m,
    /service {3}canary, weight 5$/m
  ]) {
    t.match(stdout, line)
  }
  t.match(await explain('GET', '/nope'), { code: 0, stdout: /refused {3}404 JW_NO_ROUTE/ })
  t.match(await explain('GET'), { code: 1, stderr: /explain takes a file, a method and a path/ })
  t.match(await explain('GET', '/a', '-H', 'nonsense'), { code: 1, stderr: /-H nonsense: expected NAME: VALUE/ })
  t.equal(requests(), 0, 'the command sends no health check')
})
