/** Header fields that belong to the gateway, in every section of a service's response. */
import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import type { Test } from 'tap'
import t from 'tap'
import { listenFor } from '../../helpers/edge/asking-client.ts'
import { gatewayBefore, raw, responding, startRawService } from '../../helpers/gateway.ts'

const forged = [
  'Access-Control-Allow-Origin: https://evil.example',
  'Proxy-Status: jingwei; error=dns_error',
  'X-Kept: yes'
].join('\r\n')
const response =
  `HTTP/1.1 103 Early Hints\r\n${forged}\r\n\r\n` +
  `HTTP/1.1 200 OK\r\n${forged}\r\nTrailer: Access-Control-Allow-Origin, X-Kept\r\nTransfer-Encoding: chunked\r\n\r\n` +
  `2\r\nok\r\n0\r\n${forged}\r\n\r\n`

async function gatewayFor(t: Test, more: object) {
  const service = await startRawService(responding(response))
  t.teardown(service.close)
  return gatewayBefore(t, service.url, { edge: { cors: { origin: ['https://a.example'] } }, ...more })
}

t.test('fields that a concern owns are removed from 1xx responses, headers and trailers', async (t) => {
  const { port } = await gatewayFor(t, {})
  const text = await raw(port, 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
  t.match(text, /^HTTP\/1\.1 103 Early Hints\r\nx-kept: yes\r\n\r\nHTTP\/1\.1 200 OK\r\n/)
  t.match(text, /\r\n2\r\nok\r\n0\r\nx-kept: yes\r\n\r\n$/)
  t.match(text, /\r\ntrailer: X-Kept\r\n/i)
  t.notMatch(text, /evil|access-control|dns_error/i)
})

t.test('so they are over HTTP/2', async (t) => {
  const { port } = await gatewayFor(t, { listen: { port: 0, ...listenFor(t, 'HTTP/2') } })
  const session = connectHttp2(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  const stream = session.request({ ':path': '/' })
  const sections: object[] = []
  for (const event of ['headers', 'response', 'trailers']) stream.on(event, (fields: object) => sections.push(fields))
  stream.resume()
  await once(stream, 'end')
  t.equal(sections.length, 3)
  for (const section of sections) {
    t.match(section, { 'x-kept': 'yes' })
    t.notMatch(JSON.stringify(section), /evil|access-control|dns_error/i)
  }
})

t.test('and on routes with via: http-proxy', async (t) => {
  const { port } = await gatewayFor(t, {
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', via: 'http-proxy' }]
  })
  const text = await raw(port, 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
  t.match(text, /^HTTP\/1\.1 103 Early Hints\r\nx-kept: yes\r\n\r\nHTTP\/1\.1 200 OK\r\n/)
  t.notMatch(text, /evil|access-control|dns_error/i)
})
