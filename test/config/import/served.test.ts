/** Imported files of other gateways, started, with requests to them. */
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { imported } from '../../../config/import/index.ts'
import { get, startEcho, startGateway, startService } from '../../helpers/gateway.ts'

const echo = await startEcho()
t.teardown(echo.close)
const failing = await startService((_request, response) => response.writeHead(500).end('secret of the service'))
t.teardown(failing.close)

async function started(t: Test, gateway: string, file: string) {
  const { yaml, files } = imported(gateway, file)
  const folder = t.testdir(Object.fromEntries(files))
  const inFolder = [...files.keys()].reduce((text, name) => text.replaceAll(name, join(folder, name)), yaml)
  const { port, close } = await startGateway(`admin: false\n${inFolder}`)
  t.teardown(close)
  return async (path: string, headers: Record<string, string> = {}, method = 'GET', body?: string) => {
    const fields = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
    if (body === undefined) return get(port, path, fields, method)
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers, body })
    return { status: response.status, headers: Object.fromEntries(response.headers), body: await response.text() }
  }
}

const post = { 'content-type': 'application/json' }

t.test('Traefik: redirects, changes of the path, errors, limits', async (t) => {
  const ask = await started(
    t,
    'traefik',
    `
http:
  routers:
    old: { rule: "Host(\`old.example\`)", service: echo, middlewares: [moved] }
    api: { rule: "Host(\`new.example\`) && PathPrefix(\`/api\`)", service: echo, middlewares: [versions, limit, few] }
    bad: { rule: "Host(\`new.example\`) && PathPrefix(\`/bad\`)", service: failing, middlewares: [pages] }
  middlewares:
    moved: { redirectRegex: { regex: "^https?://old\\\\.example/(.*)", replacement: "https://new.example/\${1}" } }
    versions: { stripPrefixRegex: { regex: ["/api/v[0-9]+/"] } }
    limit: { rateLimit: { average: 1, period: 1h, burst: 4 } }
    few: { inFlightReq: { amount: 10 } }
    pages: { errors: { status: ["500-599"], service: echo, query: /x } }
  services:
    echo: { loadBalancer: { servers: [{ url: "${echo.url}" }] } }
    failing: { loadBalancer: { servers: [{ url: "${failing.url}" }] } }
`
  )
  t.match(await ask('/a/b?c=d', { host: 'old.example' }), {
    status: 307,
    headers: { location: 'https://new.example/a/b?c=d' }
  })
  t.match(JSON.parse((await ask('/api/v12/orders?q', { host: 'new.example' })).body), { url: '/orders?q' })
  t.match(JSON.parse((await ask('/api/v1', { host: 'new.example' })).body), { url: '/' })
  t.match(JSON.parse((await ask('/api/x', { host: 'new.example' })).body), { url: '/api/x' })
  t.equal((await ask('/api/x', { host: 'new.example' })).status, 200)
  t.equal((await ask('/api/x', { host: 'new.example' })).status, 429)
  const { status, body } = await ask('/bad', { host: 'new.example' })
  t.equal(status, 500)
  t.notMatch(body, 'secret')
})

t.test('Kong: validation, a limit of two windows, termination', async (t) => {
  const schema = JSON.stringify({ type: 'object', required: ['a'], properties: { a: { type: 'integer' } } })
  const ask = await started(
    t,
    'kong',
    `
services:
  - name: a
    url: ${echo.url}
    routes:
      - name: checked
        paths: [/checked]
        plugins: [{ name: request-validator, config: { version: draft4, body_schema: '${schema}', parameter_schema: [{ in: query, name: n, required: true, schema: '{"type":"integer"}' }] } }]
      - { name: limited, paths: [/limited], plugins: [{ name: rate-limiting-advanced, config: { limit: [2, 3], window_size: [3600, 7200], identifier: ip } }] }
      - { name: gone, paths: [/gone], plugins: [{ name: request-termination, config: { status_code: 410, message: moved } }] }
`
  )
  t.equal((await ask('/checked?n=1', post, 'POST', '{"a":1}')).status, 200)
  for (const [path, body] of [
    ['/checked?n=1', '{"a":"x"}'],
    ['/checked?n=x', '{"a":1}'],
    ['/checked', '{"a":1}']
  ] as const)
    t.equal((await ask(path, post, 'POST', body)).status, 400, `${path} ${body}`)
  t.equal((await ask('/checked?n=1', { 'content-type': 'text/plain' }, 'POST', 'a')).status, 415)
  t.strictSame(
    [(await ask('/limited')).status, (await ask('/limited')).status, (await ask('/limited')).status],
    [200, 200, 429]
  )
  t.match(await ask('/gone'), { status: 410, body: '{"message":"moved"}' })
})

