/** A gateway near its limit of descriptors: it sheds load, serves open connections, and ejects no instance. */
import { once } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http2'
import http2 from 'node:http2'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import type { GatewayProcess } from '../helpers/e2e/gateway.ts'
import { asProcess } from '../helpers/e2e/gateway.ts'
import type { Client } from '../helpers/gateway.ts'
import { connect, parse, startService } from '../helpers/gateway.ts'
import { waitFor } from '../helpers/processes.ts'
import { selfSigned } from '../helpers/self-signed.ts'

const descriptors = 256
const headerSection = (method: string, more = '') => `${method} /orders HTTP/1.1\r\nHost: h\r\n${more}\r\n`

/** Everything that would eject an instance, open a circuit or repeat an attempt. */
const mesh = {
  retry: { on: ['connect-failure', 'reset', 'gateway-error', '5xx'] },
  outlierDetection: { consecutive5xx: 1, consecutiveGatewayFailures: 1, maxEjectionPercent: '100%' },
  circuitBreaker: { errorRatio: '10%', minRequests: 1 },
  healthCheck: { path: '/', interval: '100ms', unhealthyThreshold: 1 }
}

/** Starts two instances, which respond at once, but to `/orders/held` only when the test releases it. */
async function gatewayWith(t: Test, listen: object = {}) {
  const held: (() => void)[] = []
  const instances = await Promise.all(
    [1, 2].map(() =>
      startService((request, response) => {
        if (request.url === '/orders/held') held.push(() => response.end('held'))
        else response.end('well')
      })
    )
  )
  for (const instance of instances) t.teardown(instance.close)
  const orders = { instances: instances.map(({ url }) => url) }
  const gateway = await asProcess(t, { services: { orders }, listen, mesh }, descriptors)
  const port = Number(new URL(gateway.url).port)
  return { gateway, port, held }
}

async function metrics(gateway: GatewayProcess): Promise<Map<string, number>> {
  const text = await (await fetch(`${gateway.adminUrl}/metrics`)).text()
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))])
  )
}

async function blamesNobody(t: Test, gateway: GatewayProcess): Promise<Map<string, number>> {
  const values = await metrics(gateway)
  for (const [name, value] of values) {
    if (/^jingwei_mesh_(ejections|retries|circuit_transitions|circuit_refusals|health_flips)_total/.test(name)) {
      t.equal(value, 0, name)
    }
  }
  t.equal(values.get('jingwei_mesh_instances{service="orders",state="available"}'), 2)
  return values
}

/**
 * Resolves when all connections over the limit have been refused. The kernel delivers a burst of them before the
 * first is closed, so for a moment more descriptors are in use than afterwards, and requests are shed, too.
 */
async function refused(closed: () => number, atLeast: number): Promise<void> {
  await waitFor('all connections over the limit to be refused', async () => {
    const before = closed()
    await sleep(500)
    return before >= atLeast && closed() === before
  })
}

t.test(
  'of 300 slow clients, the first are held, the others refused, and open connections are still served',
  async (t) => {
    const { gateway, port } = await gatewayWith(t)
    const good = connect(port, headerSection('GET'))
    t.equal(parse(await good.until('well')).status, 200)
    const slow = Array.from({ length: 300 }, () => connect(port, 'GET /orders HTTP/1.1\r\nX-Slow: '))
    let closed = 0
    for (const client of slow) void client.closed.then(() => closed++)
    await refused(() => closed, 300 - descriptors)
    for (let served = 2; served < 8; served++) {
      good.send(headerSection('GET'))
      await waitFor('its response', () => good.received().split('well').length === served + 1)
    }
    t.equal(good.received().split('HTTP/1.1 200 OK').length, 8, 'an open connection is still served')
    const values = await blamesNobody(t, gateway)
    t.ok(values.get('jingwei_edge_refused_total{reason="descriptors",listener="default"}')! > 40)
    t.equal(values.get('jingwei_mesh_exhausted_total{reason="descriptors"}'), 0, 'descriptors never ran out')
    t.equal(gateway.log().filter(({ msg }) => msg.startsWith('short of file descriptors')).length, 1)
    t.equal((await gateway.health()).status, 'ready')
    for (const { socket } of slow) socket.destroy()
    await waitFor('new connections to be accepted again', async () => {
      const { text } = await connect(port, headerSection('GET', 'Connection: close\r\n')).closed
      return text.endsWith('well')
    })
    good.socket.destroy()
  }
)

