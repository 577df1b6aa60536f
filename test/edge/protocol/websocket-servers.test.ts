// WebSockets on other kinds of server: over TLS, with HTTP/2, and in a Fastify server of the user.
import type { Duplex } from 'node:stream'
import tls from 'node:tls'
import Fastify from 'fastify'
import t from 'tap'
import { gateway } from '../../../app.ts'
import { echo, encode, handshake, opcodes, open, Peer, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { configOf, connect, parse, raw, startGateway } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const routes = (url: string) => ({
  services: { ws: { instances: [url] } },
  routes: [{ name: 'ws', match: { path: '/' }, service: 'ws' }]
})

t.test('WebSockets work over TLS, also on a port that speaks HTTP/2', async (t) => {
  const certificate = selfSigned(t)
  const upstream = await startWebSocketService({ onPeer: echo })
  t.teardown(upstream.close)
  for (const http2 of [false, true]) {
    const server = await startGateway({ listen: { tls: certificate, http2 }, ...routes(upstream.url) })
    const socket = tls.connect({ port: server.port, host: '127.0.0.1', rejectUnauthorized: false })
    socket.write(handshake('/ws'))
    const received = await new Promise<Buffer>((resolve) => socket.once('data', resolve))
    t.match(received.toString(), /^HTTP\/1\.1 101 /, `http2: ${http2}`)
    t.equal(upstream.requests.at(-1)!.headers['x-forwarded-proto'], 'https')
    const peer = new Peer(socket, true, Buffer.alloc(0))
    const text = 'x'.repeat(300_000)
    peer.send(opcodes.text, text)
    t.equal((await peer.frame(0)).payload.toString(), text)
    const closing = server.close()
    t.equal((await peer.frame(1)).opcode, opcodes.close)
    peer.close(1001)
    await closing
    await peer.closed()
  }
})

t.test('WebSockets work in an embedding server, where every upgrade leaves the parser', async (t) => {
  const upstream = await startWebSocketService({
    onPeer: echo,
    onRequest: (request, response) => void setTimeout(() => response.end(`http ${request.url}`), 50)
  })
  const server = Fastify({ forceCloseConnections: true })
  t.teardown(async () => {
    await upstream.close()
    await server.close()
  })
  server.get('/own', async () => 'mine')
  await server.register(gateway, configOf(routes(upstream.url)))
  await server.listen({ host: '127.0.0.1', port: 0 })
  const { port } = server.server.address() as { port: number }

  const { peer } = await open(port, '/ws', [], encode(opcodes.text, 'early', { masked: true }))
  t.equal((await peer.frame(0)).payload.toString(), 'early')
  const h2c = 'GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n'
  t.match(parse(await raw(port, h2c)), { status: 200, headers: { connection: 'close' }, body: 'http /a' })
  t.equal(parse(await raw(port, h2c.replace('/a', '/own'))).body, 'mine')
  const body = 'GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n'
  const refused = await raw(port, handshake('/ws', [`Content-Length: ${body.length}`]) + body)
  t.match(parse(refused), { status: 400, headers: { connection: 'close' } })
  t.equal(refused.split('HTTP/1.1 ').length, 2)
  await raw(port, `GET /1 HTTP/1.1\r\nHost: h\r\n\r\n${handshake('/ws')}`) // the connection is closed after any response
  t.equal(upstream.requests.length, 1)
  peer.send(opcodes.text, 'alive')
  t.equal((await peer.frame(1)).payload.toString(), 'alive')
  peer.socket.destroy()
})

t.test('without a valid handshake there is no upgrade', async (t) => {
  const upstream = await startWebSocketService({ onPeer: echo })
  const server = await startGateway(routes(upstream.url))
  t.teardown(async () => {
    await upstream.close()
    await server.close()
  })
  const keyless = handshake('/ws').replace(/Sec-WebSocket-Key.*\r\n/, '')
  const client = connect(server.port, keyless)
  t.match(await client.until('http'), /^HTTP\/1\.1 200 /)
  client.socket.destroy()
  const list = handshake('/ws').replace('Upgrade: websocket', 'Upgrade: h2c, WebSocket')
  const both = connect(server.port, list)
  t.match(await both.until('\r\n\r\n'), /^HTTP\/1\.1 101 /)
  const socket: Duplex = both.socket
  socket.destroy()
  await eventually(() => upstream.peers[0]!.over)
})
