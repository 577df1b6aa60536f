// slow: starts several processes for each case
/** Sidecars at both ends of a call: gateway → outbound → inbound (mTLS) → service, byte for byte. */
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, RequestListener } from 'node:http'
import http from 'node:http'
import http2 from 'node:http2'
import t from 'tap'
import { folderFor } from '../helpers/certificates.ts'
import { appFile, configFile } from '../helpers/e2e/gateway.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { echo, open, startWebSocketService } from '../helpers/edge/websocket.ts'
import { eventually } from '../helpers/eventually.ts'
import { raw, startRawService, startService } from '../helpers/gateway.ts'
import { start } from '../helpers/processes.ts'
import { gatewayBefore, meshCertificates, sidecarsFor, startSidecar } from '../helpers/sidecar.ts'

t.setTimeout(300_000)

/** Sends the body back, with what it saw of the request; `/hints` sends 103 first, `/none` no body. */
const service: RequestListener = (request, response) => {
  const hash = createHash('sha256')
  if (request.url === '/hints') response.writeEarlyHints({ link: '</a.css>; rel=preload' })
  if (request.url === '/none') return void response.writeHead(204).end()
  const fields = { 'x-method': request.method!, 'x-url': request.url! }
  if (request.method === 'HEAD') return void response.writeHead(200, fields).end()
  response.writeHead(200, { trailer: 'x-sum, x-got', ...fields })
  request.on('data', (chunk: Buffer) => void hash.update(chunk))
  request.pipe(response, { end: false })
  request.on('end', () => {
    response.addTrailers({ 'x-sum': hash.digest('hex'), 'x-got': String(request.trailers['x-sent'] ?? '') })
    response.end()
  })
}

const big = randomBytes(5 * 1024 * 1024)
const sum = createHash('sha256').update(big).digest('hex')

t.test('gateway, sidecar, sidecar, service: bodies, trailers, informational responses', async (t) => {
  const { url, close } = await startService(service)
  t.teardown(close)
  const pair = await sidecarsFor(t, url)
  for (const protocol of protocols) {
    const gateway = await gatewayBefore(t, pair, listenFor(t, protocol))
    const client = anyClient(t, protocol, Number(new URL(gateway.url).port))
    const headers = { te: 'trailers' }
    const small = await client.ask('/a?b=%20', { headers })
    t.match(small, { status: 200, isWhole: true, headers: { 'x-method': 'GET', 'x-url': '/a?b=%20' } }, protocol)
    const whole = await client.ask('/big', { method: 'POST', headers, body: big })
    t.match(whole, { status: 200, isWhole: true, trailers: { 'x-sum': sum } }, protocol)
    t.ok(whole.body.equals(big), protocol)
    t.match(await client.ask('/hints', { headers }), { status: 200, hints: [103], isWhole: true }, protocol)
    t.match(await client.ask('/none'), { status: 204, body: Buffer.alloc(0), isWhole: true }, protocol)
    t.match(await client.ask('/a', { method: 'HEAD' }), { status: 200, body: Buffer.alloc(0) }, protocol)
  }
})

t.test('a gateway without the mesh, before a sidecar', async (t) => {
  const { url, close } = await startService(service)
  t.teardown(close)
  const { port } = await sidecarsFor(t, url)
  const file = await configFile(
    t,
    JSON.stringify({
      listen: { host: '127.0.0.1', port: 0, drain: { delay: 0, timeout: '2s' } },
      admin: false,
      mesh: false,
      edge: { bodyLimit: false },
      services: { orders: { instances: [`http://127.0.0.1:${port}`] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'orders' }]
    })
  )
  const running = await start({
    command: 'node',
    args: [appFile, 'start', file],
    ready: /jingwei is up/,
    timeout: 60_000
  })
  t.teardown(() => running.stop())
  const edge = /edge +http:\/\/127\.0\.0\.1:(\d+)/.exec(running.output())![1]
  const answer = await anyClient(t, 'HTTP/1.1', Number(edge)).ask('/big', { method: 'POST', body: big })
  t.match(answer, { status: 200, isWhole: true, headers: { 'x-url': '/big' } })
  t.ok(answer.body.equals(big), 'the same bytes')
})

t.test('calls of any client: what it sends is what the service gets', async (t) => {
  const heard: string[] = []
  const origin = await startRawService((socket) => {
    let text = ''
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
      if (!/\r\n\r\n$/.test(text)) return
      heard.push(text)
      text = ''
      socket.write('HTTP/1.1 200 OK\r\nVia: 1.1 far\r\nServer: s\r\nX-Request-Id: its\r\nContent-Length: 2\r\n\r\nok')
    })
  })
  t.teardown(origin.close)
  const { outbound, port } = await sidecarsFor(t, origin.url)
  const fields = [
    'Host: orders:1234',
    'User-Agent: billing/1',
    'Authorization: Bearer abc',
    'X-Request-Id: mine',
    'traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    'X-Forwarded-For: 203.0.113.9',
    'X-Forwarded-Proto: https',
    'Forwarded: for=203.0.113.9',
    'X-Real-Ip: 203.0.113.9',
    'Via: 1.1 jingwei-12345678',
    'Cookie: a=1; b=2',
    'X-Two: 1',
    'X-Two: 2'
  ]
  const target = '/a/../b//c%2Fd;v=1/%2e%2e/?q=%00&r=a+b'
  const hopByHop = ['Connection: close, x-hop', 'X-Hop: 1', 'Keep-Alive: timeout=5', 'Proxy-Authorization: Basic x']
  for (const to of [port, outbound.ports.outbound!]) {
    const text = await raw(to, `${[`GET ${target} HTTP/1.1`, ...fields, ...hopByHop].join('\r\n')}\r\n\r\n`)
    t.match(text, /^HTTP\/1\.1 200 OK\r\n/)
    for (const field of ['via: 1.1 far', 'server: s', 'x-request-id: its'])
      t.match(text.toLowerCase(), `\r\n${field}\r\n`)
    const [line, ...got] = heard.pop()!.trimEnd().split('\r\n')
    t.equal(line, `GET ${target} HTTP/1.1`)
    const sent = fields.map((field) => field.replace(/^[^:]+/, (name) => name.toLowerCase()))
    t.same(got.filter((field) => !/^connection:/i.test(field)).sort(), sent.sort())
  }
})

