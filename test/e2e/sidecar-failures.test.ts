// slow: starts several processes for each case
/** Sidecars when something fails: the service, a sidecar, a health check; and when one is reloaded or stopped. */
import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { clientOf } from '../helpers/e2e/gateway.ts'
import { steadyLoad } from '../helpers/e2e/load.ts'
import { eventually } from '../helpers/eventually.ts'
import { connect, raw, startService } from '../helpers/gateway.ts'
import { freePort } from '../helpers/processes.ts'
import type { Sidecar } from '../helpers/sidecar.ts'
import { gatewayBefore, meshCertificates, sidecarsFor, sidecarText, startSidecar } from '../helpers/sidecar.ts'

t.setTimeout(300_000)

t.test('failures have the codes of the error table', async (t) => {
  const port = await freePort()
  const {
    inbound,
    outbound,
    port: to
  } = await sidecarsFor(t, `http://127.0.0.1:${port}`, { retry: false }, { retry: false })
  const ask = () => raw(to, 'GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  const down = await ask()
  t.match(down, /^HTTP\/1\.1 502 [\s\S]*"code":"JW_UPSTREAM_REFUSED"/, 'the service is down')
  t.match(down, /^proxy-status: jingwei; error=connection_refused\r$/im, 'as the other sidecar says')
  await inbound.running.stop()
  t.match(await ask(), /^HTTP\/1\.1 502 [\s\S]*"code":"JW_UPSTREAM_REFUSED"/, 'its sidecar is down')
  const health = await outbound.admin.health()
  t.equal(health.code, 200)
})

t.test('a service that fails its health check gets no calls', async (t) => {
  let isWell = true
  const { url, close } = await startService((request, response) => {
    response.statusCode = request.url === '/health' && !isWell ? 503 : 200
    response.end('ok')
  })
  t.teardown(close)
  const healthCheck = { path: '/health', interval: '50ms', timeout: '1s', unhealthyThreshold: 1, healthyThreshold: 1 }
  const { port } = await sidecarsFor(t, url, { retry: false }, { healthCheck, balance: { panicThreshold: 0 } })
  const ask = () => raw(port, 'GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  t.match(await ask(), /^HTTP\/1\.1 200 /)
  isWell = false
  await eventually(async () => /^HTTP\/1\.1 503 [\s\S]*"code":"JW_NO_INSTANCE"/.test(await ask()))
  isWell = true
  await eventually(async () => /^HTTP\/1\.1 200 /.test(await ask()))
})

t.test('retries and balancing: an instance whose sidecar is killed under load costs no request', async (t) => {
  const { inbound, callsWith } = meshCertificates(t)
  const instances: { url: string; sidecar: Sidecar }[] = []
  for (const name of ['one', 'two']) {
    const { url, close } = await startService((_request, response) => {
      response.setHeader('x-instance', name)
      response.end('ok')
    })
    t.teardown(close)
    const sidecar = await startSidecar(t, { inbound: { url, tls: inbound } })
    instances.push({ url: `https://127.0.0.1:${sidecar.ports.inbound}`, sidecar })
  }
  const retry = { attempts: 2, on: ['connect-failure', 'reset'], budget: '100%' }
  const services = { orders: { instances: instances.map(({ url }) => url), mesh: { ...callsWith(), retry } } }
  const outbound = await startSidecar(t, { services, outbound: [{ service: 'orders' }] })
  const client = clientOf(`http://127.0.0.1:${outbound.ports['outbound-orders']}`, outbound.adminUrl)
  t.teardown(() => client.hangUp())
  const load = steadyLoad(client, ['/'], { concurrency: 8 })
  await eventually(() => (load.tally.by.one ?? 0) > 50 && (load.tally.by.two ?? 0) > 50)
  instances[0]!.sidecar.running.kill('SIGKILL')
  const before = load.tally.by.two!
  await eventually(() => load.tally.by.two! > before + 200)
  const { failures } = await load.stop()
  t.strictSame(failures, [])
})

t.test('a sidecar that is killed ends the calls through it: nothing hangs', async (t) => {
  const { url, close } = await startService((_request, response) => void response.write('first'))
  t.teardown(close)
  for (const side of ['inbound', 'outbound'] as const) {
    const pair = await sidecarsFor(t, url, { retry: false })
    const gateway = await gatewayBefore(t, pair)
    const client = connect(Number(new URL(gateway.url).port), 'GET / HTTP/1.1\r\nHost: h\r\n\r\n')
    await client.until('first')
    pair[side].running.kill('SIGKILL')
    const { text } = await client.closed
    t.match(text, /first/, side)
    t.notMatch(text, /\r\n0\r\n\r\n$/, 'not ended as if it were complete')
  }
})

t.test('SIGTERM: requests in flight end, then the process', async (t) => {
  let finish = () => {}
  const { url, close } = await startService((_request, response) => {
    response.write('first ')
    finish = () => void response.end('last')
  })
  t.teardown(close)
  const pair = await sidecarsFor(t, url)
  const client = connect(pair.port, 'GET / HTTP/1.1\r\nHost: h\r\n\r\n')
  await client.until('first')
  for (const { running } of [pair.outbound, pair.inbound]) running.kill('SIGTERM')
  await sleep(200)
  finish()
  await client.until('last')
  for (const { running } of [pair.outbound, pair.inbound]) t.match(await running.exited, { code: 0 })
})

t.test('a reload under load costs no call', async (t) => {
  const urls = await Promise.all(
    ['one', 'two'].map(async (name) => {
      const { url, close } = await startService((_request, response) => {
        response.setHeader('x-instance', name)
        response.end('ok')
      })
      t.teardown(close)
      return url
    })
  )
  const sections = (url: string) => ({ services: { orders: { instances: [url] } }, outbound: [{ service: 'orders' }] })
  const { file, ports, adminUrl, running } = await startSidecar(t, sections(urls[0]!))
  const client = clientOf(`http://127.0.0.1:${ports['outbound-orders']}`, adminUrl)
  t.teardown(() => client.hangUp())
  const load = steadyLoad(client, ['/'], { concurrency: 4 })
  for (const [index, name] of [
    [1, 'two'],
    [0, 'one'],
    [1, 'two']
  ] as const) {
    const before = load.tally.by[name] ?? 0
    writeFileSync(file, sidecarText(sections(urls[index]!)))
    running.kill('SIGHUP')
    await eventually(() => (load.tally.by[name] ?? 0) > before + 50)
  }
  t.strictSame((await load.stop()).failures, [])
})
