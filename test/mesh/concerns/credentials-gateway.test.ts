// slow: takes about 6 s
/** Credentials toward services through the whole gateway: over HTTP/1.1 and HTTP/2, its ports, its sidecar, a library. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import http2 from 'node:http2'
import { join } from 'node:path'
import { Provider } from 'oidc-provider'
import type { Test } from 'tap'
import t from 'tap'
import { build } from '../../../app.ts'
import { loadConfig, loadSidecar } from '../../../plugins/config.ts'
import { createMesh } from '../../../plugins/mesh-api.ts'
import { eventually } from '../../helpers/eventually.ts'
import { configOf, get, startGateway, startWith } from '../../helpers/gateway.ts'
import { meshOf, Recorder } from '../../helpers/mesh/mesh.ts'
import { refused, upstream } from '../../helpers/mesh/servers.ts'
import { giveToken, tokenServer } from '../../helpers/mesh/token-server.ts'
import { freePort } from '../../helpers/processes.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

/** A service that echoes bodies, and responds with 401 to other tokens than the accepted one. */
async function guarded(t: Test, state: { accepted: string }) {
  return upstream(t, 'guarded', async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const isAccepted = request.headers.authorization === `Bearer ${state.accepted}`
    response.writeHead(isAccepted ? 200 : 401, { 'x-body': 'echo' }).end(Buffer.concat(chunks))
  })
}

const oauth2 = (url: string, more: object = {}) => ({
  oauth2: { url: `${url}/token`, clientId: 'gateway', clientSecret: 'top-s3cret', ...more }
})

const configFor = (url: string, credentials: object, more: object = {}) => ({
  admin: { port: 0 },
  services: { guarded: { instances: [url], mesh: { credentials } }, ...more },
  routes: [{ name: 'guarded', match: { path: '/' }, service: 'guarded' }]
})

t.test('over HTTP/2: bodies arrive whole, with a new token after a 401', async (t) => {
  const state = { accepted: 'token-1' }
  const service = await guarded(t, state)
  const tokens = await tokenServer(t)
  const { cert, key } = selfSigned(t)
  const config = { ...configFor(service.url, oauth2(tokens.url)), listen: { tls: { cert, key }, http2: true } }
  const gateway = await startGateway(config)
  t.teardown(() => gateway.close())
  const session = http2.connect(gateway.url, { ca: readFileSync(cert), rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  const post = async (body: Buffer, headers: Record<string, string> = {}) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': '/a',
      authorization: 'Bearer of-the-client',
      ...headers
    })
    const status = new Promise((resolve) => stream.once('response', (fields) => resolve(fields[':status'])))
    stream.end(body)
    const chunks: Buffer[] = []
    for await (const chunk of stream) chunks.push(chunk as Buffer)
    return { status: await status, body: Buffer.concat(chunks) }
  }
  for (const size of [0, 10, 60_000, 3_000_000]) {
    const body = randomBytes(size)
    const sent = await post(body)
    t.equal(sent.status, 200)
    t.ok(sent.body.equals(body), `${size} bytes`)
  }
  t.ok(service.requests.every(({ headers }) => headers.authorization === 'Bearer token-1'))
  t.equal(tokens.requests.length, 1)
})

t.test('nothing of the credentials is in the log, the metrics, explain or the admin API', async (t) => {
  const service = await guarded(t, { accepted: 'no token' })
  const tokens = await tokenServer(t, (response, count) =>
    count === 1 ? giveToken(response, 'very-s3cret-token') : response.writeHead(500).end('top-s3cret')
  )
  const file = t.testdir({ password: 'file-s3cret' })
  const more = {
    basic: {
      instances: [service.url],
      mesh: { credentials: { basic: { username: 'ann', passwordFile: `${file}/password` } } }
    },
    down: { instances: [service.url], mesh: { credentials: oauth2(tokens.url) } }
  }
  const config = configFor(service.url, oauth2(tokens.url), more)
  config.routes.unshift(
    { name: 'basic', match: { path: '/basic' }, service: 'basic' },
    { name: 'down', match: { path: '/down' }, service: 'down' }
  )
  const gateway = await startGateway(config, { log: true })
  t.teardown(() => gateway.close())
  t.equal((await get(gateway.port, '/', ['Authorization: Basic client-s3cret'])).status, 401)
  t.equal((await get(gateway.port, '/basic')).status, 401)
  const down = await get(gateway.port, '/down')
  t.equal(down.status, 503)
  t.equal(down.headers['retry-after'], '1')
  t.match(JSON.parse(down.body), { code: 'JW_CREDENTIALS_UNAVAILABLE' })
  t.match(down.headers['proxy-status'], /proxy_internal_error/)
  const { admin } = gateway.server
  const texts = [JSON.stringify(gateway.log), down.body, JSON.stringify(down.headers)]
  for (const path of [
    '/metrics',
    '/admin/services',
    '/admin/routes',
    '/admin/config',
    '/admin/explain?path=/',
    '/admin/explain?path=/basic'
  ]) {
    texts.push((await admin!.inject(path)).body)
  }
  for (const text of texts) t.notMatch(text, /s3cret/)
  t.match(texts.at(-2), /a token of http:\/\/127.0.0.1:\d+\/token for client gateway/)
  t.match(texts.at(-1), /user ann and a password/)
  t.ok(gateway.log.some(({ msg }) => /no token for down/.test(String(msg))))
  t.ok(
    gateway.log.some(({ reason }) => reason === 'credentials_unavailable'),
    'in the access log'
  )
})

