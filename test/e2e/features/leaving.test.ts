/** A client that disconnects, in every state of its call: 499, nothing in flight, no failure counted for an instance. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Instance, World } from './support.ts'
import { gatewayOf, headerSection, instances, urls } from './support.ts'

const gone = (method = 'GET') =>
  `jingwei_edge_requests_total{route="orders",method="${method}",status="499",direction="north-south"}`

async function gatewayTo(t: Test, mesh: string) {
  const some = await instances(t, 'a', 'b')
  const spare = (await instances(t, 'spare'))[0]!
  const world = await gatewayOf(
    t,
    `
mesh: { outlierDetection: { consecutive5xx: 1, consecutiveGatewayFailures: 1 } }
services:
  orders: { instances: ${urls(some)}, mesh: { ${mesh} } }
  spare: { instances: [${spare.url}] }
routes: [{ name: orders, match: { path: / }, service: orders }]
`
  )
  return { some, spare, ...world }
}

type Here = World & { some: Instance[]; spare: Instance }

/** Waits until the state of a concern of the service has this value at `key`. */
async function until(world: World, concern: string, key: string, value: number, service = 'orders'): Promise<void> {
  await eventually(
    async () => (await world.service(service)).concerns[concern]?.[key] === value,
    `${concern}: ${key} ${value}`
  )
}

const seen = ({ some }: Here) => some.reduce((sum, each) => sum + each.seen.length, 0)
const has = (world: Here, count: number) => eventually(() => seen(world) === count)

interface State {
  mesh: string
  target?: string
  /** True if an instance fails before the client disconnects. */
  blames?: true
  before?: (world: Here) => Promise<unknown>
  /** Resolves when the call has reached this state; then the client disconnects. */
  there: (world: Here) => Promise<unknown>
}

const bothHold = (world: Here) => eventually(() => world.some.every(({ held }) => held.length === 1))

const states: Record<string, State> = {
  'before the headers': { mesh: '', target: '/?hold', there: (world) => has(world, 1) },
  'between two attempts': {
    // Both instances send Retry-After: the second attempt follows at once, the third waits.
    mesh: 'timeout: 30s, retry: { on: [503], attempts: 2, backoff: { base: 0s, max: 20s } }',
    target: '/?status=503&header=retry-after:15',
    blames: true,
    there: (world) => world.until('jingwei_mesh_retries_total{service="orders",reason="503"}', 2)
  },
  'in the second attempt': {
    mesh: 'balance: round-robin, retry: { on: [reset], backoff: { base: 0s } }',
    target: '/?a.reset&hold',
    blames: true,
    there: ({ some }) => eventually(() => some[1]!.held.length === 1)
  },
  'in two hedged attempts': { mesh: 'hedge: { after: 20ms }', target: '/?hold', there: bothHold },
  'in the delay of a fault': {
    mesh: 'fault: { delay: { for: 1m } }',
    there: (world) => until(world, 'fault', 'active', 1)
  },
  'in the queue of the connection caps': {
    mesh: 'circuitBreaker: { maxConnections: 1 }, fault: { delay: { for: 1s } }',
    before: async (world) => {
      world.begin('/')
      await until(world, 'caps', 'active', 1)
    },
    there: (world) => until(world, 'caps', 'pending', 1)
  },
  'in the queue of the rate limit': {
    mesh: 'limit: { rate: 1, per: 1m, queueTimeout: 2m }, timeout: 3m',
    before: (world) => world.send('/'),
    there: (world) => until(world, 'rate-limit', 'pending', 1)
  },
  'as the only caller of a collapsed call': {
    mesh: 'collapse: true',
    target: '/?hold',
    there: (world) => has(world, 1)
  },
  'in the fallback service': {
    mesh: 'retry: false, fallback: [{ on: [5xx], service: spare }]',
    target: '/?a.status=500&b.status=500&spare.hold',
    blames: true,
    there: ({ spare }) => eventually(() => spare.held.length === 1)
  },
  'with every concern on': {
    mesh: `circuitBreaker: {}, adaptiveConcurrency: {}, limit: { rate: 100 }, hedge: { after: 10ms }, collapse: true,
      fallback: [{ status: 200 }], mirror: { service: spare }, fault: { abort: { status: 500, percent: 0% } },
      healthCheck: { type: tcp }`,
    target: '/?a.hold&b.hold',
    there: bothHold
  }
}

