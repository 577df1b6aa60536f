// Clients of every protocol that the edge speaks, and a gateway for each of them.
import http2 from 'node:http2'
import net from 'node:net'
import type { Duplex } from 'node:stream'
import tls from 'node:tls'
import type { Test } from 'tap'

export const protocols = ['HTTP/1.1', 'TLS', 'HTTP/2'] as const
export type Protocol = (typeof protocols)[number]

export interface Asked {
  readonly method?: string
  readonly path: string
  /** In lower case. */
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Buffer
}

export interface Received {
  readonly status: number
  /** Names in lower case; several of a name joined by a line feed. */
  readonly headers: Record<string, string>
  readonly body: Buffer
  /** The response ended as the protocol says that it ends. */
  readonly whole: boolean
}

/** A request under way; `send` and `end` write its body, `leave` closes it. */
export interface Call {
  readonly send: (chunk: Buffer | string) => void
  readonly end: () => void
  readonly leave: () => void
  /** Body so far. */
  readonly body: () => Buffer
  readonly begun: Promise<Omit<Received, 'body' | 'whole'>>
  readonly response: Promise<Received>
}

/** The options of `listen` for a protocol. */
export function listenFor(protocol: Protocol, { cert, key }: { cert: string; key: string }): object {
  return protocol === 'HTTP/1.1' ? {} : { tls: { cert, key }, http2: protocol === 'HTTP/2' }
}

/** Begins a request. Without a body, and with `streams`, its body is the caller's to write. */
export function begin(t: Test, protocol: Protocol, port: number, asked: Asked & { streams?: boolean }): Call {
  return protocol === 'HTTP/2' ? beginHttp2(t, port, asked) : beginHttp1(t, protocol, port, asked)
}

export function ask(t: Test, protocol: Protocol, port: number, asked: Asked): Promise<Received> {
  return begin(t, protocol, port, asked).response
}

function beginHttp2(
  t: Test,
  port: number,
  { method = 'GET', path, headers, body, streams }: Asked & { streams?: boolean }
): Call {
  const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  session.on('error', () => {})
  t.teardown(() => session.destroy())
  const hasBody = body !== undefined || streams === true
  const stream = session.request(
    { ':method': method, ':path': path, ':authority': 'h', ...headers },
    { endStream: !hasBody }
  )
  stream.on('error', () => {})
  if (body !== undefined) stream.end(body)
  const chunks: Buffer[] = []
  let ended = false
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  stream.once('end', () => {
    ended = true
  })
  const begun = new Promise<Omit<Received, 'body' | 'whole'>>((resolve) => {
    stream.once('response', (fields) => {
      const named = Object.entries(fields).map(([name, value]) => [name, [value].flat().join('\n')])
      resolve({ status: Number(fields[':status']), headers: Object.fromEntries(named) as Record<string, string> })
    })
    stream.once('close', () => resolve({ status: 0, headers: {} }))
  })
  const response = new Promise<Received>((resolve) => {
    stream.once('close', () => {
      void begun.then((head) => resolve({ ...head, body: Buffer.concat(chunks), whole: ended && stream.rstCode === 0 }))
      session.close()
    })
  })
  return {
    send: (chunk) => void stream.write(chunk),
    end: () => void stream.end(),
    leave: () => stream.close(http2.constants.NGHTTP2_CANCEL),
    body: () => Buffer.concat(chunks),
    begun,
    response
  }
}

function beginHttp1(
  t: Test,
  protocol: Protocol,
  port: number,
  { method = 'GET', path, headers = {}, body, streams }: Asked & { streams?: boolean }
): Call {
  const socket: Duplex =
    protocol === 'TLS'
      ? tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false })
      : net.connect(port, '127.0.0.1')
  socket.on('error', () => {})
  t.teardown(() => socket.destroy())
  const framing =
    body !== undefined ? [`Content-Length: ${body.length}`] : streams === true ? ['Transfer-Encoding: chunked'] : []
  const lines = [...Object.entries({ host: 'h', ...headers }).map(([name, value]) => `${name}: ${value}`), ...framing]
  socket.write(`${method} ${path} HTTP/1.1\r\n${lines.join('\r\n')}\r\nConnection: close\r\n\r\n`, 'latin1')
  if (body !== undefined) socket.write(body)
  let received = Buffer.alloc(0)
  let onHead: (head: Omit<Received, 'body' | 'whole'>) => void = () => {}
  const begun = new Promise<Omit<Received, 'body' | 'whole'>>((resolve) => {
    onHead = resolve
  })
  const look = () => {
    const end = received.indexOf('\r\n\r\n')
    if (end !== -1) onHead(headOf(received.subarray(0, end).toString('latin1')))
  }
  socket.on('data', (chunk: Buffer) => {
    received = Buffer.concat([received, chunk])
    look()
  })
  const response = new Promise<Received>((resolve) => {
    socket.once('close', () => {
      onHead({ status: 0, headers: {} })
      void begun.then((head) => resolve({ ...head, ...bodyOf(method, head, received) }))
    })
  })
  return {
    send: (chunk) => {
      const bytes = Buffer.from(chunk)
      socket.write(Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')]))
    },
    end: () => void socket.write('0\r\n\r\n'),
    leave: () => socket.destroy(),
    body: () => bodyOf(method, headOf(received.toString('latin1').split('\r\n\r\n')[0]!), received).body,
    begun,
    response
  }
}

function headOf(text: string): Omit<Received, 'body' | 'whole'> {
  const [start = '', ...lines] = text.split('\r\n')
  const headers: Record<string, string> = {}
  for (const line of lines) {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon).toLowerCase()
    const value = line.slice(colon + 1).trim()
    headers[name] = headers[name] === undefined ? value : `${headers[name]}\n${value}`
  }
  return { status: Number(start.split(' ')[1]), headers }
}

/** The body of what was received, without chunk framing, and whether it is all there. */
function bodyOf(method: string, { headers, status }: Omit<Received, 'body' | 'whole'>, received: Buffer) {
  const end = received.indexOf('\r\n\r\n')
  const content = end === -1 ? Buffer.alloc(0) : received.subarray(end + 4)
  if (end === -1) return { body: content, whole: false }
  if (method === 'HEAD' || status === 204 || status === 304) return { body: content, whole: content.length === 0 }
  const length = headers['content-length']
  if (headers['transfer-encoding'] !== 'chunked') {
    return { body: content, whole: length === undefined || content.length === Number(length) }
  }
  const parts: Buffer[] = []
  for (let at = 0; ; ) {
    const line = content.indexOf('\r\n', at)
    if (line === -1) return { body: Buffer.concat(parts), whole: false }
    const size = Number.parseInt(content.subarray(at, line).toString('latin1'), 16)
    if (size === 0) return { body: Buffer.concat(parts), whole: true }
    parts.push(content.subarray(line + 2, line + 2 + size))
    at = line + 2 + size + 2
  }
}
