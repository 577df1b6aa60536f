// slow: waits for pauses between exports
/** The export of spans: its format, limits, failures of the collector, reloads and the end of the process. */
import type { ServerResponse } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import { unmetered } from '../../plugins/meter.ts'
import { encode, envelope } from '../../plugins/operations/tracing/encode.ts'
import { Exporter } from '../../plugins/operations/tracing/exporter.ts'
import { now } from '../../plugins/operations/tracing/wall-clock.ts'
import type { FinishedSpan } from '../../plugins/spans.ts'
import { newSpanId, newTrace, parseTraceparent, traceparentOf } from '../../plugins/spans.ts'
import type { Collector } from '../helpers/collector.ts'
import { startCollector, tracingTo } from '../helpers/collector.ts'
import { eventually } from '../helpers/eventually.ts'
import { get, startEcho, startRawService, startService } from '../helpers/gateway.ts'
import { meterStub } from '../helpers/mesh/mesh.ts'
import { freePort } from '../helpers/processes.ts'
import { selfSigned } from '../helpers/self-signed.ts'
import { startFrom } from './support.ts'

t.setTimeout(120_000)

const span = (more: Partial<FinishedSpan> = {}): FinishedSpan => ({
  ...newTrace(true),
  parent: null,
  kind: 'server',
  name: 'GET',
  startMs: 1_700_000_000_000.25,
  endMs: 1_700_000_000_001.5,
  attributes: [],
  isError: false,
  link: null,
  ...more
})

/** An exporter with its log and its counters. */
function exporterTo(
  t: Test,
  endpoint: string,
  {
    http = {},
    ...more
  }: { http?: object; maxBytes?: number; maxBatch?: number; delay?: number; meter?: ReturnType<typeof meterStub> } = {}
) {
  const { meter = meterStub(), ...options } = more
  const log: { message: string; reason?: string }[] = []
  const add = (fields: object, message: string) => void log.push({ ...fields, message })
  const collector = { endpoint, headers: {}, timeout: 2000, tls: {}, ...http }
  const resource = { 'service.name': 'test' }
  const exporter = new Exporter(
    { collector, resource, maxBytes: 1_000_000, maxBatch: 512, delay: 5, ...options },
    { meter: meter.meter, log: { info: add, warn: add }, version: '1' }
  )
  let closing: Promise<void> | undefined
  const close = () => (closing ??= exporter.close())
  t.teardown(close)
  const dropped = (reason: string) => meter.counts[`jingwei_tracing_spans_dropped_total{${reason}}`] ?? 0
  const exported = () => meter.counts['jingwei_tracing_spans_exported_total{}'] ?? 0
  return { exporter, log, close, dropped, exported }
}

t.test('the encoding of a span', async (t) => {
  const link = { traceId: 'e'.repeat(32), spanId: 'f'.repeat(16), flags: 1 }
  const ids = { traceId: 'a'.repeat(32), spanId: 'b'.repeat(16), flags: 3 }
  const attributes = [
    ['a"\n', 'b"\\\u0001\ud800'],
    ['n', 200],
    ['none', undefined],
    ['list', ['x', 'y']]
  ] as const
  const parent = { spanId: 'c'.repeat(16), isRemote: true }
  const text = envelope(
    { 'service.name': 's' },
    '1'
  )([
    encode(span({ ...ids, parent, link, attributes, isError: true })),
    encode(span({ ...ids, kind: 'client', startMs: 1_699_999_999_999.75 }))
  ])
  t.strictSame(JSON.parse(text), {
    resourceSpans: [{
      resource: { attributes: [{ key: 'service.name', value: { stringValue: 's' } }] },
      scopeSpans: [{
        scope: { name: 'jingwei', version: '1' },
        spans: [
          {
            traceId: ids.traceId, spanId: ids.spanId, parentSpanId: parent.spanId, flags: 0x303, name: 'GET', kind: 2,
            startTimeUnixNano: '1700000000000250000', endTimeUnixNano: '1700000000001500000',
            attributes: [
              { key: 'a"\n', value: { stringValue: 'b"\\\u0001\ufffd' } },
              { key: 'n', value: { intValue: '200' } },
              { key: 'list', value: { arrayValue: { values: [{ stringValue: 'x' }, { stringValue: 'y' }] } } }
            ],
            links: [{ traceId: link.traceId, spanId: link.spanId, flags: 0x301 }],
            status: { code: 2 }
          },
          {
            traceId: ids.traceId, spanId: ids.spanId, flags: 0x103, name: 'GET', kind: 3,
            startTimeUnixNano: '1699999999999750000', endTimeUnixNano: '1700000000001500000', attributes: [], status: {}
          }
        ]
      }]
    }]
  }) // biome-ignore format: a document
})

