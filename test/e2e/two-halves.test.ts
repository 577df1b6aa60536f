// slow: starts several processes
/** The halves as two processes: an edge without the mesh, and `jingwei sidecar`, which selects the service by Host. */
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { folderFor } from '../helpers/certificates.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { echo, opcodes, open, startWebSocketService } from '../helpers/edge/websocket.ts'
import { eventually } from '../helpers/eventually.ts'
import { startService } from '../helpers/gateway.ts'
import { start } from '../helpers/processes.ts'
import { startSidecar } from '../helpers/sidecar.ts'

const app = join(import.meta.dirname, '../../app.ts')
const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

/** An edge without the mesh as a process. */
async function startEdge(t: Test, config: object) {
  const file = join(folderFor(t), 'edge.yaml')
  writeFileSync(file, JSON.stringify({ mesh: false, admin: { port: 0 }, ...config }))
  const running = await start({ command: 'node', args: [app, '-c', file], ready: /jingwei is up/, timeout: 60_000 })
  t.teardown(() => running.stop())
  return Number(/^ {2}edge {5}https?:\/\/[^ ]+:(\d+)/m.exec(running.output())![1])
}

t.test('an edge, a sidecar that retries, services: bytes, WebSockets, and a sidecar that ends', async (t) => {
  let failures = 0
  const orders = await startService(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    if (request.url === '/flaky' && failures++ === 0) return void request.socket.destroy()
    response.setHeader('x-host', request.headers.host!)
    response.end(Buffer.concat(chunks).reverse())
  })
  t.teardown(orders.close)
  const chat = await startWebSocketService({ onPeer: echo })
  t.teardown(chat.close)
  const sidecar = await startSidecar(t, {
    outbound: [{}],
    services: { orders: { instances: [orders.url] }, chat: { instances: [chat.url] } }
  })
  const [port] = Object.values(sidecar.ports)
  const config = (listen: object) => ({
    listen: { host: '127.0.0.1', port: 0, drain: { delay: '0s' }, ...listen },
    forward: { sidecar: `http://127.0.0.1:${port}` },
    services: { orders: {}, chat: {} },
    routes: [
      { name: 'orders', match: { path: '/orders' }, service: 'orders', path: { strip: '/orders' } },
      { name: 'chat', match: { path: '/ws' }, service: 'chat' }
    ]
  })
  for (const protocol of protocols) {
    const edge = await startEdge(t, config(listenFor(t, protocol)))
    const client = anyClient(t, protocol, edge)
    const sent = randomBytes(1024 * 1024)
    const { status, headers, body } = await client.ask('/orders/x', {
      method: 'POST',
      body: sent,
      headers: { 'content-length': String(sent.length) }
    })
    t.equal(status, 200, protocol)
    t.equal(headers['x-host'], 'orders', 'the Host by which the sidecar has selected the service')
    t.equal(digest(body), digest(Buffer.from(sent).reverse()), protocol)
    if (protocol !== 'HTTP/1.1') continue
    t.equal((await client.ask('/orders/flaky')).status, 200)
    t.equal(failures, 2, 'the sidecar has retried')
    const { peer } = await open(edge)
    const message = randomBytes(100_000)
    peer.send(opcodes.binary, message)
    t.equal(digest((await peer.frame(0)).payload), digest(message))
    peer.socket.destroy()
    await once(peer.socket, 'close')
  }
  const edge = await startEdge(t, config({}))
  await sidecar.running.stop()
  const client = anyClient(t, 'HTTP/1.1', edge)
  await eventually(async () => (await client.ask('/orders/x')).status === 502)
  t.pass('without its sidecar, the edge responds with 502')
})
