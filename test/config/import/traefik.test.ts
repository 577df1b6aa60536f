/** Import of Traefik's rules, services, transports and static configuration. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { authority, folderFor } from '../../helpers/certificates.ts'
import { loaded } from './loaded.ts'

const services = 's: { loadBalancer: { servers: [{ url: "http://s:80" }] } }'

/** Returns the route of a rule. */
function routeOf(rule: string) {
  const { config, todo } = loaded(
    'traefik',
    JSON.stringify({
      http: {
        routers: { r: { rule, service: 's' } },
        services: { s: { loadBalancer: { servers: [{ url: 'http://s:80' }] } } }
      }
    })
  )
  return { match: config.routes[0]!.match, todo }
}

t.test('rules', async (t) => {
  const cases: [rule: string, match: object, todo?: RegExp][] = [
    ['HostRegexp(`^.+\\.x\\.example$`)', { hosts: ['*.x.example'] }],
    ['HostRegexp(`^(www|api)\\.x\\.example$`)', { hosts: ['www.x.example', 'api.x.example'] }],
    ['HostRegexp(`^(?:www\\.)?x\\.example$`)', { hosts: ['x.example', 'www.x.example'] }],
    ['HostRegexp(`^(.+\\.)?x\\.example$`)', { hosts: ['x.example', '*.x.example'] }],
    ['HostRegexp(`^[a-z0-9-]+\\.x\\.example$`)', { hosts: ['*.x.example'] }, /\*\.x\.example is wider/],
    ['HostRegexp(`{sub:[a-z]+}.x.example`)', { hosts: ['*.x.example'] }, /\*\.x\.example is wider/],
    ['HostRegexp(`{any:.+}.x.example`, `y.example`)', { hosts: ['*.x.example', 'y.example'] }],
    // Anything may precede an expression that has no beginning.
    ['HostRegexp(`x\\.example$`)', { hosts: undefined }, /HostRegexp\(x\\\.example\$\): not converted/],
    ['HostRegexp(`^.*$`)', { hosts: undefined }, /not converted/],
    ['Path(`/u/{id:[0-9]+}`)', { path: '/u/:id(^[0-9]+$)' }],
    ['PathPrefix(`/u/{id}`)', { path: ['/u/:id', '/u/:id/*'] }],
    ['Path(`/u/{rest:.*}`)', { path: '/u/*' }],
    ['Path(`/{lang:(en|de)}/x`)', { path: '/:lang(^en|de$)/x' }],
    ['PathRegexp(`^/v[0-9]+/users`)', { path: '/:any1(^v[0-9]+$)/users*' }],
    ['PathRegexp(`\\.php$`)', { path: '/' }, /PathRegexp\(\\\.php\$\)/],
    ['HeaderRegexp(`X-A`, `b+`)', { headers: { 'x-a': { regex: '^.*b+.*$' } } }],
    ['HeaderRegexp(`X-A`, `^b|c$`)', { headers: { 'x-a': { regex: '^(?:b.*|.*c)$' } } }],
    ['HeaderRegexp(`X-A`, `^(b|c)[|]d`)', { headers: { 'x-a': { regex: '^(b|c)[|]d.*$' } } }],
    // Conditions of which all have to hold are no alternatives.
    ['PathPrefix(`/a`) && Path(`/a/b`)', { path: '/a' }, /Path\(\/a\/b\): not converted/],
    ['Header(`X-A`, `1`) && Header(`X-A`, `2`)', { headers: { 'x-a': '1' } }, /Header\(X-A, 2\)/],
    ['(Host(`a.x`) || Host(`b.x`)) && (Path(`/p`) || Path(`/p`))', { hosts: ['a.x', 'b.x'], path: { exact: '/p' } }]
  ]
  for (const [rule, match, todo] of cases) {
    const found = routeOf(rule)
    t.match(found.match, match, rule)
    if (todo === undefined) t.equal(found.todo, '', rule)
    else t.match(found.todo, todo, rule)
  }
})

t.test('priorities are compared with the lengths of the rules that have none', async (t) => {
  const { config } = loaded(
    'traefik',
    `
http:
  routers:
    rest: { rule: "PathPrefix(\`/\`)", service: s, priority: 1 }
    admin: { rule: "Host(\`a.example\`) && PathPrefix(\`/admin\`)", service: s }
  services: { ${services} }
`
  )
  t.match(
    config.routes.map(({ name, priority }) => [name, priority]),
    [
      ['rest', 1],
      ['admin', 41]
    ]
  )
  const none = loaded(
    'traefik',
    `http: { routers: { r: { rule: "PathPrefix(\`/\`)", service: s } }, services: { ${services} } }`
  )
  t.notMatch(none.yaml, 'priority')
})

