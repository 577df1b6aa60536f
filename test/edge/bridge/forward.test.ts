// slow: takes about 3 s
import { createHash } from 'node:crypto'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import type { ask, GatewayOptions, RunningGateway } from '../../helpers/gateway.ts'
import {
  connect,
  get,
  parse,
  raw,
  responding,
  startEcho,
  startGateway,
  startRawService,
  startService
} from '../../helpers/gateway.ts'

async function before(
  t: Test,
  url: string,
  config: object = {},
  options: GatewayOptions = {}
): Promise<RunningGateway> {
  const services = { any: { instances: [url] } }
  const routes = [{ name: 'all', match: { path: '/' }, service: 'any' }]
  const gateway = await startGateway({ services, routes, mesh: { retry: false }, ...config }, options)
  t.teardown(gateway.close)
  return gateway
}

async function echoing(t: Test, config: object = {}) {
  const echo = await startEcho()
  t.teardown(echo.close)
  return before(t, echo.url, config)
}

const headerSection = (method: string, ...lines: string[]) =>
  `${[`${method} / HTTP/1.1`, 'Host: h', ...lines].join('\r\n')}\r\n\r\n`
const bodyOf = (text: string) =>
  JSON.parse(Buffer.from(parse(text).body, 'latin1').toString()) as Awaited<ReturnType<typeof ask>>

t.test('bodies with a length, chunked or empty are forwarded for any method and type', async (t) => {
  const { port } = await echoing(t)
  const send = async (bytes: string) => bodyOf(await raw(port, bytes))
  for (const method of ['POST', 'GET', 'DELETE', 'OPTIONS', 'PATCH']) {
    const fixed = await send(`${headerSection(method, 'Content-Length: 3', 'Connection: close')}abc`)
    t.equal(fixed.body, 'abc', method)
    t.equal(fixed.headers['content-length'], '3')
    const chunked = await send(
      `${headerSection(method, 'Transfer-Encoding: Chunked', 'Connection: close')}2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n`
    )
    t.equal(chunked.body, 'abc', `${method} chunked`)
  }
  const none = await send(headerSection('GET', 'Content-Type: application/json', 'Connection: close'))
  t.equal(none.headers['transfer-encoding'], undefined, 'a content type does not imply a body')
  t.equal(none.headers['content-type'], 'application/json')
  for (const method of ['POST', 'PUT']) {
    const empty = await send(
      headerSection(method, 'Content-Type: text/plain', 'Content-Length: 0', 'Connection: close')
    )
    t.equal(empty.headers['content-length'], '0')
    t.equal(empty.headers['transfer-encoding'], undefined)
  }
  for (const type of ['application/json', 'nonsense', 'a/b/c', ';', '', 'text/plain; charset=', 'm\xfcll/x']) {
    const seen = await send(
      `${headerSection('POST', `Content-Type: ${type}`, 'Content-Length: 2', 'Connection: close')}{x`
    )
    t.equal(seen.body, '{x', type)
    t.equal(seen.headers['content-type'], type)
  }
})

t.test('binary data is forwarded unchanged both ways, with any type, to a slow reader', async (t) => {
  const bytes = Buffer.alloc(6 * 1024 * 1024, Buffer.from(Array.from({ length: 256 }, (_, n) => n)))
  const sum = (data: Buffer) => createHash('sha256').update(data).digest('hex')
  let most = 0
  const service = await startService(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) {
      chunks.push(chunk as Buffer)
      if (chunks.length % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
    }
    const got = Buffer.concat(chunks)
    response.setHeader('x-sum', sum(got))
    response.setHeader('content-type', 'text/plain')
    response.end(got)
  })
  t.teardown(service.close)
  const { port } = await before(t, service.url)
  const client = connect(
    port,
    headerSection('POST', 'Content-Type: text/plain', `Content-Length: ${bytes.length}`, 'Connection: close')
  )
  client.send(bytes)
  client.socket.on('data', () => {
    client.socket.pause()
    most = Math.max(most, process.memoryUsage().external)
    setTimeout(() => client.socket.resume(), 1)
  })
  const response = parse((await client.closed).text)
  t.equal(response.headers['x-sum'], sum(bytes))
  t.equal(sum(Buffer.from(response.body, 'latin1')), sum(bytes))
})