t.test('clients share nothing of theirs, and a cached response needs none of their credentials', async (t) => {
  const service = await upstream(t, 'echo', (request, response) => {
    response.end(JSON.stringify([request.headers.authorization, request.headers.cookie, request.url]))
  })
  const tokens = await tokenServer(t)
  const config = configFor(service.url, oauth2(tokens.url))
  Object.assign(config.services.guarded.mesh, { collapse: true })
  const gateway = await startGateway(config)
  t.teardown(() => gateway.close())
  const ask = async (name: string) =>
    JSON.parse((await get(gateway.port, `/${name}`, [`Cookie: id=${name}`, `Authorization: Basic ${name}`])).body)
  const names = Array.from({ length: 20 }, (_, i) => `client-${i}`)
  const seen = await Promise.all(names.map(ask))
  t.strictSame(
    seen,
    names.map((name) => ['Bearer token-1', `id=${name}`, `/${name}`])
  )
  for (const { form, headers } of tokens.requests) t.notMatch(JSON.stringify([form, headers]), /client-/)
})

t.test('WebSocket handshakes have the credentials, too', async (t) => {
  const service = await upstream(t, 'ws')
  service.server.on('upgrade', (request, socket) => {
    const { authorization } = request.headers
    socket.end(
      `HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n${authorization}`
    )
  })
  const gateway = await startGateway(configFor(service.url, { bearer: { token: 'abc' } }))
  t.teardown(() => gateway.close())
  const response = await get(gateway.port, '/', [
    'Upgrade: websocket', 'Connection: upgrade', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'Authorization: Basic x'
  ]) // biome-ignore format: a list
  t.equal(response.status, 101)
  t.equal(response.body, 'Bearer abc')
})

t.test('a real OAuth 2.0 server', async (t) => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const dir = t.testdir({ 'key.pem': privateKey.export({ type: 'pkcs8', format: 'pem' }) as string })
  const common = { redirect_uris: [], response_types: [], grant_types: ['client_credentials'], scope: 'read' }
  const secret = 'a secret: of the gateway'
  const jwks = { keys: [{ ...publicKey.export({ format: 'jwk' }), use: 'sig' }] }
  let handle: RequestListener = () => {}
  const server = await upstream(t, 'oauth', (request, response) => handle(request, response))
  const provider = new Provider(server.url, {
    clients: [
      { ...common, client_id: 'basic', client_secret: secret, token_endpoint_auth_method: 'client_secret_basic' },
      { ...common, client_id: 'post', client_secret: secret, token_endpoint_auth_method: 'client_secret_post' },
      { ...common, client_id: 'signed', token_endpoint_auth_method: 'private_key_jwt', jwks }
    ],
    scopes: ['read'],
    features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } }
  })
  handle = provider.callback()
  const cases: [clientId: string, options: object, status: number][] = [
    ['basic', { clientSecret: secret }, 200],
    ['post', { clientSecret: secret, clientAuth: 'post' }, 200],
    ['signed', { privateKeyFile: join(dir, 'key.pem') }, 200],
    ['basic', { clientSecret: 'another secret' }, 503],
    ['post', { clientSecret: 'another secret', clientAuth: 'post' }, 503]
  ]
  for (const [clientId, options, status] of cases) {
    const service = await upstream(t, 'a')
    const credentials = { oauth2: { url: `${server.url}/token`, scopes: ['read'], clientId, ...options } }
    const gateway = await startGateway(configFor(service.url, credentials), { log: true })
    t.teardown(() => gateway.close())
    const lines = () => gateway.log.map(({ msg }) => msg).join()
    t.equal((await get(gateway.port, '/')).status, status, clientId)
    if (status === 200) t.match(service.requests[0]!.headers.authorization, /^Bearer [\w-]{20,}$/, lines())
    else t.match(lines(), /refuses the gateway with 401/)
  }
})

t.test('the mesh as a library', async (t) => {
  const service = await guarded(t, { accepted: 'token-1' })
  const tokens = await tokenServer(t)
  const mesh = await createMesh({
    services: { guarded: { instances: [service.url], mesh: { credentials: oauth2(tokens.url) } } }
  })
  t.teardown(() => mesh.close())
  const { statusCode, body } = await mesh.request({
    origin: 'http://guarded.mesh',
    path: '/',
    method: 'POST',
    body: 'abc'
  })
  t.equal(statusCode, 200)
  t.equal(await body.text(), 'abc')
  await eventually(() => tokens.requests.length === 1)
})

