/** Import of APISIX: conditions, references, upstreams, plugins with conditions, certificates. */
import { Buffer } from 'node:buffer'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { imported } from '../../../config/import/index.ts'
import { authority, folderFor } from '../../helpers/certificates.ts'
import { loaded } from './loaded.ts'

const nodes = { 'a:80': 1 }
const route = (more: object) => ({ id: 'r', uri: '/r', upstream: { nodes }, ...more })
const of = (more: object, others: object = {}) => loaded('apisix', JSON.stringify({ routes: [route(more)], ...others }))
const withPlugins = (plugins: object, others: object = {}) => of({ plugins }, others)

t.test('conditions', async (t) => {
  const cases: [vars: unknown, match: object, todo?: RegExp][] = [
    [[['request_method', '==', 'POST']], { methods: ['POST'] }],
    [[['remote_addr', 'ipmatch', ['10.0.0.0/8', '::1']]], { addresses: ['10.0.0.0/8', '::1'] }],
    [[['host', 'in', ['a.x', 'b.x']]], { hosts: ['a.x', 'b.x'] }],
    [
      [
        ['http_a', '==', '1'],
        ['http_a', '==', '2']
      ],
      { headers: { a: '1' } },
      /vars \["http_a","==","2"\]/
    ],
    [[['http_a', '!', '==', '1']], { headers: undefined }, /vars \["http_a","!","==","1"\]/],
    [['OR', ['http_a', '==', '1'], ['http_b', '==', '1']], { headers: { a: '1' } }, /vars "OR"/]
  ]
  for (const [vars, match, todo] of cases) {
    const found = of({ vars })
    t.match(found.config.routes[0]!.match, match, JSON.stringify(vars))
    if (todo === undefined) t.equal(found.todo, '', JSON.stringify(vars))
    else t.match(found.todo, todo, JSON.stringify(vars))
  }
  t.match(of({ filter_func: 'function(vars) return false end' }).todo, 'filter_func: not converted; write a plugin')
  t.match(of({ script: 'x' }).todo, 'script: not converted')
})

t.test('plugins of objects that are not in the file are undecided', async (t) => {
  t.match(of({ plugin_config_id: 7 }).todo, 'plugin_config 7 is not in this file')
  t.match(of({ service_id: 7 }).todo, 'service 7 is not in this file')
  const consumers = [{ username: 'u', group_id: 'gold', plugins: { 'key-auth': { key: 'k' } } }]
  t.match(of({}, { consumers }).todo, 'group_id gold is not in this file')
})

t.test('a priority decides between routes of one path only', async (t) => {
  const routes = [
    { id: 'rest', uri: '/*', priority: 5, upstream: { nodes } },
    { id: 'admin', uri: '/admin/*', upstream: { nodes } },
    { id: 'beta', uri: '/admin/*', priority: 3, vars: [['http_b', '==', '1']], upstream: { nodes } }
  ]
  const { config } = loaded('apisix', JSON.stringify({ routes }))
  t.strictSame(
    config.routes.map(({ name, priority }) => [name, priority ?? 0]),
    [
      ['rest', 0],
      ['admin', 0],
      ['beta', 3]
    ]
  )
})

t.test('a plugin of a route replaces that of its service, and groups of consumers have plugins', async (t) => {
  const limit = (count: number) => ({ 'limit-count': { count, time_window: 60 } })
  const { config, todo } = of(
    { upstream: undefined, service_id: 1, plugins: limit(100) },
    {
      services: [
        { id: 1, hosts: ['a.x'], upstream: { nodes }, plugins: { ...limit(10), 'limit-conn': { conn: 5, burst: 0 } } }
      ],
      consumer_groups: [{ id: 'gold', plugins: { ...limit(1000), 'proxy-rewrite': { headers: { set: { a: 'b' } } } } }],
      consumers: [
        { username: 'ann', group_id: 'gold', plugins: { 'key-auth': { key: 'k' } } },
        { username: 'bob', group_id: 'gold', plugins: limit(7) }
      ]
    }
  )
  t.match(config.routes[0]!.edge.rateLimit, [{ maxConcurrent: 5 }, { max: 100 }])
  t.equal((config.routes[0]!.edge.rateLimit as object[]).length, 2)
  t.match(config.routes[0]!.match.hosts, ['a.x'])
  t.match(config.consumers, {
    list: [{ name: 'ann', groups: ['gold'], edge: { rateLimit: { max: 1000 } } }, { edge: { rateLimit: { max: 7 } } }]
  })
  t.equal(todo, '')
})