t.test('a side that does not read pauses the other (backpressure)', async (t) => {
  let written = 0
  const service = await startService((request, response) => {
    if (request.method === 'POST') return request.pause()
    const chunk = Buffer.alloc(64 * 1024)
    const write = () => {
      while (!response.destroyed) {
        written += chunk.length
        if (!response.write(chunk)) return void response.once('drain', write)
      }
    }
    write()
  })
  t.teardown(service.close)
  const { port } = await before(t, service.url)
  const stands = async (count: () => number) => {
    for (let last = -1; count() !== last; ) {
      last = count()
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
    return count()
  }
  const reader = connect(port, headerSection('GET'))
  await reader.until('200 OK')
  reader.socket.pause()
  t.ok((await stands(() => written)) < 64 * 1024 * 1024, 'the service is held back by the client')
  reader.socket.destroy()

  const writer = connect(port, headerSection('POST', 'Content-Length: 500000000'))
  let sent = 0
  const pump = () => {
    while (!writer.socket.destroyed && sent < 5e8) {
      sent += 65536
      if (!writer.socket.write(Buffer.alloc(65536))) return void writer.socket.once('drain', pump)
    }
  }
  pump()
  t.ok((await stands(() => sent)) < 64 * 1024 * 1024, 'the client is held back by the service')
  writer.socket.destroy()
})

t.test('HEAD, 204 and 304 have no body, and the connection is kept', async (t) => {
  const service = await startRawService(
    responding(
      'HTTP/1.1 200 OK\r\nContent-Length: 7\r\nETag: "a"\r\n\r\n',
      'HTTP/1.1 204 No Content\r\n\r\n',
      'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n',
      'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
    )
  )
  t.teardown(service.close)
  const { port } = await before(t, service.url)
  const client = connect(port, headerSection('HEAD'))
  t.match(parse(await client.until('\r\n\r\n')), {
    status: 200,
    headers: { 'content-length': '7', etag: '"a"' },
    body: ''
  })
  client.send(headerSection('GET'))
  await client.until('204 No Content')
  client.send(headerSection('GET'))
  await client.until('304 Not Modified')
  client.send(headerSection('GET', 'Connection: close'))
  const { text } = await client.closed
  t.match(text, /\r\n\r\nok$/)
  t.equal(text.match(/HTTP\/1\.1/g)?.length, 4)
})

t.test('pipelined requests get responses in order', async (t) => {
  const { port } = await echoing(t)
  const text = await raw(
    port,
    `${headerSection('GET', 'x-n: one')}${headerSection('GET', 'x-n: two', 'Connection: close')}`
  )
  t.match(text, /"x-n":"one".*"x-n":"two"/s)
})

t.test('trailers, early hints and 100-continue are forwarded', async (t) => {
  const service = await startRawService(
    responding(
      'HTTP/1.1 102 Processing\r\n\r\n' +
        'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Hint: 1\r\nKeep-Alive: x\r\n\r\n' +
        'HTTP/1.1 104 Upload Resumption Supported\r\nUpload-Offset: 7\r\nX-Two: a\r\nX-Two: \xe9\r\n\r\n' +
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n' +
        '2\r\nok\r\n0\r\nX-Sum: 7\r\nX-Two: a\r\nConnection: x\r\n\r\n'
    )
  )
  t.teardown(service.close)
  const { port } = await before(t, service.url)
  const text = await raw(port, headerSection('GET', 'TE: trailers', 'Connection: close'))
  t.match(text, /^HTTP\/1.1 102 Processing\r\n/)
  t.match(text, /HTTP\/1.1 103 Early Hints\r\nlink: <\/a.css>; rel=preload\r\nx-hint: 1\r\n\r\nHTTP\/1.1 104 /)
  t.match(text, /HTTP\/1.1 104 .*\r\nupload-offset: 7\r\nx-two: a\r\nx-two: \xe9\r\n\r\nHTTP\/1.1 200 OK\r\n/)
  t.match(text, /\r\n2\r\nok\r\n0\r\nx-sum: 7\r\nx-two: a\r\n\r\n$/)
  t.match(await raw(port, 'GET / HTTP/1.0\r\n\r\n'), /^HTTP\/1.1 200 OK\r\n/, 'HTTP/1.0 gets no informational response')

  const echo = await echoing(t)
  const client = connect(
    echo.port,
    headerSection('POST', 'Expect: 100-continue', 'Content-Length: 2', 'Connection: close')
  )
  t.equal(await client.until('\r\n\r\n'), 'HTTP/1.1 100 Continue\r\n\r\n')
  client.send('ab')
  const seen = bodyOf((await client.closed).text.replace('HTTP/1.1 100 Continue\r\n\r\n', ''))
  t.equal(seen.body, 'ab')
  t.notOk('expect' in seen.headers)
  t.equal((await get(echo.port, '/', ['Expect: nonsense'])).status, 417)
})

t.test('a response before the end of the request body reaches the client', async (t) => {
  for (const [what, framing] of [
    ['by length', 'Content-Length: 100000'],
    ['chunked', 'Transfer-Encoding: chunked']
  ] as const) {
    const service = await startRawService((socket) => {
      socket.once('data', () =>
        socket.end('HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno')
      )
    })
    t.teardown(service.close)
    const { port } = await before(t, service.url)
    const client = connect(port, headerSection('POST', framing))
    client.send('5\r\nabcde\r\n')
    t.match(parse(await client.until('\r\n\r\nno')), { status: 401 }, what)
    client.socket.destroy()
  }
})

t.test('if the client leaves, the call to the service is aborted at once, and logged once as 499', async (t) => {
  let arrived = 0
  let aborted = 0
  const service = await startRawService((socket) => {
    socket.once('data', () => {
      arrived++
      if (mode === 'streaming') socket.write('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst')
    })
    socket.once('close', () => aborted++)
  })
  t.teardown(service.close)
  let mode = ''
  let waiting = 0
  let responses = 0
  const { promise: held, resolve: release } = Promise.withResolvers<void>()
  const gateway = await before(
    t,
    service.url,
    {},
    {
      log: true,
      before: (server) => {
        server.addHook('onRequest', async (request) => {
          if (request.headers['x-wait'] === undefined) return
          waiting++
          await held
        })
        server.addHook('onResponse', async () => void responses++)
      }
    }
  )
  const lines = () => gateway.log.filter((line) => line.msg === 'request')
  const leave = async (name: string, bytes: string, when: () => boolean) => {
    mode = name
    const before = { lines: lines().length, aborted, responses }
    const client = connect(gateway.port, bytes)
    await eventually(when)
    if (name === 'streaming') await client.until('first')
    client.socket.destroy()
    await eventually(() => lines().length > before.lines)
    if (arrived > 0) await eventually(() => aborted > before.aborted)
    await new Promise((resolve) => setTimeout(resolve, 20))
    t.equal(lines().length, before.lines + 1, `${name}: one line`)
    t.equal(responses, before.responses + 1, `${name}: hooks ran once`)
    t.match(lines().at(-1), { status: 499, error: 'JW_CLIENT_GONE', route: 'all' }, name)
  }
  await leave('in a hook', headerSection('GET', 'X-Wait: 1'), () => waiting === 1)
  release()
  t.equal(arrived, 0, 'the service got no request')
  await leave('waiting', headerSection('GET'), () => arrived === 1)
  await leave('in its body', `${headerSection('POST', 'Content-Length: 10')}abc`, () => arrived === 2)
  await leave(
    'in its chunks',
    `${headerSection('POST', 'Transfer-Encoding: chunked')}3\r\nabc\r\n`,
    () => arrived === 3
  )
  await leave('streaming', headerSection('GET'), () => arrived === 4)
})

t.test('if the service fails after the header section, the client connection is not closed cleanly', async (t) => {
  for (const [what, response] of [
    ['by length', 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart'],
    ['chunked', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n'],
    ['malformed chunk', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzzz\r\n']
  ] as const) {
    const service = await startRawService((socket) => void socket.once('data', () => socket.end(response)))
    t.teardown(service.close)
    const { port, log } = await before(t, service.url, {}, { log: true })
    const { text } = await connect(port, headerSection('GET', 'Connection: close')).closed
    t.match(text, /^HTTP\/1.1 200 OK\r\n/, what)
    t.notMatch(text, /\r\n0\r\n/, what)
    const old = await connect(port, 'GET / HTTP/1.0\r\n\r\n').closed
    if (what !== 'by length') t.ok(old.reset, `${what}: HTTP/1.0 can show it only by a reset`)
    const lines = () => log.filter((line) => line.msg === 'request')
    await eventually(() => lines().length > 1)
    t.match(lines(), [{ status: 200, error: /^JW_UPSTREAM_/ }, { status: 200 }], what)
  }
})

t.test('an unrequested switch of protocols is a failure of the instance, and is retried at another', async (t) => {
  const unasked = 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'
  const odd = await startRawService(responding(unasked))
  const good = await startRawService(responding('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood'))
  const gateway = await startGateway({
    mesh: { balance: 'round-robin', outlierDetection: { consecutive5xx: 2 } },
    services: { any: { instances: [odd.url, good.url] } },
    routes: [{ name: 'any', match: { path: '/' }, service: 'any' }]
  })
  t.teardown(async () => {
    await gateway.close()
    await odd.close()
    await good.close()
  })
  for (let i = 0; i < 6; i++)
    t.match(parse(await raw(gateway.port, headerSection('GET', 'Connection: close'))), { body: 'good' })
  const { instances } = gateway.server.mesh.service('any').status()
  t.match(instances.find(({ origin }) => origin === odd.url)?.concerns, { 'outlier-detection': { ejected: true } })
})

t.test('a 101 without Upgrade is 502 at once', async (t) => {
  const service = await startRawService(responding('HTTP/1.1 101 Switching Protocols\r\nX-Odd: 1\r\n\r\n'))
  t.teardown(service.close)
  const { port } = await before(t, service.url)
  const handshake = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Key: x', 'Sec-WebSocket-Version: 13']
  for (const lines of [['Connection: close'], handshake]) {
    const { status, headers, body } = parse(await raw(port, headerSection('GET', ...lines)))
    t.equal(status, 502)
    t.equal(headers['proxy-status'], 'jingwei; error=http_upgrade_failed')
    t.match(JSON.parse(body), { code: 'JW_BAD_UPGRADE' })
  }
})

t.test(
  'after an early response, the rest of the body is read, and the connection serves the next request',
  async (t) => {
    const service = await startRawService((socket) => {
      socket.once('data', (chunk: Buffer) => {
        const text = chunk.toString('latin1').includes('/next') ? 'ok' : 'no'
        socket.end(`HTTP/1.1 ${text === 'ok' ? 200 : 413} X\r\nContent-Length: 2\r\nConnection: close\r\n\r\n${text}`)
      })
    })
    t.teardown(service.close)
    const { port } = await before(t, service.url, { listen: { timeouts: { bodyIdle: '300ms' } } })
    const next = 'GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n'
    const size = 5_000_000
    const client = connect(port, `${headerSection('POST', `Content-Length: ${size}`)}first`)
    await client.until('\r\n\r\nno')
    client.send(Buffer.alloc(size - 5, 'x'))
    client.send(next)
    t.match((await client.closed).text, /413 [\s\S]+no[\s\S]+200 [\s\S]+ok$/)

    const endless = connect(port, `${headerSection('POST', 'Transfer-Encoding: chunked')}5\r\nfirst\r\n`)
    await endless.until('\r\n\r\nno')
    const drip = setInterval(() => endless.socket.writable && endless.send('1\r\nx\r\n'), 20)
    await endless.closed
    clearInterval(drip)
    t.pass('a body without end is not read for ever')
  }
)
