// slow: installs packages
/** OpenTelemetry's own undici instrumentation sees the calls of a mesh: spans, their parents, `traceparent`. */
import { createRequire } from 'node:module'
import { join } from 'node:path'
import Fastify from 'fastify'
import t from 'tap'
import { createMesh, installFetch } from '../../plugins/mesh-api.ts'
import meshOfServer from '../../plugins/mesh-fastify.ts'
import { meshOf, retryOptions, service } from '../helpers/mesh/mesh.ts'
import { refused, upstream } from '../helpers/mesh/servers.ts'
import { packages } from '../helpers/packages.ts'

const versions = {
  '@opentelemetry/api': '1.10.0',
  '@opentelemetry/context-async-hooks': '3.1.1',
  '@opentelemetry/core': '3.1.1',
  '@opentelemetry/instrumentation-undici': '0.34.0',
  '@opentelemetry/sdk-trace': '3.1.1'
}

interface Span {
  readonly name: string
  readonly parentSpanContext?: { readonly spanId: string }
  readonly attributes: Readonly<Record<string, unknown>>
  spanContext(): { traceId: string; spanId: string }
  end(): void
}

const load = createRequire(join(await packages('opentelemetry', versions), 'package.json'))
const { context, propagation } = load('@opentelemetry/api')
const { AsyncLocalStorageContextManager } = load('@opentelemetry/context-async-hooks')
const { W3CTraceContextPropagator } = load('@opentelemetry/core')
const { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } = load('@opentelemetry/sdk-trace')
const { UndiciInstrumentation } = load('@opentelemetry/instrumentation-undici')
const exporter = new InMemorySpanExporter()
const provider = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] })
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
propagation.setGlobalPropagator(new W3CTraceContextPropagator())
const instrumentation = new UndiciInstrumentation()
instrumentation.setTracerProvider(provider)
instrumentation.enable()
t.teardown(() => instrumentation.disable())

/** Returns the finished spans of attempts. */
const attempts = () => (exporter.getFinishedSpans() as Span[]).filter(({ attributes }) => 'url.path' in attributes)

/** Runs code within a span and returns the span's id. */
const within = (name: string, run: () => Promise<unknown>): Promise<string> =>
  provider.getTracer('test').startActiveSpan(name, async (span: Span) => {
    await run()
    span.end()
    return span.spanContext().spanId
  })

t.test('each attempt has a span', async (t) => {
  const orders = await upstream(t, 'orders')
  const gone = await refused()
  const mesh = meshOf(t, [
    service('orders', [orders.url]),
    service('gone', [gone]),
    service('half', [gone, orders.url], { retry: retryOptions })
  ])
  const parents = new Map<string, string>()
  /** Calls a service within a span; the caller's own `traceparent` is that of the client before it. */
  const call = (name: string, path: string) =>
    provider.getTracer('test').startActiveSpan(path, async (span: Span) => {
      parents.set(path, span.spanContext().spanId)
      const headers = ['traceparent', `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`, 'x-client', '1']
      try {
        const { body } = await mesh.request({ origin: `http://${name}.mesh`, path, method: 'GET', headers })
        await body.dump()
      } catch (error) {
        t.equal((error as { code?: string }).code, 'JW_UPSTREAM_REFUSED', path)
      }
      span.end()
    })
  await Promise.all([call('orders', '/a'), call('orders', '/b'), call('half', '/c'), call('half', '/d')])
  await call('gone', '/gone')

  const spans = attempts()
  const of = (path: string) => spans.filter(({ attributes }) => attributes['url.path'] === path)
  for (const span of spans) {
    t.equal(span.name, 'GET')
    const path = String(span.attributes['url.path'])
    t.equal(span.parentSpanContext?.spanId, parents.get(path), `${path}: a child of its caller's span`)
  }
  for (const path of ['/a', '/b', '/c', '/d']) {
    const span = of(path).at(-1)!
    t.match(span.attributes, { 'http.response.status_code': 200, 'url.full': `${orders.url}${path}` })
    const { traceId, spanId } = span.spanContext()
    const request = orders.requests.find(({ url }) => url === path)!
    t.equal(request.headers.traceparent, `00-${traceId}-${spanId}-01`, 'the service gets the context of the attempt')
    t.equal(
      request.rawHeaders.filter((text) => text.toLowerCase() === 'traceparent').length,
      1,
      'the service gets one traceparent'
    )
    t.equal(request.headers['x-client'], '1')
  }
  t.equal(of('/c').length + of('/d').length, 3, 'a failed attempt and its retry have a span each')
  t.match(of('/gone'), [{ attributes: { 'error.type': 'JW_UPSTREAM_REFUSED', 'url.full': `${gone}/gone` } }])
})

t.test('spans of a program of its own: fetch, the global fetch, requests of a Fastify server', async (t) => {
  const orders = await upstream(t, 'orders', (_request, response) => response.end('[7]'))
  const services = { orders: { instances: [await refused(), orders.url], mesh: { balance: 'round-robin' as const } } }
  const mesh = createMesh({ mesh: { retry: { attempts: 1 } }, services })
  t.teardown(() => mesh.close())
  const uninstall = installFetch(mesh)
  t.teardown(uninstall)
  const fastify = Fastify()
  t.teardown(() => fastify.close())
  await fastify.register(meshOfServer, { services: { orders: { instances: [orders.url] } } })
  fastify.get('/', async (request) => request.mesh.json('orders', '/server'))

  const ways: [path: string, call: () => Promise<unknown>][] = [
    ['/fetch', async () => (await mesh.fetch('http://orders.mesh/fetch')).text()],
    ['/installed', async () => (await fetch('http://orders.mesh/installed')).text()],
    [
      '/server',
      () => fastify.inject({ url: '/', headers: { traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01` } })
    ]
  ]
  for (const [path, call] of ways) {
    const parent = await within(path, call)
    const spans = attempts().filter(({ attributes }) => attributes['url.path'] === path)
    t.ok(spans.length >= 1 && spans.length <= 2, `${path}: one span for each attempt, none for fetch itself`)
    for (const span of spans) t.equal(span.parentSpanContext?.spanId, parent, `${path}: a child of the caller's span`)
    const { traceId, spanId } = spans.at(-1)!.spanContext()
    const request = orders.requests.find(({ url }) => url === path)!
    t.equal(request.headers.traceparent, `00-${traceId}-${spanId}-01`)
    t.equal(request.rawHeaders.filter((text) => text.toLowerCase() === 'traceparent').length, 1)
  }
})

t.test("without the instrumentation, `headers` passes on the context of the caller's span", async (t) => {
  instrumentation.disable()
  const orders = await upstream(t, 'orders', (_request, response) => response.end('[7]'))
  const headers = () => {
    const carrier: Record<string, string> = {}
    propagation.inject(context.active(), carrier)
    return carrier
  }
  const mesh = createMesh({ services: { orders: { instances: [orders.url] } } }, { headers })
  t.teardown(() => mesh.close())
  const path = (name: string) => async () => (await mesh.fetch(`http://orders.mesh/${name}`)).text()
  const [a, b] = await Promise.all([within('a', path('a')), within('b', path('b'))])
  await path('none')()
  const seen = (name: string) => orders.requests.find(({ url }) => url === `/${name}`)!.headers.traceparent
  t.match(seen('a'), new RegExp(`^00-\\w{32}-${a}-01$`))
  t.match(seen('b'), new RegExp(`^00-\\w{32}-${b}-01$`))
  t.equal(seen('none'), undefined)
})
