/** A client of HTTP/2 for fields that Node's client refuses, such as a repeated Content-Encoding. */
import { once } from 'node:events'
import tls from 'node:tls'
import type { Test } from 'tap'

const DATA = 0
const HEADERS = 1
const RST_STREAM = 3
const SETTINGS = 4
const end = 1
const endOfHeaders = 4
const acknowledged = 1

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(9)
  header.writeUIntBE(payload.length, 0, 3)
  header.writeUInt8(type, 3)
  header.writeUInt8(flags, 4)
  header.writeUInt32BE(stream, 5)
  return Buffer.concat([header, payload])
}

/** Returns a field as a literal of HPACK, without Huffman's code. Name and value have less than 127 bytes. */
const literal = ([name, value]: readonly [string, string]): Buffer =>
  Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name), Buffer.from([value.length]), Buffer.from(value)])

/** Sends a POST with these fields and a body of at most 16 KB, and returns the body of the response. */
export async function postFields(
  t: Test,
  port: number,
  path: string,
  fields: readonly (readonly [string, string])[],
  body: Buffer
): Promise<string> {
  const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] })
  t.teardown(() => socket.destroy())
  await once(socket, 'secureConnect')
  const all = [[':method', 'POST'], [':scheme', 'https'], [':authority', 'h'], [':path', path], ...fields] as const
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
  socket.write(
    Buffer.concat([
      frame(SETTINGS, 0, 0, Buffer.alloc(0)),
      frame(HEADERS, endOfHeaders, 1, Buffer.concat(all.map(literal))),
      frame(DATA, end, 1, body)
    ])
  )
  const parts: Buffer[] = []
  let rest: Buffer = Buffer.alloc(0)
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 9 && rest.length >= 9 + rest.readUIntBE(0, 3)) {
      const size = rest.readUIntBE(0, 3)
      const [type, flags] = [rest[3]!, rest[4]!]
      const payload = rest.subarray(9, 9 + size)
      rest = rest.subarray(9 + size)
      if (type === SETTINGS && flags === 0) socket.write(frame(SETTINGS, acknowledged, 0, Buffer.alloc(0)))
      if (type === RST_STREAM) throw new Error('the stream was reset')
      if (type === DATA) parts.push(payload)
      if ((type === DATA || type === HEADERS) && (flags & end) !== 0) return Buffer.concat(parts).toString()
    }
  }
  throw new Error('the connection ended')
}
