/** The adaptive limit before a real service. */
import type { ServerResponse } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import { upgrade } from 'undici'
import type { Mesh } from '../../../plugins/mesh/mesh.ts'
import { eventually } from '../../helpers/eventually.ts'
import { meshOf, meterStub, Recorder, service } from '../../helpers/mesh/mesh.ts'
import { policyOf } from '../../helpers/mesh/policy.ts'
import { silent, upstream } from '../../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const get = { origin, path: '/', method: 'GET' } as const

interface Status {
  limit: number
  inFlight: number
  latencyMs: number | null
}
const statusOf = (mesh: Mesh) => mesh.status()[0]!.concerns['adaptive-concurrency'] as Status

function limited(t: Test, url: string, adaptiveConcurrency: object, policy: object = {}) {
  const at = { now: 1_000 }
  const stub = meterStub()
  const services = [service('orders', [url], { ...policyOf({ adaptiveConcurrency, ...policy }) })]
  const mesh = meshOf(t, services, { now: () => at.now, meter: stub.meter })
  const send = (path = '/') => {
    const recorder = new Recorder()
    mesh.dispatch({ ...get, path }, recorder)
    return recorder
  }
  return { mesh, at, send, ...stub }
}

t.test('calls beyond the limit are refused at once; response headers free a slot', async (t) => {
  const held: ServerResponse[] = []
  const { url } = await upstream(t, 'a', (_request, response) => held.push(response))
  const { mesh, send, counts, gauges } = limited(t, url, { initialLimit: 3, minLimit: 1 })
  t.ok(mesh.describe('orders').includes('adaptive-concurrency'))
  const calls = [send(), send(), send()]
  t.match(send().error, { code: 'JW_OVERLOADED', reason: 'overload_adaptive' })
  t.equal(counts['jingwei_mesh_overflows_total{orders,adaptive}'], 1)
  t.match(statusOf(mesh), { mode: 'enforce', limit: 3, inFlight: 3 })
  t.strictSame(gauges.jingwei_mesh_concurrency_limit!(), [[{ service: 'orders' }, 3]])

  await eventually(() => held.length === 3, 'three requests in flight')
  held[0]!.write('a stream that runs on')
  await eventually(() => statusOf(mesh).inFlight === 2, 'the header section of the response')
  const fourth = send()
  t.equal(fourth.error, null)
  await eventually(() => held.length === 4, 'the fourth request')
  for (const response of held) response.end()
  await Promise.all([...calls, fourth].map(({ done }) => done))
  t.match(statusOf(mesh), { inFlight: 0 })
})

t.test('slots are released by aborts, failures and upgrades, too', async (t) => {
  const quiet = await silent(t)
  const { mesh, send } = limited(t, quiet.url, { initialLimit: 5 }, { circuitBreaker: { maxConnections: 2 } })
  const calls = [send(), send(), send(), send(), send()]
  t.match(statusOf(mesh), { inFlight: 5 })
  await eventually(() => quiet.count() === 2, 'two connections')
  // Two wait for a response, three in the queue of the service.
  for (const { controller } of calls) controller.abort(new Error('gone'))
  await eventually(() => statusOf(mesh).inFlight === 0, 'no call in flight')

  const empty = meshOf(t, [service('orders', [], policyOf({ adaptiveConcurrency: {} }))])
  await t.rejects(empty.request(get), { code: 'JW_NO_INSTANCE' })
  t.match(statusOf(empty), { inFlight: 0 })

  const { url, server } = await upstream(t, 'a')
  server.on('upgrade', (_request, socket) =>
    socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n')
  )
  const other = limited(t, url, { initialLimit: 1, minLimit: 1 })
  const { socket } = await upgrade(`${origin}/`, { dispatcher: other.mesh, protocol: 'x' })
  t.match(statusOf(other.mesh), { inFlight: 0 })
  socket.destroy()
})

t.test('the limit follows latency: from the end of the request to the headers, errors aside', async (t) => {
  const held: ServerResponse[] = []
  const { url } = await upstream(t, 'a', (_request, response) => held.push(response))
  const { mesh, at, send } = limited(t, url, { initialLimit: 10, minLimit: 2 })
  /** A window in which all of the limit was in use. */
  const window = async (latencyMs: number, status = 200) => {
    for (let sent = 0; sent < 10; ) {
      const calls = Array.from({ length: statusOf(mesh).limit }, () => send())
      sent += calls.length
      await eventually(() => held.length === calls.length, 'the requests of all calls')
      at.now += latencyMs
      for (const response of held.splice(0)) response.writeHead(status).end()
      await Promise.all(calls.map(({ done }) => done))
    }
    at.now += 1_000
  }
  for (let i = 0; i < 8; i++) await window(10)
  const grown = statusOf(mesh).limit
  t.ok(grown > 10, `${grown}`)
  t.equal(statusOf(mesh).latencyMs, 10)
  for (let i = 0; i < 8; i++) await window(500, 503)
  t.equal(statusOf(mesh).limit, grown, 'errors are not measured')
  for (let i = 0; i < 8; i++) await window(500)
  t.ok(statusOf(mesh).limit < grown, `${statusOf(mesh).limit}`)
})

t.test('an attempt timeout counts as latency, too', async (t) => {
  const { url } = await silent(t)
  const stub = meterStub()
  const policy = { ...policyOf({ adaptiveConcurrency: { window: '1ms' } }), attemptTimeout: 40 }
  const mesh = meshOf(t, [service('orders', [url], policy)], { meter: stub.meter })
  const calls = Array.from({ length: 20 }, () => mesh.request(get))
  for (const call of calls) await t.rejects(call, { code: 'JW_ATTEMPT_TIMEOUT' })
  t.ok(statusOf(mesh).latencyMs! >= 35, `${statusOf(mesh).latencyMs}`)
})

t.test('shadow: counts, and refuses nothing', async (t) => {
  const held: ServerResponse[] = []
  const { url } = await upstream(t, 'a', (_request, response) => held.push(response))
  const { mesh, send, counts } = limited(t, url, { mode: 'shadow', initialLimit: 2, minLimit: 1 })
  const calls = [send(), send(), send(), send(), send()]
  await eventually(() => held.length === 5, 'the requests of all calls')
  t.equal(counts['jingwei_mesh_shadowed_total{orders,adaptive-concurrency}'], 3)
  t.match(statusOf(mesh), { mode: 'shadow', inFlight: 2 })
  for (const response of held) response.end()
  await Promise.all(calls.map(({ done }) => done))
  t.match(statusOf(mesh), { inFlight: 0 })
})
