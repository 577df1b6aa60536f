/** `edge.uma`: Keycloak's permissions, against a token endpoint that responds as Keycloak does, and to its failures. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import type { Clock } from '../../../plugins/clock.ts'
import { CLOCK } from '../../../plugins/clock.ts'
import { parseConfig } from '../../../plugins/config.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, get, startEcho, startGateway, startService } from '../../helpers/gateway.ts'

const json = (response: ServerResponse, status: number, body: object) => {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

/** Permissions of tokens. */
const granted: Readonly<Record<string, readonly string[]>> = {
  'tok.alice': ['orders#view', 'orders#edit'],
  'tok.bob': ['orders#view']
}
const known = ['orders#view', 'orders#edit', 'orders']

/** Scopes that a token has for the resources with these URIs; Keycloak uses the resource whose URI fits best. */
const byUri: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  '/*': { 'tok.alice': ['GET', 'POST'], 'tok.bob': ['GET', 'POST'] },
  '/secret/*': { 'tok.alice': ['GET'] },
  '/orders/*': { 'tok.alice': ['GET', 'POST'], 'tok.bob': ['GET'] }
}

/** Returns the permissions of a form with `permission_resource_format=uri`, as they are asked for by name. */
function grantedByUri(permission: string, token: string): boolean | null {
  const [uri = '', scope = ''] = permission.split('#')
  const prefix = Object.keys(byUri).findLast((each) => uri.startsWith(each.slice(0, -1)) && uri !== '/nowhere')
  if (prefix === undefined || !['GET', 'POST'].includes(scope)) return null
  return byUri[prefix]![token]?.includes(scope) ?? false
}

/** Keycloak's token endpoint for `urn:ietf:params:oauth:grant-type:uma-ticket` with `response_mode=decision`. */
function keycloak(form: URLSearchParams, authorization: string | undefined, response: ServerResponse): unknown {
  if (form.get('grant_type') !== 'urn:ietf:params:oauth:grant-type:uma-ticket') {
    return json(response, 400, { error: 'unsupported_grant_type' })
  }
  const token = /^Bearer (.+)$/.exec(authorization ?? '')?.[1] ?? ''
  const own = granted[token]
  if (own === undefined)
    return json(response, 401, { error: 'invalid_grant', error_description: 'Invalid bearer token' })
  if (form.get('audience') !== 'orders-api') return json(response, 400, { error: 'invalid_client' })
  const asked = form.getAll('permission')
  if (form.get('permission_resource_format') === 'uri') {
    t.equal(form.get('permission_resource_matching_uri'), 'true')
    const isGranted = grantedByUri(asked[0]!, token)
    if (isGranted === null)
      return json(response, 400, { error: asked[0]!.endsWith('#PUT') ? 'invalid_scope' : 'invalid_resource' })
    return isGranted ? json(response, 200, { result: true }) : json(response, 403, { error: 'access_denied' })
  }
  if (asked.some((permission) => !known.includes(permission))) return json(response, 400, { error: 'invalid_resource' })
  // One of the permissions is enough.
  if (!asked.some((permission) => own.includes(permission))) {
    return json(response, 403, { error: 'access_denied', error_description: 'not_authorized' })
  }
  t.equal(form.get('response_mode'), 'decision')
  return json(response, 200, { result: true })
}

type Endpoint = (request: IncomingMessage, response: ServerResponse) => void

async function start(
  t: Test,
  permissions: string[],
  more: { uma?: object; edge?: object; listen?: object; url?: string; endpoint?: Endpoint; clock?: Clock } = {}
) {
  const calls: URLSearchParams[] = []
  const server = await startService((request, response) => {
    if (more.endpoint !== undefined) return more.endpoint(request, response)
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const form = new URLSearchParams(Buffer.concat(chunks).toString())
      calls.push(form)
      keycloak(form, request.headers.authorization, response)
    })
  })
  t.teardown(server.close)
  const service = await startEcho()
  t.teardown(service.close)
  const url = `${server.url}/realms/acme/protocol/openid-connect/token`
  const gateway = await startGateway(
    {
      admin: { port: 0 },
      ...(more.listen && { listen: more.listen }),
      services: { any: { instances: [more.url ?? service.url] } },
      edge: { uma: { url, audience: 'orders-api', permissions, ...more.uma }, ...more.edge },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
    },
    {
      log: true,
      before: (fastify) => {
        if (more.clock !== undefined) fastify.decorate(CLOCK, more.clock)
      }
    }
  )
  t.teardown(gateway.close)
  const lineOf = async (index: number) => {
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    await eventually(() => lines().length > index)
    return lines()[index]!
  }
  const ask = (...headers: string[]) => get(gateway.port, '/', headers)
  /** Refusals in shadow mode, in access lines or after them. */
  const recorded = () => gateway.log.flatMap(({ shadow }) => (shadow ?? []) as object[])
  return { ...gateway, calls, lineOf, ask, recorded }
}