t.test('ids are random and of the right length', async (t) => {
  const ids = Array.from({ length: 3000 }, () => newTrace(true))
  t.equal(new Set(ids.map(({ traceId }) => traceId)).size, ids.length)
  t.equal(new Set([...ids.map(({ spanId }) => spanId), newSpanId()]).size, ids.length + 1)
  for (const id of ids) t.strictSame(parseTraceparent(traceparentOf(id)), id)
})

t.test('spans are exported in batches, with the headers of the settings', async (t) => {
  const collector = await startCollector(t)
  const { exporter, exported } = exporterTo(t, `${collector.url}/otlp/traces?a=b`, {
    maxBatch: 10,
    http: { headers: { 'X-Key': 'secret' } }
  })
  for (let i = 0; i < 25; i++) exporter.record(span({ name: String(i) }))
  await collector.servers(25)
  t.strictSame(
    collector.exports.map(({ spans }) => spans.length),
    [10, 10, 5]
  )
  t.strictSame(
    collector.spans.map(({ name }) => Number(name)),
    [...Array(25).keys()],
    'in their order'
  )
  for (const { url, headers } of collector.exports) {
    t.equal(url, '/otlp/traces?a=b')
    t.match(headers, { 'content-type': 'application/json', 'x-key': 'secret' })
    t.notOk('traceparent' in headers)
  }
  await eventually(() => exported() === 25)
})

t.test('large spans are divided among exports', async (t) => {
  const collector = await startCollector(t)
  const { exporter } = exporterTo(t, collector.url, { maxBytes: 10_000_000 })
  for (let i = 0; i < 30; i++) exporter.record(span({ attributes: [['a', 'x'.repeat(100_000)]] }))
  exporter.record(span({ name: 'huge', attributes: [['a', 'x'.repeat(2_000_000)]] }))
  await collector.servers(31)
  const sizes = collector.exports.map(({ text }) => text.length)
  t.ok(sizes.filter((size) => size > 1_100_000).length === 1, sizes.join())
  t.equal(collector.exports[0]!.url, '/v1/traces', 'the path of the protocol, if the endpoint has none')
})

/** Responds to exports in order; the last response repeats. */
function responding(collector: Collector, ...responses: ((response: ServerResponse, index: number) => void)[]) {
  const accept = collector.respond
  collector.respond = (response, index) => (responses[index] ?? accept)(response, index)
}

t.test('responses that ask for another try are obeyed, with Retry-After', async (t) => {
  const collector = await startCollector(t)
  const refuse = (status: number, after: string) => (response: ServerResponse) =>
    void response.writeHead(status, { 'retry-after': after }).end('{"message":"busy"}')
  const date = new Date(Date.now() - 5000).toUTCString()
  responding(collector, refuse(429, '0'), refuse(502, '0'), refuse(503, date), refuse(504, '0'))
  const { exporter, exported, dropped } = exporterTo(t, collector.url)
  exporter.record(span())
  await eventually(() => exported() === 1)
  t.equal(collector.exports.length, 5, 'the fifth try succeeds')
  t.equal(new Set(collector.exports.map(({ text }) => text)).size, 1, 'with the same spans')
  for (const reason of ['failed', 'refused', 'queue_full', 'shutdown']) t.equal(dropped(reason), 0, reason)
})

t.test('after five tries the spans are lost, and the next ones are sent', async (t) => {
  const collector = await startCollector(t)
  const refuse = (response: ServerResponse) => void response.writeHead(503, { 'retry-after': '0' }).end('no JSON')
  responding(collector, refuse, refuse, refuse, refuse, refuse)
  const { exporter, exported, dropped, log } = exporterTo(t, collector.url)
  exporter.record(span())
  await eventually(() => dropped('failed') === 1)
  exporter.record(span())
  await eventually(() => exported() === 1)
  t.match(log, [{ message: 'spans are lost: status 503' }, { message: 'spans are exported again' }])
})

