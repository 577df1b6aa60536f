import { once } from 'node:events'
import type { Test } from 'tap'
import t from 'tap'
import { handshake } from '../../helpers/edge/websocket.ts'
import { connect, gatewayBefore, get, startGateway, startRawService } from '../../helpers/gateway.ts'

/** Responds with these bytes, with a pause at each `|`. */
async function gatewayFor(t: Test, response: string, config: object = {}, log = false) {
  const service = await startRawService((socket) => {
    socket.once('data', async () => {
      for (const part of response.split('|')) {
        socket.write(part, 'latin1')
        await new Promise((resolve) => setTimeout(resolve, 30))
      }
      socket.end()
    })
  })
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      edge: { websocket: {} },
      services: { any: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
      mesh: { retry: false },
      ...config
    },
    { log }
  )
  t.teardown(gateway.close)
  return gateway
}

t.test('a header section sent before its body, or of a 101, keeps its bytes', async (t) => {
  const late = await gatewayFor(t, 'HTTP/1.1 200 OK\r\nX-Latin: \xe9\xff\r\nContent-Length: 2\r\n\r\n|ok')
  t.match(await get(late.port, '/'), { headers: { 'x-latin': '\xe9\xff' }, body: 'ok' })

  const upgraded = await gatewayFor(
    t,
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Latin: \xe9\xff\r\n\r\n'
  )
  t.match((await connect(upgraded.port, handshake('/')).closed).text, '\r\nx-latin: \xe9\xff\r\n')
})

t.test('204 and 103 have no Content-Length', async (t) => {
  const { port } = await gatewayFor(
    t,
    'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 3\r\n\r\nHTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n'
  )
  const { text } = await connect(port, 'GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n').closed
  t.match(text, /^HTTP\/1\.1 103 [\s\S]+HTTP\/1\.1 204 /)
  t.notMatch(text, /content-length/i)
})

t.test('endless early hints are not queued for a client that does not read', async (t) => {
  const hint = `HTTP/1.1 103 Early Hints\r\nLink: </${'a'.repeat(1000)}>\r\n\r\n`
  const { promise: all, resolve: sent } = Promise.withResolvers<void>()
  const service = await startRawService((socket) => {
    socket.once('data', async () => {
      for (let i = 0; i < 300; i++) if (!socket.write(hint.repeat(100))) await once(socket, 'drain')
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', () => sent())
    })
  })
  t.teardown(service.close)
  const gateway = await gatewayBefore(t, service.url)
  const client = connect(gateway.port, 'GET / HTTP/1.1\r\nHost: h\r\n\r\n')
  client.socket.pause()
  await all
  client.socket.resume()
  const text = await client.until('\r\n\r\nok')
  t.match(text, /^HTTP\/1\.1 103 /)
  t.ok(text.length < 20_000_000, `${text.length} bytes of 30 MB`)
  client.socket.destroy()
})

t.test('an unrequested 101, and one without Upgrade, are 502', async (t) => {
  for (const lines of ['', 'Upgrade: websocket\r\nConnection: Upgrade\r\n', 'Connection: Upgrade\r\n']) {
    const { port } = await gatewayFor(t, `HTTP/1.1 101 Switching Protocols\r\n${lines}\r\nx`)
    t.equal((await get(port, '/')).status, 502, lines)
  }
})

t.test('a request that is refused for its framing is no failure of the gateway', async (t) => {
  const { port, log } = await gatewayFor(t, '', {}, true)
  t.equal((await get(port, '/', ['Transfer-Encoding: gzip, chunked'], 'POST')).status, 501)
  t.notOk(log.some(({ level }) => Number(level) >= 50))
})

t.test('after a response without reading the request body, the idle connection is closed', async (t) => {
  const { port } = await gatewayFor(t, '', {
    listen: { timeouts: { keepAlive: '100ms', bodyIdle: '60s' } },
    routes: []
  })
  const { text } = await connect(port, 'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody').closed
  t.match(text, /^HTTP\/1\.1 404 /)
})