t.test('the sidecar that runs the mesh half of a gateway has the credentials and the circuits of routes', async (t) => {
  const service = await guarded(t, { accepted: 'token-1' })
  const tokens = await tokenServer(t)
  const port = await freePort()
  const breaker = { consecutiveFailures: 2, errorRatio: false, slowRatio: false }
  const file = join(t.testdir(), 'gateway.yaml')
  writeFileSync(
    file,
    JSON.stringify({
      admin: false,
      mesh: { mode: 'sidecar', retry: false },
      services: {
        guarded: { instances: [service.url], mesh: { credentials: oauth2(tokens.url) } },
        down: { instances: [service.url], mesh: { credentials: oauth2(await refused()) } },
        gone: { instances: [await refused()] }
      },
      routes: [
        { name: 'guarded', match: { path: '/' }, service: 'guarded' },
        { name: 'down', match: { path: '/down' }, service: 'down' },
        { name: 'breaking', match: { path: '/breaking' }, service: 'gone', mesh: { circuitBreaker: breaker } },
        { name: 'gone', match: { path: '/gone' }, service: 'gone' }
      ],
      sidecar: { gateway: { port } }
    })
  )
  const sidecar = build(await loadSidecar(file, {}), { logger: false })
  await sidecar.listen({ host: '127.0.0.1', port })
  t.teardown(() => sidecar.close())
  const gateway = await startWith(await loadConfig(file, {}))
  t.teardown(() => gateway.close())
  t.equal((await get(gateway.port, '/', ['Authorization: Bearer of-the-client'])).status, 200)
  t.equal(service.requests[0]!.headers.authorization, 'Bearer token-1')
  const down = await get(gateway.port, '/down')
  t.equal(down.status, 503)
  t.match(JSON.parse(down.body), { code: 'JW_CREDENTIALS_UNAVAILABLE' })
  for (const status of [502, 502, 503]) t.equal((await get(gateway.port, '/breaking')).status, status)
  t.equal((await get(gateway.port, '/gone')).status, 502)
})

t.test('a service that refuses each token, with bodies of all sizes and none', async (t) => {
  for (const size of [0, 100, 1_000_000]) {
    let count = 0
    const service = await upstream(t, 'refusing', (request, response) => {
      request.resume()
      count++
      response.writeHead(401, { 'www-authenticate': `Bearer realm="${count}"` }).end('x'.repeat(size))
    })
    const tokens = await tokenServer(t)
    const gateway = await startGateway(configFor(service.url, oauth2(tokens.url)))
    t.teardown(() => gateway.close())
    for (const method of ['GET', 'HEAD', 'POST', 'DELETE']) {
      const response = await get(gateway.port, '/', [], method)
      t.equal(response.status, 401)
      t.match(response.headers['www-authenticate'], /^Bearer realm="\d"$/)
      t.equal(response.body.length, method === 'HEAD' ? 0 : size)
    }
    t.equal(tokens.requests.length, 1)
    t.equal(count, 4)
  }
})

t.test('a client that leaves while a call is repeated, and a refusal that never ends', async (t) => {
  const state = { isOld: false, held: 0 }
  const service = await upstream(t, 'slow', (request, response) => {
    request.resume()
    if (request.headers.authorization !== 'Bearer token-1' || !state.isOld) {
      if (state.isOld && request.url === '/held') state.held++
      else response.end(request.headers.authorization)
    } else {
      // A body without an end: it is read for a second at most.
      response.writeHead(401)
      response.write('x'.repeat(1000))
    }
  })
  const tokens = await tokenServer(t)
  let now = 0
  const { services } = configOf({
    services: { slow: { instances: [service.url], mesh: { credentials: oauth2(tokens.url), circuitBreaker: {} } } },
    routes: [{ name: 'slow', match: { path: '/' }, service: 'slow' }]
  })
  const mesh = meshOf(t, Object.values(services), { now: () => now })
  const ask = async () => (await mesh.request({ origin: 'http://slow.mesh', path: '/', method: 'GET' })).body.text()
  t.equal(await ask(), 'Bearer token-1')
  state.isOld = true
  now += 10_000
  const recorder = new Recorder()
  mesh.dispatch({ origin: 'http://slow.mesh', path: '/held', method: 'GET' }, recorder)
  await eventually(() => state.held === 1, 'the repeated call at the service')
  recorder.controller.abort(new Error('gone'))
  await recorder.done
  t.strictSame(recorder.events, ['start', 'error'])
  t.equal(await ask(), 'Bearer token-2')
  await eventually(() => {
    const { active, concerns } = mesh.service('slow').status()
    const { inFlight } = concerns['circuit-breaker'] as { inFlight: number }
    return active === 0 && inFlight === 0 && (concerns.caps as { active: number }).active === 0
  }, 'nothing in flight')
})
