// slow: takes about 16 s
/** Configured routes that the real @fastify/http-proxy serves. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Fastify from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { gateway } from '../../app.ts'
import type { GatewayOptions } from '../helpers/gateway.ts'
import { ask, configOf, connect, get, startEcho, startGateway, startService } from '../helpers/gateway.ts'
import { runToEnd } from '../helpers/processes.ts'

async function gatewayWith(t: Test, route: object, more: object = {}, options: GatewayOptions = {}) {
  const service = await startEcho()
  t.teardown(service.close)
  const routes = [{ name: 'via', service: 'any', via: 'http-proxy', ...route }]
  const gateway = await startGateway(
    { services: { any: { instances: [service.url] } }, routes, ...more },
    { log: true, ...options }
  )
  t.teardown(gateway.close)
  return gateway
}

t.test('the path is unchanged unless httpProxy changes it', async (t) => {
  const { port } = await gatewayWith(t, { match: { path: '/api' } })
  for (const target of ['/api', '/api/', '/api/a%20b/c?x=%2F&y', '/%61pi/7', '/api//7']) {
    t.equal((await ask(port, target)).url, target)
  }
  t.equal((await get(port, '/apis')).status, 404)
})

t.test('rewritePrefix replaces the path, with and without parameters', async (t) => {
  const at = async (path: unknown, rewritePrefix: string) =>
    (await gatewayWith(t, { match: { path }, httpProxy: { rewritePrefix } })).port
  const plain = await at('/api', '/v2')
  for (const [target, url] of [
    ['/api/7?a=b', '/v2/7?a=b'],
    ['/api', '/v2'],
    ['/%61pi/7', '/v2/7'],
    ['//api//7', '/v2//7']
  ]) {
    t.equal((await ask(plain, target!)).url, url, target!)
  }
  t.equal((await ask(await at('/api', '/'), '/api/7')).url, '/7')
  t.equal((await ask(await at({ exact: '/api' }, '/v2'), '/api')).url, '/v2')
  t.equal((await ask(await at('/files/*', '/static'), '/files/a/b')).url, '/static/a/b')
  t.equal((await ask(await at('/users/:id(^[0-9]+$)', '/v2/:id/profile'), '/users/7')).url, '/v2/7/profile')
  const several = await at('/shops/:shop/users/:id', '/users/:id/of/:shop')
  t.equal((await ask(several, '/shops/a/users/7?x=1')).url, '/users/7/of/a?x=1')
})

t.test('the value of a parameter stays one segment', async (t) => {
  const { port } = await gatewayWith(t, {
    match: { path: '/users/:id' },
    httpProxy: { rewritePrefix: '/v2/:id/public' }
  })
  for (const value of ['7%3Fx', '7%23x', '$&', "$'", '$`', '7%2520', '%E2%82%AC', ':id', 'a+b', '%3A%3A']) {
    const { url } = await ask(port, `/users/${value}`)
    const [, id, ...rest] = url.slice(1).split('/')
    t.equal(rest.join('/'), 'public', `${value}: ${url}`)
    t.equal(decodeURIComponent(id!), decodeURIComponent(value))
  }
  for (const value of ['..', '%2e%2e', '7%2F..', '7%5C..', '%FF']) {
    const { status, body } = await get(port, `/users/${value}`)
    t.ok(status === 400 || status === 404, `${value}: ${status} ${body}`)
  }
})

t.test('a query is unchanged, in any encoding', async (t) => {
  const queries = ['q=caf%E9', 'off=50%', 'x=1&y=%zz&&z=+', 'a=b?c=%FF']
  const routes = [
    [{ match: { path: '/hp' } }, '/hp/a', '/hp/a'],
    [{ match: { path: '/hp' }, httpProxy: { rewritePrefix: '/' } }, '/hp/a', '/a'],
    [{ match: { path: '/u/:id' }, httpProxy: { rewritePrefix: '/v2/:id/x' } }, '/u/7', '/v2/7/x']
  ] as const
  for (const [route, path, sent] of routes) {
    const { port } = await gatewayWith(t, route)
    for (const query of queries) t.equal((await ask(port, `${path}?${query}`)).url, `${sent}?${query}`)
    t.equal((await get(port, `${path}%FF?${queries[0]}`)).status, 400, 'a path that cannot be decoded is 400')
  }
})

t.test('functions are loaded from a module', async (t) => {
  const folder = t.testdir({
    'proxy.ts': `export default {
      preHandler(request, reply, done) { request.params.id === 'no' ? reply.code(402).send({ sorry: true }) : done() },
      replyOptions: {
        rewriteRequestHeaders: (request, headers) => ({ ...headers, 'x-user': request.params.id }),
        onResponse: (request, reply, res) => reply.header('x-id', request.params.id).send(res.stream)
      }
    }`
  })
  const { port } = await gatewayWith(t, {
    match: { path: '/users/:id' },
    httpProxy: { rewritePrefix: '/v2/:id', module: join(folder, 'proxy.ts') }
  })
  const { status, headers, body } = await get(port, '/users/a%3Fb')
  t.match({ status, id: headers['x-id'] }, { status: 200, id: 'a?b' }, 'the functions see the value like any hook')
  t.match(JSON.parse(body), { url: '/v2/a%3Fb', headers: { 'x-user': 'a?b', 'x-forwarded-for': '127.0.0.1' } })
  t.equal((await get(port, '/users/no')).status, 402)
})

t.test('a body that a module requests parsed is forwarded as JSON', async (t) => {
  const folder = t.testdir({
    'proxy.ts': `export default {
      proxyPayloads: false,
      preHandler(request, reply, done) { request.body.seen = true; done() }
    }`
  })
  const { port } = await gatewayWith(t, { match: { path: '/api' }, httpProxy: { module: join(folder, 'proxy.ts') } })
  const client = connect(
    port,
    'POST /api HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 7\r\nConnection: close\r\n\r\n{"a":1}'
  )
  t.match((await client.closed).text, String.raw`{\"a\":1,\"seen\":true}`)
})

t.test('a body that a module requests parsed has the limit of the route', async (t) => {
  const module = join(t.testdir({ 'proxy.ts': 'export default { proxyPayloads: false }' }), 'proxy.ts')
  for (const [bodyLimit, status] of [
    ['3mb', 200],
    [false, 200],
    ['1mb', 413]
  ] as const) {
    const { port } = await gatewayWith(t, { match: { path: '/api' }, edge: { bodyLimit }, httpProxy: { module } })
    const response = await fetch(`http://127.0.0.1:${port}/api`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify('x'.repeat(2 * 1024 * 1024)),
      signal: AbortSignal.timeout(10_000)
    })
    await response.text()
    t.equal(response.status, status, `${bodyLimit}`)
  }
})

t.test('an invalid module stops the start, and is named', async (t) => {
  const folder = t.testdir({
    'throws.ts': 'throw new Error("no database")',
    'function.ts': 'export default 7',
    'upstream.ts': 'export default { upstream: "http://elsewhere" }',
    'get-upstream.ts': 'export default { replyOptions: { getUpstream: () => "http://other.mesh" } }',
    'handler.ts': 'export default { handler: true }',
    'websocket.ts': 'export default { websocket: true }'
  })
  for (const [file, why] of [
    ['throws.ts', 'no database'],
    ['function.ts', 'it has no default export with options of @fastify/http-proxy'],
    ['upstream.ts', 'it must not set upstream: service or split sets it'],
    ['get-upstream.ts', 'it must not set replyOptions.getUpstream: service or split sets it'],
    ['handler.ts', 'handler must be a function'],
    ['websocket.ts', 'it must not set websocket: WebSockets would bypass the mesh']
  ] as const) {
    const path = join(folder, file)
    const started = gatewayWith(t, { match: { path: '/api' }, httpProxy: { module: path } })
    const { message } = await started.then(
      () => new Error('started'),
      (error: Error) => error
    )
    t.match(message, `: routes[0].httpProxy: module ${path}: ${why}`)
  }
})

t.test('a module that does not load in time stops the start, and is named', async (t) => {
  const module = join(t.testdir({ 'hangs.ts': 'await new Promise(() => {})\nexport default {}' }), 'hangs.ts')
  const started = gatewayWith(t, { match: { path: '/api' }, httpProxy: { module } })
  const { message } = (await started.then(
    () => t.fail('it starts'),
    (error: Error) => error
  )) as Error
  t.match(message, `: routes[0].httpProxy: module ${module}: its module has not loaded within 8 s`)
})

t.test('check loads modules, and names a failing one', async (t) => {
  const folder = t.testdir({
    'throws.ts': 'throw new Error("no database")',
    'handler.ts': 'export default { preHandler: 1 }'
  })
  const at = (module: string) => `services: { any: { instances: ["http://127.0.0.1:1"] } }
routes:
  - { name: via, match: { path: /a }, service: any, via: http-proxy, httpProxy: { module: ./${module} } }
`
  for (const [module, why] of [
    ['throws.ts', `module ${join(folder, 'throws.ts')}: no database`],
    ['handler.ts', 'preHandler hook should be a function']
  ] as const) {
    const file = join(folder, `${module}.yaml`)
    writeFileSync(file, at(module))
    const { code, stderr } = await runToEnd(process.execPath, [
      join(import.meta.dirname, '../../app.ts'),
      'check',
      file
    ])
    t.equal(code, 1)
    t.match(stderr, `${file}:3:81: routes[0].httpProxy: ${why}`)
  }
})

t.test('the concerns of the edge apply as on any route', async (t) => {
  const edge = {
    cors: { origin: ['https://app.example.com'] },
    rateLimit: { max: 3, window: '1m' },
    bodyLimit: '10b'
  }
  const { port, log } = await gatewayWith(t, { match: { path: '/api', methods: ['GET', 'POST'] }, edge })
  const origin = 'Origin: https://app.example.com'
  const preflight = await get(port, '/api/7', [origin, 'Access-Control-Request-Method: POST'], 'OPTIONS')
  t.match(
    { status: preflight.status, headers: preflight.headers },
    {
      status: 204,
      headers: { 'access-control-allow-origin': 'https://app.example.com' }
    }
  )
  const { headers } = await get(port, '/api/7', [origin])
  t.match(headers, { 'access-control-allow-origin': 'https://app.example.com', 'ratelimit-remaining': '2' })
  t.equal((await get(port, '/api/7', ['Content-Length: 11'], 'POST')).status, 413)
  const chunked = 'POST /api HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n'
  t.match((await connect(port, `${chunked}b\r\nhello world\r\n0\r\n\r\n`).closed).text, /^HTTP\/1\.1 413 /)
  t.equal((await get(port, '/api/7')).status, 429)
  t.equal((await get(port, '/api/7', [], 'DELETE')).status, 405)
  t.match(
    log.filter(({ msg }) => msg === 'request').map(({ route, status }) => `${route as string} ${status as number}`),
    ['via 204', 'via 200', 'via 413', 'via 413', 'via 429', 'null 405']
  )
})

t.test('a Location without a host gets back the removed path', async (t) => {
  const service = await startService((_request, response) => response.writeHead(302, { location: '/v2/next' }).end())
  t.teardown(service.close)
  const services = { any: { instances: [service.url] } }
  for (const [more, location] of [
    [{}, '/api/next'],
    [{ internalRewriteLocationHeader: false }, '/v2/next']
  ] as const) {
    const { port } = await gatewayWith(
      t,
      { match: { path: '/api' }, httpProxy: { rewritePrefix: '/v2', ...more } },
      { services }
    )
    t.equal((await get(port, '/api/7')).headers.location, location)
  }
})

t.test('no WebSocket handshake bypasses the mesh', async (t) => {
  const { port } = await gatewayWith(t, { match: { path: '/api' } })
  const upgrade = [
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='
  ]
  const client = connect(port, `GET /api HTTP/1.1\r\nHost: h\r\n${upgrade.join('\r\n')}\r\n\r\n`)
  t.match((await client.closed).text, /^HTTP\/1\.1 403 [\s\S]*JW_UPGRADE_REFUSED/)
})

t.test('routes work below a prefix of an embedding server', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const config = configOf({
    services: { any: { instances: [service.url] } },
    routes: [
      { name: 'same', match: { path: '/same' }, service: 'any', via: 'http-proxy' },
      {
        name: 'other',
        match: { path: '/users/:id' },
        service: 'any',
        via: 'http-proxy',
        httpProxy: { rewritePrefix: '/v2/:id' }
      }
    ]
  })
  const server = Fastify()
  t.teardown(() => server.close())
  await server.register(gateway, { ...config, prefix: '/bff' })
  await server.listen({ host: '127.0.0.1', port: 0 })
  const { port } = server.server.address() as { port: number }
  t.equal((await ask(port, '/bff/same/7?a')).url, '/bff/same/7?a', 'the URL is the same as over the bridge')
  t.equal((await ask(port, '/bff/users/7?a')).url, '/v2/7?a')
})

t.test('routes, explain and the admin port show via http-proxy', async (t) => {
  const file = join(t.testdir({}), 'gateway.yaml')
  const config = {
    services: { any: { instances: ['http://127.0.0.1:1'] } },
    routes: [
      {
        name: 'via',
        match: { path: '/u/:id' },
        service: 'any',
        via: 'http-proxy',
        httpProxy: { rewritePrefix: '/v2/:id' }
      }
    ]
  }
  writeFileSync(file, JSON.stringify(config))
  const { server, close } = await startGateway({ ...config, admin: { port: 0 } })
  t.teardown(close)
  t.match((await server.admin!.inject('/admin/routes')).json(), [{ name: 'via', via: 'http-proxy' }])
  const explained = await server.admin!.inject('/admin/explain?path=/u/7')
  t.match(explained.json(), { route: 'via', via: 'http-proxy', rewritePrefix: '/v2/:id' })
  const said = async (...args: string[]) =>
    (await runToEnd(process.execPath, [join(import.meta.dirname, '../../app.ts'), ...args])).stdout
  t.match(await said('routes', file), /^via .* any via http-proxy /m)
  const text = await said('explain', file, 'GET', '/u/7')
  t.match(text, /^ {2}via {7}http-proxy$/m)
  t.match(text, /^ {2}forwards {2}\/v2\/:id and the rest of the path$/m)
})
