/**
 * Notes on what an import cannot convert: as `todo`, a fault until somebody decides, where the gateway would be more open or a
 * service would trust what clients send; else as a note.
 */
import { load } from 'js-yaml'
import type { Test } from 'tap'
import t from 'tap'
import { imported } from '../../../config/import/index.ts'
import { parseConfig } from '../../../plugins/config.ts'
import { get, startEcho, startGateway } from '../../helpers/gateway.ts'

interface Draft {
  readonly listen?: object
  readonly redis?: { readonly url: string }
  readonly edge?: object
  readonly services: Readonly<Record<string, object>>
  readonly routes: readonly object[]
  readonly consumers?: readonly object[]
}

const draftOf = (gateway: string, text: string) => {
  const { yaml, summary } = imported(gateway, text)
  return { draft: load(yaml) as Draft, yaml, summary }
}

/** Checks that a file has a `todo` that makes it a fault. */
function isUndecided(t: Test, gateway: string, text: string, todo: RegExp): void {
  const { yaml } = imported(gateway, text)
  t.match(yaml, todo, text)
  t.throws(() => parseConfig(yaml, '/gateway.yaml', { REDIS_PASS: 'x' }), /todo: to be decided: /, text)
}

/** Checks that the summary names what is left, and that the file is valid all the same. */
function isNoted(t: Test, gateway: string, text: string, note: RegExp): Draft {
  const { draft, yaml, summary } = draftOf(gateway, text)
  t.match(summary, note, text)
  t.doesNotThrow(() => parseConfig(yaml, '/gateway.yaml', { REDIS_PASS: 'x' }), yaml)
  return draft
}

const kong = (route: string, service = '', more = '') =>
  `services: [{ name: a, url: "http://a.example", ${service} routes: [{ name: r, paths: [/a], ${route} }] }]\n${more}`
const kongPlugin = (name: string, config: string) => kong(`plugins: [{ name: ${name}, config: { ${config} } }]`)

t.test('Kong: conditions of routes', async (t) => {
  for (const condition of ['snis: [a.example]', 'sources: [{ ip: 10.0.0.0/8 }]'])
    isUndecided(t, 'kong', kong(condition), /todo: .*a condition of the route: not converted/)
  t.notMatch(draftOf('kong', kong('snis: [], sources: null')).summary, 'condition')
})