t.test('a collector that repeats what it was sent brings no secret into the log', async (t) => {
  for (const isAccepted of [false, true]) {
    const collector = await startCollector(t)
    responding(collector, (response) => {
      const message = 'no access for Bearer hunter2-token, key hunter2-key'
      if (isAccepted) response.end(JSON.stringify({ partialSuccess: { rejectedSpans: '1', errorMessage: message } }))
      else response.writeHead(403).end(JSON.stringify({ message }))
    })
    const headers = { authorization: 'Bearer hunter2-token', 'api-key': 'hunter2-key' }
    const { exporter, dropped, log } = exporterTo(t, collector.url, { http: { headers } })
    exporter.record(span())
    await eventually(() => dropped('refused') === 1)
    t.match(log[0]!.message, /no access for \*\*\*, key \*\*\*$/)
    t.notMatch(JSON.stringify(log), /hunter2/)
  }
})

t.test('other statuses are final; partial success is counted', async (t) => {
  const collector = await startCollector(t)
  responding(
    collector,
    (response) => void response.writeHead(400).end(JSON.stringify({ message: `bad ${'x'.repeat(1000)}` })),
    (response) => void response.writeHead(401).end(),
    (response) => void response.writeHead(302, { location: `${collector.url}/else` }).end(),
    (response) => void response.end(JSON.stringify({ partialSuccess: { rejectedSpans: '1', errorMessage: 'one' } })),
    (response) => void response.end(JSON.stringify({ partialSuccess: { rejectedSpans: 'x', errorMessage: 5 } })),
    (response) => void response.end('null'),
    (response) => void response.end('not JSON'),
    (response) => void response.writeHead(204).end()
  )
  const { exporter, exported, dropped, log } = exporterTo(t, collector.url)
  for (let i = 1; i <= 8; i++) {
    exporter.record(span())
    exporter.record(span())
    await eventually(() => exported() + dropped('refused') === 2 * i)
  }
  t.equal(dropped('refused'), 7)
  t.equal(exported(), 9)
  t.equal(collector.exports.length, 8, 'no redirect is followed')
  t.match(log[0]!.message, /^spans are lost: status 400: bad x+$/)
  t.ok(log[0]!.message.length < 300)
})

t.test('a huge or endless response ends its connection, not the exporter', async (t) => {
  let begun = 0
  const service = await startRawService((socket) => {
    begun++
    socket.on('data', () => {
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
      const chunk = `10000\r\n${'x'.repeat(65_536)}\r\n`
      const more = () => {
        while (!socket.destroyed && socket.write(chunk));
        socket.once('drain', more)
      }
      more()
    })
  })
  t.teardown(service.close)
  const { exporter, exported } = exporterTo(t, service.url)
  for (let i = 1; i <= 3; i++) {
    exporter.record(span())
    await eventually(() => exported() === i)
  }
  t.equal(begun, 3, 'each response ended its connection')
})

t.test('a collector that is silent, malformed or away costs a bounded time and memory', async (t) => {
  const silent = await startService(() => {})
  const rude = await startRawService((socket) => socket.once('data', () => socket.end('garbage\r\n\r\n')))
  t.teardown(silent.close)
  t.teardown(rude.close)
  for (const url of [silent.url, rude.url, `http://127.0.0.1:${await freePort()}`, 'http://no-such-host.invalid']) {
    const { exporter, dropped, close, log } = exporterTo(t, url, { maxBytes: 20_000, http: { timeout: 100 } })
    for (let i = 0; i < 1000; i++) exporter.record(span())
    const left = 1000 - dropped('queue_full')
    t.ok(left > 20 && left < 100, `${left} spans fit into the queue`)
    const begunMs = performance.now()
    await close()
    t.ok(performance.now() - begunMs < 8000, url)
    t.equal(dropped('queue_full') + Number(dropped('shutdown')), 1000, url)
    t.match(log[0], { message: /^spans are lost: / })
  }
})

t.test('the end waits for the last exports, but not for long', async (t) => {
  const collector = await startCollector(t)
  const { respond } = collector
  collector.respond = (response, index) => void setTimeout(() => respond(response, index), 100)
  const quick = exporterTo(t, collector.url, { delay: 60_000, maxBatch: 10 })
  for (let i = 0; i < 25; i++) quick.exporter.record(span())
  await quick.close()
  t.equal(quick.exported(), 25)
  const silent = await startService(() => {})
  t.teardown(silent.close)
  const hanging = exporterTo(t, silent.url, { delay: 60_000, http: { timeout: 60_000 } })
  hanging.exporter.record(span())
  const begunMs = performance.now()
  await hanging.close()
  const tookMs = performance.now() - begunMs
  t.ok(tookMs > 3000 && tookMs < 15_000, `${tookMs} ms`)
  t.equal(hanging.dropped('shutdown'), 1)
  hanging.exporter.record(span())
  t.equal(hanging.dropped('shutdown'), 2, 'a span that comes later is lost')
})

