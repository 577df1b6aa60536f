/** Import of Kong: routes, services, upstreams, scopes of plugins, files, and plugins with parts in several places. */
import { Buffer } from 'node:buffer'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { imported } from '../../../config/import/index.ts'
import { authority, folderFor } from '../../helpers/certificates.ts'
import { loaded } from './loaded.ts'

const of = (route: object, more: object = {}) =>
  JSON.stringify({ services: [{ name: 'a', url: 'http://a:80', routes: [{ name: 'r', ...route }] }], ...more })

const withPlugin = (name: string, config: object, route: object = { paths: ['/r'] }) =>
  of({ ...route, plugins: [{ name, config }] })

t.test('expressions of the router', async (t) => {
  const cases: [expression: string, matches: object[], todo?: RegExp][] = [
    [
      'http.path ^= "/a" && (http.method == "GET" || http.method == "POST")',
      [{ path: '/a', methods: ['GET', 'POST'] }]
    ],
    ['http.host == "a.x" && http.path == "/b"', [{ hosts: ['a.x'], path: { exact: '/b' } }]],
    [
      'http.host =^ ".a.x" && any(lower(http.headers.x_beta)) == "1"',
      [{ hosts: ['*.a.x'], headers: { 'x-beta': '1' } }]
    ],
    [
      '(http.path ~ r#"^/users/(?<id>\\d+)$"#) && http.queries.v == "2"',
      [{ path: '/users/:id(^[0-9]+$)', query: { v: '2' } }]
    ],
    ['net.src.ip in 10.0.0.0/8 && http.path ^= "/a"', [{ addresses: ['10.0.0.0/8'], path: '/a' }]],
    [
      'http.path ^= "/a" && http.method == "GET" || http.host == "b.x"',
      [{ path: '/a', methods: ['GET'] }, { hosts: ['b.x'] }]
    ],
    ['(net.protocol == "http" || net.protocol == "https") && http.path ^= "/a"', [{ path: '/a' }]],
    ['net.protocol == "https" && http.path ^= "/a"', [{ path: '/a' }], /protocols: https only/],
    ['http.path ^= "/a" && http.headers.x != "1"', [{ path: '/a' }], /expression http\.headers\.x != 1/],
    ['http.path ^= "/a" && !(http.method == "GET")', [{ path: '/a', methods: undefined }], /expression !Method\(GET\)/],
    ['tls.sni == "a.x"', [{ path: '/' }], /expression tls\.sni == a\.x/]
  ]
  for (const [expression, matches, todo] of cases) {
    const { config, todo: left } = loaded('kong', of({ expression, strip_path: false }))
    t.equal(config.routes.length, matches.length, expression)
    for (const [index, match] of matches.entries()) t.match(config.routes[index]!.match, match, expression)
    if (todo === undefined) t.equal(left, '', expression)
    else t.match(left, todo, expression)
  }
  t.match(loaded('kong', of({ expression: 'http.path ^= "/a"', priority: 100 })).config.routes[0], {
    priority: 100,
    path: { strip: true }
  })
  const whole = loaded('kong', of({ expression: 'http.path ~ "^/a/.*"' }))
  t.match(whole.todo, 'strip_path: write path.strip or path.rewrite')
  t.equal(whole.config.routes[0]!.path, undefined)
  for (const nested of ['(', '!'])
    t.throws(() => imported('kong', of({ expression: nested.repeat(9000) })), /too many parentheses/)
  t.throws(
    () => imported('kong', of({ expression: 'http.path ^= ' })),
    /expression http\.path \^= : cannot be read from/
  )
  t.throws(() => imported('kong', of({ expression: '(http.path == "/a"' })), /"\)" is missing/)
})

