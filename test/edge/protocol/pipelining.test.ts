// slow: takes about 5 s
// Pipelined requests wait for the response to the earlier one.
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { connect, gatewayBefore, startGateway, startRawService, startService } from '../../helpers/gateway.ts'

const slowMs = 150

/** Responds to `/slow` late, and to other paths at once with these bytes, with a pause at each `|`. */
async function gatewayFor(t: Test, response: string): Promise<number> {
  const service = await startRawService((socket: Socket) => {
    socket.on('data', async (chunk: Buffer) => {
      const slow = chunk.toString('latin1').startsWith('GET /slow ')
      for (const part of (slow ? '|HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow' : response).split('|')) {
        if (part !== '') socket.write(part, 'latin1')
        await new Promise((resolve) => setTimeout(resolve, slow ? slowMs : slowMs / 5))
      }
      if (!slow && response.endsWith('|')) socket.end()
    })
  })
  t.teardown(service.close)
  const gateway = await gatewayBefore(t, service.url, { mesh: { retry: false } })
  return gateway.port
}

const get = (path: string, ...lines: string[]) =>
  `GET ${path} HTTP/1.1\r\n${['Host: h', ...lines].map((line) => `${line}\r\n`).join('')}\r\n`
const first = /^HTTP\/1\.1 200 OK\r\n[\s\S]+?\r\n\r\nslow/

t.test('a response that fails while queued closes the connection after the earlier responses', async (t) => {
  for (const response of [
    'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart|',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n|'
  ]) {
    const port = await gatewayFor(t, response)
    const { text } = await connect(port, get('/slow') + get('/fast')).closed
    t.match(text, first, 'earlier responses are complete')
    t.notMatch(text, /\r\n0\r\n/)
    t.notMatch(text, /part[\s\S]*HTTP/)
  }
})

t.test('1xx responses precede the header section of their final response', async (t) => {
  const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab|cd'
  const early = await gatewayFor(
    t,
    `HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${ok}`
  )
  const hinted = await connect(early, get('/slow') + get('/fast', 'Connection: close')).closed
  t.match(hinted.text, /slowHTTP\/1\.1 102 [\s\S]+HTTP\/1\.1 103 [\s\S]+HTTP\/1\.1 200 OK\r\n[\s\S]+\r\n\r\nabcd$/)

  const port = await gatewayFor(t, ok)
  const lines = ['Expect: 100-continue', 'Content-Length: 1', 'Connection: close']
  const { text } = await connect(port, `${get('/slow')}${get('/fast', ...lines)}x`).closed
  t.match(text, /slow(HTTP\/1\.1 100 Continue\r\n\r\n)?HTTP\/1\.1 200 OK\r\n[\s\S]+\r\n\r\nabcd$/)
})

t.test('CONNECT gets no response before that of an earlier request, nor after the last response', async (t) => {
  const port = await gatewayFor(t, 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfast')
  const tunnel = 'CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n'
  t.notMatch((await connect(port, get('/slow') + tunnel).closed).text, /^HTTP\/1\.1 501 /)
  t.notMatch((await connect(port, get('/a/../b') + tunnel).closed).text, ' 501 ')
})

/** A service that holds its responses, and the requests received so far. */
async function recording(t: Test, more: object = {}) {
  const seen: string[] = []
  const held: (() => void)[] = []
  const sockets = new Set<Socket>()
  const service = await startService((request, response) => {
    seen.push(`${request.method} ${request.url}`)
    sockets.add(request.socket)
    request.resume()
    if (request.url === '/held') held.push(() => response.end('held'))
    else response.end('ok')
  })
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      services: { any: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/', methods: ['GET', 'POST'] }, service: 'any' }],
      ...more
    },
    { log: true }
  )
  t.teardown(gateway.close)
  return { ...gateway, seen, held, sockets }
}

t.test('requests of one connection do not run concurrently', async (t) => {
  const { port, seen, held, sockets } = await recording(t)
  const post = 'POST /held HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx'
  const client = connect(port, post + post + get('/a').repeat(300) + get('/last', 'Connection: close'))
  await eventually(() => held.length === 1)
  await sleep(100)
  t.strictSame(seen, ['POST /held'])
  held[0]!()
  await eventually(() => held.length === 2)
  await sleep(100)
  t.equal(seen.length, 2)
  held[1]!()
  const { text } = await client.closed
  t.equal(text.split('HTTP/1.1 200 OK').length - 1, 303)
  t.strictSame(seen, ['POST /held', 'POST /held', ...Array(300).fill('GET /a'), 'GET /last'])
  t.equal(sockets.size, 1, 'a client connection needs one connection to the service')
})

