import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { gateway as plugin } from '../../../app.ts'
import { eventually } from '../../helpers/eventually.ts' // biome-ignore format: a list
import {
  configOf,
  connect,
  parse,
  startEcho,
  startGateway,
  startRawService,
  startService
} from '../../helpers/gateway.ts'

const headerSection = (target: string, ...lines: string[]) =>
  `${[`POST ${target} HTTP/1.1`, 'Host: h', 'Expect: 100-continue', ...lines].join('\r\n')}\r\n\r\n`
const goOn = 'HTTP/1.1 100 Continue\r\n\r\n'

const configure = (url: string) => ({
  edge: { bodyLimit: '1kb' },
  mesh: { retry: false, connectTimeout: '5s' },
  services: { any: { instances: [url] }, none: { instances: ['http://127.0.0.1:1'] } },
  routes: [
    { name: 'open', match: { path: '/open', methods: ['POST'] }, service: 'any' },
    { name: 'closed', match: { path: '/closed' }, service: 'any', edge: { jwt: { secret: 'x'.repeat(32) } } },
    { name: 'scarce', match: { path: '/scarce' }, service: 'any', edge: { rateLimit: { max: 1, window: '1m' } } },
    { name: 'down', match: { path: '/down' }, service: 'none' }
  ]
})

async function echoing(t: Test, listen: object = {}) {
  const echo = await startEcho()
  t.teardown(echo.close)
  const gateway = await startGateway({ ...configure(echo.url), listen }, { log: true })
  t.teardown(gateway.close)
  return gateway
}

t.test('a refused request gets its status without 100 Continue, and the connection is closed', async (t) => {
  const { port, log } = await echoing(t)
  const length = 'Content-Length: 3'
  const first = connect(port, headerSection('/scarce', length))
  await first.until(goOn)
  first.send('abc')
  await first.until('200 OK')
  first.socket.destroy()
  for (const [status, bytes] of [
    [401, headerSection('/closed', length)],
    [413, headerSection('/open', 'Content-Length: 1025')],
    [429, headerSection('/scarce', length)],
    [404, headerSection('/nowhere', length)],
    [404, headerSection('/nowhere', 'Transfer-Encoding: chunked', 'Content-Type: application/json')],
    [405, headerSection('/open', length).replace('POST', 'PUT')],
    [400, headerSection('/open/../x', length)],
    [400, headerSection('/open', length, 'Host: twice')],
    [502, headerSection('/down', length)],
    [502, headerSection('/down', 'Transfer-Encoding: chunked')]
  ] as const) {
    const { text } = await connect(port, bytes).closed
    const response = parse(text)
    t.equal(response.status, status, bytes)
    t.equal(response.headers.connection, 'close')
    t.equal(text.split('HTTP/1.1 ').length, 2, 'one response is sent')
    t.equal((JSON.parse(response.body) as { statusCode: number }).statusCode, status)
  }
  await eventually(() => log.filter(({ msg }) => msg === 'request').length === 11)
})

t.test('bytes after a refusal are an unsolicited body, never the next request', async (t) => {
  const { port } = await echoing(t)
  const smuggled = 'GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n'
  for (const target of ['/closed', '/nowhere']) {
    const client = connect(port, headerSection(target, `Content-Length: ${smuggled.length}`) + smuggled)
    t.equal((await client.closed).text.split('HTTP/1.1 ').length, 2, 'one response is sent')
  }
})

t.test('an accepted request gets 100 Continue when the service is ready for the body', async (t) => {
  const { port } = await echoing(t)
  for (const [framing, body] of [
    ['Content-Length: 3', 'abc'],
    ['Transfer-Encoding: chunked', '3\r\nabc\r\n0\r\n\r\n']
  ] as const) {
    const client = connect(port, headerSection('/open', framing))
    t.equal(await client.until('\r\n\r\n'), goOn)
    await sleep(50)
    t.equal(client.received(), goOn, 'the response waits for the body')
    client.send(body)
    const text = await client.until('"body":"abc"')
    t.match(text.slice(goOn.length), /^HTTP\/1\.1 200 OK/)
    t.notMatch(text, /"expect"/i)
    client.send(`${headerSection('/open', framing, 'Connection: close')}${body}`)
    const { text: both } = await client.closed
    t.equal(both.split('HTTP/1.1 200 OK').length, 3, 'the connection stays open for the next')
  }
})

