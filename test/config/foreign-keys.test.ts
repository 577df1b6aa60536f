/** Keys and paths in the syntax of other gateways: each fault names what to write instead. */
import { join } from 'node:path'
import t from 'tap'
import { ConfigError } from '../../config/load.ts'
import { parseConfig } from '../../plugins/config.ts'

function faultsOf(yaml: string): Map<string, string> {
  try {
    parseConfig(yaml, join(import.meta.dirname, 'gateway.yaml'), {})
  } catch (error) {
    if (error instanceof ConfigError) return new Map(error.faults.map(({ path, message }) => [path, message]))
    throw error
  }
  return new Map()
}

/** Names of Kong, APISIX, Traefik, KrakenD, Spring Cloud Gateway, express-gateway and oauth2-proxy, in their spellings. */
const foreign = `
oidc_issuer_url: https://h
client_id: a
client_secret: b
cookie_secret: c
cookie_name: d
cookie_expire: 12h
cookie_refresh: 1m
cookie_secure: true
session_store_type: redis
redis_connection_url: redis://h
redirect_url: https://h
email_domains: ["*"]
authenticated_emails_file: x
allowed_groups: [a]
user_id_claim: sub
pass_user_headers: true
set_xauthrequest: true
pass_access_token: true
skip_auth_routes: []
skip_jwt_bearer_tokens: true
skip_provider_button: true
reverse_proxy: true
http_address: "0.0.0.0:4180"
entryPoints: {}
http: {}
endpoints: []
upstreams: []
middlewares: {}
providers: {}
tls: {}
certificates: []
snis: []
ssls: []
consumer_groups: []
global_rules: []
plugin_configs: []
default-filters: []
globalcors: {}
apis: []
policies: {}
static_resources: {}
listen: { tls: { minVersion: TLSv1.2, sniStrict: true, clientAuth: {}, certificatesResolvers: {}, certResolver: x }, forwardedHeaders: {}, redirections: {}, timeout: 1s }
services:
  a: { instances: ["http://h"], host: h, protocol: http, connect_timeout: 1, read_timeout: 1, write_timeout: 1, retries: 5, loadBalancer: {}, discovery_type: consul, healthcheck: {}, checks: {}, lb: x, tls_verify: true, algorithm: x, passHostHeader: true, base_path: /x, path: /v1, circuit_breaker: {}, plugins: [], keepalive_pool: {} }
consumers:
  - { name: x, custom_id: y, acls: [], keyauth_credentials: [], basicauth_credentials: [], jwt_secrets: [], plugins: {}, group: a, key: k, key-auth: {}, apiKey: x, jwtAuth: {} }
edge:
  rateLimit: { max: 1, window: 1s, second: 5, minute: 5, limit_by: ip, policy: redis, fault_tolerant: true, group: a, count: 1, time_window: 1, rejected_code: 3 }
  limitCount: {}
  limit-req: {}
  limit-conn: {}
  inFlightReq: {}
  key-auth: {}
  basic-auth: {}
  jwt-auth: {}
  hmac-auth: {}
  openid-connect: {}
  ip-restriction: {}
  ipAllowList: {}
  ipWhiteList: {}
  request-size-limiting: {}
  buffering: {}
  client-control: {}
  correlation-id: {}
  request-id: {}
  api-breaker: {}
  circuitBreaker: {}
  retry: {}
  request-transformer: {}
  response-transformer: {}
  proxy-rewrite: {}
  stripPrefix: {}
  addPrefix: {}
  replacePathRegex: {}
  proxy-mirror: {}
  traffic-split: {}
  fault-injection: {}
  consumer-restriction: {}
  authz-keycloak: {}
  forward-auth: {}
  opa: {}
  prometheus: {}
  opentelemetry: {}
  zipkin: {}
  http-log: {}
  file-log: {}
  request-termination: {}
  bot-detection: {}
  ua-restriction: {}
  redirectScheme: {}
  response-ratelimiting: {}
  acme: {}
  session: {}
  oauth2: {}
  oauth2-introspection: {}
  mtls-auth: {}
  RequestRateLimiter: {}
  StripPrefix: 1
  digestAuth: {}
  ldap-auth: {}
  serverless-pre-function: {}
  pre-function: {}
  realIp: {}
  multi-auth: {}
  gzip: {}
  brotli: {}
  cors: { origins: ["*"], allow_origins: ["*"], accessControlAllowOriginList: [x], max_age: 5, origin: "*", allowCredentials: true }
  ipFilter: { allow: [1.1.1.1], sourceRange: [], ipStrategy: {}, whitelist: [] }
  jwt: { secret: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, jwk_url: x, jwksUri: x, issuer-uri: x, claims_to_verify: [exp], key_claim_name: iss, uri_param_names: [jwt], cookie_names: [a], claimsToHeaders: {}, propagateClaims: {}, roles_key: x, roles: [a], algorithm: HS256, alg: HS256, propagate_claims: [], cookie_key: x }
  keyAuth: { key_names: [apikey], hide_credentials: true, anonymous: x, keyInHeader: true, header: apikey, run_on_preflight: false }
  oidc: { issuer: "https://h", clientId: a, session: { secrets: [] }, provider: oidc, oidc_issuer_url: x, redirect_url: x, scope: openid, cookie_secret: x, cookie_name: x, cookie_expire: 1h, cookie_refresh: 1h, cookie_secure: true, session_store_type: redis, email_domains: ["*"], allowed_groups: [a], user_id_claim: sub, pass_user_headers: true, pass_access_token: true, skip_auth_routes: [], upstreams: [] }
  basicAuth: { users: [], usersFile: x, removeHeader: true }
  acl: { allow: [a], hide_groups_header: true, whitelist: [b] }
routes:
  - { name: a, service: a, uri: /a, uris: [/b], paths: [/c], hosts: [h], host: h, methods: [GET], rule: "Host(\`a\`)", predicates: [], filters: [], strip_path: true, preserve_host: true, regex_priority: 1, order: 2, plugins: [], middlewares: [], entryPoints: [web], endpoint: /x, backend: [], url_pattern: /x, upstream_id: 1, vars: [], protocols: [https], pass_host: node, input_headers: [], extra_config: {}, plugin_config_id: 1, service_id: 1, redirect: /, snis: [], https_redirect_status_code: 301, tls: {}, match: { path: "/x", uri: /x, host: x, method: GET, rule: x, vars: [], prefix: /, path_regex: x, remote_addrs: [1.1.1.1], sni: x } }
`

