/** Import of KrakenD: backends, calls, proxies, headers, limits, TLS and spans. */
import t from 'tap'
import { imported } from '../../../config/import/index.ts'
import { authority, folderFor } from '../../helpers/certificates.ts'
import { loaded } from './loaded.ts'

const host = ['http://a:80']
const all = { input_headers: ['*'], input_query_strings: ['*'] }

const of = (endpoint: object, more: object = {}) =>
  loaded('krakend', JSON.stringify({ version: 3, host, endpoints: [{ endpoint: '/e/{id}', ...endpoint }], ...more }))

t.test('one backend: query, claims, shadows, durations', async (t) => {
  const { config, todo, summary } = of(
    {
      ...all,
      timeout: '1m30s',
      cache_ttl: '1m30s',
      backend: [
        { url_pattern: '/posts?user={id}&kind=a%20b' },
        { host: ['http://copy:80'], extra_config: { proxy: { shadow: true } } }
      ]
    },
    { timeout: '1500ms', dialer_timeout: '1s', idle_connection_timeout: '1m30s' }
  )
  const [route] = config.routes
  t.match(route!.path, { rewrite: { path: '/posts' } })
  t.match(route!.edge.query, { set: { user: '{params.id}', kind: 'a b' } })
  t.match(route!.mesh, { timeout: 90_000, mirror: { service: 'copy' } })
  t.match(route!.edge.headers, { response: { add: { 'cache-control': 'public, max-age=90' } } })
  t.match(config.services.a!.mesh, { timeout: 1500, connectTimeout: 1000, connections: { idle: 90_000 } })
  t.equal(todo, '')
  t.match(summary, 'nothing is left to do by hand')
  t.match(
    of({ ...all, backend: [{ url_pattern: '/u/{JWT.sub}' }] }).todo,
    'url_pattern /u/{JWT.sub}: write path.rewrite'
  )
  t.match(of({ ...all, backend: [{ url_pattern: '/x' }] }, { cache_ttl: '10s' }).config.routes[0]!.edge.headers, {
    response: { add: { 'cache-control': 'public, max-age=10' } }
  })
})

t.test('several backends', async (t) => {
  const { config, summary } = of({
    method: 'POST',
    input_headers: ['Authorization', 'Host', 'X-Forwarded-For', 'Content-Type', 'Connection', 'X-Request-Id'],
    input_query_strings: ['page'],
    extra_config: {
      proxy: {
        flatmap_filter: [
          { type: 'move', args: ['a.*.x', 'a.*.y'] },
          { type: 'del', args: ['b'] },
          { type: 'append', args: ['c', 'd'] }
        ],
        static: { strategy: 'errored', data: { partial: true } }
      }
    },
    backend: [
      { url_pattern: '/one/{id}?full=1', target: 'data.item', allow: ['id', 'user.name'], group: 'g' },
      { url_pattern: '/two', method: 'GET', is_collection: true, group: 'g', mapping: { collection: 'items' } },
      { url_pattern: '/three', method: 'GET', is_collection: true },
      { url_pattern: '/four', method: 'GET', encoding: 'xml', deny: ['a.b'] },
      { url_pattern: '/five', method: 'GET', encoding: 'string', group: 'text' }
    ]
  })
  const compose = config.routes[0]!.compose as unknown as { calls: Record<string, object>; response: object }
  const headers = { authorization: '{headers.authorization}' }
  t.match(compose.calls, {
    g: {
      method: 'POST',
      path: '/one/{params.id}',
      query: { page: '{query.page}', full: '1' },
      headers,
      body: '{body}',
      target: '/data/item',
      pick: ['id', '/user/name'],
      group: 'g'
    },
    call2: { path: '/two', at: '/g/items', body: undefined },
    call3: { group: 'collection' },
    call4: { drop: ['/a/b'] },
    text: { as: 'text', at: '/text/content' }
  })
  t.match(compose.response, {
    edit: [{ move: '/a/*/x', to: '/a/*/y' }, { delete: '/b' }, { append: '/c', to: '/d' }],
    add: [{ when: 'incomplete', value: { partial: true } }]
  })
  t.match(summary, 'encoding xml: calls read JSON')
  const claims = of({
    ...all,
    extra_config: { 'auth/validator': { alg: 'RS256', jwk_url: 'https://id.x/jwks' } },
    backend: [{ url_pattern: '/u/{JWT.sub}' }, { url_pattern: '/b', group: 'b' }]
  })
  t.match(claims.config.routes[0]!.compose!.calls.call1, { path: '/u/{claims/sub}' })
  t.match(claims.summary, 'input_headers "*"')
})