t.test('APISIX: referers, mocks, faults, redirects, cross-site requests', async (t) => {
  const node = `{ "${echo.url.slice(7)}": 1 }`
  const ask = await started(
    t,
    'apisix',
    `
routes:
  - { id: allow, uri: /allow, upstream: { nodes: ${node} }, plugins: { referer-restriction: { whitelist: [a.example, "*.b.example"] } } }
  - { id: deny, uri: /deny, upstream: { nodes: ${node} }, plugins: { referer-restriction: { blacklist: ["*.b.example"], bypass_missing: true } } }
  - { id: mock, uri: /mock, plugins: { mocking: { response_status: 201, response_example: '{"a":1}' } } }
  - { id: fault, uri: /fault, upstream: { nodes: ${node} }, plugins: { fault-injection: { abort: { http_status: 418 } } } }
  - { id: old, uri: /old/*, plugins: { redirect: { regex_uri: ["^/old/(.*)", "/new/$1"], ret_code: 301 } } }
  - { id: form, uri: /form, upstream: { nodes: ${node} }, plugins: { csrf: { key: k } } }
`
  )
  const cases: [path: string, referer: string | null, status: number][] = [
    ['/allow', 'https://a.example/page', 200],
    ['/allow', 'http://x.b.example:8080/', 200],
    ['/allow', 'https://b.example/', 403],
    ['/allow', 'https://evil.example/https://a.example/', 403],
    ['/allow', 'https://a.example.evil.example/', 403],
    ['/allow', null, 403],
    ['/deny', 'https://x.b.example/', 403],
    ['/deny', 'https://a.example/', 200],
    ['/deny', null, 200]
  ]
  for (const [path, referer, status] of cases)
    t.equal((await ask(path, referer === null ? {} : { referer })).status, status, `${path} ${referer}`)
  t.match(await ask('/mock'), { status: 201, body: '{"a":1}', headers: { 'content-type': 'application/json' } })
  t.equal((await ask('/fault')).status, 418)
  t.match(await ask('/old/a/b?q'), { status: 301, headers: { location: '/new/a/b' } })
  t.equal((await ask('/form', { 'sec-fetch-site': 'cross-site', 'content-length': '0' }, 'POST')).status, 403)
  t.equal((await ask('/form', { 'sec-fetch-site': 'same-origin', 'content-length': '0' }, 'POST')).status, 200)
})

t.test('KrakenD: keys with roles, bots, schemas, a call that uses the response of another', async (t) => {
  const users = await startService((request, response) => {
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify(request.url === '/orders/7' ? { owner: { id: 'ann' } } : { path: request.url }))
  })
  t.teardown(users.close)
  const keys = [
    { key: 'one', roles: ['admin'], '@description': 'one' },
    { key: 'two', roles: ['user'], '@description': 'two' }
  ]
  const backend = [{ url_pattern: '/x' }]
  const ask = await started(
    t,
    'krakend',
    JSON.stringify({
      version: 3,
      host: [echo.url],
      extra_config: {
        'auth/api-keys': { identifier: 'X-Key', keys },
        'security/bot-detector': { patterns: ['(curl|wget).*'], allow: ['curl/good'] }
      },
      endpoints: [
        { endpoint: '/admin', backend, extra_config: { 'auth/api-keys': { roles: ['admin'] } } },
        {
          endpoint: '/orders',
          method: 'POST',
          backend: [{ url_pattern: '/x', method: 'POST' }],
          extra_config: { 'validation/json-schema': { type: 'object', required: ['a'] } }
        },
        {
          endpoint: '/page/{id}',
          extra_config: { proxy: { sequential: true } },
          backend: [
            { host: [users.url], url_pattern: '/orders/{id}', group: 'order' },
            { host: [users.url], url_pattern: '/users/{resp0_owner.id}', group: 'user' }
          ]
        }
      ]
    })
  )
  const status = async (key?: string) => (await ask('/admin', key === undefined ? {} : { 'x-key': key })).status
  t.strictSame([await status(), await status('three'), await status('two'), await status('one')], [401, 401, 403, 200])
  t.equal((await ask('/page/7', { 'user-agent': 'curl/8' })).status, 403)
  t.equal((await ask('/page/7', { 'user-agent': 'curl/good' })).status, 200)
  t.equal((await ask('/orders', post, 'POST', '{"a":1}')).status, 200)
  t.equal((await ask('/orders', post, 'POST', '{}')).status, 400)
  t.strictSame(JSON.parse((await ask('/page/7')).body), {
    order: { owner: { id: 'ann' } },
    user: { path: '/users/ann' }
  })
})

