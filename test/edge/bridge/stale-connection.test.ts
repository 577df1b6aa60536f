import type { Socket } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { gatewayBefore, get, startRawService } from '../../helpers/gateway.ts'

/** A service that responds to the first request of each connection and closes it when a second one arrives. */
async function closing(t: Test, end: (socket: Socket) => void) {
  const seen: string[] = []
  let connections = 0
  const service = await startRawService((socket) => {
    const number = ++connections
    let requests = 0
    socket.on('data', (chunk: Buffer) => {
      seen.push(`${number} ${chunk.toString('latin1').split(' ', 2).join(' ')}`)
      if (++requests === 1) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      else end(socket)
    })
  })
  const gateway = await gatewayBefore(t, service.url)
  t.teardown(service.close)
  return { port: gateway.port, seen }
}

/** A service that has lost its connections: it closes the old ones when they are used, and responds on new ones. */
async function restarting(t: Test, end: (socket: Socket) => void) {
  const seen: string[] = []
  let connections = 0
  let known = 0
  const waiting: Socket[] = []
  const service = await startRawService((socket) => {
    const number = ++connections
    socket.on('data', (chunk: Buffer) => {
      seen.push(`${number} ${chunk.toString('latin1').split(' ', 2).join(' ')}`)
      if (number <= known) end(socket)
      else if (known === 0) waiting.push(socket)
      else socket.write(ok)
    })
  })
  t.teardown(service.close)
  const { port } = await gatewayBefore(t, service.url)
  /** Opens so many idle connections, all of which the service loses. */
  const idle = async (count: number) => {
    const responses = Array.from({ length: count }, () => get(port, '/'))
    await eventually(() => waiting.length === count)
    for (const socket of waiting) socket.write(ok)
    await Promise.all(responses)
    known = connections
    seen.length = 0
  }
  return { port, seen, idle, fresh: () => connections - known }
}

const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

t.test('a retry at another instance may use an idle connection, except the last retry', async (t) => {
  const broken = await startRawService((socket) => socket.once('data', () => socket.resetAndDestroy()))
  t.teardown(broken.close)
  for (const [attempts, afresh] of [
    [2, false],
    [1, true]
  ] as const) {
    let made = 0
    const good = await startRawService((socket) => {
      made++
      socket.on('data', () => socket.write(ok))
    })
    t.teardown(good.close)
    const { port } = await gatewayBefore(t, '', {
      services: { any: { instances: [good.url, broken.url] } },
      mesh: { balance: 'round-robin', retry: { attempts } }
    })
    for (let n = 0; n < 3; n++) t.equal((await get(port, '/')).body, 'ok')
    t.equal(made > 1, afresh)
  }
})

const endings: [string, (socket: Socket) => void][] = [
  ['closes', (socket) => socket.end()],
  ['resets', (socket) => socket.resetAndDestroy()]
]

for (const [how, end] of endings) {
  t.test(`a request gets a new connection, however many the service ${how}`, async (t) => {
    const { port, seen, idle, fresh } = await restarting(t, end)
    await idle(6)
    t.equal((await get(port, '/1')).status, 200)
    t.equal(seen.length, 2, 'the request is sent twice')
    t.equal(fresh(), 1)
    const more = await Promise.all(['/2', '/3', '/4'].map((path) => get(port, path)))
    t.strictSame(more.map(({ status }) => status), [200, 200, 200]) // biome-ignore format: short
  })

  for (const method of ['GET', 'HEAD', 'DELETE', 'OPTIONS']) {
    t.test(`${method} on a connection that the service ${how} is sent again on a new one`, async (t) => {
      const { port, seen } = await closing(t, end)
      t.equal((await get(port, '/1')).status, 200)
      t.equal((await get(port, '/2', [], method)).status, 200)
      t.strictSame(seen, ['1 GET /1', `1 ${method} /2`, `2 ${method} /2`])
    })
  }

  t.test(
    `POST on a connection that the service ${how} is not sent again, since it may have been processed`,
    async (t) => {
      const { port, seen } = await closing(t, end)
      t.equal((await get(port, '/1')).status, 200)
      const { status, headers, body } = await get(port, '/2', ['Content-Length: 0'], 'POST')
      t.equal(status, 502)
      t.equal(headers['proxy-status'], 'jingwei; error=connection_terminated')
      t.match(JSON.parse(body), { message: 'The service closed the connection' })
      t.strictSame(seen, ['1 GET /1', '1 POST /2'])
      t.equal((await get(port, '/3')).status, 200, 'the next request uses a new connection')
    }
  )
}
