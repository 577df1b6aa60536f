/**
 * Configurations of other gateways that are public, written for Jingwei, and requests that prove each. In the texts,
 * `http://NAME` is an echo service of that name, `sha256(KEY)` the hash of an API key, and `bcrypt(PASSWORD)` that of a password.
 */
import { claims, keys, secret, token } from '../helpers/edge/tokens.ts'

/** Expectation of a response: its status, or the service, what it has seen, and headers of the response. */
type Expected =
  | number
  | { status?: number; service?: string; url?: string; headers?: object; response?: object; body?: object }

/**
 * A request: `GET /path`, for a WebSocket `WS /path`, at another listener `GET :NAME/path`; its headers, and what follows. A
 * list is that of several equal requests: their statuses in order, or the names of their services in any order. Over TLS, the
 * server name is that of `host`; `:servername`, `:ciphers` and `:version` are for the handshake. The status of one that fails is 0. Last, its body.
 */
export type Ask = readonly [
  line: string,
  headers: Readonly<Record<string, string>>,
  Expected | number[] | string[],
  body?: string
]

export interface Translation {
  readonly name: string
  readonly yaml: string
  readonly asks: readonly Ask[]
  /** Lines that a file in the folder LOGS has afterwards. */
  readonly logged?: { readonly file: string; readonly lines: readonly RegExp[] }
  /** A line of metrics that the receiver INFLUX has got afterwards. */
  readonly pushed?: RegExp
}

