// Input of the clients: connections of valid requests of all kinds, and of mutated ones.

import type { Request } from './messages.ts'
import { Fault, headerValue, readRequest } from './messages.ts'
import { mutate } from './mutate.ts'
import { hash, Random } from './random.ts'

/** One client connection. */
export interface Case {
  number: number
  /** Part of all tokens of this connection, and of no other. */
  key: string
  /** The requests, one character a byte. */
  segments: string[]
  mutated: boolean
  /** Sends the next request only after the response to the one before. */
  sequential: boolean
  /** Offsets at which a write ends, and a pause of so many milliseconds follows. */
  splits: { at: number; pauseMs: number }[]
  /** When the client closes: after the last response; after the gateway has closed; after its last byte; within its bytes. */
  leave: 'responded' | 'closed' | 'end' | 'reset'
  resetAt: number
}

export const tokens = /t([0-9a-f]{8})n\d+/g

export function makeCase(seed: string, number: number): Case {
  const random = new Random(seed, 'case', number)
  const key = hash(`${seed} ${number}`).toString(16).padStart(8, '0')
  const count = 1 + random.size(7)
  const segments = Array.from({ length: count }, (_, index) => request(random, `t${key}n${index}`))
  if (random.chance(0.08)) segments.push(handshake(random, `t${key}n${count}`))
  const mutated = random.chance(0.6)
  if (mutated) {
    for (let times = random.chance(0.7) ? 1 : random.int(2, 4); times > 0; times--) {
      const index = random.int(0, segments.length - 1)
      segments[index] = random.chance(0.1)
        ? random.pick(smuggling)(`t${key}n9${index}`)
        : mutate(segments[index]!, random, lines)
    }
  }
  if (random.chance(0.05)) {
    // Last and unchanged, since Node drops bytes that arrive in one packet after an ignored Upgrade.
    const ignored = `HTTP/1.1\r\n${random.pick(upgrades)}\r\n`
    segments.push(request(random, `t${key}n${count + 1}`).replace('HTTP/1.1\r\n', () => ignored))
  }
  const length = segments.reduce((sum, text) => sum + text.length, 0)
  const splits = Array.from({ length: random.chance(0.5) ? 0 : random.size(12) }, () => ({
    at: random.int(1, Math.max(1, length - 1)),
    pauseMs: random.pick([0, 0, 1, 5, 20])
  })).sort((a, b) => a.at - b.at)
  const leave = random.pick([
    'responded',
    'responded',
    'responded',
    'responded',
    'responded',
    'closed',
    'end',
    'reset'
  ] as const)
  return {
    number, key, segments, mutated, splits, leave,
    sequential: random.chance(0.4), resetAt: random.int(0, length)
  } // biome-ignore format: a list
}

const prefixes = ['/ok', '/ok', '/wild', '/wild', '/wild', '/wild', '/retry', '/retry', '/limit', '/strip', '/none']
const suffixes = [
  '', '', '', '/', '?', '?a=1?b=2', '/%41%20b', '//x', ';p=1', '/\xe9\xfc', '?q=%2F..%5c', '/a+b', '/*', '/:x', "/'()!$&,=@",
  '/..', '/%2e%2e/x', '/%2F', '/\\', '#f', '?\xff', '/%zz', '?%'
] // biome-ignore format: a list
const methods = [
  'GET',
  'GET',
  'GET',
  'GET',
  'POST',
  'POST',
  'POST',
  'PUT',
  'HEAD',
  'DELETE',
  'OPTIONS',
  'PATCH',
  'TRACE'
]

function request(random: Random, token: string): string {
  const method = random.pick(methods)
  const path = `${random.pick(prefixes)}/${token}${random.pick(suffixes)}${random.chance(0.01) ? 'l'.repeat(9000) : ''}`
  const host = random.pick(['h', 'h', 'h:80', '[::1]', 'H.example.com'])
  const target = random.chance(0.04)
    ? `http://${host}${path}`
    : random.chance(0.01) && method === 'OPTIONS'
      ? '*'
      : path
  const version = random.chance(0.06) ? '1.0' : '1.1'
  const fields = [`Host: ${host}`, `X-Token: ${token}`, ...headers(random, token)]
  if (random.chance(0.7)) fields.push(`x-request-id: ${token}`)
  let body = ''
  if (method === 'TRACE' ? random.chance(0.1) : random.chance(/POST|PUT|PATCH/.test(method) ? 0.85 : 0.08)) {
    const content = contentOf(random, token)
    if (random.chance(0.15)) fields.push('Expect: 100-continue')
    if (version === '1.1' && random.chance(0.5)) {
      fields.push(
        random.pick(['Transfer-Encoding: chunked', 'transfer-encoding:Chunked', 'TRANSFER-ENCODING:  chunked '])
      )
      body = chunksOf(random, content, sentTrailers)
    } else {
      fields.push(`Content-Length: ${content.length}`)
      body = content
    }
  }
  if (random.chance(0.3)) fields.sort(() => random.next() - 0.5)
  const lead = random.chance(0.02) ? '\r\n' : ''
  return `${lead}${method} ${target} HTTP/${version}\r\n${fields.join('\r\n')}\r\n\r\n${body}`
}

