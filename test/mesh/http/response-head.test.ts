/** Status lines, fields and framing that RFC 9112 allows, and that it does not. */
import t from 'tap'
import {
  bodyLength,
  checkBeginning,
  chunked,
  isPersistent,
  parseFields,
  parseHead,
  untilClose
} from '../../../plugins/mesh/http/response-head.ts'

const parsed = (text: string) => parseHead(text, text.indexOf('\r\n\r\n'))
const withFields = (...fields: string[]) => parsed(['HTTP/1.1 200 OK', ...fields, '', ''].join('\r\n'))

t.test('invalid status lines are refused', async (t) => {
  const bad = [
    'HTTP/2 200 OK',
    'HTTP/2.0 200 OK',
    'HTTP/1.2 200 OK',
    'HTTP/1.10 200 OK',
    'HTTP/0.9 200 OK',
    'HTTP/1 200 OK',
    'http/1.1 200 OK',
    'HTTPS/1.1 200 OK',
    ' HTTP/1.1 200 OK',
    '\r\nHTTP/1.1 200 OK',
    'ICY 200 OK',
    'HTTP/1.1  200 OK',
    'HTTP/1.1\t200 OK',
    'HTTP/1.1 200OK',
    'HTTP/1.1 20 OK',
    'HTTP/1.1 2000 OK',
    'HTTP/1.1 099 OK',
    'HTTP/1.1 600 Odd',
    'HTTP/1.1 999 Odd',
    'HTTP/1.1 +20 OK',
    'HTTP/1.1 2e2 OK',
    'HTTP/1.1 200\tOK',
    'HTTP/1.1 200 O\0K',
    'HTTP/1.1 200 O\rK',
    'HTTP/1.1 200 O\nK',
    'HTTP/1.1 200 O\x7fK',
    'HTTP/1.1 200 OK\nA: b',
    'HTTP/1.1',
    'HTTP/1.1 200 OK\r'
  ]
  for (const line of bad) {
    t.throws(() => parsed(`${line}\r\n\r\n`), { name: 'HTTPParserError', code: /^HPE_/ }, JSON.stringify(line))
  }
})

t.test('valid status lines are parsed', async (t) => {
  for (const [line, status, text, minor] of [
    ['HTTP/1.1 200 OK', 200, 'OK', 1],
    ['HTTP/1.1 200', 200, '', 1],
    ['HTTP/1.1 200 ', 200, '', 1],
    ['HTTP/1.0 404 Not Found', 404, 'Not Found', 0],
    ['HTTP/1.1 299 caf\xe9\tau lait', 299, 'caf\xe9\tau lait', 1],
    ['HTTP/1.1 100 Continue', 100, 'Continue', 1],
    ['HTTP/1.1 599 Odd', 599, 'Odd', 1],
    ['HTTP/1.1 200 HTTP/1.1 500 no', 200, 'HTTP/1.1 500 no', 1]
  ] as const) {
    t.match(parsed(`${line}\r\n\r\n`), { status, text, minor, rawHeaders: [] }, line)
    t.match(parsed(`${line}\r\nA: b\r\n\r\n`), { status, text, minor, rawHeaders: ['A', 'b'] }, line)
  }
})

t.test('bytes that are not HTTP fail without waiting for more', async (t) => {
  for (const text of ['', 'H', 'HTTP/', 'HTTP/1.', 'HTTP/1.1 20']) t.doesNotThrow(() => checkBeginning(text), text)
  for (const text of ['S', 'HTTX', 'HTTP/2', '\r', '\x16\x03\x01', 'SSH-2.0']) {
    t.throws(() => checkBeginning(text), { code: 'HPE_INVALID_CONSTANT' }, text)
  }
})

