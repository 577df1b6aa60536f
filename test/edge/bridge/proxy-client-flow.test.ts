// slow: takes about 6 s
/** @fastify/http-proxy, the real package, on the mesh: statuses without content, and clients and services that stall. */
import http2 from 'node:http2'
import net from 'node:net'
import tls from 'node:tls'
import type { Test } from 'tap'
import t from 'tap'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { eventually } from '../../helpers/eventually.ts'
import { startGateway, startRawService, startService } from '../../helpers/gateway.ts'

/** A gateway with the same service over the bridge and over http-proxy. */
async function gatewayBefore(t: Test, protocol: Protocol, url: string) {
  const gateway = await startGateway(
    {
      listen: listenFor(t, protocol),
      edge: { bodyLimit: false },
      services: { any: { instances: [url] } },
      routes: [
        { name: 'bridge', match: { path: '/bridge' }, service: 'any' },
        { name: 'via', match: { path: '/via' }, service: 'any', via: 'http-proxy' }
      ]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  return gateway
}

/** Sends a request and reads nothing; returns a function that disconnects. */
function stall(t: Test, protocol: Protocol, port: number, path: string): () => void {
  if (protocol === 'HTTP/2') {
    const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
    session.on('error', () => {})
    session.request({ ':path': path }).on('error', () => {})
    t.teardown(() => session.destroy())
    return () => session.destroy()
  }
  const at = { port, host: '127.0.0.1' }
  const socket = protocol === 'TLS' ? tls.connect({ ...at, rejectUnauthorized: false }) : net.connect(at)
  socket.on('error', () => {})
  socket.write(`GET ${path} HTTP/1.1\r\nHost: h\r\n\r\n`)
  t.teardown(() => socket.destroy())
  return () => socket.destroy()
}

for (const protocol of protocols) {
  t.test(`${protocol}: statuses with and without content are those of the bridge`, async (t) => {
    const service = await startService((request, response) => {
      const status = Number(request.url?.split('/')[2])
      response.writeHead(status, { 'x-own': '1', ...(status === 304 && { etag: '"a"' }) })
      response.end(status === 204 || status === 304 || status === 205 ? undefined : String(status))
    })
    t.teardown(service.close)
    const { port } = await gatewayBefore(t, protocol, service.url)
    const { ask } = anyClient(t, protocol, port)
    for (const status of [200, 201, 204, 205, 304, 404, 500, 503]) {
      for (const method of ['GET', 'HEAD', 'POST']) {
        const from = async (path: string) => {
          const { headers, body, ...rest } = await ask(`/${path}/${status}`, { method })
          const { 'x-request-id': _id, date: _date, 'keep-alive': _time, ...fields } = headers
          // Two ways to declare an empty body.
          if (status === 205) for (const name of ['content-length', 'transfer-encoding']) delete fields[name]
          return { ...rest, headers: Object.fromEntries(Object.entries(fields).sort()), body: body.toString() }
        }
        t.strictSame(await from('via'), await from('bridge'), `${method} ${status}`)
      }
    }
  })

  t.test(`${protocol}: a client that reads nothing pauses the service, and ends the call when it leaves`, async (t) => {
    let written = 0
    let open = false
    const service = await startRawService((socket) => {
      open = true
      socket.once('close', () => {
        open = false
      })
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n')
        const chunk = Buffer.alloc(65_536)
        const more = () => {
          while (socket.writable && socket.write(chunk)) written += chunk.length
        }
        socket.on('drain', more)
        more()
      })
    })
    t.teardown(service.close)
    const { port } = await gatewayBefore(t, protocol, service.url)
    const leave = stall(t, protocol, port, '/via')
    let before = -1
    // Paused once nothing is written for a while.
    while (written === 0 || written > before) {
      before = written
      await new Promise((resolve) => setTimeout(resolve, 300))
    }
    t.ok(written < 50_000_000, `${written} bytes`)
    t.ok(open)
    leave()
    await eventually(() => !open)
  })

  t.test(`${protocol}: a service that reads nothing pauses the client`, async (t) => {
    let read = 0
    let go = () => {}
    const service = await startRawService((socket) => {
      socket.pause()
      go = () => {
        socket.on('data', (chunk: Buffer) => {
          read += chunk.length
          if (chunk.includes('\r\n0\r\n\r\n')) socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
        })
        socket.resume()
      }
    })
    t.teardown(service.close)
    const { port, server } = await gatewayBefore(t, protocol, service.url)
    let taken = () => 0
    server.server.once('connection', (socket: net.Socket) => {
      taken = () => socket.bytesRead
    })
    const call = anyClient(t, protocol, port).begin('/via', { method: 'POST', streams: true })
    const chunk = Buffer.alloc(65_536, 'x')
    for (let sent = 0; sent < 30_000_000; sent += chunk.length) call.send(chunk)
    call.end()
    let before = -1
    while (taken() === 0 || taken() > before) {
      before = taken()
      await new Promise((resolve) => setTimeout(resolve, 300))
    }
    t.ok(taken() < 20_000_000, `${taken()} bytes`)
    go()
    t.match(await call.response, { status: 200, body: Buffer.from('ok') })
    t.ok(read > 30_000_000)
  })
}
