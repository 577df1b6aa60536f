// slow: takes about 8 s
/** Clients that read their responses slowly, or not at all. */
import { once } from 'node:events'
import http2 from 'node:http2'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { connect, startGateway, startService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

/** More than the kernel buffers for a client that does not read. */
const large = Buffer.alloc(32 * 1024 * 1024, 'x')

async function serving(t: Test, listen: object = {}) {
  const seen = { requests: 0, left: 0 }
  const service = await startService((request, response) => {
    seen.requests++
    response.on('close', () => {
      if (!response.writableFinished) seen.left++
    })
    if (request.url === '/large') response.end(large)
    else if (request.url === '/ticks') {
      const ticking = setInterval(() => response.write('tick'), 30)
      response.once('close', () => clearInterval(ticking))
    } else if (request.url === '/late') setTimeout(() => response.end('late'), 800)
    else response.end(large.subarray(0, 10_000))
  })
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      listen: { timeouts: { sendIdle: '300ms' }, ...listen },
      services: { any: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  return { ...gateway, seen }
}

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: h\r\n\r\n`

t.test('a client that reads nothing of its response is disconnected, and the call to the service ends', async (t) => {
  const { port, seen, log } = await serving(t)
  const client = connect(port, get('/large'))
  client.socket.pause()
  await eventually(() => seen.left === 1)
  await eventually(() => log.some(({ error }) => error === 'JW_CLIENT_GONE'))
  client.socket.resume()
  t.ok((await client.closed).text.length < large.length)
})

t.test('a client that leaves whole responses unread is disconnected', async (t) => {
  const { port, seen } = await serving(t)
  const client = connect(port, get('/').repeat(4000))
  client.socket.pause()
  await eventually(() => seen.requests > 100)
  await sleep(1500)
  const { requests } = seen
  t.ok(requests < 4000)
  client.socket.resume()
  await client.closed
  t.equal(seen.requests, requests)
})

t.test('a slow client is not disconnected, nor the client of a slow service', async (t) => {
  const { port } = await serving(t)
  const client = connect(
    port,
    get('/large') + get('/late') + get('/late').replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')
  )
  for (let pauses = 0; pauses < 10; pauses++) {
    client.socket.pause()
    await sleep(150)
    const until = client.socket.bytesRead + 2 ** 21
    client.socket.resume()
    // The kernel sends a window update only once much of the buffer is free.
    while (client.socket.bytesRead < until) await once(client.socket, 'data')
  }
  const { text } = await client.closed
  t.ok(text.endsWith('late'))
  t.equal(text.split('HTTP/1.1 200').length, 4)
  t.ok(text.length > large.length)
})

t.test('HTTP/2: an unread stream is closed', async (t) => {
  const { port, seen } = await serving(t, { timeouts: { sendIdle: '300ms' }, tls: selfSigned(t), http2: true })
  const client = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  t.teardown(() => client.destroy())
  const stuck = client.request({ ':path': '/large' })
  stuck.on('error', () => {})
  await once(stuck, 'response')
  await eventually(() => seen.left === 1)
  const other = client.request({ ':path': '/large' })
  let bytes = 0
  for await (const chunk of other) bytes += (chunk as Buffer).length
  t.equal(bytes, large.length, 'other streams of its connection continue')
})

t.test('HTTP/2: traffic of another stream does not keep it open', async (t) => {
  const { port, seen } = await serving(t, { timeouts: { sendIdle: '300ms' }, tls: selfSigned(t), http2: true })
  const client = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  t.teardown(() => client.destroy())
  const ticks = client.request({ ':path': '/ticks' }).resume()
  const stuck = client.request({ ':path': '/large' })
  stuck.on('error', () => {})
  await once(stuck, 'response')
  await eventually(() => seen.left === 1)
  await once(ticks, 'data')
  t.notOk(ticks.closed)
})