/** Parts of the advice for some of them. */
const advice: Readonly<Record<string, string>> = {
  entryPoints: 'write each under "listen"',
  oidc_issuer_url: 'write edge.oidc.issuer',
  client_id: 'write edge.oidc.clientId',
  cookie_secret: 'write edge: { oidc: { session: { secrets: [',
  email_domains: 'write edge.acl: { claims: … }',
  upstreams: 'write each under "services"',
  reverse_proxy: 'listen.trustProxy',
  'edge.oidc.oidc_issuer_url': 'write issuer',
  'edge.oidc.cookie_secret': 'write session: { secrets: [SECRET] }',
  'edge.oidc.email_domains': 'write acl: { claims: … } beside it',
  'edge.oidc.upstreams': 'write services',
  'default-filters': 'the top-level "edge"',
  tls: 'write listen.tls for clients, mesh.tls for services',
  'listen.tls.certResolver': 'listen.tls.folders',
  'listen.forwardedHeaders': 'listen.trustProxy',
  'services.a.host':
    'write instances: ["http://HOST:PORT"], and edge: { host: NAME } at the route or group for another Host header',
  'services.a.path': 'basePath',
  'services.a.connect_timeout': 'write connectTimeout under "mesh"',
  'services.a.circuit_breaker': 'write circuitBreaker under "mesh"',
  'consumers[0].acls': 'write groups: [NAME]',
  'consumers[0].keyauth_credentials': 'hash-key',
  'edge.limitCount': 'write rateLimit: { max: 100, window: 1m }',
  'edge.limit-req': 'algorithm: token-bucket',
  'edge.request-size-limiting': 'write edge.bodyLimit',
  'edge.api-breaker': 'write circuitBreaker under "mesh"',
  'edge.proxy-rewrite': 'write path.rewrite at the route',
  'edge.request-transformer': 'write headers: { request: … }',
  'edge.rateLimit.limit_by': 'write by',
  'edge.jwt.jwk_url': 'write jwks',
  'edge.keyAuth.anonymous': 'write authentication: { anonymous: NAME }',
  'routes[0].host': 'write match.hosts',
  'routes[0].preserve_host': 'edge.host: upstream',
  'routes[0].url_pattern': 'write path: { rewrite: { path: /v2/:id } }',
  'routes[0].match.remote_addrs': 'write addresses'
}