t.test('conditions without which a route would match more are undecided; streams are no routes', async (t) => {
  t.match(loaded('kong', of({ snis: ['a.x'] })).todo, /snis: a condition of the route: not converted/)
  const hosts = loaded('kong', of({ hosts: ['a.x:8000', 'b.*', '*.c.x'] }))
  t.match(hosts.todo, /hosts: b\.\*: write each host/)
  t.match(hosts.config.routes[0]!.match.hosts, ['a.x', '*.c.x'])
  const streams = JSON.stringify({
    services: [
      { name: 'a', url: 'http://a', routes: [{ name: 'web', paths: ['/'] }] },
      {
        name: 'db',
        host: 'db',
        port: 5432,
        protocol: 'tcp',
        routes: [{ name: 'db', protocols: ['tcp'], destinations: [{ port: 5432 }] }]
      }
    ]
  })
  const { yaml, summary } = imported('kong', streams)
  t.notMatch(yaml, 'name: db')
  t.match(summary, 'route db is for tcp: not converted')
})

t.test('defaults and shared settings of decK', async (t) => {
  const { config } = loaded(
    'kong',
    JSON.stringify({
      _info: {
        defaults: {
          route: { strip_path: false },
          service: { retries: 0 },
          upstream: { algorithm: 'least-connections' }
        }
      },
      _plugin_configs: { inside: { allow: ['10.0.0.0/8'], status: 404 } },
      upstreams: [{ name: 'pool', targets: [{ target: 'p:80' }] }],
      services: [
        {
          name: 'a',
          host: 'pool',
          plugins: [{ name: 'ip-restriction', _config: 'inside', config: { status: 403 } }],
          routes: [
            { name: 'r', paths: ['/r'] },
            { name: 's', paths: ['/s'], strip_path: true }
          ]
        }
      ]
    })
  )
  const [r, s] = config.routes
  t.equal(r!.path?.strip, undefined)
  t.equal(s!.path?.strip, true)
  t.match(r!.edge.ipFilter, { allow: ['10.0.0.0/8'], status: 403 })
  t.match(config.services.a!.mesh, { retry: false, balance: 'least-request' })
})

t.test('secrets of vaults are variables', async (t) => {
  const { yaml } = imported(
    'kong',
    of(
      { paths: ['/'] },
      {
        consumers: [
          {
            username: 'u',
            keyauth_credentials: [{ key: '{vault://aws/prod/api-keys/bob}' }],
            jwt_secrets: [{ key: 'i', secret: '{vault://env/jwt-secret/hs}' }]
          }
        ]
      }
    )
  )
  t.match(yaml, /hash: "\$\{VAULT_AWS_PROD_API_KEYS_BOB\}"/)
  t.notMatch(yaml, 'sha256:')
})

t.test('plugins of groups, and those of several kinds at a time', async (t) => {
  const limit = (max: number) => ({
    name: 'rate-limiting-advanced',
    config: { limit: [max], window_size: [60], window_type: 'fixed' }
  })
  const { config, todo } = loaded(
    'kong',
    of(
      {
        paths: ['/r'],
        plugins: [{ name: 'key-auth' }, { name: 'ip-restriction', consumer: 'ann', config: { deny: ['10.0.0.1'] } }]
      },
      {
        consumer_groups: [
          {
            name: 'gold',
            plugins: [limit(9), { name: 'request-termination', config: { status_code: 403 } }],
            consumers: [{ username: 'eve' }]
          }
        ],
        consumers: [
          {
            username: 'ann',
            groups: [{ name: 'gold' }],
            plugins: [{ name: 'request-transformer', config: { add: { headers: ['a:b'] } } }]
          },
          { username: 'bob', plugins: [limit(3)], acls: [{ group: 'gold' }] },
          { username: 'eve' }
        ],
        plugins: [
          { name: 'acl', route: 'r', consumer: 'bob', config: { allow: ['x'] } },
          { name: 'cors', service: 'a', route: 'r', config: { origins: ['https://x.example'] } }
        ]
      }
    )
  )
  const list = (config.consumers as unknown as { list: { name: string; edge?: { rateLimit?: object } }[] }).list
  t.match(
    list.map(({ name, edge }) => [name, edge?.rateLimit]),
    [
      ['ann', { max: 9 }],
      ['bob', { max: 3 }],
      ['eve', { max: 9 }]
    ]
  )
  t.equal(config.routes[0]!.edge.ipFilter, undefined, 'a plugin of one consumer is not for all')
  t.equal(config.routes[0]!.edge.acl, undefined)
  t.match(config.routes[0]!.edge.cors, { origin: 'https://x.example' })
  t.match(todo, 'plugin acl of consumer bob alone: write it under consumers[].edge')
  t.match(todo, 'plugin ip-restriction of consumer ann alone')
  t.match(todo, 'request-termination')
})

