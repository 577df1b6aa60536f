// slow: takes about 3 s
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import type { Client } from '../../helpers/gateway.ts'
import { connect, startGateway, startService } from '../../helpers/gateway.ts'

interface Stream {
  request: IncomingMessage
  response: ServerResponse
  /** Its connection has ended. */
  gone: boolean
}

/** A service that begins a stream of events for each request; the test writes the events. */
async function streaming(t: Test, mesh: object = {}, route: object = {}) {
  const streams: Stream[] = []
  const service = await startService((request, response) => {
    const stream = { request, response, gone: false }
    streams.push(stream)
    response.once('close', () => {
      stream.gone = true
    })
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' }).flushHeaders()
  })
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      mesh,
      services: { events: { instances: [service.url] } },
      routes: [{ name: 'events', match: { path: '/events' }, service: 'events', mesh: route }]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const subscribe = async (...lines: string[]): Promise<[Client, Stream]> => {
    const request = ['GET /events HTTP/1.1', 'Host: h', 'Accept: text/event-stream', ...lines]
    const client = connect(gateway.port, `${request.join('\r\n')}\r\n\r\n`)
    t.teardown(() => client.socket.destroy())
    const index = streams.length
    await eventually(() => streams.length > index)
    return [client, streams[index]!]
  }
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  return { subscribe, lines }
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

t.test('the header section arrives before the first event, each event before the next is written', async (t) => {
  const { subscribe } = await streaming(t)
  const [client, { response }] = await subscribe()
  t.match(await client.until('\r\n\r\n'), /^HTTP\/1\.1 200 OK\r\n[\s\S]*content-type: text\/event-stream\r\n/)
  for (let id = 1; id <= 5; id++) {
    response.write(`id: ${id}\ndata: x\n\n`)
    await client.until(`id: ${id}\n`)
  }
  response.write('data: first half, ')
  await client.until('first half')
  response.end('second half\n\n')
  t.match(await client.until('second half', '\r\n0\r\n\r\n'), /^content-type: text\/event-stream\r$/m)
})

t.test('a client that reconnects sends Last-Event-ID', async (t) => {
  const { subscribe } = await streaming(t)
  const [, { request }] = await subscribe('Last-Event-ID: 41;caf\xe9', 'Cache-Control: no-cache')
  t.match(request.headers, {
    'last-event-id': '41;caf\xe9',
    accept: 'text/event-stream',
    'cache-control': 'no-cache'
  })
})

t.test('when the client leaves, the stream at the service ends, silent or not', async (t) => {
  const { subscribe, lines } = await streaming(t, { idleTimeout: false })
  for (const events of [0, 3]) {
    const [client, stream] = await subscribe()
    await client.until('\r\n\r\n')
    for (let id = 1; id <= events; id++) stream.response.write(`id: ${id}\n\n`)
    if (events > 0) await client.until(`id: ${events}\n`)
    const before = lines().length
    client.socket.destroy()
    await eventually(() => stream.gone && lines().length > before)
    t.match(lines().at(-1), { status: 499, error: 'JW_CLIENT_GONE' })
  }
})

t.test('a service that aborts the stream is an error for the client, not the end of the stream', async (t) => {
  const { subscribe } = await streaming(t)
  const [client, { response }] = await subscribe()
  response.write('id: 1\n\n')
  await client.until('id: 1\n')
  response.destroy()
  t.notMatch((await client.closed).text, /\r\n0\r\n/)
})

t.test('a stream may last longer than a call or an attempt', async (t) => {
  const { subscribe } = await streaming(t, { timeout: '200ms', attemptTimeout: '100ms' })
  const [client, stream] = await subscribe()
  for (let id = 1; id <= 10; id++) {
    await sleep(50)
    stream.response.write(`id: ${id}\n\n`)
    await client.until(`id: ${id}\n`)
  }
  t.notOk(stream.gone)
})

t.test('a stream that is silent for longer than idleTimeout is aborted', async (t) => {
  const { subscribe, lines } = await streaming(t, { idleTimeout: '200ms' })
  const [client, stream] = await subscribe()
  stream.response.write('id: 1\n\n')
  t.notMatch((await client.closed).text, /\r\n0\r\n/, 'the client sees an aborted stream')
  await eventually(() => stream.gone && lines().length === 1)
  t.match(lines(), [{ status: 200, error: 'JW_UPSTREAM_TIMEOUT' }])
})

t.test('a stream on a route with idleTimeout off is not aborted', async (t) => {
  const mesh = { timeout: '100ms', attemptTimeout: '100ms', idleTimeout: '200ms' }
  const { subscribe } = await streaming(t, mesh, { idleTimeout: false })
  const [client, stream] = await subscribe()
  await sleep(1500)
  t.notOk(stream.gone)
  stream.response.end('id: 1\n\n')
  await client.until('id: 1\n', '\r\n0\r\n\r\n')
})
