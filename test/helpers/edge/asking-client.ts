// A client that asks for one response over HTTP/1.1, TLS or HTTP/2, and shows all of it. Over HTTP/1.1 it reads the bytes
// by itself, so that no client repairs or hides what is wrong with them.
import http2 from 'node:http2'
import net from 'node:net'
import tls from 'node:tls'
import type { Test } from 'tap'
import { selfSigned } from '../self-signed.ts'

export const protocols = ['HTTP/1.1', 'TLS', 'HTTP/2'] as const
export type Protocol = (typeof protocols)[number]

/** The `listen` of a gateway that speaks the protocol. */
export function listenFor(t: Test, protocol: Protocol): object {
  return protocol === 'HTTP/1.1' ? {} : { tls: selfSigned(t), http2: protocol === 'HTTP/2' }
}

type Fields = Record<string, string | string[] | undefined>

interface HeaderSection {
  /** 0 where there was no response. */
  status: number
  headers: Fields
}

export interface Received extends HeaderSection {
  trailers: Fields
  /** Informational responses. */
  hints: number[]
  body: Buffer
  /** True if the response is complete, without excess bytes and without an error. */
  isWhole: boolean
}

export interface AskOptions {
  method?: string
  headers?: Record<string, string>
  body?: string | Buffer
}

/** A request in flight. */
export interface Call {
  /** Writes a chunk of the body; only with `streams`. */
  send(chunk: string | Buffer): void
  end(): void
  /** Aborts the request; resolves once the connection, or the stream, is closed. */
  leave(): Promise<void>
  /** Body so far. */
  body(): Buffer
  /** Resolves with the header section, or at the end if there is none. */
  readonly begun: Promise<HeaderSection>
  /** Resolves at the first byte of the body. */
  readonly data: Promise<void>
  /** Resolves at the end of the connection, or the stream, with a response or without. */
  readonly response: Promise<Received>
}

export interface AnyClient {
  /** Begins a request. With `streams`, the caller writes its body. */
  begin(path: string, options?: AskOptions & { streams?: boolean }): Call
  /** Rejects where there is no response over HTTP/1.1. */
  ask(path: string, options?: AskOptions): Promise<Received>
  /** Sends a request, and aborts it when `when` resolves; resolves once its connection is closed. */
  leave(path: string, when: (sign: Signs) => Promise<unknown>, options?: AskOptions): Promise<void>
}

/** Points in the life of a response. */
export interface Signs {
  readonly response: Promise<unknown>
  readonly data: Promise<void>
}

/** A client whose connections end with the test. `own`: its certificate and key. */
export function anyClient(t: Test, protocol: Protocol, port: number, own: tls.SecureContextOptions = {}): AnyClient {
  const begin = protocol === 'HTTP/2' ? overHttp2(t, port, own) : overHttp1(t, protocol === 'TLS', port, own)
  return {
    begin,
    async ask(path, options) {
      const received = await begin(path, options).response
      if (received.status === 0 && protocol !== 'HTTP/2')
        throw new Error('the connection was closed without a response')
      return received
    },
    async leave(path, when, options) {
      const { begun, data, leave } = begin(path, options)
      await when({ response: begun, data })
      await leave()
    }
  }
}

function overHttp2(t: Test, port: number, own: tls.SecureContextOptions): AnyClient['begin'] {
  const session = http2.connect(`https://127.0.0.1:${port}`, { ...own, rejectUnauthorized: false })
  session.on('error', () => {})
  t.teardown(() => session.destroy())
  return (path, { method = 'GET', headers = {}, body, streams = false } = {}) => {
    const fields = { ':path': path, ':method': method, ...headers }
    const stream = session.request(fields, { endStream: body === undefined && !streams })
    stream.on('error', () => {})
    if (body !== undefined) stream.end(body)
    const hints: number[] = []
    const chunks: Buffer[] = []
    const begun = Promise.withResolvers<HeaderSection>()
    const data = Promise.withResolvers<void>()
    let headerSection: HeaderSection = { status: 0, headers: {} }
    let trailers: Fields = {}
    let ended = false
    stream.on('headers', ({ ':status': status }) => hints.push(Number(status)))
    stream.on('response', (given) => {
      headerSection = { status: Number(given[':status']), headers: given }
      begun.resolve(headerSection)
    })
    stream.on('trailers', (given) => {
      trailers = given
    })
    stream.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      data.resolve()
    })
    stream.on('end', () => {
      ended = true
    })
    const closed = new Promise<void>((resolve) => stream.once('close', resolve))
    const response = closed.then(() => {
      begun.resolve(headerSection)
      const isWhole = ended && stream.rstCode === http2.constants.NGHTTP2_NO_ERROR
      return { ...headerSection, trailers, hints, body: Buffer.concat(chunks), isWhole }
    })
    return {
      send: (chunk) => void stream.write(chunk),
      end: () => void stream.end(),
      leave: () => {
        // By a RST_STREAM alone. `close` would end the body first, so that the request is complete.
        stream.destroy(new Error('left'))
        return closed
      },
      body: () => Buffer.concat(chunks),
      begun: begun.promise,
      data: data.promise,
      response
    }
  }
}