t.test('Traefik: priorities, hosts by expressions, a prefix that replaces another, paths of servers', async (t) => {
  const admin = await startService((_request, response) => response.end('admin'))
  t.teardown(admin.close)
  const ask = await started(
    t,
    'traefik',
    `
http:
  routers:
    rest: { rule: "PathPrefix(\`/\`)", service: echo, priority: 1 }
    admin: { rule: "HostRegexp(\`^(admin|root)\\\\.example$\`) && PathPrefix(\`/\`)", service: admin }
    users: { rule: "HostRegexp(\`{tenant:.+}.example\`) && Path(\`/u/{id:[0-9]+}\`)", service: echo, middlewares: [strip, add] }
  middlewares:
    strip: { stripPrefix: { prefixes: [/u] } }
    add: { addPrefix: { prefix: /v2/users } }
  services:
    echo: { loadBalancer: { servers: [{ url: "${echo.url}/ignored" }] } }
    admin: { loadBalancer: { servers: [{ url: "${admin.url}" }] } }
`
  )
  const urlOf = async (path: string, host: string) => JSON.parse((await ask(path, { host })).body).url as string
  t.match(await ask('/x', { host: 'admin.example' }), { status: 200, body: 'admin' })
  t.match(await ask('/x', { host: 'root.example' }), { status: 200, body: 'admin' })
  t.equal(await urlOf('/x', 'rooted.example'), '/x')
  t.equal(await urlOf('/u/7', 'a.b.example'), '/v2/users/7')
  t.equal(await urlOf('/u/x', 'a.b.example'), '/u/x')
  t.equal(await urlOf('/u/7', 'example'), '/u/7')
})

t.test('Kong: expressions, versions in paths, other services by header, triggers, OpenAPI documents', async (t) => {
  const east = await startService((_request, response) => response.end('east'))
  t.teardown(east.close)
  const { port: eastPort } = new URL(east.url)
  const spec = JSON.stringify({
    openapi: '3.0.3',
    info: { title: 'items', version: '1' },
    servers: [{ url: 'https://a.example/other' }],
    paths: {
      '/doc/items': {
        get: {
          parameters: [{ in: 'query', name: 'n', required: true, schema: { type: 'integer' } }],
          responses: { 200: { description: 'ok' } }
        }
      }
    }
  })
  const plugin = (name: string, config: object) => ({ plugins: [{ name, config }] })
  const rules = [{ condition: { 'x-location': 'us' }, upstream_name: 'east' }]
  const routes = [
    { name: 'versions', paths: ['~/v\\d+/users'], strip_path: false },
    { name: 'regional', paths: ['/regional'], ...plugin('route-by-header', { rules }) },
    {
      name: 'stop',
      paths: ['/stop'],
      ...plugin('request-termination', { trigger: 'x-stop', status_code: 410, body: 'gone' })
    },
    { name: 'doc', paths: ['/doc'], ...plugin('oas-validation', { api_spec: spec, api_spec_encoded: false }) }
  ]
  const ask = await started(
    t,
    'kong',
    JSON.stringify({
      services: [
        { name: 'a', url: echo.url, routes },
        {
          name: 'b',
          url: echo.url,
          routes: [{ name: 'e', expression: 'http.path ^= "/e" && http.headers.x_beta == "1"', strip_path: true }]
        }
      ],
      upstreams: [{ name: 'east', targets: [{ target: `127.0.0.1:${eastPort}` }] }]
    })
  )
  const urlOf = async (path: string, headers = {}) => JSON.parse((await ask(path, headers)).body).url as string
  t.equal(await urlOf('/v12/users/7'), '/v12/users/7')
  t.equal(await urlOf('/v1/users'), '/v1/users')
  t.equal((await ask('/vx/users')).status, 404)
  t.equal((await ask('/regional/x', { 'x-location': 'us' })).body, 'east')
  t.equal(await urlOf('/regional/x', { 'x-location': 'eu' }), '/x')
  t.match(await ask('/stop/x', { 'x-stop': '' }), { status: 410, body: 'gone' })
  t.match(await ask('/stop?x-stop=1&y'), { status: 410, body: 'gone' })
  t.equal((await ask('/stop?x-stop=1', { 'x-stop': '1' })).status, 410)
  t.equal(await urlOf('/stop/x?y'), '/x?y')
  t.equal((await ask('/e/x')).status, 404)
  t.equal(await urlOf('/e/x', { 'x-beta': '1' }), '/x')
  t.equal(await urlOf('/doc/items?n=1'), '/items?n=1')
  t.equal((await ask('/doc/items?n=a')).status, 400)
  t.equal((await ask('/doc/none')).status, 404)
})