t.test('changes of the path, one after the other', async (t) => {
  const strip = 'stripPrefix: { prefixes: [/api] }'
  const add = 'addPrefix: { prefix: /v1 }'
  const cases: [rule: string, middlewares: readonly string[], path: object | undefined, note?: RegExp][] = [
    ['PathPrefix(`/api`)', [strip], { strip: '/api' }],
    ['PathPrefix(`/api`)', [strip, add], { rewrite: { prefix: '/v1' } }],
    ['PathPrefix(`/api/x`)', [strip, add], { rewrite: { prefix: '/v1/x' } }],
    ['PathPrefix(`/api`) || PathPrefix(`/apis`)', [strip, add], { rewrite: { regex: '^/api/?(.*)$', to: '/v1/$1' } }],
    ['PathPrefix(`/api`)', [add], { rewrite: { prefix: '/v1/api' } }],
    ['Host(`a.x`)', [add], { rewrite: { prefix: '/v1' } }],
    ['Path(`/a`)', [add], { rewrite: { regex: '^(.*)$', to: '/v1$1' } }],
    [
      'Host(`a.x`)',
      ['stripPrefix: { prefixes: [/a, /a/b] }'],
      { rewrite: { regex: '^(?:/a/b|/a)/?(.*)$', to: '/$1' } }
    ],
    ['Path(`/a`)', ['replacePath: { path: /b }', add], { rewrite: { path: '/v1/b' } }],
    [
      'PathPrefix(`/api`)',
      [strip, 'replacePathRegex: { regex: "^/x", replacement: "/y" }'],
      { strip: '/api' },
      /write path\.rewrite/
    ]
  ]
  for (const [rule, middlewares, path, note] of cases) {
    const named = middlewares.map((each, at) => `m${at}: { ${each} }`)
    const { config, summary } = loaded(
      'traefik',
      `http: { routers: { r: { rule: "${rule}", service: s, middlewares: [${middlewares.map((_, at) => `m${at}`).join()}] } }, middlewares: { ${named.join()} }, services: { ${services} } }`
    )
    t.match(config.routes[0]!.path, path, `${rule} ${middlewares.join()}`)
    t.match(summary, note ?? 'nothing is left to do by hand', `${rule} ${middlewares.join()}`)
  }
})

t.test('middlewares', async (t) => {
  const cases: [middleware: string, route: object, left?: RegExp][] = [
    ['inFlightReq: { amount: 10 }', { edge: { rateLimit: { maxConcurrent: 10, by: 'header:host' } } }],
    [
      'inFlightReq: { amount: 9, sourceCriterion: { ipStrategy: { depth: 1 } } }',
      { edge: { rateLimit: { maxConcurrent: 9 } } },
      /listen\.trustProxy/
    ],
    [
      'rateLimit: { average: 5, period: 1m30s, redis: { endpoints: ["cache:6380"], username: u, password: "p@", db: 3 } }',
      { edge: { rateLimit: { max: 5, window: 90_000, store: 'redis' } } }
    ],
    [
      'circuitBreaker: { expression: "NetworkErrorRatio() > 0.30 || LatencyAtQuantileMS(50.0) > 100", fallbackDuration: 30s, responseCode: 504 }',
      {
        mesh: {
          circuitBreaker: {
            errorRatio: 0.3,
            failureStatuses: [502, 504],
            slowAfter: 100,
            slowRatio: 0.5,
            openFor: 30_000,
            rampFor: 10_000
          },
          fallback: [{ on: ['circuit-open'], status: 504 }]
        }
      }
    ],
    [
      'circuitBreaker: { expression: "ResponseCodeRatio(500, 600, 0, 600) > 0.25" }',
      { mesh: { circuitBreaker: { errorRatio: 0.25, failureStatuses: ['500-599'], slowRatio: false } } }
    ],
    [
      'circuitBreaker: { expression: "NetworkErrorRatio() > 0.3 && LatencyAtQuantileMS(50.0) > 100" }',
      { mesh: { circuitBreaker: undefined } },
      /write mesh\.circuitBreaker/
    ],
    [
      'retry: { attempts: 3, initialInterval: 100ms }',
      { mesh: { retry: { attempts: 2, backoff: { base: 100, max: 100 } } } }
    ],
    [
      'basicAuth: { users: ["a:$2y$05$RuAfPOeANe5UoypEoNRLUu/uqFPvqN9XWhH6CmrRir4Pk1jOfoLf6"], headerField: X-WebAuth-User }',
      { edge: { authentication: { forward: { id: 'x-webauth-user' } } } }
    ]
  ]
  for (const [middleware, route, left] of cases) {
    const { config, summary, todo } = loaded(
      'traefik',
      `http: { routers: { r: { rule: "Host(\`a.x\`)", service: s, middlewares: [m] } }, middlewares: { m: { ${middleware} } }, services: { ${services} } }`
    )
    t.match(config.routes[0], route, middleware)
    t.match(summary, left ?? 'nothing is left to do by hand', middleware)
    t.equal(todo, '', middleware)
    if (middleware.includes('redis')) t.equal(config.redis?.url, 'redis://u:p%40@cache:6380/3')
  }
})