const extras: ((token: string, random: Random) => string)[] = [
  () => 'Accept: */*',
  () => 'X-Latin: \xe9\xff',
  () => 'X-Empty:',
  () => 'X-Blank:   \t ',
  (token) => `Cookie: a=${token}`,
  (token) => `cookie: b=${token}; c=1`,
  (_token, random) => `X-Long: ${'x'.repeat(random.size(20_000))}`,
  (_token, random) =>
    `Connection: ${random.pick(['keep-alive', 'close', 'Keep-Alive', 'x-hop', 'close, x-hop', 'x-hop,,keep-alive'])}`,
  () => 'X-Hop: 1',
  () => 'TE: trailers',
  () => 'TE: trailers, deflate;q=0.5',
  () => 'Keep-Alive: timeout=5',
  () => 'Proxy-Connection: keep-alive',
  (_token, random) => `Max-Forwards: ${random.pick(['0', '1', '10', 'x', '-1'])}`,
  () => 'X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4',
  () => 'Via: 1.1 other, 1.0 more',
  (_token, random) =>
    `Content-Type: ${random.pick(['text/plain', 'application/json', 'nonsense', 'a/b; c="d\\"', ''])}`,
  () => 'Content_Length: 5',
  () => 'Trailer: X-Sum',
  () => 'Range: bytes=0-1',
  () => 'If-None-Match: "a"'
]

const upgrades = [
  'Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA',
  'Connection: upgrade\r\nUpgrade: TLS/1.0'
]

function headers(random: Random, token: string): string[] {
  return Array.from({ length: random.size(6) }, () => random.pick(extras)(token, random))
}

/** Bodies that look like other syntax elements, for which they must not be mistaken. */
function contentOf(random: Random, token: string): string {
  const parts = Array.from({ length: random.size(6) }, () =>
    random.pick([
      () => token.repeat(1 + random.size(50)),
      () => random.bytes(random.size(300)),
      () => `GET /ok/${token}99 HTTP/1.1\r\nHost: h\r\n\r\n`,
      () => '0\r\n\r\n',
      () => '\r\n',
      () => 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n',
      () => 'z'.repeat(random.size(40_000))
    ])()
  )
  return parts.join('')
}

const trailers = ['X-Sum: 7\r\n', 'X-A: 1\r\nX-B:\r\n']
/** Trailer fields, including ones that are only allowed in a header section. */
const sentTrailers = [
  ...trailers,
  ...trailers,
  'x-sum: a\r\nX-SUM:  b \r\n',
  'X-A: \xe9\xff\r\n',
  'X-Hop: 2\r\nX-B: 1\r\n',
  'Host: evil\r\nX-A: 1\r\nContent-Encoding: gzip\r\n',
  'X-Forwarded-For: 6.6.6.6\r\nVia: 1.1 evil\r\nX-B: 2\r\n',
  'Cookie: a=1\r\nAuthorization: Basic\r\nX-Request-Id: evil\r\nX-Sum: 1\r\n',
  'Connection: close\r\nKeep-Alive: 1\r\nTrailer: X-A\r\nX-A: 3\r\n'
]

export function chunksOf(random: Random, content: string, behind: readonly string[] = trailers): string {
  let text = ''
  for (let at = 0; at < content.length; ) {
    const size = Math.min(content.length - at, 1 + random.size(5000))
    const extension = random.chance(0.1) ? random.pick([';a', ';a=b', ';a="b c"', ';a;b=2']) : ''
    const hex = random.chance(0.5) ? size.toString(16).toUpperCase() : size.toString(16).padStart(random.int(1, 4), '0')
    text += `${hex}${extension}\r\n${content.slice(at, at + size)}\r\n`
    at += size
  }
  const fields = random.chance(0.3) ? random.pick(behind) : ''
  return `${text}${random.pick(['0', '000'])}\r\n${fields}\r\n`
}

function handshake(random: Random, token: string): string {
  const fields = [
    `Host: h`,
    'Connection: Upgrade',
    `Upgrade: ${random.pick(['websocket', 'WebSocket', 'h2c, websocket'])}`,
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    `x-request-id: ${token}`
  ]
  const early = random.chance(0.3) ? random.bytes(random.size(200)) : ''
  return `GET ${random.pick(['/ws', '/ws', '/ws', '/ok'])}/${token} HTTP/1.1\r\n${fields.join('\r\n')}\r\n\r\n${early}`
}

