import { generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import t from 'tap'
import { ConfigError } from '../../config/load.ts'
import { loadConfig, loader, loadWithoutPlugins, parseConfig } from '../../plugins/config.ts'
import { selfSigned } from '../helpers/self-signed.ts'

const whole = `
listen:
  host: 0.0.0.0                                  # plus tls:, http2:, trustProxy: [10.0.0.0/8]
  port: 8080
  timeouts: { headers: 10s, bodyIdle: 30s, sendIdle: 60s, keepAlive: 75s }
  limits: { headers: 16kb, url: 8kb, connections: 10000 }
admin:  { host: 127.0.0.1, port: 8081 }
discovery:
  consul: { url: http://127.0.0.1:8500, token: \${CONSUL_TOKEN:-} }
redis: { url: redis://127.0.0.1:6379 }
edge:
  bodyLimit: 10mb
  cors: { origin: [https://app.example.com], credentials: true }
  rateLimit: { max: 1000, window: 1m, by: ip, store: memory }
mesh:
  balance: least-request
  timeout: 15s
  attemptTimeout: 5s
  idleTimeout: 60s
  retry: { attempts: 2, on: [connect-failure, 503], budget: 20% }
services:
  orders: {}
  users: { consul: { service: users-v2, tags: [http], datacenter: dc1 } }
  products: { instances: [http://127.0.0.1:9101, { url: http://127.0.0.1:9102, weight: 3 }] }
  legacy: { dns: { host: legacy.internal, port: 8080 } }
routes:
  - name: orders
    match: { path: /api/orders, methods: [GET, POST], hosts: [api.example.com], headers: { x-beta: '1' } }
    service: orders
    path: { strip: /api }
    edge:
      jwt: { jwks: https://id.example.com/jwks.json, issuer: https://id.example.com, audience: api, algorithms: [RS256], forward: { sub: x-user-id } }
      rateLimit: { max: 100, window: 10s, by: consumer }
      cors: false
    mesh: { timeout: 3s, retry: false }
consumers: []
plugins:
  - path: ./plugins/stamp.ts
    options: { header: x-stamp }
`
const mesh = {
  balance: 'least-request',
  timeout: 15_000,
  attemptTimeout: 5000,
  connectTimeout: 2000,
  maxHeaderSize: 65_536,
  idleTimeout: 60_000,
  retry: {
    attempts: 2,
    on: ['connect-failure', 503],
    methods: ['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'],
    idempotencyKey: true,
    maxBody: 65_536,
    backoff: { base: 25, max: 250 },
    budget: 0.2
  }
}

t.test('a configuration with every section is loaded', async (t) => {
  const dir = t.testdir({ plugins: { 'stamp.ts': '' }, 'gateway.yaml': whole })
  const before = JSON.stringify(loader.schema)
  const config = loadWithoutPlugins(join(dir, 'gateway.yaml'), {})
  const listen = {
    at: '/listen',
    name: 'default',
    enabled: true,
    host: '0.0.0.0',
    port: 8080,
    socketMode: '0660',
    http2: false,
    trustProxy: [],
    trustHeaders: ['x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'x-forwarded-port'],
    timeouts: { headers: 10_000, bodyIdle: 30_000, body: 21_600_000, sendIdle: 60_000, keepAlive: 75_000 },
    limits: {
      headers: 16_384, url: 8192, connections: 10_000, bodyRate: 240, sendRate: 240,
      perClient: { connections: 1024, requests: 512, websockets: 256 }
    }, // biome-ignore format: a list
    paths: { case: 'guard', trailingSlash: 'guard', trailingDot: 'guard' },
    unknownHost: 404,
    drain: { delay: 5000, timeout: 25_000 }
  }
  t.strictSame(config, {
    file: join(dir, 'gateway.yaml'),
    hash: '8d40e172cfab6d88',
    consumers: { file: null, digest: null, stored: null, list: [] },
    watch: false,
    listen,
    listeners: [listen],
    admin: { host: '127.0.0.1', port: 8081, hosts: [] },
    discovery: { consul: { url: 'http://127.0.0.1:8500', wait: 60_000, maxStale: 60_000 } },
    redis: { url: 'redis://127.0.0.1:6379', timeout: 50 },
    edge: {
      bodyLimit: 10_485_760,
      accessLog: true,
      overload: { eventLoopDelay: 1000, memory: false, requests: false, mode: 'enforce' },
      websocket: { idleTimeout: 300_000 },
      cors: { origin: ['https://app.example.com'], credentials: true, privateNetwork: false, mode: 'enforce' },
      rateLimit: { max: 1000, window: 60_000, by: 'ip', mode: 'enforce', store: 'memory' },
      requestId: { header: 'x-request-id', trustClient: true }
    },
    mesh,
    services: {
      orders: { name: 'orders', consul: { service: 'orders', passingOnly: true }, mesh },
      users: {
        name: 'users',
        consul: { service: 'users-v2', tags: ['http'], datacenter: 'dc1', passingOnly: true },
        mesh
      },
      products: {
        name: 'products',
        instances: ['http://127.0.0.1:9101', { url: 'http://127.0.0.1:9102', weight: 3 }],
        mesh
      },
      legacy: {
        name: 'legacy',
        dns: { host: 'legacy.internal', port: 8080, srv: false, tls: false, minTtl: 1000, maxTtl: 300_000 },
        mesh
      }
    },
    routes: [
      {
        name: 'orders',
        protection: 0,
        priority: 0,
        match: {
          path: '/api/orders',
          methods: ['GET', 'POST'],
          hosts: ['api.example.com'],
          headers: { 'x-beta': '1' }
        },
        service: 'orders',
        path: { strip: '/api', encodedSlash: 'refuse', parameters: 'refuse' },
        edge: {
          bodyLimit: 10_485_760,
          accessLog: true,
          websocket: { idleTimeout: 300_000 },
          cors: false,
          rateLimit: { max: 100, window: 10_000, by: 'consumer', mode: 'enforce', store: 'memory' },
          jwt: {
            jwks: 'https://id.example.com/jwks.json',
            issuer: 'https://id.example.com',
            audience: 'api',
            algorithms: ['RS256'],
            forward: { sub: 'x-user-id' },
            jwksMaxAge: 600_000,
            jwksCooldown: 30_000,
            clockSkew: 5000,
            rememberTokens: 20_000,
            maxTokenSize: 8192,
            from: { header: 'authorization' },
            optional: false,
            keepAuthorization: false,
            requireExp: true,
            boundTokens: 'check',
            consumer: 'sub',
            realm: 'jingwei',
            mode: 'enforce'
          }
        },
        mesh: { timeout: 3000, retry: false },
        targets: [{ service: 'orders', mesh: { timeout: 3000, retry: false }, call: null }],
        services: ['orders'],
        isBridged: true,
        declared: { answersPreflights: false, ownsHeaders: [], ownPaths: [] }
      }
    ],
    backends: {
      orders: ['consul orders'],
      users: ['consul users-v2'],
      products: ['at 127.0.0.1:9101', 'at 127.0.0.1:9102'],
      legacy: ['dns legacy.internal 8080']
    },
    otherServices: { orders: [], users: [], products: [], legacy: [] },
    instructions: {
      headers: ['x-jingwei-fault-delay', 'x-jingwei-fault-abort', 'x-jingwei-fault-bandwidth'],
      believed: []
    },
    perRequestHeaders: ['x-request-id'],
    calledModules: [],
    plugins: [
      {
        path: join(dir, 'plugins/stamp.ts'),
        options: { header: 'x-stamp' },
        scope: 'all',
        guarded: false,
        hookTimeout: 30_000,
        position: { line: 38, column: 5 },
        routeConfig: null
      }
    ]
  })
  t.equal(JSON.stringify(loader.schema), before, 'loading does not change the schema')
  t.strictSame(loadWithoutPlugins(join(dir, 'gateway.yaml'), {}), config, 'loading twice gives the same configuration')
})

t.test('an empty mapping gives the defaults', async (t) => {
  const config = parseConfig('# nothing yet\n{}\n', 'gateway.yaml', {})
  t.strictSame([config.routes, config.services, config.plugins], [[], {}, []])
  t.strictSame(config.admin, { host: '127.0.0.1', port: 8081, hosts: [] })
  t.equal(config.listen.port, 8080)
  t.match(config.edge, { bodyLimit: 10_485_760, accessLog: true })
  t.match(config.mesh, { timeout: 60_000, attemptTimeout: undefined })
})

t.test('a rate limit by header without maxPerAddress is warned of', async (t) => {
  const warnings = (rateLimit: string) => {
    const found: string[] = []
    const route = '{ name: a, match: { path: /a }, service: a }'
    const text = `edge: { rateLimit: { max: 1, window: 1s, ${rateLimit} } }\nservices: { a: { instances: ["http://127.0.0.1:1"] } }\nroutes: [${route}]\n`
    parseConfig(text, 'g.yaml', {}, (warning) => found.push(`${warning.path}: ${warning.message}`))
    return found
  }
  const message =
    'edge.rateLimit.by: a client that changes this header with each request has no limit; set maxPerAddress as well'
  t.strictSame(warnings('by: "header:x-api-key"'), [message])
  t.strictSame(warnings('by: "header:x-api-key", maxPerAddress: 100'), [])
  t.strictSame(warnings('by: ip'), [])
})

t.test('the nearest level decides, for each concern separately', async (t) => {
  const { services, routes } = parseConfig(
    `
edge:
  bodyLimit: 1mb
  accessLog: false
  cors: { origin: '*', maxAge: 1h }
  rateLimit: { max: 5, window: 1s, by: 'header:x-key' }
mesh: { timeout: 10s, retry: { attempts: 5 } }
services:
  a: { instances: [http://h] }
  b: { instances: [http://h], mesh: { timeout: 2s, retry: { budget: 50% }, balance: random } }
  c: { instances: [http://h], mesh: { retry: false, idleTimeout: false } }
routes:
  - { name: one, match: { path: /one }, service: a }
  - name: two
    match: { path: /two }
    split: [{ service: b, weight: 9 }, { service: a, weight: 1 }]
    edge: { bodyLimit: false, cors: { origin: [https://x] }, rateLimit: false, accessLog: true }
    mesh: { attemptTimeout: 1s }
`,
    'gateway.yaml',
    {}
  )
  t.match(services.a?.mesh, { timeout: 10_000, retry: { attempts: 5, budget: 0.2 }, balance: 'least-request' })
  t.match(services.b?.mesh, { timeout: 2000, retry: { attempts: 2, budget: 0.5 }, balance: 'random' })
  t.match(services.c?.mesh, { timeout: 10_000, retry: false, idleTimeout: false })
  t.strictSame(routes[0]?.edge, {
    bodyLimit: 1_048_576,
    accessLog: false,
    websocket: { idleTimeout: 300_000 },
    cors: { origin: '*', credentials: false, maxAge: 3_600_000, privateNetwork: false, mode: 'enforce' },
    rateLimit: { max: 5, window: 1000, by: 'header:x-key', mode: 'enforce', store: 'memory' }
  })
  t.strictSame(routes[0]?.mesh, {})
  t.strictSame(routes[1]?.edge, {
    bodyLimit: false,
    accessLog: true,
    websocket: { idleTimeout: 300_000 },
    cors: { origin: ['https://x'], credentials: false, privateNetwork: false, mode: 'enforce' },
    rateLimit: false
  })
  t.equal(routes[1]?.service, 'b', 'route.service is the first service of the split')
  t.strictSame(routes[1]?.mesh, {
    attemptTimeout: 1000,
    split: [
      { service: 'b', weight: 9 },
      { service: 'a', weight: 1 }
    ]
  })
})

t.test('the configuration is deeply frozen', async (t) => {
  const text =
    'plugins: [{ package: fastify, options: { deep: [{ deeper: 1 }] } }]\nedge: { cors: { origin: [https://x] } }\n'
  const loose: string[] = []
  const visit = (value: unknown, path: string) => {
    if (typeof value !== 'object' || value === null) return
    if (!Object.isFrozen(value)) loose.push(path)
    for (const [key, inner] of Object.entries(value)) visit(inner, `${path}.${key}`)
  }
  const config = parseConfig(text, 'gateway.yaml', {})
  visit(config, 'config')
  t.strictSame(loose, [])
  t.throws(() => Object.assign(config.plugins[0]?.options?.deep as object, { 0: 2 }), TypeError)
})

t.test('files and folders of listen.tls are resolved against the folder of the configuration', async (t) => {
  const [cert, key] = Object.values(selfSigned(t)).map((file) => readFileSync(file, 'utf8'))
  const dir = t.testdir({ tls: { 'a.crt': cert!, 'a.key': key! } })
  const config = parseConfig(
    `
listen:
  tls:
    certificates: [{ cert: tls/a.crt, key: tls/a.key }]
    folders: [tls]
    clientCertificate: { mode: request, ca: tls/a.crt }
    hosts: [{ names: ["*.a.example"], clientCertificate: { ca: tls/a.crt } }]
`,
    join(dir, 'gateway.yaml'),
    {}
  )
  const tls = (name: string) => join(dir, 'tls', name)
  t.match(config.listen.tls, {
    certificates: [{ cert: tls('a.crt'), key: tls('a.key') }],
    folders: [join(dir, 'tls')],
    clientCertificate: { mode: 'request', ca: tls('a.crt') },
    hosts: [{ names: ['*.a.example'], clientCertificate: { mode: 'require', ca: tls('a.crt') } }]
  })
})

t.test('other files are resolved against the folder of the configuration', async (t) => {
  const { publicKey } = generateKeyPairSync('ed25519')
  const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString()
  const [cert, key] = Object.values(selfSigned(t)).map((file) => readFileSync(file, 'utf8'))
  const dir = t.testdir({ tls: { 'cert.pem': cert!, 'key.pem': key!, 'ca.pem': cert! }, 'jwt.pem': pem })
  const config = parseConfig(
    `
listen: { http2: true, tls: { cert: tls/cert.pem, key: ./tls/key.pem, ca: ${dir}/tls/ca.pem } }
discovery: { consul: { url: https://h, tls: { ca: tls/ca.pem, serverName: consul } } }
edge: { jwt: { publicKey: jwt.pem, algorithms: [EdDSA] } }
services: { a: {} }
routes:
  - { name: one, match: { path: /one }, service: a }
  - { name: two, match: { path: /two }, service: a, edge: { jwt: { publicKey: "\${PEM}" } } }
`,
    join(dir, 'gateway.yaml'),
    { PEM: pem }
  )
  const tls = (name: string) => join(dir, 'tls', name)
  t.match(config.listen.tls, { cert: tls('cert.pem'), key: tls('key.pem'), ca: tls('ca.pem'), minVersion: 'TLSv1.2' })
  t.strictSame(config.discovery.consul?.tls, { ca: tls('ca.pem'), serverName: 'consul' })
  t.match(config.edge.jwt, { publicKey: join(dir, 'jwt.pem') })
  t.match(config.routes[0]?.edge.jwt, { publicKey: join(dir, 'jwt.pem') })
  t.match(config.routes[1]?.edge.jwt, { publicKey: pem }, 'a PEM key is not resolved as a path')
})

t.test('anchors and merge keys are expanded', async (t) => {
  const { services } = parseConfig(
    `
services:
  a: { instances: [http://h], mesh: &slow { timeout: 20s, retry: { attempts: 1 } } }
  b: { instances: [http://h], mesh: *slow }
  c: { instances: [http://h], mesh: { <<: *slow, timeout: 30s } }
  d: { instances: [http://h], mesh: { <<: [{ timeout: 1m }, *slow] } }
`,
    'gateway.yaml',
    {}
  )
  const timeouts = Object.values(services).map(({ mesh }) => [mesh.timeout, mesh.retry ? mesh.retry.attempts : false])
  t.strictSame(timeouts, [
    [20_000, 1],
    [20_000, 1],
    [30_000, 1],
    [60_000, 1]
  ])
})

t.test('routes that differ in method, host, header or exactness do not conflict', async (t) => {
  const { routes } = parseConfig(
    `
services: { a: { instances: [http://h] } }
routes:
  - { name: r1, service: a, match: { path: /x, methods: [GET] } }
  - { name: r2, service: a, match: { path: /x, methods: [POST] } }
  - { name: r3, service: a, match: { path: { exact: /x } } }
  - { name: r4, service: a, match: { path: /x, hosts: [a.b] } }
  - { name: r5, service: a, match: { path: /x, headers: { v: '1' } } }
  - { name: r6, service: a, match: { path: /x, headers: { v: '2' } } }
`,
    'gateway.yaml',
    {}
  )
  t.equal(routes.length, 6)
})

t.test('arguments of wrong types, as a program in JavaScript may pass them', async (t) => {
  const parse = parseConfig as (...args: unknown[]) => unknown
  const texts: [text: unknown, found: string][] = [
    [{ routes: [] }, 'an object with the keys routes'],
    [{}, 'an empty object'],
    [[], 'a list'],
    [undefined, 'undefined'],
    [Buffer.from('{}').buffer, 'an empty object'],
    [Promise.resolve('{}'), 'a promise']
  ]
  for (const [text, found] of texts) {
    const message = `parseConfig: expected the text of a configuration file, found ${found}; JSON is YAML: pass settings as JSON.stringify(settings)`
    t.throws(() => parse(text, 'gateway.yaml'), { name: 'TypeError', message })
  }
  const path = 'expected the path of a configuration file, found'
  t.throws(() => parse('{}', {}), { name: 'TypeError', message: `parseConfig: ${path} an empty object` })
  const files: [file: unknown, found: string][] = [
    [undefined, 'undefined'],
    ['', 'an empty text'],
    [null, 'null'],
    [5, 'a number'],
    [new URL('file:///gateway.yaml'), 'a URL'],
    [{ routes: [] }, 'an object with the keys routes']
  ]
  for (const [file, found] of files) {
    const error = (caller: string) => ({ name: 'TypeError', message: `${caller}: ${path} ${found}` })
    t.throws(() => loadWithoutPlugins(file as string), error('loadWithoutPlugins'))
    await t.rejects(loadConfig(file as string), error('loadConfig'))
  }
})

t.test('a text without the name of a file: its paths are relative to the current folder', async (t) => {
  const { file, plugins } = parseConfig('plugins: [{ path: ./config/examples/stamp.ts }]')
  t.equal(dirname(file), process.cwd())
  t.equal(plugins[0]?.path, resolve('config/examples/stamp.ts'))
  t.throws(() => parseConfig('routes: 1'), {
    message:
      'config of parseConfig:1:9: routes: expected a list, found 1\n1 fault in config of parseConfig; nothing was started'
  })
})

t.test('a file that cannot be read is a fault', async (t) => {
  const dir = t.testdir({})
  const file = join(dir, 'none.yaml')
  t.throws(() => loadWithoutPlugins(file), {
    message: `${file}: no such file\n1 fault in ${file}; nothing was started`,
    faults: [{ file, line: 0, column: 0, path: '', message: 'no such file' }]
  })
  t.throws(() => loadWithoutPlugins('none.yaml'), { message: `none.yaml: no such file: ${resolve('none.yaml')}\n` })
  t.throws(() => loadWithoutPlugins(dir), {
    message: `${dir}: is a folder, not a file\n1 fault in ${dir}; nothing was started`
  })
  t.throws(() => loadWithoutPlugins(dir), ConfigError)
})

t.test('the default environment is process.env', async (t) => {
  process.env.JINGWEI_TEST_PORT = '1234'
  t.teardown(() => void delete process.env.JINGWEI_TEST_PORT)
  const file = join(t.testdir({ 'gateway.yaml': 'listen: { port: $' + '{JINGWEI_TEST_PORT} }' }), 'gateway.yaml')
  t.equal(loadWithoutPlugins(file).listen.port, 1234)
  t.throws(() => loadWithoutPlugins(file, {}), ConfigError)
})

t.test('no mapping of the schema allows additional keys', async (t) => {
  const open: string[] = []
  const visit = (schema: unknown, path: string) => {
    if (typeof schema !== 'object' || schema === null) return
    const { type, properties, additionalProperties } = schema as Record<string, unknown>
    if (type === 'object' && properties !== undefined && additionalProperties !== false) open.push(path)
    // A condition describes only a part of the mapping.
    for (const [key, inner] of Object.entries(schema)) if (key !== 'if') visit(inner, `${path}/${key}`)
  }
  visit(loader.schema, '#')
  t.strictSame(open, [])
})

t.test('0 needs no unit where zero is allowed', async (t) => {
  const config = parseConfig(
    `
listen: { drain: { delay: 0, timeout: 0 } }
edge: { bodyLimit: 0 }
mesh: { retry: { budget: 0, maxBody: 0, backoff: { base: 0, max: 0 } }, balance: { panicThreshold: 0 } }
`,
    'gateway.yaml',
    {}
  )
  t.match(config, {
    listen: { drain: { delay: 0, timeout: 0 } },
    edge: { bodyLimit: 0 },
    mesh: { retry: { budget: 0, maxBody: 0, backoff: { base: 0, max: 0 } }, balance: { panicThreshold: 0 } }
  })
})

t.test('keys with x- are ignored, and a list whose items are all commented out is empty', async (t) => {
  const text = `
x-retry: &retry { attempts: 5 }
x-any: &any [1, { a: b }]
mesh: { retry: *retry }
plugins:
  # - path: ./one.ts
consumers:
`
  const config = parseConfig(text, 'gateway.yaml', {})
  t.match(config.mesh.retry, { attempts: 5 })
  t.strictSame(config.plugins, [])
  t.notOk(Object.keys(config).some((key) => key.startsWith('x-')))
})

t.test('the hash is that of the bytes of the file, not of the decoded text', async (t) => {
  // sha256sum FILE | cut -c1-16
  const hashes = {
    'admin: false\n': '8ef025ab76c53342',
    '# \xff\nadmin: false\n': '0ee840dbdd0d85a8',
    '\xef\xbb\xbfadmin: false\n': '66ca4db8506f4b01'
  }
  for (const [text, hash] of Object.entries(hashes)) {
    const file = join(t.testdir({ 'gateway.yaml': Buffer.from(text, 'latin1') }), 'gateway.yaml')
    t.equal(loadWithoutPlugins(file).hash, hash)
    t.equal((await loadConfig(file)).hash, hash)
  }
  t.equal(parseConfig('admin: false\n', 'gateway.yaml').hash, hashes['admin: false\n'])
})
