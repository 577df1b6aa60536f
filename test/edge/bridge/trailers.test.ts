import type { Test } from 'tap'
import t from 'tap'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { connect, gatewayBefore, get, parse, raw, responding, startRawService } from '../../helpers/gateway.ts'

const chunked = (...lines: string[]) =>
  `${['HTTP/1.1 200 OK', 'Transfer-Encoding: chunked', ...lines].join('\r\n')}\r\n\r\n2\r\nok\r\n0\r\n`

async function gatewayFor(t: Test, ...responses: string[]) {
  let received = ''
  const respond = responding(...responses)
  const service = await startRawService((socket) => {
    socket.on('data', (chunk: Buffer) => {
      received += chunk.toString('latin1')
    })
    respond(socket)
  })
  t.teardown(service.close)
  const gateway = await gatewayBefore(t, service.url)
  return { port: gateway.port, received: () => received }
}

const ask = (method: string, version = '1.1', ...lines: string[]) =>
  `${[`${method} / HTTP/${version}`, 'Host: h', ...lines, 'Connection: close'].join('\r\n')}\r\n\r\n`

t.test('trailers and their announcement reach the client', async (t) => {
  const { port } = await gatewayFor(
    t,
    `${chunked('Trailer: X-Sum, X-Two', 'Trailer: X-Three')}X-Sum: 7\r\nX-Two: b\r\n\r\n`
  )
  const text = await raw(port, ask('GET', '1.1', 'TE: trailers'))
  t.match(parse(text), { status: 200, headers: { trailer: 'X-Sum, X-Two\nX-Three', 'transfer-encoding': 'chunked' } })
  t.match(text, /\r\n2\r\nok\r\n0\r\nx-sum: 7\r\nx-two: b\r\n\r\n$/)
  t.match(await raw(port, ask('GET')), /\r\nx-sum: 7\r\n/, 'trailers do not depend on TE: trailers')
})

t.test('trailers that cannot follow are not announced', async (t) => {
  const announced = 'Trailer: X-Sum\r\n'
  for (const [what, request, response] of [
    ['HTTP/1.0', ask('GET', '1.0'), `${chunked('Trailer: X-Sum')}X-Sum: 7\r\n\r\n`],
    ['HEAD', ask('HEAD'), `HTTP/1.1 200 OK\r\n${announced}Transfer-Encoding: chunked\r\n\r\n`],
    ['a length', ask('GET'), `HTTP/1.1 200 OK\r\n${announced}Content-Length: 2\r\n\r\nok`],
    ['204', ask('GET'), `HTTP/1.1 204 No Content\r\n${announced}\r\n`],
    ['304', ask('GET'), `HTTP/1.1 304 Not Modified\r\n${announced}\r\n`],
    ['named in Connection', ask('GET'), `${chunked('Trailer: X-Sum', 'Connection: trailer')}\r\n`]
  ] as const) {
    const { port } = await gatewayFor(t, response)
    const text = await raw(port, request)
    t.match(text, /^HTTP\/1\.1 (200|204|304) /, what)
    t.notMatch(text, /trailer:/i, what)
  }
})

t.test('fields of the header section are removed from trailers', async (t) => {
  const fields = [
    'X-Sum: 7',
    'Content-Type: text/html',
    'Set-Cookie: a=1',
    'Connection: x-hop',
    'X-Hop: 1',
    'Host: evil',
    'Location: /elsewhere',
    'Date: Sat, 28 Nov 2026 00:00:00 GMT',
    'Vary: x',
    'Retry-After: 1',
    'Via: 1.1 x',
    'ETag: "a"'
  ]
  const names = fields.map((field) => field.replace(/:.*/, '')).join(', ')
  const { port } = await gatewayFor(t, `${chunked(`Trailer: ${names}`, 'Trailer: Date')}${fields.join('\r\n')}\r\n\r\n`)
  const text = await raw(port, ask('GET'))
  t.match(text, /\r\n0\r\nx-sum: 7\r\netag: "a"\r\n\r\n$/)
  t.equal(parse(text).headers.trailer, 'X-Sum, X-Hop, ETag', 'a removed trailer is not announced')
})