t.test('Kong: plugins of one consumer at a route, and of groups of consumers', async (t) => {
  const limit = 'config: { minute: 1000 }'
  const alone = /todo: \["plugin rate-limiting of consumer gold alone/
  isUndecided(t, 'kong', kong(`plugins: [{ name: rate-limiting, consumer: gold, ${limit} }]`), alone)
  const more = `consumers: [{ username: gold }]\nplugins: [{ name: rate-limiting, consumer: gold, route: r, ${limit} }]`
  isUndecided(t, 'kong', kong('plugins: [{ name: rate-limiting, config: { minute: 5 } }]', '', more), alone)
  const { draft } = draftOf('kong', kong('plugins: [{ name: rate-limiting, config: { minute: 5 } }]', '', more))
  t.match(draft.routes[0], { edge: { rateLimit: { max: 5 } } }, 'the limit of all others stays')
  t.notMatch(draft.consumers, [{ edge: {} }])
  isUndecided(
    t,
    'kong',
    kong('', '', `consumer_groups: [{ name: gold, plugins: [{ name: rate-limiting-advanced, ${limit} }] }]`),
    /todo: \["plugin rate-limiting-advanced of consumer_group gold/
  )
})

t.test('Kong: Redis with a password', async (t) => {
  const redis =
    'redis: { host: r.example, port: 7000, username: u, password: "{vault://env/redis-pass}", database: 2, ssl: true }'
  const { draft } = draftOf('kong', kongPlugin('rate-limiting', `minute: 5, policy: redis, ${redis}`))
  // biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of the environment
  t.equal(draft.redis?.url, 'rediss://u:${REDIS_PASS}@r.example:7000/2')
  const old = 'minute: 5, policy: redis, redis_host: r.example, redis_password: "a@b", redis_database: 0'
  t.equal(draftOf('kong', kongPlugin('rate-limiting', old)).draft.redis?.url, 'redis://:a%40b@r.example:6379')
  const cache = `strategy: redis, ${redis}`
  t.match(draftOf('kong', kongPlugin('proxy-cache', cache)).draft.redis?.url, 'rediss://u:')
  const two = kong(
    'plugins: [{ name: rate-limiting, config: { minute: 5, policy: redis, redis: { host: one, password: secret-1 } } }, { name: proxy-cache, config: { strategy: redis, redis: { host: two, password: secret-2 } } }]'
  )
  t.match(imported('kong', two).summary, 'Redis two: not converted')
  t.notMatch(imported('kong', two).summary, 'secret')
  parseConfig(imported('kong', two).yaml, '/gateway.yaml', {})
})

t.test('Kong: what plugins lose', async (t) => {
  isNoted(t, 'kong', kongPlugin('rate-limiting', 'minute: 5, error_code: 503'), /error_code: refusals have status 429/)
  isNoted(t, 'kong', kongPlugin('rate-limiting', 'minute: 5, error_message: Slow'), /error_message: not converted/)
  isNoted(t, 'kong', kongPlugin('bot-detection', 'deny: [x]'), /Kong's own list of bots/)
  const keys = 'consumers: [{ username: b, custom_id: "7", keyauth_credentials: [{ key: k }] }]'
  const keyAuth = 'plugins: [{ name: key-auth, config: { key_in_body: true } }]'
  isNoted(t, 'kong', kong(keyAuth, '', keys), /key_in_body: keys in bodies are not read here/)
  isNoted(t, 'kong', kong(keyAuth, '', keys), /custom_id: services do not get it/)
  const tokens = 'consumers: [{ username: b, jwt_secrets: [{ key: i, secret: "0123456789abcdef0123456789abcdef" }] }]'
  const jwt = (config: string) => kong(`plugins: [{ name: jwt, config: { ${config} } }]`, '', tokens)
  isNoted(t, 'kong', jwt('uri_param_names: [a, b], cookie_names: [c, d]'), /jwt: tokens in b, d: not converted/)
  isNoted(t, 'kong', jwt('secret_is_base64: true'), /write the decoded secrets/)
  isUndecided(t, 'kong', jwt('maximum_expiration: 600'), /todo: \["jwt: maximum_expiration 600/)
  const replace = 'plugins: [{ name: request-transformer, config: { replace: { uri: /fixed } } }]'
  t.match(draftOf('kong', kong(replace)).draft.routes[0], { path: { rewrite: { path: '/fixed' } } })
  isUndecided(
    t,
    'kong',
    kong(replace, 'path: /base,').replace('url: "http://a.example"', 'host: a.example'),
    /replace\.uri/
  )
  isUndecided(t, 'kong', kong(replace).replace('a.example', 'a.example/base'), /it replaces the path of the service/)
  const { routes } = draftOf(
    'kong',
    kong('plugins: [{ name: key-auth }, { name: acl, config: { allow: [g] } }]', '', keys)
  ).draft
  const forward = { id: 'x-consumer-username', groups: 'x-consumer-groups' }
  t.match(routes[0], { edge: { authentication: { forward } } }, 'clients cannot send groups themselves')
})

const upstream = 'upstream: { nodes: { "a.example:80": 1 } }'
const apisix = (route: string, more = '') => `routes: [{ id: r, uri: /a, ${upstream}, ${route} }]\n${more}`
const apisixPlugin = (name: string, config: string) => apisix(`plugins: { ${name}: { ${config} } }`)

t.test('APISIX: conditions, and parts that are not in the file', async (t) => {
  isUndecided(t, 'apisix', apisix('filter_func: "function(vars) return false end"'), /todo: \["filter_func: not/)
  isUndecided(t, 'apisix', apisix('service_id: s'), /todo: \["service s is not in this file"\]/)
  isUndecided(t, 'apisix', apisix('plugin_config_id: p'), /todo: \["plugin_config p is not in this file"\]/)
  const service = 'services: [{ id: s, hosts: [b.example] }]'
  t.match(draftOf('apisix', apisix('service_id: s', service)).draft.routes[0], { match: { hosts: ['b.example'] } })
  const own = draftOf('apisix', apisix('service_id: s, host: c.example', service))
  t.strictSame((own.draft.routes[0] as { match: object }).match, { path: { exact: '/a' }, hosts: ['c.example'] })
  isUndecided(
    t,
    'apisix',
    apisix('', 'consumer_groups: [{ id: g, plugins: { limit-count: { count: 1, time_window: 60 } } }]'),
    /todo: \["plugin limit-count of consumer_group g/
  )
})

t.test('APISIX: upstreams', async (t) => {
  const nodes =
    'nodes: [{ host: a.example, port: 80, weight: 1 }, { host: b.example, port: 80, weight: 1, priority: -1 }]'
  const draft = isNoted(
    t,
    'apisix',
    `routes: [{ id: r, uri: /a, upstream: { ${nodes}, pass_host: rewrite, upstream_host: c.example, checks: { active: { http_path: /up, healthy: { interval: 2, successes: 3 }, unhealthy: { http_failures: 4 }, host: x.example } } } }]`,
    /node b\.example:80 with priority -1: write a service/
  )
  t.match(draft.services.r, {
    instances: ['http://a.example:80'],
    mesh: { healthCheck: { path: '/up', interval: '2s', healthyThreshold: 3, unhealthyThreshold: 4 } }
  })
  t.match(draft.routes[0], { edge: { host: 'c.example' } })
})

t.test('APISIX: limits, caches and calls', async (t) => {
  const limit = 'count: 5, time_window: 60'
  const route = (config: string) => draftOf('apisix', apisixPlugin('limit-count', config)).draft.routes[0]
  t.match(route(`${limit}, key_type: constant, key: all`), { edge: { rateLimit: { by: 'route' } } })
  const byCaller = `${limit}, key: consumer_name`
  t.strictSame((route(byCaller) as { edge: object }).edge, { rateLimit: { max: 5, window: '60s' } }, 'nobody is known')
  const known = apisix(`plugins: { key-auth: {}, limit-count: { ${byCaller} } }`)
  t.match(draftOf('apisix', known).draft.routes[0], { edge: { rateLimit: { by: 'consumer' } } })
  const combined = route(`${limit}, key_type: var_combination, key: "$remote_addr $http_x_tenant"`)
  t.match(combined, { edge: { rateLimit: { by: ['ip', 'header:x-tenant'] } } })
  const redis = `${limit}, policy: redis, redis_host: r.example, redis_password: pw, redis_database: 1, redis_ssl: true`
  t.equal(draftOf('apisix', apisixPlugin('limit-count', redis)).draft.redis?.url, 'rediss://:pw@r.example:6379/1')
  const cache = (config: string) => apisixPlugin('proxy-cache', config)
  t.match(draftOf('apisix', cache('cache_key: ["$uri", "-$http_x_tenant", "$request_uri"]')).draft.routes[0], {
    edge: { cache: { key: { headers: ['x-tenant'] } } }
  })
  isUndecided(t, 'apisix', cache('cache_key: ["$uri", "$cookie_lang"]'), /cache_key cookie_lang: not converted/)
  isUndecided(t, 'apisix', cache('no_cache: ["$arg_preview"]'), /no_cache \$arg_preview: not converted/)
  isUndecided(t, 'apisix', cache('cache_bypass: ["$arg_bypass"]'), /cache_bypass \$arg_bypass: not converted/)
  isNoted(t, 'apisix', apisixPlugin('forward-auth', 'uri: "http://b.example", request_method: POST'), /forwardBody/)
  isUndecided(
    t,
    'apisix',
    apisixPlugin('opa', 'host: "http://o:8181", policy: a, with_consumer: true'),
    /with_consumer/
  )
  isNoted(t, 'apisix', apisixPlugin('mocking', 'response_example: x, delay: 2'), /delay: not converted/)
  isNoted(t, 'apisix', apisixPlugin('request-id', ''), /edge\.requestId is for all routes/)
  for (const name of ['workflow', 'ai-aws-content-moderation'])
    isUndecided(t, 'apisix', apisixPlugin(name, 'a: 1'), /not converted/)
  const addresses = draftOf('apisix', apisixPlugin('ip-restriction', 'whitelist: [10.0.0.1], response_code: 404'))
  t.match(addresses.draft.routes[0], { edge: { ipFilter: { allow: ['10.0.0.1'], status: 404 } } })
  const tokens =
    'consumers: [{ username: b, plugins: { jwt-auth: { key: i, secret: "0123456789abcdef0123456789abcdef", base64_secret: true } } }]'
  const jwt = isNoted(
    t,
    'apisix',
    apisix('plugins: { jwt-auth: { header: X-Token } }', tokens),
    /write the decoded secret/
  )
  t.match(jwt.routes[0], { edge: { jwt: { from: { header: 'X-Token' } } } })
})

const traefik = (middlewares: string, used: string, more = '', service = 's') => `
http:
  routers: { r: { rule: "PathPrefix(\`/\`)", service: ${service}, middlewares: [${used}] } }
  middlewares: { ${middlewares} }
  services: { s: { loadBalancer: { servers: [{ url: "http://a.example" }] } } }
${more}`

t.test('Traefik: headers that the gateway sets itself', async (t) => {
  const custom =
    'h: { headers: { customRequestHeaders: { X-Forwarded-Proto: https, X-Forwarded-For: "", Host: b.example, X-A: "1" }, customResponseHeaders: { Connection: close, X-B: "2" } } }'
  const draft = isNoted(t, 'traefik', traefik(custom, 'h'), /request header x-forwarded-proto: left out/)
  t.strictSame(draft.routes[0], {
    name: 'r',
    match: { path: '/' },
    service: 's',
    edge: { host: 'b.example', headers: { request: { set: { 'x-a': '1' } }, response: { set: { 'x-b': '2' } } } }
  })
  isNoted(t, 'traefik', traefik(custom, 'h'), /response header connection: left out/)
})

t.test('Traefik: what middlewares and the static file lose', async (t) => {
  const strategy = 'sourceCriterion: { ipStrategy: { depth: 1 } }'
  for (const limit of [`rateLimit: { average: 5, ${strategy} }`, `inFlightReq: { amount: 5, ${strategy} }`])
    isNoted(t, 'traefik', traefik(`l: { ${limit} }`, 'l'), /ipStrategy: write listen\.trustProxy/)
  isUndecided(
    t,
    'traefik',
    traefik('f: { forwardAuth: { address: "http://b.example", authResponseHeadersRegex: "^X-" } }', 'f'),
    /authResponseHeadersRegex \^X-: write forwardAuth\.responseHeaders/
  )
  const file = traefik(
    '',
    '',
    'providers: { file: { directory: / }, docker: {} }\ncertificatesResolvers: { le: { acme: {} } }\nmetrics: { prometheus: {}, statsD: { address: "s:8125" } }'
  )
  isNoted(t, 'traefik', file, /providers\.docker: its routers are not in this file/)
  isNoted(t, 'traefik', file, /certificatesResolvers: an ACME client/)
  isNoted(t, 'traefik', file, /metrics\.statsD: not converted/)
  t.notMatch(imported('traefik', file).summary, /providers\.file|prometheus/)
})

t.test('Traefik: routers that only redirect', async (t) => {
  const redirect = (middleware: string) => traefik(`m: { ${middleware} }`, 'm', '', 'noop@internal')
  const { draft, summary } = draftOf('traefik', redirect('redirectScheme: { scheme: https, permanent: true }'))
  t.match(draft.routes, [{ match: { path: '/' }, redirect: { scheme: 'https', status: 308 } }])
  t.notMatch(summary, 'noop')
  const regex = 'redirectRegex: { regex: "^https?://a.example/(.*)", replacement: "https://b.example/$1" }'
  const ofHost = redirect(regex).replace('PathPrefix(`/`)', 'Host(`a.example`)')
  t.match(draftOf('traefik', ofHost).draft.routes, [{ redirect: { to: 'https://b.example' } }])
  isUndecided(
    t,
    'traefik',
    redirect('redirectRegex: { regex: "/x(.*)y", replacement: "/z" }'),
    /write a route with \\?"redirect/
  )
})

t.test('Traefik: the routes of one router share its limits', async (t) => {
  const file = traefik(
    'l: { rateLimit: { average: 5 } }, f: { inFlightReq: { amount: 5, sourceCriterion: { ipStrategy: {} } } }',
    'l, f'
  )
  const two = isNoted(
    t,
    'traefik',
    file.replace('PathPrefix(`/`)', 'PathPrefix(`/a`) || Method(`PUT`)'),
    /nothing is left/
  )
  t.match(two.routes, [
    { edge: { rateLimit: [{ max: 5, name: 'r-limit-1' }, { maxConcurrent: 5 }] } },
    { edge: { rateLimit: [{ max: 5, name: 'r-limit-1' }, { maxConcurrent: 5 }] } }
  ])
  t.notMatch(imported('traefik', file).yaml, 'r-limit')
})

t.test('Traefik: users of a middleware are none of another one', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const hash = '$2y$05$RuAfPOeANe5UoypEoNRLUu/uqFPvqN9XWhH6CmrRir4Pk1jOfoLf6'
  const file = (second: string) => `
http:
  routers:
    a: { rule: "PathPrefix(\`/a\`)", service: s, middlewares: [one] }
    b: { rule: "PathPrefix(\`/b\`)", service: s, middlewares: [two] }
  middlewares:
    one: { basicAuth: { users: ["ann:${hash}"], headerField: X-WebAuth-User } }
    two: { basicAuth: { users: ["${second}"] } }
  services: { s: { loadBalancer: { servers: [{ url: "${echo.url}" }] } } }
`
  const { port, close } = await startGateway(`admin: false\n${imported('traefik', file(`bob:${hash}`)).yaml}`)
  t.teardown(close)
  const ask = (path: string, user: string) =>
    get(port, path, [`Authorization: Basic ${btoa(`${user}:secret`)}`, 'X-WebAuth-User: root'])
  t.equal((await ask('/a', 'ann')).status, 200)
  t.equal((await ask('/b', 'bob')).status, 200)
  t.equal((await ask('/b', 'ann')).status, 403)
  t.equal((await ask('/a', 'bob')).status, 403)
  const { headers } = JSON.parse((await ask('/a', 'ann')).body) as { headers: Record<string, string> }
  t.equal(headers['x-webauth-user'], 'ann')
  isUndecided(t, 'traefik', file(`ann:${hash.replace('f6', 'f7')}`), /user ann of two has another password elsewhere/)
})

const krakend = (endpoint: object, more: object = {}) =>
  JSON.stringify({
    version: 3,
    endpoints: [{ endpoint: '/a', backend: [{ host: ['http://a.example'], url_pattern: '/a' }], ...endpoint }],
    ...more
  })
const backend = (more: object) => [{ host: ['http://a.example'], url_pattern: '/a', ...more }]

t.test('KrakenD: listener and router', async (t) => {
  const router = { max_payload: 1000, trusted_proxies: ['10.0.0.0/8'], remote_ip_headers: ['X-Real-Ip'] }
  const draft = isNoted(
    t,
    'krakend',
    krakend({}, { listen_ip: '127.0.0.1', extra_config: { router } }),
    /remote_ip_headers X-Real-Ip: X-Forwarded-For is read here/
  )
  t.match(draft, { listen: { host: '127.0.0.1', trustProxy: ['10.0.0.0/8'] }, edge: { bodyLimit: '1000b' } })
})

t.test('KrakenD: backends', async (t) => {
  isUndecided(
    t,
    'krakend',
    krakend({ method: 'POST', backend: backend({ method: 'PUT' }) }),
    /the service gets POST here/
  )
  t.notMatch(imported('krakend', krakend({ backend: backend({ method: 'get' }) })).summary, 'the service gets')
  for (const name of ['backend/amqp/consumer', 'backend/lambda', 'backend/grpc'])
    isUndecided(t, 'krakend', krakend({ backend: backend({ extra_config: { [name]: {} } }) }), /not converted/)
  const calls = [
    ...backend({ group: '', target: '', mapping: {}, allow: [] }),
    ...backend({ group: 'b', method: 'POST' })
  ]
  const draft = isNoted(t, 'krakend', krakend({ backend: calls }), /nothing is left/)
  t.match(draft.routes[0], { compose: { calls: { call1: { service: 'a-example' }, b: { method: 'POST' } } } })
  t.match(imported('krakend', krakend({ backend: calls })).yaml, '# KrakenD sends what it has if a backend fails')
  isNoted(t, 'krakend', krakend({ output_encoding: 'xml' }), /output_encoding xml: not converted/)
  const limited = backend({ extra_config: { 'qos/ratelimit/proxy': { max_rate: 5 } } })
  isNoted(t, 'krakend', krakend({ backend: limited }), /the limit is for all calls of the service/)
})

t.test('KrakenD: keys that are off, users of one endpoint', async (t) => {
  const keys = [
    { key: 'one', roles: ['r'] },
    { key: 'two', roles: ['r'], enabled: false }
  ]
  const root = { extra_config: { 'auth/api-keys': { identifier: 'X-Key', keys } } }
  const draft = isNoted(
    t,
    'krakend',
    krakend({ extra_config: { 'auth/api-keys': { roles: ['r'] } } }, root),
    /key key-2 is off/
  )
  t.equal(draft.consumers?.length, 1)
  isUndecided(
    t,
    'krakend',
    krakend({ extra_config: { 'auth/api-keys': { client_max_rate: 5 } } }, root),
    /client_max_rate/
  )
  const users = { 'auth/basic': { users: { ann: '$2y$05$RuAfPOeANe5UoypEoNRLUu/uqFPvqN9XWhH6CmrRir4Pk1jOfoLf6' } } }
  t.match(draftOf('krakend', krakend({ extra_config: users })).draft.routes[0], {
    edge: { acl: { allowConsumers: ['ann'] } }
  })
})

t.test('Kong before version 3: expressions in paths have no mark', async (t) => {
  const file = (version: string) =>
    `${kong('').replace('paths: [/a]', 'paths: ["/users/\\\\d+$", /plain]')}\n_format_version: "${version}"`
  t.match(draftOf('kong', file('2.1')).draft.routes[0], { match: { path: [/users/, '/plain'] } })
  parseConfig(imported('kong', file('1.1')).yaml, '/gateway.yaml', {})
  t.match(imported('kong', file('2.1')).yaml, '/users/:any1(^[0-9]+$)')
  isNoted(
    t,
    'kong',
    kongPlugin('rate-limiting', 'minute: 5, policy: cluster'),
    /policy cluster: each node counts alone/
  )
})

t.test('APISIX: trusted proxies are those of all listeners', async (t) => {
  const more = `global_rules: [{ id: 1, plugins: { real-ip: { source: http_x_forwarded_for, trusted_addresses: [10.0.0.0/8] } } }]
ssls: [{ id: 1, cert: "-----BEGIN CERTIFICATE-----", key: "-----BEGIN PRIVATE KEY-----", snis: [a.example] }]`
  const { listen } = draftOf('apisix', apisix('', more)).draft
  const trustProxy = ['10.0.0.0/8']
  t.match(listen, [
    { name: 'http', trustProxy },
    { name: 'https', trustProxy }
  ])
})