t.test('invalid field lines are refused', async (t) => {
  const bad = [
    'A : b',
    'A\t: b',
    ' A: b',
    '\tA: b',
    ': b',
    'A',
    'A b: c',
    'A\0: b',
    'A\xe9: b',
    'A(: b',
    '"A": b',
    'A: b\0',
    'A: \x01',
    'A: b\x7f',
    'A: b\rc',
    'A: b\nc',
    'A: b\nC: d',
    'A: b\rC: d',
    'A: b\r\n folded',
    'A: b\r\n\tfolded',
    'A: b\n\nHTTP/1.1 200 OK',
    'Transfer-Encoding: \x0bchunked',
    'Content-Length\n: 5'
  ]
  for (const line of bad) {
    for (const lines of [[line], ['X: y', line], [line, 'X: y']]) {
      t.throws(() => withFields(...lines), { name: 'HTTPParserError', code: /^HPE_/ }, JSON.stringify(lines))
    }
  }
})

t.test('valid field lines are parsed', async (t) => {
  const { headers, rawHeaders } = withFields(
    'Content-Type:text/plain',
    'X-Blank: \t  ',
    'X-Empty:',
    'X-Padded:  \t a b \t ',
    'X-LATIN: \xe9\xff',
    'set-cookie: a',
    'Set-Cookie: b',
    'SET-COOKIE: c',
    "!#$%&'*+-.^_`|~09aZ: token",
    'x-colons: a:b: c'
  )
  t.strictSame(Object.entries(headers), [
    ['content-type', 'text/plain'],
    ['x-blank', ''],
    ['x-empty', ''],
    ['x-padded', 'a b'],
    ['x-latin', '\xe9\xff'],
    ['set-cookie', ['a', 'b', 'c']],
    ["!#$%&'*+-.^_`|~09az", 'token'],
    ['x-colons', 'a:b: c']
  ])
  t.strictSame(rawHeaders.slice(-6), ['SET-COOKIE', 'c', "!#$%&'*+-.^_`|~09aZ", 'token', 'x-colons', 'a:b: c'])
})

t.test('field names that are properties of Object.prototype', async (t) => {
  const names = ['constructor', '__proto__', 'toString', 'hasOwnProperty', 'valueOf', '7', '__defineGetter__']
  const { headers } = withFields(...names.flatMap((name) => [`${name}: 1`, `${name}: 2`]))
  for (const name of names) t.strictSame(headers[name.toLowerCase()], ['1', '2'], name)
  t.strictSame(Object.keys(headers).sort(), names.map((name) => name.toLowerCase()).sort())
  const none = withFields().headers
  for (const name of names) t.equal(none[name], undefined, name)
  t.notOk('constructor' in none)
})

t.test('trailers are read as fields', async (t) => {
  const raw: string[] = []
  t.match(parseFields('X-Sum: 1\r\nx-sum: 2', 0, 18, raw), { 'x-sum': ['1', '2'] })
  t.strictSame(raw, ['X-Sum', '1', 'x-sum', '2'])
  t.throws(() => parseFields('a : 1', 0, 5, []), { code: 'HPE_INVALID_HEADER_TOKEN' })
})

t.test('ambiguous framing is refused', async (t) => {
  const bad = [
    ['Content-Length: 3, 3'],
    ['Content-Length: 3', 'Content-Length: 3'],
    ['Content-Length: 3', 'content-length: 4'],
    ['Content-Length: +3'],
    ['Content-Length: -1'],
    ['Content-Length: 1e3'],
    ['Content-Length: 0x3'],
    ['Content-Length: 3.0'],
    ['Content-Length: 3 3'],
    ['Content-Length:'],
    ['Content-Length: 18446744073709551616'],
    ['Content-Length: 9007199254740993'],
    [`Content-Length: ${'9'.repeat(400)}`],
    ['Content-Length: 3;'],
    ['Content-Length: \xb3'],
    ['Content-Length: 3', 'Transfer-Encoding: chunked'],
    ['Transfer-Encoding: chunked', 'Content-Length: 0'],
    ['Transfer-Encoding: gzip, chunked'],
    ['Transfer-Encoding: chunked, chunked'],
    ['Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'],
    ['Transfer-Encoding: identity'],
    ['Transfer-Encoding: xchunked'],
    ['Transfer-Encoding: "chunked"'],
    ['Transfer-Encoding: chunked;q=1'],
    ['Transfer-Encoding: chunked,'],
    ['Transfer-Encoding:']
  ]
  for (const fields of bad) {
    for (const method of ['GET', 'HEAD', 'POST']) {
      const { name, code } = { name: 'HTTPParserError', code: /^HPE_INVALID_(CONTENT_LENGTH|TRANSFER_ENCODING)$/ }
      t.throws(() => bodyLength(withFields(...fields), method), { name, code }, `${method} ${fields}`)
    }
  }
})