t.test('an https endpoint is verified', async (t) => {
  const pair = selfSigned(t)
  const { readFileSync } = await import('node:fs')
  const cert = readFileSync(pair.cert, 'utf8')
  let count = 0
  const service = await startService(
    (request, response) => {
      count++
      request.resume().on('end', () => response.end('{}'))
    },
    { cert, key: readFileSync(pair.key, 'utf8') }
  )
  t.teardown(service.close)
  const trusting = exporterTo(t, service.url, { http: { tls: { ca: cert, servername: 'localhost' } } })
  trusting.exporter.record(span())
  await eventually(() => trusting.exported() === 1)
  const strict = exporterTo(t, service.url, { delay: 60_000 })
  strict.exporter.record(span())
  await strict.close()
  t.equal(strict.exported(), 0)
  t.equal(count, 1)
})

t.test('times follow the clock of the system', async (t) => {
  t.ok(Math.abs(now() - Date.now()) < 1000)
})

t.test('without metrics, spans are exported, too', async (t) => {
  const collector = await startCollector(t)
  const exporter = new Exporter(
    {
      collector: { endpoint: collector.url, headers: {}, timeout: 1000, tls: {} },
      resource: {},
      maxBytes: 1000,
      maxBatch: 1,
      delay: 1
    },
    { meter: unmetered, log: { info() {}, warn() {} }, version: '1' }
  )
  exporter.record(span())
  await collector.servers(1)
  await exporter.close()
})

t.test('a reload keeps the queue, and another collector gets the spans from then on', async (t) => {
  const [first, second] = [await startCollector(t), await startCollector(t)]
  const service = await startEcho()
  t.teardown(service.close)
  const sections = (collector: Collector, more: object = {}) => ({
    tracing: { ...tracingTo(collector), queue: { delay: '300s' }, ...more },
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  })
  const { runtime, write, port, adminPort } = await startFrom(t, sections(first))
  t.teardown(() => runtime.close())
  const reload = async (next: object) => {
    write(next)
    const { applied, faults } = await runtime.reload('test')
    t.ok(applied, JSON.stringify(faults))
  }
  const metric = async (name: string) =>
    (await (await fetch(`http://127.0.0.1:${adminPort}/metrics`)).text())
      .split('\n')
      .find((line) => line.startsWith(name))
  t.equal((await get(port, '/1')).status, 200)
  await reload(sections(first, { sampleRate: '0%' }))
  t.equal((await get(port, '/2')).status, 200)
  await reload(sections(first, { sampleRate: '100%' }))
  t.equal((await get(port, '/3')).status, 200)
  t.equal(first.exports.length, 0, 'nothing but the sampling has changed')
  t.match(await metric('jingwei_tracing_queue_bytes'), / [1-9]\d+$/)
  await reload(sections(second))
  t.equal((await get(port, '/4')).status, 200)
  t.strictSame(
    (await first.servers(2)).map(({ attributes }) => attributes['url.path']),
    ['/1', '/3'],
    'the queue for the first collector is sent when its last configuration ends'
  )
  await eventually(async () => / 4$/.test((await metric('jingwei_tracing_spans_exported_total')) ?? ''))
  t.equal((await get(port, '/5')).status, 200)
  await runtime.close()
  t.strictSame(
    (await second.servers(2)).map(({ attributes }) => attributes['url.path']),
    ['/4', '/5'],
    'and the other one when the process ends'
  )
  t.equal(second.resource['service.name'], 'jingwei')
})

t.test('a configuration without the section makes no spans after a reload', async (t) => {
  const collector = await startCollector(t)
  const service = await startEcho()
  t.teardown(service.close)
  const services = { any: { instances: [service.url] } }
  const routes = [{ name: 'all', match: { path: '/' }, service: 'any' }]
  const { runtime, write, port } = await startFrom(t, { tracing: tracingTo(collector), services, routes })
  t.teardown(() => runtime.close())
  await get(port, '/')
  await collector.servers(1)
  write({ services, routes })
  t.ok((await runtime.reload('test')).applied)
  const { body } = await get(port, '/')
  t.notMatch(body, /traceparent/)
  await runtime.close()
  t.equal(collector.spans.length, 2)
})
