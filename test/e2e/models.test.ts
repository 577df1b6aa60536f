// slow: starts Consul, Redis and a dozen processes
// The four deployment models, as `npm run models` starts them.
import t from 'tap'
import { startModels } from '../cluster/models.ts'

t.setTimeout(300_000)

const events: string[] = []
const models = await startModels((line) => events.push(line))
t.teardown(() => models.stop())

async function get(url: string) {
  const response = await fetch(url, { signal: AbortSignal.timeout(20_000) })
  return { status: response.status, text: await response.text() }
}

t.test('each model serves the same orders', async (t) => {
  const ids: unknown[] = []
  for (const { name, url } of models.all) {
    const { status, text } = await get(url)
    t.equal(status, 200, name)
    const { service, orders } = JSON.parse(text) as { service: string; orders: unknown[] }
    t.equal(service, 'orders', name)
    ids.push(orders)
  }
  t.equal(ids.length, 5)
  for (const each of ids) t.same(each, ids[0])
})

t.test('a service of the mesh reaches the merged gateway by its sidecar; its direction is told apart', async (t) => {
  const { status, text } = await get(models.throughMesh)
  t.equal(status, 200)
  t.match(JSON.parse(text), { service: 'orders' })
  const merged = models.all.find(({ name }) => name === '3 merged')!
  const metrics = (await get(`${merged.adminUrl}/metrics`)).text
  t.match(
    metrics,
    /^jingwei_edge_requests_total\{route="orders",method="GET",status="200",direction="north-south"\} [1-9]/m
  )
  t.match(
    metrics,
    /^jingwei_edge_requests_total\{route="orders",method="GET",status="200",direction="east-west"\} [1-9]/m
  )
})

t.test('nothing has ended by itself', async (t) => {
  t.strictSame(events, [])
})