t.test('certificates and authorities become files, and https has a listener', async (t) => {
  const folder = folderFor(t)
  const issuer = authority(folder, 'issuer')
  const site = issuer.issue('site', { san: 'DNS:a.example' })
  const client = issuer.issue('client', { san: 'DNS:gateway' })
  const pem = (file: string) => readFileSync(file, 'utf8')
  const text = (protocols: readonly string[]) => ({
    ca_certificates: [{ id: 'ca-1', cert: pem(issuer.file) }],
    certificates: [
      { id: 'c-1', cert: pem(site.certFile), key: pem(site.keyFile), snis: [{ name: 'a.example' }] },
      { id: 'c-2', cert: pem(client.certFile), key: pem(client.keyFile) }
    ],
    services: [
      {
        name: 'a',
        url: 'https://a',
        ca_certificates: ['ca-1'],
        client_certificate: { id: 'c-2' },
        tls_verify: false,
        routes: [{ name: 'r', paths: ['/r'], protocols }]
      }
    ]
  })
  const { config, todo, files, summary } = loaded('kong', JSON.stringify(text(['https'])))
  t.equal(todo, '')
  t.match(config.listeners, [
    { name: 'http', port: 8000, redirect: 'https' },
    { name: 'https', port: 8443, tls: { certificates: [{ cert: /a-example-cert\.pem$/ }] } }
  ])
  t.match(config.routes[0]!.match.listeners, ['https'])
  t.match(config.services.a!.mesh.tls, { ca: /a-ca\.pem$/, cert: /a-client-cert\.pem$/, key: /a-client-key\.pem$/ })
  t.equal(files.get('a-client-key.pem'), pem(client.keyFile))
  t.match(summary, 'tls_verify: certificates are always verified')
  const both = loaded('kong', JSON.stringify(text(['http', 'https'])))
  t.equal(both.config.listeners[0]!.redirect, undefined)
  t.equal(both.config.routes[0]!.match.listeners, undefined)
})

t.test('upstreams: hashed properties, Host, sticky sessions', async (t) => {
  const balanceOf = (upstream: object) => {
    const services = [{ name: 'a', host: 'pool', routes: [{ name: 'r', paths: ['/'] }] }]
    const upstreams = [{ name: 'pool', targets: [{ target: 'p:80' }], ...upstream }]
    const { config, summary } = loaded('kong', JSON.stringify({ services, upstreams }))
    return { balance: config.services.a!.mesh.balance, route: config.routes[0]!, summary }
  }
  const hashing = { algorithm: 'consistent-hashing' }
  t.match(balanceOf({ ...hashing, hash_on: 'query_arg', hash_on_query_arg: 'u' }).balance, { hashOn: 'query:u' })
  t.match(balanceOf({ ...hashing, hash_on: 'cookie', hash_on_cookie: 'c' }).balance, {
    hashOn: 'cookie:c',
    cookieTtl: 0
  })
  t.match(balanceOf({ algorithm: 'sticky-sessions', sticky_sessions_cookie: 'c' }).balance, {
    hashOn: 'cookie:c',
    cookieTtl: 0
  })
  const path = balanceOf({ ...hashing, hash_on: 'path' })
  t.match(path.balance, { hashOn: 'ip' })
  t.match(path.summary, 'hash_on path: not converted')
  t.equal(balanceOf({ host_header: 'orders.internal' }).route.edge.host, 'orders.internal')
})

const spec = {
  openapi: '3.0.3',
  info: { title: 'a', version: '1' },
  servers: [{ url: 'https://a.example/v1' }],
  paths: {
    '/r/items': {
      get: {
        parameters: [{ in: 'query', name: 'n', required: true, schema: { type: 'integer' } }],
        responses: { 200: { description: 'ok' } }
      }
    }
  }
}

