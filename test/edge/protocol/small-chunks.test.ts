// Many messages of one byte: the work is counted in steps, which do not grow with the number of chunks.
import { once } from 'node:events'
import http2 from 'node:http2'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import tls from 'node:tls'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { connect, gatewayBefore, parse, startRawService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const count = 100_000
/** Steps allowed for a body of so many bytes: some for each read of 64 KB, and for each 16 KB forwarded. */
const mostSteps = 200
const bytes = Buffer.from(Array.from({ length: count }, (_, index) => 97 + (index % 26)))
const chunks = `${[...bytes].map((byte) => `1\r\n${String.fromCharCode(byte)}\r\n`).join('')}0\r\n\r\n`
/** Chunks of a body, which hold no line breaks themselves. */
const chunksOf = (text: string) => text.slice(text.indexOf('\r\n\r\n') + 4).split('\r\n').length >> 1

/** A service that responds with many chunks, and shows the body that it received. */
async function serving(t: Test, listen: object = {}) {
  let got = ''
  const service = await startRawService((socket: Socket) => {
    let responded = false
    socket.on('data', (data: Buffer) => {
      got += data.toString('latin1')
      if (responded || !(got.startsWith('GET') || got.endsWith('0\r\n\r\n'))) return
      responded = true
      socket.write(
        got.startsWith('GET')
          ? `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}`
          : 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
      )
    })
  })
  t.teardown(service.close)
  const { port } = await gatewayBefore(t, service.url, { listen })
  return { port, got: () => got }
}

t.test('a response in chunks of a byte is merged', async (t) => {
  const { port } = await serving(t)
  const { text } = await connect(port, 'GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n').closed
  t.equal(parse(text).body, bytes.toString())
  t.ok(chunksOf(text) < mostSteps, `${chunksOf(text)} chunks`)
})

t.test('a request in chunks of a byte is merged', async (t) => {
  for (const edge of [{}, { bodyLimit: false }]) {
    let got = ''
    const service = await startRawService((socket) => {
      socket.on('data', (data: Buffer) => {
        got += data.toString('latin1')
        if (got.endsWith('0\r\n\r\n')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      })
    })
    t.teardown(service.close)
    const { port } = await gatewayBefore(t, service.url, { edge })
    const headerSection = 'POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n'
    const { text } = await connect(port, headerSection + chunks).closed
    t.equal(parse(text).status, 200)
    t.equal(parse(got).body, bytes.toString())
    t.ok(chunksOf(got) < mostSteps, `${chunksOf(got)} chunks`)
  }
})

t.test('of many small chunks, one read is processed per event-loop iteration', async (t) => {
  const service = await startRawService((socket) => socket.resume())
  t.teardown(service.close)
  const { port, server } = await gatewayBefore(t, service.url)
  const [connection] = await Promise.all([
    once(server.server, 'connection') as Promise<[Socket]>,
    connect(port, 'POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n')
  ]).then(([[connection], client]) => {
    client.send(chunks.replace('0\r\n\r\n', '').repeat(4))
    t.teardown(() => client.socket.destroy())
    return [connection] as const
  })
  let most = 0
  let before = 0
  let looking = true
  t.teardown(() => {
    looking = false
  })
  const look = () => {
    most = Math.max(most, connection.bytesRead - before)
    before = connection.bytesRead
    if (looking) setImmediate(look)
  }
  look()
  await eventually(() => before > 4 * 6 * count)
  t.ok(most <= 65_536, `${most} bytes`)
})

t.test('HTTP/2: a response in chunks of a byte is merged', async (t) => {
  const { port } = await serving(t, { tls: selfSigned(t), http2: true })
  const client = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  t.teardown(() => client.destroy())
  const stream = client.request({ ':path': '/' })
  const seen: Buffer[] = []
  for await (const chunk of stream) seen.push(chunk as Buffer)
  t.ok(Buffer.concat(seen).equals(bytes))
  t.ok(seen.length < mostSteps, `${seen.length} pieces`)
})

t.test('HTTP/2: a request in frames of a byte is merged', async (t) => {
  const { port, got } = await serving(t, { tls: selfSigned(t), http2: true })
  const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] })
  t.teardown(() => socket.destroy())
  await once(socket, 'secureConnect')
  const frame = (type: number, flags: number, id: number, payload: Buffer) => {
    const header = Buffer.alloc(9)
    header.writeUIntBE(payload.length, 0, 3)
    header.writeUInt8(type, 3)
    header.writeUInt8(flags, 4)
    header.writeUInt32BE(id, 5)
    return Buffer.concat([header, payload])
  }
  // HPACK: POST, https, / by the static table, then `:authority: h` as a literal.
  const fields = Buffer.from([0x83, 0x87, 0x84, 0x01, 0x01, 0x68])
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
  socket.write(Buffer.concat([frame(4, 0, 0, Buffer.alloc(0)), frame(1, 4, 1, fields)]))
  // A body that fits into the window.
  const body = bytes.subarray(0, 60_000)
  socket.write(
    Buffer.concat([...body].map((byte, index) => frame(0, index === 59_999 ? 1 : 0, 1, Buffer.from([byte]))))
  )
  await eventually(() => got().endsWith('0\r\n\r\n'))
  t.equal(parse(got()).body, body.toString())
  t.ok(chunksOf(got()) < mostSteps, `${chunksOf(got())} chunks`)
})

t.test('a single small chunk is forwarded at once, both ways', async (t) => {
  let got = ''
  let serviceSocket: Socket | undefined
  const service = await startRawService((socket) => {
    serviceSocket = socket
    socket.on('data', (data: Buffer) => {
      got += data.toString('latin1')
    })
  })
  t.teardown(service.close)
  const { port } = await gatewayBefore(t, service.url)
  const client = connect(port, 'POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n')
  for (const text of ['one', 'two', 'three']) {
    client.send(`${text.length}\r\n${text}\r\n`)
    await eventually(() => got.includes(`${text}\r\n`))
  }
  serviceSocket!.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
  for (const text of ['four', 'five', 'six']) {
    serviceSocket!.write(`${text.length}\r\n${text}\r\n`)
    await client.until(`${text}\r\n`)
    await sleep(5)
  }
  client.socket.destroy()
})

t.test('a client gets at most a few dozen informational responses', async (t) => {
  for (const hints of [20, 200, 10_000]) {
    const service = await startRawService((socket) => {
      socket.once('data', () => {
        socket.write('HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'.repeat(hints))
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      })
    })
    t.teardown(service.close)
    const { port } = await gatewayBefore(t, service.url)
    const { text } = await connect(port, 'GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n').closed
    t.equal(text.split('HTTP/1.1 103 ').length - 1, Math.min(hints, 32))
    t.match(parse(text.slice(text.lastIndexOf('HTTP/1.1 '))), { status: 200, body: 'ok' })
  }
})
