// Limits of one client, without an effect on other clients.
import { once } from 'node:events'
import http2 from 'node:http2'
import net from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { networkOf } from '../../../plugins/edge/protocol/client-address.ts'
import { echo, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { get, startGateway } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const trusted = { trustProxy: ['127.0.0.1'] }
const from = (client: string) => `X-Forwarded-For: ${client}`

async function limited(t: Test, perClient: object, more: object = {}) {
  const held: (() => void)[] = []
  const service = await startWebSocketService({
    onPeer: echo,
    onRequest: (request, response) => {
      if (request.url === '/held') held.push(() => response.end('held'))
      else response.end('ok')
    }
  })
  const gateway = await startGateway(
    {
      listen: { limits: { perClient }, drain: { delay: '0ms' }, ...more },
      admin: { port: 0 },
      services: { any: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
    },
    { log: true }
  )
  t.teardown(async () => {
    await service.close()
    await gateway.close()
  })
  const metric = async (series: string) =>
    (await gateway.server.metrics.metrics())
      .split('\n')
      .find((line) => line.startsWith(series))
      ?.split(' ')
      .at(-1)
  return { ...gateway, held, metric }
}

t.test('a client with too many requests in flight gets 429, others do not', async (t) => {
  const { port, held, metric, log } = await limited(t, { requests: 2 }, trusted)
  const pending = [1, 2].map(() => get(port, '/held', [from('192.0.2.1')]))
  await eventually(() => held.length === 2)
  const refused = await get(port, '/', [from('192.0.2.1')])
  t.match(refused, { status: 429, headers: { 'retry-after': '1' }, body: /JW_CLIENT_REQUESTS/ })
  t.equal((await get(port, '/', [from('192.0.2.2')])).status, 200)
  t.equal(await metric('jingwei_edge_client_limited_total{limit="requests"}'), '1')
  await eventually(() => log.some(({ status, error }) => status === 429 && error === 'JW_CLIENT_REQUESTS'))
  held.pop()!()
  await Promise.race(pending)
  t.equal((await get(port, '/', [from('192.0.2.1')])).status, 200, 'a request is accepted once another has ended')
  held.pop()!()
  await Promise.all(pending)
})

t.test('addresses of one IPv6 network are one client', async (t) => {
  const { port, held } = await limited(t, { requests: 1 }, trusted)
  const pending = get(port, '/held', [from('2001:db8:1:2::1')])
  await eventually(() => held.length === 1)
  t.equal((await get(port, '/', [from('2001:db8:1:2:a:b:c:d')])).status, 429)
  t.equal((await get(port, '/', [from('2001:db8:1:3::1')])).status, 200)
  held[0]!()
  await pending
  for (const [address, network] of [
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2::1', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['2001:db8::1:2:3:4:5', '2001:db8:0:1::/64'],
    ['1:2:3:4:5:6:7:8', '1:2:3:4::/64'],
    ['::1', '0:0:0:0::/64'],
    ['unknown', 'unknown'],
    ['', '']
  ] as const) {
    t.equal(networkOf(address), network, address)
  }
})

t.test('requests that are refused, fail or whose client leaves are no longer in flight', async (t) => {
  const { port, held } = await limited(t, { requests: 1 })
  for (const target of ['/', '/%2e%2e/x', '/nowhere/../x']) t.not((await get(port, target)).status, 429)
  const socket = net.connect(port, '127.0.0.1')
  socket.write('GET /held HTTP/1.1\r\nHost: h\r\n\r\n')
  await eventually(() => held.length === 1)
  socket.destroy()
  let status = 429
  while (status === 429) ({ status } = await get(port, '/'))
  t.equal(status, 200)
})

t.test('HTTP/2: streams count, over all connections of the client', async (t) => {
  const { port, held, log } = await limited(t, { requests: 3 }, { tls: selfSigned(t), http2: true })
  const sessions = [1, 2].map(() => http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false }))
  t.teardown(() => {
    for (const session of sessions) session.destroy()
  })
  const ask = async (session: http2.ClientHttp2Session, path: string) => {
    const stream = session.request({ ':path': path }).resume()
    const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
    return { status: headers[':status'], stream }
  }
  const pending = [0, 0, 1].map((index) => ask(sessions[index]!, '/held'))
  await eventually(() => held.length === 3)
  for (const session of sessions) t.equal((await ask(session, '/')).status, 429)
  for (const end of held) end()
  for (const { status } of await Promise.all(pending)) t.equal(status, 200)
  const ended = () => log.filter(({ path }) => path === '/held').length
  await eventually(() => ended() === 3)
  t.equal((await ask(sessions[0]!, '/')).status, 200)
})

t.test('WebSockets over the limit get 429, until one is closed', async (t) => {
  const { port, metric } = await limited(t, { websockets: 2, requests: 1 })
  const [first] = [await open(port), await open(port)]
  await t.rejects(open(port), /HTTP\/1\.1 429 [\s\S]*retry-after: 10/i)
  t.equal(await metric('jingwei_edge_client_limited_total{limit="websockets"}'), '1')
  t.equal((await get(port, '/')).status, 200, 'WebSockets do not count as requests in flight')
  first!.peer.socket.destroy()
  for (;;) {
    const opened = await open(port).catch(() => null)
    if (opened !== null) break
  }
})

t.test('connections over the limit are closed, except those of a trusted proxy', async (t) => {
  for (const how of [{}, { tls: true }]) {
    const secure = 'tls' in how ? { tls: selfSigned(t) } : {}
    const { port, metric, log } = await limited(t, { connections: 2 }, secure)
    const sockets = [1, 2].map(() => net.connect(port, '127.0.0.1').on('error', () => {}))
    await Promise.all(sockets.map((socket) => once(socket, 'connect')))
    const third = net.connect(port, '127.0.0.1').on('error', () => {})
    await once(third, 'close')
    const other = net.connect({ port, host: '127.0.0.1', localAddress: '127.0.0.2' }).on('error', () => {})
    await once(other, 'connect')
    t.equal(await metric('jingwei_edge_refused_total{reason="client-connections",listener="default"}'), '1')
    t.match(
      log.filter(({ error }) => error === 'client-connections'),
      [{ ip: '127.0.0.1' }]
    )
    sockets[0]!.destroy()
    for (;;) {
      const next = net.connect(port, '127.0.0.1').on('error', () => {})
      const closed = await Promise.race([
        once(next, 'close').then(() => true),
        new Promise<boolean>((resolve) => setTimeout(() => resolve(false), 300))
      ])
      sockets.push(next)
      if (!closed) break
    }
    for (const socket of [...sockets, other]) socket.destroy()
  }
  const { port } = await limited(t, { connections: 1 }, trusted)
  const held = net.connect(port, '127.0.0.1')
  await once(held, 'connect')
  t.equal((await get(port, '/', [from('192.0.2.1')])).status, 200)
  held.destroy()
})

t.test('limits can be off', async (t) => {
  const { port, held } = await limited(t, { connections: false, requests: false, websockets: false })
  const pending = [1, 2, 3].map(() => get(port, '/held'))
  await eventually(() => held.length === 3)
  for (const end of held) end()
  for (const { status } of await Promise.all(pending)) t.equal(status, 200)
})
