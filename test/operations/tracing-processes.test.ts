// slow: starts several processes, and installs packages
/** Traces across processes: a sidecar, the two halves of a gateway, and a gateway with an OpenTelemetry SDK of its own. */
import { readFileSync, writeFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Test } from 'tap'
import t from 'tap'
import { folderFor } from '../helpers/certificates.ts'
import { startCollector, tracingTo } from '../helpers/collector.ts'
import { eventually } from '../helpers/eventually.ts'
import { get, startService } from '../helpers/gateway.ts'
import { packages } from '../helpers/packages.ts'
import { freePort, start } from '../helpers/processes.ts'
import { startSidecar, startSidecarFile } from '../helpers/sidecar.ts'

t.setTimeout(180_000)

const bin = join(import.meta.dirname, '../../plugins/bin.ts')
const traceId = '4bf92f3577b34da6a3ce929d0e0e4736'
const spanId = '00f067aa0ba902b7'
const traceparent = `00-${traceId}-${spanId}-01`

/** A service that records the requests that it gets. */
async function recording(t: Test) {
  const seen: IncomingMessage[] = []
  const service = await startService((request, response) => {
    seen.push(request)
    response.end('ok')
  })
  t.teardown(service.close)
  return { url: service.url, seen }
}

/** Starts `jingwei start`. */
async function startProcess(t: Test, file: string, flags: string[] = [], env: NodeJS.ProcessEnv = {}) {
  const gateway = await start({
    command: 'node',
    args: [...flags, bin, 'start', '--config', file],
    env: { ...process.env, ...env },
    name: 'jingwei start',
    ready: /jingwei is up/,
    timeout: 60_000
  })
  t.teardown(() => gateway.stop())
  return gateway
}

t.test('a sidecar continues the traces of its callers, and begins none', async (t) => {
  const collector = await startCollector(t)
  const service = await recording(t)
  const { queue, otlp } = tracingTo(collector)
  const sections = {
    services: { orders: { instances: [service.url] } },
    outbound: [{ service: 'orders' }],
    tracing: { otlp, queue, serviceName: 'orders-sidecar' }
  }
  const { ports } = await startSidecar(t, sections)
  const port = ports['outbound-orders']!
  t.equal((await get(port, '/a?b', [`traceparent: ${traceparent}`, 'tracestate: a=b'])).status, 200)
  const [client] = await collector.clients(1)
  t.match(client, { traceId, parentSpanId: spanId, attributes: { 'peer.service': 'orders' } })
  t.equal(collector.resource['service.name'], 'orders-sidecar')
  t.match(service.seen[0]!.headers, { traceparent: `00-${traceId}-${client!.spanId}-01`, tracestate: 'a=b' })
  const others = [undefined, 'broken', traceparent.replace(/01$/, '00')]
  for (const [index, value] of others.entries()) {
    t.equal((await get(port, '/', value === undefined ? [] : [`traceparent: ${value}`])).status, 200)
    t.equal(service.seen[index + 1]!.headers.traceparent, value, 'goes on as it is')
  }
  t.equal((await get(port, '/', [`traceparent: ${traceparent}`])).status, 200)
  await collector.clients(2)
  t.equal(collector.spans.length, 2)
})

t.test('both halves of a gateway record one trace', async (t) => {
  const collector = await startCollector(t)
  const service = await recording(t)
  const [port, gatewayPort, adminPort] = [await freePort(), await freePort(), await freePort()]
  const file = join(folderFor(t), 'gateway.yaml')
  const config = {
    listen: { host: '127.0.0.1', port, drain: { delay: 0, timeout: '2s' } },
    admin: false,
    tracing: tracingTo(collector, { trustClient: true }),
    mesh: { mode: 'sidecar' },
    services: { orders: { instances: [service.url] } },
    routes: [
      { name: 'orders', match: { path: '/orders' }, service: 'orders' },
      { name: 'silent', match: { path: '/silent' }, service: 'orders', edge: { tracing: false } }
    ],
    sidecar: { gateway: { port: gatewayPort }, admin: { port: adminPort }, drain: { delay: 0, timeout: '2s' } }
  }
  writeFileSync(file, JSON.stringify(config))
  await startSidecarFile(t, file)
  await startProcess(t, file)
  t.equal((await get(port, '/orders', [`traceparent: ${traceparent}`])).status, 200)
  const [server] = await collector.servers(1)
  const clients = await collector.clients(2)
  const hop = clients.find(({ parentSpanId }) => parentSpanId === server!.spanId)!
  const attempt = clients.find(({ parentSpanId }) => parentSpanId === hop.spanId)!
  t.match(server, { traceId, parentSpanId: spanId })
  t.match(hop, { traceId, attributes: { 'server.port': gatewayPort } })
  t.match(attempt, { traceId, attributes: { 'server.port': Number(new URL(service.url).port) } })
  t.equal(service.seen[0]!.headers.traceparent, `00-${traceId}-${attempt.spanId}-01`)
  t.equal((await get(port, '/silent', [`traceparent: ${traceparent}`])).status, 200)
  t.equal(service.seen[1]!.headers.traceparent, traceparent)
  await new Promise((resolve) => setTimeout(resolve, 200))
  t.equal(collector.spans.length, 3, 'a route without spans has none in the sidecar either')
})