for (const [name, { mesh, target = '/', blames, before, there }] of Object.entries(states)) {
  t.test(`a client disconnects ${name}`, async (t) => {
    const world = await gatewayTo(t, mesh)
    await before?.(world)
    const client = world.begin(target)
    await there(world)
    client.socket.destroy()
    await world.until(gone(), 1)
    await world.idle()
    t.equal(await world.metric('jingwei_mesh_active_requests{service="orders"}'), 0)
    const out = await world.metric('jingwei_mesh_instances{service="orders",state="unavailable"}')
    if (!blames) t.equal(out, 0, 'no instance is ejected')
    t.match(
      world.log.filter(({ status }) => status === 499),
      [{ error: 'JW_CLIENT_GONE', service: name.endsWith('fallback service') ? 'spare' : 'orders' }]
    )
  })
}

t.test('a client disconnects within a response whose bandwidth is limited', async (t) => {
  const world = await gatewayTo(t, 'fault: { bandwidth: { limit: 1kb } }')
  for (const each of world.some) {
    each.respond = (_request, response) => {
      response.setHeader('content-length', 100_000)
      response.write('x'.repeat(50_000))
      return true
    }
  }
  const client = world.begin('/')
  await client.until('xxx')
  t.match((await world.service('orders')).concerns, { fault: { active: 1 } })
  client.socket.destroy()
  await world.idle()
  await eventually(() => world.some.some(({ aborted }) => aborted === 1))
  await world.until('jingwei_mesh_attempts_total{service="orders",outcome="aborted"}', 1)
})

t.test('a client disconnects within its request body, which is buffered for a retry', async (t) => {
  const world = await gatewayTo(t, 'retry: { methods: [PUT] }, hedge: { after: 10ms }')
  const client = world.begin('', `${headerSection('/', ['Content-Length: 1000'], 'PUT')}begin`)
  await eventually(async () => (await world.service('orders')).active === 1)
  client.socket.destroy()
  await world.until(gone('PUT'), 1)
  await world.idle()
  t.equal(seen(world), 0)
})

t.test('two of three callers of a collapsed call disconnect: the third gets the response', async (t) => {
  const world = await gatewayTo(t, 'collapse: true')
  const clients = [1, 2, 3].map(() => world.begin('/?hold'))
  await has(world, 1)
  await eventually(() => clients.every(({ socket }) => socket.bytesWritten > 0))
  await sleep(50)
  clients[0]!.socket.destroy()
  clients[1]!.socket.destroy()
  await world.until(gone(), 2)
  t.equal(seen(world), 1)
  for (const { held } of world.some) for (const response of held) response.end('shared')
  t.match((await clients[2]!.closed).text, /shared/)
  await world.idle()
})

t.test('a client disconnects a WebSocket: the service closes too, and its place is free', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const world = await gatewayOf(
    t,
    `
mesh: { circuitBreaker: {}, outlierDetection: {}, hedge: { after: 10ms }, collapse: true, fallback: [{ status: 200 }] }
services: { orders: { instances: [${service.url}] } }
routes: [{ name: orders, match: { path: / }, service: orders }]
`
  )
  const client = world.begin('', handshake('/ws'))
  await client.until('HTTP/1.1 101')
  t.equal((await world.service('orders')).instances[0]!.active, 1)
  client.socket.destroy()
  await world.idle()
  await service.peers[0]!.closed()
  t.equal(await world.metric('jingwei_edge_websockets{route="orders"}'), 0)
})
