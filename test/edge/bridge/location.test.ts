import type { Test } from 'tap'
import t from 'tap'
import { ask, configOf, get, startEcho, startGateway, startService } from '../../helpers/gateway.ts'

/** A gateway in front of a service that responds with the Location of the query. */
async function relocating(t: Test, route: object) {
  const service = await startService((request, response) => {
    const to = decodeURIComponent(request.url!.split('to=')[1] ?? '').replace('INSTANCE', `${request.socket.localPort}`)
    response.writeHead(request.method === 'POST' ? 201 : 302, { location: to, 'content-location': to }).end()
  })
  t.teardown(service.close)
  const services = { any: { instances: [service.url] } }
  const { port, close } = await startGateway({ services, routes: [{ name: 'any', service: 'any', ...route }] })
  t.teardown(close)
  return async (from: string, to: string) => {
    const { headers } = await get(port, `${from}?to=${encodeURIComponent(to)}`, ['Host: Gate:81'])
    t.equal(headers['content-location'], headers.location)
    return headers.location
  }
}

t.test('a stripped prefix is added to Location', async (t) => {
  const locate = await relocating(t, { match: { path: '/api/orders' }, path: { strip: '/api' } })
  const expected: [string, string][] = [
    ['/orders/7', '/api/orders/7'],
    ['/orders?a=/b#c', '/api/orders?a=/b#c'],
    ['/', '/api/'],
    ['/apiary', '/api/apiary'],
    ['http://gate:81/orders/7', 'http://gate:81/api/orders/7'],
    ['https://gate:81/orders/7?x', 'https://gate:81/api/orders/7?x'],
    ['//gate:81/orders/7', '//gate:81/api/orders/7'],
    ['http://gate:81', 'http://gate:81/api'],
    ['http://127.0.0.1:INSTANCE/orders/7', '/api/orders/7'],
    ['http://127.0.0.1:INSTANCE', '/api/'],
    // Already correct, or of another origin.
    ['/api/orders/7', '/api/orders/7'],
    ['/api', '/api'],
    ['7', '7'],
    ['../x', '../x'],
    ['?page=2', '?page=2'],
    ['#part', '#part'],
    ['http://gate/orders/7', 'http://gate/orders/7'],
    ['https://login.example.com/orders/7', 'https://login.example.com/orders/7'],
    ['//evil.example.com/orders', '//evil.example.com/orders'],
    ['http://gate:81@evil/orders', 'http://gate:81@evil/orders'],
    ['mailto:a@gate', 'mailto:a@gate'],
    ['app:/orders/7', 'app:/orders/7']
  ]
  for (const [to, exposed] of expected) {
    const location = await locate('/api/orders', to)
    t.equal(location, exposed.replace('INSTANCE', ''), to)
  }
})

t.test('Location is changed for the X-Forwarded-Host of a trusted proxy, and for a default port', async (t) => {
  const service = await startService((request, response) => {
    response.writeHead(302, { location: decodeURIComponent(request.url!.split('to=')[1]!) }).end()
  })
  t.teardown(service.close)
  const config = {
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'any', match: { path: '/api' }, service: 'any', path: { strip: '/api' } }]
  }
  const behind = await startGateway({ ...config, listen: { trustProxy: ['127.0.0.1'] } })
  t.teardown(behind.close)
  const open = await startGateway(config)
  t.teardown(open.close)
  const locate = async (port: number, to: string, host = 'gate') => {
    const headers = [`Host: ${host}`, 'X-Forwarded-Host: Shop.example.com']
    return (await get(port, `/api/a?to=${encodeURIComponent(to)}`, headers)).headers.location
  }
  t.equal(await locate(behind.port, 'https://shop.example.com/7'), 'https://shop.example.com/api/7')
  t.equal(await locate(behind.port, 'https://shop.example.com:443/7'), 'https://shop.example.com:443/api/7')
  t.equal(
    await locate(open.port, 'https://shop.example.com/7'),
    'https://shop.example.com/7',
    'the X-Forwarded-Host of an untrusted proxy is ignored'
  )
  t.equal(await locate(open.port, 'http://gate:80/7'), 'http://gate:80/api/7')
  t.equal(await locate(open.port, 'http://gate/7', 'gate:80'), 'http://gate/api/7')
  t.equal(await locate(open.port, 'https://gate:80/7'), 'https://gate:80/7')
})

