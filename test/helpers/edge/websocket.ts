// WebSocket by hand, frame by frame: a service, and a client that sends arbitrary frames.
import { createHash, randomBytes } from 'node:crypto'
import type { IncomingMessage, RequestListener } from 'node:http'
import http from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import net from 'node:net'
import { eventually } from '../eventually.ts'

export const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const

export interface Frame {
  fin: boolean
  opcode: number
  masked: boolean
  payload: Buffer
}

export function encode(opcode: number, payload: Buffer | string, { masked = false, fin = true } = {}): Buffer {
  const body = Buffer.from(payload)
  const { length } = body
  const header = Buffer.alloc(length < 126 ? 2 : length < 65536 ? 4 : 10)
  header[0] = (fin ? 0x80 : 0) | opcode
  header[1] = (masked ? 0x80 : 0) | (length < 126 ? length : length < 65536 ? 126 : 127)
  if (header.length === 4) header.writeUInt16BE(length, 2)
  if (header.length === 10) header.writeBigUInt64BE(BigInt(length), 2)
  if (!masked) return Buffer.concat([header, body])
  const key = randomBytes(4)
  for (let i = 0; i < length; i++) body[i]! ^= key[i % 4]!
  return Buffer.concat([header, key, body])
}

/** The status code of a close frame. */
export const codeOf = ({ payload }: Frame): number => payload.readUInt16BE(0)

/** One end of a WebSocket. */
export class Peer {
  readonly socket: Socket
  readonly frames: Frame[] = []
  onFrame: (frame: Frame) => void = () => {}
  over = false
  ended = false
  readonly #masks: boolean
  #rest: Buffer = Buffer.alloc(0)

  constructor(socket: Socket, masks: boolean, firstBytes: Buffer) {
    this.socket = socket
    this.#masks = masks
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => this.#read(chunk))
    socket.once('end', () => {
      this.ended = true
    })
    socket.once('close', () => {
      this.over = true
    })
    if (firstBytes.length > 0) process.nextTick(() => this.#read(firstBytes))
  }

  send(opcode: number, payload: Buffer | string = '', fin = true): boolean {
    return this.socket.write(encode(opcode, payload, { masked: this.#masks, fin }))
  }

  close(code: number): void {
    this.send(opcodes.close, Buffer.from([code >> 8, code & 0xff]))
  }

  /** Resolves with the frame of this number once it has arrived. */
  async frame(index: number): Promise<Frame> {
    await eventually(() => this.frames.length > index || this.over)
    const frame = this.frames[index]
    if (frame === undefined) throw new Error(`closed after ${this.frames.length} frames`)
    return frame
  }

  async closed(): Promise<void> {
    await eventually(() => this.over)
  }

  #read(chunk: Buffer): void {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    for (;;) {
      const rest = this.#rest
      if (rest.length < 2) return
      const masked = (rest[1]! & 0x80) !== 0
      const short = rest[1]! & 0x7f
      const at = 2 + (short === 126 ? 2 : short === 127 ? 8 : 0)
      if (rest.length < at) return
      const length = short === 126 ? rest.readUInt16BE(2) : short === 127 ? Number(rest.readBigUInt64BE(2)) : short
      const begin = at + (masked ? 4 : 0)
      if (rest.length < begin + length) return
      const payload = Buffer.from(rest.subarray(begin, begin + length))
      if (masked) for (let i = 0; i < length; i++) payload[i]! ^= rest[at + (i % 4)]!
      this.#rest = rest.subarray(begin + length)
      const frame = { fin: rest[0]! >= 0x80, opcode: rest[0]! & 0x0f, masked, payload }
      this.frames.push(frame)
      this.onFrame(frame)
    }
  }
}

export interface WebSocketService {
  url: string
  /** Handshakes received; `peers` are the service's ends of the WebSockets. */
  requests: IncomingMessage[]
  peers: Peer[]
  close: () => Promise<void>
}

export interface ServiceOptions {
  /** Called with each WebSocket. */
  onPeer?: (peer: Peer) => void
  /** Bytes to send instead of the 101. */
  onUpgrade?: (request: IncomingMessage, socket: Socket) => void
  onRequest?: RequestListener
  /** Bytes to send in one write with the 101. */
  greeting?: Buffer
}

export async function startWebSocketService(options: ServiceOptions = {}): Promise<WebSocketService> {
  const requests: IncomingMessage[] = []
  const peers: Peer[] = []
  const sockets = new Set<Socket>()
  const server = http.createServer(options.onRequest ?? ((_request, response) => response.end('http')))
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  server.on('upgrade', (request: IncomingMessage, socket: Socket, firstBytes: Buffer) => {
    requests.push(request)
    if (options.onUpgrade !== undefined) {
      socket.on('error', () => {})
      options.onUpgrade(request, socket)
      return
    }
    const peer = new Peer(socket, false, firstBytes)
    peers.push(peer)
    socket.write(Buffer.concat([Buffer.from(accept(request)), options.greeting ?? Buffer.alloc(0)]))
    socket.once('end', () => socket.end())
    options.onPeer?.(peer)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve())
      for (const socket of sockets) socket.destroy()
    })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests, peers, close }
}

