// The gateway as a plugin of a server of one's own, under a prefix.
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import Fastify from 'fastify'
import t from 'tap'
import { gateway } from '../../app.ts'
import { http2Client } from '../helpers/edge/direct-clients.ts'
import { configOf, get, startEcho, startService } from '../helpers/gateway.ts'
import { selfSigned } from '../helpers/self-signed.ts'

for (const [prefix, below] of [
  ['/', ''],
  ['/x', '/x'],
  ['/x/', '/x'],
  ['/x/y', '/x/y']
] as const) {
  t.test(`the gateway serves below the prefix ${prefix}`, async (t) => {
    const echo = await startEcho()
    t.teardown(echo.close)
    const config = configOf({
      services: { any: { instances: [echo.url] } },
      routes: [
        { name: 'api', match: { path: '/api' }, service: 'any' },
        { name: 'user', match: { path: '/u/:id' }, service: 'any' }
      ]
    })
    const server = Fastify()
    server.get('/own', async () => 'own')
    server.register(gateway, { ...config, prefix })
    await server.listen({ host: '127.0.0.1', port: 0 })
    t.teardown(() => server.close())
    const { port } = server.server.address() as AddressInfo
    for (const path of ['/api', '/api/orders?q=1', '/u/7']) {
      const { status, body } = await get(port, `${below}${path}`)
      t.equal(status, 200, path)
      t.equal(JSON.parse(body).url, `${below}${path}`)
    }
    t.equal((await get(port, '/own')).body, 'own')
    for (const path of [`${below}/other`, `${below}${below === '' ? '/z' : below}/api`]) {
      t.equal((await get(port, path)).status, 404, path)
    }
  })
}

for (const protocol of ['HTTP/1.1', 'HTTP/2'] as const) {
  t.test(`changes of the path do not count the prefix, over ${protocol}`, async (t) => {
    const service = await startService((request, response) => {
      const location = new URL(request.url!, 'http://h').searchParams.get('location')
      if (location !== null) response.setHeader('location', location)
      response.end(JSON.stringify({ url: request.url, prefix: request.headers['x-forwarded-prefix'] ?? null }))
    })
    t.teardown(service.close)
    const { cert, key } = selfSigned(t)
    const https = { cert: readFileSync(cert), key: readFileSync(key) }
    const root = t.testdir({ files: { 'a.txt': 'file', sub: { 'index.html': 'page' } } })
    const of = (name: string, path: unknown, more: object = {}) => ({
      name,
      match: { path: name === 'plain' ? '/plain' : path },
      service: 'any',
      ...more
    })
    const config = configOf({
      services: { any: { instances: [service.url] } },
      routes: [
        of('plain', null),
        of('strip', '/api', { path: { strip: '/api' } }),
        of('strip-all', '/all', { path: { strip: true } }),
        of('strip-part', '/one/two', { path: { strip: '/one' } }),
        of('strip-parameter', '/t/:tenant/*', { path: { strip: '/t/:tenant' } }),
        of('partial', '/files*', { path: { strip: true } }),
        of('prefix', '/v1', { path: { rewrite: { prefix: '/v2' } } }),
        of('template', '/u/:id/*', { path: { rewrite: { path: '/users/:id/*' } } }),
        of('expression', '/e', { path: { rewrite: { regex: '^/e/(.*)$', to: '/x/$1' } } }),
        { name: 'to', match: { path: '/old' }, redirect: { to: '/new/*' } },
        { name: 'moved', match: { path: '/moved' }, redirect: { to: 'https://h.example' }, path: { strip: '/moved' } },
        { name: 'files', match: { path: '/static' }, files: { root: `${root}/files` }, path: { strip: '/static' } },
        of('proxied', '/proxied', { via: 'http-proxy', httpProxy: { rewritePrefix: '/inner' } })
      ]
    })
    const server = Fastify(protocol === 'HTTP/2' ? ({ http2: true, https } as object) : {})
    server.register(gateway, { ...config, prefix: '/m/n' })
    await server.listen({ host: '127.0.0.1', port: 0 })
    t.teardown(() => server.close())
    const { port } = server.server.address() as AddressInfo
    const ask = protocol === 'HTTP/2' ? await http2Client(t, port) : (path: string) => get(port, path)
    const cases: [path: string, url: string, prefix: string | null][] = [
      ['/plain/7?a=1', '/m/n/plain/7?a=1', null],
      ['/api/orders?a=1', '/orders?a=1', '/m/n/api'],
      ['/api', '/', '/m/n/api'],
      ['/api?a', '/?a', '/m/n/api'],
      ['/%61pi//orders/', '/orders/', '/m/n/api'],
      ['/all/7', '/7', '/m/n/all'],
      ['/one/two/3', '/two/3', '/m/n/one'],
      ['/t/acme/7', '/7', '/m/n/t/acme'],
      ['/files2/7', '/2/7', '/m/n/files'],
      ['/v1/7', '/v2/7', null],
      ['/v1', '/v2', null],
      ['/u/7/a/b?q', '/users/7/a/b?q', null],
      ['/e/1?q', '/x/1?q', null],
      ['/e', '/m/n/e', null],
      ['/proxied/7', '/inner/7', null]
    ]
    for (const [path, url, prefix] of cases) {
      const { status, body } = await ask(`/m/n${path}`)
      t.equal(status, 200, path)
      t.strictSame(JSON.parse(body), { url, prefix }, path)
    }
    const locations: [path: string, location: string][] = [
      ['/api/1?location=/orders/8', '/m/n/api/orders/8'],
      ['/t/acme/1?location=/8', '/m/n/t/acme/8'],
      ['/v1/1?location=/v2/8', '/m/n/v1/8'],
      ['/old/1/2', '/new/1/2'],
      ['/moved/1?a=1', 'https://h.example/1?a=1'],
      ['/static/sub', '/m/n/static/sub/']
    ]
    for (const [path, location] of locations) t.equal((await ask(`/m/n${path}`)).headers.location, location, path)
    t.equal((await ask('/m/n/static/a.txt')).body, 'file')
    t.equal((await ask('/m/n/static/sub/')).body, 'page')
  })
}

t.test('a portal below a prefix', async (t) => {
  const document = {
    openapi: '3.1.0',
    info: { title: 'a', version: '1' },
    paths: { '/api/a': { get: { responses: {} } } }
  }
  const service = await startService((_request, response) => response.end(JSON.stringify(document)))
  t.teardown(service.close)
  const server = Fastify()
  const config = configOf({
    services: { any: { instances: [service.url] } },
    routes: [
      { name: 'api', match: { path: '/api' }, service: 'any' },
      { name: 'docs', match: { path: '/docs' }, portal: { title: 'A', services: { any: { path: '/' } } } }
    ]
  })
  server.register(gateway, { ...config, prefix: '/m' })
  await server.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => server.close())
  const { port } = server.server.address() as AddressInfo
  const found = JSON.parse((await get(port, '/m/docs/openapi.json')).body)
  t.match(found, { servers: [{ url: '/m' }], paths: { '/api/a': { get: {} } } })
  t.match((await get(port, '/m/docs')).body, 'href="/m/docs/openapi.json"')
})