t.test('a service is selected by Host, also in the absolute form of HTTP_PROXY', async (t) => {
  const instance = async (name: string) => {
    const { url, close } = await startService((_request, response) => void response.end(name))
    t.teardown(close)
    return { instances: [url] }
  }
  const socket = `${folderFor(t)}/users.sock`
  const { ports, running } = await startSidecar(t, {
    services: { orders: await instance('orders'), users: await instance('users') },
    outbound: [{}, { path: socket, service: 'users' }]
  })
  const port = ports.outbound!
  const ask = async (target: string, host: string) =>
    raw(port, `GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
  for (const name of ['orders', 'users']) {
    for (const host of [name, `${name}.mesh`, `${name}:${port}`, `${name.toUpperCase()}.mesh.`]) {
      t.match(await ask('/', host), new RegExp(`^HTTP/1\\.1 200 OK[\\s\\S]*\r\n\r\n${name}$`), host)
    }
    t.match(await ask(`http://${name}.mesh/x`, `${name}.mesh`), new RegExp(`\r\n\r\n${name}$`), 'absolute form')
  }
  const none = 'no service of this sidecar has this host'
  const wrong = [
    ['billing', `billing: ${none}; the hosts are orders, users, each also with .mesh`],
    ['odrers.mesh', `odrers.mesh: ${none}; did you mean \\"orders\\"?`],
    ['Usres:80', `Usres:80: ${none}; did you mean \\"users\\"?`],
    [`127.0.0.1:${port}`, `127.0.0.1:${port}: ${none}; the hosts are orders, users, each also with .mesh`]
  ] as const
  for (const [host, message] of [...wrong, ...wrong]) {
    const response = await ask('/', host)
    t.match(response, /^HTTP\/1\.1 421 [\s\S]*"code":"JW_UNKNOWN_HOST"/)
    t.match(response, `"message":"${message}"`)
  }
  for (let count = 0; count < 110; count++) await ask('/', `none-${count}`)
  const lines = () =>
    running
      .output()
      .split('\n')
      .filter((line) => line.includes(none))
  await eventually(() => lines().length >= 100)
  await ask('/', 'one-more')
  t.equal(lines().length, 100, 'each host once, and not any number of hosts')
  for (const [, message] of wrong) {
    t.equal(lines().filter((line) => line.includes(`"level":"warn"`) && line.includes(`"msg":"${message}"`)).length, 1)
  }
  const bySocket = http.get({ socketPath: socket, path: '/' })
  const [response] = (await once(bySocket, 'response')) as [IncomingMessage]
  const [chunk] = (await once(response, 'data')) as [Buffer]
  t.equal(chunk.toString(), 'users', 'by the Unix socket')
})

t.test('WebSockets pass both sidecars', async (t) => {
  const origin = await startWebSocketService({ onPeer: echo })
  t.teardown(origin.close)
  const pair = await sidecarsFor(t, origin.url)
  const gateway = await gatewayBefore(t, pair)
  for (const port of [pair.port, Number(new URL(gateway.url).port)]) {
    const { headerSection, peer } = await open(port, '/ws')
    t.match(headerSection, /^HTTP\/1\.1 101 /)
    const payload = randomBytes(200_000)
    const frame = new Promise<Buffer>((resolve) => {
      peer.onFrame = ({ payload }) => resolve(payload)
    })
    peer.send(2, payload)
    t.ok((await frame).equals(payload))
    peer.socket.destroy()
  }
})

t.test('the inbound listener speaks HTTP/2 by mTLS, and lets no stranger in', async (t) => {
  const { url, close } = await startService(service)
  t.teardown(close)
  const { inbound, callsWith, gateway, stranger, ca } = meshCertificates(t)
  const { ports, admin } = await startSidecar(t, { inbound: { url, tls: inbound, http2: true } })
  const session = http2.connect(`https://127.0.0.1:${ports.inbound}`, {
    ca: ca.cert,
    cert: gateway.cert,
    key: gateway.key,
    servername: 'orders.mesh'
  })
  t.teardown(() => session.destroy())
  const stream = session.request({ ':method': 'POST', ':path': '/h2', cookie: 'a=1' })
  const trailers = once(stream, 'trailers') as Promise<[http2.IncomingHttpHeaders]>
  stream.end(big)
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  t.ok(Buffer.concat(chunks).equals(big))
  t.equal((await trailers)[0]['x-sum'], sum)

  for (const mesh of [callsWith(stranger), { tls: { ca: ca.file, serverName: 'orders.mesh' } }]) {
    const instances = [`https://127.0.0.1:${ports.inbound}`]
    const services = { orders: { instances, mesh: { ...mesh, retry: false } } }
    const other = await startSidecar(t, { services, outbound: [{ service: 'orders' }] })
    const text = await raw(other.ports['outbound-orders']!, 'GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
    t.match(text, /^HTTP\/1\.1 502 [\s\S]*"code":"JW_UPSTREAM_(RESET|TLS|UNTRUSTED)"/)
  }
  t.equal(await admin.metric('jingwei_mesh_attempts_total', 'local'), 1)
})