/** Header lines that make the framing ambiguous. */
const lines = [
  'Transfer-Encoding: chunked', 'Transfer-Encoding : chunked', 'Transfer-Encoding: xchunked', 'Transfer-Encoding:\tchunked',
  'Transfer-Encoding: chunked, identity', 'Transfer-Encoding: identity', 'Transfer-Encoding:\x0bchunked', 'Transfer-Encoding:',
  'X: a\nTransfer-Encoding: chunked', 'X: a\rTransfer-Encoding: chunked', 'Transfer-Encoding: "chunked"', 'Transfer_Encoding: chunked',
  'Content-Length: 0', 'Content-Length: 5', 'Content-Length: +5', 'Content-Length: 5, 5', 'Content-Length: 5 5', 'Content-Length:',
  'Content-Length: -1', 'Content-Length: 0x5', 'Content-Length: 99999999999999999999', 'Content-Length : 5', 'Content_Length: 5',
  ' folded', '\tfolded', ': nameless', 'nocolon', 'Host: evil', 'Host:', 'Host: a b', ' Host: evil', 'Connection: content-length',
  'Connection: transfer-encoding, host', 'Connection: close', 'Connection: x-token, x-request-id', 'Expect: 100-continue', 'Expect: x', 'Expect: 100-continue, 100-continue', 'Max-Forwards: 0', 'TE: chunked', 'Trailer: Content-Length',
  'X\0: 1', 'X: \0', 'X-\xe9: 1', 'Via: 1.1 jingwei', 'Cookie: \x7f', 'Sec-WebSocket-Key: x', 'Range: bytes=0-', 'Keep-Alive: max=1',
  '__proto__: 1', 'constructor: 1', 'X-Request-Id: \xe9', 'Authorization: Basic', 'Content-Type: \xff/', 'Accept-Version: x', 'Origin: null'
] // biome-ignore format: a list

const smuggling: ((token: string) => string)[] = [
  (token) =>
    `POST /ok/${token} HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG`,
  (token) =>
    `POST /ok/${token} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n` +
    `29\r\nGET /ok/${token}8 HTTP/1.1\r\nHost: h\r\n\r\n0\r\n\r\n`,
  (token) => `GET /ok/${token}\r\n\r\n`,
  (token) => `GET /ok/${token} HTTP/0.9\r\nHost: h\r\n\r\n`,
  (token) => `GET /ok/${token} HTTP/2.0\r\nHost: h\r\n\r\n`,
  () => 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  () => 'CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n',
  (token) => `GET /ok/${token} HTTP/1.1\nHost: h\n\n`,
  (token) => `POST /ok/${token} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n`,
  (token) => `POST /wild/${token} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n`,
  (token) =>
    `POST /ok/${token} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n`,
  (token) => `GET /ok/${token} HTTP/1.1\r\nHost: h\r\n${'A: b\r\n'.repeat(2100)}\r\n`,
  () => '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
  () => '\r\n'.repeat(50)
]

/** A connection's bytes as a strict reader understands them. */
export interface Reading {
  requests: Request[]
  /** Position of the last byte: after a request, within one, in bytes that are no request, or in a tunnel. */
  rest: 'clean' | 'partial' | 'fault' | 'tunnel'
  /** True if the body of the last request is incomplete. */
  lastIncomplete: boolean
}

export function readConnection(text: string): Reading {
  const reading = read(text)
  const upgrade = reading.requests.findIndex((request) => headerValue(request, 'upgrade') !== undefined)
  const last = upgrade === reading.requests.length - 1 && reading.rest === 'clean'
  // Node drops bytes that arrive in one packet after an ignored Upgrade, so the rest cannot be predicted.
  return upgrade === -1 || last ? reading : { ...reading, rest: 'tunnel' }
}

function read(text: string): Reading {
  const requests: Request[] = []
  for (let at = 0; ; ) {
    // RFC 9112, 2.2: empty lines before a request are ignored; those of Node may end in a bare CR or LF.
    while (text[at] === '\r' || text[at] === '\n') at++
    if (at >= text.length) return { requests, rest: 'clean', lastIncomplete: false }
    try {
      const request = readRequest(text, at, { extensions: true })
      if (request === null) return { requests, rest: 'partial', lastIncomplete: false }
      requests.push(request)
      if (!request.complete) return { requests, rest: 'partial', lastIncomplete: true }
      at = request.end
      if (request.method === 'CONNECT' || headerValue(request, 'upgrade') !== undefined) {
        const upgrades = request.headers.some(([name, value]) => /^upgrade$/i.test(name) && /websocket/i.test(value))
        if (upgrades || request.method === 'CONNECT') return { requests, rest: 'tunnel', lastIncomplete: false }
      }
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      if (error.request !== null) requests.push(error.request)
      // After requests without a response, CONNECT ends the connection before its framing is parsed.
      if (text.startsWith('CONNECT ', at)) return { requests, rest: 'tunnel', lastIncomplete: false }
      return { requests, rest: 'fault', lastIncomplete: error.request !== null }
    }
  }
}