t.test('no more requests are read while others wait', async (t) => {
  const { port, seen, held } = await recording(t)
  const client = connect(port, get('/held'))
  await eventually(() => held.length === 1)
  const many = Buffer.from(get('/a').repeat(20_000))
  for (let i = 0; i < 40; i++) client.socket.write(many)
  await sleep(500)
  t.ok(client.socket.writableLength > 10 * many.length, 'most of the requests stay unread')
  t.strictSame(seen, ['GET /held'])
  held[0]!()
  await eventually(() => seen.length > 1000)
  client.socket.destroy()
})

t.test('when the client leaves, queued requests end, too', async (t) => {
  const { port, seen, held, log } = await recording(t)
  const client = connect(port, get('/held') + get('/b') + get('/c'))
  await eventually(() => held.length === 1)
  await sleep(50)
  client.socket.destroy()
  const lines = () => log.filter(({ msg }) => msg === 'request')
  await eventually(() => lines().length === 3)
  t.strictSame(
    lines().map(({ status }) => status),
    [499, 499, 499]
  )
  await sleep(50)
  t.strictSame(seen, ['GET /held'])
})

t.test('an error that closes the connection does not abort earlier requests', async (t) => {
  const { port, held } = await recording(t)
  for (const last of [get('/%zz'), get('/x', 'Expect: tea'), get('/x', 'Bad')]) {
    const client = connect(port, get('/held') + get('/a') + last + get('/never'))
    await eventually(() => held.length === 1)
    held.pop()!()
    const { text } = await client.closed
    t.match(text, /^HTTP\/1\.1 200 [\s\S]+heldHTTP\/1\.1 200 [\s\S]+okHTTP\/1\.1 4\d\d /)
    t.equal(text.split('HTTP/1.1 ').length, 4)
  }
})

t.test('a client that leaves within a queued request, or while reading is paused, ends all requests', async (t) => {
  const post = 'POST /p HTTP/1.1\r\nHost: h\r\n'
  for (const [what, waiting, count, isRead] of [
    ['a whole body', `${post}Content-Length: 3\r\n\r\nabc`, 2, true],
    ['a part of a body', `${post}Content-Length: 30\r\n\r\nabc`, 2, true],
    ['a part of a head', post, 1, true],
    ['an expectation', `${post}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n`, 2, true],
    ['a large body', `${post}Content-Length: 300000\r\n\r\n${'x'.repeat(300_000)}`, 2, false],
    ['more requests than are read', get('/b').repeat(150), 151, false]
  ] as const) {
    const { port, held, log } = await recording(t)
    for (const leave of ['end', 'destroy'] as const) {
      log.length = 0
      const client = connect(port, get('/held') + waiting)
      await eventually(() => held.length === 1)
      await sleep(50)
      client.socket[leave]()
      // The gateway does not notice the end of a connection that it does not read.
      if (!isRead) held[0]!()
      held.pop()
      const lines = () => log.filter(({ msg }) => msg === 'request')
      await eventually(() => lines().length >= count)
      await client.closed
      if (isRead)
        t.ok(
          lines().every(({ status }) => status === 499),
          `${what}, ${leave}`
        )
    }
  }
})

t.test('attack: queued requests are limited in bytes, which bounds their memory', async (t) => {
  const { port, held, server, log } = await recording(t, { admin: { port: 0 } })
  // About 100 KB of memory for 6 KB.
  const fields = Array.from({ length: 960 }, (_, index) => `${index.toString(36)}:b`)
  const greedy = Buffer.from(get('/held') + get('/a', ...fields).repeat(100))
  const honest = connect(port, get('/held') + get('/honest', 'Connection: close'))
  await eventually(() => held.length === 1)
  const clients = Array.from({ length: 160 }, () => connect(port, greedy))
  const refused = () => log.filter(({ error }) => error === 'pipelining').length
  await eventually(() => refused() > 20)
  t.match(await server.metrics.metrics(), /^jingwei_edge_refused_total\{reason="pipelining",listener="default"\} \d\d/m)
  held.shift()!()
  t.match((await honest.closed).text, /held[\s\S]+ok$/, 'a client with a short queue is served')
  for (const { socket } of clients) socket.destroy()
  // Their connections are not read: the gateway notices their end when it writes a response.
  await eventually(() => {
    for (const end of held.splice(0)) end()
    return server.mesh.status()[0]!.instances[0]!.active === 0
  })
})
