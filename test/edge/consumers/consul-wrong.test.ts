// slow: waits for retries
/** Consumers in Consul: Consul slow, wrong, with too large values, and recovering. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { keyTiming } from '../../../plugins/mesh/discovery/consul-key.ts'
import { key, named, startGateway } from '../../helpers/edge/stored-consumers.ts'
import { eventually } from '../../helpers/eventually.ts'
import { get, startEcho } from '../../helpers/gateway.ts'
import { startFrom } from '../../operations/support.ts'

keyTiming.every = 20

/** A Consul that responds as it is told to. */
async function fakeConsul(t: Test) {
  const state = { mode: 'hold', value: '[]', index: 1, asked: 0 }
  const server = createServer((_request, response) => {
    state.asked++
    if (state.mode === 'hold') return
    if (state.mode === 'status') return void response.writeHead(500).end('broken')
    response.writeHead(200, { 'x-consul-index': String(state.index) })
    if (state.mode === 'stall') return void response.write('[')
    if (state.mode === 'large') {
      const fill = (): void => {
        if (response.destroyed) return
        if (response.write('x'.repeat(1024 * 1024))) setImmediate(fill)
        else response.once('drain', fill)
      }
      return fill()
    }
    const known: Record<string, string> = {
      malformed: '{',
      other: '{}',
      binary: '[{"Value":"/w=="}]',
      empty: '[{"Value":null}]'
    }
    response.end(known[state.mode] ?? JSON.stringify([{ Value: Buffer.from(state.value).toString('base64') }]))
    if (known[state.mode] === undefined) state.mode = 'hold'
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return {
    state,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    reset: () => server.closeAllConnections()
  }
}

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
    ['empty', /the file is empty/]
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
})

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
