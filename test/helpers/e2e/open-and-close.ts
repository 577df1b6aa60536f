// A program for handles.test.ts: a gateway is built, used and closed, and nothing else is done to end the process.
//   node open-and-close.ts CONSUL_URL built|ready|used
import { Agent, request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { build } from '../../../app.ts'
import { parseConfig } from '../../../plugins/config.ts'

const [consul = '', stage = 'used'] = process.argv.slice(2)
const resources = () => process.getActiveResourcesInfo().sort()

const yaml = {
  listen: { host: '127.0.0.1', port: 0 },
  admin: { host: '127.0.0.1', port: 0 },
  discovery: { consul: { url: consul } },
  redis: { url: 'redis://127.0.0.1:9' },
  edge: { rateLimit: { max: 1_000_000, window: '1m', store: 'redis' } },
  services: {
    orders: {},
    absent: {},
    legacy: { dns: { host: 'legacy.internal', port: 80, server: '127.0.0.1:9' } }
  },
  routes: [{ name: 'orders', match: { path: '/orders' }, service: 'orders' }]
}

const before = resources()
const server = build(parseConfig(JSON.stringify(yaml), join(tmpdir(), 'gateway.yaml')), { logger: false })
await server.after()

if (stage !== 'built') {
  await server.listen({ host: '127.0.0.1', port: 0 })
  await server.admin!.listen({ host: '127.0.0.1', port: 0 })
}
let unanswered: Promise<unknown> = Promise.resolve()
if (stage === 'used') {
  const { port } = server.server.address() as AddressInfo
  const { port: adminPort } = server.admin!.server.address() as AddressInfo
  // Neither the agent nor its connections are closed here: the gateway has to close them.
  const agent = new Agent({ keepAlive: true })
  const get = (path: string, to = port) =>
    new Promise<number>((resolve, reject) => {
      const request = httpRequest({ host: '127.0.0.1', port: to, path, agent }, (response) => {
        response.resume().once('end', () => resolve(response.statusCode!))
      })
      request.once('error', reject).end()
    })
  while (server.mesh.status()[0]!.instances.length === 0) await sleep(10)
  const statuses = await Promise.all(Array.from({ length: 20 }, () => get('/orders')))
  if (statuses.some((status) => status !== 200)) throw new Error(`statuses: ${statuses}`)
  if ((await get('/metrics', adminPort)) !== 200) throw new Error('no metrics')
  unanswered = get('/orders?delay=700') // in flight as the gateway closes
  await sleep(100)
}
const began = performance.now()
await Promise.all([server.close(), server.close()])
const took = performance.now() - began
if ((await unanswered) !== (stage === 'used' ? 200 : undefined)) throw new Error('the request in flight was lost')
// Sockets emit `close` in later event-loop iterations, and ioredis holds a timer for 2 s after a lost connection.
const settled = () => String(resources()) === String(before)
for (let waited = 0; waited < 3000 && (await sleep(50, !settled())); waited += 50);
console.log(JSON.stringify({ before, after: resources(), took }))