function overHttp1(t: Test, isTls: boolean, port: number, own: tls.SecureContextOptions): AnyClient['begin'] {
  return (path, { method = 'GET', headers = {}, body, streams = false } = {}) => {
    const at = { port, host: '127.0.0.1' }
    const socket: net.Socket = isTls ? tls.connect({ ...own, ...at, rejectUnauthorized: false }) : net.connect(at)
    t.teardown(() => socket.destroy())
    let failed = false
    socket.on('error', () => {
      failed = true
    })
    const framing = streams ? { 'transfer-encoding': 'chunked' } : body && { 'content-length': Buffer.byteLength(body) }
    const fields = { host: `127.0.0.1:${port}`, connection: 'close', ...headers, ...framing }
    const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`)
    socket.write(`${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n`, 'latin1')
    if (body !== undefined) socket.write(body)
    const parser = new Parser(method)
    let hasData = false
    const begun = Promise.withResolvers<HeaderSection>()
    const data = Promise.withResolvers<void>()
    socket.on('data', (chunk: Buffer) => {
      parser.add(chunk)
      if (parser.headerSection === null || hasData) return
      begun.resolve(parser.headerSection)
      hasData = parser.read().body.length > 0
      if (hasData) data.resolve()
    })
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
    const response = closed.then(() => {
      const headerSection = parser.headerSection ?? { status: 0, headers: {} }
      begun.resolve(headerSection)
      const { isWhole, ...content } = parser.read()
      return { ...headerSection, hints: parser.hints, ...content, isWhole: isWhole && !failed }
    })
    return {
      send: (chunk) => {
        const bytes = Buffer.from(chunk)
        socket.write(Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')]))
      },
      end: () => void socket.write('0\r\n\r\n'),
      leave: () => {
        socket.destroy()
        return closed
      },
      body: () => parser.read().body,
      begun: begun.promise,
      data: data.promise,
      response
    }
  }
}

/** Reads one HTTP/1.1 response. */
class Parser {
  readonly hints: number[] = []
  headerSection: HeaderSection | null = null
  readonly #method: string
  /** Bytes after the header sections that were read. */
  #chunks: Buffer[] = []

  constructor(method: string) {
    this.#method = method
  }

  add(chunk: Buffer): void {
    this.#chunks.push(chunk)
    while (this.headerSection === null) {
      const text = this.#rest()
      const end = text.indexOf('\r\n\r\n')
      if (end === -1) return
      const [start = '', ...lines] = text.subarray(0, end).toString('latin1').split('\r\n')
      const status = Number(start.split(' ')[1])
      this.#chunks = [text.subarray(end + 4)]
      if (status < 200) this.hints.push(status)
      else this.headerSection = { status, headers: fieldsOf(lines) }
    }
  }

  #rest(): Buffer {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)]
    return this.#chunks[0] ?? Buffer.alloc(0)
  }

  /** Returns the body so far without its framing, and true if it is complete. */
  read(): Pick<Received, 'body' | 'isWhole' | 'trailers'> {
    const content = this.#rest()
    if (this.headerSection === null) return { body: Buffer.alloc(0), isWhole: false, trailers: {} }
    const { status, headers } = this.headerSection
    const hasNone = this.#method === 'HEAD' || status === 204 || status === 304
    if (hasNone) return { body: content, isWhole: content.length === 0, trailers: {} }
    if (headers['transfer-encoding'] === 'chunked') return unchunked(content)
    const length = headers['content-length']
    return { body: content, isWhole: length === undefined || content.length === Number(length), trailers: {} }
  }
}

function unchunked(content: Buffer): Pick<Received, 'body' | 'isWhole' | 'trailers'> {
  const parts: Buffer[] = []
  for (let at = 0; ; ) {
    const line = content.indexOf('\r\n', at)
    const size = Number.parseInt(content.subarray(at, line).toString('latin1'), 16)
    if (line === -1) return { body: Buffer.concat(parts), isWhole: false, trailers: {} }
    if (size === 0) {
      const lines = content
        .subarray(line + 2)
        .toString('latin1')
        .split('\r\n')
      // An empty line ends the trailer section and the response.
      const isWhole = lines.length > 1 && lines.indexOf('') === lines.length - 2
      return { body: Buffer.concat(parts), isWhole, trailers: fieldsOf(lines) }
    }
    parts.push(content.subarray(line + 2, line + 2 + size))
    at = line + 2 + size + 2
  }
}

/** Returns headers as Node does: `set-cookie` is a list, other repeated fields are joined. */
function fieldsOf(lines: readonly string[]): Fields {
  const fields = new Map<string, string | string[]>()
  for (const line of lines) {
    const colon = line.indexOf(':')
    if (colon === -1) continue
    const name = line.slice(0, colon).toLowerCase()
    const value = line.slice(colon + 1).trim()
    const before = fields.get(name)
    if (name === 'set-cookie') fields.set(name, [before ?? [], value].flat())
    else fields.set(name, before === undefined ? value : `${before as string}, ${value}`)
  }
  return Object.fromEntries(fields)
}
