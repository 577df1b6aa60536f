import t from 'tap'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { get, startEcho, startGateway, startService } from '../helpers/gateway.ts'

const origin = 'https://app.example.com'
const asks = (method: string, from = origin) => [`Origin: ${from}`, `Access-Control-Request-Method: ${method}`]

t.test('preflights go to the route of the requested method', async (t) => {
  const echo = await startEcho()
  const cors = (name: string) => ({ cors: { origin: [`https://${name}.example.com`] } })
  const gateway = await startGateway({
    services: { echo: { instances: [echo.url] } },
    routes: [
      { name: 'read', match: { path: '/things', methods: ['GET'] }, service: 'echo', edge: cors('app') },
      { name: 'write', match: { path: '/things', methods: ['POST'] }, service: 'echo', edge: cors('app') },
      { name: 'admin', match: { path: '/things', methods: ['DELETE'] }, service: 'echo', edge: cors('admin') },
      { name: 'open', match: { path: '/open', methods: ['GET'] }, service: 'echo' },
      { name: 'all', match: { path: '/all' }, service: 'echo', edge: cors('app') }
    ]
  })
  t.teardown(gateway.close)
  t.teardown(echo.close)
  const preflight = (path: string, headers: string[]) => get(gateway.port, path, headers, 'OPTIONS')

  for (const [method, allowed] of [
    ['GET', 'GET, HEAD'],
    ['POST', 'POST']
  ] as const) {
    const { status, headers } = await preflight('/things/1', asks(method))
    t.equal(status, 204)
    t.equal(headers['access-control-allow-methods'], allowed)
    t.equal(headers['access-control-allow-origin'], origin)
  }
  const stranger = await preflight('/things', asks('DELETE'))
  t.equal(stranger.status, 204)
  t.equal(stranger.headers['access-control-allow-origin'], undefined, 'each route has its own origins')
  const admin = await preflight('/things', asks('DELETE', 'https://admin.example.com'))
  t.equal(admin.headers['access-control-allow-origin'], 'https://admin.example.com')

  for (const headers of [[], [`Origin: ${origin}`], ['Access-Control-Request-Method: GET'], asks('PATCH')]) {
    const refused = await preflight('/things', headers)
    t.equal(refused.status, 405, headers.join())
    t.equal(refused.headers.allow, 'DELETE, GET, HEAD, POST', 'OPTIONS is served for preflights only')
  }
  t.equal((await preflight('/open', asks('GET'))).status, 405, 'a route without CORS has no preflight')
  t.equal((await preflight('/all', [])).status, 200, 'a service that takes OPTIONS gets the request')
  t.equal((await preflight('/all', asks('PUT'))).status, 204)
})

for (const protocol of protocols) {
  t.test(`a preflight for a method that no route has gets the CORS of the only route over ${protocol}`, async (t) => {
    const echo = await startEcho()
    t.teardown(echo.close)
    const edge = { cors: { origin: [origin] } }
    const methods = ['GET', 'PUT']
    const gateway = await startGateway({
      listen: listenFor(t, protocol),
      services: { echo: { instances: [echo.url] } },
      routes: [
        { name: 'one', match: { path: '/one', methods }, service: 'echo', edge },
        { name: 'beta', match: { path: '/beta', methods, headers: { 'x-beta': '1' } }, service: 'echo', edge },
        { name: 'read', match: { path: '/two', methods: ['GET'] }, service: 'echo', edge },
        { name: 'write', match: { path: '/two', methods: ['PUT'] }, service: 'echo', edge },
        { name: 'off', match: { path: '/off', methods }, service: 'echo' },
        { name: 'half-read', match: { path: '/half', methods: ['GET'] }, service: 'echo' },
        { name: 'half', match: { path: '/half', methods: ['PUT'] }, service: 'echo', edge }
      ]
    })
    t.teardown(gateway.close)
    const { ask } = anyClient(t, protocol, gateway.port)
    const preflight = (path: string, method: string, from = origin) =>
      ask(path, { method: 'OPTIONS', headers: { origin: from, 'access-control-request-method': method } })
    for (const [path, allowed] of [
      ['/one/x', 'GET, PUT, HEAD'],
      ['/beta', 'GET, PUT, HEAD'],
      ['/half', 'PUT']
    ] as const) {
      for (const method of ['DELETE', 'X-ODD', '__proto__']) {
        const { status, headers } = await preflight(path, method)
        t.equal(status, 204, `${path} ${method}`)
        t.equal(headers['access-control-allow-methods'], allowed)
        t.equal(headers['access-control-allow-origin'], origin)
      }
    }
    const stranger = await preflight('/one', 'DELETE', 'https://evil.example')
    t.equal(stranger.status, 204)
    t.equal(stranger.headers['access-control-allow-origin'], undefined)
    t.equal((await ask('/one', { method: 'DELETE', headers: { origin } })).status, 405)
    t.equal((await preflight('/none', 'DELETE')).status, 404)
    for (const [path, method, named] of [
      ['/two', 'DELETE', 'DELETE of this preflight'],
      ['/off', 'DELETE', 'DELETE of this preflight'],
      ['/off', 'GET', 'OPTIONS'],
      ['/off', 'X-ODD', 'OPTIONS']
    ] as const) {
      const { status, headers, body } = await preflight(path, method)
      t.equal(status, 405, `${path} ${method}`)
      t.equal(headers.allow, 'GET, HEAD, PUT')
      t.equal(headers['access-control-allow-origin'], undefined)
      t.match(JSON.parse(body.toString()), { message: `No route accepts the method ${named} for this path` })
    }
  })
}