t.test('upstreams', async (t) => {
  const serviceOf = (upstream: object) => {
    const { config, summary } = of({ upstream: { nodes, ...upstream } })
    return { service: config.services[config.routes[0]!.service]!, route: config.routes[0]!, summary }
  }
  const hash = (more: object) => serviceOf({ type: 'chash', ...more })
  t.match(hash({ key: 'arg_device' }).service.mesh.balance, { hashOn: 'query:device' })
  t.match(hash({ key: 'http_x_user' }).service.mesh.balance, { hashOn: 'header:x-user' })
  t.match(hash({ hash_on: 'header', key: 'X-User' }).service.mesh.balance, { hashOn: 'header:x-user' })
  t.match(hash({ hash_on: 'cookie', key: 'cookie_sid' }).service.mesh.balance, { hashOn: 'cookie:sid' })
  t.match(hash({ hash_on: 'consumer', key: 'x' }).service.mesh.balance, { hashOn: 'consumer' })
  t.match(hash({ key: 'uri' }).summary, 'hash of uri: taken from the address')
  const { service, route, summary } = serviceOf({
    nodes: [
      { host: 'a', port: 80, weight: 1 },
      { host: 'b', port: 80, weight: 1, priority: -1 }
    ],
    keepalive_pool: { size: 320, idle_timeout: 60, requests: 1000 },
    pass_host: 'rewrite',
    upstream_host: 'orders.internal',
    checks: {
      active: {
        type: 'http',
        http_path: '/up',
        timeout: 2,
        host: 'h.x',
        healthy: { interval: 3, successes: 1 },
        unhealthy: { interval: 1, http_failures: 4 }
      },
      passive: {
        healthy: { http_statuses: [200], successes: 3 },
        unhealthy: { http_statuses: [500], http_failures: 6, tcp_failures: 3 }
      }
    }
  })
  t.match(service.mesh, {
    connections: { idle: 60_000, maxRequests: 1000 },
    healthCheck: {
      path: '/up',
      host: 'h.x',
      timeout: 2000,
      interval: 3000,
      healthyThreshold: 1,
      unhealthyThreshold: 4,
      statuses: [200, 302]
    },
    outlierDetection: { consecutive5xx: 6, consecutiveGatewayFailures: 3 }
  })
  t.equal(route.edge.host, 'orders.internal')
  t.match(summary, 'node b:80 with priority -1')
  t.match(serviceOf({ checks: { active: { type: 'tcp' } } }).service.mesh.healthCheck, { type: 'tcp', interval: 1000 })
})

t.test('limits', async (t) => {
  const limitOf = (limit: object) => withPlugins({ 'limit-count': { count: 5, time_window: 60, ...limit } })
  const rule = (limit: object) => limitOf(limit).config.routes[0]!.edge.rateLimit
  t.match(rule({ key_type: 'constant', key: 'x' }), { by: 'route' })
  t.match(rule({ key_type: 'var_combination', key: '$remote_addr $http_x_app' }), { by: ['ip', 'header:x-app'] })
  t.match(rule({ window_type: 'sliding' }), { algorithm: 'sliding-window' })
  const redis = { policy: 'redis', redis_host: 'cache', redis_password: 'p', redis_database: 1 }
  t.match(rule(redis), { store: 'redis', onFailure: 'closed' })
  t.match(rule({ ...redis, allow_degradation: true }), { onFailure: 'open' })
  t.equal(limitOf(redis).config.redis?.url, 'redis://:p@cache:6379/1')
  t.match(
    limitOf({ count: undefined, rules: [{ count: 1, time_window: 1, key: 'a' }] }).todo,
    'write a list of edge.rateLimit'
  )
})

