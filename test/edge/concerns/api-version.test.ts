// Versions of an API: by path, header, query parameter and media type, and the requests of each.
import t from 'tap'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { configOf, startGateway, startService } from '../../helpers/gateway.ts'

const accept = { regex: '^.*; *version="?2"?( *[,;].*)?$' }
const routes = [
  { name: 'path', match: { path: '/v2/orders' }, path: { strip: '/v2' } },
  { name: 'header', match: { path: '/orders', headers: { 'api-version': '2' } } },
  { name: 'query', match: { path: '/orders', query: { version: '2' } } },
  { name: 'type', match: { path: '/orders', headers: { accept } } },
  { name: 'body', match: { path: '/orders', headers: { 'content-type': 'application/vnd.shop.v2+json' } } }
].map((route) => ({ ...route, service: 'two', edge: { apiVersion: '2' } }))
const old = {
  name: 'old',
  match: { path: '/orders' },
  service: 'one',
  edge: { apiVersion: '1', deprecation: { at: '2026-01-01' } }
}

for (const protocol of protocols) {
  t.test(`each dimension selects the version, and its requests are counted, over ${protocol}`, async (t) => {
    const started = ['one', 'two'].map((name) =>
      startService((request, response) => {
        request.resume()
        request.on('end', () => response.end(`${name} ${request.url}`))
      })
    )
    const [one, two] = await Promise.all(started)
    t.teardown(() => Promise.all([one!.close(), two!.close()]))
    const gateway = await startGateway({
      listen: listenFor(t, protocol),
      services: { one: { instances: [one!.url] }, two: { instances: [two!.url] } },
      routes: [
        ...routes,
        old,
        {
          name: 'closed',
          match: { path: '/closed' },
          service: 'one',
          edge: { apiVersion: '1', ipFilter: { deny: ['0.0.0.0/0'] } }
        },
        { name: 'none', match: { path: '/none' }, service: 'one' }
      ]
    })
    t.teardown(gateway.close)
    const { ask } = anyClient(t, protocol, gateway.port)
    const get = async (path: string, headers: Record<string, string> = {}, more: object = {}) =>
      (await ask(path, { headers, ...more })).body.toString()
    t.equal(await get('/v2/orders/7'), 'two /orders/7')
    t.equal(await get('/orders', { 'api-version': '2' }), 'two /orders')
    t.equal(await get('/orders?a=1&version=2'), 'two /orders?a=1&version=2')
    for (const value of ['application/json;version=2', 'text/html, application/json; version="2"; q=0.5'])
      t.equal(await get('/orders', { accept: value }), 'two /orders', value)
    const sent = { method: 'POST', body: '{}' }
    t.equal(await get('/orders', { 'content-type': 'application/vnd.shop.v2+json' }, sent), 'two /orders')
    for (const headers of [{}, { 'api-version': '20' }, { accept: 'application/json;version=20' }] as Record<
      string,
      string
    >[])
      t.equal(await get('/orders', headers), 'one /orders')
    t.equal(await get('/orders?version=1'), 'one /orders?version=1')
    t.match(await ask('/closed'), { status: 403 })
    t.equal(await get('/none'), 'one /none')
    const lines = (await gateway.server.metrics.metrics())
      .split('\n')
      .filter((line) => /^jingwei_edge_(version|deprecated)_requests_total\{/.test(line))
    t.strictSame(lines.sort(), [
      'jingwei_edge_deprecated_requests_total{route="old"} 4',
      'jingwei_edge_version_requests_total{version="1",route="closed"} 1',
      'jingwei_edge_version_requests_total{version="1",route="old"} 4',
      ...['body', 'header', 'path', 'query', 'type'].map(
        (route) => `jingwei_edge_version_requests_total{version="2",route="${route}"} ${route === 'type' ? 2 : 1}`
      )
    ])
  })
}

t.test('explain, groups and faults', async (t) => {
  const { server, close } = await startGateway({
    admin: { port: 0 },
    services: { any: { instances: ['http://127.0.0.1:9'] } },
    groups: { v2: { edge: { apiVersion: 'v2' } } },
    routes: [{ name: 'a', group: 'v2', match: { path: '/a' }, service: 'any' }]
  })
  t.teardown(close)
  const { decisions } = (await server.admin!.inject('/admin/explain?path=/a')).json() as { decisions: string[][] }
  t.strictSame(decisions.find(([name]) => name === 'api-version')?.[1], 'counts the request for version v2')
  const faulty = (version: unknown) => () =>
    configOf({
      services: { any: { instances: ['http://127.0.0.1:9'] } },
      routes: [{ name: 'a', match: { path: '/a' }, service: 'any', edge: { apiVersion: version } }]
    })
  for (const version of [2, '', 'a b', '-1', 'a'.repeat(64), { name: 'a' }])
    t.throws(faulty(version), /edge\.apiVersion: expected/)
  t.doesNotThrow(faulty('2026-11-30'))
})
