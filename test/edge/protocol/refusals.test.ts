import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { connect, gatewayBefore, get, parse, startEcho, startGateway, startRawService } from '../../helpers/gateway.ts'

async function refusing(t: Test, edge: object = {}) {
  const echo = await startEcho()
  t.teardown(echo.close)
  const gateway = await startGateway(
    {
      admin: { port: 0 },
      edge,
      listen: { limits: { headers: '1kb', connections: 2 }, timeouts: { headers: '100ms' } },
      services: { any: { instances: [echo.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const count = async (reason: string) => {
    const text = await gateway.server.metrics.metrics()
    return Number(text.split(`jingwei_edge_refused_total{reason="${reason}",listener="default"} `)[1]?.split('\n')[0])
  }
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  return { ...gateway, count, lines }
}

const cases = [
  ['malformed', 400, 'NONSENSE\r\n\r\n', 'HPE_INVALID_METHOD'],
  ['malformed', 400, 'GET / HTTP/1.1\r\nHost : h\r\n\r\n', 'HPE_INVALID_HEADER_TOKEN'],
  ['head-too-large', 431, `GET / HTTP/1.1\r\nHost: h\r\nX: ${'x'.repeat(2000)}\r\n\r\n`, 'HPE_HEADER_OVERFLOW'],
  ['too-slow', 408, 'GET / HTTP/1.1\r\nHo', 'ERR_HTTP_REQUEST_TIMEOUT'],
  ['bad-path', 400, 'GET /%zz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n', 'bad-path'],
  ['expectation', 417, 'GET / HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n', 'expectation'],
  ['connect', 501, 'CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n', 'connect']
] as const

t.test('requests refused before routing are counted and logged, once', async (t) => {
  const { port, count, lines } = await refusing(t)
  for (const [reason, status, bytes, error] of cases) {
    const before = { count: await count(reason), lines: lines().length }
    const { text } = await connect(port, bytes).closed
    t.equal(parse(text).status, status, reason)
    t.equal(await count(reason), before.count + 1, reason)
    await eventually(() => lines().length > before.lines)
    t.equal(lines().length, before.lines + 1)
    t.match(lines().at(-1), { route: null, status, ip: '127.0.0.1', error }, reason)
  }
  t.equal((await get(port, '/')).status, 200)
  t.equal(lines().at(-1)?.route, 'all')
})

t.test('connections over the limit are counted, and logged at most once a second', async (t) => {
  const { port, count, lines } = await refusing(t)
  const held = [connect(port), connect(port)]
  const request = 'GET / HTTP/1.1\r\nHost: h\r\n\r\n'
  for (const client of held) {
    client.send(request)
    await client.until('200 OK')
  }
  const before = lines().length
  for (let n = 0; n < 5; n++) t.equal((await connect(port, request).closed).text, '')
  t.equal(await count('connections'), 5)
  await eventually(() => lines().length > before)
  t.ok(lines().length < before + 5)
  t.match(lines().at(before), { route: null, ip: '127.0.0.1', error: 'connections' })
  for (const client of held) client.socket.destroy()
})

t.test('they are not logged if the access log is off', async (t) => {
  const { port, count, lines } = await refusing(t, { accessLog: false })
  await connect(port, 'NONSENSE\r\n\r\n').closed
  t.equal(await count('malformed'), 1)
  t.strictSame(lines(), [])
})

t.test('a CONNECT request is closed soon, whatever the client does', async (t) => {
  const { port } = await refusing(t)
  const stubborn = connect(port)
  stubborn.socket.allowHalfOpen = true
  stubborn.send('CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n')
  const drip = setInterval(() => stubborn.socket.writable && stubborn.send('x'), 50)
  t.equal(parse((await stubborn.closed).text).status, 501)
  clearInterval(drip)
})

t.test('the refusal of a CONNECT never becomes part of a response in progress', async (t) => {
  const service = await startRawService((socket) =>
    socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst'))
  )
  t.teardown(service.close)
  const gateway = await gatewayBefore(t, service.url)
  const client = connect(gateway.port, 'GET / HTTP/1.1\r\nHost: h\r\n\r\n')
  await client.until('first')
  client.send('CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n')
  t.match((await client.closed).text, /first$/)
})