t.test('each foreign key has advice', (t) => {
  const faults = faultsOf(foreign)
  t.ok(faults.size > 150)
  t.strictSame(
    [...faults].filter(([, message]) => message === 'unknown key').map(([path]) => path),
    []
  )
  for (const [path, part] of Object.entries(advice))
    t.ok(faults.get(path)?.includes(part), `${path}: ${faults.get(path)}`)
  t.end()
})

t.test('credentials and origins in the syntax of other gateways', (t) => {
  const faults = faultsOf(`
services: { a: { instances: ["http://h"] } }
edge: { cors: { origin: ["~^https://a", 'https://.+\\.b\\.com$', "^https://c$"] } }
consumers:
  - { name: x, keyAuth: { key: abc } }
  - { name: y, keyAuth: [{ key: abc }] }
  - { name: z, basicAuth: { username: z, password: abc } }
`)
  const between = (expression: string) =>
    `a regular expression is written between slashes, for the whole origin: "/^${expression}$/"`
  t.equal(faults.get('edge.cors.origin[0]'), between('https://a'))
  t.equal(faults.get('edge.cors.origin[1]'), between('https://.+\\.b\\.com'))
  t.equal(faults.get('edge.cors.origin[2]'), between('https://c'))
  const key = 'unknown key; write hash: "sha256:…", which the command hash-key prints'
  t.equal(faults.get('consumers[0].keyAuth.key'), key)
  t.equal(faults.get('consumers[1].keyAuth[0].key'), key)
  t.match(faults.get('consumers[2].basicAuth.password'), /which the command hash-password prints$/)
  t.end()
})

t.test('advice is for the places of other gateways; elsewhere a similar key is meant', (t) => {
  const faults = faultsOf(`
services: { a: { instances: ["http://h"], mesh: { retry: { count: 1 } }, subsets: { b: { group: x } } } }
edge: { rateLimit: { max: 1, window: 1s, maxs: 1 }, cors: { origin: "*", origns: x } }
routes: [{ name: a, match: { path: / }, service: a, pat: {} }]
`)
  t.notMatch(faults.get('services.a.mesh.retry.count'), /;/)
  t.notMatch(faults.get('services.a.subsets.b.group'), /;/)
  t.equal(faults.get('edge.rateLimit.maxs'), 'unknown key; did you mean "max"?')
  t.equal(faults.get('edge.cors.origns'), 'unknown key; did you mean "origin"?')
  t.equal(faults.get('routes[0].pat'), 'unknown key; did you mean "path"?')
  t.end()
})

t.test('paths in the syntax of other gateways', (t) => {
  const paths: readonly [path: string, fault: RegExp][] = [
    ['/api/:id(^\\d+$)/items', /^a match path must not contain "\\d": write \[0-9\]$/],
    ['/a/:id(\\w{2,4})', /must not contain "\\w": write \[A-Za-z0-9_\]$/],
    ['/a/:id(^a\\.b$)', /must not contain "\\\.": write \[\.\]$/],
    ['/a\\d+', /must not contain "\\d": write a parameter such as ":id\(\^\[0-9\]\+\$\)"$/],
    ['/a/(?<user>x+)$', /must not contain "\(\?<user>": write a group as a parameter, ":user\(/],
    ['/a/(?:x|y)', /must not contain "\(\?:": write a group as a parameter/],
    ['/a\\b', /must not contain "\\": paths are matched after decoding/],
    ['~/api/(?<id>\\d+)$', /^expected a path that starts with \/, such as \/users or \/users\/:id\(/],
    ['/users/**', /"\/users" matches it and all paths below/],
    ['/users/{id}', /write a parameter as ":id"$/],
    ['/users/{id:[0-9]+}', /write a parameter as ":id\(\^\[0-9\]\+\$\)"$/]
  ]
  for (const [path, fault] of paths) {
    const routes = [{ name: 'a', match: { path }, service: 'a' }]
    const faults = faultsOf(JSON.stringify({ services: { a: { instances: ['http://h'] } }, routes }))
    t.match(faults.get('routes[0].match.path'), fault, path)
  }
  t.end()
})
