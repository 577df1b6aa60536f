// slow: takes about 3 s
/** All concerns at once: each call ends exactly once, and all counts return to zero. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { eventually } from '../helpers/eventually.ts'
import { byHand } from '../helpers/mesh/discovery.ts'
import { meshOf, meterStub, Recorder, retryOptions, service } from '../helpers/mesh/mesh.ts'
import { connecting, refused, resetting, silent, upstream } from '../helpers/mesh/servers.ts'

t.test('1,000 calls over faulty instances that are added and removed; callers abort a third', async (t) => {
  const good = await Promise.all([upstream(t, 'a'), upstream(t, 'b')])
  const busy = await upstream(t, 'busy', (request, response) => {
    request.resume()
    response.statusCode = 503
    response.end('x'.repeat(Math.random() < 0.5 ? 10 : 200_000))
  })
  const faulty = [await resetting(t), await silent(t), await connecting(t)].map(({ url }) => url)
  const all = [...good.map(({ url }) => url), busy.url, ...faulty, await refused()]

  const { discovery, publish } = byHand()
  const { meter, counts, observed } = meterStub()
  const retry = { ...retryOptions, on: ['gateway-error'] as (typeof retryOptions)['on'] }
  const policy = { balance: 'random', timeout: 4000, attemptTimeout: 800, connectTimeout: 400, retry } as const
  const mesh = meshOf(t, [service('orders', [], policy)], { discovery, meter, random: Math.random })

  let attempts = 0
  mesh.use(
    (dispatch) => (opts, handler) => {
      attempts++
      return dispatch(opts, handler)
    },
    { per: 'attempt' }
  )
  publish('orders', all)
  const recorders: Recorder[] = []
  for (let i = 0; i < 1000; i++) {
    const recorder = new Recorder()
    recorders.push(recorder)
    const method = (['GET', 'POST', 'PUT'] as const)[i % 3]!
    mesh.dispatch({ origin: 'http://orders.mesh', path: '/', method, body: method === 'GET' ? null : 'x' }, recorder)
    if (Math.random() < 0.3) setTimeout(() => recorder.controller.abort(new Error('left')), Math.random() * 200)
    if (Math.random() < 0.1) recorder.controller.pause()
    if (Math.random() < 0.1) setTimeout(() => recorder.controller.resume(), 10)
    if (i % 50 === 0) publish('orders', [...all.filter(() => Math.random() < 0.7), good[0]!.url])
    if (i % 10 === 0) await sleep(5)
  }
  for (const { controller } of recorders) controller.resume()
  await Promise.all(recorders.map(({ done }) => done))

  const ends = recorders.map(({ events }) => events.filter((event) => event === 'end' || event === 'error').length)
  t.ok(
    ends.every((count) => count === 1),
    'each call ends once'
  )
  t.ok(
    recorders.every(({ events }) => events.filter((event) => /^\d/.test(event)).length <= 1),
    'each call gets at most one response'
  )
  t.ok(
    recorders.every(({ events }) => ['end', 'error'].includes(events.at(-1)!)),
    'no callback follows the end'
  )
  t.ok(recorders.filter(({ status }) => status === 200).length > 50, 'more than 50 calls get a response')

  publish('orders', all)
  const idle = () => mesh.status()[0]!.instances.every(({ active }) => active === 0)
  await eventually(idle, 'no attempt in flight')
  await mesh.close()
  // Removed instances end their attempts after their own timeouts.
  const outcomes = () =>
    Object.entries(counts)
      .filter(([name]) => name.startsWith('jingwei_mesh_attempts_total'))
      .reduce((sum, [, count]) => sum + count, 0)
  await eventually(() => outcomes() >= attempts, 'the last attempts to end')
  t.equal(outcomes(), attempts, 'each attempt has one outcome')
  t.equal(observed['jingwei_mesh_request_duration_seconds{orders}']?.length, 1000, 'each call is timed once')
  for (const { sockets } of good) await eventually(() => sockets.size === 0, 'connections to close')
})