for (const protocol of protocols) {
  t.test(`over ${protocol}, requests pass with all permissions`, async (t) => {
    const gateway = await start(t, ['orders#view', 'orders#edit'], { listen: listenFor(t, protocol) })
    const { ask } = anyClient(t, protocol, gateway.port)
    for (const [index, [authorization, status, reason, challenge]] of (
      [
        ['Bearer tok.alice', 200],
        ['bearer  tok.alice', 200],
        ['Bearer tok.bob', 403, 'uma_denied', 'Bearer realm="jingwei", error="insufficient_scope"'],
        ['Bearer tok.eve', 401, 'uma_invalid', 'Bearer realm="jingwei", error="invalid_token"'],
        ['', 401, 'uma_token', 'Bearer realm="jingwei"'],
        ['Basic dG9rLmFsaWNl', 401, 'uma_token', 'Bearer realm="jingwei"'],
        ['Bearer tok alice', 401, 'uma_token', 'Bearer realm="jingwei"']
      ] as const
    ).entries()) {
      const body = 'x'.repeat(200_000)
      const headers: Record<string, string> = authorization === '' ? {} : { authorization }
      const received = await ask('/', { method: 'POST', headers, body })
      t.equal(received.status, status, authorization)
      t.ok(received.isWhole, authorization)
      t.equal(received.headers['www-authenticate'], challenge, authorization)
      t.equal((await gateway.lineOf(index)).reason, reason, authorization)
      if (status === 200) t.equal(JSON.parse(received.body.toString()).body, body, 'the body is whole')
    }
    t.strictSame(
      gateway.calls.slice(0, 2).map((form) => form.getAll('permission')),
      [['orders#view'], ['orders#edit']],
      'each permission is asked for on its own'
    )
  })
}

t.test('two tokens in one request are refused without a call', async (t) => {
  const { ask, calls } = await start(t, ['orders#view'])
  t.equal((await ask('Authorization: Bearer tok.alice', 'Authorization: Bearer tok.eve')).status, 401)
  t.equal(calls.length, 0)
})

t.test('without a verdict the request is refused with 503', async (t) => {
  const respond =
    (status: number, body: string): Endpoint =>
    (_request, response) =>
      response.writeHead(status).end(body)
  const cases: [endpoint: Endpoint | undefined, reason: string, uma?: object][] = [
    [undefined, 'uma_status', { permissions: ['unknown'] }],
    [undefined, 'uma_status', { audience: 'other' }],
    [respond(200, '{}'), 'uma_malformed'],
    [respond(200, '{"result":"true"}'), 'uma_malformed'],
    [respond(200, 'true'), 'uma_malformed'],
    [respond(200, `{"result":true,"x":"${'x'.repeat(100_000)}"}`), 'uma_malformed'],
    [respond(403, '<html>a firewall</html>'), 'uma_status'],
    [respond(500, '{"result":true}'), 'uma_status'],
    [respond(302, '{"result":true}'), 'uma_status'],
    [() => {}, 'uma_timeout', { timeout: '100ms' }],
    [(request) => request.socket.destroy(), 'uma_unreachable']
  ]
  for (const [endpoint, reason, uma] of cases) {
    const gateway = await start(t, ['orders#view'], { ...(endpoint && { endpoint }), ...(uma && { uma }) })
    const { status, body } = await gateway.ask('Authorization: Bearer tok.alice')
    t.equal(status, 503, reason)
    t.equal(JSON.parse(body).code, 'JW_AUTH_UNAVAILABLE')
    t.equal((await gateway.lineOf(0)).reason, reason)
  }
})

