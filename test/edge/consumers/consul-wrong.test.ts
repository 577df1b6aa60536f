// slow: waits for retries
/** Consumers in Consul: Consul slow, wrong, with too large values, and recovering. */
import t from 'tap'
import { keyTiming } from '../../../plugins/mesh/discovery/consul-key.ts'
import { fakeConsul } from '../../helpers/edge/fake-consul.ts'
import { named, startGateway } from '../../helpers/edge/stored-consumers.ts'
import { eventually } from '../../helpers/eventually.ts'

keyTiming.every = 20

t.test('Consul wrong, too large and recovering', async (t) => {
  const { state, url, reset } = await fakeConsul(t)
  state.mode = 'good'
  state.value = JSON.stringify([named('ann')])
  const gateway = await startGateway(t, { url })
  t.equal(await gateway.statusOf('ann'), 200)
  for (const [mode, error] of [
    ['status', /Consul responded with 500: broken/],
    ['malformed', /JSON/],
    ['other', /something else than a key/],
    ['binary', /not valid|encoded data/],
    ['large', /larger than 16777216 bytes|aborted/],
    ['empty', /there is no list; write \[\] for no consumers/]
  ] as const) {
    state.mode = mode
    reset()
    await eventually(() => error.test(gateway.registry.error ?? ''), mode)
    t.equal(await gateway.statusOf('ann'), 200, mode)
    state.mode = 'good'
    reset()
    await eventually(() => gateway.registry.error === null, `recovered after ${mode}`)
  }
  state.value = JSON.stringify([named('bob')])
  state.mode = 'good'
  reset()
  await eventually(async () => (await gateway.statusOf('bob')) === 200, 'a change')
})

t.test('a slow Consul delays the start by a bounded time only', async (t) => {
  const { state, url } = await fakeConsul(t)
  const gateway = await startGateway(t, { url })
  t.equal(state.asked, 1)
  t.equal(await gateway.statusOf('ann'), 503)
  const tried = await startGateway(t, { url, more: { edge: { keyAuth: { mode: 'shadow' } } } })
  t.equal(await tried.statusOf('ann'), 200, 'a method in shadow mode refuses nothing')
})