t.test('oas-validation', async (t) => {
  const validationOf = (config: object) => {
    const found = loaded('kong', withPlugin('oas-validation', config))
    return { ...found, validation: found.config.routes[0]!.edge.validation }
  }
  const json = validationOf({ api_spec: JSON.stringify(spec), api_spec_encoded: false })
  t.match(json.validation, {
    openapi: /r-openapi\.json$/,
    basePath: '/',
    describes: 'client',
    mode: 'enforce',
    responses: false
  })
  t.equal(json.todo, '')
  t.match(json.summary, 'nothing is left to do by hand')
  const yaml =
    'openapi: "3.1.0"\ninfo: { title: a, version: "1" }\npaths: { /a: { get: { responses: { "200": { description: ok } } } } }\n'
  const encoded = validationOf({
    api_spec: encodeURIComponent(yaml),
    notify_only_request_validation_failure: true,
    validate_response_body: true,
    query_parameter_check: true,
    include_base_path: true,
    validate_request_body: false,
    header_parameter_check: true
  })
  t.equal(encoded.files.get('r-openapi.yaml'), yaml)
  t.match(encoded.validation, { mode: 'shadow', responses: 'enforce', unknownQuery: 'refuse', basePath: undefined })
  t.match(encoded.summary, 'validate_request_body: all parts of requests are validated here')
  t.match(encoded.todo, 'header_parameter_check')
  t.match(validationOf({ api_spec: '{"swagger":"2.0"}' }).todo, /no OpenAPI document of version 3/)
})

t.test('response-ratelimiting, jwt, cors, Redis', async (t) => {
  const limit = loaded(
    'kong',
    withPlugin('response-ratelimiting', { limits: { sms: { minute: 10 }, 'Vi deo': { hour: 5 } }, limit_by: 'ip' })
  )
  t.match(limit.config.routes[0]!.edge.rateLimit, [
    { max: 10, window: 60_000, costHeader: 'x-kong-limit-sms' },
    { max: 5, window: 3_600_000, costHeader: 'x-kong-limit-vi-deo' }
  ])
  t.match(limit.todo, /services send "x-kong-limit: NAME=2", here "x-kong-limit-sms: 2", the number alone/)
  t.match(loaded('kong', withPlugin('response-ratelimiting', {})).todo, /write edge\.rateLimit\.costHeader/)
  const cors = loaded('kong', withPlugin('cors', { origins: ['https://a.x'], private_network: true }))
  t.match(cors.config.routes[0]!.edge.cors, { privateNetwork: true })
  t.match(cors.summary, 'nothing is left')
  const redis = { host: 'cache', username: 'u', password: 'p/w', database: 2, ssl: true }
  const secure = loaded('kong', withPlugin('rate-limiting', { minute: 5, policy: 'redis', redis }))
  t.equal(secure.config.redis?.url, 'rediss://u:p%2Fw@cache:6379/2')
  const secret = 'a-secret-that-is-long-enough-for-hs256'
  const consumers = [{ username: 'u', jwt_secrets: [{ key: 'i', secret: Buffer.from(secret).toString('base64') }] }]
  const route = {
    paths: ['/r'],
    plugins: [{ name: 'jwt', config: { secret_is_base64: true, maximum_expiration: 3600 } }]
  }
  const jwt = loaded('kong', of(route, { consumers }))
  t.match(jwt.config.routes[0]!.edge.jwt, { issuers: [{ issuer: 'i', secret }] })
  t.match(jwt.todo, /maximum_expiration 3600/)
})

