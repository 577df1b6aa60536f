/** Timed once per new instance, and gone thereafter. */
import t from 'tap'
import type { DispatchHandler, DispatchOptions, Endpoint, Instance } from '../../../plugins/mesh/core/types.ts'
import { FirstRequests } from '../../../plugins/mesh/discovery/first-request.ts'

function fake(origin: string) {
  let sent = 0
  const dispatch = () => ++sent > 0
  const endpoint = { origin, dispatch } as unknown as Endpoint
  return { instance: { id: origin, endpoint } as unknown as Instance, endpoint, dispatch, sent: () => sent }
}

t.test('from the change to the first attempt at what is new', async (t) => {
  let now = 0
  const observed: number[] = []
  const timing = new FirstRequests({ observe: (value) => void observed.push(value) }, () => now)
  const [a, b, c] = [fake('a'), fake('b'), fake('c')]
  const send = ({ endpoint }: typeof a) => endpoint.dispatch({} as DispatchOptions, {} as DispatchHandler)

  timing.update([a.instance])
  t.ok(send(a))
  t.same(observed, [], 'what was found at the start came by no change')
  t.equal(a.endpoint.dispatch, a.dispatch)

  now = 1000
  timing.update([a.instance, b.instance])
  now = 1250
  timing.update([a.instance, b.instance, c.instance])
  now = 1500
  for (const each of [b, a, b]) t.ok(send(each))
  t.same(observed, [0.5])
  t.equal(b.endpoint.dispatch, b.dispatch, 'the second attempt knows nothing of it')
  t.equal(b.sent(), 2)
  now = 2250
  send(c)
  t.same(observed, [0.5, 1])
})
