// slow: takes about 29 s
// Clients that send or read very slowly, without a pause: a timeout that each byte restarts never disconnects them.
import { once } from 'node:events'
import type { ClientHttp2Session } from 'node:http2'
import http2 from 'node:http2'
import type { Socket } from 'node:net'
import net from 'node:net'
import type { Duplex } from 'node:stream'
import tls from 'node:tls'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { startGateway, startService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const protocols = ['HTTP/1.1', 'TLS', 'HTTP/2'] as const
type Protocol = (typeof protocols)[number]

/** More than the kernel buffers for a client that does not read. */
const large = Buffer.alloc(32 * 1024 * 1024, 'x')

async function serving(t: Test, protocol: Protocol, listen: object, edge: object = {}) {
  const seen = { requests: 0, left: 0, open: 0 }
  const service = await startService((request, response) => {
    seen.requests++
    seen.open++
    response.on('close', () => {
      seen.open--
      if (!response.writableFinished) seen.left++
    })
    request.on('error', () => {})
    if (request.url === '/large') response.end(large)
    else if (request.url === '/early') response.end('early')
    else request.resume().on('end', () => response.end('whole'))
  })
  t.teardown(service.close)
  const secure = protocol === 'HTTP/1.1' ? {} : { tls: selfSigned(t), http2: protocol === 'HTTP/2' }
  const gateway = await startGateway(
    {
      listen: { ...secure, ...listen },
      services: { any: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { bodyLimit: false, ...edge } }]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  return { ...gateway, seen, lines }
}

interface Exchange {
  /** The client's side of the request: its connection, or its stream. */
  stream: Duplex
  connection: Socket | ClientHttp2Session
  sendBody: (bytes: Buffer | string) => void
  status: () => number
  received: () => number
  text: () => string
  over: () => boolean
}

/** Sends a request with the beginning of its body; `length` in bytes, none for a request without. */
function ask(t: Test, port: number, protocol: Protocol, path: string, length = 0, window?: number): Exchange {
  let text = ''
  let received = 0
  let over = false
  let status = 0
  const watch = (stream: Duplex) => {
    stream.on('error', () => {})
    stream.once('close', () => {
      over = true
    })
    stream.on('data', (chunk: Buffer) => {
      received += chunk.length
      if (text.length < 2000) text += chunk.toString('latin1')
    })
  }
  const shared = { received: () => received, text: () => text, over: () => over }
  if (protocol === 'HTTP/2') {
    const settings = window === undefined ? {} : { initialWindowSize: window }
    const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false, settings })
    session.on('error', () => {})
    t.teardown(() => session.destroy())
    const fields = { ':path': path, ':method': length > 0 ? 'POST' : 'GET' }
    const stream = session.request(length > 0 ? { ...fields, 'content-length': length } : fields)
    watch(stream)
    stream.on('response', (headers) => {
      status = headers[':status'] ?? 0
    })
    const sendBody = (bytes: Buffer | string) => void (stream.writable && stream.write(bytes))
    return { stream, connection: session, sendBody, status: () => status, ...shared }
  }
  const socket =
    protocol === 'TLS'
      ? tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false })
      : net.connect(port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  watch(socket)
  const fields = length > 0 ? `POST ${path} HTTP/1.1\r\nContent-Length: ${length}` : `GET ${path} HTTP/1.1`
  socket.write(`${fields}\r\nHost: h\r\n\r\n`)
  const sendBody = (bytes: Buffer | string) => void (socket.writable && socket.write(bytes))
  return { stream: socket, connection: socket, sendBody, status: () => Number(text.split(' ')[1]), ...shared }
}

/** Repeats until the test ends. */
function every(t: Test, ms: number, work: () => void): void {
  const timer = setInterval(work, ms)
  t.teardown(() => clearInterval(timer))
}

// Each test has a gateway of its own, and mostly waits for timeouts.
t.jobs = 4