t.test('APISIX: traffic by conditions and weights, a workflow, priorities', async (t) => {
  const next = await startService((_request, response) => response.end('next'))
  t.teardown(next.close)
  const at = (url: string) => ({ nodes: { [url.slice(7)]: 1 } })
  const rules = [
    { match: [{ vars: [['http_release', '==', 'next']] }], weighted_upstreams: [{ upstream: at(next.url) }] },
    { weighted_upstreams: [{ upstream: at(next.url), weight: 0 }, { weight: 1 }] }
  ]
  const steps = [{ case: [['arg_old', '==', '1']], actions: [['return', { code: 410 }]] }]
  const ask = await started(
    t,
    'apisix',
    JSON.stringify({
      routes: [
        { id: 'split', uri: '/split', upstream: at(echo.url), plugins: { 'traffic-split': { rules } } },
        { id: 'flow', uri: '/flow', upstream: at(echo.url), plugins: { workflow: { rules: steps } } },
        { id: 'rest', uri: '/*', priority: 9, upstream: at(next.url) },
        { id: 'deep', uri: '/deep/*', upstream: at(echo.url) }
      ]
    })
  )
  t.equal((await ask('/split', { release: 'next' })).body, 'next')
  t.match((await ask('/split', { release: 'old' })).body, '"url":"/split"')
  t.equal((await ask('/flow?old=1')).status, 410)
  t.match((await ask('/flow?old=2')).body, '"url":"/flow?old=2"')
  t.match((await ask('/deep/x')).body, '"url":"/deep/x"')
  t.equal((await ask('/other')).body, 'next')
})

t.test('KrakenD: queries of backends, headers of calls, static data, changes of merged responses', async (t) => {
  const items = await startService((request, response) => {
    const failed = request.url?.startsWith('/fails') === true
    response.writeHead(failed ? 500 : 200, { 'content-type': 'application/json' })
    response.end(JSON.stringify({ data: { list: [{ a: 1 }], token: request.headers.authorization ?? null } }))
  })
  t.teardown(items.close)
  const call = (url_pattern: string, more: object = {}) => ({ host: [items.url], url_pattern, target: 'data', ...more })
  const ask = await started(
    t,
    'krakend',
    JSON.stringify({
      version: 3,
      host: [echo.url],
      timeout: '1m30s',
      endpoints: [
        {
          endpoint: '/one/{id}',
          input_headers: ['X-A'],
          input_query_strings: ['page'],
          backend: [
            {
              url_pattern: '/items?user={id}',
              extra_config: {
                'modifier/martian': { 'header.Modifier': { scope: ['request'], name: 'X-B', value: '{b}' } }
              }
            }
          ]
        },
        {
          endpoint: '/all',
          input_headers: ['Authorization'],
          extra_config: { proxy: { flatmap_filter: [{ type: 'move', args: ['one.list.*.a', 'one.list.*.b'] }] } },
          backend: [call('/x', { group: 'one' }), call('/y', { group: 'two', allow: ['token'] })]
        }
      ]
    })
  )
  const one = JSON.parse((await ask('/one/7?page=2&other=3', { 'x-a': '1', 'x-c': '2' })).body)
  t.equal(one.url, '/items?page=2&user=7')
  t.match(one.headers, { 'x-a': '1', 'x-b': '{b}', 'x-c': undefined })
  t.strictSame(JSON.parse((await ask('/all', { authorization: 'Bearer t' })).body), {
    one: { list: [{ b: 1 }], token: 'Bearer t' },
    two: { token: 'Bearer t' }
  })
})
