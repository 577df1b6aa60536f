// slow: takes about 10 s
/** Knowledge of the edge about a calling service: consumer, headers for the service, WebSockets, log, shared identity. */
import { once } from 'node:events'
import https from 'node:https'
import type { Socket } from 'node:net'
import t from 'tap'
import { eventually } from '../../../helpers/eventually.ts'
import { first, intention, issued, leafPath, ok, scene, shows, uriOf, web } from './inbound-support.ts'

const handshake = {
  connection: 'upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA=='
}

/** Sends a WebSocket handshake; returns the status of the response, and the headers that the service has seen. */
async function upgrade(port: number, path: string) {
  const request = https.request({
    ...shows(web),
    host: '127.0.0.1',
    port,
    path,
    agent: false,
    headers: handshake,
    rejectUnauthorized: false
  })
  request.end()
  const { promise, resolve } = Promise.withResolvers<{ status: number; seen: Record<string, string> }>()
  request.once('response', (response) => {
    response.resume()
    resolve({ status: response.statusCode!, seen: {} })
  })
  request.once('upgrade', (response, socket: Socket) => {
    socket.destroy()
    resolve({ status: response.statusCode!, seen: JSON.parse((response.headers['x-seen'] as string) ?? '{}') })
  })
  return promise
}

t.test('services get the caller, by either way, and no forged one', async (t) => {
  const { ask, portOf, port } = await scene(t, {
    routes: [
      { name: 'bridge', match: { path: '/bridge' }, service: 'any' },
      { name: 'via', match: { path: '/via' }, service: 'any', via: 'http-proxy' }
    ]
  })
  const forged = {
    'x-forwarded-client-cert': 'By=spiffe://x;Hash=0;URI=spiffe://x/svc/admin',
    x_forwarded_client_cert: 'x'
  }
  for (const path of ['/bridge', '/via']) {
    const response = await ask({ ...shows(web) }, path, forged)
    t.match(response, ok)
    const seen = JSON.parse(response.slice(response.indexOf('{')))
    t.equal(
      seen['x-forwarded-client-cert'].replace(/[\da-f]{64}/, 'HASH'),
      `By=${uriOf('jingwei')};Hash=HASH;URI=${uriOf('web')}`,
      path
    )
    t.notOk('x_forwarded_client_cert' in seen)
    const client = await fetch(`http://127.0.0.1:${portOf('public')}${path}`, { headers: forged })
    t.notMatch(await client.text(), 'client_cert|client-cert', 'a client of the other listener')
  }
  t.match(await upgrade(port, '/bridge'), { status: 101, seen: { 'x-forwarded-client-cert': /svc\/web$/ } })
})

t.test("a denied caller does not reach a plugin's own WebSockets", async (t) => {
  const plugin = `
    export default async (fastify) => {
      fastify.server.on('upgrade', (request, socket) => {
        if (request.url !== '/own') return
        socket.end('HTTP/1.1 101 Switching Protocols\\r\\nconnection: upgrade\\r\\nupgrade: websocket\\r\\n\\r\\n')
      })
    }
    export const fp = true`
  const { port, say } = await scene(t, { plugin })
  t.match(await upgrade(port, '/own'), { status: 101 })
  t.match(await upgrade(port, '/'), { status: 101 })
  say.rules(intention('web', 'deny'))
  await eventually(async () => (await upgrade(port, '/')).status === 403, 'the denial')
  t.match(await upgrade(port, '/own'), { status: 403 })
})

t.test('outbound and inbound of one service share the identity', async (t) => {
  const { ask, consul, say } = await scene(t, {
    isReady: false,
    more: { mesh: { identity: { service: 'jingwei' }, mode: 'connect' } },
    services: { any: {} }
  })
  say.leaf(first)
  say.roots(first)
  say.rules()
  say.otherwise(true)
  await eventually(async () => /^HTTP\/1\.1 503 .*JW_NO_INSTANCE/s.test(await ask(shows(web))), 'a response')
  const held = () => consul.held(leafPath('jingwei'))
  await eventually(() => held() === 1, 'one watch')
  const waiting = consul.requests.filter((url) => url.startsWith(leafPath('jingwei')) && url.includes('index='))
  t.equal(waiting.length, 1, 'asked once')
})

t.test('consumer and direction for plugins', async (t) => {
  const plugin = `
    export default async (fastify) => {
      fastify.addHook('preHandler', async ({ consumer, direction, clientCertificate }, reply) => {
        reply.header('x-known', JSON.stringify({ consumer, direction, subject: clientCertificate?.subject }))
      })
    }
    export const fp = true`
  const { ask, portOf } = await scene(t, { plugin })
  const [, known] = /x-known: (.*)\r/.exec(await ask(shows(issued(first, 'batch'))))!
  const consumer = { id: 'batch', groups: [], tags: [], edge: {} }
  t.same(JSON.parse(known!), { consumer, direction: 'east-west', subject: 'CN=batch' })
  const { headers } = await fetch(`http://127.0.0.1:${portOf('public')}/`)
  t.same(JSON.parse(headers.get('x-known')!), { consumer: null, direction: 'north-south' })
})

t.test('HTTP on the port, and a connection that is closed before its handshake', async (t) => {
  const { port, ask } = await scene(t)
  const response = await fetch(`http://127.0.0.1:${port}/`)
  t.equal(response.status, 400)
  t.match(await response.text(), 'HTTP request to an HTTPS server')
  const { connect } = await import('node:net')
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  socket.resetAndDestroy()
  t.match(await ask(shows(web)), ok)
})
