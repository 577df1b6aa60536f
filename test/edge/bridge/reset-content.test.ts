// 205 responses have no content (RFC 9110, 15.3.6), but some services send it.
import { once } from 'node:events'
import http2 from 'node:http2'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { connect, gatewayBefore, startRawService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

async function serving(t: Test, listen: object) {
  const seen = { open: 0, requests: 0 }
  const service = await startRawService((socket) => {
    seen.open++
    socket.once('close', () => seen.open--)
    socket.on('data', (data: Buffer) => {
      seen.requests++
      const [, path = ''] = data.toString('latin1').split(' ')
      socket.write('HTTP/1.1 205 Reset Content\r\nX-Own: 1\r\n')
      if (path === '/none') socket.write('Content-Length: 0\r\n\r\n')
      if (path === '/short') socket.write('Content-Length: 5\r\n\r\nshort')
      if (path === '/large') socket.write(`Content-Length: 10000000\r\n\r\n${'x'.repeat(10_000_000)}`)
      if (path !== '/endless') return
      socket.write('Transfer-Encoding: chunked\r\n\r\n')
      const sending = setInterval(() => socket.write('4\r\ntick\r\n'), 5)
      socket.once('close', () => clearInterval(sending))
    })
  })
  t.teardown(service.close)
  const gateway = await gatewayBefore(t, service.url, { listen }, { log: true })
  const active = () => gateway.server.mesh.status()[0]!.instances[0]!.active
  return { ...gateway, seen, active }
}

t.test('HTTP/2: content of the service is dropped, and the connection to the service is free', async (t) => {
  const { port, seen, active, log } = await serving(t, { tls: selfSigned(t), http2: true })
  const client = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  t.teardown(() => client.destroy())
  for (const path of ['/none', '/short', '/large', '/endless']) {
    const before = seen.open
    const stream = client.request({ ':path': path })
    let received = 0
    stream.on('data', (chunk: Buffer) => {
      received += chunk.length
    })
    const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
    t.match(headers, { ':status': 205, 'x-own': '1' }, path)
    t.notOk(Number(headers['content-length'] ?? 0) > 0)
    if (!stream.closed) await once(stream, 'close')
    t.equal(received, 0)
    t.equal(stream.rstCode, 0)
    await eventually(() => active() === 0)
    if (path !== '/none' && path !== '/short') await eventually(() => seen.open <= before)
  }
  await eventually(() => log.filter(({ msg, status }) => msg === 'request' && status === 205).length === 4)
  t.strictSame(
    log.filter(({ path }) => path === '/none' || path === '/large').map(({ error }) => error),
    [undefined, 'JW_SURPLUS_BODY']
  )
})

t.test('HTTP/1.1: is forwarded with its framing', async (t) => {
  const { port } = await serving(t, {})
  const client = connect(port, 'GET /short HTTP/1.1\r\nHost: h\r\n\r\n')
  await client.until('\r\n\r\nshort')
  client.socket.destroy()
})