t.test('services: transports, checks, cookies, strategies, services of services', async (t) => {
  const folder = folderFor(t)
  const issuer = authority(folder, 'issuer')
  const { certFile, keyFile } = issuer.issue('gateway', { san: 'DNS:g.example' })
  const { config, summary, todo } = loaded(
    'traefik',
    `
serversTransport: { forwardingTimeouts: { dialTimeout: 3s } }
http:
  routers:
    a: { rule: "PathPrefix(\`/a\`)", service: outer }
    b: { rule: "PathPrefix(\`/b\`)", service: copied }
    c: { rule: "PathPrefix(\`/c\`)", service: safe }
    d: { rule: "PathPrefix(\`/d\`)", service: insecure }
  services:
    outer: { weighted: { services: [{ name: inner, weight: 1 }, { name: three, weight: 1 }], sticky: { cookie: { name: lb } } } }
    inner: { weighted: { services: [{ name: one, weight: 3 }, { name: two, weight: 1 }] } }
    copied: { mirroring: { service: inner, mirrorBody: false, mirrors: [{ name: two, percent: 5 }] } }
    safe: { failover: { service: inner, fallback: three, errors: { status: ["498-599", "404", "501-502"] } } }
    insecure: { loadBalancer: { servers: [{ url: "https://i:443" }], serversTransport: loose@file } }
    one:
      loadBalancer:
        servers: [{ url: "https://one:443/ignored" }]
        serversTransport: strict
        strategy: p2c
        healthCheck: { path: /up, interval: 1m30s, hostname: one.example, status: 204 }
        passiveHealthCheck: { failureWindow: 20s, maxFailedAttempts: 3 }
    two: { loadBalancer: { servers: [{ url: "http://two:80/base", preservePath: true }], sticky: { cookie: { name: sid, maxAge: 60 } } } }
    three: { loadBalancer: { servers: [{ url: "http://three:80" }], healthCheck: { path: /up } } }
  serversTransports:
    strict:
      rootCAs: [${issuer.file}]
      certificates: [{ certFile: ${certFile}, keyFile: ${keyFile} }]
      serverName: one.internal
      peerCertURI: spiffe://x/one
      forwardingTimeouts: { dialTimeout: 2s, responseHeaderTimeout: 0, idleConnTimeout: 1m30s }
      maxIdleConnsPerHost: 7
    loose: { insecureSkipVerify: true, maxIdleConnsPerHost: -1, spiffe: { trustDomain: x } }
`
  )
  const { one, two, three, insecure } = config.services
  t.match(one, {
    instances: ['https://one:443'],
    mesh: {
      tls: { ca: issuer.file, cert: certFile, key: keyFile, serverName: 'one.internal', san: ['spiffe://x/one'] },
      connectTimeout: 2000,
      timeout: 60_000,
      connections: { idle: 90_000 },
      balance: 'least-request',
      healthCheck: { path: '/up', interval: 90_000, timeout: 5000, host: 'one.example', statuses: [204] },
      outlierDetection: { consecutive5xx: 3, baseEjection: 20_000 }
    }
  })
  t.match(two, {
    basePath: '/base',
    mesh: { connectTimeout: 3000, balance: { hashOn: 'cookie:sid', cookieTtl: 60_000 } }
  })
  t.match(three!.mesh.healthCheck, { interval: 30_000, statuses: ['200-399'] })
  t.match(insecure!.mesh.connections, { idle: 0 })
  const inner = [
    { service: 'one', weight: 3 },
    { service: 'two', weight: 1 }
  ]
  const [a, b, c] = config.routes
  t.match(a!.mesh.split, [...inner, { service: 'three', weight: 4 }])
  t.equal(a!.mesh.split!.length, 3)
  t.match(b!.mesh, { split: inner, mirror: { service: 'two', percent: 0.05, maxBody: 0 } })
  const failures = ['no-instance', 'circuit-open', 'overloaded', 'connect-failure', 'reset', 'timeout']
  const on = [...failures, 498, 499, '5xx', 404, 501, 502]
  t.match(c!.mesh, { split: inner, fallback: [{ on, service: 'three' }] })
  t.match(todo, 'serversTransport loose: insecureSkipVerify: certificates are always verified')
  t.match(todo, 'serversTransport loose: spiffe.trustDomain x')
  t.match(summary, '3 left to do by hand')
})

