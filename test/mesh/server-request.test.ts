/**
 * A server's request as the body of a call: the end of the call, or its failure, must not destroy the client's
 * connection, on which the response goes out. Over HTTP/1.1, TLS and HTTP/2.
 */
import { once } from 'node:events'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2'
import http2 from 'node:http2'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import net from 'node:net'
import type { Readable } from 'node:stream'
import tls from 'node:tls'
import type { Test } from 'tap'
import t from 'tap'
import { authority, folderFor } from '../helpers/certificates.ts'
import { meshOf, Recorder, retryOptions, service } from '../helpers/mesh/mesh.ts'
import { raw } from '../helpers/mesh/servers.ts'

type Handler = (request: IncomingMessage | Http2ServerRequest, response: ServerResponse | Http2ServerResponse) => void

const early = (...fields: string[]) =>
  ['HTTP/1.1 413 Too Large', ...fields, 'Content-Length: 4', '', 'much'].join('\r\n')
const size = 8 * 1024 * 1024

async function listening(t: Test, server: Server | http2.Http2SecureServer): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => void server.close())
  return (server.address() as AddressInfo).port
}

/** Sends all of a large body before it looks at the response, and then another request on the same connection. */
async function overHttp1(socket: net.Socket): Promise<string> {
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  socket.write(`POST / HTTP/1.1\r\nHost: h\r\nContent-Length: ${size}\r\n\r\n`)
  const written = Promise.withResolvers<void>()
  socket.write(Buffer.alloc(size), () => written.resolve())
  const closed = once(socket, 'close').then(
    () => written.resolve(),
    (error: Error) => written.reject(error)
  )
  await written.promise
  socket.end('GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  await closed
  return text
}

for (const [name, response, kept] of [
  ['kept', early(), true],
  ['closed', early('Connection: close'), false]
] as const) {
  for (const retried of [false, true]) {
    t.test(
      `an early 413 arrives; the service's connection is ${name}${retried ? '; the body is kept for a retry' : ''}`,
      async (t) => {
        const { url } = await raw(t, (socket) =>
          socket.once('data', () => void (kept ? socket.write(response) : socket.end(response)))
        )
        const retry = retried ? { ...retryOptions, methods: ['POST' as const] } : (false as const)
        const mesh = meshOf(t, [service('orders', [url], { retry })])
        const handler: Handler = async (request, response) => {
          if (request.url === '/next') {
            response.end('next')
            return
          }
          const call = { origin: 'http://orders.mesh', path: '/', method: 'POST', body: request as Readable } as const
          const { statusCode, body } = await mesh
            .request(call)
            .catch((error: Error) => ({ statusCode: 502, body: error.message }))
          response.statusCode = statusCode
          response.end(typeof body === 'string' ? body : await body.text())
        }
        const { certFile: _file, cert, key } = authority(folderFor(t), 'ca').issue('h', { san: 'DNS:localhost' })

        const plain = net.connect(await listening(t, createServer(handler)), '127.0.0.1')
        t.match(await overHttp1(plain), /^HTTP\/1\.1 413 .*much.*HTTP\/1\.1 200 .*next$/s, 'HTTP/1.1')

        const securePort = await listening(t, https.createServer({ cert, key }, handler))
        const secure = tls.connect({ port: securePort, host: '127.0.0.1', rejectUnauthorized: false })
        t.match(await overHttp1(secure), /^HTTP\/1\.1 413 .*much.*HTTP\/1\.1 200 .*next$/s, 'TLS')

        const port = await listening(t, http2.createSecureServer({ cert, key }, handler))
        const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
        t.teardown(() => session.destroy())
        const stream = session.request({ ':method': 'POST', ':path': '/' })
        stream.on('error', () => {})
        stream.write(Buffer.alloc(64 * 1024))
        const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
        t.equal(headers[':status'], 413, 'HTTP/2')
        stream.close()
      }
    )
  }
}

t.test('a service that fails: the server says so on the same connection', async (t) => {
  const { url } = await raw(t, (socket) => socket.once('data', () => socket.resetAndDestroy()))
  const mesh = meshOf(t, [service('orders', [url])])
  const server = createServer(async (request, response) => {
    if (request.url === '/next') response.end('next')
    else {
      const call = { origin: 'http://orders.mesh', path: '/', method: 'POST', body: request } as const
      // Not `request()`: undici's own handler destroys the body where the call fails.
      const recorder = new Recorder()
      mesh.dispatch(call, recorder)
      await recorder.done
      response.writeHead(recorder.error === null ? 200 : 502).end('bad')
    }
  })
  const text = await overHttp1(net.connect(await listening(t, server), '127.0.0.1'))
  t.match(text, /^HTTP\/1\.1 502 .*bad.*HTTP\/1\.1 200 .*next$/s)
})
