// Output of the service: responses of all framings, and faults.
import { createHash } from 'node:crypto'
import type { Response } from './messages.ts'
import { Fault, readResponse } from './messages.ts'
import { mutate } from './mutate.ts'
import type { Random } from './random.ts'
import { chunksOf } from './requests.ts'

export interface Plan {
  /** Responds after the header section, without waiting for the body. */
  early: boolean
  /** One character a byte. */
  bytes: string
  splits: { at: number; pauseMs: number }[]
  after: 'keep' | 'end' | 'reset'
  /** True if the response is valid and not slow. */
  sound: boolean
}

export interface Received {
  method: string
  token: string
  /** Marks every part of this exchange. */
  mark: string
  websocketKey: string | undefined
}

/** Longer than the gateway's timeouts for a service. */
export const tooLongMs = 1500

export function planFor(random: Random, received: Received, wild: boolean): Plan {
  const { text, closes } =
    received.websocketKey !== undefined && random.chance(0.8) ? switching(received) : response(random, received)
  const plan: Plan = {
    early: random.chance(0.05),
    bytes: text,
    splits: [],
    after: closes || random.chance(0.08) ? 'end' : 'keep',
    sound: true
  }
  if (wild && random.chance(0.6)) spoil(plan, random, received)
  const count = random.chance(0.6) ? 0 : random.size(6)
  for (let i = 0; i < count; i++) {
    plan.splits.push({ at: random.int(1, Math.max(1, plan.bytes.length - 1)), pauseMs: random.pick([0, 1, 5, 30]) })
  }
  plan.splits.sort((a, b) => a.at - b.at)
  return plan
}

const statuses = ['200 OK', '200 OK', '200 OK', '201 Created', '200', '202 \xe9', '302 Found', '404 Not Found', '429 Slow', '503 Busy', '599 Odd', '204 No Content', '304 Not Modified'] // biome-ignore format: a list
const interims = [
  'HTTP/1.1 100 Continue\r\n\r\n',
  'HTTP/1.1 102 Processing\r\n\r\n',
  'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n',
  'HTTP/1.1 103 Early Hints\r\nLink: nonsense\r\nX-A: \xe9\r\n\r\n',
  'HTTP/1.1 199 Odd\r\n\r\n'
]

/** Every part of the response that could be mixed up carries the exchange's mark. */
function response(random: Random, { method, token, mark }: Received): { text: string; closes: boolean } {
  const status = random.pick(statuses)
  const fields = [`X-Mark: ${mark}`, `X-Token-Back: ${token}`]
  const extra = [
    `Set-Cookie: a=${mark}`, `set-cookie: b=${mark}`, 'Server: x', 'X-Empty:', 'X-Latin: \xe9\xfc', 'Connection: x-hop\r\nX-Hop: 1',
    'Keep-Alive: timeout=60', 'Location: http://h/x', 'Date: Thu, 01 Jan 1970 00:00:00 GMT', 'Vary: *', 'X-Request-Id: service',
    'Proxy-Authenticate: Basic', 'Retry-After: 0', 'Upgrade: h2c', 'Content-Type: text/plain', 'Trailer: X-Sum'
  ] // biome-ignore format: a list
  for (let i = random.size(5); i > 0; i--) fields.push(random.pick(extra))
  const filler = () =>
    random.pick([
      mark,
      '\r\n',
      'HTTP/1.1 200 OK\r\n\r\n',
      '0\r\n\r\n',
      random.bytes(20),
      'y'.repeat(random.size(30_000))
    ])
  const content = `[${mark}]${Array.from({ length: random.size(12) }, filler).join('')}`
  let text = ''
  for (let count = random.chance(0.15) ? random.size(8) : 0; count > 0; count--) text += random.pick(interims)
  const bodiless = method === 'HEAD' || /^(204|304)/.test(status)
  const framing = random.pick(['sized', 'sized', 'chunked', 'chunked', 'close', 'empty'] as const)
  let body = ''
  if (framing === 'sized' && !status.startsWith('204')) {
    fields.push(`Content-Length: ${content.length}`)
    body = content
  } else if (framing === 'chunked' && !status.startsWith('204')) {
    fields.push('Transfer-Encoding: chunked')
    body = chunksOf(random, content)
  } else if (framing === 'close') {
    fields.push(...(random.chance(0.5) ? ['Connection: close'] : []))
    body = content
  } else if (!bodiless) fields.push('Content-Length: 0')
  const version = framing !== 'chunked' && random.chance(0.05) ? '1.0' : '1.1'
  text += `HTTP/${version} ${status}\r\n${fields.join('\r\n')}\r\n\r\n${bodiless ? '' : body}`
  return { text, closes: version === '1.0' || (framing === 'close' && !bodiless) }
}