t.test('a rewritten prefix is changed back, other paths are unchanged', async (t) => {
  const locate = await relocating(t, { match: { path: '/old' }, path: { rewrite: { prefix: '/new/a/' } } })
  t.equal(await locate('/old', '/new/a/7'), '/old/7')
  t.equal(await locate('/old', '/new/a'), '/old')
  t.equal(await locate('/old', '/new/ab'), '/new/ab')
  t.equal(await locate('/old', '/login'), '/login')
  t.equal(await locate('/old', '/old/7'), '/old/7')
})

t.test('without a path change in the request, Location is unchanged', async (t) => {
  const locate = await relocating(t, { match: { path: '/orders' } })
  t.equal(await locate('/orders', 'http://gate:81/orders/7'), 'http://gate:81/orders/7')
  t.equal(await locate('/orders', '/7'), '/7')
})

t.test('the Host in Location is that of the client, or of the instance if edge.host is upstream', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const routes = [
    { name: 'kept', match: { path: '/kept' } },
    { name: 'own', match: { path: '/own' }, edge: { host: 'upstream' } }
  ].map((route) => ({ ...route, service: 'any' }))
  const gateway = await startGateway({ services: { any: { instances: [echo.url] } }, routes })
  t.teardown(gateway.close)
  t.equal((await ask(gateway.port, '/kept', ['Host: gate'])).headers.host, 'gate')
  const own = await ask(gateway.port, '/own', ['Host: gate'])
  t.equal(own.headers.host, new URL(echo.url).host)
  t.equal(own.headers['x-forwarded-host'], 'gate')
  t.equal(own.rawHeaders.filter((name) => name.toLowerCase() === 'host').length, 1)

  const locate = await relocating(t, { match: { path: '/orders' }, edge: { host: 'upstream' } })
  t.equal(await locate('/orders', 'http://127.0.0.1:INSTANCE/orders/7?x'), '/orders/7?x')
  t.equal(await locate('/orders', 'http://evil/orders'), 'http://evil/orders')
})

t.test('edge.host can be a fixed host, by route and by default', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const routes = [
    { name: 'own', match: { path: '/own' }, edge: { host: 'orders.internal:8080' } },
    { name: 'kept', match: { path: '/kept' }, edge: { host: 'preserve' } },
    { name: 'rest', match: { path: '/' } },
    { name: 'proxy', match: { path: '/proxy' }, via: 'http-proxy' }
  ].map((route) => ({ ...route, service: 'any' }))
  const edge = { host: 'shop.internal' }
  const gateway = await startGateway({ edge, services: { any: { instances: [echo.url] } }, routes })
  t.teardown(gateway.close)
  for (const [path, host] of [
    ['/own', 'orders.internal:8080'],
    ['/kept', 'gate'],
    ['/', 'shop.internal'],
    ['/proxy', 'shop.internal']
  ] as const) {
    const seen = await ask(gateway.port, path, ['Host: gate'])
    t.strictSame([seen.headers.host, seen.headers['x-forwarded-host']], [host, 'gate'], path)
    t.equal(seen.rawHeaders.filter((name) => name.toLowerCase() === 'host').length, 1)
  }
  const locate = await relocating(t, { match: { path: '/orders' }, edge: { host: 'Orders.internal' } })
  t.equal(await locate('/orders', 'https://orders.internal:443/orders/7?x'), '/orders/7?x')
  t.equal(await locate('/orders', 'http://orders.internal.evil/a'), 'http://orders.internal.evil/a')
  for (const host of ['upstrem', 'a b', 'http://a.b', 'a.b/c', 'a.b\r\nx: y', 'orders', '']) {
    t.throws(() => configOf({ edge: { host }, services: {}, routes: [] }), /edge.host: expected/, host)
  }
})