for (const protocol of protocols) {
  t.test(`${protocol}: a body that arrives a byte at a time is 408, and the call to the service ends`, async (t) => {
    const { port, seen, lines } = await serving(t, protocol, { timeouts: { bodyIdle: '300ms' } })
    const client = ask(t, port, protocol, '/', 1_000_000)
    every(t, 20, () => client.sendBody('x'))
    await eventually(() => client.status() === 408)
    t.match(client.text(), /JW_BODY_TOO_SLOW/)
    await eventually(() => seen.left === 1 && lines().length === 1)
    t.match(lines()[0], { status: 408, error: 'JW_BODY_TOO_SLOW' })
  })

  t.test(`${protocol}: a body has a total timeout, at any rate`, async (t) => {
    const { port, seen } = await serving(t, protocol, { timeouts: { body: '500ms' } })
    const client = ask(t, port, protocol, '/', 100_000_000)
    every(t, 10, () => client.sendBody(Buffer.alloc(1000)))
    await eventually(() => client.status() === 408)
    await eventually(() => seen.left === 1)
  })

  t.test(`${protocol}: a route's limits override the global ones`, async (t) => {
    const strict = { timeouts: { bodyIdle: '300ms', body: '400ms' }, limits: { bodyRate: '1mb' } }
    const { port } = await serving(t, protocol, strict, { bodyRate: false, bodyTimeout: false })
    const client = ask(t, port, protocol, '/', 100)
    for (let sent = 0; sent < 100; sent++) {
      client.sendBody('x')
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await eventually(() => client.text().endsWith('whole'))
    t.equal(client.status(), 200)
  })

  t.test(`${protocol}: a slow body above the minimum rate arrives completely`, async (t) => {
    const { port } = await serving(t, protocol, { timeouts: { bodyIdle: '300ms' }, limits: { bodyRate: '1kb' } })
    const client = ask(t, port, protocol, '/', 100_000)
    for (let sent = 0; sent < 100; sent++) {
      client.sendBody(Buffer.alloc(1000))
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await eventually(() => client.text().endsWith('whole'))
    t.equal(client.status(), 200)
  })

  t.test(`${protocol}: a client that sends slowly and reads nothing does not occupy the service`, async (t) => {
    const { port, seen } = await serving(t, protocol, { timeouts: { sendIdle: '300ms', bodyIdle: '60s' } })
    const client = ask(t, port, protocol, '/large', 1_000_000)
    client.stream.pause()
    every(t, 20, () => client.sendBody('x'))
    await eventually(() => seen.left === 1)
    t.ok(client.received() < large.length)
  })

  t.test(`${protocol}: a client that goes on sending slowly after its response is disconnected`, async (t) => {
    const { port, lines } = await serving(t, protocol, { timeouts: { bodyIdle: '300ms' } })
    const client = ask(t, port, protocol, '/early', 1_000_000)
    every(t, 20, () => client.sendBody('x'))
    await eventually(() => client.text().endsWith('early'))
    await eventually(client.over)
    t.equal(lines().length, 1)
  })

  t.test(`${protocol}: a response that is read below the minimum rate is aborted`, async (t) => {
    const limits = { sendRate: '1gb' }
    const { port, seen, lines } = await serving(t, protocol, { timeouts: { sendIdle: '300ms' }, limits })
    const client = ask(t, port, protocol, '/large')
    client.stream.pause()
    every(t, 50, () => {
      client.stream.once('data', () => client.stream.pause())
      client.stream.resume()
    })
    await eventually(() => seen.left === 1)
    t.ok(client.received() > 0 && client.received() < large.length)
    await eventually(() => lines().length === 1)
    t.match(lines()[0], { error: 'JW_CLIENT_GONE' })
  })
}

t.test('HTTP/2: with a window that never opens, streams and their calls are closed', async (t) => {
  const { port, log, seen } = await serving(t, 'HTTP/2', { timeouts: { sendIdle: '300ms' } })
  for (const path of ['/large', '/../x']) {
    const client = ask(t, port, 'HTTP/2', path, 0, 0)
    await eventually(client.over)
    t.ok(client.received() === 0, path)
  }
  await eventually(() => log.filter(({ msg }) => msg === 'request').length === 2)
  t.equal(seen.open, 0)
})

t.test('HTTP/2: with a hundred unread responses, a client can send one more request', async (t) => {
  const { port } = await serving(t, 'HTTP/2', {})
  const settings = { initialWindowSize: 2 ** 20 }
  const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false, settings })
  const failed: Error[] = []
  session.on('error', (error) => failed.push(error))
  t.teardown(() => session.destroy())
  await once(session, 'connect')
  session.setLocalWindowSize(2 ** 28)
  for (let sent = 0; sent < 127; sent++) {
    const stream = session.request({ ':path': '/large' })
    stream.on('error', (error) => failed.push(error))
    await once(stream, 'response')
  }
  const stream = session.request({ ':path': '/early' }).resume()
  stream.on('error', (error) => failed.push(error))
  const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
  t.equal(headers[':status'], 200)
  t.strictSame(failed, [])
})