t.test('100 Continue is not sent before the request is sent to the service', async (t) => {
  const service = await startRawService((socket) => {
    socket.on('data', (chunk: Buffer) => {
      if (chunk.toString().endsWith('abc')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    })
  })
  t.teardown(service.close)
  const { promise: held, resolve: release } = Promise.withResolvers<void>()
  const config = { ...configure(service.url), listen: { timeouts: { bodyIdle: '100ms' } } }
  const gateway = await startGateway(config, {
    before: (server) => void server.addHook('preHandler', () => held)
  })
  t.teardown(gateway.close)
  for (const framing of ['Content-Length: 3', 'Transfer-Encoding: chunked']) {
    const client = connect(gateway.port, headerSection('/open', framing))
    await sleep(300)
    t.equal(client.received(), '', 'the wait does not count as a stall of the client')
    client.socket.destroy()
  }
  const client = connect(gateway.port, headerSection('/open', 'Content-Length: 3'))
  release()
  t.equal(await client.until('\r\n\r\n'), goOn)
  client.send('abc')
  await client.until('200 OK')
  client.socket.destroy()
})

t.test('a body that arrives before 100 Continue does not need one', async (t) => {
  const { port } = await echoing(t)
  const { text } = await connect(port, `${headerSection('/open', 'Content-Length: 3', 'Connection: close')}abc`).closed
  t.match(text.replace(goOn, ''), /^HTTP\/1\.1 200 OK[\s\S]+"body":"abc"/)
})

t.test('a body that is sent at once leaves the connection open for the next request', async (t) => {
  const { port } = await echoing(t)
  for (const [framing, body] of [
    ['Content-Length: 3', 'abc'],
    ['Transfer-Encoding: chunked', '3\r\nabc\r\n0\r\n\r\n']
  ] as const) {
    const client = connect(port, headerSection('/open', framing) + body)
    const text = await client.until('"body":"abc"')
    t.notMatch(text, /connection: close/i)
    client.send(headerSection('/open', framing) + body + headerSection('/open', framing, 'Connection: close') + body)
    const { text: all } = await client.closed
    t.equal(all.split('HTTP/1.1 200 OK').length, 4)
    t.notMatch(all.slice(0, all.lastIndexOf('HTTP/1.1 200 OK')), /connection: close/i)
  }
})

t.test('no 100 Continue is sent to HTTP/1.0, nor without a body', async (t) => {
  const { port } = await echoing(t)
  const old = connect(port, `${headerSection('/open', 'Content-Length: 3').replace('HTTP/1.1', 'HTTP/1.0')}abc`)
  t.match((await old.closed).text, /^HTTP\/1\.1 200 OK/)
  const empty = connect(port, headerSection('/open', 'Content-Length: 0', 'Connection: close'))
  t.match((await empty.closed).text, /^HTTP\/1\.1 200 OK/)
})

t.test('the response of a service that has not read the body reaches the client', async (t) => {
  const service = await startRawService((socket) => {
    socket.once('data', () => socket.end('HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno'))
  })
  t.teardown(service.close)
  const gateway = await startGateway(configure(service.url))
  t.teardown(gateway.close)
  const client = connect(gateway.port, headerSection('/open', 'Content-Length: 1000', 'Connection: close'))
  await client.until(goOn)
  client.send('x')
  t.match((await client.closed).text, /413 Too Large[\s\S]+no$/)
})

t.test('another expectation is 417', async (t) => {
  const { port } = await echoing(t)
  for (const value of ['nonsense', '200-ok', '100-continued']) {
    const client = connect(port, headerSection('/open', 'Content-Length: 3').replace('100-continue', value))
    t.match(parse((await client.closed).text), { status: 417, headers: { connection: 'close' } }, value)
  }
})

t.test('routes of an embedding server get 100 Continue when they read, and its own listener stays', async (t) => {
  const echo = await startService((request, response) => void request.resume().on('end', () => response.end('ok')))
  t.teardown(echo.close)
  for (const own of [false, true]) {
    const server = Fastify()
    let requests = 0
    if (own) {
      server.server.on('checkContinue', (request, response) => {
        requests++
        response.writeContinue()
        server.server.emit('request', request, response)
      })
    }
    server.post('/mine', async (request) => ({ got: request.body }))
    await server.register(plugin as never, { ...configOf(configure(echo.url)), prefix: '/' })
    await server.listen({ host: '127.0.0.1', port: 0 })
    t.teardown(() => server.close())
    const { port } = server.server.address() as AddressInfo
    for (const target of ['/mine', '/open']) {
      const request = http.request({
        port, method: 'POST', path: target, agent: false,
        headers: { expect: '100-continue', 'content-type': 'application/json', 'content-length': 7 }
      }) // biome-ignore format: short
      request.flushHeaders()
      await once(request, 'continue')
      request.end('{"a":1}')
      const [response] = (await once(request, 'response')) as [http.IncomingMessage]
      t.equal(response.statusCode, 200, target)
      response.resume()
    }
    t.equal(requests, own ? 2 : 0)
  }
})