/** Returns the 101 of RFC 6455, 4.2.2, with the last of the subprotocols. */
export function accept({ headers }: IncomingMessage): string {
  const key = `${headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`
  const protocol = headers['sec-websocket-protocol']?.split(',').at(-1)?.trim()
  return [
    'HTTP/1.1 101 Switching Protocols',
    'Upgrade: websocket',
    'Connection: Upgrade, X-Hop',
    'X-Hop: 1',
    'X-Service: yes',
    `Sec-WebSocket-Accept: ${createHash('sha1').update(key).digest('base64')}`,
    ...(protocol === undefined ? [] : [`Sec-WebSocket-Protocol: ${protocol}`]),
    '\r\n'
  ].join('\r\n')
}

/** Echoes data frames and a close frame, and responds to a ping with a pong. Ends the connection after the close frame. */
export function echo(peer: Peer): void {
  peer.onFrame = ({ opcode, payload, fin }) => {
    peer.send(opcode === opcodes.ping ? opcodes.pong : opcode, payload, fin)
    if (opcode === opcodes.close) peer.socket.end()
  }
}

export const handshake = (path = '/ws', more: string[] = [], method = 'GET'): string =>
  [
    `${method} ${path} HTTP/1.1`,
    'Host: h',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ...more,
    '\r\n'
  ].join('\r\n')

export interface Opened {
  headerSection: string
  peer: Peer
}

/** Sends a client's handshake; resolves with the 101's header section and the client's end of the WebSocket. */
export async function open(
  port: number,
  path?: string,
  more?: string[],
  early: Buffer = Buffer.alloc(0)
): Promise<Opened> {
  const socket = net.connect(port, '127.0.0.1')
  socket.write(Buffer.concat([Buffer.from(handshake(path, more)), early]))
  let seen: Buffer = Buffer.alloc(0)
  const end = await new Promise<number>((resolve, reject) => {
    const read = (chunk: Buffer) => {
      seen = Buffer.concat([seen, chunk])
      const at = seen.indexOf('\r\n\r\n')
      if (at < 0) return
      socket.off('data', read).off('close', gone).off('error', reject)
      resolve(at + 4)
    }
    const gone = () => reject(new Error(`closed within the handshake: ${seen.toString()}`))
    socket.on('data', read).once('close', gone).once('error', reject)
  })
  const headerSection = seen.subarray(0, end).toString('latin1')
  if (!headerSection.startsWith('HTTP/1.1 101 ')) {
    socket.destroy()
    throw new Error(headerSection)
  }
  return { headerSection, peer: new Peer(socket, true, seen.subarray(end)) }
}
