// slow: waits for retries
/** Readiness of a process whose consumers are in Consul. */
import t from 'tap'
import { keyTiming } from '../../plugins/mesh/discovery/consul-key.ts'
import { fakeConsul } from '../helpers/edge/fake-consul.ts'
import { key, named } from '../helpers/edge/stored-consumers.ts'
import { eventually } from '../helpers/eventually.ts'
import { get, startEcho } from '../helpers/gateway.ts'
import { startFrom } from './support.ts'

keyTiming.every = 20

t.test('a process is not ready while the consumers are not known, also after a reload', async (t) => {
  const { state, url, reset } = await fakeConsul(t)
  const echo = await startEcho()
  t.teardown(echo.close)
  const sections = {
    discovery: { consul: { url } },
    services: { any: { instances: [echo.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { keyAuth: {} } }],
    consumers: { consul: { key } }
  }
  state.mode = 'status'
  const { runtime, port, adminPort, write } = await startFrom(t, sections)
  t.teardown(() => runtime.close())
  const admin = (path: string) => fetch(`http://127.0.0.1:${adminPort}${path}`)
  const readiness = async () => {
    const response = await admin('/health/ready')
    return { code: response.status, ...((await response.json()) as { waitingFor?: string[] }) }
  }
  t.match(await readiness(), { code: 503, waitingFor: ['consumers'] })
  const headers = ['x-api-key: key-of-ann']
  t.match(JSON.parse((await get(port, '/', headers)).body), { code: 'JW_CONSUMERS_UNKNOWN' })
  const counted = 'jingwei_edge_refusals_total{concern="consumers",route="all",code="JW_CONSUMERS_UNKNOWN"} 1'
  t.ok((await (await admin('/metrics')).text()).split('\n').includes(counted))
  state.mode = 'good'
  state.value = JSON.stringify([named('ann')])
  reset()
  await eventually(async () => (await readiness()).code === 200, 'Consul has the list')
  t.equal((await get(port, '/', headers)).status, 200)
  state.mode = 'status'
  reset()
  await eventually(() => runtime.gateway!.consumers.error !== null)
  t.equal((await readiness()).code, 200, 'the last good list is in use')
  write({ ...sections, consumers: { consul: { key: `${key}-misspelt` } } })
  t.match(await runtime.reload('test'), { applied: true })
  t.match(await readiness(), { code: 503, waitingFor: ['consumers'] })
})