t.test('shadow mode lets refused requests pass, also without the server', async (t) => {
  const gateway = await start(t, ['orders#edit'], { uma: { mode: 'shadow' } })
  t.equal((await gateway.ask('Authorization: Bearer tok.bob')).status, 200)
  const shadow = [{ concern: 'uma', error: 'JW_INSUFFICIENT_SCOPE', reason: 'uma_denied' }]
  await eventually(() => gateway.recorded().length === 1)
  t.strictSame(gateway.recorded(), shadow)
  const gone = await start(t, ['orders#edit'], {
    uma: { mode: 'shadow' },
    endpoint: (request) => request.socket.destroy()
  })
  t.equal((await gone.ask('Authorization: Bearer tok.bob')).status, 200)
  await eventually(() => gone.recorded().length === 1)
  t.match(gone.recorded(), [{ error: 'JW_AUTH_UNAVAILABLE', reason: 'uma_unreachable' }])
})

t.test('a handshake of a WebSocket needs the permissions', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const { port } = await start(t, ['orders#edit'], { url: service.url })
  for (const [token, status] of [
    ['tok.bob', 403],
    ['tok.alice', 101]
  ] as const) {
    const client = connect(port, handshake('/', [`Authorization: Bearer ${token}`]))
    t.match(await client.until('\r\n\r\n'), new RegExp(`^HTTP/1.1 ${status} `))
    client.socket.destroy()
  }
  t.equal(service.requests.length, 1)
  const { port: other } = await start(t, ['{path}#{method}'], { url: service.url, uma: { maxAge: '1m' } })
  for (const [path, token, status] of [
    ['/secret/1', 'tok.bob', 403],
    ['/orders/1', 'tok.bob', 101],
    ['/orders/1', 'tok.bob', 101],
    ['/secret/1', 'tok.bob', 403]
  ] as const) {
    const client = connect(other, handshake(path, [`Authorization: Bearer ${token}`]))
    t.match(await client.until('\r\n\r\n'), new RegExp(`^HTTP/1.1 ${status} `), path)
    client.socket.destroy()
  }
})

for (const protocol of protocols) {
  t.test(`over ${protocol}, permissions by path and method`, async (t) => {
    const { port, calls } = await start(t, ['{path}#{method}'], { listen: listenFor(t, protocol) })
    const { ask } = anyClient(t, protocol, port)
    const status = async (method: string, path: string, token: string) => {
      const headers = { authorization: `Bearer ${token}` }
      return (await ask(path, { method, headers, ...(method !== 'GET' && { body: 'x' }) })).status
    }
    t.equal(await status('GET', '/orders/7?a=/secret', 'tok.bob'), 200)
    t.equal(calls.at(-1)!.get('permission'), '/orders/7#GET')
    t.equal(await status('POST', '/orders/7', 'tok.bob'), 403)
    t.equal(await status('POST', '/orders/7', 'tok.alice'), 200)
    t.equal(await status('PUT', '/orders/7', 'tok.alice'), 403, 'a scope that Keycloak does not know')
    t.equal(await status('GET', '/nowhere', 'tok.alice'), 403, 'a path without a resource')
    t.equal(await status('GET', '/secret/1', 'tok.alice'), 200)
    // Every spelling that a service could read as the secret path, while Keycloak's default resource allows all.
    for (const path of [
      '/secret/1',
      '/SECRET/1',
      '/%73ecret/1',
      '/secret;a/1',
      '/secret./1',
      '/secret%20/1',
      '//secret/1',
      '/%E2%84%AAx/../secret/1',
      '/a/../secret/1',
      '/./secret/1',
      '/secret%2F1',
      '/secret%5C1',
      '/\u017fecret/1'
    ]) {
      const received = await status('GET', encodeURI(path).replaceAll('%25', '%'), 'tok.bob')
      t.ok(received === 403 || received === 400, `${path}: ${received}`)
    }
    t.equal(await status('GET', '/open%23/1', 'tok.alice'), 403, 'the path does not end the resource')
    t.equal(await status('GET', '/Open/1', 'tok.bob'), 200)
  })
}

