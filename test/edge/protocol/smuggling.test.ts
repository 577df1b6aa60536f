import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { connect, parse, startEcho, startGateway, startRawService } from '../../helpers/gateway.ts'

/** A service that records every byte and responds to each request with its path. */
async function recorded(t: Test, route: object = {}) {
  const record = { text: '', open: 0 }
  const service = await startRawService((socket) => {
    record.open++
    socket.once('close', () => record.open--)
    socket.on('data', (chunk: Buffer) => {
      const text = chunk.toString('latin1')
      record.text += text
      for (const [, path = ''] of text.matchAll(/^[A-Z]+ (\S+) HTTP\/1\.1\r$/gm)) {
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${path.length}\r\n\r\n${path}`)
      }
    })
  })
  const methods = ['GET', 'POST', 'PUT', 'OPTIONS', 'TRACE']
  const gateway = await startGateway({
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/', methods }, service: 'any', ...route }],
    mesh: { retry: false }
  })
  t.teardown(service.close)
  t.teardown(gateway.close)
  return { port: gateway.port, record }
}

const host = 'Host: h\r\n'
const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n'
const get = (...lines: string[]) => `GET / HTTP/1.1\r\n${host}${lines.map((line) => `${line}\r\n`).join('')}\r\n`
const post = (fields: string, body: string) => `POST / HTTP/1.1\r\n${host}${fields}\r\n\r\n${body}`
const chunks = (body: string) => post('Transfer-Encoding: chunked', body)
const coded = (value: string) => post(`Transfer-Encoding: ${value}`, '0\r\n\r\n')
const sized = (value: string) => post(`Content-Length: ${value}`, 'a')
const each = (values: string[], make: (value: string) => string) =>
  values.map((value): [string, string] => [value, make(value)])

/** Expects one response with one of these statuses, a closed connection, and no bytes at the service. */
const refused: Record<string, [status: number, cases: [name: string, bytes: string][]]> = {
  'Content-Length and Transfer-Encoding': [
    400,
    [
      ['CL.TE', post('Content-Length: 6\r\nTransfer-Encoding: chunked', '0\r\n\r\nG')],
      ['TE.CL', post('Transfer-Encoding: chunked\r\nContent-Length: 4', `24\r\n${smuggled}\r\n0\r\n\r\n`)],
      ['TE.CL of 0', post('Transfer-Encoding: chunked\r\nContent-Length: 0', '0\r\n\r\n')]
    ]
  ],
  'a Transfer-Encoding that hides': [
    400,
    [
      ...each(['chunked, identity', 'chunked, chunked', '\x0bchunked', '', 'chunked,', 'chunked\x00'], coded),
      ['twice', coded('chunked\r\nTransfer-Encoding: identity')],
      [
        'unknown, under a path that is none',
        coded('identity\r\nTransfer-Encoding: chunked').replace('POST / ', 'POST /%zz ')
      ],
      ['twice the same', coded('chunked\r\nTransfer-Encoding: chunked')],
      ['space before the colon', post('Transfer-Encoding : chunked', '0\r\n\r\n')],
      ['folded', coded('\r\n chunked')],
      ['behind a bare LF', post('X: a\nTransfer-Encoding: chunked', '0\r\n\r\n')],
      ['behind a bare CR', post('X: a\rTransfer-Encoding: chunked', '0\r\n\r\n')],
      ['in HTTP/1.0', coded('chunked').replace('HTTP/1.1', 'HTTP/1.0')]
    ]
  ],
  'a Transfer-Encoding that is not known': [
    501,
    [
      ...each(['xchunked', 'identity', 'gzip', '"chunked"', 'chunked;q=1', 'gzip, chunked', ',chunked'], coded),
      ['twice', coded('identity\r\nTransfer-Encoding: chunked')]
    ]
  ],
  'a Content-Length that is no number, or two': [
    400,
    [
      ...each(['1, 1', '1,2', '-1', '+1', '0x1', '1 1', '1a', '', '1e1', '1.0', '9'.repeat(30)], sized),
      ['2 to the 64th and 1', sized('18446744073709551617')],
      ['twice', sized('1\r\nContent-Length: 2')],
      ['twice the same', sized('1\r\nContent-Length: 1')],
      ['space before the colon', post('Content-Length : 1', 'a')]
    ]
  ],
  'lines that do not end or begin as they should': [
    400,
    [
      ['folded', get('X: a', ' b')],
      ['folded with a tab', get('X: a', '\tb')],
      ['first line folded', `GET / HTTP/1.1\r\n ${host}\r\n`],
      ['LF in the request line', `GET / HTTP/1.1\n${host}\r\n`],
      ['LF everywhere', 'GET / HTTP/1.1\nHost: h\n\n'],
      ['LF after a field', 'GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n'],
      ['LF at the end', `GET / HTTP/1.1\r\n${host}\n`],
      ['CR in the request line', `GET / HTTP/1.1\r${host}\r\n`],
      ['CR after a field', 'GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n'],
      ['space before the colon', 'GET / HTTP/1.1\r\nHost : h\r\n\r\n'],
      ['no colon', get('X')],
      ['no name', get(': x')]
    ]
  ],
  'control characters': [
    400,
    ['\0', '\x01', '\x0b', '\x0c', '\x1f', '\x7f'].flatMap((char): [string, string][] => [
      [`value ${JSON.stringify(char)}`, get(`X: a${char}b`)],
      [`name ${JSON.stringify(char)}`, get(`X${char}: a`)],
      [`target ${JSON.stringify(char)}`, get().replace('/', `/${char}`)],
      [`method ${JSON.stringify(char)}`, get().replace('GET', `GET${char}`)]
    ])
  ],
  'chunks with ambiguous boundaries': [
    400,
    [
      ...each(
        ['fffffffffffffffff', '10000000000000000', '-1', '+1', '0x1', '1 ', ' 1', 'g', '', '1\n', '1\r'],
        (size) => chunks(`${size}\r\na\r\n0\r\n\r\n`)
      ),
      ['LF in an extension', chunks('1;a\nb\r\na\r\n0\r\n\r\n')],
      ['CR in an extension', chunks('1;a\rb\r\na\r\n0\r\n\r\n')]
    ]
  ],
  'versions that are not spoken here': [
    505,
    [['none', 'GET /\r\n\r\n'], ...each(['0.9', '2.0'], (version) => get().replace('HTTP/1.1', `HTTP/${version}`))]
  ],
  'versions that there are not': [
    400,
    [
      ...each(
        ['HTTP/1.2', 'HTTP/3.0', 'HTTP/1', 'HTTP/1.', 'HTTP/01.1', 'HTTP/1.10', 'http/1.1', 'HTP/1.1'],
        (version) => get().replace('HTTP/1.1', version)
      ),
      ['a preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
      ['tabs for spaces', get().replace('GET / ', 'GET\t/\t')],
      ['space in the target', get().replace('/', '/a b')],
      ['space at the end', get().replace('HTTP/1.1', 'HTTP/1.1 ')]
    ]
  ],
  'targets that name another host, or none': [
    400,
    [
      ['absolute', get().replace('/', 'http://evil/')],
      ['absolute with a user', get().replace('/', 'http://h@evil/')],
      ['absolute with the host as user', get().replace('/', 'http://evil@h/')],
      ['absolute of another port', get().replace('/', 'http://h:81/')],
      ['absolute of another scheme', get().replace('/', 'ftp://h/')],
      ['absolute, then dots', get().replace('/', 'http://h/../x')],
      ['authority', get().replace('/', 'h:80')],
      ['asterisk', get().replace('/', '*')],
      ['relative', get().replace('/', 'x')]
    ]
  ],
  'hosts that are none, or several': [
    400,
    [
      ['none', 'GET / HTTP/1.1\r\n\r\n'],
      ['two', get('Host: evil')],
      ['the same twice', get('Host: h')],
      ...each(
        ['a b', 'a, b', 'a/b', 'a@b', 'a\tb', 'a:x', 'a:1:2', '[::1', 'a#b', 'a?b', 'a\\b', '"a"', '\xe9'],
        (name) => get().replace('Host: h', `Host: ${name}`)
      )
    ]
  ],
  tunnels: [
    501,
    [
      ['CONNECT', `CONNECT h:80 HTTP/1.1\r\n${host}\r\n`],
      ['CONNECT with a path', `CONNECT / HTTP/1.1\r\n${host}\r\n`]
    ]
  ]
}

for (const [what, [status, cases]] of Object.entries(refused)) {
  t.test(`${what} gets ${status}, the connection is closed, and the service gets nothing`, async (t) => {
    const { port, record } = await recorded(t)
    for (const [name, bytes] of cases) {
      // In one write, and in two, so that the second request arrives separately.
      for (const whole of [true, false]) {
        const client = connect(port, whole ? bytes + smuggled : bytes)
        if (!whole) void client.until('HTTP/1.1 ').then(() => client.send(smuggled), () => {}) // biome-ignore format: short
        const { text } = await client.closed
        t.equal(parse(text).status, status, name)
        t.equal(text.split('HTTP/1.1 ').length, 2, `${name}: one response is sent`)
        t.equal(record.text, '', name)
        record.text = ''
      }
    }
  })
}

t.test('a chunk that is malformed later ends the exchange, and later bytes are not read', async (t) => {
  const { port, record } = await recorded(t)
  const bodies = [
    '1\r\nab\r\n0\r\n\r\n',
    '1\r\na\n0\r\n\r\n',
    '1\r\na\r\n0\r\n: x\r\n\r\n',
    '1\r\na\r\n0\r\nX : y\r\n\r\n',
    '1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n'
  ]
  for (const body of bodies) {
    record.text = ''
    const { text } = await connect(port, chunks(body + smuggled)).closed
    t.equal(parse(text).status, 400, body)
    await eventually(() => record.open === 0)
    t.notMatch(record.text, /smuggled|\r\n0\r\n/, 'the service never gets a complete request')
  }
})

t.test('allowed requests reach the service in one canonical form', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const { port } = await startGateway({
    services: { any: { instances: [echo.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  }).then((gateway) => {
    t.teardown(gateway.close)
    return gateway
  })
  const cases: [name: string, bytes: string, body: string, url?: string][] = [
    ['extensions of chunks', chunks('1;a=b;c="d e"\r\na\r\n0\r\n\r\n'), 'a'],
    ['case of chunked', coded('ChUnKeD'), ''],
    ['a body with GET', get(`Content-Length: ${smuggled.length}`) + smuggled, smuggled],
    ['CL.0', post(`Content-Length: ${smuggled.length}\r\nConnection: Content-Length`, smuggled), smuggled],
    ['TE.0', post('Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding', '1\r\na\r\n0\r\n\r\n'), 'a'],
    [
      'names with an underscore',
      post('Content_Length: 5\r\nTransfer_Encoding: chunked\r\nContent-Length: 1', 'a'),
      'a'
    ],
    ['absolute-form', get().replace('/', 'HTTP://H/x?http://evil/'), '', '/x?http://evil/'],
    ['absolute-form without a path', get().replace('/', 'https://h?x'), '', '/?x']
  ]
  for (const [name, bytes, body, url] of cases) {
    const client = connect(port, bytes)
    await client.until('"body":', '"}')
    client.send('GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
    const responses = (await client.closed).text.split(/(?=HTTP\/1\.1 200)/)
    t.equal(responses.length, 2, `${name}: two requests get two responses`)
    const [seen, next] = responses.map(
      (text) => JSON.parse(parse(text).body) as { body: string; url: string; headers: object }
    )
    t.equal(seen!.body, body, name)
    if (url !== undefined) t.equal(seen!.url, url, name)
    t.notOk('transfer_encoding' in seen!.headers)
    t.equal(next!.url, '/next', name)
  }
})

t.test('an upgrade other than WebSocket is ignored, and no later bytes are read', async (t) => {
  const { port, record } = await recorded(t)
  const upgrades = [
    ['Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA'],
    ['Connection: Upgrade', 'Upgrade: h2c'],
    ['Connection: Upgrade', 'Upgrade: TLS/1.0']
  ]
  for (const lines of upgrades) {
    // Node drops bytes in the same packet; a partly dropped request would desynchronise the rest.
    for (const split of [false, true]) {
      record.text = ''
      const behind = `POST / HTTP/1.1\r\nHost: h\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`
      const client = connect(port, split ? get(...lines) : get(...lines) + behind.slice(0, 20))
      if (split) await client.until('200 OK')
      if (!client.socket.destroyed) client.send(split ? behind : behind.slice(20))
      const { text } = await client.closed
      t.match(parse(text), { status: 200, headers: { connection: 'close' } })
      t.equal(text.split('HTTP/1.1 ').length, 2, 'one response is sent')
      t.notMatch(record.text, /upgrade|h2c|http2-settings|smuggled|POST/i)
    }
  }
})

t.test('pipelined requests each get a response, in order, also before a malformed one', async (t) => {
  const { port, record } = await recorded(t)
  const paths = Array.from({ length: 20 }, (_, index) => `/${index}`)
  const bytes = paths.map((path) => get().replace('/', path)).join('')
  const { text } = await connect(port, `${bytes}GARBAGE\r\n\r\n${smuggled}`).closed
  const responses = text.split(/(?=HTTP\/1\.1 )/).map(parse)
  t.strictSame(responses.slice(0, -1).map(({ body }) => body), paths) // biome-ignore format: short
  t.equal(responses.at(-1)?.status, 400)
  t.notMatch(record.text, 'smuggled')
})

t.test('bytes after a refused request are not processed', async (t) => {
  const { port, record } = await recorded(t)
  const { text } = await connect(port, get().replace('/', '/a/../b') + smuggled).closed
  t.match(parse(text), { status: 400, headers: { connection: 'close' } })
  t.equal(text.split('HTTP/1.1 ').length, 2)
  t.equal(record.text, '')
})

t.test('a refused connection that the client keeps open is closed', async (t) => {
  const { port } = await recorded(t)
  const client = connect(port, 'GARBAGE\r\n\r\n')
  client.socket.allowHalfOpen = true
  const drip = setInterval(() => client.socket.writable && client.send('x'), 100)
  const { text } = await client.closed
  clearInterval(drip)
  t.equal(parse(text).status, 400)
})