t.test('HTTP/2 requests over the limit get 503 with Retry-After, the others their response', async (t) => {
  const { cert, key } = selfSigned(t)
  const { gateway, held } = await gatewayWith(t, { tls: { cert, key }, http2: true })
  const sessions = [1, 2, 3].map(() => http2.connect(gateway.url, { rejectUnauthorized: false }))
  const responses: { headers: IncomingHttpHeaders; body: string }[] = []
  const all = sessions.flatMap((session) =>
    Array.from({ length: 100 }, async () => {
      const stream = session.request({ ':path': '/orders/held' })
      let headers: IncomingHttpHeaders = {}
      let body = ''
      stream.on('response', (given) => {
        headers = given
      })
      stream.setEncoding('utf8').on('data', (text: string) => {
        body += text
      })
      await once(stream, 'close')
      responses.push({ headers, body })
    })
  )
  await waitFor('all to be held or refused', () => held.length + responses.length === 300)
  t.ok(held.length >= 100, `${held.length} are in flight`)
  t.ok(responses.length >= 40, `${responses.length} are refused`)
  for (const { headers, body } of responses) {
    t.match(headers, { ':status': 503, 'retry-after': '1', 'proxy-status': 'jingwei; error=proxy_internal_error' })
    t.match(JSON.parse(body), { statusCode: 503, code: 'JW_OUT_OF_DESCRIPTORS' })
  }
  const refused = responses.length
  const values = await blamesNobody(t, gateway)
  t.ok(values.get('jingwei_edge_shed_total{reason="descriptors"}')! > 0)
  for (const respond of held.splice(0)) respond()
  await Promise.all(all)
  for (const { headers, body } of responses.slice(refused))
    t.match({ ...headers, body }, { ':status': 200, body: 'held' })
  for (const session of sessions) session.destroy()
})

t.test('WebSockets are refused before requests are', async (t) => {
  const { gateway, port } = await gatewayWith(t)
  const handshake = headerSection(
    'GET',
    'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
  )
  // On connections that were opened before the shortage.
  const clients: Client[] = []
  // A few at a time: all at once would need as many connections to services.
  while (clients.length < 150) {
    const some = Array.from({ length: 10 }, () => connect(port, headerSection('GET')))
    for (const client of some) await client.until('well')
    clients.push(...some)
  }
  const slow = Array.from({ length: 100 }, () => connect(port, 'GET /orders HTTP/1.1\r\nX-Slow: '))
  let closed = 0
  for (const client of slow) void client.closed.then(() => closed++)
  await refused(() => closed, 1)
  const [other, ...rest] = clients as [Client, ...Client[]]
  const refusal = /^HTTP\/1.1 503 [\s\S]*retry-after: 1\r\n[\s\S]*"code":"JW_OUT_OF_DESCRIPTORS"/i
  let response = ''
  // Active checks open and close connections, so a descriptor or two may be free for a moment.
  for (const client of rest.slice(0, 20)) {
    const one = connect(port, 'GET /orders HTTP/1.1\r\nX-Slow: ')
    slow.push(one)
    await Promise.race([one.closed, sleep(100)])
    client.send(handshake)
    const { text } = await client.closed
    response = text.slice(text.lastIndexOf('HTTP/1.1'))
    if (refusal.test(response)) break
  }
  t.match(response, refusal)
  other.send(headerSection('GET'))
  await waitFor('a plain request', () => other.received().split('well').length === 3)
  await blamesNobody(t, gateway)
  for (const { socket } of [...clients, ...slow]) socket.destroy()
})
