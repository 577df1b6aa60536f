/** Spans of attempts, and the `traceparent` that instances get: retries, hedges, copies, calls without the mesh, sidecars. */
import type { IncomingMessage } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import type { Span } from '../../helpers/collector.ts'
import { startCollector, tracingTo } from '../../helpers/collector.ts'
import { eventually } from '../../helpers/eventually.ts'
import { get, startGateway, startService } from '../../helpers/gateway.ts'

t.setTimeout(120_000)

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736'
const parent = `00-${traceId}-00f067aa0ba902b7-01`
const fields = [`traceparent: ${parent}`, 'tracestate: a=b']

type Respond = (...args: Parameters<Parameters<typeof startService>[0]>) => void

/** A service that records the requests that it gets. */
async function recording(t: Test, respond: Respond = (_request, response) => void response.end('ok')) {
  const seen: IncomingMessage[] = []
  const service = await startService((request, response) => {
    seen.push(request)
    respond(request, response)
  })
  t.teardown(service.close)
  return { url: service.url, seen }
}

/** A gateway before one service. */
async function start(t: Test, instances: string[], mesh: object, more: object = {}) {
  const collector = await startCollector(t)
  const gateway = await startGateway({
    tracing: tracingTo(collector, { trustClient: true }),
    services: { any: { instances, mesh } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    ...more
  })
  t.teardown(gateway.close)
  return { collector, port: gateway.port }
}

/** The ids that a span gives to the service. */
const named = ({ traceId, spanId }: Span) => `00-${traceId}-${spanId}-01`

t.test('each retry has a span, which its instance learns', async (t) => {
  let count = 0
  const service = await recording(t, (_request, response) => void response.writeHead(count++ < 2 ? 503 : 200).end())
  const { collector, port } = await start(t, [service.url], {
    retry: { attempts: 2, on: [503], backoff: { base: '1ms', max: '2ms' }, budget: '100%' }
  })
  t.equal((await get(port, '/x', fields)).status, 200)
  const [server] = await collector.servers(1)
  const attempts = await collector.clients(3)
  t.strictSame(
    service.seen.map(({ headers }) => headers.traceparent),
    attempts.map(named)
  )
  t.equal(new Set(attempts.map(({ spanId }) => spanId)).size, 3)
  t.ok(attempts.every((span) => span.parentSpanId === server!.spanId && span.traceId === traceId))
  t.strictSame(
    attempts.map(({ attributes }) => [
      attributes['http.request.resend_count'],
      attributes['http.response.status_code']
    ]),
    [
      [undefined, 503],
      [1, 503],
      [2, 200]
    ]
  )
  t.strictSame(
    attempts.map(({ status }) => status.code),
    [2, 2, undefined]
  )
  t.equal(server!.status.code, undefined, 'the request has succeeded')
  for (const { headers } of service.seen) t.equal(headers.tracestate, 'a=b')
})

t.test('an attempt without a connection has a span with its error', async (t) => {
  const service = await recording(t)
  const retry = { attempts: 1, on: ['connect-failure'], backoff: { base: '1ms', max: '1ms' } }
  const { collector, port } = await start(t, ['http://127.0.0.1:9', service.url], { retry, balance: 'round-robin' })
  t.equal((await get(port, '/', fields)).status, 200)
  t.equal((await get(port, '/', fields)).status, 200)
  await collector.servers(2)
  const attempts = await collector.clients(3)
  const failed = attempts.filter(({ status }) => status.code === 2)
  t.ok(failed.length > 0)
  for (const span of failed) {
    t.match(span, { attributes: { 'error.type': 'JW_UPSTREAM_REFUSED', 'server.port': 9 } })
  }
  t.equal(attempts.length, failed.length + 2)
})

t.test('each hedged attempt has a span; the one that is not needed is no error', async (t) => {
  const slow = await recording(t, () => {})
  const fast = await recording(t)
  const { collector, port } = await start(t, [slow.url, fast.url], {
    hedge: { after: '20ms' },
    balance: 'round-robin',
    retry: false
  })
  for (let i = 0; i < 2; i++) t.equal((await get(port, '/', fields)).status, 200)
  await eventually(() => slow.seen.length > 0 && fast.seen.length === 2)
  const all = [...slow.seen, ...fast.seen]
  const attempts = await collector.clients(all.length)
  t.strictSame(all.map(({ headers }) => headers.traceparent).sort(), attempts.map(named).sort())
  const unneeded = attempts.find(({ spanId }) => slow.seen[0]!.headers.traceparent!.includes(spanId))!
  t.match(unneeded, { attributes: { 'error.type': 'AttemptUnneeded' }, status: { code: undefined } })
  const hedge = attempts.find(({ attributes }) => attributes['http.request.resend_count'] === 1)
  t.match(hedge, { attributes: { 'http.response.status_code': 200 } })
})

t.test('timeouts and injected faults have spans', async (t) => {
  const silent = await recording(t, () => {})
  const slow = await start(t, [silent.url], { attemptTimeout: '50ms', retry: false })
  t.equal((await get(slow.port, '/', fields)).status, 504)
  t.match(await slow.collector.clients(1), [
    { attributes: { 'error.type': 'JW_ATTEMPT_TIMEOUT' }, status: { code: 2 } }
  ])
  const faulty = await start(t, [silent.url], { fault: { abort: { status: 418, percent: '100%' } } })
  t.equal((await get(faulty.port, '/', fields)).status, 418)
  t.match(await faulty.collector.clients(1), [
    { attributes: { 'http.response.status_code': 418, 'error.type': '418' } }
  ])
})

t.test('a call that no instance gets has no span of an attempt', async (t) => {
  const service = await recording(t)
  const { collector, port } = await start(t, [service.url], { limit: { rate: 1, per: '60s', burst: 1 } })
  await get(port, '/', fields)
  t.equal((await get(port, '/', fields)).status, 503)
  const servers = await collector.servers(2)
  t.match(servers[1], { attributes: { 'error.type': 'JW_UPSTREAM_LIMITED' }, status: { code: 2 } })
  await new Promise((resolve) => setTimeout(resolve, 50))
  t.equal((await collector.clients(1)).length, 1)
})

t.test('a copy for another service has a span of its own', async (t) => {
  const service = await recording(t)
  const shadow = await recording(t)
  const { collector, port } = await start(
    t,
    [service.url],
    {},
    {
      services: {
        any: { instances: [service.url], mesh: { mirror: { service: 'shadow' } } },
        shadow: { instances: [shadow.url] }
      }
    }
  )
  t.equal((await get(port, '/', fields)).status, 200)
  const attempts = await collector.clients(2)
  await eventually(() => shadow.seen.length === 1)
  const copy = attempts.find(({ attributes }) => attributes['peer.service'] === 'shadow')!
  t.equal(shadow.seen[0]!.headers.traceparent, named(copy))
})

t.test('a traceparent that a plugin sets for its call is the parent of the attempt', async (t) => {
  const service = await recording(t)
  const collector = await startCollector(t)
  const own = { traceId: 'c'.repeat(32), spanId: 'd'.repeat(16) }
  const ids: Record<string, string> = {
    '/own': `00-${own.traceId}-${own.spanId}-01`,
    '/unsampled': `00-${own.traceId}-${own.spanId}-00`
  }
  const gateway = await startGateway(
    { tracing: tracingTo(collector), services: { any: { instances: [service.url] } }, routes: [] },
    {
      before: (server) =>
        void server.register(async (server) => {
          for (const [path, traceparent] of Object.entries(ids)) {
            server.get(path, (request) => request.mesh.stream('any', path, { headers: { traceparent } }))
          }
        })
    }
  )
  t.teardown(gateway.close)
  t.equal((await get(gateway.port, '/own')).body, 'ok')
  const [client] = await collector.clients(1)
  t.match(client, { traceId: own.traceId, parentSpanId: own.spanId })
  t.equal(service.seen[0]!.headers.traceparent, named(client!))
  t.equal((await get(gateway.port, '/unsampled')).body, 'ok')
  await collector.servers(2)
  t.equal(service.seen[1]!.headers.traceparent, ids['/unsampled'])
  t.equal((await collector.clients(1)).length, 1)
})

t.test('headers that the gateway removes stay removed', async (t) => {
  const service = await recording(t)
  const { collector, port } = await start(
    t,
    [service.url],
    {},
    { edge: { headers: { request: { remove: ['traceparent'] } } } }
  )
  t.equal((await get(port, '/', fields)).status, 200)
  await collector.clients(1)
  t.notOk('traceparent' in service.seen[0]!.headers)
})

t.test('without the mesh, each call has a span', async (t) => {
  const service = await recording(
    t,
    ({ url }, response) => void response.writeHead(url === '/bad' ? 500 : 200).end('ok')
  )
  const collector = await startCollector(t)
  const gateway = await startGateway({
    mesh: false,
    tracing: tracingTo(collector, { trustClient: true }),
    services: { any: { instances: [service.url] }, dead: { instances: ['http://127.0.0.1:9'] } },
    routes: [
      { name: 'all', match: { path: '/' }, service: 'any', via: 'bridge' },
      { name: 'proxied', match: { path: '/proxied' }, service: 'any' },
      { name: 'dead', match: { path: '/dead' }, service: 'dead', via: 'bridge' }
    ]
  })
  t.teardown(gateway.close)
  for (const [path, status, outcome] of [
    ['/', 200, { 'http.response.status_code': 200, 'peer.service': 'any' }],
    ['/proxied/a?b', 200, { 'http.response.status_code': 200 }],
    ['/bad', 500, { 'http.response.status_code': 500, 'error.type': '500' }],
    ['/dead', 502, { 'error.type': 'ECONNREFUSED' }]
  ] as const) {
    const before = collector.spans.length
    t.equal((await get(gateway.port, path, fields)).status, status, path)
    await eventually(() => collector.spans.length === before + 2)
    const [client, server] = collector.spans.slice(before).sort((a, b) => b.kind - a.kind)
    t.match(client, { traceId, parentSpanId: server!.spanId, attributes: outcome }, path)
    if (status !== 502) t.equal(service.seen.at(-1)!.headers.traceparent, named(client!), path)
  }
})