t.test('a preflight, which has no other headers, gets the CORS of a route that could match', async (t) => {
  const echo = await startEcho()
  const edge = { cors: { origin: [origin] } }
  const gateway = await startGateway({
    services: { echo: { instances: [echo.url] } },
    routes: [
      { name: 'beta', match: { path: '/beta', headers: { 'x-beta': '1' } }, service: 'echo', edge },
      { name: 'get', match: { path: '/get', methods: ['GET'], headers: { 'x-beta': '1' } }, service: 'echo', edge }
    ]
  })
  t.teardown(gateway.close)
  t.teardown(echo.close)
  for (const [path, method] of [
    ['/beta', 'PUT'],
    ['/get', 'GET']
  ] as const) {
    const requestHeaders = [...asks(method), 'Access-Control-Request-Headers: x-beta']
    const { status, headers } = await get(gateway.port, path, requestHeaders, 'OPTIONS')
    t.equal(status, 204, path)
    t.equal(headers['access-control-allow-origin'], origin)
    t.equal(headers['access-control-allow-headers'], 'x-beta')
    const sent = await get(gateway.port, path, [`Origin: ${origin}`, 'X-Beta: 1'], method)
    t.equal(sent.status, 200)
    t.equal(sent.headers['access-control-allow-origin'], origin)
  }
})

t.test('a page can read the error of a request that was refused by its path', async (t) => {
  const echo = await startEcho()
  const edge = { cors: { origin: [origin], credentials: true } }
  const gateway = await startGateway({
    services: { echo: { instances: [echo.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'echo', edge }]
  })
  t.teardown(gateway.close)
  t.teardown(echo.close)
  for (const path of ['/a%2fb', '/a/../b', '/a;x=1', '/a%5cb', '/a/%2e%2e/b', `/${'a'.repeat(9000)}`]) {
    const { status, headers, body } = await get(gateway.port, path, [`Origin: ${origin}`])
    t.match(status, /^4(00|14)$/, path.slice(0, 20))
    t.match(JSON.parse(body), { code: String })
    t.equal(headers['access-control-allow-origin'], origin, path.slice(0, 20))
    t.equal(headers['access-control-allow-credentials'], 'true')
    t.equal(headers.vary, 'Origin')
    const other = await get(gateway.port, path, ['Origin: https://evil.example'])
    t.equal(other.headers['access-control-allow-origin'], undefined)
    t.equal(other.headers.vary, 'Origin')
    if (status !== 400) continue
    const preflight = await get(gateway.port, path, asks('PUT'), 'OPTIONS')
    t.equal(preflight.status, 204, `the preflight of ${path}`)
    t.equal(
      (await get(gateway.port, path, [], 'OPTIONS')).status,
      400,
      'OPTIONS without Access-Control-Request-Method is no preflight'
    )
  }
})

t.test('CORS headers of a service are replaced on routes with CORS of the gateway', async (t) => {
  const service = await startService((_request, response) => {
    response.setHeader('access-control-allow-origin', '*')
    response.setHeader('access-control-allow-credentials', 'true')
    response.end('data')
  })
  const gateway = await startGateway({
    services: { any: { instances: [service.url] } },
    routes: [
      { name: 'ours', match: { path: '/ours' }, service: 'any', edge: { cors: { origin: [origin] } } },
      { name: 'theirs', match: { path: '/theirs' }, service: 'any' }
    ]
  })
  t.teardown(gateway.close)
  t.teardown(service.close)
  const allowed = async (path: string, from: string) =>
    (await get(gateway.port, path, [`Origin: ${from}`])).headers['access-control-allow-origin']
  t.equal(await allowed('/ours', origin), origin)
  t.equal(await allowed('/ours', 'https://evil.example.com'), undefined)
  t.equal(await allowed('/theirs', 'https://evil.example.com'), '*')
})

t.test('an exact path has precedence over the same prefix', async (t) => {
  const echo = await startEcho()
  const gateway = await startGateway({
    services: { echo: { instances: [echo.url] } },
    routes: [
      { name: 'tree', match: { path: '/a' }, service: 'echo', path: { rewrite: { prefix: '/tree' } } },
      {
        name: 'one',
        match: { path: { exact: '/a' }, methods: ['GET'] },
        service: 'echo',
        path: { rewrite: { prefix: '/one' } }
      }
    ]
  })
  t.teardown(gateway.close)
  t.teardown(echo.close)
  const seen = async (path: string, method = 'GET') =>
    (JSON.parse((await get(gateway.port, path, [], method)).body) as { url: string }).url
  t.equal(await seen('/a'), '/one')
  t.equal(await seen('/a', 'POST'), '/tree', 'the prefix takes the methods that the exact path does not')
  t.equal(await seen('/a/b'), '/tree/b')
})
