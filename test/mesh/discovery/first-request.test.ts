/** The time to the first request is observed once per new instance. */
import t from 'tap'
import type { Endpoint, Instance } from '../../../plugins/mesh/core/types.ts'
import { FirstRequests } from '../../../plugins/mesh/discovery/first-request.ts'
import { byHand } from '../../helpers/mesh/discovery.ts'
import { meshOf, meterStub, service } from '../../helpers/mesh/mesh.ts'
import { upstream } from '../../helpers/mesh/servers.ts'

function fake(origin: string) {
  const endpoint = { origin, onAttempt: null } as unknown as Endpoint
  return { instance: { id: origin, endpoint } as unknown as Instance, endpoint }
}

t.test('from the change to the first attempt at the new instance', async (t) => {
  let now = 0
  const observed: number[] = []
  const timing = new FirstRequests({ observe: (value) => void observed.push(value) }, () => now)
  const [a, b, c] = [fake('a'), fake('b'), fake('c')]
  const send = ({ endpoint }: typeof a) => endpoint.onAttempt?.()

  timing.update([a.instance])
  send(a)
  t.same(observed, [], 'instances found at the start are not timed')
  t.equal(a.endpoint.onAttempt, null)

  now = 1000
  timing.update([a.instance, b.instance])
  now = 1250
  timing.update([a.instance, b.instance, c.instance])
  now = 1500
  for (const each of [b, a, b]) send(each)
  t.same(observed, [0.5])
  t.equal(b.endpoint.onAttempt, null, 'the second attempt is not timed')
  now = 2250
  send(c)
  t.same(observed, [0.5, 1])
})

t.test('in a mesh: the first attempt at an instance that a change has added', async (t) => {
  const [before, added] = await Promise.all([upstream(t, 'before'), upstream(t, 'added')])
  const { discovery, publish } = byHand()
  const { meter, observed } = meterStub()
  const mesh = meshOf(t, [service('orders', [])], { discovery, meter })
  const get = async () => {
    const { body } = await mesh.request({ origin: 'http://orders.mesh', path: '/', method: 'GET' })
    await body.dump()
  }
  const series = 'jingwei_mesh_discovery_first_request_seconds{orders}'
  publish('orders', [before.url])
  await get()
  t.notOk(series in observed, 'instances found at the start are not timed')
  publish('orders', [before.url, added.url])
  for (let i = 0; i < 6; i++) await get()
  t.ok(added.requests.length > 1, 'several attempts at the added instance')
  t.equal(observed[series]?.length, 1, 'only the first attempt is timed')
})
