// slow: takes about 4 s
/** Every byte of large responses, to fast and slow clients concurrently. */
import { createCipheriv, createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import http2 from 'node:http2'
import type { AddressInfo, Socket } from 'node:net'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { startGateway } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

/** More than the kernel buffers for a client that does not read. */
const size = 16 * 1024 * 1024 + 17

/** No two parts of no two bodies are alike. */
function bodyOf(path: string): Buffer {
  const seed = createHash('sha256').update(path).digest()
  return createCipheriv('aes-128-ctr', seed.subarray(0, 16), seed.subarray(16)).update(Buffer.alloc(size))
}
const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

async function gateway(t: Test, options: object = {}) {
  const server = createServer((request, response) => {
    const body = bodyOf(request.url!)
    if (request.url!.includes('sized')) response.setHeader('content-length', body.length)
    if (request.url!.includes('close')) response.setHeader('connection', 'close')
    // Chunks of odd sizes.
    let at = 0
    const more = () => {
      while (at < size) {
        const part = body.subarray(at, at + 100_003)
        at += part.length
        if (!response.write(part)) return void response.once('drain', more)
      }
      response.end()
    }
    more()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const started = await startGateway({
    services: { any: { instances: [`http://127.0.0.1:${port}`] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    ...options
  })
  t.teardown(started.close)
  return started
}

/** Returns the responses to requests that are sent at once; with `slow`, they are read late. */
async function digestsOf(port: number, paths: readonly string[], slow: boolean): Promise<string[]> {
  const socket: Socket = connect(port, '127.0.0.1')
  const requests = paths.map((path, i) => {
    const last = i === paths.length - 1 ? 'Connection: close\r\n' : ''
    return `GET ${path} HTTP/1.1\r\nHost: h\r\n${last}\r\n`
  })
  socket.write(requests.join(''))
  const parts: Buffer[] = []
  if (slow) await sleep(300)
  for await (const part of socket) parts.push(part as Buffer)
  return bodies(Buffer.concat(parts)).map(digest)
}

function bodies(bytes: Buffer): Buffer[] {
  const found: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf('\r\n\r\n', at) + 4
    const headerSection = bytes.toString('latin1', at, end).toLowerCase()
    const length = /content-length: (\d+)/.exec(headerSection)
    if (length !== null) {
      at = end + Number(length[1])
      found.push(bytes.subarray(end, at))
      continue
    }
    const chunks: Buffer[] = []
    for (at = end; ; ) {
      const line = bytes.indexOf('\r\n', at)
      const size = Number.parseInt(bytes.toString('latin1', at, line), 16)
      chunks.push(bytes.subarray(line + 2, line + 2 + size))
      at = line + 2 + size + 2
      if (size === 0) break
    }
    found.push(Buffer.concat(chunks))
  }
  return found
}

t.test('slow and fast clients get large bodies concurrently, also several on one connection', async (t) => {
  const { port } = await gateway(t)
  const pathLists = Array.from({ length: 6 }, (_, i) => {
    const kind = ['sized', 'chunked', 'sized-close'][i % 3]
    return Array.from({ length: 1 + (i % 2) }, (_, k) => `/${kind}/${i}/${k}`)
  })
  const got = await Promise.all(pathLists.map((paths, i) => digestsOf(port, paths, i % 2 === 0)))
  t.strictSame(
    got,
    pathLists.map((paths) => paths.map((path) => digest(bodyOf(path))))
  )
})

t.test('clients that leave within a response do not affect others', async (t) => {
  const { port } = await gateway(t)
  const leaving = Array.from({ length: 10 }, async (_, i) => {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => {})
    socket.write(`GET /sized/left/${i} HTTP/1.1\r\nHost: h\r\n\r\n`)
    await sleep(5 + i * 3)
    // The client has not read: the gateway buffers the bytes that it could not send.
    socket.resetAndDestroy()
  })
  const paths = Array.from({ length: 4 }, (_, i) => `/sized/stays/${i}`)
  const got = await Promise.all(paths.map((path, i) => digestsOf(port, [path], i % 2 === 0)))
  await Promise.all(leaving)
  t.strictSame(got, paths.map((path) => [digest(bodyOf(path))])) // biome-ignore format: short
})

t.test('HTTP/2: concurrent streams get large bodies', async (t) => {
  const { port } = await gateway(t, { listen: { tls: selfSigned(t), http2: true } })
  const client = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  t.teardown(() => client.close())
  const paths = Array.from({ length: 4 }, (_, i) => `/${i % 2 ? 'sized' : 'chunked'}/${i}`)
  const got = await Promise.all(
    paths.map(async (path, i) => {
      const stream = client.request({ ':path': path })
      const parts: Buffer[] = []
      if (i < 2) await sleep(200)
      for await (const part of stream) parts.push(part as Buffer)
      return digest(Buffer.concat(parts))
    })
  )
  t.strictSame(got, paths.map((path) => digest(bodyOf(path)))) // biome-ignore format: short
})