t.test('maxAge: a granted permission is kept, and a revoked one is accepted no longer', async (t) => {
  let time = 1_000_000
  const clock = { now: () => time, date: () => time }
  const { ask, calls, server } = await start(t, ['orders#view'], { uma: { maxAge: '10s' }, clock })
  const jwt = (exp: number) => `x.${Buffer.from(JSON.stringify({ exp })).toString('base64url')}.y`
  const [short, long] = [jwt(1004), jwt(2000)]
  const tokens = granted as Record<string, readonly string[]>
  t.teardown(() => {
    for (const token of [short, long]) delete tokens[token]
  })
  for (const token of [short, long]) tokens[token] = ['orders#view']
  const as = async (token: string) => (await ask(`Authorization: Bearer ${token}`)).status
  const all = await Promise.all(Array.from({ length: 20 }, () => as(long)))
  t.same(new Set(all), new Set([200]))
  t.equal(calls.length, 1, 'requests share a call')
  t.equal(await as('tok.bob'), 200)
  t.equal(await as('tok.eve'), 401)
  t.equal(await as('tok.eve'), 401)
  t.equal(calls.length, 4, 'refusals are not kept')
  tokens[long] = []
  time += 9_999
  t.equal(await as(long), 200, 'within maxAge')
  time += 1
  t.equal(await as(long), 403)
  tokens[long] = ['orders#view']
  t.equal(await as(long), 200, 'a permission that is granted again counts at once')
  time = 1_000_000
  t.equal(await as(short), 200)
  tokens[short] = []
  time += 3_999
  t.equal(await as(short), 200)
  time += 1
  t.equal(await as(short), 403, 'no longer than the token')
  const text = await server.metrics.metrics()
  t.match(text, /uma_permissions_total\{route="all",result="cached"\} \d/)
  t.match(text, /uma_permissions_total\{route="all",result="invalid"\} 2\n/)
})

t.test('maxAge: decisions are kept by token and permission, within a bound, and none during an outage', async (t) => {
  let isDown = false
  const asked: string[] = []
  const endpoint: Endpoint = (request, response) => {
    if (isDown) return request.socket.destroy()
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      asked.push(new URLSearchParams(Buffer.concat(chunks).toString()).get('permission')!)
      json(response, 200, { result: true })
    })
  }
  const { port } = await start(t, ['{path}'], { uma: { maxAge: '10m', cacheSize: '1kb' }, endpoint })
  const status = async (path: string, token: string) =>
    (await get(port, path, [`Authorization: Bearer ${token}`])).status
  for (const [path, token] of [
    ['/a', 'x'],
    ['/a', 'y'],
    ['/b', 'x'],
    ['/a', 'x'],
    ['/b', 'x']
  ] as const) {
    t.equal(await status(path, token), 200)
  }
  t.same(asked, ['/a', '/a', '/b'])
  isDown = true
  t.equal(await status('/a', 'x'), 200, 'kept')
  t.equal(await status('/a', 'z'), 503, 'not kept')
  isDown = false
  t.equal(await status('/a', 'z'), 200, 'a failure is not kept')
  for (let i = 0; i < 20; i++) await status(`/many/${i}`, 'x')
  const before = asked.length
  t.equal(await status('/b', 'x'), 200)
  t.equal(asked.length, before + 1, 'the oldest were dropped')
})

t.test('a reference that does not exist is warned of', async (t) => {
  const warnings: string[] = []
  const permissions = ['{path}#{method}', '{paht}', 'orders']
  const config = {
    services: { any: { instances: ['http://127.0.0.1:1'] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    edge: { uma: { url: 'http://127.0.0.1:1', audience: 'a', permissions } }
  }
  parseConfig(
    JSON.stringify(config),
    'gateway.yaml',
    {},
    ({ path, message }) => void warnings.push(`${path}: ${message}`)
  )
  t.same(warnings, ['edge.uma.permissions[1]: {paht} is sent as it is: only {path} and {method} are replaced'])
})

t.test(
  'asks with the token that jwt has verified, wherever it was, and although the service does not get it',
  async (t) => {
    const seen: unknown[] = []
    const endpoint: Endpoint = ({ headers }, response) => {
      seen.push(headers.authorization)
      json(response, 200, { result: true })
    }
    const text = token(claims())
    const from = { cookie: 'session', query: 'token' }
    const { port } = await start(t, ['orders#view'], {
      endpoint,
      edge: { jwt: { secret, from, hideCredentials: true } }
    })
    for (const [path, headers] of [
      ['/', [`authorization: Bearer ${text}`]],
      ['/', [`cookie: a=b; session=${text}`]],
      [`/?token=${text}`, []]
    ] as [string, string[]][]) {
      const { status, body } = await get(port, path, headers)
      t.equal(status, 200)
      t.notMatch(String(body), /eyJ/, 'the service gets no token')
      t.equal(seen.pop(), `Bearer ${text}`)
    }
    t.equal((await get(port, '/')).status, 401)
    t.equal(seen.length, 0)
  }
)