t.test('the last spans are exported when the process ends', async (t) => {
  const collector = await startCollector(t)
  const service = await recording(t)
  const port = await freePort()
  const file = join(folderFor(t), 'gateway.yaml')
  const config = {
    listen: { host: '127.0.0.1', port, drain: { delay: 0, timeout: '2s' } },
    admin: false,
    tracing: { ...tracingTo(collector), queue: { delay: '1h' } },
    services: { orders: { instances: [service.url] } },
    routes: [{ name: 'orders', match: { path: '/' }, service: 'orders' }]
  }
  writeFileSync(file, JSON.stringify(config))
  const gateway = await startProcess(t, file)
  t.equal((await get(port, '/')).status, 200)
  t.equal(collector.exports.length, 0)
  gateway.kill('SIGTERM')
  await collector.servers(1)
  await collector.clients(1)
})

t.test("an OpenTelemetry SDK of the user's own works beside the gateway's spans", async (t) => {
  const folder = await packages('opentelemetry', {
    '@opentelemetry/api': '1.10.0',
    '@opentelemetry/context-async-hooks': '3.1.1',
    '@opentelemetry/core': '3.1.1',
    '@opentelemetry/instrumentation-undici': '0.34.0',
    '@opentelemetry/sdk-trace': '3.1.1'
  })
  const collector = await startCollector(t)
  const service = await recording(t)
  const own = folderFor(t)
  const port = await freePort()
  const sdk = join(own, 'otel.mjs')
  writeFileSync(
    sdk,
    `import { appendFileSync } from 'node:fs'
    import { createRequire } from 'node:module'
    const load = createRequire(${JSON.stringify(pathToFileURL(join(folder, 'package.json')).href)})
    const { context, propagation } = load('@opentelemetry/api')
    const { AsyncLocalStorageContextManager } = load('@opentelemetry/context-async-hooks')
    const { W3CTraceContextPropagator } = load('@opentelemetry/core')
    const { SimpleSpanProcessor, TracerProvider } = load('@opentelemetry/sdk-trace')
    const { UndiciInstrumentation } = load('@opentelemetry/instrumentation-undici')
    const exporter = {
      export(spans, done) {
        for (const span of spans) {
          const { attributes } = span
          const { traceId, spanId } = span.spanContext()
          appendFileSync(process.env.SPANS, JSON.stringify({ traceId, spanId, url: attributes['url.full'] }) + '\\n')
        }
        done({ code: 0 })
      },
      async shutdown() {}, async forceFlush() {}
    }
    const provider = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] })
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
    propagation.setGlobalPropagator(new W3CTraceContextPropagator())
    const instrumentation = new UndiciInstrumentation()
    instrumentation.setTracerProvider(provider)
    instrumentation.enable()`
  )
  const file = join(own, 'gateway.yaml')
  const config = {
    listen: { host: '127.0.0.1', port, drain: { delay: 0, timeout: '2s' } },
    admin: false,
    tracing: tracingTo(collector, { trustClient: true }),
    services: { orders: { instances: [service.url] } },
    routes: [{ name: 'orders', match: { path: '/' }, service: 'orders' }]
  }
  writeFileSync(file, JSON.stringify(config))
  const lines = join(own, 'spans')
  writeFileSync(lines, '')
  await startProcess(t, file, ['--import', pathToFileURL(sdk).href], { SPANS: lines })
  t.equal((await get(port, '/a', [`traceparent: ${traceparent}`])).status, 200)
  const [server] = await collector.servers(1)
  const [client] = await collector.clients(1)
  t.match(server, { traceId, parentSpanId: spanId })
  t.match(client, { traceId, parentSpanId: server!.spanId })
  const texts = () =>
    readFileSync(lines, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
  const spans = () => texts().map((text) => JSON.parse(text) as Record<string, string>)
  const ofCall = () => spans().find(({ url }) => url === `${service.url}/a`)
  await eventually(() => ofCall() !== undefined, 'the span of the SDK')
  const { traceId: sdkTrace, spanId: sdkSpan } = ofCall()!
  t.equal(service.seen[0]!.headers.traceparent, `00-${sdkTrace}-${sdkSpan}-01`, 'the service is below it')
  t.equal(service.seen.length, 1)
  // An export is a request like others for the SDK; its spans must not cause further exports.
  const exports = collector.exports.length
  await new Promise((resolve) => setTimeout(resolve, 300))
  t.equal(collector.exports.length, exports)
})