t.test('plugins with conditions are routes of their own', async (t) => {
  const upstreams = [{ id: 'next', name: 'next', nodes: { 'next:80': 1 } }]
  const rules = [
    {
      match: [{ vars: [['http_beta', '==', '1']] }, { vars: [['cookie_beta', '==', '1']] }],
      weighted_upstreams: [{ upstream_id: 'next' }]
    },
    { weighted_upstreams: [{ upstream: { name: 'blue', nodes: { 'blue:80': 1 } }, weight: 2 }, { weight: 8 }] }
  ]
  const split = withPlugins(
    { 'traffic-split': { rules }, 'ip-restriction': { whitelist: ['10.0.0.0/8'] } },
    { upstreams }
  )
  t.equal(split.todo, '')
  t.match(split.summary, 'nothing is left to do by hand')
  t.match(
    split.config.routes.map(({ match, service, mesh, edge }) => ({ match, service, split: mesh.split, edge })),
    [
      { match: { cookies: { beta: '1' } }, service: 'next', edge: { ipFilter: {} } },
      { match: { headers: { beta: '1' } }, service: 'next', edge: { ipFilter: {} } },
      {
        match: { path: { exact: '/r' } },
        split: [
          { service: 'blue', weight: 2 },
          { service: 'r', weight: 8 }
        ],
        edge: { ipFilter: {} }
      }
    ]
  )
  const odd = [{ match: [{ vars: [['http_a', '>', '1']] }], weighted_upstreams: [{ upstream_id: 'next' }] }]
  const unknown = JSON.stringify({ routes: [route({ plugins: { 'traffic-split': { rules: odd } } })], upstreams })
  t.match(imported('apisix', unknown).yaml, /name: r-when\n.*\n +todo: .*http_a/)

  const workflow = withPlugins({
    workflow: {
      rules: [
        { case: [['arg_a', '==', '1']], actions: [['return', { code: 410 }]] },
        { case: [['http_b', '==', '1']], actions: [['limit-count', { count: 3, time_window: 1, key: 'remote_addr' }]] }
      ]
    }
  })
  t.equal(workflow.todo, '')
  t.match(workflow.config.routes, [
    { match: { headers: { b: '1' } }, edge: { rateLimit: { max: 3 } } },
    { match: { query: { a: '1' } }, response: { status: 410 } },
    { match: { path: { exact: '/r' } } }
  ])
  t.match(withPlugins({ workflow: { rules: [{ actions: [['return', {}]] }] } }).todo, 'workflow: not converted')
  const limited = withPlugins({
    'limit-count': { count: 9, time_window: 60, key: 'remote_addr' },
    workflow: { rules: [{ case: [['http_b', '==', '1']], actions: [['limit-count', { count: 3, time_window: 1 }]] }] }
  })
  t.match(limited.config.routes[0]!.edge.rateLimit, [{ max: 9 }, { max: 3 }], 'both limits apply')
})

