// slow: takes about 7 s
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { secret, token } from '../../helpers/edge/tokens.ts'
import type { ServiceOptions } from '../../helpers/edge/websocket.ts'
import {
  codeOf, echo, encode, handshake, opcodes, open, startWebSocketService
} from '../../helpers/edge/websocket.ts' // biome-ignore format: a list
import { eventually } from '../../helpers/eventually.ts'
import { connect, get, parse, raw, startEcho, startGateway } from '../../helpers/gateway.ts'

const withoutDelay = { drain: { delay: '0ms' } }

async function setUp(t: Test, service: ServiceOptions = { onPeer: echo }, edge = {}) {
  const upstream = await startWebSocketService(service)
  const config = {
    listen: withoutDelay,
    admin: { port: 0 },
    services: { ws: { instances: [upstream.url] } },
    routes: [{ name: 'ws', match: { path: '/ws' }, service: 'ws', edge }]
  }
  const gateway = await startGateway(config, { log: true })
  t.teardown(async () => {
    await upstream.close()
    await gateway.close()
  })
  const active = () => gateway.server.mesh.status()[0]!.instances[0]!.active
  const metric = async (name: string) => {
    const text = await gateway.server.metrics.metrics()
    return Number(
      text
        .split('\n')
        .find((line) => line.startsWith(name))
        ?.split(' ')
        .at(-1) ?? Number.NaN
    )
  }
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  return { upstream, gateway, port: gateway.port, active, metric, lines }
}