t.test('valid framing is accepted', async (t) => {
  const length = (method: string, status: number, ...fields: string[]) =>
    bodyLength(parsed([`HTTP/1.1 ${status} x`, ...fields, '', ''].join('\r\n')), method)
  for (const [expected, method, status, ...fields] of [
    [3, 'GET', 200, 'Content-Length: 3'],
    [3, 'GET', 404, 'content-length:  003\t'],
    [0, 'GET', 200, 'Content-Length: 0'],
    [Number.MAX_SAFE_INTEGER, 'GET', 200, 'Content-Length: 9007199254740991'],
    [chunked, 'GET', 200, 'Transfer-Encoding: chunked'],
    [chunked, 'POST', 500, 'transfer-encoding:CHUNKED'],
    [untilClose, 'GET', 200],
    [untilClose, 'GET', 205],
    [0, 'HEAD', 200, 'Content-Length: 3'],
    [0, 'HEAD', 200, 'Transfer-Encoding: chunked'],
    [0, 'HEAD', 200],
    [0, 'GET', 204],
    [0, 'GET', 204, 'Content-Length: 3'],
    [0, 'GET', 304, 'Content-Length: 3'],
    [0, 'GET', 304, 'Transfer-Encoding: chunked'],
    [0, 'GET', 304]
  ] as [number, string, number, ...string[]][]) {
    t.equal(length(method, status, ...fields), expected, `${method} ${status} ${fields}`)
  }
})

t.test('version and Connection decide whether a connection is reused', async (t) => {
  const persists = (version: string, ...fields: string[]) =>
    isPersistent(parsed([`HTTP/${version} 200 OK`, ...fields, '', ''].join('\r\n')))
  for (const [expected, version, ...fields] of [
    [true, '1.1'],
    [true, '1.1', 'Connection: keep-alive'],
    [true, '1.1', 'Connection: x-close'],
    [true, '1.1', 'Connection: closed, close-x'],
    [false, '1.1', 'Connection: close'],
    [false, '1.1', 'Connection: CLOSE'],
    [false, '1.1', 'Connection: x-a,close'],
    [false, '1.1', 'Connection: keep-alive', 'Connection: x-a , Close ,'],
    [false, '1.1', 'Connection: keep-alive, close'],
    [false, '1.0'],
    [false, '1.0', 'Connection: x-a'],
    [true, '1.0', 'Connection: Keep-Alive'],
    [false, '1.0', 'Connection: keep-alive, close'],
    [false, '1.0', 'Connection: keep-alive', 'Transfer-Encoding: chunked'],
    [false, '1.0', 'Transfer-Encoding: chunked'],
    [false, '1.1', 'HTTP2-Settings: x', 'Connection: upgrade, close']
  ] as [boolean, string, ...string[]][]) {
    t.equal(persists(version, ...fields), expected, `${version} ${fields}`)
  }
})

t.test('a response that must have no body but announces one closes its connection', async (t) => {
  // If the service does send the body, it would be read as the next response.
  const persists = (status: number, ...fields: string[]) =>
    isPersistent(parsed([`HTTP/1.1 ${status} x`, ...fields, '', ''].join('\r\n')))
  for (const status of [204, 304]) {
    t.equal(persists(status), true)
    t.equal(persists(status, 'Content-Length: 0'), true)
    t.equal(persists(status, 'Content-Length: 5'), false)
    t.equal(persists(status, 'Transfer-Encoding: chunked'), false)
  }
})
