/** Services that outlive a configuration: the next one reuses their state, the last one closes them. */
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import type { AddressInfo, Socket } from 'node:net'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { build } from '../../app.ts'
import { filesTiming } from '../../plugins/mesh/connect/tls-files.ts'
import { Stores } from '../../plugins/stores.ts'
import { authority, folderFor } from '../helpers/certificates.ts'
import { eventually } from '../helpers/eventually.ts'
import { configOf, startService } from '../helpers/gateway.ts'

/** Returns the end of a service of the mesh, which operations do not know. */
const endOf = (service: object): Promise<void> => Reflect.get(service, 'ended')

filesTiming.interval = 20

type Services = Record<string, object>

/** Gateways after each other, with the same stores, as by changes of the configuration. */
function gateways(t: Test) {
  const stores = new Stores()
  return async (services: Services, more: object = {}) => {
    const config = configOf({
      services,
      routes: Object.keys(services).map((service) => ({ name: service, match: { path: `/${service}` }, service })),
      ...more
    })
    const server = build(config, { logger: false, stores })
    t.teardown(() => server.close())
    await server.ready()
    const ask = async (service: string, headers = {}) => {
      const { statusCode, body } = await server.inject({ url: `/${service}`, headers })
      return `${statusCode} ${/"code":"(\w+)"/.exec(body)?.[1] ?? body}`
    }
    return { server, ask, status: (service: string) => server.mesh.service(service).status() }
  }
}

async function counting(t: Test, status = () => 200) {
  const sockets = new Set<Socket>()
  const service = await startService((request, response) => {
    sockets.add(request.socket)
    response.writeHead(status()).end('ok')
  })
  t.teardown(service.close)
  return { url: service.url, dialled: () => sockets.size }
}

t.test('an unchanged service keeps its connections, a changed service opens new ones', async (t) => {
  const [same, changed] = [await counting(t), await counting(t)]
  const start = gateways(t)
  const services = { same: { instances: [same.url] }, changed: { instances: [changed.url] } }
  const before = await start(services)
  t.same([await before.ask('same'), await before.ask('changed')], ['200 ok', '200 ok'])
  const after = await start(
    { ...services, changed: { instances: [changed.url], mesh: { timeout: '3s' } } },
    { edge: { bodyLimit: '1kb' } }
  )
  t.equal(after.server.mesh.service('same'), before.server.mesh.service('same'))
  t.not(after.server.mesh.service('changed'), before.server.mesh.service('changed'))
  t.same([await after.ask('same'), await after.ask('changed')], ['200 ok', '200 ok'])
  await before.server.close()
  t.same([await after.ask('same'), await after.ask('changed')], ['200 ok', '200 ok'])
  t.equal(same.dialled(), 1)
  t.equal(changed.dialled(), 2)
})

t.test('an open circuit stays open, and an ejected instance stays ejected', async (t) => {
  let failing = true
  const status = () => (failing ? 500 : 200)
  const [open, ejected] = [await counting(t, status), await counting(t, status)]
  const start = gateways(t)
  const services = {
    open: { instances: [open.url], mesh: { circuitBreaker: { errorRatio: '50%', minRequests: 2, openFor: '1m' } } },
    ejected: {
      instances: [ejected.url, 'http://127.0.0.1:9'],
      mesh: {
        balance: 'round-robin',
        outlierDetection: { consecutive5xx: 1, baseEjection: '1m', maxEjectionPercent: '50%' }
      }
    }
  }
  const before = await start(services)
  for (let i = 0; i < 3; i++) await before.ask('open')
  t.equal(await before.ask('open'), '503 JW_CIRCUIT_OPEN')
  for (let i = 0; i < 3; i++) await before.ask('ejected')
  const ejectedBefore = before.status('ejected').instances.map(({ available }) => available)
  t.ok(ejectedBefore.includes(false))
  failing = false
  const after = await start(services, { edge: { bodyLimit: '1kb' } })
  await before.server.close()
  t.equal(await after.ask('open'), '503 JW_CIRCUIT_OPEN')
  t.same(
    after.status('ejected').instances.map(({ available }) => available),
    ejectedBefore
  )
})

t.test('the limit of a service counts the calls of both configurations', async (t) => {
  const service = await counting(t)
  const start = gateways(t)
  const services = {
    only: { instances: [service.url], mesh: { limit: { rate: 1, per: '1h', burst: 2, queue: 1, queueTimeout: '1ms' } } }
  }
  const before = await start(services)
  t.equal(await before.ask('only'), '200 ok')
  const after = await start(services)
  t.equal(await after.ask('only'), '200 ok')
  t.equal(await after.ask('only'), '503 JW_UPSTREAM_LIMITED')
  t.equal(await before.ask('only'), '503 JW_UPSTREAM_LIMITED')
})

