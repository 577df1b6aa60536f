// An instance of a service that registers itself in Consul and injects faults when its control port says so:
//   node instance.ts SERVICE NAME ZONE PORT CONSUL_URL
// SIGTERM: accepts no new connection, completes the requests in flight and exits; it does not deregister.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** Behaviours of an instance. `errors` and `unavailable` are grey failures: its health check passes. */
export type Mood = 'well' | 'slow' | 'errors' | 'unavailable' | 'resetting' | 'refusing'

/** Duration of a response, in milliseconds. */
const workMs = 3
export const slowMs = 250

if (import.meta.main) {
  const [service = '', name = '', zone = '', port = '0', consul = ''] = process.argv.slice(2)
  let mood: Mood = 'well'
  let leaving = false

  const server = createServer({ keepAliveTimeout: 60_000 }, async (request, response) => {
    if (mood === 'resetting') return request.socket.resetAndDestroy()
    if (leaving) response.setHeader('connection', 'close')
    if (request.url === '/health') return response.end('well')
    let body = ''
    for await (const chunk of request) body += String(chunk)
    await sleep(mood === 'slow' ? slowMs : workMs)
    response.statusCode = mood === 'errors' ? 500 : mood === 'unavailable' ? 503 : 200
    response.setHeader('x-instance', name)
    response.end(`${request.method} ${request.url} ${body}`)
  })
  // Ignore the error of a caller that disconnects within its request.
  process.on('unhandledRejection', () => {})

  const listen = () => new Promise<void>((resolve) => server.listen(Number(port), '127.0.0.1', resolve))
  const orders = createServer(async (request, response) => {
    const before = mood
    mood = request.url!.slice(1) as Mood
    if (mood === 'refusing') {
      server.close()
      server.closeAllConnections()
    } else if (before === 'refusing') await listen()
    response.end()
  })

  await listen()
  await fetch(`${consul}/v1/agent/service/register`, {
    method: 'PUT',
    body: JSON.stringify({ ID: name, Name: service, Address: '127.0.0.1', Port: Number(port), Meta: { zone } })
  })
  await new Promise<void>((resolve) => orders.listen(0, '127.0.0.1', resolve))
  console.log(`orders at ${(orders.address() as AddressInfo).port}`)
  process.once('SIGTERM', () => {
    leaving = true
    server.close(() => process.exit(0))
  })
}