const [announcing, behind] = ['Trailer: X-Sum', 'X-Sum: 7\r\nx-latin: caf\xe9\r\n']

t.test('trailers of a request are forwarded, with their announcement', async (t) => {
  const { port, received } = await gatewayFor(t, 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
  const client = connect(
    port,
    `${ask('POST', '1.1', 'Transfer-Encoding: chunked', `${announcing}, Cookie, X_Forwarded_For`, 'TE: trailers')}2\r\nab\r\n0\r\n${behind}\r\n`
  )
  t.match((await client.closed).text, /200 OK[\s\S]+ok$/)
  t.match(received(), /\r\ntrailer: X-Sum\r\n/)
  t.match(received(), /\r\nte: trailers\r\n/)
  t.match(received(), /\r\n2\r\nab\r\n0\r\nx-sum: 7\r\nx-latin: caf\xe9\r\n\r\n$/)
  t.equal((await get(port, '/', ['TE: gzip'])).status, 200)
  t.notMatch(received(), /gzip/)
})

t.test('trailers after an empty body are forwarded', async (t) => {
  const { port, received } = await gatewayFor(t, 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
  const client = connect(port, `${ask('POST', '1.1', 'Transfer-Encoding: chunked')}0\r\n${behind}\r\n`)
  t.match((await client.closed).text, /200 OK/)
  t.match(received(), /\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-sum: 7\r\n/)
})

t.test('fields that a client may not send as headers are removed from its trailers', async (t) => {
  const { port, received } = await gatewayFor(t, 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
  const fields = [
    'X-Forwarded-For: 6.6.6.6',
    'X_Forwarded_For: 6.6.6.6',
    'Forwarded: for=6.6.6.6',
    'Via: 1.1 x',
    'Host: evil',
    'Authorization: Bearer x',
    'Cookie: a=1',
    'TE: x',
    'X-Hop: 1',
    'Range: bytes=0-1',
    'If-Match: "a"',
    'Max-Forwards: 0',
    'X-Request-Id: mine'
  ]
  const request = ask('POST', '1.1', 'Transfer-Encoding: chunked', 'Connection: x-hop, trailer', announcing)
  const client = connect(port, `${request}2\r\nab\r\n0\r\n${fields.join('\r\n')}\r\n\r\n`)
  t.match((await client.closed).text, /200 OK/)
  t.match(received(), /\r\n2\r\nab\r\n0\r\n\r\n$/)
  t.notMatch(received(), /\r\ntrailer:/)
})

t.test('fields that are dropped as headers are dropped as trailers', async (t) => {
  let received = ''
  const service = await startRawService((socket) => {
    socket.on('data', (chunk: Buffer) => {
      received += chunk.toString('latin1')
      if (received.endsWith('\r\n\r\n') && received.includes('0\r\n')) socket.write('HTTP/1.1 204 No Content\r\n\r\n')
    })
  })
  t.teardown(service.close)
  const gateway = await gatewayBefore(t, service.url, {
    edge: { jwt: { secret, algorithms: ['HS256'], forward: { sub: 'x-user-id' } } }
  })
  const request = ask(
    'POST',
    '1.1',
    'Transfer-Encoding: chunked',
    `Authorization: Bearer ${token(claims({ sub: 'ann' }))}`
  )
  await connect(gateway.port, `${request}0\r\nX-User-Id: root\r\nX-Sum: 7\r\n\r\n`).closed
  t.match(received, /\r\nx-user-id: ann\r\n/)
  t.match(received, /\r\n0\r\nx-sum: 7\r\n\r\n$/)
})

t.test('no trailers after a body with Content-Length', async (t) => {
  const { port, received } = await gatewayFor(t, 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
  const client = connect(port, `${ask('POST', '1.1', 'Content-Length: 2', announcing)}ab`)
  t.match((await client.closed).text, /200 OK/)
  t.notMatch(received(), /trailer/i)
})
