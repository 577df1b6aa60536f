/** Caps of a service and of its instances: calls that wait, calls that are refused, and released slots. */
import type { ServerResponse } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import { upgrade } from 'undici'
import type { Mesh } from '../../../plugins/mesh/mesh.ts'
import { eventually } from '../../helpers/eventually.ts'
import { byHand } from '../../helpers/mesh/discovery.ts'
import { meshOf, meterStub, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { policyOf } from '../../helpers/mesh/policy.ts'
import { refused, upstream } from '../../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const get = { origin, path: '/', method: 'GET' } as const
const only = { errorRatio: false, slowRatio: false }

interface Status {
  active: number
  pending: number
}
const statusOf = (mesh: Mesh) => mesh.status()[0]!.concerns.caps as Status

/** A service that holds its responses until the test sends them, and a mesh in front of it. */
async function capped(t: Test, circuitBreaker: object, policy: Parameters<typeof service>[2] = {}) {
  const held: ServerResponse[] = []
  const arrived: string[] = []
  const { url, sockets, server } = await upstream(t, 'a', (request, response) => {
    arrived.push(request.url!)
    held.push(response)
  })
  const stub = meterStub()
  const mesh = meshOf(
    t,
    [service('orders', [url], { ...policyOf({ circuitBreaker: { ...only, ...circuitBreaker } }), ...policy })],
    { meter: stub.meter }
  )
  const send = (path: string) => {
    const recorder = new Recorder()
    mesh.dispatch({ ...get, path }, recorder)
    return recorder
  }
  const overflows = (cap: string) => stub.counts[`jingwei_mesh_overflows_total{orders,${cap}}`] ?? 0
  const pending = () => stub.gauges.jingwei_mesh_pending_requests!()[0]![1]
  return { mesh, held, arrived, send, overflows, pending, sockets, server, ...stub }
}

t.test('caps are not in the chain without a circuit breaker', async (t) => {
  const { url } = await upstream(t, 'a')
  t.notOk(
    meshOf(t, [service('orders', [url])])
      .describe('orders')
      .includes('caps')
  )
})

t.test('service: more than maxConnections wait, in order; more than maxPendingRequests are refused', async (t) => {
  const { mesh, held, arrived, send, overflows, pending, sockets } = await capped(t, {
    maxConnections: 2,
    maxPendingRequests: 3
  })
  const calls = ['/1', '/2', '/3', '/4', '/5'].map(send)
  await eventually(() => held.length === 2, 'two')
  t.match(statusOf(mesh), { active: 2, pending: 3, maxConnections: 2, maxPendingRequests: 3, maxRequests: null })
  t.equal(pending(), 3)
  const refusal = send('/6')
  t.match(refusal.error, { code: 'JW_OVERLOADED', reason: 'overload_pending' }, 'the call is refused synchronously')
  t.strictSame([overflows('maxConnections'), overflows('maxPendingRequests')], [4, 1])

  for (let i = 0; i < 5; i++) {
    await eventually(() => held.length > i, `request ${i + 1} arrives`)
    held[i]!.end('done')
    await calls[i]!.done
    t.equal(calls[i]!.body, 'done')
    t.ok(sockets.size <= 2, `${sockets.size} connections`)
  }
  t.strictSame(arrived.slice(2), ['/3', '/4', '/5'])
  t.match(statusOf(mesh), { active: 0, pending: 0 })
  t.equal(pending(), 0)
})

t.test('service: maxRequests includes waiting calls', async (t) => {
  const { held, send, overflows } = await capped(t, { maxConnections: 1, maxRequests: 3 })
  const calls = ['/1', '/2', '/3'].map(send)
  t.match(send('/4').error, { code: 'JW_OVERLOADED' })
  t.equal(overflows('maxRequests'), 1)
  for (let i = 0; i < 3; i++) {
    await eventually(() => held.length > i, 'the request')
    held[i]!.end()
    await calls[i]!.done
  }
  const again = send('/5')
  await eventually(() => held.length === 4, 'the request that takes the free slot')
  held[3]!.end()
  await again.done
})

t.test('service: maxPendingRequests can be 0', async (t) => {
  const { held, send } = await capped(t, { maxConnections: 1, maxPendingRequests: 0 })
  const first = send('/1')
  t.match(send('/2').error, { code: 'JW_OVERLOADED' })
  await eventually(() => held.length === 1, 'the first request')
  held[0]!.end()
  await first.done
  const second = send('/3')
  await eventually(() => held.length === 2, 'the next request')
  held[1]!.end()
  await second.done
})

t.test('service: a call aborted in the queue frees its slot at once and never reaches the service', async (t) => {
  const { mesh, held, arrived, send, pending } = await capped(t, { maxConnections: 1, maxPendingRequests: 2 })
  const [first, second, third] = ['/1', '/2', '/3'].map(send)
  t.match(send('/4').error, { code: 'JW_OVERLOADED' })
  second!.controller.abort(new Error('gone'))
  t.match(second!.error, { message: 'gone' })
  t.equal(pending(), 1)
  const fifth = send('/5')
  t.equal(fifth.error, null)
  for (let i = 0; i < 3; i++) {
    await eventually(() => held.length > i, 'the request')
    held[i]!.end()
  }
  await Promise.all([first!.done, third!.done, fifth.done])
  t.strictSame(arrived, ['/1', '/3', '/5'])
  t.match(statusOf(mesh), { active: 0, pending: 0 })
})

t.test('service: the wait counts against the deadline, not the attempt timeout', async (t) => {
  const { held, send, pending } = await capped(t, { maxConnections: 1 }, { timeout: 600, attemptTimeout: 100 })
  const first = send('/1')
  await eventually(() => held.length === 1, 'the first request')
  held[0]!.write('begun')
  const waiting = send('/2')
  const later = send('/3')
  setTimeout(() => held[0]!.end(), 300)
  await eventually(() => held.length === 2, 'the second, after more than the attempt timeout')
  held[1]!.write('begun')
  await later.done
  t.match(later.error, { code: 'JW_CALL_TIMEOUT' })
  t.equal(pending(), 0)
  held[1]!.end()
  await Promise.all([first.done, waiting.done])
  t.equal(waiting.error, null)
})

t.test('service: an upgraded connection uses a slot until its socket closes', async (t) => {
  const { mesh, held, send, server } = await capped(t, { maxConnections: 1 })
  server.on('upgrade', (_request, socket) => {
    socket.on('error', () => {})
    socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n')
  })
  const { socket } = await upgrade(`${origin}/`, { dispatcher: mesh, protocol: 'x' })
  const waiting = send('/1')
  t.match(statusOf(mesh), { active: 1, pending: 1 })
  socket.destroy()
  await eventually(() => held.length === 1, 'the request that takes the slot')
  held[0]!.end()
  await waiting.done
  t.match(statusOf(mesh), { active: 0, pending: 0 })
})

t.test('service: slots are released at any end of an attempt, also if thousands fail at once', async (t) => {
  const mesh = meshOf(t, [
    service('orders', [], policyOf({ circuitBreaker: { ...only, maxConnections: 1, maxPendingRequests: 20_000 } }))
  ])
  for (let i = 0; i < 3; i++) await t.rejects(mesh.request(get), { code: 'JW_NO_INSTANCE' })
  const dead = meshOf(t, [
    service('orders', [await refused()], policyOf({ circuitBreaker: { ...only, maxConnections: 1 } }))
  ])
  const calls = Array.from({ length: 50 }, () => dead.request(get))
  for (const call of calls) await t.rejects(call, { code: 'JW_UPSTREAM_REFUSED' })
  t.match(statusOf(dead), { active: 0, pending: 0 })

  const { discovery, publish } = byHand()
  const held: ServerResponse[] = []
  const { url } = await upstream(t, 'a', (_request, response) => held.push(response))
  const policy = policyOf({ circuitBreaker: { ...only, maxConnections: 1, maxPendingRequests: 5_000 } })
  const full = meshOf(t, [service('orders', [], policy)], { discovery })
  publish('orders', [url])
  const first = full.request(get)
  await eventually(() => held.length === 1, 'the first request')
  const waiting = Array.from({ length: 5_000 }, () => {
    const recorder = new Recorder()
    full.dispatch(get, recorder)
    return recorder
  })
  // The instance is removed, so each attempt fails in the event-loop iteration in which it gets its slot.
  publish('orders', [])
  held[0]!.end()
  await (await first).body.dump()
  await eventually(() => statusOf(full).pending === 0, 'the queue to be empty')
  t.ok(waiting.every(({ error }) => error?.code === 'JW_NO_INSTANCE'))
  t.match(statusOf(full), { active: 0 })
})

t.test('service: a retry needs a slot of its own', async (t) => {
  const { held, arrived, send } = await capped(
    t,
    { maxConnections: 1 },
    { retry: { ...retryOptions, on: [503], backoff: { base: 1, max: 1 } } }
  )
  const first = send('/1')
  const second = send('/2')
  await eventually(() => held.length === 1, 'the first request')
  held[0]!.writeHead(503).end()
  await eventually(() => held.length === 2, 'the second request')
  held[1]!.end()
  await eventually(() => held.length === 3, 'the retry')
  held[2]!.end()
  await Promise.all([first.done, second.done])
  t.strictSame(arrived, ['/1', '/2', '/1'])
})

t.test('instance: at its cap it is skipped, and calls are refused when both are at their caps', async (t) => {
  const held: ServerResponse[] = []
  const at: string[] = []
  const take = (name: string) => (_request: unknown, response: ServerResponse) => {
    at.push(name)
    held.push(response)
  }
  const a = await upstream(t, 'a', take('a'))
  const b = await upstream(t, 'b', take('b'))
  const { meter, counts } = meterStub()
  const perInstance = { maxConnections: 1, maxPendingRequests: 0 }
  const mesh = meshOf(
    t,
    [
      service('orders', [a.url, { url: b.url, weight: 1 }], {
        ...policyOf({ circuitBreaker: { ...only, perInstance } }),
        balance: 'round-robin'
      })
    ],
    { meter }
  )
  const send = () => {
    const recorder = new Recorder()
    mesh.dispatch(get, recorder)
    return recorder
  }
  const first = send()
  await eventually(() => at.length === 1, 'the first request')
  const second = send()
  await eventually(() => at.length === 2, 'the second request')
  t.strictSame(at.toSorted(), ['a', 'b'])
  t.match(send().error, { code: 'JW_OVERLOADED', reason: 'overload_instances' })
  t.equal(counts['jingwei_mesh_overflows_total{orders,instance}'], 1)
  // The instance with a free slot gets the call, whichever the balancer would pick.
  for (let i = 0; i < 3; i++) {
    const freed = at[1]!
    held[1 + i]!.end()
    await eventually(() => mesh.status()[0]!.active === 1, 'room')
    send()
    await eventually(() => at.length === 3 + i, 'the next request')
    t.equal(at.at(-1), freed)
  }
  for (const response of held) response.end()
  await Promise.all([first.done, second.done])
})

t.test('instance: waiting calls are served in order; an aborted call is removed at once', async (t) => {
  const { mesh, held, arrived, send, pending, overflows } = await capped(t, {
    perInstance: { maxConnections: 1, maxPendingRequests: 2 }
  })
  const calls = ['/1', '/2', '/3'].map(send)
  await eventually(() => held.length === 1, 'the first request')
  t.equal(pending(), 2)
  t.match(mesh.status()[0]!.instances[0], { active: 3, concerns: { caps: { maxConnections: 1, pending: 2 } } })
  t.match(send('/4').error, { code: 'JW_OVERLOADED' })
  t.equal(overflows('instance'), 1)
  calls[1]!.controller.abort(new Error('gone'))
  t.equal(pending(), 1, 'the aborted call leaves the queue')
  const fifth = send('/5')
  t.equal(fifth.error, null)
  for (let i = 0; i < 3; i++) {
    await eventually(() => held.length > i, 'the request')
    held[i]!.end()
  }
  await Promise.all([calls[0]!.done, calls[2]!.done, fifth.done])
  t.strictSame(arrived, ['/1', '/3', '/5'])
  t.equal(mesh.status()[0]!.instances[0]!.active, 0)
})

t.test('instance: perInstance has its own maxRequests', async (t) => {
  const { held, send } = await capped(t, { perInstance: { maxConnections: 2, maxRequests: 3 } })
  const calls = ['/1', '/2', '/3'].map(send)
  t.match(send('/4').error, { code: 'JW_OVERLOADED' })
  for (let i = 0; i < 3; i++) {
    await eventually(() => held.length > i, 'the request')
    held[i]!.end()
  }
  await Promise.all(calls.map(({ done }) => done))
})

t.test('shadow: counts calls that would be refused, and refuses none', async (t) => {
  const { mesh, held, send, counts } = await capped(t, { mode: 'shadow', maxConnections: 1, maxPendingRequests: 1 })
  const shadowed = () => counts['jingwei_mesh_shadowed_total{orders,caps}'] ?? 0
  const calls = ['/1', '/2', '/3', '/4'].map(send)
  await eventually(() => held.length === 4, 'the requests of all calls')
  t.equal(shadowed(), 2)
  t.match(statusOf(mesh), { mode: 'shadow', active: 2 })
  for (const response of held) response.end()
  await Promise.all(calls.map(({ done }) => done))
  t.match(statusOf(mesh), { active: 0 })

  const instance = await capped(t, { mode: 'shadow', perInstance: { maxConnections: 1, maxPendingRequests: 0 } })
  const both = ['/1', '/2'].map(instance.send)
  await eventually(() => instance.held.length === 2, 'both, on connections of their own')
  t.equal(instance.counts['jingwei_mesh_shadowed_total{orders,caps}'], 1)
  for (const response of instance.held) response.end()
  await Promise.all(both.map(({ done }) => done))
})
