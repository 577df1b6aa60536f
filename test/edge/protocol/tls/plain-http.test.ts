/** HTTP without TLS on a TLS port: the client gets a 400, and the port continues to serve. */

import http from 'node:http'
import net from 'node:net'
import t from 'tap'
import { eventually } from '../../../helpers/eventually.ts'
import { connect, parse } from '../../../helpers/gateway.ts'
import { listening, scene, shake } from './support.ts'

for (const http2 of [false, true]) {
  t.test(`plain HTTP on a port with TLS gets a 400 that names the cause, with http2: ${http2}`, async (t) => {
    const { issue } = scene(t)
    const { certFile, keyFile } = issue('localhost')
    const tls = { cert: certFile, key: keyFile }
    const { port, metric, log } = await listening(t, tls, { listen: { tls, http2 } })
    const refused = () => metric('jingwei_edge_refused_total{reason="plain-http",listener="default"}')
    const requests = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'].map(
      (method) => `${method} / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n`
    )
    for (const request of [...requests, 'CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n']) {
      const { text, reset } = await connect(port, request).closed
      t.notOk(reset)
      const { status, headers, body } = parse(text)
      t.equal(status, 400, request.slice(0, 8))
      t.equal(headers.connection, 'close')
      t.equal(JSON.parse(body).message, 'Client sent an HTTP request to an HTTPS server')
    }
    t.equal(await refused(), 8)
    await eventually(() => log.filter(({ error }) => error === 'plain-http').length === 8)
    t.match(
      log.find(({ error }) => error === 'plain-http'),
      { status: 400, ip: '127.0.0.1', route: null }
    )

    const status = await new Promise((resolve) => {
      http.get({ port, host: '127.0.0.1', agent: false }, (response) => resolve(response.resume().statusCode))
    })
    t.equal(status, 400, 'an HTTP client gets 400')
    t.match(await shake(port), { status: 200 })
  })
}

t.test('other bytes that are not TLS are closed without a response', async (t) => {
  const { issue } = scene(t)
  const { certFile, keyFile } = issue('localhost')
  const { port, metric } = await listening(t, { cert: certFile, key: keyFile })
  for (const bytes of ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'SSH-2.0-OpenSSH_9.6\r\n', Buffer.alloc(100, 255)]) {
    const { text } = await connect(port, bytes).closed
    t.notMatch(text, /HTTP/)
  }
  t.equal(await metric('jingwei_edge_refused_total{reason="tls-handshake",listener="default"}'), 3)
  // A port scan, or the check of a load balancer: nothing is logged.
  const socket = net.connect(port, '127.0.0.1')
  await new Promise((resolve) => socket.once('connect', resolve))
  socket.destroy()
  t.match(await shake(port), { status: 200 })
  t.equal(await metric('jingwei_edge_refused_total{reason="tls-handshake",listener="default"}'), 3)
})