t.test('changes of headers', async (t) => {
  const modifier = (kind: string, more: object) => ({ [kind]: { name: 'X-A', value: '{1}', ...more } })
  const group = {
    'fifo.Group': {
      scope: ['request', 'response'],
      modifiers: [
        modifier('header.Modifier', { scope: ['request', 'response'] }),
        modifier('header.Append', { scope: ['response'], name: 'X-B' }),
        { 'header.Blacklist': { scope: ['request'], names: ['X-Old'] } },
        { 'body.Modifier': { scope: ['request'], body: '' } }
      ]
    }
  }
  const { config, summary } = of({
    ...all,
    backend: [{ url_pattern: '/x', extra_config: { 'modifier/martian': group } }]
  })
  t.match(config.routes[0]!.edge.headers, {
    request: { set: { 'x-a': '{{1}}' }, remove: ['x-old'] },
    response: { set: { 'x-a': '{{1}}' }, append: { 'x-b': '{{1}}' } }
  })
  t.match(summary, 'modifier/martian: body.Modifier: not converted')
  const set = { 'modifier/martian': modifier('header.Modifier', { scope: ['request'] }) }
  const calls = of({
    ...all,
    backend: [
      { url_pattern: '/x', extra_config: set },
      { url_pattern: '/y', group: 'y' }
    ]
  })
  t.match(calls.config.routes[0]!.compose!.calls.call1, { headers: { 'x-a': '{{1}}' } })
})

t.test('limits with fractions, TLS toward backends, spans', async (t) => {
  const limitOf = (limit: object) =>
    of({ ...all, extra_config: { 'qos/ratelimit/router': limit }, backend: [{ url_pattern: '/x' }] })
  t.match(limitOf({ max_rate: 0.5 }).config.routes[0]!.edge.rateLimit, { max: 30, window: 60_000 })
  t.match(limitOf({ max_rate: 0.001 }).config.routes[0]!.edge.rateLimit, { max: 4, window: 3_600_000 })
  t.match(limitOf({ client_max_rate: 5, every: '1m30s' }).config.routes[0]!.edge.rateLimit, { max: 5, window: 90_000 })
  t.match(limitOf({ client_max_rate: 5, strategy: 'param', key: 'id' }).summary, 'strategy param: not converted')
  const proxy = { 'qos/ratelimit/proxy': { max_rate: 0.5, capacity: 2 } }
  const limited = of({ ...all, backend: [{ url_pattern: '/x', extra_config: proxy }] })
  t.match(limited.config.services.a!.mesh.limit, { rate: 30, per: 60_000, burst: 2 })
  const folder = folderFor(t)
  const issuer = authority(folder, 'issuer')
  const { certFile, keyFile } = issuer.issue('gateway', { san: 'DNS:g.x' })
  const { config, todo } = of(
    { ...all, backend: [{ url_pattern: '/x' }] },
    {
      client_tls: {
        ca_certs: [issuer.file],
        client_certs: [{ certificate: certFile, private_key: keyFile }],
        min_version: 'TLS13',
        allow_insecure_connections: true
      },
      extra_config: {
        'telemetry/opentelemetry': {
          service_name: 'edge',
          trace_sample_rate: 0.5,
          exporters: { otlp: [{ name: 'o', host: 'otel', port: 4318, use_http: true }] }
        }
      }
    }
  )
  t.match(config.services.a!.mesh.tls, { ca: issuer.file, cert: certFile, key: keyFile, minVersion: 'TLSv1.3' })
  t.match(config.tracing, {
    serviceName: 'edge',
    sampleRate: 0.5,
    otlp: { http: { endpoint: 'http://otel:4318/v1/traces' } }
  })
  t.match(todo, 'allow_insecure_connections: certificates are always verified')
})

t.test('templates of the flexible configuration are no files', async (t) => {
  t.throws(
    () => imported('krakend', '{ "endpoints": [ {{ range .x }} ] }'),
    /the file is a template: write it out first/
  )
})

t.test('the roles of auth/validator stand beside those of auth/api-keys', async (t) => {
  const { config } = of(
    {
      ...all,
      backend: [{ url_pattern: '/x' }],
      extra_config: {
        'auth/api-keys': { roles: ['admin'] },
        'auth/validator': {
          alg: 'RS256',
          jwk_url: 'https://id.example/keys',
          issuer: 'https://id.example',
          roles: ['staff']
        }
      }
    },
    { extra_config: { 'auth/api-keys': { identifier: 'X-Key', keys: [{ key: 'k', roles: ['admin'] }] } } }
  )
  t.match(config.routes[0]!.edge.acl, { allow: ['admin'], roles: ['staff'] })
})

t.test('users of a file are named at their endpoint, since consumers are for all', async (t) => {
  const extra_config = { 'auth/basic': { htpasswd_path: '/etc/users' } }
  t.match(of({ ...all, backend: [{ url_pattern: '/x' }], extra_config }).todo, 'name them in acl.allowConsumers')
})
