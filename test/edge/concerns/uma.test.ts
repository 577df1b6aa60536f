/** `edge.uma`: Keycloak's permissions, against a token endpoint that responds as Keycloak does, and to its failures. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
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
  more: { uma?: object; listen?: object; url?: string; endpoint?: Endpoint } = {}
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
      ...(more.listen && { listen: more.listen }),
      services: { any: { instances: [more.url ?? service.url] } },
      edge: { uma: { url, audience: 'orders-api', permissions, ...more.uma } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const lineOf = async (index: number) => {
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    await eventually(() => lines().length > index)
    return lines()[index]!
  }
  const ask = (...headers: string[]) => get(gateway.port, '/', headers)
  return { ...gateway, calls, lineOf, ask }
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
  t.strictSame((await gateway.lineOf(0)).shadow, shadow)
  const gone = await start(t, ['orders#edit'], {
    uma: { mode: 'shadow' },
    endpoint: (request) => request.socket.destroy()
  })
  t.equal((await gone.ask('Authorization: Bearer tok.bob')).status, 200)
  t.match((await gone.lineOf(0)).shadow, [{ error: 'JW_AUTH_UNAVAILABLE', reason: 'uma_unreachable' }])
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
})
