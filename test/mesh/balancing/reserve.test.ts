/** Calls that have tried every nearer instance go to a farther one, rather than to a tried one again. */
import t from 'tap'
import type { BalanceOptions } from '../../../plugins/mesh/balancing/schema.ts'
import { options } from '../../helpers/mesh/instances.ts'
import { retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { refused, upstream } from '../../helpers/mesh/servers.ts'
import { startMesh } from '../../helpers/mesh/start-mesh.ts'

type Place = Readonly<Record<string, string>>

async function responsesOf(balance: BalanceOptions, near: readonly [string, Place][], far: [string, Place]) {
  const specs = [...near, far].map(([origin, meta]) => ({ id: origin, origin, weight: 1, tags: [], meta }))
  const source = {
    start: (publish: (instances: typeof specs) => void) => publish(specs),
    status: () => ({ kind: 'by hand', confirmedAt: 0, error: null }),
    close: async () => {}
  }
  const mesh = startMesh(
    {
      services: { orders: service('orders', [], { balance, retry: { ...retryOptions, attempts: 2 } }) },
      discovery: { locality: { datacenter: 'dc1', zone: 'z1' } }
    },
    { discovery: { source: () => source, close: async () => {} } }
  )
  const seen: (number | string)[] = []
  for (let i = 0; i < 5; i++) {
    const response = mesh.request({ origin: 'http://orders.mesh', path: '/', method: 'GET' })
    seen.push(await response.then(async ({ body }) => body.text()).catch(({ code }) => code))
  }
  await mesh.destroy()
  return seen
}

const far = new Array(5).fill('far')

t.test('if the whole local zone fails, calls go to the datacenter', async (t) => {
  const there = { 'consul-dc': 'dc1', 'consul-zone': 'z2' }
  const here = { 'consul-dc': 'dc1', 'consul-zone': 'z1' }
  for (const policy of ['round-robin', 'least-request', 'random', 'ring-hash', 'maglev', 'peak-ewma'] as const) {
    const url = (await upstream(t, 'far')).url
    const near: [string, Place][] = [[await refused(), here], [await refused(), here]] // biome-ignore format: short
    t.strictSame(await responsesOf(options({ policy, locality: 'prefer' }), near, [url, there]), far, policy)
  }
})

t.test('if the whole local datacenter fails, calls go to the next one before the failure is detected', async (t) => {
  const { url } = await upstream(t, 'far')
  const near: [string, Place][] = [[await refused(), {}], [await refused(), {}]] // biome-ignore format: short
  t.strictSame(await responsesOf(options({ policy: 'least-request' }), near, [url, { 'failover-rank': '1' }]), far)
})

t.test('while a nearer instance serves, no call goes farther', async (t) => {
  const { url } = await upstream(t, 'far')
  const near: [string, Place][] = [[await refused(), {}], [(await upstream(t, 'near')).url, {}]] // biome-ignore format: short
  const seen = await responsesOf(options({ policy: 'least-request' }), near, [url, { 'failover-rank': '1' }])
  t.strictSame(seen, new Array(5).fill('near'))
})
