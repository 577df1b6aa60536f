/** The mesh as a library: waiting for discovery, metrics in the program's registry, headers of the caller's context. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type { OpenMetricsContentType } from 'prom-client'
import { Counter, Registry } from 'prom-client'
import type { Test } from 'tap'
import t from 'tap'
import type { MeshOptions, MeshSettings } from '../../../plugins/mesh-api.ts'
import { createMesh, installFetch, NotReadyError } from '../../../plugins/mesh-api.ts'
import { refused, silent, upstream } from '../../helpers/mesh/servers.ts'

function started(t: Test, settings: MeshSettings, options?: MeshOptions) {
  const mesh = createMesh(settings, options)
  t.teardown(() => mesh.destroy())
  return mesh
}

const get = { origin: 'http://orders.mesh', path: '/', method: 'GET' } as const
function openMetrics() {
  const registry = new Registry<OpenMetricsContentType>()
  registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE)
  return registry
}
const names = (registry: Pick<Registry, 'getMetricsAsArray'>) => registry.getMetricsAsArray().map(({ name }) => name)

t.test('ready() ends after its timeout, and names the services and the error of their source', async (t) => {
  const { url } = await silent(t)
  const mesh = started(t, { discovery: { consul: { url } }, services: { orders: {}, fixed: { instances: [url] } } })
  await t.rejects(mesh.ready({ timeout: '30ms' }), {
    code: 'JW_NOT_READY',
    services: ['orders'],
    message: 'mesh.ready: no result of discovery within 30 ms for orders'
  })
  await t.rejects(mesh.ready({ timeout: 10 }), NotReadyError)
  await t.rejects(mesh.ready({ signal: AbortSignal.timeout(10) }), { name: 'TimeoutError' })
  await t.rejects(mesh.ready({ signal: AbortSignal.abort(new Error('stop')) }), { message: 'stop' })
  for (const timeout of ['soon', -1, 2 ** 31, Number.NaN]) {
    await t.rejects(mesh.ready({ timeout }), { name: 'TypeError', message: /timeout must be a duration such as "10s"/ })
  }
  await t.rejects(mesh.request(get), {
    code: 'JW_NO_INSTANCE',
    message:
      'orders: no instance of the service is available: discovery has had no result yet; mesh.ready() waits for it'
  })

  const down = started(t, { discovery: { consul: { url: await refused() } }, services: { orders: {} } })
  while (down.status()[0]!.source.error === null) await sleep(5)
  await t.rejects(down.ready({ timeout: 0 }), { message: /for orders \(.*ECONNREFUSED/ })
})

t.test('ready() ends when the mesh is closed', async (t) => {
  const { url } = await silent(t)
  const mesh = started(t, { discovery: { consul: { url } }, services: { orders: {} } })
  const waits = [mesh.ready(), mesh.ready({ timeout: false }), mesh.ready({ signal: new AbortController().signal })]
  const ends = Promise.allSettled(waits)
  await mesh.close()
  for (const end of await ends) t.match(end, { status: 'rejected', reason: { code: 'JW_MESH_CLOSED' } })
  await t.rejects(mesh.ready(), { code: 'JW_MESH_CLOSED' })
})

t.test('ready() resolves at once for addresses, and without services', async (t) => {
  const { url } = await upstream(t, 'orders')
  await started(t, { services: { orders: { instances: [url] } } }).ready({ timeout: 1000 })
  await started(t, { services: {} }).ready()
})

t.test("metrics are in the program's registry until the mesh is closed", async (t) => {
  const { url } = await upstream(t, 'orders')
  const registry = new Registry()
  registry.setDefaultLabels({ app: 'billing' })
  const own = new Counter({ name: 'own_total', help: 'Own.', registers: [registry] })
  own.inc()
  const settings = { services: { orders: { instances: [url] } } }
  const mesh = createMesh(settings, { registry })
  for (let i = 0; i < 3; i++) await (await mesh.request(get)).body.dump()

  const text = await registry.metrics()
  t.match(text, /^own_total\{app="billing"\} 1$/m)
  t.match(text, /^# TYPE jingwei_mesh_attempts_total counter$/m)
  t.match(text, /^jingwei_mesh_attempts_total\{service="orders",outcome="success",app="billing"\} 3$/m)
  t.match(text, /^jingwei_mesh_instances\{service="orders",state="available",app="billing"\} 1$/m)
  t.match(text, /^jingwei_mesh_request_duration_seconds_count\{service="orders",app="billing"\} 3$/m)
  const json = await registry.getMetricsAsJSON()
  t.ok(json.some(({ name }) => name === 'jingwei_mesh_active_requests'))

  registry.resetMetrics()
  await (await mesh.request(get)).body.dump()
  t.match(
    await registry.metrics(),
    /^jingwei_mesh_attempts_total\{service="orders",outcome="success",app="billing"\} 1$/m
  )

  t.throws(() => createMesh(settings, { registry }), {
    message: /^createMesh: the registry has a metric jingwei_mesh_\w+ already: give each mesh a registry of its own/
  })
  t.match(await registry.metrics(), /^jingwei_mesh_instances\{/m, 'the first mesh keeps its metrics')
  t.throws(() => createMesh(settings, { registry, meter: { counter() {}, histogram() {}, gauge() {} } as never }), {
    message: 'createMesh: set registry or meter, not both'
  })
  for (const wrong of [{}, null]) {
    t.throws(() => createMesh(settings, { registry: wrong as never }), {
      message: 'createMesh: registry is no registry of prom-client: new Registry(), or register for the default one'
    })
  }
  await mesh.close()
  t.strictSame(names(registry), ['own_total'])

  const next = createMesh(settings, { registry })
  t.ok(names(registry).length > 3)
  await next.destroy()
  t.strictSame(names(registry), ['own_total'])
})

t.test('a registry in the format of OpenMetrics, and two merged registries', async (t) => {
  const { url } = await upstream(t, 'orders')
  const registry = openMetrics()
  const mesh = started(t, { services: { orders: { instances: [url] } } }, { registry })
  await (await mesh.request(get)).body.dump()
  for (let scrape = 0; scrape < 2; scrape++) {
    const text = await registry.metrics()
    t.match(text, /^# TYPE jingwei_mesh_attempts counter$/m)
    t.match(text, /^jingwei_mesh_attempts_total\{service="orders",outcome="success"\} 1$/m)
    t.match(text, /\n# EOF\n$/)
  }
  const other = openMetrics()
  new Counter({ name: 'own', help: 'Own.', registers: [other] as never }).inc()
  const merged = await Registry.merge([registry, other] as never).metrics()
  t.match(merged, /^own_total 1$/m)
  t.match(merged, /^jingwei_mesh_instances\{/m)
  await mesh.close()
  t.strictSame(names(registry), [])
})

t.test("a name of the program's own metrics is refused, and nothing is left", async (t) => {
  const registry = new Registry()
  new Counter({ name: 'jingwei_mesh_attempts_total', help: 'Own.', registers: [registry] })
  t.throws(() => createMesh({ services: { orders: { instances: ['http://127.0.0.1:1'] } } }, { registry }), {
    message: /metric jingwei_mesh_attempts_total already/
  })
  t.strictSame(names(registry), ['jingwei_mesh_attempts_total'])
})

t.test('headers of the async context of each caller', async (t) => {
  const { url, requests } = await upstream(t, 'orders')
  const trace = new AsyncLocalStorage<string>()
  const mesh = started(
    t,
    { services: { orders: { instances: [url], mesh: { collapse: true } } } },
    { headers: () => ({ traceparent: trace.getStore(), 'x-team': 'billing' }) }
  )
  const seen = (path: string) => requests.find((request) => request.url === path)!.headers
  const call = (path: string, headers: Record<string, string> = {}) =>
    mesh.request({ ...get, path, headers }).then(({ body }) => body.dump())
  await Promise.all([
    trace.run('00-a', () => call('/a')),
    trace.run('00-b', () => mesh.fetch('http://orders.mesh/b').then((response) => response.text())),
    trace.run('00-c', () => call('/c', { TraceParent: '00-own' })),
    call('/none')
  ])
  t.match(seen('/a'), { traceparent: '00-a', 'x-team': 'billing' })
  t.match(seen('/b'), { traceparent: '00-b', 'x-team': 'billing' })
  t.equal(seen('/c').traceparent, '00-own', "the caller's own header")
  t.equal(seen('/none').traceparent, undefined)

  const before = requests.length
  await Promise.all(['00-d', '00-e'].map((store) => trace.run(store, () => call('/together'))))
  t.equal(requests.length, before + 1, 'requests with different traces are collapsed')

  const failing = started(
    t,
    { services: { orders: { instances: [url] } } },
    {
      headers: () => {
        throw new Error('no context')
      }
    }
  )
  await t.rejects(failing.request(get), { message: 'no context' })
})

t.test('wrong names', async (t) => {
  const { url } = await upstream(t, 'orders')
  const mesh = started(t, { services: { orders: { instances: [url] }, users: { instances: [url] } } })
  const messageOf = (origin: string) =>
    mesh.request({ ...get, origin }).then(
      () => t.fail(origin),
      (error: Error) => error.message
    )
  t.equal(await messageOf('http://odrers.mesh'), 'odrers: no such service; did you mean "orders"?')
  t.equal(await messageOf('http://billing.mesh'), 'billing: no such service')
  t.match(
    await messageOf('https://users.mesh'),
    /; call it by http:\/\/users\.mesh \(TLS to its instances is a setting/
  )
  t.match(await messageOf('http://users'), /; call it by http:\/\/users\.mesh \(\.mesh is missing\)/)
  t.match(await messageOf('http://localhost:80'), /: no such service; the origin of a service is http:\/\/NAME\.mesh/)
  for (const other of [undefined, { services: {} }]) {
    t.throws(() => installFetch(other as never), { message: 'installFetch: expected the mesh that createMesh returns' })
  }
  t.throws(() => createMesh({ services: {} }, { registery: new Registry() } as never), {
    message: 'createMesh: unknown option registery; did you mean "registry"?'
  })
  t.throws(() => createMesh({ services: { orders: { instances: [url] } }, mesh: { retri: {} } } as never), {
    message: /did you mean "retry"/
  })
})