t.test('subprotocol, text, binary and close code are forwarded for a conforming client', async (t) => {
  const { port, upstream } = await setUp(t)
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws?a=1`, ['chat', 'superchat'])
  socket.binaryType = 'arraybuffer'
  await once(socket, 'open')
  t.equal(socket.protocol, 'superchat')
  t.equal(upstream.requests[0]!.url, '/ws?a=1')
  const next = async () => ((await once(socket, 'message')) as [MessageEvent])[0].data as unknown
  socket.send('héllo')
  t.equal(await next(), 'héllo')
  socket.send(new Uint8Array([0, 255, 1]))
  t.strictSame(new Uint8Array((await next()) as ArrayBuffer), new Uint8Array([0, 255, 1]))
  socket.close(4001, 'bye')
  const [close] = (await once(socket, 'close')) as [CloseEvent]
  t.match(close, { code: 4001, reason: 'bye', wasClean: true })
})

t.test('the handshake is forwarded both ways, without hop-by-hop headers', async (t) => {
  const { port, upstream } = await setUp(t)
  const { headerSection, peer } = await open(port, '/ws', [
    'Sec-WebSocket-Extensions: x-made-up',
    'Connection: X-Mine',
    'X-Mine: 1'
  ])
  const { headers } = upstream.requests[0]!
  t.match(headers, {
    host: 'h',
    connection: /^upgrade$/i,
    upgrade: 'websocket',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
    'sec-websocket-extensions': 'x-made-up',
    'x-forwarded-for': '127.0.0.1'
  })
  t.notOk(headers['x-mine'])
  const response = parse(headerSection)
  t.match(response.headers, { connection: /^upgrade$/i, upgrade: 'websocket', 'x-service': 'yes' })
  t.equal(response.headers['sec-websocket-accept'], 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=')
  t.equal(response.headers['x-request-id'], headers['x-request-id'])
  t.notOk(response.headers['x-hop'])
  t.notOk(response.headers['transfer-encoding'])
  t.equal(response.lines.filter((line) => /^(connection|upgrade):/i.test(line)).length, 2)
  peer.socket.destroy()
})

t.test('big and fragmented messages are forwarded, with a ping in between', async (t) => {
  const { port } = await setUp(t)
  const { peer } = await open(port)
  const big = randomBytes(1024 * 1024)
  peer.send(opcodes.binary, big)
  t.ok((await peer.frame(0)).payload.equals(big))
  peer.send(opcodes.text, 'a'.repeat(200), false)
  peer.send(opcodes.ping, 'are you there')
  peer.send(opcodes.continuation, 'b')
  await peer.frame(3)
  const [, first, pong, last] = peer.frames
  t.match(first, { opcode: opcodes.text, fin: false, masked: false })
  t.match(pong, { opcode: opcodes.pong, fin: true })
  t.equal(pong!.payload.toString(), 'are you there')
  t.match(last, { opcode: opcodes.continuation, fin: true })
  peer.socket.destroy()
})

t.test('a close by the service reaches the client unchanged', async (t) => {
  const { port, upstream, active } = await setUp(t, {})
  const { peer } = await open(port)
  await eventually(() => upstream.peers.length === 1)
  t.equal(active(), 1, 'the WebSocket counts as load of the instance')
  upstream.peers[0]!.close(4321)
  t.equal(codeOf(await peer.frame(0)), 4321)
  peer.close(4321)
  const closeFrame = await upstream.peers[0]!.frame(0)
  t.ok(closeFrame.masked)
  t.equal(codeOf(closeFrame), 4321)
  upstream.peers[0]!.socket.end()
  await eventually(() => peer.ended)
  peer.socket.end()
  await peer.closed()
  await eventually(() => active() === 0)
})

t.test('bytes in one segment with the handshake or the 101 are not lost', async (t) => {
  const { port } = await setUp(t, { onPeer: echo, greeting: encode(opcodes.text, 'welcome') })
  const { peer } = await open(port, '/ws', [], encode(opcodes.text, 'early', { masked: true }))
  await peer.frame(1)
  t.strictSame(
    peer.frames.map(({ payload }) => payload.toString()),
    ['welcome', 'early']
  )
  peer.socket.destroy()
})

t.test('a slow reader pauses the writer, in both directions', async (t) => {
  const { port, upstream } = await setUp(t, {})
  const { peer: client } = await open(port)
  await eventually(() => upstream.peers.length === 1)
  const [service] = upstream.peers
  const piece = randomBytes(64 * 1024)
  const total = 1024
  for (const [writer, reader] of [
    [client, service!],
    [service!, client]
  ] as const) {
    // biome-ignore format: pairs
    reader.socket.pause()
    let written = 0
    const blocked = async () => {
      while (written < total && writer.send(opcodes.binary, piece)) written++
      written++
      for (const before = -1; before < 0; ) {
        const drained = await Promise.race([
          once(writer.socket, 'drain').then(() => true),
          sleep(500).then(() => false)
        ])
        if (!drained) return true
        while (written < total && writer.send(opcodes.binary, piece)) written++
        if (written >= total) return false
        written++
      }
    }
    t.ok(await blocked(), 'the writer is paused')
    t.ok(written < total, `${written} of ${total} pieces`)
    const before = reader.frames.length
    reader.socket.resume()
    await eventually(() => reader.frames.length - before >= written)
    t.ok(reader.frames.every(({ payload }) => payload.equals(piece)))
  }
  client.socket.destroy()
})

t.test('the concerns of the route run first: 401, 429, 404, and 403 if WebSockets are off', async (t) => {
  const jwt = { secret, algorithms: ['HS256'] }
  const { port, upstream, metric, lines } = await setUp(
    t,
    { onPeer: echo },
    { jwt, rateLimit: { max: 3, window: '1m' } }
  )
  const refused = await raw(port, handshake())
  t.equal(parse(refused).status, 401)
  t.match(parse(refused), { headers: { connection: 'close' }, body: /JW_TOKEN_MISSING/ })
  const bearer = `Authorization: Bearer ${token({ exp: Date.now() / 1000 + 60 })}`
  for (const _ of [1, 2]) (await open(port, '/ws', [bearer])).peer.socket.destroy()
  t.equal(parse(await raw(port, handshake('/ws', [bearer]))).status, 429)
  t.equal(parse(await raw(port, handshake('/nowhere'))).status, 404)
  t.equal(upstream.requests.length, 2)
  await eventually(() => lines().length === 5)
  t.strictSame(lines().map(({ status }) => status as number).toSorted((a, b) => a - b), [101, 101, 401, 404, 429]) // biome-ignore format: a list
  t.equal(await metric('jingwei_edge_websockets{route="ws"}'), 0)

  const off = await setUp(t, { onPeer: echo }, { websocket: false })
  t.match(parse(await raw(off.port, handshake())), { status: 403, body: /JW_UPGRADE_REFUSED/ })
  t.equal((await get(off.port, '/ws')).body, 'http')
  t.equal(off.upstream.requests.length, 0)
})

t.test('a response other than 101 is passed on, and the connection closed', async (t) => {
  for (const status of [200, 403]) {
    const { port, lines } = await setUp(t, {
      onUpgrade: (_request, socket) =>
        socket.end(`HTTP/1.1 ${status} Said so\r\nContent-Length: 300000\r\nX-Own: 1\r\n\r\n${'x'.repeat(300_000)}`)
    })
    const response = parse(await raw(port, handshake()))
    t.match(response, { status, headers: { 'x-own': '1', connection: 'close' } })
    t.equal(response.body.length, 300_000)
    await eventually(() => lines().length === 1)
    t.match(lines()[0], { status, bytesSent: 300_000 })
  }
})

t.test('a service that switches to another protocol is 502', async (t) => {
  const { port, active } = await setUp(t, {
    onUpgrade: (_request, socket) => socket.write('HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n')
  })
  t.match(parse(await raw(port, handshake())), { status: 502, body: /JW_BAD_UPGRADE/ })
  await eventually(() => active() === 0)
})

t.test('a refused connection is retried at another instance, and is 502 without one', async (t) => {
  const dead = await startWebSocketService()
  await dead.close()
  const upstream = await startWebSocketService({ onPeer: echo })
  const gateway = await startGateway({
    listen: withoutDelay,
    mesh: { balance: 'round-robin' },
    services: { ws: { instances: [dead.url, upstream.url] }, dead: { instances: [dead.url] } },
    routes: [
      { name: 'ws', match: { path: '/ws' }, service: 'ws' },
      { name: 'dead', match: { path: '/dead' }, service: 'dead' }
    ]
  })
  t.teardown(async () => {
    await upstream.close()
    await gateway.close()
  })
  for (let i = 0; i < 4; i++) (await open(gateway.port)).peer.socket.destroy()
  t.equal(upstream.requests.length, 4)
  const response = parse(await raw(gateway.port, handshake('/dead')))
  t.equal(response.status, 502)
  t.match(response.headers['proxy-status'], /connection_refused/)
})

t.test('a client that leaves during the handshake cancels it', async (t) => {
  for (const leave of ['destroy', 'end', 'resetAndDestroy'] as const) {
    let gone = false
    const { port, lines, upstream, active } = await setUp(t, {
      onUpgrade: (_request, socket) => {
        socket.resume()
        socket.once('close', () => {
          gone = true
        })
        socket.once('end', () => socket.end())
      }
    })
    const client = connect(port, handshake())
    await eventually(() => upstream.requests.length === 1)
    client.socket[leave]()
    await eventually(() => gone && lines().length === 1)
    t.match(lines()[0], { status: 499, error: 'JW_CLIENT_GONE' }, leave)
    t.equal(active(), 0)
  }
})

t.test(
  'if one side disconnects, the other is closed; the WebSocket is logged once, and counted while open',
  async (t) => {
    const { port, upstream, lines, metric, active } = await setUp(t)
    const gauge = 'jingwei_edge_websockets{route="ws"}'
    t.equal(await metric(gauge), 0)
    const first = await open(port)
    const second = await open(port)
    t.equal(await metric(gauge), 2)
    t.equal(active(), 2)
    t.equal(lines().length, 0)
    first.peer.send(opcodes.text, 'hello')
    await first.peer.frame(0)
    first.peer.socket.resetAndDestroy()
    await upstream.peers[0]!.closed()
    await eventually(() => lines().length === 1)
    t.match(lines()[0], { status: 101, route: 'ws', service: 'ws', instance: upstream.url, bytesSent: 7, attempts: 1 })
    t.ok((lines()[0]!.durationMs as number) > 0)
    t.equal(await metric(gauge), 1)

    upstream.peers[1]!.socket.resetAndDestroy()
    await second.peer.closed()
    await eventually(() => lines().length === 2)
    t.equal(await metric(gauge), 0)
    t.equal(active(), 0)
    t.equal(
      await metric('jingwei_edge_requests_total{route="ws",method="GET",status="101",direction="north-south"}'),
      2
    )
    t.notOk(
      await metric('jingwei_edge_request_duration_seconds_count{route="ws",direction="north-south"}'),
      'the WebSocket is not in the histogram of requests'
    )
  }
)

t.test('the last bytes of a service that ends are delivered', async (t) => {
  const big = randomBytes(512 * 1024)
  const { port } = await setUp(t, {
    onPeer: (peer) => {
      peer.send(opcodes.binary, big)
      peer.socket.end()
    }
  })
  const { peer } = await open(port)
  t.ok((await peer.frame(0)).payload.equals(big))
  await eventually(() => peer.ended)
  peer.socket.end()
})

t.test('a half-closed client still receives', async (t) => {
  const { port, upstream } = await setUp(t, {
    onUpgrade: (_request, socket) => {
      socket.write('HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n')
      socket.on('data', () => {})
      socket.once('end', () => socket.end(encode(opcodes.text, 'last word')))
    }
  })
  t.ok(upstream)
  const { peer } = await open(port)
  peer.socket.end()
  t.equal((await peer.frame(0)).payload.toString(), 'last word')
  await peer.closed()
})

t.test('a connection that is idle on both sides is closed with 1001', async (t) => {
  const { port, upstream, lines } = await setUp(t, {}, { websocket: { idleTimeout: '300ms' } })
  const { peer } = await open(port)
  for (let i = 0; i < 4; i++) {
    await sleep(100)
    peer.send(opcodes.ping)
  }
  t.equal(peer.frames.length, 0, 'traffic restarts the idle timeout')
  t.equal(codeOf(await peer.frame(0)), 1001)
  await eventually(() => upstream.peers[0]!.frames.at(-1)?.opcode === opcodes.close)
  t.match(upstream.peers[0]!.frames.at(-1), { masked: true, opcode: opcodes.close })
  await peer.closed()
  await eventually(() => lines().length === 1)

  const forever = await setUp(t, { onPeer: echo }, { websocket: { idleTimeout: false } })
  const { peer: patient } = await open(forever.port)
  await sleep(100)
  patient.send(opcodes.text, 'still there')
  t.equal((await patient.frame(0)).payload.toString(), 'still there')
  patient.socket.destroy()
})

t.test('a server that closes sends 1001 to both sides, between two frames', async (t) => {
  const { port, upstream, gateway, lines } = await setUp(t, {})
  const well = await open(port)
  const mid = await open(port)
  const deaf = await open(port)
  await eventually(() => upstream.peers.length === 3)
  well.peer.onFrame = ({ opcode }) => opcode === opcodes.close && well.peer.close(1001)
  const frame = encode(opcodes.text, 'a frame in two parts')
  upstream.peers[1]!.socket.write(frame.subarray(0, 7))
  await eventually(() => mid.peer.socket.bytesRead > mid.headerSection.length)
  deaf.peer.socket.pause()
  const closing = gateway.close()
  t.equal(codeOf(await well.peer.frame(0)), 1001)
  t.match(await upstream.peers[0]!.frame(0), { opcode: opcodes.close, masked: true })
  await eventually(() => well.peer.ended)
  t.equal(mid.peer.frames.length, 0, 'the close frame does not interrupt a frame')
  upstream.peers[1]!.socket.write(Buffer.concat([frame.subarray(7), frame, frame.subarray(0, 9)]))
  t.equal((await mid.peer.frame(0)).payload.toString(), 'a frame in two parts')
  await eventually(() => mid.peer.frames.at(-1)?.opcode === opcodes.close)
  t.strictSame(
    mid.peer.frames.map(({ opcode }) => opcode),
    [opcodes.text, opcodes.text, opcodes.close],
    'all complete frames, and no further bytes'
  )
  await closing
  for (const { peer } of [well, mid, deaf]) peer.socket.destroy()
  t.equal(lines().length, 3)
})

t.test('other upgrades are ordinary requests, and the last on their connection', async (t) => {
  const echoing = await startEcho()
  const gateway = await startGateway({
    services: { echo: { instances: [echoing.url] } },
    routes: [{ name: 'echo', match: { path: '/' }, service: 'echo' }]
  })
  t.teardown(async () => {
    await echoing.close()
    await gateway.close()
  })
  const h2c =
    'GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n'
  const client = connect(gateway.port, h2c)
  const { text: first } = await client.closed
  t.match(parse(first), { status: 200, headers: { connection: 'close' } })
  t.notMatch(first, /upgrade|http2-settings/i)
  const posted = parse(
    await raw(gateway.port, handshake('/p', ['Content-Length: 2', 'Connection: close'], 'POST').concat('hi'))
  )
  t.equal(posted.status, 400)
  const old = 'GET /old HTTP/1.0\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
  t.equal(parse(await raw(gateway.port, old)).status, 200)
  t.equal(parse(await raw(gateway.port, handshake().replace('Host: h\r\n', ''))).status, 400)
  const behind = connect(gateway.port, `GET /1 HTTP/1.1\r\nHost: h\r\n\r\n${handshake('/2')}`)
  await behind.until('"url":"/1"', '"url":"/2"')
  behind.socket.destroy()
})

t.test('attack: an upgrade with a body is refused and closed, and nothing after it is read', async (t) => {
  const { port, upstream } = await setUp(t)
  const smuggled = 'GET /ws?smuggled HTTP/1.1\r\nHost: h\r\n\r\n'
  for (const more of [[`Content-Length: ${smuggled.length}`], ['Transfer-Encoding: chunked']]) {
    const body = more[0]!.startsWith('T') ? `0\r\n\r\n${smuggled}` : `${smuggled}${smuggled}`
    const text = await raw(port, handshake('/ws', more) + body)
    t.match(parse(text), { status: 400, headers: { connection: 'close' }, body: /JW_UPGRADE_WITH_BODY/ })
    t.equal(text.split('HTTP/1.1 ').length, 2, 'one response is sent')
  }
  t.equal(upstream.requests.length, 0)
})

t.test('attack: a client that resets at any moment does not harm others', async (t) => {
  const { port, active, metric } = await setUp(t)
  for (let i = 0; i < 30; i++) {
    const socket = net.connect(port, '127.0.0.1').on('error', () => {})
    socket.write(handshake('/ws') + encode(opcodes.text, 'x', { masked: true }).toString('latin1'), 'latin1')
    setTimeout(() => socket.resetAndDestroy(), i % 6)
    await once(socket, 'close')
  }
  const { peer } = await open(port)
  peer.send(opcodes.text, 'alive')
  t.equal((await peer.frame(0)).payload.toString(), 'alive')
  peer.socket.destroy()
  await eventually(() => active() === 0)
  t.equal(await metric('jingwei_edge_websockets{route="ws"}'), 0)
})