t.test('plugins that choose another service, or respond to some requests only', async (t) => {
  const rules = [
    { condition: { location: 'us', kind: 'x' }, upstream_name: 'east.example' },
    { condition: { location: 'eu' }, upstream_name: 'pool' }
  ]
  const text = JSON.stringify({
    services: [
      {
        name: 'a',
        url: 'https://a:8443',
        routes: [{ name: 'r', paths: ['/r'], plugins: [{ name: 'route-by-header', config: { rules } }] }]
      }
    ],
    upstreams: [{ name: 'pool', algorithm: 'least-connections', targets: [{ target: 'p1:80' }] }]
  })
  const { config } = loaded('kong', text)
  t.match(config.routes[0]!.mesh.split, [
    { service: 'east-example', match: { headers: { location: 'us', kind: 'x' } } },
    { service: 'pool', match: { headers: { location: 'eu' } } },
    { service: 'a', weight: 1 }
  ])
  t.match(config.services.pool, { instances: ['https://p1:80'], mesh: { balance: 'least-request' } })
  const canary = loaded(
    'kong',
    withPlugin('canary', {
      percentage: 12.5,
      upstream_host: 'new',
      upstream_port: 8080,
      hash: 'header',
      hash_header: 'x-user'
    })
  )
  t.match(canary.config.routes[0]!.mesh, {
    stickOn: 'header:x-user',
    split: [
      { service: 'a', weight: 8750 },
      { service: 'new', weight: 1250 }
    ]
  })
  t.match(canary.config.services.new!.instances, ['http://new:8080'])
  t.match(loaded('kong', withPlugin('canary', { start: 1, duration: 60 })).summary, 'canary: write split')
  const stop = loaded('kong', withPlugin('request-termination', { trigger: 'x-stop', status_code: 418, message: 'no' }))
  t.match(
    stop.config.routes.map(({ match, response }) => ({ match, response })),
    [
      { match: { headers: { 'x-stop': { present: true } } }, response: { status: 418 } },
      { match: { query: { 'x-stop': { present: true } } }, response: { status: 418 } },
      { match: { path: '/r', headers: undefined } }
    ]
  )
  t.match(loaded('kong', withPlugin('upstream-timeout', { read_timeout: 5000 })).config.routes[0]!.mesh, {
    timeout: 5000
  })
})

t.test('plugins that protect are undecided, whatever their names', async (t) => {
  for (const name of [
    'json-threat-protection',
    'xml-threat-protection',
    'standard-webhooks',
    'saml',
    'service-protection',
    'ai-aws-content-moderation'
  ])
    t.match(loaded('kong', withPlugin(name, {})).todo, `plugin ${name}: not converted`)
  t.match(loaded('kong', withPlugin('acme', {})).summary, 'an ACME client writes certificates into listen.tls.folders')
})

t.test('a group with several segments is no parameter', async (t) => {
  const { config, todo } = loaded('kong', of({ paths: ['~/api/(v1/a|v2/b)/c$'], strip_path: false }))
  t.match(config.routes[0]!.match.path, '/api/*')
  t.match(todo, 'write a pattern; /api/* is wider')
  t.match(
    loaded('kong', of({ paths: ['~/api/([^/]+)/c$'], strip_path: false })).config.routes[0]!.match.path,
    '/api/:p1/c'
  )
})

t.test('an expression for a header is searched in its value, unless there are several values', async (t) => {
  const matchOf = (values: string[]) =>
    loaded('kong', of({ paths: ['/r'], headers: { 'x-agent': values } })).config.routes[0]!.match.headers
  t.match(matchOf(['~*mobile']), { 'x-agent': { regex: '^.*mobile.*$' } })
  t.match(matchOf(['~*^mobile/[0-9]+$']), { 'x-agent': { regex: '^mobile/[0-9]+$' } })
  t.match(matchOf(['~*mobile', 'b']), { 'x-agent': { regex: '^(?:~\\*mobile|b)$' } })
})

t.test('acl keeps the scopes and roles that openid-connect requires, in either order', async (t) => {
  const login = {
    name: 'openid-connect',
    config: {
      issuer: 'https://id.example',
      client_id: ['web'],
      client_secret: ['s'],
      auth_methods: ['authorization_code'],
      scopes_required: ['orders'],
      roles_required: ['staff']
    }
  }
  const groups = { name: 'acl', config: { allow: ['clerks'] } }
  for (const plugins of [
    [login, groups],
    [groups, login]
  ])
    t.match(
      loaded('kong', of({ paths: ['/r'], plugins }, { consumers: [{ username: 'c', acls: [{ group: 'clerks' }] }] }), {
        OIDC_SESSION_SECRET: 's'.repeat(32)
      }).config.routes[0]!.edge.acl,
      { allow: ['clerks'], scopes: ['orders'], roles: ['staff'] }
    )
})
