/** Clients that reset their connection before the gateway has read their address. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { gatewayBefore, get, startService } from '../../helpers/gateway.ts'
import { ask as askSocket, running } from '../../helpers/listeners.ts'

/** Connects, sends a request, and resets the connection. */
const program = `
const { workerData: { port, done } } = require('node:worker_threads')
const end = () => {
  Atomics.store(done, 0, 1)
  Atomics.notify(done, 0)
}
const socket = require('node:net').connect(port, '127.0.0.1', () => {
  socket.write('GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n', () => {
    socket.once('close', () => setTimeout(end, 20)).resetAndDestroy()
  })
})`

/** Blocks this thread, in which the gateway runs, until the connection has been reset. */
async function resetClient(port: number): Promise<void> {
  const done = new Int32Array(new SharedArrayBuffer(4))
  const worker = new Worker(program, { eval: true, workerData: { port, done } })
  Atomics.wait(done, 0, 0, 20_000)
  await worker.terminate()
}

t.test('a request of a client without an address, which has gone, does nothing', async (t) => {
  let asked = 0
  const service = await startService((_request, response) => {
    asked++
    response.end('x')
  })
  t.teardown(service.close)
  const edge = { rateLimit: { max: 2, window: '1m' } }
  const gateway = await gatewayBefore(t, service.url, { edge }, { log: true })
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  for (let i = 0; i < 4; i++) {
    await resetClient(gateway.port)
    await eventually(() => lines().length === i + 1)
  }
  for (const line of lines()) t.match(line, { ip: '', status: 499, error: 'JW_CLIENT_GONE', reason: undefined })
  t.equal(asked, 0, 'the service has no request of them')
  t.equal((await get(gateway.port, '/')).status, 200)
})

t.test('clients at a Unix socket have no address, and are served', async (t) => {
  const service = await startService((_request, response) => response.end('x'))
  t.teardown(service.close)
  const folder = mkdtempSync(join(tmpdir(), 'jingwei-reset-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  await running(t, folder, {
    listen: [{ name: 'local', path: 'gateway.sock' }],
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  })
  t.equal((await askSocket({ socketPath: join(folder, 'gateway.sock'), path: '/' })).status, 200)
})