t.test('a stale response is served by the next configuration, unless plugins have changed', async (t) => {
  let failing = false
  const service = await counting(t, () => (failing ? 500 : 200))
  const start = gateways(t)
  const services = { only: { instances: [service.url], mesh: { fallback: [{ on: ['5xx'], stale: {} }] } } }
  const folder = t.testdir({
    'one.ts': 'export default async (fastify) => { fastify.mesh.use((next) => next, { per: "request" }) }'
  })
  const plugins = (options: object) => ({ plugins: [{ path: join(folder, 'one.ts'), options }] })
  const before = await start(services)
  const beforeWithPlugin = await start(services, plugins({ tenant: 'a' }))
  t.equal(await before.ask('only'), '200 ok')
  t.equal(await beforeWithPlugin.ask('only'), '200 ok')
  failing = true
  t.equal(await before.ask('only'), '200 ok')
  const same = await start(services, { edge: { bodyLimit: '1kb' } })
  const sameWithPlugin = await start(services, plugins({ tenant: 'a' }))
  const other = await start(services, plugins({ tenant: 'b' }))
  t.equal(await same.ask('only'), '200 ok')
  t.equal(await sameWithPlugin.ask('only'), '200 ok')
  t.match(await other.ask('only'), /^500/)
  await before.server.close()
  const last = await start(services)
  t.equal(await last.ask('only'), '200 ok')
})

t.test('the next configuration mirrors to the shadow service', async (t) => {
  const [service, shadow] = [await counting(t), await counting(t)]
  const start = gateways(t)
  const services = {
    only: { instances: [service.url], mesh: { mirror: { service: 'shadow' } } },
    shadow: { instances: [shadow.url] }
  }
  const before = await start(services)
  t.equal(await before.ask('only'), '200 ok')
  const after = await start(services)
  await before.server.close()
  t.equal(await after.ask('only'), '200 ok')
  await eventually(() => after.status('only').concerns['mirror to shadow'] !== undefined, 'the shadow')
  const counted = async () =>
    (await after.server.metrics.metrics()).match(/mirrored_total\{service="only",outcome="failed"\} (\d+)/)?.[1]
  t.equal(await counted(), '0')
})

t.test('gauges, checks and connections of a service end with the last configuration that has it', async (t) => {
  const [kept, dropped] = [await counting(t), await counting(t)]
  const start = gateways(t)
  const mesh = { healthCheck: { path: '/', interval: '1m' }, circuitBreaker: {} }
  const both = { kept: { instances: [kept.url], mesh }, dropped: { instances: [dropped.url], mesh } }
  const before = await start(both)
  t.same([await before.ask('kept'), await before.ask('dropped')], ['200 ok', '200 ok'])
  const ended = endOf(before.server.mesh.service('dropped'))
  const after = await start({ kept: both.kept })
  await before.server.close()
  await ended
  t.equal(await after.ask('kept'), '200 ok')
  const { instances } = after.status('kept')
  t.equal(instances.length, 1)
  const text = await after.server.metrics.metrics()
  t.notMatch(text, /jingwei_mesh_instances\{service="dropped"/)
  t.match(text, /jingwei_mesh_instances\{service="kept",state="available"\} 1/)
  const last = endOf(after.server.mesh.service('kept'))
  await after.server.close()
  await last
})

t.test('a call in flight survives the end of its configuration if another one has the service', async (t) => {
  const listener = createServer((socket) =>
    socket.once('data', () => setTimeout(() => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'), 200))
  )
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  t.teardown(() => void listener.close())
  const url = `http://127.0.0.1:${(listener.address() as AddressInfo).port}`
  const start = gateways(t)
  const before = await start({ slow: { instances: [url] } })
  const call = before.server.mesh.request({ origin: 'http://slow.mesh', path: '/', method: 'GET' })
  const after = await start({ slow: { instances: [url] } })
  await before.server.close()
  const { body } = await call
  t.equal(await body.text(), 'ok')
  t.equal(after.status('slow').active, 0)
})

t.test('certificates are watched as long as a service uses them', async (t) => {
  const folder = folderFor(t)
  const [first, second] = [authority(folder, 'first'), authority(folder, 'second')]
  const ca = join(folder, 'ca.pem')
  writeFileSync(ca, readFileSync(first.file))
  const start = gateways(t)
  const config = { instances: ['https://127.0.0.1:9'], mesh: { tls: { ca } } }
  const before = await start({ one: config, two: config })
  const after = await start({ two: config })
  const reloads = async (service: string) =>
    Number(
      new RegExp(`reloads_total\\{service="${service}",outcome="success"\\} (\\d+)`).exec(
        await after.server.metrics.metrics()
      )?.[1]
    )
  await before.server.close()
  writeFileSync(ca, readFileSync(second.file))
  while ((await reloads('two')) !== 1) await sleep(5)
  t.equal(await reloads('one'), 0, 'the files of a service that has ended are not watched')
})