t.test('static configuration: timeouts, options of TLS, spans, pushed metrics', async (t) => {
  const issuer = authority(folderFor(t), 'issuer')
  const { certFile, keyFile } = issuer.issue('site', { san: 'DNS:g.example' })
  const pem = JSON.stringify(readFileSync(issuer.file, 'utf8'))
  const { config, todo, files } = loaded(
    'traefik',
    `
entryPoints:
  web: { address: ":8000", transport: { respondingTimeouts: { idleTimeout: 180, readTimeout: 60s, writeTimeout: 0 }, lifeCycle: { graceTimeOut: 15s } } }
  secure: { address: ":8443", http: { middlewares: [only@file], tls: { options: mtls@file, certResolver: le } } }
tracing: { serviceName: edge, sampleRate: 0.2, otlp: { http: { endpoint: "http://otel:4318/v1/traces", headers: { x-key: k } } }, capturedRequestHeaders: [X-Tenant] }
metrics: { influxDB2: { address: "http://influx:8086", token: t, org: o, bucket: b c, pushInterval: 10s } }
http:
  routers:
    a: { rule: "PathPrefix(\`/a\`)", service: s, entryPoints: [web] }
    b: { rule: "PathPrefix(\`/b\`)", service: s, entryPoints: [secure] }
  middlewares: { only: { ipAllowList: { sourceRange: [10.0.0.0/8] } } }
  services: { s: { loadBalancer: { servers: [{ url: "https://s:443" }], serversTransport: inline } } }
  serversTransports: { inline: { rootCAs: [${pem}] } }
tls: { certificates: [{ certFile: ${certFile}, keyFile: ${keyFile} }] }
`
  )
  t.match(config.listeners, [
    { name: 'web', timeouts: { keepAlive: 180_000, body: 60_000 }, drain: { timeout: 15_000 } },
    {}
  ])
  t.match(config.tracing, { serviceName: 'edge', sampleRate: 0.2, capturedRequestHeaders: ['x-tenant'] })
  t.match(todo, 'router b: tls.options mtls@file')
  t.match(config.services.s!.mesh.tls, { ca: /inline-ca\.pem$/ })
  t.equal(files.get('inline-ca.pem'), readFileSync(issuer.file, 'utf8'))
  t.match(config.metricsPush, {
    url: 'http://influx:8086/api/v2/write?org=o&bucket=b+c',
    headers: { authorization: 'Token t' }
  })
})

t.test('of two middlewares that refuse requests, none is lost unnoticed', async (t) => {
  const { todo, config } = loaded(
    'traefik',
    `
http:
  routers:
    two: { rule: "PathPrefix(\`/two\`)", service: a, middlewares: [office, vpn, sso, audit] }
    same: { rule: "PathPrefix(\`/same\`)", service: a, middlewares: [office, office] }
  middlewares:
    office: { ipAllowList: { sourceRange: [10.0.0.0/8] } }
    vpn: { ipAllowList: { sourceRange: [10.1.0.0/16] } }
    sso: { forwardAuth: { address: "http://sso:8080" } }
    audit: { forwardAuth: { address: "http://audit:8080" } }
  services: { a: { loadBalancer: { servers: [{ url: "http://a:8080" }] } } }
`
  )
  t.same(todo.split('\n'), [
    'middleware vpn (ipAllowList): it replaces the one before it; a route has one edge.ipFilter',
    'middleware audit (forwardAuth): it replaces the one before it; a route has one edge.forwardAuth'
  ])
  t.equal(config.routes.length, 2)
})

t.test('users of one file are not let in where another file counts', async (t) => {
  const of = (second: string) =>
    loaded(
      'traefik',
      `
http:
  routers:
    a: { rule: "PathPrefix(\`/a\`)", service: s, middlewares: [a] }
    b: { rule: "PathPrefix(\`/b\`)", service: s, middlewares: [b] }
  middlewares: { a: { basicAuth: { usersFile: /etc/a } }, b: { basicAuth: { usersFile: ${second} } } }
  services: { s: { loadBalancer: { servers: [{ url: "http://s:80" }] } } }
`
    )
  const [one, two] = [of('/etc/a'), of('/etc/b')]
  t.equal(one.todo, '')
  t.match(one.summary, 'usersFile /etc/a: write its users as consumers')
  t.match(two.todo, 'usersFile /etc/a: write its users as consumers, and name them in acl.allowConsumers')
  t.match(two.todo, 'usersFile /etc/b: write its users as consumers, and name them in acl.allowConsumers')
})
