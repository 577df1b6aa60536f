/**
 * One query to a DNS server, over UDP, then over TCP if the response was truncated. Node's own resolver has no TTL for
 * SRV records, and the system's cannot use a different server per service.
 */
import { randomInt } from 'node:crypto'
import dgram from 'node:dgram'
import { connect, isIPv6 } from 'node:net'
import type { Answer, DecodedPacket, Packet } from 'dns-packet'
import { onFirstUse } from '../../../on-first-use.ts'
import { asError } from '../../../thrown.ts'

export interface Server {
  readonly host: string
  readonly port: number
}
type RecordType = 'A' | 'AAAA' | 'SRV'
export interface Reply {
  readonly code: string
  readonly answers: readonly Answer[]
  readonly additionals: readonly Answer[]
}
export const packets = onFirstUse<typeof import('dns-packet')>('dns-packet')

type Accept = (message: Buffer) => Reply | 'truncated' | null
type Finish = (error: Error | null, reply?: Reply | 'truncated') => void

const TIMEOUT = 2000
const ROUNDS = 2
/** UDP payload size that fits any path without fragmentation (DNS flag day 2020). */
const UDP_SIZE = 1232

/** Parses `ip`, `ip:port` or `[ip]:port`. */
export function parseServer(text: string): Server {
  if (isIPv6(text)) return { host: text, port: 53 }
  const { hostname, port } = new URL(`dns://${text}`)
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 53) }
}

/** Queries one server after the other, twice; resolves with a response or NXDOMAIN, rejects with the last failure. */
export async function query(
  name: string,
  type: RecordType,
  servers: readonly Server[],
  signal: AbortSignal
): Promise<Reply> {
  let failure = new Error('no DNS server is configured')
  for (let round = 0; round < ROUNDS; round++) {
    for (const server of servers) {
      try {
        const reply = await askServer(name, type, server, signal)
        if (reply.code === 'NOERROR' || reply.code === 'NXDOMAIN') return reply
        failure = new Error(`DNS server ${server.host}:${server.port} responded with ${reply.code} for ${type} ${name}`)
      } catch (error) {
        signal.throwIfAborted()
        failure = asError(error)
      }
    }
  }
  throw failure
}

async function askServer(name: string, type: RecordType, server: Server, signal: AbortSignal): Promise<Reply> {
  const ask = async (extended: boolean): Promise<Reply> => {
    const packet = questionOf(name, type, extended)
    let size = 0
    const reply = await overUdp(
      server,
      packets().encode(packet),
      (message) => {
        size = message.length
        return accept(message, packet)
      },
      signal
    )
    if (reply === 'truncated') return overTcp(server, packet, signal)
    // By default Consul truncates long responses without the TC flag, so repeat the query if the response is nearly
    // full.
    if (size > UDP_SIZE * 0.75) return overTcp(server, packet, signal).catch(() => reply)
    return reply
  }
  const reply = await ask(true)
  // Old servers do not support EDNS.
  return reply.code === 'FORMERR' || reply.code === 'NOTIMP' ? ask(false) : reply
}

function questionOf(name: string, type: RecordType, extended: boolean): Packet {
  const packet: Packet = {
    type: 'query',
    id: randomInt(0x10000), // unpredictable, so not from the injected randomness
    flags: packets().RECURSION_DESIRED,
    questions: [{ type, name: bare(name), class: 'IN' }]
  }
  if (!extended) return packet
  const option = {
    type: 'OPT',
    name: '.',
    udpPayloadSize: UDP_SIZE,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: 0
  } as const
  return { ...packet, additionals: [{ ...option, flag_do: false, options: [] }] }
}

/** Parses a response; null if it is not for this query: it may be forged, so the wait for the true one continues. */
function accept(message: Buffer, asked: Packet): Reply | 'truncated' | null {
  if (message.length < 12 || message.readUInt16BE(0) !== asked.id || (message[2] ?? 0) < 0x80) return null
  const truncated = ((message[2] ?? 0) & 0x02) !== 0
  let packet: DecodedPacket & { rcode?: string }
  try {
    packet = packets().decode(message)
  } catch {
    return truncated ? 'truncated' : null
  }
  const [question] = packet.questions ?? []
  const [ours] = asked.questions ?? []
  if (!question || !ours || question.type !== ours.type || bare(question.name) !== bare(ours.name)) return null
  if (truncated) return 'truncated'
  return { code: packet.rcode ?? 'NOERROR', answers: packet.answers ?? [], additionals: packet.additionals ?? [] }
}

function overUdp(
  { host, port }: Server,
  message: Buffer,
  read: Accept,
  signal: AbortSignal
): Promise<Reply | 'truncated'> {
  return within(`${host}:${port} over UDP`, signal, (finish) => {
    const socket = dgram.createSocket(isIPv6(host) ? 'udp6' : 'udp4')
    socket.on('error', finish)
    socket.on('connect', () => socket.send(message))
    socket.on('message', (received) => {
      const reply = read(received)
      if (reply) finish(null, reply)
    })
    // With a connected socket the kernel drops datagrams from other sources, and reports a closed port.
    socket.connect(port, host)
    return () => socket.close()
  })
}

async function overTcp({ host, port }: Server, asked: Packet, signal: AbortSignal): Promise<Reply> {
  const reply = await within(`${host}:${port} over TCP`, signal, (finish) => {
    const socket = connect(port, host, () => socket.write(packets().streamEncode(asked)))
    let received: Buffer = Buffer.alloc(0)
    socket.on('error', finish)
    socket.on('close', () => finish(new Error('the DNS server closed the connection')))
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk])
      if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return
      const reply = accept(received.subarray(2, 2 + received.readUInt16BE(0)), asked)
      finish(reply ? null : new Error('the response of the DNS server is not for this query'), reply ?? undefined)
    })
    return () => socket.destroy()
  })
  if (reply === 'truncated') throw new Error(`DNS server ${host}:${port} truncated its response over TCP`)
  return reply
}

/** Runs `begin` with a timeout; closes everything that it opened when it settles, times out or is aborted. */
function within(
  what: string,
  signal: AbortSignal,
  begin: (finish: Finish) => () => void
): Promise<Reply | 'truncated'> {
  return new Promise((resolve, reject) => {
    let over = signal.aborted
    if (over) return reject(signal.reason)
    let close = () => {}
    const finish: Finish = (error, reply) => {
      if (over) return
      over = true
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
      close()
      if (reply) resolve(reply)
      else reject(error ?? new Error('no response'))
    }
    const onAbort = () => finish(new Error('closed'))
    const timer = setTimeout(
      () => finish(new Error(`no response from DNS server ${what} within ${TIMEOUT} ms`)),
      TIMEOUT
    )
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      close = begin(finish)
    } catch (error) {
      finish(asError(error))
    }
  })
}

/** Normalizes a name for comparison: lower case, without the final dot. */
export const bare = (name: string): string => name.replace(/\.$/, '').toLowerCase()