const none = {}
const basic = (text: string) => ({ authorization: `Basic ${Buffer.from(text).toString('base64')}` })
const bearer = (more: object, key?: { privateKey: (typeof keys)['rsa']['privateKey'] }) => ({
  authorization: `Bearer ${token(claims(more as Record<string, unknown>), key ?? secret, key && { alg: 'RS256', kid: 'one' })}`
})
const signed = (more: object) => token(claims(more as Record<string, unknown>))
const preflight = (origin: string) => ({ origin, 'access-control-request-method': 'GET' })
const from = (address: string) => ({ 'x-forwarded-for': address })
const allowed = (origin: string) => ({
  response: { 'access-control-allow-origin': origin, 'access-control-allow-credentials': 'true' }
})

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: variables of the configuration
export const translations: readonly Translation[] = [
  {
    name: 'Kong, kitchen orders: a service with a base path, methods, a prefix that is rewritten',
    yaml: `
services: { kitchen: { instances: ["http://kitchen/kitchen"] } }
routes:
  - { name: orders, match: { path: /orders, methods: [GET, POST] }, service: kitchen }
  - { name: menu, match: { path: /menu }, service: kitchen, path: { rewrite: { prefix: /v2/dishes } } }`,
    asks: [
      ['POST /orders/7', none, { service: 'kitchen', url: '/kitchen/orders/7' }],
      ['DELETE /orders/7', none, 405],
      ['GET /menu/soups?hot', none, { url: '/kitchen/v2/dishes/soups?hot' }]
    ]
  },
  {
    name: 'Kong, interbank switch: key-auth with consumers, CORS, a prefix that is stripped',
    yaml: `
services: { switch: { instances: ["http://switch"] } }
edge: { cors: { origin: "https://ops.example.com" } }
routes:
  - name: transfers
    match: { path: /switch/transfers, methods: [GET, POST] }
    service: switch
    path: { strip: /switch }
    edge: { keyAuth: { header: apikey }, authentication: { forward: { id: x-consumer-username } } }
consumers:
  - { name: bank-a, keyAuth: { hash: "sha256(bank-a-key)" } }
  - { name: bank-b, keyAuth: { hash: "sha256(bank-b-key)" } }`,
    asks: [
      ['GET /switch/transfers', none, 401],
      ['GET /switch/transfers', { apikey: 'bank-c-key' }, 401],
      [
        'POST /switch/transfers/7',
        { apikey: 'bank-b-key', 'x-consumer-username': 'bank-a' },
        { url: '/transfers/7', headers: { 'x-consumer-username': 'bank-b', apikey: undefined } }
      ],
      ['OPTIONS /switch/transfers', preflight('https://ops.example.com'), 204]
    ]
  },
  {
    name: 'Kong, ledger: prefixes that are stripped or rewritten',
    yaml: `
services: { ledger: { instances: ["http://ledger"] }, balances: { instances: ["http://balances"] } }
routes:
  - { name: ledger, match: { path: /ledger }, service: ledger, path: { strip: true } }
  - { name: balances, match: { path: /balances }, service: balances, path: { rewrite: { prefix: /api/v1/balances } } }`,
    asks: [
      ['GET /ledger/entries?page=2', none, { service: 'ledger', url: '/entries?page=2' }],
      ['GET /balances/7', none, { service: 'balances', url: '/api/v1/balances/7' }]
    ]
  },
  {
    name: 'Kong, parcels: one limit over several routes, CORS for any origin with credentials',
    yaml: `
services: { parcels: { instances: ["http://parcels"] }, couriers: { instances: ["http://couriers"] } }
edge:
  cors: { origin: "/^https?://.+$/", credentials: true }
  rateLimit: { name: all, max: 3, window: 1h }
routes:
  - { name: parcels, match: { path: /parcels }, service: parcels, path: { strip: true } }
  - { name: couriers, match: { path: /couriers }, service: couriers, path: { strip: true } }`,
    asks: [
      ['GET /parcels/7', { origin: 'http://any.example' }, { url: '/7', ...allowed('http://any.example') }],
      ['GET /couriers/7', none, [200, 200, 429]],
      ['GET /parcels/7', none, 429]
    ]
  },
  {
    name: 'Kong, fitness app: several paths on one route, one limit over several routes',
    yaml: `
services: { gyms: { instances: ["http://gyms"] }, plans: { instances: ["http://plans"] } }
edge: { cors: { origin: "*" }, rateLimit: { name: app, max: 2, window: 1m } }
routes:
  - { name: gyms, match: { path: [/api/gyms, /api/classes, /api/trainers], methods: [GET] }, service: gyms, path: { strip: /api } }
  - { name: plans, match: { path: /api/plans }, service: plans, path: { strip: /api } }`,
    asks: [
      ['GET /api/trainers/7', none, { service: 'gyms', url: '/trainers/7' }],
      ['GET /api/plans', none, [200, 429]],
      ['GET /api/classes', none, 429]
    ]
  },
  {
    name: 'Kong, farm credit: keys and tokens, several windows in Redis, a limit of one consumer, addresses, sizes, timeouts',
    yaml: `
listen: { host: 127.0.0.1, port: 0, trustProxy: [127.0.0.1] }
redis: { url: "\${REDIS}" }
services: { loans: { instances: ["http://127.0.0.1:1", "http://loans"], mesh: { timeout: 5s, retry: { attempts: 2, on: [connect-failure] } } } }
edge:
  requestId: { header: x-correlation-id }
  cors: { origin: ["https://*.farm.example"], credentials: true }
  bodyLimit: 1kb
routes:
  - name: loan
    match: { path: "/v1/loans/:id(^[0-9]+$)", methods: [GET] }
    service: loans
    edge:
      keyAuth: { header: x-api-key }
      rateLimit: [{ max: 2, window: 1m, by: consumer, store: redis }, { max: 100, window: 30d, by: consumer, store: redis }]
  - name: report
    match: { path: { exact: /v1/reports }, methods: [POST] }
    service: loans
    edge: { jwt: { secret: "${secret}", algorithms: [HS256], forward: { sub: x-farmer } }, ipFilter: { allow: [10.1.0.0/16] } }
consumers:
  - { name: app, keyAuth: { hash: "sha256(app-key)" } }
  - { name: partner, keyAuth: { hash: "sha256(partner-key)" }, edge: { rateLimit: { max: 3, window: 1m, by: consumer, store: redis } } }`,
    asks: [
      ['GET /v1/loans/7', { 'x-api-key': 'app-key' }, [200, 200, 429]],
      ['GET /v1/loans/7', { 'x-api-key': 'partner-key' }, [200, 200, 200, 429]],
      ['GET /v1/loans/seven', { 'x-api-key': 'app-key' }, 404],
      ['POST /v1/reports', { ...bearer({ sub: 'ann' }), ...from('10.1.2.3') }, { headers: { 'x-farmer': 'ann', authorization: /^Bearer/ } }],
      ['POST /v1/reports', { ...bearer({ sub: 'ann' }), ...from('10.2.0.1') }, 403],
      ['POST /v1/reports', from('10.1.2.3'), 401],
      ['POST /v1/reports', { ...bearer({ sub: 'ann' }), ...from('10.1.2.3'), 'content-length': '2000' }, 413],
      ['GET /v1/loans/7', { 'x-api-key': 'none', origin: 'https://a.farm.example' }, allowed('https://a.farm.example')]
    ]
  },
  {
    name: 'Kong, event payments: tokens with a static key, one limit over several routes',
    yaml: `
services: { payments: { instances: ["http://payments"] }, tickets: { instances: ["http://tickets"] } }
edge: { jwt: { secret: "${secret}", algorithms: [HS256] }, rateLimit: { name: api, max: 3, window: 1h } }
routes:
  - { name: pay, match: { path: /payments, methods: [POST] }, service: payments }
  - { name: tickets, match: { path: /tickets, methods: [GET] }, service: tickets }
  - { name: hooks, match: { path: /payments/webhook, methods: [POST] }, service: payments, edge: { jwt: false } }`,
    asks: [
      ['POST /payments', none, 401],
      ['POST /payments', bearer({}), { service: 'payments' }],
      ['POST /payments/webhook', none, 200],
      ['GET /tickets', bearer({}), 429]
    ]
  },
  {
    name: 'Kong, study helper: a token in a cookie or the query, roles, scopes, one limit over several routes, CORS',
    yaml: `
services: { notes: { instances: ["http://notes"] }, tutor: { instances: ["http://tutor"] } }
edge:
  cors: { origin: ["https://*.study.example"], credentials: true }
  jwt: { secret: "${secret}", algorithms: [HS256], from: { cookie: session, query: jwt } }
  rateLimit: { name: study, max: 3, window: 1h }
routes:
  - { name: notes, match: { path: /notes }, service: notes, edge: { acl: { scopes: ["notes:read"] } } }
  - { name: tutor, match: { path: /tutor }, service: tutor, edge: { acl: { roles: [teacher], rolesClaim: realm_access.roles } } }`,
    asks: [
      ['GET /notes', { cookie: `a=b; session=${signed({ scope: 'notes:read' })}` }, { service: 'notes', headers: { cookie: 'a=b' } }],
      ['GET /notes', { cookie: `session=${signed({ scope: 'notes:write' })}` }, 403],
      [`GET /tutor?x=1&jwt=${signed({ realm_access: { roles: ['teacher'] } })}`, none, { url: '/tutor?x=1' }],
      ['GET /notes', { cookie: `session=${signed({ scope: 'notes:read' })}` }, 429]
    ]
  },
  {
    name: 'Kong, blue, green and red: weights of instances',
    yaml: `
services:
  app: { instances: [{ url: "http://blue", weight: 2 }, { url: "http://green", weight: 1 }, { url: "http://red", weight: 1 }] }
mesh: { balance: round-robin }
routes: [{ name: app, match: { path: /, methods: [GET] }, service: app }]`,
    asks: [['GET /', none, ['blue', 'blue', 'green', 'red']]]
  },
  {
    name: 'Kong, city services: CORS with credentials, body size, exact paths, consumers',
    yaml: `
services: { waste: { instances: ["http://waste"] }, permits: { instances: ["http://permits"] } }
edge: { cors: { origin: ["https://city.example", "http://localhost:*"], credentials: true }, bodyLimit: 1kb }
routes:
  - { name: waste, match: { path: /waste }, service: waste, path: { strip: true }, edge: { rateLimit: { max: 1, window: 1m } } }
  - { name: permits, match: { path: { exact: /permits }, methods: [GET, POST] }, service: permits, path: { rewrite: { path: /v1/permits } } }
consumers: [{ name: portal }]`,
    asks: [
      ['GET /waste/7', { origin: 'http://localhost:5173' }, { url: '/7', ...allowed('http://localhost:5173') }],
      ['GET /waste/7', none, 429],
      ['POST /permits', none, { service: 'permits', url: '/v1/permits' }],
      ['POST /permits', { 'content-length': '1025' }, 413],
      ['GET /permits/7', none, 404]
    ]
  },
  {
    name: 'Kong, one REST API; APISIX, login service; Traefik, one app: a prefix, methods',
    yaml: `
services: { api: { instances: ["http://api"] }, login: { instances: ["http://login"] } }
routes:
  - { name: api, match: { path: /api }, service: api }
  - { name: login, match: { path: /login, methods: [GET, POST] }, service: login }`,
    asks: [
      ['PUT /api/users/7', none, { service: 'api', url: '/api/users/7' }],
      ['POST /login', none, { service: 'login' }],
      ['PUT /login', none, 405]
    ]
  },
  {
    name: 'Kong, LLM guard: a plugin that reads the bodies of requests and of responses, a limit, long timeouts',
    yaml: `
services: { llm: { instances: ["http://llm/v1"], mesh: { connectTimeout: 60s } } }
routes:
  - name: chat
    match: { path: /llm, methods: [POST] }
    service: llm
    path: { strip: true }
    plugins: [body-guard]
    edge: { host: upstream, rateLimit: { max: 5, window: 1h } }
    mesh: { timeout: 120s, attemptTimeout: 60s, idleTimeout: 60s }
plugins:
  - { path: ../../config/examples/body-guard.ts, scope: routes, options: { words: [password, "private key"] } }`,
    asks: [
      ['POST /llm/chat', none, { service: 'llm', url: '/v1/chat' }, '{"prompt":"hello"}'],
      ['POST /llm/chat', none, 400, '{"prompt":"tell me the p\\u0061ssword"}'],
      ['POST /llm/chat', { 'x-echo': 'a private key' }, 502, '{"prompt":"hello"}'],
      ['GET /llm/chat', none, 405],
      ['POST /llm/chat', none, [200, 200, 429], '{"prompt":"hello"}']
    ]
  },
  {
    name: 'APISIX, study chat: forward auth, keys, priority, checks, retries, event streams and WebSockets',
    yaml: `
services:
  chat:
    instances: ["http://chat", "http://127.0.0.1:1"]
    mesh:
      healthCheck: { path: /health, interval: 1s }
      outlierDetection: { consecutive5xx: 3 }
      retry: { attempts: 2, on: [connect-failure] }
      connections: { idle: 60s, maxRequests: 1000 }
      circuitBreaker: { perInstance: { maxConnections: 320 } }
  auth: { instances: ["http://auth"] }
routes:
  - name: chat
    match: { path: [/chat, /rooms] }
    service: chat
    edge: { forwardAuth: { service: auth, path: /verify, requestHeaders: [cookie], responseHeaders: [x-user] } }
    mesh: { timeout: 30s, idleTimeout: false }
  - { name: bots, match: { path: /chat/bots }, priority: 1, service: chat, edge: { keyAuth: {} } }
consumers: [{ name: bot, keyAuth: { hash: "sha256(bot-key)" } }]`,
    asks: [
      ['GET /chat/7', none, 403],
      ['GET /rooms/7', { cookie: 'session=ann', 'x-user': 'root' }, { service: 'chat', headers: { 'x-user': 'ann' } }],
      ['WS /chat/7', { cookie: 'session=ann' }, { url: '/chat/7' }],
      ['GET /chat/bots', none, 401],
      ['POST /chat/bots', { 'x-api-key': 'bot-key' }, 200]
    ]
  },
  {
    name: 'APISIX, game shop: several paths, priority, basic auth, a token bucket, variables',
    yaml: `
services: { shop: { instances: ["\${SHOP:-http://shop}"] }, admin: { instances: ["http://admin"] } }
routes:
  - name: shop
    match: { path: [/shop, /cart] }
    service: shop
    edge: { rateLimit: { algorithm: token-bucket, max: 1, window: 1h, burst: 3 } }
  - { name: admin, match: { path: /shop/admin }, priority: 10, service: admin, edge: { basicAuth: { realm: shop } } }
consumers: [{ name: admin, basicAuth: { username: admin, hash: "bcrypt(secret)" } }]`,
    asks: [
      ['GET /shop', none, [200, 200, 200, 429]],
      ['GET /shop/admin', none, { response: { 'www-authenticate': /^Basic realm="shop"/ } }],
      ['GET /shop/admin', basic('admin:wrong'), 401],
      ['GET /shop/admin', basic('admin:secret'), { service: 'admin', headers: { authorization: undefined } }]
    ]
  },
  {
    name: 'APISIX, Connect RPC shop: methods, CORS, variables',
    yaml: `
services: { rpc: { instances: ["\${RPC:-http://rpc}"] } }
edge: { cors: { origin: "\${ORIGIN:-https://shop.example}", allowedHeaders: [connect-protocol-version, content-type] } }
routes: [{ name: rpc, match: { path: /shop.v1.Cart, methods: [GET, POST] }, service: rpc }]`,
    asks: [
      ['POST /shop.v1.Cart/Add', { 'connect-protocol-version': '1' }, { headers: { 'connect-protocol-version': '1' } }],
      ['OPTIONS /shop.v1.Cart/Add', preflight('https://shop.example'), 204]
    ]
  },
  {
    name: 'Traefik: by host, by a prefix within a segment, by priority',
    yaml: `
services: { search: { instances: ["http://search"] }, graphs: { instances: ["http://graphs"] }, site: { instances: ["http://site"] }, users: { instances: ["http://users"] } }
routes:
  - { name: search, match: { path: /, hosts: [search.example.com] }, service: search }
  - { name: graphs, match: { path: /, hosts: [graphs.example.com] }, service: graphs }
  - { name: users, match: { path: "/user*" }, service: users }
  - { name: admin, match: { path: /admin }, service: users, priority: 2 }
  - { name: legacy, match: { path: /admin/old }, service: site }
  - { name: site, match: { path: / }, service: site }`,
    asks: [
      ['GET /x', { host: 'graphs.example.com' }, { service: 'graphs' }],
      ['GET /users/7', { host: 'search.example.com' }, { service: 'search' }],
      ['GET /users/7', none, { service: 'users', url: '/users/7' }],
      ['GET /admin/old', none, { service: 'users' }],
      ['GET /', none, { service: 'site' }]
    ]
  },
  {
    name: 'Traefik, dev containers: forward auth that redirects to a login',
    yaml: `
services: { ide: { instances: ["http://ide"] } }
routes:
  - name: ide
    match: { path: / }
    service: ide
    edge: { forwardAuth: { url: "http://auth/verify", requestHeaders: [cookie], responseHeaders: [x-user] } }`,
    asks: [
      ['GET /workspace', none, 403],
      ['GET /workspace', { cookie: 'login=1' }, { response: { location: 'https://login.example/' } }],
      ['WS /workspace', { cookie: 'session=ann' }, { url: '/workspace' }],
      ['GET /workspace', { cookie: 'session=bob', 'x-user': 'ann' }, { headers: { 'x-user': 'bob' } }]
    ]
  },
  {
    name: 'Traefik, photos; nginx, field services: two listeners, weights, a host',
    yaml: `
listen: [{ name: public, host: 127.0.0.1, port: 0 }, { name: internal, host: 127.0.0.1, port: 0 }]
services:
  photos: { instances: [{ url: "http://one", weight: 3 }, { url: "http://two", weight: 1 }], mesh: { balance: round-robin } }
  jobs: { instances: ["http://jobs"] }
routes:
  - { name: photos, match: { path: /, hosts: [photos.example.com] }, service: photos }
  - { name: jobs, match: { path: "/job*", listeners: [internal] }, service: jobs }`,
    asks: [
      ['GET /', { host: 'photos.example.com' }, ['one', 'one', 'one', 'two']],
      ['GET :internal/jobs/7', none, { service: 'jobs' }],
      ['GET /jobs/7', none, 404]
    ]
  },
  {
    name: 'Traefik, static site: compression, headers of responses',
    yaml: `
edge:
  compression: { encodings: [gzip, br], minSize: 1b }
  headers: { response: { set: { strict-transport-security: max-age=31536000, x-frame-options: DENY }, remove: [server] } }
services: { site: { instances: ["http://site"] } }
routes:
  - { name: site, match: { path: /, hosts: [www.example.com] }, service: site }`,
    asks: [
      [
        'GET /',
        { host: 'www.example.com', 'accept-encoding': 'br;q=0.5, gzip' },
        { response: { 'content-encoding': 'gzip', vary: 'Accept-Encoding', 'x-frame-options': 'DENY' } }
      ],
      ['GET /a', { host: 'www.example.com' }, { service: 'site', url: '/a', response: { 'x-frame-options': 'DENY' } }],
      ['GET /', { host: 'other.example.com' }, 404]
    ]
  },
  {
    name: 'Kong, incident desk: claims and fixed headers for the service, one limit over several routes, a header as match',
    yaml: `
services: { incidents: { instances: ["http://incidents"] }, chat: { instances: ["http://chat"] } }
edge:
  jwt: { secret: "\${JWT}", algorithms: [HS256] }
  rateLimit: { name: desk, max: 4, window: 1h }
  headers: { request: { set: { x-user-id: "{claims/sub}", x-tenant: "{claims/org/id|none}", x-gateway: kong }, remove: [authorization] } }
routes:
  - { name: incidents, match: { path: /incidents }, service: incidents }
  - { name: beta, match: { path: /incidents, headers: { x-beta: "1" } }, service: chat }
  - { name: chat, match: { path: /chat }, service: chat }`,
    asks: [
      [
        'GET /incidents/7',
        { ...bearer({ sub: 'ann', org: { id: 7 } }), 'x-user-id': 'eve', x_tenant: '8' },
        {
          service: 'incidents',
          headers: { 'x-user-id': 'ann', 'x-tenant': '7', x_tenant: undefined, 'x-gateway': 'kong', authorization: undefined }
        }
      ],
      ['GET /incidents/7', { ...bearer({}), 'x-beta': '1' }, { service: 'chat', headers: { 'x-tenant': 'none' } }],
      ['WS /chat', bearer({}), 101],
      ['GET /chat', none, 401],
      ['GET /chat', bearer({}), 429]
    ]
  },
  {
    name: 'Traefik, middlewares; static site: headers of responses, a token bucket, compression',
    yaml: `
services: { site: { instances: ["http://site"] } }
groups:
  secured:
    edge:
      rateLimit: { algorithm: token-bucket, max: 1, window: 1h, burst: 2 }
      securityHeaders:
        override: true
        strictTransportSecurity: { maxAge: 730d, includeSubDomains: true, preload: true }
        xFrameOptions: DENY
        contentSecurityPolicy: "default-src 'self'"
        permissionsPolicy: "camera=(), microphone=()"
      headers: { response: { set: { x-robots-tag: "none,noarchive" }, remove: [server, content-type] } }
routes:
  - { name: site, match: { path: / }, service: site, group: secured }`,
    asks: [
      [
        'GET /',
        none,
        {
          service: 'site',
          response: {
            'x-frame-options': 'DENY',
            'content-security-policy': "default-src 'self'",
            'permissions-policy': 'camera=(), microphone=()',
            'x-content-type-options': 'nosniff',
            'x-robots-tag': 'none,noarchive',
            'content-type': undefined,
            'strict-transport-security': undefined
          }
        }
      ],
      ['GET /', none, [200, 429]],
      ['GET /', none, { response: { 'x-frame-options': 'DENY', 'x-robots-tag': 'none,noarchive' } }]
    ]
  },
  {
    name: 'Traefik, video site: https only, TLS options, strict SNI, a block of concerns that several routes use',
    yaml: `
listen:
  - { name: web, host: 127.0.0.1, port: 0, redirect: https }
  - name: secure
    host: 127.0.0.1
    port: 0
    http2: true
    tls:
      cert: "\${CERT}"
      key: "\${KEY}"
      strict: true
      minVersion: TLSv1.2
      ciphers: [ECDHE-ECDSA-AES256-GCM-SHA384, ECDHE-RSA-AES256-GCM-SHA384]
services: { player: { instances: ["http://player"] }, api: { instances: ["http://api"] } }
groups:
  secured:
    match: { path: /, hosts: [video.example] }
    edge:
      rateLimit: { algorithm: token-bucket, max: 1, window: 1h, burst: 3, by: ip, name: site }
      compression: { minSize: 1b }
      securityHeaders: { override: true, strictTransportSecurity: { maxAge: 365d, includeSubDomains: true, preload: true }, xFrameOptions: SAMEORIGIN }
      headers: { response: { set: { x-robots-tag: noindex }, remove: [server, x-powered-by, x-version] } }
routes:
  - { name: player, group: secured, service: player }
  - { name: api, group: secured, match: { path: /api }, service: api, path: { strip: true } }`,
    asks: [
      ['GET :web/watch?v=7', { host: 'video.example' }, 308],
      ['GET :web/', { host: 'other.example' }, 404],
      [
        'GET :secure/api/list',
        { host: 'video.example' },
        {
          service: 'api',
          url: '/list',
          headers: { 'x-forwarded-proto': 'https' },
          response: {
            'strict-transport-security': 'max-age=31536000; includeSubDomains; preload',
            'x-frame-options': 'SAMEORIGIN',
            'x-robots-tag': 'noindex',
            'x-version': undefined
          }
        }
      ],
      [
        'GET :secure/',
        { host: 'video.example', 'accept-encoding': 'gzip', ':version': 'TLSv1.2', ':ciphers': 'ECDHE-ECDSA-AES256-GCM-SHA384' },
        { response: { 'content-encoding': 'gzip', 'x-robots-tag': 'noindex' } }
      ],
      ['GET :secure/', { host: 'video.example' }, [200, 429]],
      ['GET :secure/api', { host: 'video.example' }, 429],
      ['GET :secure/', { host: 'video.example', ':version': 'TLSv1.2', ':ciphers': 'ECDHE-ECDSA-AES128-GCM-SHA256' }, 0],
      ['GET :secure/', { host: 'video.example', ':version': 'TLSv1.1', ':ciphers': 'ALL@SECLEVEL=0' }, 0],
      ['GET :secure/', { host: 'video.example', ':servername': 'other.example' }, 0],
      ['GET :secure/', { host: 'video.example', ':servername': '' }, 0]
    ]
  },
  {
    name: 'KrakenD, project portal; clinic hub; courses: lists of headers and parameters, parameters in paths, nested claims',
    yaml: `
services: { projects: { instances: ["http://projects"] } }
edge: { host: projects.internal }
routes:
  - name: project
    match: { path: "/v1/projects/:id", methods: [GET] }
    service: projects
    path: { rewrite: { path: "/api/project/:id" } }
    edge:
      jwt: { jwks: "\${JWKS}", algorithms: [RS256] }
      acl: { roles: [editor], rolesClaim: realm_access.roles }
      query: { only: [page, sort] }
      headers:
        request:
          only: [accept-language, authorization]
          set: { x-roles: "{claims/realm_access/roles}", x-project: "{params.id}" }
        response: { set: { cache-control: "no-store" } }
  - name: open
    match: { path: /v1/projects, methods: [GET] }
    service: projects
    edge: { query: { only: [page] }, headers: { request: { only: [accept-language] } } }`,
    asks: [
      [
        'GET /v1/projects/7?page=2&admin=1&sort=%61',
        { ...bearer({ realm_access: { roles: ['editor', 'a'] } }, keys.rsa), 'accept-language': 'de', cookie: 'a=b', 'x-roles': 'admin' },
        {
          url: '/api/project/7?page=2&sort=%61',
          headers: {
            host: 'projects.internal',
            'accept-language': 'de',
            authorization: /^Bearer/,
            'x-roles': 'editor,a',
            'x-project': '7',
            cookie: undefined
          },
          response: { 'cache-control': 'no-store' }
        }
      ],
      ['GET /v1/projects/7', bearer({ realm_access: { roles: ['a'] } }, keys.rsa), 403],
      [
        'GET /v1/projects?sort=a&page=1',
        { 'x-roles': 'admin', x_project: '8', 'user-agent': 'a' },
        { url: '/v1/projects?page=1', headers: { 'x-roles': undefined, x_project: undefined, 'user-agent': undefined } }
      ]
    ]
  },
  {
    name: 'Spring Cloud Gateway, two services; event booking: found in Eureka, prefixes that are stripped',
    yaml: `
discovery: { eureka: { urls: ["\${EUREKA}"] } }
services: { orders: {}, users: {} }
routes:
  - { name: orders, match: { path: /orders }, service: orders }
  - { name: users, match: { path: /api/users }, service: users, path: { strip: /api } }`,
    asks: [
      ['GET /orders/7', none, { service: 'orders', url: '/orders/7' }],
      ['GET /api/users/7', none, { service: 'users', url: '/users/7' }]
    ]
  },
  {
    name: 'Spring Cloud Gateway, mock bank: RequestRateLimiter in Redis, by a header',
    yaml: `
redis: { url: "\${REDIS}" }
services: { bank: { instances: ["http://bank"] } }
routes:
  - name: bank
    match: { path: /bank }
    service: bank
    edge:
      rateLimit: { algorithm: token-bucket, max: 60, window: 1h, burst: 2, by: "header:x-client", maxPerAddress: 4, store: redis, headers: x-ratelimit }`,
    asks: [
      ['GET /bank', { 'x-client': 'a' }, { response: { 'x-ratelimit-remaining': '1' } }],
      ['GET /bank', { 'x-client': 'a' }, [200, 429]],
      ['GET /bank', { 'x-client': 'b' }, 200]
    ]
  },
  {
    name: 'Spring Cloud Gateway, payments: tokens with a static key, CORS, variables, stripped and rewritten prefixes',
    yaml: `
services: { pay: { instances: ["http://pay"] }, docs: { instances: ["http://docs"] } }
edge: { cors: { origin: "\${APP:-https://app.example}" }, jwt: { secret: "\${JWT}", algorithms: [HS256], forward: { sub: x-user-id } } }
routes:
  - { name: pay, match: { path: /api/payments }, service: pay, path: { strip: /api } }
  - { name: docs, match: { path: /docs }, service: docs, path: { rewrite: { prefix: /v3/api-docs } }, edge: { jwt: false } }`,
    asks: [
      ['GET /api/payments/7', none, 401],
      ['GET /api/payments/7', { ...bearer({ sub: '42' }), 'x-user-id': '1' }, { url: '/payments/7', headers: { 'x-user-id': '42' } }],
      ['GET /docs', none, { service: 'docs', url: '/v3/api-docs' }]
    ]
  },
  {
    name: 'express-gateway, health platform: a key set, a prefix within a segment, CORS',
    yaml: `
services: { health: { instances: ["http://health"] } }
edge: { cors: { origin: "*" } }
routes:
  - name: patients
    match: { path: "/patient*" }
    service: health
    path: { strip: true }
    edge: { jwt: { jwks: "\${JWKS}", issuer: https://id.example, algorithms: [RS256] } }`,
    asks: [
      ['GET /patients/7', none, 401],
      ['GET /patients/7', bearer({ iss: 'https://id.example' }), 401],
      ['GET /patients/7', bearer({ iss: 'https://id.example' }, keys.rsa), { service: 'health', url: '/s/7' }]
    ]
  },
  {
    name: 'express-gateway, shared trips: parameters, exact paths, methods, a rate limit, the access log',
    yaml: `
services: { trips: { instances: ["\${TRIPS:-http://trips}"] } }
edge: { cors: { origin: "*" }, accessLog: true, rateLimit: { max: 3, window: 1m } }
routes:
  - { name: trips, match: { path: { exact: /trips }, methods: [GET, POST] }, service: trips }
  - { name: seats, match: { path: "/trips/:id/seats", methods: [PUT] }, service: trips }`,
    asks: [
      ['GET /trips', none, [200, 200, 200, 429]],
      ['PUT /trips/7/seats', none, { url: '/trips/7/seats' }],
      ['GET /trips/7', none, 404]
    ]
  },
  {
    name: 'APISIX, vouchers: one limit over several routes, CORS, own texts for errors',
    yaml: `
services: { vouchers: { instances: ["http://vouchers"] } }
edge:
  cors: { origin: "https://shop.example.com" }
  rateLimit: { name: vouchers, max: 2, window: 1m, by: ip }
  errorPages:
    pages:
      JW_RATE_LIMITED: { json: '{"error_code": {{status}}, "error_msg": "Too many requests"}' }
      default: { json: '{"error_code": {{status}}, "error_msg": "{{reason}}"}' }
routes:
  - { name: list, match: { path: /vouchers, methods: [GET] }, service: vouchers }
  - { name: redeem, match: { path: /redeem, methods: [POST] }, service: vouchers }`,
    asks: [
      ['GET /vouchers', none, { service: 'vouchers' }],
      ['POST /redeem', none, { service: 'vouchers' }],
      ['POST /redeem', none, { body: { error_code: 429, error_msg: 'Too many requests' } }],
      ['DELETE /redeem', none, { body: { error_code: 405, error_msg: 'Method Not Allowed' } }]
    ]
  },
  {
    name: 'APISIX, flash sale: keys, a token bucket, breakers of single routes by failures in a row, rewritten paths',
    yaml: `
services: { sale: { instances: ["http://sale"] }, stock: { instances: ["http://127.0.0.1:1"] } }
edge: { keyAuth: { header: apikey }, authentication: { forward: { id: x-consumer-username } } }
mesh: { retry: false }
routes:
  - name: buy
    match: { path: { exact: /sale/buy }, methods: [POST] }
    service: sale
    path: { rewrite: { path: /api/v1/orders } }
    edge: { rateLimit: { algorithm: token-bucket, max: 1, window: 1h, burst: 2, by: consumer } }
    mesh: { circuitBreaker: { consecutiveFailures: 3, failureStatuses: [500, 502, 503], errorRatio: false, slowRatio: false } }
  - name: stock
    match: { path: { exact: /sale/stock }, methods: [GET] }
    service: stock
    path: { rewrite: { path: /api/v1/stock } }
    mesh:
      circuitBreaker: { consecutiveFailures: 3, errorRatio: false, slowRatio: false, openFor: 2s, maxOpenFor: 300s, consecutiveSuccesses: 3, rampFor: 0 }
      fallback: [{ on: [circuit-open], status: 503, headers: { content-type: application/json }, body: '{"msg":"busy"}' }]
  - { name: prices, match: { path: /sale/prices }, service: stock }
consumers:
  - { name: app, keyAuth: { hash: "sha256(app-key)" } }
  - { name: kiosk, keyAuth: { hash: "sha256(kiosk-key)" } }`,
    asks: [
      ['POST /sale/buy', none, 401],
      ['GET /sale/buy', { apikey: 'app-key' }, 405],
      ['POST /sale/buy', { apikey: 'app-key' }, { url: '/api/v1/orders', headers: { 'x-consumer-username': 'app' } }],
      ['POST /sale/buy', { apikey: 'app-key' }, [200, 429]],
      ['POST /sale/buy', { apikey: 'kiosk-key' }, 200],
      ['GET /sale/stock', { apikey: 'app-key' }, [502, 502, 502, 503]],
      ['GET /sale/stock', { apikey: 'app-key' }, { body: { msg: 'busy' } }],
      ['GET /sale/prices', { apikey: 'app-key' }, 502]
    ]
  },
  {
    name: 'APISIX, article API: a breaker of one route by failures in a row, tokens in a cookie or the query, headers, addresses, checks, retries, tracing',
    yaml: `
listen: { host: 127.0.0.1, port: 0, trustProxy: [127.0.0.1] }
tracing: { otlp: { http: { endpoint: "http://collector/v1/traces" } }, serviceName: articles, sampleRate: 100% }
services:
  articles:
    instances: ["http://articles", "http://127.0.0.1:1"]
    mesh: { healthCheck: { path: /health }, retry: { attempts: 2, on: [connect-failure] }, timeout: 6s, connectTimeout: 1s }
  drafts: { instances: ["http://127.0.0.1:1"], mesh: { retry: false } }
edge:
  requestId: { header: x-request-id }
  cors: { origin: "*" }
  jwt: { secret: "\${JWT}", algorithms: [HS256], from: { cookie: jwt, query: jwt }, forward: { sub: x-author } }
  headers: { request: { set: { x-gateway: apisix } }, response: { set: { x-api: articles } } }
routes:
  - name: articles
    match: { path: /api/articles, methods: [GET, POST] }
    service: articles
    path: { rewrite: { prefix: /v1/articles } }
    edge: { rateLimit: { algorithm: token-bucket, max: 1, window: 1h, burst: 3, by: consumer } }
  - name: drafts
    match: { path: { exact: /api/drafts } }
    service: drafts
    mesh: { circuitBreaker: { consecutiveFailures: 2, errorRatio: false, slowRatio: false, openFor: 2s, maxOpenFor: 60s, consecutiveSuccesses: 2, rampFor: 0 } }
  - { name: export, match: { path: { exact: /api/export } }, service: drafts }
  - { name: admin, match: { path: /api/admin }, service: articles, edge: { ipFilter: { allow: [10.0.0.0/8] } } }
  - { name: ping, match: { path: { exact: /ping } }, response: { body: pong }, edge: { jwt: false } }
consumers: [{ name: ann, jwt: { sub: ann } }]`,
    asks: [
      ['GET /api/articles', none, 401],
      [
        'GET /api/articles/7',
        { cookie: `jwt=${signed({ sub: 'ann' })}` },
        {
          url: '/v1/articles/7',
          headers: { 'x-author': 'ann', 'x-gateway': 'apisix', 'x-request-id': /./, traceparent: /^00-[\da-f]{32}-[\da-f]{16}-0[13]$/ },
          response: { 'x-api': 'articles' }
        }
      ],
      [`GET /api/articles?jwt=${signed({ sub: 'ann' })}`, none, [200, 200, 429]],
      ['GET /api/drafts', bearer({ sub: 'ann' }), [502, 502, 503]],
      ['GET /api/export', bearer({ sub: 'ann' }), 502],
      ['GET /api/admin', { ...bearer({ sub: 'ann' }), ...from('192.0.2.1') }, 403],
      ['GET /api/admin', { ...bearer({ sub: 'ann' }), ...from('10.0.0.1') }, 200],
      ['GET /ping', none, 200]
    ]
  },
  {
    name: 'Kong, home services: a key set, nested claims, limits, CORS, timeouts, credentials toward services',
    yaml: `
services:
  tokens: { instances: ["http://tokens"] }
  visits: { instances: ["http://visits"], mesh: { credentials: { oauth2: { service: tokens, path: /realms/home/token, clientId: gateway, clientSecret: secret, scopes: [visits] } } } }
  meters: { instances: ["http://meters"], mesh: { credentials: { basic: { username: kong, password: "p4ss" } } } }
edge:
  cors: { origin: ["https://home.example.com"], credentials: true }
  jwt: { jwks: "\${JWKS}", algorithms: [RS256], forward: { sub: x-user, realm_access.roles: x-roles } }
  rateLimit: { max: 4, window: 1h, by: consumer }
mesh: { timeout: 30s, connectTimeout: 5s }
routes:
  - { name: visits, match: { path: /visits, methods: [GET, POST] }, service: visits, mesh: { timeout: 10s } }
  - { name: meters, match: { path: /meters }, service: meters, path: { strip: true } }`,
    asks: [
      ['GET /visits', none, 401],
      [
        'GET /visits/7',
        bearer({ sub: 'ann', realm_access: { roles: ['owner', 'payer'] } }, keys.rsa),
        {
          service: 'visits',
          headers: { authorization: 'Bearer of-the-gateway', 'x-user': 'ann', 'x-roles': 'owner,payer' }
        }
      ],
      ['GET /meters/7', bearer({ sub: 'ann' }, keys.rsa), { url: '/7', headers: { authorization: 'Basic a29uZzpwNHNz' } }],
      ['GET /meters', bearer({ sub: 'eve' }, keys.rsa), [200, 200, 200, 200, 429]],
      ['DELETE /visits', bearer({ sub: 'ann' }, keys.rsa), 405],
      ['OPTIONS /visits', preflight('https://home.example.com'), allowed('https://home.example.com')]
    ]
  },
  {
    name: 'express-gateway, education data hub: parameters, several services in one response, validation, basic auth, groups, credentials toward services, own errors, tracing',
    yaml: `
tracing: { otlp: { http: { endpoint: "http://collector/v1/traces" } } }
services:
  tokens: { instances: ["http://tokens"] }
  school: { instances: ["http://school"], mesh: { timeout: 20s, credentials: { oauth2: { service: tokens, clientId: gateway, clientSecret: secret } } } }
  grades: { instances: ["http://grades"], mesh: { credentials: { basic: { username: hub, password: hub } } } }
edge:
  basicAuth: { realm: hub }
  headers: { request: { set: { x-hub: "1" } }, response: { set: { x-frame-options: DENY } } }
  errorPages: { pages: { default: { json: '{"error": {"code": {{status}}, "text": "{{reason}}"}}' } } }
routes:
  - name: students
    match: { path: { exact: /hub/students }, methods: [GET] }
    service: school
    path: { strip: /hub }
    edge: { acl: { allow: [schools] }, validation: { openapi: "\${OPENAPI}" }, errorPages: false }
  - name: student
    match: { path: "/hub/students/:id", methods: [GET] }
    edge: { acl: { allow: [schools] } }
    compose:
      calls:
        student: { service: school, path: "/students/{params.id}", pick: [service, url], group: student }
        grades: { service: grades, path: "/grades", query: { student: "{params.id}" }, pick: [service, url, headers], group: grades }
  - { name: open, match: { path: /hub/open }, service: grades, edge: { basicAuth: false } }
consumers:
  - { name: district, groups: [schools], basicAuth: { username: district, hash: "bcrypt(secret)" } }
  - { name: press, basicAuth: { username: press, hash: "bcrypt(secret)" } }`,
    asks: [
      ['GET /hub/students', none, 401],
      ['GET /hub/students/7', none, { body: { error: { code: 401, text: 'Unauthorized' } } }],
      ['GET /hub/students/7', basic('press:secret'), { body: { error: { code: 403 } } }],
      [
        'GET /hub/students?year=7',
        basic('district:secret'),
        {
          url: '/students?year=7',
          headers: { authorization: 'Bearer of-the-gateway', 'x-hub': '1', traceparent: /^00-/ },
          response: { 'x-frame-options': 'DENY' }
        }
      ],
      ['GET /hub/students?year=x', basic('district:secret'), 400],
      [
        'GET /hub/students/7',
        basic('district:secret'),
        {
          body: {
            student: { service: 'school', url: '/students/7' },
            grades: { service: 'grades', url: '/grades?student=7', headers: { authorization: 'Basic aHViOmh1Yg==' } }
          }
        }
      ],
      ['GET /hub/open', { authorization: 'Basic of-the-client' }, { headers: { authorization: 'Basic aHViOmh1Yg==' } }]
    ]
  },
  {
    name: 'Spring Cloud Gateway, admin framework: Eureka, several paths, priorities, breakers with fallbacks, optional tokens, addresses, own errors, a portal, WebSockets',
    yaml: `
listen: { host: 127.0.0.1, port: 0, trustProxy: [127.0.0.1] }
discovery: { eureka: { urls: ["\${EUREKA}"] } }
services: { orders: {}, users: {}, reports: { instances: ["http://127.0.0.1:1"] } }
edge:
  cors: { origin: "*" }
  requestId: { header: x-trace-id }
  jwt: { secret: "\${JWT}", algorithms: [HS256], optional: true, forward: { sub: x-user } }
  ipFilter: { deny: [192.0.2.0/24] }
  errorPages: { pages: { default: { json: '{"code": {{status}}, "msg": "{{reason}}", "traceId": "{{requestId}}"}' } } }
mesh: { timeout: 10s, connectTimeout: 3s, retry: false }
routes:
  - { name: users, match: { path: [/admin/users, /admin/roles, /admin/menus] }, service: users, path: { strip: /admin } }
  - { name: orders, match: { path: [/order, /ws] }, service: orders }
  - { name: monitor, match: { path: /admin/users/monitor }, priority: 10, service: orders, edge: { ipFilter: { allow: [10.0.0.0/8] } } }
  - name: reports
    match: { path: /report }
    service: reports
    mesh:
      circuitBreaker: { consecutiveFailures: 2, minRequests: 10, errorRatio: 50% }
      fallback: [{ on: [circuit-open, connect-failure, timeout], status: 503, headers: { content-type: application/json }, body: '{"code":503,"msg":"later"}' }]
  - name: docs
    match: { path: /docs }
    portal: { title: Admin, services: { orders: { file: "\${OPENAPI}" } } }`,
    asks: [
      ['GET /admin/users/7', none, { service: 'users', url: '/users/7' }],
      ['GET /admin/menus', bearer({ sub: 'ann' }), { url: '/menus', headers: { 'x-user': 'ann' } }],
      ['GET /admin/menus', { authorization: 'Bearer x' }, { body: { code: 401 } }],
      ['GET /admin/roles', from('192.0.2.7'), { body: { code: 403, msg: 'Forbidden' } }],
      ['GET /admin/users/monitor', from('203.0.113.1'), 403],
      ['GET /admin/users/monitor', from('10.1.2.3'), { service: 'orders' }],
      ['GET /order/7', { 'x-trace-id': 'abc-1' }, { service: 'orders', headers: { 'x-trace-id': 'abc-1' } }],
      ['WS /ws/7', none, { url: '/ws/7' }],
      ['GET /report', none, { body: { code: 503, msg: 'later' } }],
      ['GET /nothing', { 'x-trace-id': 'abc-2' }, { body: { code: 404, traceId: 'abc-2' } }],
      ['GET /docs/openapi.json', none, { body: { openapi: '3.1.0', info: { title: 'Admin' } } }]
    ]
  },
  {
    name: 'Envoy, queue tickets: a key set, CORS with credentials, direct responses, local replies in a format of their own, WebSockets',
    yaml: `
services: { queue: { instances: ["http://queue"], mesh: { timeout: 30s, retry: { attempts: 2 } } } }
edge:
  cors: { origin: ["/^https://.+\\\\.example\\\\.com$/"], credentials: true }
  jwt: { jwks: "\${JWKS}", algorithms: [RS256], forward: { sub: x-user } }
  errorPages: { pages: { default: { json: '{"status": {{status}}, "id": "{{requestId}}"}' } }, upstream: [5xx] }
routes:
  - { name: health, match: { path: { exact: /healthz } }, response: { json: { status: ok } }, edge: { jwt: false } }
  - { name: tickets, match: { path: /api/tickets, methods: [GET, POST] }, service: queue, path: { strip: /api } }
  - { name: beta, match: { path: /api, headers: { x-beta: "1" } }, service: queue, path: { rewrite: { prefix: /v2 } } }
  - { name: rest, match: { path: / }, response: { status: 404, json: { status: 404 } }, edge: { jwt: false } }`,
    asks: [
      ['GET /healthz', none, { body: { status: 'ok' } }],
      ['GET /api/tickets/7', none, { body: { status: 401 } }],
      ['GET /api/tickets/7', bearer({ sub: 'ann' }, keys.rsa), { url: '/tickets/7', headers: { 'x-user': 'ann' } }],
      ['GET /api/x', { ...bearer({ sub: 'ann' }, keys.rsa), 'x-beta': '1' }, { url: '/v2/x' }],
      ['GET /other', none, { body: { status: 404 } }],
      ['OPTIONS /api/tickets', preflight('https://a.example.com'), allowed('https://a.example.com')]
    ]
  },
  {
    name: 'nginx, shop: files, a fixed response, request headers, a leaky bucket over several locations, WebSockets',
    yaml: `
services: { shop: { instances: ["http://shop"], mesh: { timeout: 60s, idleTimeout: 60s } } }
edge: { headers: { request: { set: { x-shop: "1" } } } }
groups:
  limited: { service: shop, edge: { rateLimit: { name: one, max: 60, window: 1m, algorithm: token-bucket, burst: 2 } } }
routes:
  - { name: user, group: limited, match: { path: "/user*" } }
  - { name: cart, group: limited, match: { path: "/cart*" } }
  - { name: ws, match: { path: /ws }, service: shop }
  - { name: static, match: { path: /static }, path: { strip: true }, files: { root: ../../routes, maxAge: 30d } }
  - { name: health, match: { path: { exact: /health } }, response: { body: "ok\\n" } }
  - { name: old, match: { path: /old }, path: { rewrite: { prefix: /user } }, redirect: { status: 301 } }`,
    asks: [
      ['GET /user1', none, { service: 'shop', headers: { 'x-shop': '1' } }],
      ['GET /cart/7', none, { service: 'shop' }],
      ['GET /user', none, 429],
      ['WS /ws', none, { url: '/ws' }],
      ['GET /static/direct.md', none, { response: { 'cache-control': 'public, max-age=2592000' } }],
      ['GET /static/../secret', none, 400],
      ['GET /health', none, { response: { 'content-type': 'text/plain; charset=utf-8' } }],
      ['GET /old/7', none, { response: { location: '/user/7' } }]
    ]
  },
  {
    name: 'nginx, food orders: a prefix that is rewritten, WebSockets',
    yaml: `
services: { orders: { instances: ["http://orders"] } }
routes:
  - { name: orders, match: { path: /api/orders }, service: orders, path: { rewrite: { prefix: /orders } } }
  - { name: live, match: { path: /ws }, service: orders }`,
    asks: [
      ['GET /api/orders/7', none, { url: '/orders/7' }],
      ['WS /ws/kitchen', none, { url: '/ws/kitchen' }]
    ]
  },
  {
    name: 'Kong, offers marketplace: one limit of several windows over several routes, CORS for any origin, a log in a file',
    yaml: `
services: { offers: { instances: ["http://offers"] }, sellers: { instances: ["http://sellers"] } }
edge:
  cors: { origin: "/^https?://.+$/", credentials: true }
  rateLimit: [{ name: minute, max: 3, window: 1m }, { name: hour, max: 100, window: 1h }]
  accessLog: { file: "\${LOGS}/offers.log", format: combined }
routes:
  - { name: offers, match: { path: /offers, methods: [GET, POST] }, service: offers }
  - { name: sellers, match: { path: /sellers, methods: [GET] }, service: sellers }`,
    asks: [
      ['GET /offers/7?key=a', { origin: 'http://any.example', 'user-agent': 'app "1"' }, { service: 'offers', ...allowed('http://any.example') }],
      ['GET /sellers', none, [200, 200, 429]],
      ['DELETE /sellers', none, 405]
    ],
    logged: {
      file: 'offers.log',
      lines: [
        /^127\.0\.0\.1 - - \[[^\]]+ \+0000\] "GET \/offers\/7 HTTP\/1\.1" 200 \d+ "-" "app \\x221\\x22"$/,
        /"GET \/sellers HTTP\/1\.1" 429 \d+ "-" "-"$/,
        /"DELETE \/sellers HTTP\/1\.1" 405 /
      ]
    }
  },
  {
    name: 'Envoy, demo answers: direct responses for prefixes within a segment, timeouts, a log format, DNS',
    yaml: `
services: { found: { dns: { host: localhost, port: \${DNS_PORT} }, mesh: { timeout: 15s, attemptTimeout: 15s, connectTimeout: 250ms, retry: false } } }
edge:
  accessLog:
    file: "\${LOGS}/envoy.log"
    format: '[{time}] "{method} {target} {protocol}" {status} {bytesSent} {durationMs} "{headers.x-forwarded-for}" "{headers.user-agent}" "{requestId}" "{request.host}" "{instance}"'
routes:
  - { name: hello, match: { path: /hello* }, response: { status: 200, body: "hello\\n" } }
  - { name: gone, match: { path: /gone* }, response: { status: 410, headers: { x-demo: gone }, body: "gone\\n" } }
  - { name: app, match: { path: / }, service: found }`,
    asks: [
      ['GET /hello-world', none, { status: 200, body: {} }],
      ['GET /gone', none, { status: 410, response: { 'x-demo': 'gone' } }],
      ['GET /app?token=a', none, { service: 'found', url: '/app?token=a' }]
    ],
    logged: {
      file: 'envoy.log',
      lines: [
        /^\[\d{4}-[^\]]+Z\] "GET \/hello-world HTTP\/1\.1" 200 \S+ [\d.]+ "-" "-" "[\w-]+" "\S+" "-"$/,
        /"GET \/gone HTTP\/1\.1" 410 5 /,
        /"GET \/app\?token=\*\*\* HTTP\/1\.1" 200 \d+ [\d.]+ "-" "-" "[\w-]+" "\S+" "http:\/\/(127\.0\.0\.1|localhost):\d+"$/
      ]
    }
  },
  {
    name: 'nginx, main file: compression, a response cache, body size, a log format',
    yaml: `
services: { site: { instances: ["http://site"] } }
edge:
  compression: { encodings: [gzip], types: [application/json], minSize: 20b }
  cache: { ttl: { 200: 10m } }
  bodyLimit: 1kb
  accessLog:
    file: "\${LOGS}/nginx.log"
    format: '{ip} - {consumer} [{time.common}] "{method} {target} {protocol}" {status} {bytesSent} "{referer}" "{headers.user-agent}" "{headers.x-forwarded-for}"'
routes: [{ name: site, match: { path: / }, service: site }]`,
    asks: [
      ['GET /page', none, { service: 'site', response: { 'cache-status': /^jingwei; fwd=uri-miss; stored; ttl=(600|599)$/ } }],
      ['GET /page', { 'accept-encoding': 'gzip' }, { status: 200, response: { 'content-encoding': 'gzip', 'cache-status': /hit/ } }],
      ['POST /page', { 'content-length': '4000' }, 413]
    ],
    logged: {
      file: 'nginx.log',
      lines: [
        /^127\.0\.0\.1 - - \[[^\]]+\] "GET \/page HTTP\/1\.1" 200 \d+ "-" "-" "-"$/,
        /"POST \/page HTTP\/1\.1" 413 /
      ]
    }
  },
  {
    name: 'KrakenD, trip planner: parameters in rewritten paths, lists of headers and parameters, CORS, timeouts, metrics in InfluxDB',
    yaml: `
metricsPush: { url: "\${INFLUX}/write?db=krakend", interval: 100ms, headers: { authorization: "Token secret" } }
services: { trips: { instances: ["http://trips"] } }
mesh: { timeout: 3s }
edge:
  host: upstream
  cors: { origin: "*", methods: [GET, POST], maxAge: 12h }
  headers: { request: { only: [authorization, content-type] } }
routes:
  - { name: trips, match: { path: { exact: /api/trips }, methods: [GET, POST] }, service: trips, path: { strip: /api }, edge: { query: { only: [from, to] } } }
  - { name: stop, match: { path: "/api/trips/:trip/stops/:stop", methods: [GET] }, service: trips, path: { rewrite: { path: "/v2/stop/:stop/of/:trip" } } }`,
    asks: [
      ['GET /api/trips?from=a&to=b&debug=1', { 'x-debug': '1' }, { url: '/trips?from=a&to=b', headers: { 'x-debug': undefined } }],
      ['GET /api/trips/7/stops/9', { origin: 'https://a.example' }, { url: '/v2/stop/9/of/7', response: { 'access-control-allow-origin': '*' } }],
      ['POST /api/trips/7/stops/9', none, 405],
      ['GET /api/trips/7', none, 404]
    ],
    pushed: /^\/write\?db=krakend\n[\s\S]*^jingwei_edge_requests_total,direction=north-south,host=\S+,method=GET,role=gateway,route=stop,status=200 counter=1 \d+$/m
  },
  {
    name: 'KrakenD, two public APIs: tokens, parameters, rewrites by regular expressions, lists, https to services, a plugin',
    yaml: `
plugins: [{ path: "\${LOGS}/audit.mjs" }]
services:
  movies: { instances: ["\${SECURE}"], mesh: { tls: { ca: "\${CA}" }, timeout: 4s } }
  books: { instances: ["http://books"] }
edge: { host: upstream, query: { only: [page] }, headers: { request: { only: [authorization, accept-language] } } }
routes:
  - name: movie
    match: { path: "/v1/movies/:id", methods: [GET] }
    service: movies
    path: { rewrite: { path: "/3/movie/:id" } }
    edge: { jwt: { jwks: "\${JWKS}", algorithms: [RS256] } }
  - { name: books, match: { path: /v1/books, methods: [GET] }, service: books, path: { rewrite: { regex: "^/v1/books/([a-z]+)/(\\\\d+)$", to: "/$1.json/$2" } } }`,
    asks: [
      ['GET /v1/movies/7', none, 401],
      [
        'GET /v1/movies/7?page=2&key=a',
        { ...bearer({}, keys.rsa), 'x-a': 'b' },
        { service: 'secure', url: '/3/movie/7?page=2', headers: { 'x-a': undefined }, response: { 'x-audit': '1' } }
      ],
      ['GET /v1/books/isbn/42', none, { url: '/isbn.json/42', response: { 'x-audit': '1' } }],
      ['GET /v1/books/isbn/x', none, { url: '/v1/books/isbn/x' }],
      ['DELETE /v1/movies/7', none, 405]
    ]
  },
  {
    name: 'APISIX, model workshop: prefixes and an exact path, CORS, tokens with a static key, claims to headers, tracing',
    yaml: `
tracing: { otlp: { http: { endpoint: "http://collector/v1/traces" } }, serviceName: workshop, sampleRate: 0.5 }
services: { models: { instances: ["http://models"] }, users: { instances: ["http://users"] } }
edge:
  cors: { origin: "https://app.example.com", credentials: true }
  requestId: { header: x-request-id, trustClient: false }
  jwt: { secret: "\${JWT}", algorithms: [HS256], forward: { sub: [x-user-id, x-owner], tenant: x-tenant } }
  headers: { request: { set: { x-gateway: workshop } } }
routes:
  - { name: models, match: { path: /api/models }, service: models }
  - { name: users, match: { path: /api/users }, service: users }
  - { name: login, match: { path: { exact: /api/login }, methods: [POST] }, service: users, edge: { jwt: false, tracing: false } }`,
    asks: [
      ['GET /api/models/7', none, 401],
      [
        'GET /api/models/7',
        { ...bearer({ sub: '42', tenant: 'a' }), 'x-owner': 'root', 'x-request-id': 'mine', traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01` },
        {
          service: 'models',
          url: '/api/models/7',
          headers: {
            'x-user-id': '42', 'x-owner': '42', 'x-tenant': 'a', 'x-gateway': 'workshop', 'x-request-id': /^[\da-f-]{36}$/,
            traceparent: /^00-(?!a{32})[\da-f]{32}-[\da-f]{16}-0[0-3]$/
          }
        }
      ],
      ['POST /api/login', { traceparent: 'as it is' }, { service: 'users', headers: { traceparent: 'as it is' } }],
      ['POST /api/login/more', none, 404],
      ['OPTIONS /api/models', preflight('https://app.example.com'), allowed('https://app.example.com')]
    ]
  },
  {
    name: 'Spring Cloud Gateway, orders: tokens with a static key, the documents of all services, tracing, metrics',
    yaml: `
tracing: { otlp: { http: { endpoint: "\${OTLP:-http://collector/v1/traces}" } }, serviceName: orders-gateway, sampleRate: 1.0 }
services: { orders: { instances: ["\${ORDERS:-http://orders}"] }, stock: { instances: ["http://stock"] } }
edge: { jwt: { secret: "\${JWT}", algorithms: [HS256] } }
routes:
  - { name: orders, match: { path: /api/orders }, service: orders }
  - { name: stock, match: { path: /api/stock }, service: stock, path: { rewrite: { prefix: /inventory } } }
  - name: docs
    match: { path: /docs }
    portal: { title: Orders, services: { orders: { path: /v3/api-docs }, stock: { path: /v3/api-docs } } }
    edge: { jwt: false }
  - { name: status, match: { path: { exact: /status } }, service: orders, edge: { jwt: false } }`,
    asks: [
      ['GET /api/orders/7', none, 401],
      ['GET /api/orders/7', bearer({ sub: 'ann' }), { url: '/api/orders/7', headers: { traceparent: /^00-[\da-f]{32}-[\da-f]{16}-03$/ } }],
      ['GET /api/stock/7', bearer({ sub: 'ann' }), { service: 'stock', url: '/inventory/7' }],
      ['GET /docs', none, { response: { 'content-type': /^text\/html/ } }],
      ['GET /docs/openapi.json', none, { body: { openapi: /^3\.1/, info: { title: 'Orders' } } }],
      ['GET /status', none, { service: 'orders' }]
    ]
  }
] // biome-ignore format: a table

/** Requests to the examples of config/from-other-gateways.md, by the name of the gateway. */
export const documented: Readonly<Record<string, readonly Ask[]>> = {
  Kong: [
    ['GET /api/orders/7', none, 401],
    ['GET /api/orders/7', { apikey: 'alice-key', 'x-consumer-username': 'root' }, { url: '/v1/7', headers: { 'x-consumer-username': 'alice' } }],
    ['POST /api/carts', { apikey: 'alice-key' }, { url: '/v1/' }]
  ],
  APISIX: [
    ['GET /game/shop/7', none, 401],
    ['GET /game/shop/7', basic('bob:secret'), { url: '/v2/shop/7' }],
    ['GET /other', basic('bob:secret'), 404]
  ],
  Traefik: [
    ['GET /api/7', { host: 'app.example.com' }, 403],
    ['GET /api/7', { host: 'app.example.com', cookie: 'session=ann' }, { url: '/7', headers: { 'x-user': 'ann' } }],
    ['GET /api/7', { host: 'other.example.com', cookie: 'session=ann' }, 404]
  ],
  KrakenD: [
    ['GET /v1/users/7', none, { service: 'users', url: '/internal/user/7' }],
    ['POST /v1/users/7', none, 405],
    ['GET /v1/page/7', none, { body: { url: '/user/7', orders: { url: '/orders?user=7' } } }]
  ],
  'Spring Cloud Gateway': [
    ['GET /api/orders/7', none, { url: '/orders/7', response: { 'x-ratelimit-remaining': '2' } }],
    ['DELETE /api/orders/7', none, 405]
  ]
} // biome-ignore format: a table
// biome-ignore-end lint/suspicious/noTemplateCurlyInString: variables of the configuration
