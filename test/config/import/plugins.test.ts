/** Import of single plugins of other gateways: each becomes a configuration that `check` accepts. */
import type { Test } from 'tap'
import t from 'tap'
import { imported } from '../../../config/import/index.ts'
import { authority, folderFor } from '../../helpers/certificates.ts'
import { loaded } from './loaded.ts'

/** A plugin of a route: what it becomes, and what is left to do: `todo` is a fault until somebody decides. */
interface Case {
  readonly route?: object
  readonly config?: object
  readonly note?: RegExp
  readonly todo?: RegExp
}

function check(t: Test, gateway: string, source: string, text: string, { route, config, note, todo }: Case): void {
  const found = loaded(gateway, text)
  if (route !== undefined) t.match(found.config.routes[0], route, source)
  if (config !== undefined) t.match(found.config, config, source)
  if (todo === undefined) t.equal(found.todo, '', source)
  else t.match(found.todo, todo, source)
  if (note !== undefined) t.match(found.summary, note, source)
  else if (todo === undefined) t.match(found.summary, 'nothing is left to do by hand', source)
}

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: expressions of Traefik
t.test('middlewares of Traefik', async (t) => {
  const cases: [middleware: string, expected: Case][] = [
    [
      'errors: { status: ["500-599", "404"], service: pages, query: "/{status}.html" }',
      { route: { edge: { errorPages: { upstream: ['5xx', 404] } } }, note: /errorPages\.pages/ }
    ],
    [
      'errors: { status: ["500-503"], service: pages, query: /e }',
      { route: { edge: { errorPages: { upstream: [500, 501, 502, 503] } } }, note: /the page \/e of pages/ }
    ],
    [
      'redirectRegex: { regex: "^https?://a\\\\.example/(.*)", replacement: "https://b.example/${1}", permanent: true }',
      { route: { redirect: { to: 'https://b.example', status: 308 } } }
    ],
    [
      'redirectRegex: { regex: "^https?://(.+)\\\\.example/(.*)$", replacement: "https://www.$1.example/x/$2" }',
      { route: { redirect: { to: 'https://www.a.example/x/*', status: 307 } } }
    ],
    [
      'redirectRegex: { regex: "^https?://a\\\\.example/old/(.*)", replacement: "https://a.example/new/$1" }',
      { route: { redirect: undefined }, note: /redirectRegex .*: write a route with "redirect"/ }
    ],
    [
      'forwardAuth: { address: "http://auth:80", trustForwardHeader: true, addAuthCookiesToResponse: [sid] }',
      {
        route: { edge: { forwardAuth: { url: 'http://auth:80' } } },
        note: /trustForwardHeader(?:.|\n)*addAuthCookiesToResponse sid/
      }
    ],
    ['redirectRegex: { regex: "(", replacement: "https://b.example" }', { note: /redirectRegex \( to/ }],
    ['redirectScheme: { scheme: https }', { route: { redirect: { scheme: 'https', status: 307 } } }],
    [
      'replacePathRegex: { regex: "^/api/(.*)", replacement: "/$1" }',
      { route: { path: { rewrite: { regex: '^/api/(.*)$', to: '/$1' } } } }
    ],
    [
      'stripPrefixRegex: { regex: ["^/v[0-9]+/"] }',
      { route: { path: { rewrite: { regex: '^(?:/v[0-9]+)/?(.*)$', to: '/$1' } } } }
    ],
    [
      'compress: { encodings: [gzip, br], minResponseBodyBytes: 2048, includedContentTypes: [text/html] }',
      { route: { edge: { compression: { encodings: ['gzip', 'br'], minSize: 2048, types: ['text/html'] } } } }
    ],
    [
      'compress: { excludedContentTypes: [text/event-stream] }',
      { route: { edge: { compression: {} } }, note: /excludedContentTypes/ }
    ],
    ['compress:', { route: { edge: { compression: {} } } }],
    ['buffering: { maxRequestBodyBytes: 1000 }', { route: { edge: { bodyLimit: 1000 } } }],
    [
      'ipAllowList: { sourceRange: [10.0.0.0/8], rejectStatusCode: 404 }',
      { route: { edge: { ipFilter: { allow: ['10.0.0.0/8'], status: 404 } } } }
    ],
    [
      'ipAllowList: { sourceRange: [10.0.0.0/8], ipStrategy: { depth: 1 } }',
      { route: { edge: { ipFilter: {} } }, todo: /ipStrategy: write listen\.trustProxy/ }
    ],
    [
      'inFlightReq: { amount: 10, sourceCriterion: { requestHost: true } }',
      { route: { edge: { rateLimit: { maxConcurrent: 10, by: 'header:host' } } } }
    ],
    ['retry: { attempts: 4 }', { route: { mesh: { retry: { attempts: 3 } } } }],
    [
      'passTLSClientCert: { pem: true }',
      { route: { edge: { forwardClientCert: {} } }, note: /Client-Cert \(RFC 9440\)/ }
    ],
    [
      'forwardAuth: { address: "http://auth:9000/verify", authResponseHeaders: [X-User] }',
      { route: { edge: { forwardAuth: { url: 'http://auth:9000/verify', responseHeaders: ['x-user'] } } } }
    ],
    ['digestAuth: { users: ["a:b:c"] }', { todo: /digestAuth/ }],
    ['contentType: {}', { route: { edge: { headers: undefined } } }],
    ['headers: { allowedHosts: [a.example] }', { todo: /allowedHosts/ }],
    ['plugin: { sablier: {} }', { todo: /plugin/ }],
    ['grpcWeb: { allowOrigins: ["*"] }', { note: /grpcWeb/ }]
  ]
  for (const [middleware, expected] of cases) {
    check(
      t,
      'traefik',
      middleware,
      `
http:
  routers: { r: { rule: "Host(\`a.example\`)", service: s, middlewares: [m] } }
  middlewares: { m: { ${middleware} } }
  services: { s: { loadBalancer: { servers: [{ url: "http://s:80" }] } } }
`,
      expected
    )
  }
})

// biome-ignore-end lint/suspicious/noTemplateCurlyInString: expressions of Traefik
t.test('Traefik: limits of several middlewares, and a chain', async (t) => {
  const { config } = loaded(
    'traefik',
    `
http:
  routers: { r: { rule: "Host(\`a.example\`)", service: s, middlewares: [all] } }
  middlewares:
    all: { chain: { middlewares: [one, two@file] } }
    one: { rateLimit: { average: 5, burst: 10 } }
    two: { inFlightReq: { amount: 3 } }
  services: { s: { loadBalancer: { servers: [{ url: "http://s:80" }] } } }
`
  )
  t.match(config.routes[0]!.edge.rateLimit, [{ algorithm: 'token-bucket', max: 5, burst: 10 }, { maxConcurrent: 3 }])
})

t.test('Traefik: entry points, redirections, certificates and options of TLS', async (t) => {
  const folder = folderFor(t)
  const issuer = authority(folder, 'issuer')
  const { certFile, keyFile } = issuer.issue('site', { san: 'DNS:a.example' })
  const http = `
http:
  routers:
    site: { rule: "Host(\`a.example\`)", service: s, entryPoints: [websecure], tls: {} }
    plain: { rule: "Host(\`b.example\`)", service: s, entryPoints: [web] }
    both: { rule: "PathPrefix(\`/both\`)", service: s }
  middlewares: { private: { ipAllowList: { sourceRange: [10.0.0.0/8] } } }
  services: { s: { loadBalancer: { servers: [{ url: "http://s:80" }] } } }`
  const tls = `
tls:
  certificates: [{ certFile: ${certFile}, keyFile: ${keyFile} }]
  options:
    default: { minVersion: VersionTLS12, sniStrict: true, cipherSuites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_AES_128_GCM_SHA256], clientAuth: { caFiles: [${issuer.file}], clientAuthType: RequireAndVerifyClientCert } }`
  const all = loaded(
    'traefik',
    `
entryPoints:
  web: { address: ":8000", http: { redirections: { entryPoint: { to: websecure, scheme: https } } } }
  websecure: { address: "127.0.0.1:8443", forwardedHeaders: { trustedIPs: [10.0.0.0/8] }, http: { middlewares: [private@file] } }
  traefik: { address: ":9000/udp" }
log: { level: INFO }
${http}${tls}`
  )
  const [web, secure, ...others] = all.config.listeners
  t.strictSame(others, [])
  t.match(web, { name: 'web', port: 8000, redirect: 'https', tls: undefined })
  t.match(secure, {
    name: 'websecure',
    host: '127.0.0.1',
    port: 8443,
    http2: true,
    trustProxy: ['10.0.0.0/8'],
    tls: {
      cert: certFile,
      minVersion: 'TLSv1.2',
      strict: true,
      ciphers: ['ECDHE-RSA-AES256-GCM-SHA384', 'ECDHE-ECDSA-CHACHA20-POLY1305', 'TLS_AES_128_GCM_SHA256'],
      clientCertificate: { mode: 'require', ca: issuer.file }
    }
  })
  const [site, plain, both] = all.config.routes
  t.match(site, { match: { listeners: ['websecure'] }, edge: { ipFilter: { allow: ['10.0.0.0/8'] } } })
  t.match(plain, { match: { listeners: ['web'] } })
  t.notOk('ipFilter' in plain!.edge)
  t.match(both, { match: { path: '/both', listeners: undefined }, edge: { ipFilter: {} } })
  t.equal(all.todo, '')
  t.match(all.summary, 'entryPoint traefik: address :9000/udp: not converted')

  const assumed = loaded('traefik', `${http}${tls}`)
  t.match(assumed.config.listeners, [
    { name: 'websecure', port: 443, tls: { strict: true } },
    { name: 'web', port: 80 }
  ])
  t.match(assumed.summary, 'entryPoint web is not in this file: port 80 is assumed')

  const one = loaded('traefik', `${http.replaceAll(/, entryPoints: \[\w+\]/g, '')}${tls}`)
  t.match(one.config.listeners, [{ port: 443, tls: { cert: certFile } }])

  const named = (points: string, more = '') => `${more}
http:
  routers:
    a: { rule: "Host(\`a.example\`)", service: s, entryPoints: [${points}] }
    b: { rule: "Host(\`b.example\`)", service: s }
  services: { s: { loadBalancer: { servers: [{ url: "http://s:80" }] } } }`
  t.match(loaded('traefik', named('internal')).todo, 'router a: entryPoint internal is not in this file')
  t.equal(loaded('traefik', named('websecure')).todo, '')
  const strict = named('websecure').replace('service: s, entry', 'tls: { options: mtls@file }, service: s, entry')
  t.match(loaded('traefik', strict).todo, 'router a: tls.options mtls@file')
  t.match(loaded('traefik', named('internal', 'entryPoints: { web: { address: ":80" } }')).todo, 'entryPoint internal')

  const other = imported('traefik', `${http}\ntls: { options: { mtls: { clientAuth: { caFiles: [a, b] } } } }`).yaml
  t.match(other, /todo:\s+(?:\[|- )"tls\.options\.mtls: not converted/)
  t.match(other, /folders: \[\/etc\/letsencrypt\/live\]/)
  const anyCertificate = `${http}\ntls: { options: { default: { clientAuth: { clientAuthType: RequestClientCert } } } }`
  t.match(imported('traefik', anyCertificate).yaml, /todo:\s.*clientAuth: RequestClientCert/s)
})

const issuer = 'https://id.example.com/realms/main'
const basic = Buffer.from('app:a:secret').toString('base64')

t.test('routes of Kong for https alone', async (t) => {
  const text = (protocols: string) =>
    `services: [{ name: s, url: "http://s:80", routes: [{ name: r, paths: [/r], protocols: ${protocols} }] }]`
  for (const protocols of ['[http, https]', '[http]']) t.equal(loaded('kong', text(protocols)).todo, '', protocols)
  t.match(loaded('kong', text('[https]')).todo, /protocols: https only: write listen\.tls and listen\.redirect/)
})

t.test('plugins of Kong', async (t) => {
  const body = { type: 'object', required: ['a'], properties: { a: { type: 'integer' } } }
  const cases: [plugin: string, expected: Case][] = [
    [
      `name: request-validator, config: { version: draft4, body_schema: '${JSON.stringify(body)}', parameter_schema: [{ in: query, name: q, required: true, schema: '{"type":"string"}', style: form, explode: false }, { in: header, name: X-A, schema: '{"type":"integer"}' }] }`,
      {
        route: {
          edge: {
            validation: {
              body: { content: { 'application/json': body } },
              query: { required: ['q'], properties: { q: { type: 'string' } } },
              headers: { properties: { 'x-a': { type: 'integer' } } }
            }
          }
        }
      }
    ],
    [
      'name: request-validator, config: { version: kong, body_schema: "[]" }',
      { todo: /request-validator with version kong/ }
    ],
    [
      'name: request-validator, config: { version: draft4, body_schema: "{" }',
      { todo: /request-validator with version draft4/ }
    ],
    [
      'name: request-validator, config: { version: draft7, body_schema: "{}", allowed_content_types: ["application/json; charset=utf-8", text/xml] }',
      { route: { edge: { validation: { body: { content: { 'text/xml': true, 'application/json': {} } } } } } }
    ],
    ['name: oas-validation, config: { api_spec: "swagger: 2.0" }', { todo: /edge\.validation\.openapi/ }],
    [
      'name: request-termination, config: { status_code: 410, body: gone, content_type: text/plain }',
      { route: { response: { status: 410, body: 'gone' }, service: '' } }
    ],
    ['name: response-ratelimiting, config: { limits: {} }', { todo: /costHeader/ }],
    [
      'name: ip-restriction, config: { deny: [10.0.0.1], status: 404 }',
      { route: { edge: { ipFilter: { deny: ['10.0.0.1'], status: 404 } } } }
    ],
    [
      'name: rate-limiting-advanced, config: { limit: [5, 100], window_size: [1, 60], identifier: ip, window_type: fixed }',
      {
        route: {
          edge: {
            rateLimit: [
              { max: 5, window: 1000 },
              { max: 100, window: 60_000 }
            ]
          }
        }
      }
    ],
    [
      'name: rate-limiting-advanced, config: { limit: [9], window_size: [10], strategy: redis, redis: { host: cache } }',
      {
        route: { edge: { rateLimit: { max: 9, algorithm: 'sliding-window', store: 'redis' } } },
        config: { redis: { url: 'redis://cache:6379' } }
      }
    ],
    ['name: rate-limiting-advanced, config: { limit: [] }', { todo: /no limit is set/ }],
    [
      `name: oauth2-introspection, config: { introspection_url: "https://id.example.com/introspect", authorization_value: "Basic ${basic}", ttl: 30 }`,
      {
        route: {
          edge: {
            introspection: {
              url: 'https://id.example.com/introspect',
              clientId: 'app',
              clientSecret: 'a:secret',
              maxAge: 30_000
            }
          }
        }
      }
    ],
    [
      'name: oauth2-introspection, config: { introspection_url: "https://id.example.com/introspect", authorization_value: Token }',
      { todo: /authorization_value/ }
    ],
    [
      `name: openid-connect, config: { issuer: "${issuer}/.well-known/openid-configuration", client_id: [web], client_secret: [s], auth_methods: [authorization_code, session], scopes: [openid, email], session_secret: ${'s'.repeat(32)}, logout_path: /logout }`,
      {
        route: {
          edge: {
            oidc: {
              issuer,
              clientId: 'web',
              clientSecret: 's',
              scopes: ['openid', 'email'],
              logout: { path: '/logout' },
              session: { secrets: ['s'.repeat(32)] }
            }
          }
        },
        note: /register https:\/\/HOST\/oidc\/callback/
      }
    ],
    [
      `name: openid-connect, config: { issuer: "${issuer}", auth_methods: [bearer], audience_required: [api], scopes_required: ["read write"], roles_required: [admin], roles_claim: [realm_access, roles], upstream_headers_claims: [sub], upstream_headers_names: [X-User] }`,
      {
        route: {
          edge: {
            oidc: undefined,
            jwt: { issuer, discovery: true, audience: 'api', scopes: ['read', 'write'], forward: { sub: 'x-user' } },
            acl: { roles: ['admin'], rolesClaim: 'realm_access.roles' }
          }
        }
      }
    ],
    [
      `name: openid-connect, config: { issuer: "${issuer}", client_id: [web], auth_methods: [authorization_code, bearer], session_secret: ${'s'.repeat(32)}, audience_required: [api] }`,
      {
        route: { edge: { oidc: {}, jwt: { audience: 'api' }, authentication: { require: 'any' } } },
        todo: /audience_required/
      }
    ],
    [
      `name: openid-connect, config: { issuer: "${issuer}", auth_methods: [client_credentials] }`,
      { todo: /auth_methods client_credentials/ }
    ],
    [
      `name: openid-connect, config: { issuer: "${issuer}", auth_methods: [bearer], claims_forbidden: [bot] }`,
      { todo: /claims_forbidden/ }
    ],
    ['name: pre-function, config: { access: ["return kong.response.exit(401)"] }', { todo: /pre-function/ }],
    [
      'name: request-transformer, config: { replace: { headers: ["X-A:$(headers.x-q)-{1}", "X-B:$(lua())"] }, add: { headers: ["X-C:$(query_params.p)"], querystring: ["q:$(headers[\\"X-D\\"])"] } }',
      {
        route: {
          edge: {
            headers: {
              request: { set: { 'x-a': '{headers.x-q}-{{1}}' }, add: { 'x-c': '{query.p}' }, remove: ['x-b'] }
            },
            query: { add: { q: '{headers.x-d}' } }
          }
        },
        note: /set x-b: \$\(lua\(\)\) has no counterpart: left out/
      }
    ],
    [
      'name: redirect, config: { location: "https://new.example" }',
      { route: { redirect: { to: 'https://new.example/', query: 'drop', status: 301 } } }
    ],
    [
      'name: redirect, config: { location: "https://new.example/a?b=c", status_code: 302 }',
      { route: { redirect: { to: 'https://new.example/a?b=c', query: 'drop', status: 302 } } }
    ],
    [
      'name: redirect, config: { location: "https://new.example/a", keep_incoming_path: true }',
      { route: { redirect: { to: 'https://new.example' } } }
    ],
    ['name: proxy-cache, config: { content_type: [text/plain] }', { note: /proxy-cache: content_type text\/plain/ }],
    ['name: proxy-cache, config: { request_method: [GET, POST] }', { note: /proxy-cache: request_method POST/ }],
    ['name: proxy-cache, config: { vary_query_params: [a] }', { note: /proxy-cache: vary_query_params a/ }],
    ['name: cors, config: { origins: ["*"], preflight_continue: true }', { note: /preflight_continue/ }],
    ['name: ldap-auth, config: {}', { todo: /ldap-auth/ }],
    ['name: session, config: {}', { todo: /session/ }],
    ['name: http-log, config: { http_endpoint: "http://log" }', { note: /http-log/ }]
  ]
  for (const [plugin, expected] of cases) {
    check(
      t,
      'kong',
      plugin,
      `services: [{ name: a, url: "http://a:80", routes: [{ name: r, paths: [/], strip_path: false, plugins: [{ ${plugin} }] }] }]`,
      expected
    )
  }
  const global =
    'services: [{ name: a, url: "http://a:80", routes: [{ paths: [/], strip_path: false }] }]\nplugins: [{ name: request-termination, config: { message: later } }]'
  t.match(loaded('kong', global).config.routes[0]!.edge.maintenance, { enabled: true, json: { message: 'later' } })
})

t.test('health checks of Kong', async (t) => {
  const services = 'services: [{ name: a, host: pool, routes: [{ paths: [/], strip_path: false }] }]'
  const of = (checks: string) =>
    loaded('kong', `${services}\nupstreams: [{ name: pool, targets: [{ target: "a:80" }], healthchecks: ${checks} }]`)
      .config.services.a!.mesh
  t.match(
    of(
      '{ active: { http_path: /up, timeout: 2, healthy: { interval: 5, successes: 3, http_statuses: [200, 204] }, unhealthy: { http_failures: 4, interval: 5 } } }'
    ),
    {
      healthCheck: {
        path: '/up',
        timeout: 2000,
        interval: 5000,
        healthyThreshold: 3,
        unhealthyThreshold: 4,
        statuses: [200, 204]
      }
    }
  )
  t.match(of('{ active: { type: tcp, healthy: { interval: 5 } } }'), { healthCheck: { type: 'tcp', interval: 5000 } })
  t.match(of('{ active: { healthy: { interval: 0 } } }').healthCheck, undefined)
  t.match(of('{ passive: { unhealthy: { http_failures: 7, tcp_failures: 2 } } }'), {
    outlierDetection: { consecutive5xx: 7, consecutiveGatewayFailures: 2 }
  })
})

t.test('plugins of APISIX', async (t) => {
  const secret = 's'.repeat(32)
  const cases: [plugin: string, expected: Case][] = [
    [
      'request-validation: { body_schema: { type: object, required: [a], properties: { a: { type: integer } } }, header_schema: { type: object, required: [X-A], properties: { X-A: { type: string } } } }',
      {
        route: {
          edge: {
            validation: {
              body: { content: { 'application/json': { required: ['a'] } } },
              headers: { required: ['x-a'], properties: { 'x-a': { type: 'string' } } }
            }
          }
        }
      }
    ],
    ['request-validation: {}', { todo: /write edge\.validation/ }],
    [
      'proxy-rewrite: { headers: { set: { X-A: "$remote_addr", X-B: "$http_x_id/{1}", X-C: "$geoip_city" }, add: { X-D: "$arg_p" } } }',
      {
        route: {
          edge: {
            headers: {
              request: {
                set: { 'x-a': '{request.ip}', 'x-b': '{headers.x-id}/{{1}}' },
                append: { 'x-d': '{query.p}' },
                remove: ['x-c']
              }
            }
          }
        },
        note: /proxy-rewrite: request set x-c: \$geoip_city has no counterpart: left out/
      }
    ],
    [
      'response-rewrite: { headers: { set: { X-A: "$upstream_status", X-B: "$sent_http_etag" } } }',
      {
        route: {
          edge: { headers: { response: { set: { 'x-a': '{response.status}', 'x-b': '{response.headers.etag}' } } } }
        }
      }
    ],
    [
      'limit-count: { count: 5, time_window: 60, rejected_code: 503, rejected_msg: later }',
      { route: { edge: { rateLimit: { max: 5 } } }, note: /rejected_code: refusals have status 429 here, not 503/ }
    ],
    [
      `openid-connect: { discovery: "${issuer}/.well-known/openid-configuration", client_id: web, client_secret: s, scope: "openid email", session: { secret: ${secret} }, logout_path: /logout }`,
      {
        route: {
          edge: {
            oidc: {
              issuer,
              clientId: 'web',
              scopes: ['openid', 'email'],
              session: { secrets: [secret] },
              logout: { path: '/logout' }
            }
          }
        },
        note: /register/
      }
    ],
    [
      `openid-connect: { discovery: "${issuer}/.well-known/openid-configuration", client_id: web, client_secret: s, bearer_only: true, use_jwks: true, required_scopes: [read] }`,
      { route: { edge: { jwt: { issuer, discovery: true, scopes: ['read'] } } } }
    ],
    [
      'openid-connect: { discovery: "https://id.example.com", client_id: web, client_secret: s, bearer_only: true, introspection_endpoint: "https://id.example.com/i" }',
      { route: { edge: { introspection: { url: 'https://id.example.com/i', clientId: 'web' } } } }
    ],
    [
      'openid-connect: { discovery: "https://id.example.com", client_id: web, client_secret: s, unauth_action: deny }',
      { todo: /unauth_action deny/ }
    ],
    [
      'referer-restriction: { whitelist: [a.example, "*.b.example"] }',
      { route: { edge: { authorization: { default: 'deny', rules: [{ action: 'allow' }] } } } }
    ],
    [
      'referer-restriction: { blacklist: [a.example], bypass_missing: true }',
      { route: { edge: { authorization: { default: 'allow', rules: [{ action: 'deny' }] } } } }
    ],
    [
      'fault-injection: { abort: { http_status: 503, percentage: 5 }, delay: { duration: 0.5 } }',
      { route: { mesh: { fault: { abort: { status: 503, percent: 0.05 }, delay: { for: 500 } } } } }
    ],
    ['fault-injection: { abort: { http_status: 403, vars: [[["arg_x", "==", "1"]]] } }', { todo: /write mesh\.fault/ }],
    [
      'mocking: { response_status: 201, content_type: application/json, response_example: "{}", response_headers: { X-A: b } }',
      { route: { response: { status: 201, body: '{}', contentType: 'application/json', headers: { 'x-a': 'b' } } } }
    ],
    ['csrf: { key: k }', { route: { edge: { csrf: {} } }, note: /no tokens/ }],
    [
      'gzip: { types: [text/html], min_length: 100, comp_level: 5 }, brotli: { comp_level: 3 }',
      {
        route: {
          edge: {
            compression: { encodings: ['gzip', 'br'], types: ['text/html'], minSize: 100, level: { gzip: 5, br: 3 } }
          }
        }
      }
    ],
    [
      'redirect: { regex_uri: ["^/old/(.*)", "/new/$1"], ret_code: 301 }',
      {
        route: { redirect: { status: 301, query: 'drop' }, path: { rewrite: { regex: '^/old/(.*)$', to: '/new/$1' } } }
      }
    ],
    [
      'redirect: { uri: "https://b.example$request_uri" }',
      { route: { redirect: { to: 'https://b.example', query: 'keep' } } }
    ],
    ['redirect: { http_to_https: true }', { note: /listen\.redirect/ }],
    [
      'proxy-rewrite: { regex_uri: ["^/a/(.*)", "/b/$1"], host: b.internal }',
      { route: { path: { rewrite: { regex: '^/a/(.*)$', to: '/b/$1' } }, edge: { host: 'b.internal' } } }
    ],
    [
      'consumer-restriction: { whitelist: [ann], allowed_by_methods: [{ user: ann, methods: [GET] }] }, key-auth: {}',
      { route: { edge: { acl: { allowConsumers: ['ann'] } } }, todo: /allowed_by_methods/ }
    ],
    ['uri-blocker: { block_rules: ["root.exe"] }', { todo: /uri-blocker/ }],
    ['wolf-rbac: {}', { todo: /wolf-rbac/ }],
    [
      'serverless-pre-function: { functions: ["return function() ngx.exit(403) end"] }',
      { todo: /serverless-pre-function/ }
    ],
    [
      'limit-conn: { conn: 5, burst: 2, key: remote_addr, default_conn_delay: 0.1 }',
      { route: { edge: { rateLimit: { maxConcurrent: 7 } } } }
    ],
    [
      'opa: { host: "http://opa:8181", policy: a.b }',
      { route: { edge: { forwardAuth: { url: 'http://opa:8181/v1/data/a/b', format: 'opa' } } } }
    ]
  ]
  for (const [plugin, expected] of cases) {
    check(
      t,
      'apisix',
      plugin,
      `routes: [{ id: r, uri: /*, upstream: { nodes: { "a:80": 1 } }, plugins: { ${plugin} } }]\nconsumers: [{ username: ann, plugins: { key-auth: { key: k } } }]`,
      expected
    )
  }
})

t.test('settings of KrakenD', async (t) => {
  const users = '"users":{"ann":"$2y$05$RuAfPOeANe5UoypEoNRLUu/uqFPvqN9XWhH6CmrRir4Pk1jOfoLf6","bob":"{SHA}x"}'
  const keys =
    '"auth/api-keys":{"strategy":"query_string","identifier":"k","keys":[{"key":"secret","roles":["user"],"@description":"App One"}]}'
  const cases: [all: string, endpoint: string, expected: Case][] = [
    [
      '',
      '"validation/json-schema":{"type":"object","required":["a"]}',
      { route: { edge: { validation: { body: { content: { 'application/json': { required: ['a'] } } } } } } }
    ],
    [
      '"security/http":{"sts_seconds":300,"sts_include_subdomains":true,"frame_deny":true,"content_type_nosniff":true,"content_security_policy":"default-src \'self\'"}',
      '',
      {
        route: {
          edge: {
            headers: {
              response: {
                set: {
                  'strict-transport-security': 'max-age=300; includeSubDomains',
                  'x-frame-options': 'DENY',
                  'x-content-type-options': 'nosniff',
                  'content-security-policy': "default-src 'self'"
                }
              }
            }
          }
        }
      }
    ],
    ['"security/http":{"allowed_hosts":["a.example"]}', '', { todo: /allowed_hosts a\.example/ }],
    [
      '"security/bot-detector":{"deny":["bad"],"patterns":["(curl|wget)/.*"],"allow":["good"],"empty_user_agent_is_bot":true}',
      '',
      {
        route: { edge: { userAgent: { deny: ['bad', '/^.*(?:(curl|wget)/).*$/'], except: ['good'], empty: 'refuse' } } }
      }
    ],
    [
      '"security/cors":{"allow_origins":["https://a.example"],"allow_methods":["GET"]}',
      '',
      { route: { edge: { cors: { origin: 'https://a.example', methods: ['GET'] } } } }
    ],
    ['', `"auth/basic":{${users}}`, { route: { edge: { basicAuth: {} } }, note: /user bob: a hash other than bcrypt/ }],
    [
      keys,
      '"auth/api-keys":{"roles":["user"]}',
      {
        route: { edge: { keyAuth: { header: false, query: 'k' }, acl: { allow: ['user'] } } },
        config: { consumers: { list: [{ name: 'app-one', groups: ['user'], keyAuth: { hash: /^sha256:2bb80d53/ } }] } }
      }
    ],
    ['', '"auth/api-keys":{"roles":["user"]}', { todo: /no keys are declared/ }],
    ['', '"qos/http-cache":{"shared":true}', { route: { edge: { cache: {} } } }],
    ['', '"proxy":{"static":{"data":{}}}', { note: /proxy\.static/ }],
    ['"plugin/http-server":{"name":["a"]}', '', { todo: /plugin\/http-server/ }],
    ['', '"modifier/lua-endpoint":{"pre":"x"}', { todo: /lua/ }],
    ['', '"validation/cel":[{"check_expr":"true"}]', { todo: /validation\/cel/ }]
  ]
  for (const [all, endpoint, expected] of cases) {
    const method = endpoint.includes('json-schema') ? ',"method":"POST"' : ''
    check(
      t,
      'krakend',
      all + endpoint,
      `{"version":3,"host":["http://a:80"],"extra_config":{${all}},"endpoints":[{"endpoint":"/u"${method},"input_headers":["*"],"input_query_strings":["*"],"extra_config":{${endpoint}},"backend":[{"url_pattern":"/u"}]}]}`,
      expected
    )
  }
})

t.test('KrakenD: services from DNS, calls that use responses of others, TLS', async (t) => {
  const folder = folderFor(t)
  const authorities = authority(folder, 'issuer')
  const { certFile, keyFile } = authorities.issue('site', { san: 'DNS:a.example' })
  const endpoints = [
    { endpoint: '/dns', backend: [{ host: ['http://api.service.consul'], sd: 'dns', url_pattern: '/' }] },
    {
      endpoint: '/orders/{id}',
      extra_config: { proxy: { sequential: true } },
      backend: [
        { host: ['http://orders:80'], url_pattern: '/orders/{id}', group: 'order' },
        { host: ['http://users:80'], url_pattern: '/users/{resp0_user.id}?x={resp0_order.y}', group: 'user' }
      ]
    }
  ]
  const tls = {
    keys: [{ public_key: certFile, private_key: keyFile }],
    min_version: 'TLS13',
    enable_mtls: true,
    ca_certs: [authorities.file]
  }
  const { config, todo } = loaded('krakend', JSON.stringify({ version: 3, port: 8443, tls, endpoints }))
  t.equal(todo, '')
  t.match(config.listen, {
    port: 8443,
    tls: { cert: certFile, minVersion: 'TLSv1.3', clientCertificate: { mode: 'require', ca: authorities.file } }
  })
  t.match(config.services['api-service-consul'], { dns: { host: 'api.service.consul', srv: true } })
  t.match(config.routes[1]!.compose!.calls, {
    order: { path: '/orders/{params.id}' },
    user: { path: '/users/{calls.order/user/id}', query: { x: '{calls.order/y}' } }
  })
})

t.test('APISIX: certificates', (t) => {
  const of = (ssl: string) =>
    loaded(
      'apisix',
      `routes: [{ uri: /a, upstream: { nodes: { "a:80": 1 } } }]\nssls: [{ cert: c, key: k, snis: [a.example]${ssl} }]`
    )
  t.match(of('').summary, 'ssls[0]: write listen.tls')
  t.equal(of('').todo, '')
  t.match(of(', client: { ca: x }').todo, 'ssls[0]: write listen.tls with clientCertificate')
  t.end()
})