t.test('logins, permissions, mirrors, filters', async (t) => {
  const consumers = [
    { username: 'u', plugins: { 'key-auth': { key: 'k' }, 'basic-auth': { username: 'u', password: 'p' } } }
  ]
  const auth = withPlugins(
    { 'multi-auth': { auth_plugins: [{ 'basic-auth': {} }, { 'key-auth': {} }] } },
    { consumers }
  )
  t.match(auth.config.routes[0]!.edge, {
    basicAuth: {},
    keyAuth: { header: 'apikey' },
    authentication: { require: 'any' }
  })
  t.equal(auth.todo, '')
  const discovery = 'https://id.x/realms/m/.well-known/openid-configuration'
  const uma = withPlugins({
    'authz-keycloak': { discovery, client_id: 'api', permissions: ['orders'], http_method_as_scope: true }
  })
  t.match(uma.config.routes[0]!.edge.uma, {
    url: 'https://id.x/realms/m/protocol/openid-connect/token',
    audience: 'api',
    permissions: ['orders#{method}']
  })
  t.match(withPlugins({ 'authz-keycloak': { discovery, client_id: 'api' } }).todo, 'write edge.uma')
  const bearer = withPlugins({
    'openid-connect': { discovery, client_id: 'a', client_secret: 's', bearer_only: true, use_jwks: true }
  })
  t.match(bearer.config.routes[0]!.edge.jwt, { forwardClaims: { header: 'x-userinfo' } })
  const login = withPlugins({
    'openid-connect': { discovery, client_id: 'a', client_secret: 's', session: { secret: 's'.repeat(32) } }
  })
  t.match(login.config.routes[0]!.edge.headers, { request: { remove: ['x-userinfo'] } })
  const mirror = withPlugins({ 'proxy-mirror': { host: 'http://copy:8080', sample_ratio: 0.25 } })
  t.match(mirror.config.routes[0]!.mesh.mirror, { service: 'copy', percent: 0.25 })
  t.match(mirror.config.services.copy!.instances, ['http://copy:8080'])
  const filtered = withPlugins({ 'proxy-rewrite': { uri: '/x', _meta: { filter: [['arg_a', '==', '1']] } } })
  t.match(filtered.summary, '_meta.filter: not converted; proxy-rewrite applies to all requests')
  const secret = 'a-secret-that-is-long-enough-for-hs256'
  const encoded = { key: 'i', secret: Buffer.from(secret).toString('base64'), base64_secret: true }
  const jwt = withPlugins({ 'jwt-auth': {} }, { consumers: [{ username: 'u', plugins: { 'jwt-auth': encoded } }] })
  t.match(jwt.config.routes[0]!.edge.jwt, { issuers: [{ secret }] })
})

t.test('secrets of the environment and of vaults are variables', async (t) => {
  const consumers = [
    {
      username: 'u',
      plugins: {
        'key-auth': { key: '$ENV://ANN_KEY' },
        'basic-auth': { username: 'u', password: '$secret://vault/1/ann/pass' }
      }
    }
  ]
  const { yaml, summary } = imported('apisix', JSON.stringify({ routes: [route({})], consumers }))
  t.notMatch(yaml, /sha256:|\$scrypt/)
  t.match(summary, 'key of u is a variable')
  t.match(summary, 'password of u is a variable')
})

t.test('certificates become files, with a listener', async (t) => {
  const folder = folderFor(t)
  const issuer = authority(folder, 'issuer')
  const site = issuer.issue('site', { san: 'DNS:a.example' })
  const pem = (file: string) => readFileSync(file, 'utf8')
  const ssl = {
    cert: pem(site.certFile),
    key: pem(site.keyFile),
    snis: ['a.example'],
    client: { ca: pem(issuer.file), depth: 1 }
  }
  const { config, todo } = of({}, { ssls: [ssl, { ...ssl, status: 0 }] })
  t.equal(todo, '')
  t.match(config.listeners, [
    { port: 9080 },
    {
      port: 9443,
      tls: {
        certificates: [{ cert: /a-example-cert\.pem$/ }],
        hosts: [{ names: ['a.example'], clientCertificate: { mode: 'require', ca: /a-example-ca\.pem$/ } }]
      }
    }
  ])
  t.match(
    of({}, { ssls: [{ ...ssl, client: { ca: 'x', skip_mtls_uri_regex: ['/a'] } }] }).todo,
    'write listen.tls with clientCertificate'
  )
})

t.test('consumer-restriction keeps the scopes that openid-connect requires', async (t) => {
  const { config } = loaded(
    'apisix',
    JSON.stringify({
      routes: [
        {
          uri: '/a/*',
          upstream: { nodes: { 'a:80': 1 } },
          plugins: {
            'openid-connect': {
              client_id: 'web',
              client_secret: 's',
              discovery: 'https://id.example/.well-known/openid-configuration',
              required_scopes: ['orders'],
              session: { secret: 's'.repeat(32) }
            },
            'consumer-restriction': { whitelist: ['alice'] }
          }
        }
      ],
      consumers: [{ username: 'alice', plugins: {} }]
    })
  )
  t.match(config.routes[0]!.edge.acl, { scopes: ['orders'], allowConsumers: ['alice'] })
})
