/** Metrics of the mesh: every attempt under exactly one outcome, every call once. */
import type { ServerResponse } from 'node:http'
import t from 'tap'
import { upgrade } from 'undici'
import type { MeshPolicy } from '../../../config/schema.ts'
import { eventually } from '../../helpers/eventually.ts'
import { meshOf, meterStub, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { connecting, raw, refused, resetting, silent, upstream } from '../../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const get = { origin, path: '/', method: 'GET' } as const

function outcomesOf(counts: Record<string, number>) {
  const name = 'jingwei_mesh_attempts_total{orders,'
  const own = Object.entries(counts).filter(([key]) => key.startsWith(name))
  return Object.fromEntries(own.map(([key, value]) => [key.slice(name.length, -1), value]))
}

t.test('attempts are counted by outcome', async (t) => {
  const status = (code: number) =>
    upstream(t, 'any', (_request, response) => {
      response.statusCode = code
      response.end()
    })
  const broken = await raw(t, (socket) =>
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart')
      setTimeout(() => socket.resetAndDestroy(), 20)
    })
  )
  const nonsense = await raw(t, (socket) => socket.once('data', () => socket.end('SSH-2.0-OpenSSH\r\n')))
  const cases: [outcome: string, url: string, policy?: Partial<MeshPolicy>][] = [
    ['success', (await status(200)).url],
    ['success', (await status(304)).url],
    ['4xx', (await status(404)).url],
    ['5xx', (await status(503)).url],
    ['connect-failure', await refused()],
    ['connect-failure', (await connecting(t)).url, { connectTimeout: 50 }],
    ['connect-failure', (await upstream(t, 'not TLS')).url.replace('http:', 'https:')],
    ['reset', (await resetting(t)).url],
    ['reset', broken.url],
    ['timeout', (await silent(t)).url, { attemptTimeout: 50 }],
    ['timeout', (await silent(t)).url, { timeout: 50 }],
    ['timeout', (await connecting(t)).url, { attemptTimeout: 50 }],
    ['reset', nonsense.url]
  ]
  for (const [outcome, url, policy] of cases) {
    const { meter, counts, observed } = meterStub()
    const mesh = meshOf(t, [service('orders', [url], policy)], { meter })
    const recorder = new Recorder()
    mesh.dispatch(get, recorder)
    await recorder.done
    t.strictSame(outcomesOf(counts), { [outcome]: 1 }, `${outcome} ${JSON.stringify(policy ?? {})}`)
    t.equal(observed['jingwei_mesh_request_duration_seconds{orders}']?.length, 1)
    await mesh.destroy()
  }
})

t.test('an abort by the caller counts against no instance, in the queue and in the response', async (t) => {
  const held: ServerResponse[] = []
  const slow = await upstream(t, 'slow', (_request, response) => held.push(response))
  const { meter, counts } = meterStub()
  const mesh = meshOf(t, [service('orders', [slow.url])], { meter })
  const recorders = [new Recorder(), new Recorder()]
  for (const recorder of recorders) mesh.dispatch(get, recorder)
  await eventually(() => held.length === 2, 'both requests in flight')
  held[0]!.write('part')
  await eventually(() => recorders.some(({ body }) => body === 'part'), 'the first bytes')
  for (const { controller } of recorders) controller.abort(new Error('left'))
  t.strictSame(outcomesOf(counts), { aborted: 2 })

  const queued = meterStub()
  const stuck = await connecting(t)
  const policy = { attemptTimeout: 80 }
  const waiting = meshOf(t, [service('orders', [stuck.url], policy)], { meter: queued.meter })
  const recorder = new Recorder()
  waiting.dispatch(get, recorder)
  recorder.controller.abort(new Error('left'))
  await eventually(() => Object.keys(outcomesOf(queued.counts)).length > 0, 'the outcome of the attempt')
  t.strictSame(outcomesOf(queued.counts), { aborted: 1 })
})

t.test('with retries, each attempt has its own outcome, and the call is counted once', async (t) => {
  let count = 0
  const { url } = await upstream(t, 'busy', (_request, response) => {
    response.statusCode = ++count < 3 ? 503 : 200
    response.end(count === 1 ? 'x'.repeat(500_000) : 'x')
  })
  const { meter, counts, observed } = meterStub()
  const mesh = meshOf(t, [service('orders', [url], { retry: { ...retryOptions, on: [503] } })], { meter })
  await (await mesh.request(get)).body.dump()
  t.strictSame(outcomesOf(counts), { '5xx': 2, success: 1 }, 'one attempt is aborted, since its caller has left')
  t.equal(counts['jingwei_mesh_retries_total{orders,503}'], 2)
  t.equal(observed['jingwei_mesh_request_duration_seconds{orders}']?.length, 1)
})

t.test('durations are measured by the mesh’s clock, to the end of the body', async (t) => {
  let clock = 1000
  const { url } = await upstream(t, 'a', (_request, response) => {
    response.write('part')
    setTimeout(() => {
      clock = 3500
      response.end()
    }, 20)
  })
  const { meter, observed } = meterStub()
  const mesh = meshOf(t, [service('orders', [url])], { meter, now: () => clock })
  await (await mesh.request(get)).body.dump()
  t.strictSame(observed['jingwei_mesh_request_duration_seconds{orders}'], [2.5])
})

t.test('an upgrade is a success, timed to the switch', async (t) => {
  const { url, server } = await upstream(t, 'upgrades')
  server.on('upgrade', (_request, socket) => {
    socket.end('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n')
  })
  const { meter, counts, observed } = meterStub()
  const mesh = meshOf(t, [service('orders', [url])], { meter })
  const { socket } = await upgrade(origin, { dispatcher: mesh, protocol: 'echo' })
  socket.destroy()
  t.strictSame(outcomesOf(counts), { success: 1 })
  t.equal(observed['jingwei_mesh_request_duration_seconds{orders}']?.length, 1)
})

t.test('gauges show the state of the services', async (t) => {
  const { url } = await silent(t)
  const { meter, gauges } = meterStub()
  let clock = 0
  const mesh = meshOf(t, [service('orders', [url, 'http://127.0.0.1:1']), service('users', [url])], {
    meter,
    now: () => clock
  })
  const recorder = new Recorder()
  mesh.dispatch(get, recorder)
  clock = 5000
  t.strictSame(gauges.jingwei_mesh_instances!(), [
    [{ service: 'orders', state: 'available' }, 2],
    [{ service: 'orders', state: 'unavailable' }, 0],
    [{ service: 'users', state: 'available' }, 1],
    [{ service: 'users', state: 'unavailable' }, 0]
  ])
  t.strictSame(gauges.jingwei_mesh_active_requests!(), [
    [{ service: 'orders' }, 1],
    [{ service: 'users' }, 0]
  ])
  t.strictSame(gauges.jingwei_mesh_discovery_up!()[0], [{ service: 'orders' }, 1])
  t.strictSame(gauges.jingwei_mesh_discovery_age_seconds!()[0], [{ service: 'orders' }, 0], 'a static list has age 0')
  recorder.controller.abort(new Error('seen'))
})

t.test('without a meter, telemetry is not in the chain', async (t) => {
  const config = service('orders', ['http://127.0.0.1:1'])
  t.notOk(
    meshOf(t, [config])
      .describe('orders')
      .some((name) => name.includes('telemetry'))
  )
  const measured = meshOf(t, [config], { meter: meterStub().meter }).describe('orders')
  t.equal(measured[0], 'telemetry')
  t.ok(measured.indexOf('attempt-telemetry') > measured.indexOf('select'))
})