function switching({ websocketKey, mark }: Received): { text: string; closes: boolean } {
  const accept = createHash('sha1').update(`${websocketKey}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
  const fields = ['Upgrade: websocket', 'Connection: Upgrade', `Sec-WebSocket-Accept: ${accept}`, `X-Mark: ${mark}`]
  const frame = `\x81${String.fromCharCode(mark.length)}${mark}`
  return { text: `HTTP/1.1 101 Switching Protocols\r\n${fields.join('\r\n')}\r\n\r\n${frame}`, closes: false }
}

const lines = [
  'Content-Length: 0', 'Content-Length: 3', 'Content-Length: 99999', 'Content-Length: +3', 'Content-Length: 3, 3', 'Content-Length: -1',
  'Content-Length:', 'Content-Length: 1e3', 'Transfer-Encoding: chunked', 'Transfer-Encoding: identity', 'Transfer-Encoding: gzip, chunked',
  'Transfer-Encoding : chunked', 'Transfer-Encoding: chunked, chunked', 'Transfer-Encoding:\x0bchunked', ' folded', ': nameless', 'nocolon',
  'X: \0', 'X\xe9: 1', 'X: a\rb', 'X: a\nb', 'X: \x7f', 'X: \x01', 'Connection: close', 'Connection: content-length', 'Connection: set-cookie, x-mark',
  'Upgrade: websocket', 'Connection: upgrade', 'Set-Cookie: \x7f', '__proto__: 1', 'Location: http://[', 'Location: //', 'Content-Length: 18446744073709551616',
  'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked', 'X-Request-Id: a\x00b', 'Via: \xff', 'Proxy-Status: x', 'Retry-After: 999999999'
] // biome-ignore format: a list

const faults: ((plan: Plan, random: Random, received: Received) => void)[] = [
  (plan, random) => {
    plan.bytes = mutate(plan.bytes, random, lines)
    if (random.chance(0.5)) plan.after = 'end'
  },
  (plan, random) => {
    plan.bytes = mutate(plan.bytes, random, lines)
  },
  (plan, random) => {
    plan.bytes = plan.bytes.slice(0, random.int(0, plan.bytes.length))
    plan.after = random.pick(['end', 'end', 'reset'])
  },
  (plan, random) => {
    plan.bytes = ''
    plan.after = random.pick(['end', 'reset'])
  },
  (plan, random) => {
    // Bytes after the end; another response, which the next request might get.
    plan.bytes += random.pick([
      '\r\n',
      'x',
      'HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Stray: 1\r\n\r\nstray!',
      'HTTP/1.1 100 Continue\r\n\r\n',
      random.bytes(50),
      'HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n'
    ])
  },
  (plan, random, { mark }) => {
    plan.bytes = `HTTP/1.1 200 OK\r\nX-Mark: ${mark}\r\nX-Big: ${'b'.repeat(random.int(10_000, 60_000))}\r\nContent-Length: 0\r\n\r\n`
  },
  (plan, random, { mark }) => {
    plan.bytes = `HTTP/1.1 200 OK\r\nX-Mark: ${mark}\r\n${'A: b\r\n'.repeat(random.int(500, 4000))}Content-Length: 0\r\n\r\n`
  },
  (plan) => {
    plan.bytes = 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'.repeat(200) + plan.bytes
  },
  (plan, _random, { mark }) => {
    plan.bytes = `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Mark: ${mark}\r\n\r\n${mark}`
  },
  (plan, random) => {
    if (random.chance(0.8)) return
    plan.splits.push({ at: random.int(0, Math.max(0, plan.bytes.length - 1)), pauseMs: tooLongMs })
  },
  (plan) => {
    plan.after = 'reset'
  },
  (plan) => {
    plan.early = true
    plan.after = 'end'
  }
]

function spoil(plan: Plan, random: Random, received: Received): void {
  plan.sound = false
  for (let count = random.chance(0.8) ? 1 : 2; count > 0; count--) random.pick(faults)(plan, random, received)
}

/** Returns the final response of a plan as a strict reader understands it, or null if it has none. */
export function readPlan({ bytes, after }: Plan, method: string): Response | null {
  try {
    for (let at = 0; ; ) {
      const response = readResponse(bytes, at, method, after === 'end', { extensions: true })
      if (response === null) return null
      if (response.status >= 200 || response.status === 101) return response
      at = response.end
    }
  } catch (error) {
    if (error instanceof Fault) return null
    throw error
  }
}