t.test('X-Forwarded-Prefix has the stripped prefix; a client’s own is ignored', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const routes = [
    { name: 'strip', match: { path: '/api/orders' }, path: { strip: '/api/' } },
    { name: 'root', match: { path: '/root' }, path: { rewrite: { prefix: '/' } } },
    { name: 'rewrite', match: { path: '/old' }, path: { rewrite: { prefix: '/new' } } },
    { name: 'plain', match: { path: '/plain' } },
    { name: 'unicode', match: { path: '/caf\u00e9' }, path: { strip: '/caf\u00e9' } }
  ].map((route) => ({ ...route, service: 'any' }))
  const start = async (listen: object) => {
    const gateway = await startGateway({ listen, services: { any: { instances: [echo.url] } }, routes })
    t.teardown(gateway.close)
    return async (path: string, ...before: string[]) => {
      const lines = before.map((prefix) => `X-Forwarded-Prefix: ${prefix}`)
      const { headers, rawHeaders } = await ask(gateway.port, path, lines)
      t.ok(
        rawHeaders.filter((name) => name.toLowerCase() === 'x-forwarded-prefix').length <= 1,
        'the service gets at most one X-Forwarded-Prefix'
      )
      return headers['x-forwarded-prefix']
    }
  }
  const prefix = await start({})
  t.equal(await prefix('/api/orders/7', '/outer'), '/api')
  t.equal(await prefix('/root/7', '/outer'), '/root')
  t.equal(await prefix('/old/7', '/outer'), undefined)
  t.equal(await prefix('/plain', '/outer'), undefined)
  t.equal(await prefix('/caf%C3%A9/7', '/outer'), '/caf%C3%A9')
  const behind = await start({ trustProxy: ['127.0.0.1'], trustHeaders: ['x-forwarded-prefix'] })
  t.equal(await behind('/api/orders/7', '/outer'), '/outer/api', 'the prefixes stripped at all hops are joined')
  t.equal(await behind('/api/orders/7', '/outer/'), '/outer/api')
  t.equal(await behind('/api/orders/7', '/'), '/api')
  t.equal(await behind('/api/orders/7', '/a, /b'), '/a/b/api')
  t.equal(await behind('/api/orders/7', '/a', '/b'), '/a/b/api')
  t.equal(await behind('/api/orders/7'), '/api')
  t.equal(await behind('/plain', '/outer'), '/outer')
})

t.test('the Location of a service that uses the whole prefix is unchanged', async (t) => {
  const service = await startService((request, response) => {
    const prefix = request.headers['x-forwarded-prefix'] as string
    response.writeHead(302, { location: request.url === '/heeds' ? `${prefix}/7` : '/7' }).end()
  })
  t.teardown(service.close)
  const gateway = await startGateway({
    listen: { trustProxy: ['127.0.0.1'], trustHeaders: ['x-forwarded-prefix'] },
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'any', match: { path: '/api' }, service: 'any', path: { strip: '/api' } }]
  })
  t.teardown(gateway.close)
  const outer = ['X-Forwarded-Prefix: /outer']
  t.equal((await get(gateway.port, '/api/heeds', outer)).headers.location, '/outer/api/7')
  t.equal((await get(gateway.port, '/api/ignores', outer)).headers.location, '/api/7', 'the peer adds the rest')
})

t.test('a changed Location never leads to another host', async (t) => {
  const root = await relocating(t, { match: { path: '/' }, path: { rewrite: { prefix: '/v2' } } })
  const own = await relocating(t, { match: { path: '/' }, edge: { host: 'upstream' } })
  const host = (location: string) => new URL(location, 'http://gate/a').host
  for (const [locate, to, exposed] of [
    [root, '/v2//evil.example/x', '/.//evil.example/x'],
    [root, '/v2/\\evil.example', '/./\\evil.example'],
    [root, '/v2/\t/evil.example', '/./\t/evil.example'],
    [own, 'http://127.0.0.1:INSTANCE//evil.example/x?y', '/.//evil.example/x?y'],
    [own, 'http://127.0.0.1:INSTANCE/a//b', '/a//b']
  ] as const) {
    const location = await locate('/a', to)
    t.equal(location, exposed, to)
    t.equal(host(location!), 'gate', to)
  }
})
