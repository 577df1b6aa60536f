// slow: takes about 11 s
// Every byte of a response is the service's: no freed memory, and no bytes of another request.
import { once } from 'node:events'
import http2 from 'node:http2'
import type { Socket } from 'node:net'
import net from 'node:net'
import tls from 'node:tls'
import type { Test } from 'tap'
import t from 'tap'
import { gatewayBefore, parse, startRawService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const { cert, key } = selfSigned(t)

/** Sizes in bytes of the chunks of one response; the sum is below and above the limits at which chunks are held back. */
const shapes: readonly (readonly number[])[] = [
  [1],
  [60, 60],
  [150, 1, 150],
  [1000, 3000, 500],
  [16_384, 16_385, 7],
  [40_000, 10, 70_000],
  []
]

/** The body of a response: each byte depends on its offset and its request. */
function bodyOf(id: number, size: number): Buffer {
  const body = Buffer.alloc(size)
  for (let i = 0; i < size; i++) body[i] = (id * 31 + i * 7 + (i >> 8)) & 0xff
  return body
}

/** A service that sends each chunk, the last chunk and the trailer section, if any, in separate writes. */
function inPieces(socket: Socket): void {
  let seen = ''
  let queue = Promise.resolve()
  socket.on('data', (chunk: Buffer) => {
    seen += chunk.toString('latin1')
    for (let end = seen.indexOf('\r\n\r\n'); end !== -1; end = seen.indexOf('\r\n\r\n')) {
      const headerSection = seen.slice(0, end)
      seen = seen.slice(end + 4)
      const id = Number(/\/(\d+)/.exec(headerSection)?.[1])
      queue = queue.then(() => respond(socket, id))
    }
  })
}

async function respond(socket: Socket, id: number): Promise<void> {
  const sizes = shapes[id % shapes.length]!
  const body = bodyOf(
    id,
    sizes.reduce((sum, size) => sum + size, 0)
  )
  // Of three responses one has a length, one has none and one ends with a trailer section.
  const kind = id % 3
  const framing = kind === 0 ? `Content-Length: ${body.length}` : 'Transfer-Encoding: chunked'
  const write = async (bytes: string | Buffer) => {
    socket.write(bytes as string, 'latin1' as never)
    await new Promise((resolve) => setTimeout(resolve, id % 2))
    await new Promise(setImmediate)
  }
  await write(`HTTP/1.1 200 OK\r\n${framing}\r\n\r\n`)
  let at = 0
  for (const size of sizes) {
    const piece = body.subarray(at, at + size)
    at += size
    await write(
      kind === 0 ? piece : Buffer.concat([Buffer.from(`${size.toString(16)}\r\n`), piece, Buffer.from('\r\n')])
    )
  }
  if (kind === 1) await write('0\r\n\r\n')
  if (kind === 2) await write('0\r\nx-sum: 1\r\n\r\n')
}

const expected = (id: number) =>
  bodyOf(
    id,
    shapes[id % shapes.length]!.reduce((sum, size) => sum + size, 0)
  )

const paths = ['raw', 'reply'] as const
type Path = (typeof paths)[number]

async function gatewayWith(t: Test, listen: object, responsePath: Path) {
  const service = await startRawService(inPieces)
  t.teardown(service.close)
  return gatewayBefore(t, service.url, { listen, edge: { responsePath } })
}

for (const [client, initialWindowSize, pauseMs] of [
  ['a small window', 100, 0],
  ['a window of one byte', 1, 0],
  ['an ordinary window', 65_535, 0],
  ['a small window and pauses between reads', 1000, 1]
] as const) {
  t.test(`no response has bytes of another, over HTTP/2, ${client}`, async (t) => {
    for (const path of paths) await t.test(path, (t) => readSlowly(t, path))
  })

  async function readSlowly(t: Test, path: Path) {
    const { port } = await gatewayWith(t, { tls: { cert, key }, http2: true }, path)
    const session = http2.connect(`https://localhost:${port}`, {
      rejectUnauthorized: false,
      settings: { initialWindowSize }
    })
    t.teardown(() => session.destroy())
    await once(session, 'remoteSettings')
    const most = initialWindowSize === 1 ? 21 : 210
    const wrong: number[] = []
    let next = 0
    const worker = async () => {
      while (next < most) {
        const id = next++
        // With a window of one byte, 100 KB would take as many round trips.
        if (initialWindowSize === 1 && id % shapes.length > 3) continue
        const stream = session.request({ ':path': `/${id}` })
        const chunks: Buffer[] = []
        for await (const chunk of stream as AsyncIterable<Buffer>) {
          chunks.push(chunk)
          if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs))
        }
        if (!Buffer.concat(chunks).equals(expected(id))) wrong.push(id)
      }
    }
    await Promise.all(Array.from({ length: 10 }, worker))
    t.same(wrong, [], 'each client gets the bytes of its own response')
  }
}

for (const [protocol, listen] of [
  ['HTTP/1.1', {}],
  ['HTTP/1.1 over TLS', { tls: { cert, key } }]
] as const) {
  t.test(`no response has bytes of another, over ${protocol}, with a slow reader`, async (t) => {
    for (const path of paths) await t.test(path, (t) => readSlowly(t, path))
  })

  async function readSlowly(t: Test, path: Path) {
    const { port } = await gatewayWith(t, listen, path)
    const wrong: number[] = []
    let next = 0
    const worker = async () => {
      while (next < 105) {
        const id = next++
        const socket =
          protocol === 'HTTP/1.1'
            ? net.connect({ port, host: '127.0.0.1', highWaterMark: 512 } as net.NetConnectOpts)
            : tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false })
        socket.write(`GET /${id} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`)
        let text = ''
        for await (const chunk of socket as AsyncIterable<Buffer>) {
          text += chunk.toString('latin1')
          if (id % 5 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
        }
        if (!Buffer.from(parse(text).body, 'latin1').equals(expected(id))) wrong.push(id)
      }
    }
    await Promise.all(Array.from({ length: 10 }, worker))
    t.same(wrong, [])
  }
}
