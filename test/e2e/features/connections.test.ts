/** Every key of `mesh.connections`, and `mesh.maxHeaderSize`: connections to instances. */
import type { Socket } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { startRawService } from '../../helpers/gateway.ts'
import { gatewayOf } from './support.ts'

/** Service that responds with the number of the request's connection, and with a header of `large` bytes. */
async function counting(t: Test) {
  const sockets = new Set<Socket>()
  let count = 0
  const service = await startRawService((socket) => {
    const body = String(++count)
    sockets.add(socket.on('close', () => sockets.delete(socket)))
    socket.on('data', (chunk) => {
      const size = Number(/large=(\d+)/.exec(String(chunk))?.[1] ?? 0)
      socket.write(`HTTP/1.1 200 OK\r\nX-Large: ${'x'.repeat(size)}\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
    })
  })
  t.teardown(service.close)
  return { url: service.url, sockets }
}

const worldOf = (t: Test, url: string, mesh: string, own = '') =>
  gatewayOf(
    t,
    `
mesh: { retry: false${mesh} }
services:
  orders: { instances: [${url}] }
  own: { instances: [${url}], mesh: { ${own} } }
routes:
  - { name: orders, match: { path: / }, service: orders }
  - { name: own, match: { path: /own }, service: own }
`
  )

t.test('connections.idle, maxAge and maxRequests, for all services and for one', async (t) => {
  const { url, sockets } = await counting(t)
  const connections = ', connections: { idle: 200ms, maxAge: 10s, maxRequests: 2 }'
  const world = await worldOf(t, url, connections, 'connections: { idle: 1m, maxAge: 300ms }')
  const bodies: string[] = []
  for (let i = 0; i < 3; i++) bodies.push((await world.send('/')).body)
  t.strictSame(bodies, ['1', '1', '2'])
  await eventually(() => sockets.size === 0)
  t.strictSame([(await world.send('/own')).body, (await world.send('/own')).body], ['3', '3'])
  await eventually(() => sockets.size === 0)
  t.equal((await world.send('/own')).body, '4')
})

t.test('maxHeaderSize, for all services and for one', async (t) => {
  const { url } = await counting(t)
  const world = await worldOf(t, url, ', maxHeaderSize: 20kb', 'maxHeaderSize: 40kb')
  t.equal((await world.send('/?large=18000')).headers['x-large']?.length, 18_000)
  t.match(await world.send('/?large=22000'), { status: 502, code: 'JW_UPSTREAM_HEADERS_TOO_LARGE' })
  t.equal((await world.send('/own?large=38000')).headers['x-large']?.length, 38_000)
  t.equal((await world.send('/own?large=42000')).status, 502)
})
