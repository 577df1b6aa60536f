// slow: takes about 5 s
// Handlers of a backend for frontends: parallel calls with partial results, and composed streams. The examples run as they are.
import { once } from 'node:events'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import http from 'node:http'
import http2 from 'node:http2'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { loadConfig, parseConfig } from '../../plugins/config.ts'
import { merge, readEvents, readNdjson } from '../../routes/bff/index.ts'
import { eventually } from '../helpers/eventually.ts'
import type { Gateway } from '../helpers/plugins.ts'
import { folder, listen, service } from '../helpers/plugins.ts'
import { selfSigned } from '../helpers/self-signed.ts'

const examples = join(import.meta.dirname, '../../config/examples/bff-handlers')

/** Starts the gateway of the examples with these services. */
async function example(t: Test, services: Record<'orders' | 'products' | 'users', RequestListener>, more: object = {}) {
  const env: Record<string, string> = { PORT: '0', ADMIN_PORT: '0' }
  for (const [name, listener] of Object.entries(services)) {
    env[`${name.toUpperCase()}_PORT`] = new URL(await service(t, listener)).port
  }
  const config = await loadConfig(join(examples, 'gateway.yaml'), env)
  return listen(t, { ...config, ...more })
}

const json = (value: unknown): RequestListener => {
  return (_request, response) => void response.setHeader('content-type', 'application/json').end(JSON.stringify(value))
}
const down: RequestListener = (request) => request.socket.destroy()

const users = json({ id: 'alice', name: 'Alice', passwordHash: 'x' })
const orders = json([{ id: 1, product: 'tea', margin: 2 }])
const products: RequestListener = (request, response) =>
  json(request.url!.startsWith('/recommended') ? ['ink'] : [{ id: 'tea', price: 4.5 }])(request, response)

async function get(url: string, init: RequestInit = {}) {
  const response = await fetch(url, { signal: AbortSignal.timeout(10_000), ...init })
  const text = await response.text()
  return { status: response.status, headers: response.headers, text, json: () => JSON.parse(text) as unknown }
}

t.test('dashboard: the responses of three services, without members that the schema does not have', async (t) => {
  const { url } = await example(t, { users, orders, products })
  const response = await get(`${url}/bff/dashboard/alice`)
  t.equal(response.status, 200)
  t.equal(
    response.text,
    '{"user":{"id":"alice","name":"Alice"},"orders":[{"id":1,"product":"tea","price":4.5}],"recommended":["ink"],"missing":[]}'
  )
  t.equal(response.headers.get('ratelimit-limit'), '50', 'the edge guards the route')
  t.equal((await get(`${url}/bff/dashboard/Alice7`)).status, 400, 'the parameter is validated')
})

t.test('dashboard: a service that is down takes only its own part with it', async (t) => {
  const { url } = await example(t, { users, orders, products: down })
  const response = await get(`${url}/bff/dashboard/alice`)
  t.equal(response.status, 200)
  t.same(response.json(), {
    user: { id: 'alice', name: 'Alice' },
    orders: [],
    recommended: [],
    missing: ['orders', 'recommended']
  })
  t.equal(response.headers.get('cache-control'), 'no-store', 'a partial response is not stored')
})

t.test('dashboard: a required service that is down fails the request, and the other calls are aborted', async (t) => {
  const aborted: string[] = []
  const hang: RequestListener = (request) => void request.socket.once('close', () => aborted.push(request.url!))
  const { url } = await example(t, { users: down, orders: hang, products: hang })
  const response = await get(`${url}/bff/dashboard/alice`)
  t.equal(response.status, 502)
  t.match(response.json(), { code: 'JW_UPSTREAM_RESET' })
  await eventually(() => aborted.length === 2)
  t.same(aborted.sort(), ['/orders?user=alice', '/recommended?user=alice'])
})

t.test('dashboard: the deadline is shared, and what has arrived by then is sent', async (t) => {
  const hang: RequestListener = () => {}
  const slow = await example(t, { users, orders: hang, products })
  const response = await get(`${slow.url}/bff/dashboard/alice`)
  t.equal(response.status, 200)
  t.match(response.json(), { user: { name: 'Alice' }, orders: [], recommended: ['ink'], missing: ['orders'] })

  const late = await example(t, { users: hang, orders, products })
  const failed = await get(`${late.url}/bff/dashboard/alice`)
  t.equal(failed.status, 504, 'a required call was not complete in time')
  t.match(failed.json(), { code: 'JW_SIGNAL_TIMEOUT' })
})

/** Starts a gateway with one plugin, whose module has this body, and the services `a` and `b`. */
async function handlers(
  t: Test,
  body: string,
  services: Record<string, RequestListener>,
  more: object = {}
): Promise<Gateway> {
  const source = `import { Readable } from 'node:stream'
import { merge, optional, parallel, readEvents, readNdjson, sendEvents, sendNdjson } from 'jingwei/plugin'
export default async function handlers(fastify) {
  fastify.decorate('seen', [])
  ${body}
}`
  const root = await folder(t, { 'handlers.mjs': source })
  const instances: [string, { instances: string[] }][] = []
  for (const [name, listener] of Object.entries(services))
    instances.push([name, { instances: [await service(t, listener)] }])
  const text = JSON.stringify({
    listen: { port: 0 },
    admin: false,
    mesh: { retry: false, timeout: '2s' },
    services: Object.fromEntries(instances),
    plugins: [{ path: './handlers.mjs' }],
    ...more
  })
  return listen(t, await loadFrom(text, join(root, 'gateway.yaml')))
}
const loadFrom = async (text: string, file: string) => parseConfig(text, file)
const seenBy = ({ server }: Gateway) => (server as unknown as { seen: unknown[] }).seen

t.test('within: a function that waits for no call ends at the deadline, too', async (t) => {
  const gateway = await handlers(
    t,
    `const never = () => new Promise(() => {})
    fastify.get('/whole', ({ mesh }) => mesh.within(50, never))
    fastify.get('/part', ({ mesh }) => mesh.within(50, (mesh) => parallel(mesh, { a: optional('none', never) })))
    fastify.get('/in-time', ({ mesh }) => mesh.within(60_000, () => ({ ok: true })))
    fastify.get('/nested', ({ mesh }) => mesh.within(60_000, (mesh) => mesh.within(50, never)))
    fastify.get('/wrong', ({ mesh }) => mesh.within(0, never))`,
    { a: json({}) }
  )
  t.equal((await get(`${gateway.url}/whole`)).status, 504)
  t.match((await get(`${gateway.url}/part`)).json(), { data: { a: 'none' }, missing: ['a'] })
  t.same((await get(`${gateway.url}/in-time`)).json(), { ok: true })
  t.equal((await get(`${gateway.url}/nested`)).status, 504)
  t.equal((await get(`${gateway.url}/wrong`)).status, 500)
})

t.test('within: the signal is aborted at the deadline, and when the client leaves', async (t) => {
  const gateway = await handlers(
    t,
    `const wait = async (mesh, ms) => mesh.within(ms, async (mesh) => {
      const { promise, resolve } = Promise.withResolvers()
      fastify.seen.push('waiting')
      mesh.signal.addEventListener('abort', () => resolve(fastify.seen.push(mesh.signal.reason.code)))
      await promise
    })
    fastify.get('/deadline', ({ mesh }) => wait(mesh, 50))
    fastify.get('/leave', ({ mesh }) => wait(mesh, 60_000))`,
    { a: json({}) }
  )
  await get(`${gateway.url}/deadline`)
  t.same(seenBy(gateway).splice(0), ['waiting', 'JW_SIGNAL_TIMEOUT'])
  const request = http.get(`${gateway.url}/leave`)
  request.on('error', () => {})
  await eventually(() => seenBy(gateway).includes('waiting'))
  request.destroy()
  await eventually(() => seenBy(gateway).length === 2)
  t.equal(seenBy(gateway)[1], 'JW_CLIENT_GONE')
})

t.test('stream: the body of a response with status 2xx', async (t) => {
  const gateway = await handlers(
    t,
    `fastify.get('/text', async ({ mesh }, reply) => reply.send(await mesh.stream('a', '/x', { accept: 'text/plain' })))`,
    {
      a: (request, response) => {
        if (request.headers.accept === 'text/plain') response.end('x'.repeat(11 * 1024 * 1024))
        else response.writeHead(406).end()
      }
    }
  )
  t.equal((await get(`${gateway.url}/text`)).text.length, 11 * 1024 * 1024, 'larger than json accepts')

  const refused = await handlers(t, `fastify.get('/text', ({ mesh }) => mesh.stream('a', '/x'))`, {
    a: (_request, response) => void response.writeHead(418).end('no')
  })
  const response = await get(`${refused.url}/text`)
  t.equal(response.status, 502)
  t.match(response.json(), { code: 'JW_UPSTREAM_STATUS' })
})

/** Yields each character, or each byte, in a chunk of its own, and all in one. */
const chunkings = (text: string) => [
  () => Readable.from([Buffer.from(text)]),
  () => Readable.from([...Buffer.from(text)].map((byte) => Buffer.from([byte])))
]

t.test('readEvents: as a browser reads them, whatever the chunks', async (t) => {
  const text =
    '\uFEFF: comment\ndata: a\n\nevent: x\r\nid: 1\r\ndata:b\r\ndata:  c\r\n\r\ndata\rid\r\rretry: 5\nevent: lost\n\ndata: {"ü":"€"}\nunknown: 1\n\ndata: incomplete\n'
  for (const chunked of chunkings(text)) {
    t.same(await Array.fromAsync(readEvents(chunked())), [
      { event: 'message', data: 'a', id: '' },
      { event: 'x', data: 'b\n c', id: '1' },
      { event: 'message', data: '', id: '' },
      { event: 'message', data: '{"ü":"€"}', id: '' }
    ])
  }
  const long = () => Readable.from([`data: ${'x'.repeat(50)}\n`, `data: ${'x'.repeat(50)}\n\n`])
  await t.rejects(Array.fromAsync(readEvents(long(), { maxLength: 60 })), {
    code: 'JW_UPSTREAM_BODY_TOO_LARGE',
    statusCode: 502
  })
  await t.rejects(Array.fromAsync(readEvents(long(), { maxLength: 40 })), { code: 'JW_UPSTREAM_BODY_TOO_LARGE' })
})

t.test('readEvents: a line feed in a chunk of its own ends no more than its line', async (t) => {
  const read = (chunks: string[]) => Array.fromAsync(readEvents(Readable.from(chunks)), ({ data }) => data)
  t.same(await read(['data: a\r', '\n', '\ndata: b\r\n\r\n']), ['a', 'b'])
  t.same(await read(['data: a\r', '\n', 'data: b\r', '\n', '\r', '\n']), ['a\nb'])
})

t.test('readNdjson: a value per line, whatever the chunks', async (t) => {
  for (const chunked of chunkings('{"a":"ü"}\r\n\n[1,\r2]\n  \n"€"')) {
    t.same(await Array.fromAsync(readNdjson(chunked())), [{ a: 'ü' }, [1, 2], '€'])
  }
  await t.rejects(Array.fromAsync(readNdjson(Readable.from(['{}\n', 'x\n']))), { code: 'JW_UPSTREAM_NOT_JSON' })
  const endless = Readable.from((function* () { for (;;) yield Buffer.alloc(1000, 'x') })()) // biome-ignore format: short
  await t.rejects(Array.fromAsync(readNdjson(endless, { maxLength: 10_000 })), { code: 'JW_UPSTREAM_BODY_TOO_LARGE' })
  t.ok(endless.destroyed)
})

t.test('merge: items in the order of arrival, one requested at a time of each source', async (t) => {
  const requested = { a: 0, b: 0 }
  async function* source(name: 'a' | 'b', count: number) {
    for (let i = 0; i < count; i++) {
      requested[name]++
      yield `${name}${i}`
    }
  }
  const merged = merge({ a: source('a', 2), b: source('b', 1000) })
  const first = await merged.next()
  t.same(first.value, { source: 'a', value: 'a0' })
  await sleep(5)
  t.same(requested, { a: 1, b: 1 }, 'nothing is requested ahead')
  await merged.return()
  t.same(await Array.fromAsync(merge({})), [])
})

t.test('merge: a failed source ends the whole, or gives way to an item', async (t) => {
  let closed = 0
  async function* endless() {
    try {
      for (;;) {
        await sleep(1)
        yield 1
      }
    } finally {
      closed++
    }
  }
  // biome-ignore lint/correctness/useYield: it fails before the first item
  async function* broken(): AsyncGenerator<number> {
    throw new Error('lost')
  }
  await t.rejects(Array.fromAsync(merge({ a: endless(), b: broken() })), { message: 'lost' })
  await eventually(() => closed === 1)
  const items: unknown[] = []
  for await (const item of merge({ a: endless(), b: broken() }, { onError: (source) => `${source} is lost` })) {
    items.push(item)
    if (items.length === 3) break
  }
  t.ok(items.includes('b is lost'))
  await eventually(() => closed === 2)
})

t.test('merge: the streams of readers are destroyed at once, also if their services are silent', async (t) => {
  const silent = () => new Readable({ read() {} })
  const [a, b, c, unread] = [silent(), silent(), silent(), silent()]
  a.push('data: 1\n\n')
  for await (const item of merge({ a: readEvents(a), b: readNdjson(b), c: readEvents(c) })) {
    t.match(item, { source: 'a', value: { data: '1' } })
    break
  }
  t.same([a.destroyed, b.destroyed, c.destroyed], [true, true, true])
  await readEvents(unread).return()
  t.ok(unread.destroyed, 'of a reader that has not begun, too')
})

t.test(
  'merge: an iterator whose return is missing, not async, or throws hides no error, and the others are closed',
  async (t) => {
    let closed = 0
    const never = () => new Promise<never>(() => {})
    const waiting = (end?: () => unknown) => ({
      [Symbol.asyncIterator]: () => ({ next: never, ...(end && { return: end }) }) as AsyncIterator<number>
    })
    const failing = {
      [Symbol.asyncIterator]: () => ({
        next(): never {
          throw new Error('next threw')
        }
      })
    }
    const sources = {
      missing: waiting(),
      notAsync: waiting(() => ({ done: true })),
      throwing: waiting(() => {
        throw new Error('return threw')
      }),
      failing,
      last: waiting(async () => closed++)
    }
    await t.rejects(Array.fromAsync(merge(sources)), { message: 'next threw' })
    t.equal(closed, 1)
  }
)

const event = (data: unknown) => `data: ${JSON.stringify(data)}\n\n`

/** A service whose responses stay open; the test writes to them. */
function streaming(type: string) {
  const open: ServerResponse[] = []
  let ended = 0
  const listener: RequestListener = (_request, response) => {
    response.writeHead(200, { 'content-type': type })
    response.flushHeaders()
    response.once('close', () => ended++)
    open.push(response)
  }
  return { listener, open, ended: () => ended }
}

t.test('feed: the events of two services arrive one by one, and both calls end with the client', async (t) => {
  const a = streaming('text/event-stream')
  const b = streaming('text/event-stream')
  const { url } = await example(t, { users, orders: a.listener, products: b.listener })
  const request = http.get(`${url}/bff/feed`)
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  t.equal(response.statusCode, 200)
  t.match(response.headers, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store, no-transform'
  })
  let text = ''
  response.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  a.open[0]!.write(event({ id: 1 }))
  await eventually(() => text.includes('{"id":1}'))
  b.open[0]!.write(event({ tea: 3 }))
  await eventually(() => text.includes('{"tea":3}'))
  a.open[0]!.destroy()
  await eventually(() => text.includes('source-lost'))
  b.open[0]!.write(event({ tea: 2 }))
  await eventually(() => text.includes('{"tea":2}'))
  t.equal(
    text,
    ':\n\nevent: orders\ndata: {"id":1}\n\nevent: stock\ndata: {"tea":3}\n\nevent: source-lost\ndata: {"source":"orders"}\n\nevent: stock\ndata: {"tea":2}\n\n'
  )
  response.destroy()
  await eventually(() => b.ended() === 1)
})

t.test('feed: a service that is down fails the request before the response begins', async (t) => {
  const a = streaming('text/event-stream')
  const { url } = await example(t, { users, orders: a.listener, products: down })
  const response = await get(`${url}/bff/feed`)
  t.equal(response.status, 502)
  await eventually(() => a.ended() === a.open.length)
})

t.test('export: lines of two services; one that breaks off closes the connection', async (t) => {
  const rows = (name: string, count: number): RequestListener => {
    return (_request, response) => {
      for (let i = 0; i < count; i++) response.write(`${JSON.stringify({ id: i, name })}\n`)
      response.end()
    }
  }
  const { url } = await example(t, { users: rows('u', 500), orders: rows('o', 700), products })
  const response = await get(`${url}/bff/export`)
  const lines = response.text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { source: string; value: { id: number } })
  t.equal(response.headers.get('content-type'), 'application/x-ndjson; charset=utf-8')
  for (const [source, count] of [['users', 500], ['orders', 700]] as const) {
    const ids = lines.filter((line) => line.source === source).map(({ value }) => value.id)
    t.same(ids, Array.from({ length: count }, (_, id) => id), `${source} are complete and in order`)
  } // biome-ignore format: a list

  const breaking: RequestListener = (_request, response) => {
    response.write('{"id":1}\n', () => setTimeout(() => response.destroy(), 20))
  }
  const broken = await example(t, { users: rows('u', 2), orders: breaking, products })
  await t.rejects(get(`${broken.url}/bff/export`), 'the client sees that the response is incomplete')
})

t.test('sendEvents: heartbeats while nothing happens, and fields of one line', async (t) => {
  const gateway = await handlers(
    t,
    `fastify.get('/idle', (_request, reply) => sendEvents(reply, never(), { heartbeatMs: 20, retryMs: 3000 }))
    fastify.get('/split', (_request, reply) => sendEvents(reply, one({ event: 'a\\nid: 7', data: 1 })))
    fastify.get('/ids', (_request, reply) => sendEvents(reply, one({ id: '7', data: 'two\\nlines' })))
    fastify.get('/late', (_request, reply) => sendNdjson(reply, broken()))
    async function* never() { try { await new Promise((resolve) => setTimeout(resolve, 60_000).unref()) } finally { fastify.seen.push('ended') } }
    async function* one(event) { yield event }
    async function* broken() { throw Object.assign(new Error('x'), { statusCode: 409 }) }`,
    { a: json({}) }
  )
  const request = http.get(`${gateway.url}/idle`)
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  let text = ''
  response.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  await eventually(() => text.startsWith('retry: 3000\n\n:\n\n:\n\n'))
  response.destroy()
  t.equal((await get(`${gateway.url}/ids`)).text, ':\n\nid: 7\ndata: "two\\nlines"\n\n')
  await t.rejects(get(`${gateway.url}/split`), 'a line end in a name closes the connection')
  t.equal((await get(`${gateway.url}/late`)).status, 409, 'a failure before the first item is an error response')
})

t.test('sendNdjson: a client that does not read stops the source', async (t) => {
  let items = 0
  async function* endless() {
    for (;;) {
      items++
      yield 'x'.repeat(10_000)
    }
  }
  const gateway = await handlers(
    t,
    `fastify.get('/all', (_request, reply) => sendNdjson(reply, fastify.items()))`,
    { a: json({}) },
    {}
  )
  ;(gateway.server as unknown as { items: unknown }).items = endless
  const request = http.get(`${gateway.url}/all`)
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  response.pause()
  let before = 0
  for (let tries = 0; tries < 30 && items !== before; tries++) {
    before = items
    await sleep(300)
  }
  t.equal(items, before, `the source stopped after ${items} items`)
  response.destroy()
})

t.test('misuse: wrong arguments are errors that name the right form', async (t) => {
  const gateway = await handlers(
    t,
    `const rejected = () => Promise.reject(new Error('not seen'))
    const drain = async (items) => { for await (const _ of items); }
    const cases = {
      bytes: ({ mesh }, reply) => mesh.stream('a', '/').then((body) => sendEvents(reply, body)),
      lines: ({ mesh }, reply) => mesh.stream('a', '/').then((body) => sendNdjson(reply, body)),
      unawaited: ({ mesh }, reply) => sendEvents(reply, mesh.stream('a', '/down')),
      reading: ({ mesh }) => drain(readNdjson(mesh.stream('a', '/down'))),
      merging: ({ mesh }) => drain(merge({ orders: mesh.stream('a', '/down'), users: rejected() })),
      promise: ({ mesh }) => parallel(mesh, { one: rejected(), two: rejected() }),
      optional: ({ mesh }) => parallel(mesh, { one: optional((mesh) => mesh.json('a', '/')) }),
      substitute: ({ mesh }) => parallel(mesh, { one: optional([], rejected()) }),
      bare: () => parallel({ one: (mesh) => mesh.json('a', '/') }),
      undefined: (_request, reply) => sendNdjson(reply, items(undefined)),
      chunk: (_request, reply) => sendNdjson(reply, items(Buffer.from('x')))
    }
    async function* items(item) { yield item }
    for (const [name, handler] of Object.entries(cases)) fastify.get('/' + name, async (request, reply) => {
      try { return await handler(request, reply) } catch (error) { return reply.code(500).send(error.name + ': ' + error.message) }
    })
    for (const [name, event] of Object.entries({ text: '{}', bytes: Buffer.from('{}'), dataless: { n: 1 } })) {
      fastify.get('/event/' + name, (_request, reply) => sendEvents(reply, items(event)))
    }`,
    { a: (request, response) => void (request.url === '/down' ? request.socket.destroy() : response.end('{}\n')) }
  )
  const expected = {
    bytes: 'TypeError: sendEvents sends items, not bytes: read the stream with readEvents, or send it as it is with reply.send(stream)',
    lines: 'TypeError: sendNdjson sends items, not bytes: read the stream with readNdjson, or send it as it is with reply.send(stream)',
    unawaited: 'TypeError: sendEvents: the second argument must be an async iterable, such as a stream, not a promise; await it',
    reading: 'TypeError: readEvents and readNdjson: the body must be an async iterable, such as a stream, not a promise; await it',
    merging: 'TypeError: merge: orders must be an async iterable, such as a stream, not a promise; await it',
    promise: "TypeError: parallel: one must be a function, not a promise; write one: (mesh) => mesh.json('users', '/')",
    optional: "TypeError: optional: the second argument must be a function, not undefined; write optional(substitute, (mesh) => mesh.json('users', '/'))",
    substitute: "TypeError: optional: the second argument must be a function, not a promise; write optional(substitute, (mesh) => mesh.json('users', '/'))",
    bare: 'TypeError: parallel: the first argument must be request.mesh: write parallel(mesh, { … })'
  } // biome-ignore format: a table
  for (const [name, text] of Object.entries(expected)) t.equal((await get(`${gateway.url}/${name}`)).text, text, name)
  for (const name of ['undefined', 'chunk']) t.equal((await get(`${gateway.url}/${name}`)).status, 500, name)
  for (const name of ['text', 'bytes', 'dataless']) {
    await t.rejects(get(`${gateway.url}/event/${name}`), `${name} closes the connection`)
  }
})

t.test('a handler may send a stream without `return`', async (t) => {
  const gateway = await handlers(
    t,
    `async function* items() { yield { data: 1, id: '' } }
    async function* broken() { throw Object.assign(new Error('x'), { statusCode: 409 }) }
    fastify.get('/events', async (_request, reply) => { sendEvents(reply, items()) })
    fastify.get('/lines', async (_request, reply) => { sendNdjson(reply, items()) })
    fastify.get('/broken', async (_request, reply) => { sendNdjson(reply, broken()) })
    fastify.register(async (fastify) => {
      fastify.addHook('onSend', async (_request, _reply, payload) => payload)
      fastify.get('/hooked', async (_request, reply) => { sendEvents(reply, items()) })
    })`,
    { a: json({}) }
  )
  for (const path of ['/events', '/hooked']) t.equal((await get(gateway.url + path)).text, ':\n\ndata: 1\n\n', path)
  t.equal((await get(`${gateway.url}/lines`)).text, '{"data":1,"id":""}\n')
  t.equal((await get(`${gateway.url}/broken`)).status, 409)
})

t.test('streams of services end with the response, whatever the handler has read of them', async (t) => {
  const lines = streaming('application/x-ndjson')
  const events = streaming('text/event-stream')
  const timer = setInterval(() => {
    for (const response of events.open) response.write(':\n\n')
  }, 20)
  t.teardown(() => clearInterval(timer))
  const gateway = await handlers(
    t,
    `async function* broken() { throw new Error('lost') }
    fastify.get('/failed', async ({ mesh }, reply) =>
      sendNdjson(reply, merge({ a: broken(), b: readNdjson(await mesh.stream('lines', '/')) })))
    fastify.get('/wrapped', async ({ mesh }, reply) => {
      const items = merge({ a: broken(), b: readNdjson(await mesh.stream('lines', '/')) })
      return sendNdjson(reply, (async function* () { yield* items })())
    })
    fastify.get('/waiting', async ({ mesh }) => {
      const items = readNdjson(await mesh.stream('lines', '/'))
      return Promise.race([items.next(), 'enough'])
    })
    fastify.get('/one', async ({ mesh }) => {
      const both = { a: readEvents(await mesh.stream('events', '/a')), b: readEvents(await mesh.stream('events', '/b')) }
      for await (const item of merge(both)) return item
    })
    fastify.get('/unawaited', async ({ mesh }) => {
      void mesh.json('late', '/').then((value) => fastify.seen.push(value))
      return 'early'
    })`,
    {
      lines: lines.listener,
      events: (request, response) => {
        events.listener(request, response)
        if (request.url === '/a') response.write('data: 1\n\n')
      },
      late: (_request, response) => {
        response.write('{"late":', () => setTimeout(() => response.end('true}'), 100))
      }
    },
    { mesh: { retry: false, timeout: '2s', idleTimeout: false } }
  )
  // One connection, which the client keeps: its end must not be what ends the calls.
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  t.teardown(() => agent.destroy())
  const status = (path: string) =>
    new Promise<number | undefined>((resolve, reject) => {
      const request = http.get(`${gateway.url}${path}`, { agent }, (response) => {
        response.resume().once('end', () => resolve(response.statusCode))
      })
      request.once('error', reject)
    })
  t.equal(await status('/failed'), 500)
  await eventually(() => lines.ended() === 1)
  t.equal(await status('/wrapped'), 500)
  await eventually(() => lines.ended() === 2)
  t.equal(await status('/waiting'), 200)
  await eventually(() => lines.ended() === 3)
  t.equal(await status('/one'), 200)
  await eventually(() => events.ended() === 2)
  t.equal(await status('/unawaited'), 200)
  await eventually(() => seenBy(gateway).length === 1)
  t.same(seenBy(gateway), [{ late: true }], 'a JSON body is read to its end')
})

t.test('an error status whose body does not end fails the call at once', async (t) => {
  let ended = 0
  const gateway = await handlers(
    t,
    `const told = (error) => ({ code: error.code, status: error.status })
    fastify.get('/json', ({ mesh }) => mesh.json('a', '/').catch(told))
    fastify.get('/stream', ({ mesh }) => mesh.stream('a', '/').catch(told))
    fastify.get('/optional', ({ mesh }) => parallel(mesh, { a: optional('none', (mesh) => mesh.json('a', '/')) }))`,
    {
      a: (_request, response) => {
        response.once('close', () => ended++)
        response.writeHead(500).write('no')
      }
    },
    { mesh: { retry: false, idleTimeout: false } }
  )
  const fault = { code: 'JW_UPSTREAM_STATUS', status: 500 }
  t.same((await get(`${gateway.url}/json`)).json(), fault)
  t.same((await get(`${gateway.url}/stream`)).json(), fault)
  t.match((await get(`${gateway.url}/optional`)).json(), { data: { a: 'none' }, missing: ['a'] })
  await eventually(() => ended === 3)
})

t.test('a stream that fails on the side of the gateway is logged, and is no disconnect of the client', async (t) => {
  const { cert, key } = await selfSigned(t)
  for (const listener of [{ port: 0 }, { port: 0, tls: { cert, key }, http2: true }]) {
    const gateway = await handlers(
      t,
      `fastify.get('/reset', async ({ mesh }, reply) => sendEvents(reply, numbered(readEvents(await mesh.stream('a', '/')))))
      fastify.get('/bug', (_request, reply) => sendEvents(reply, failing()))
      fastify.get('/bigint', (_request, reply) => sendNdjson(reply, big()))
      fastify.get('/plain', (_request, reply) => reply.send(Readable.from(texts())))
      fastify.get('/destroyed', (_request, reply) => {
        const stream = new Readable({ read() {} })
        stream.push('x')
        setTimeout(() => stream.destroy(), 50)
        return reply.send(stream)
      })
      fastify.get('/left', (_request, reply) => sendEvents(reply, waiting()))
      const pause = () => new Promise((resolve) => setTimeout(resolve, 50))
      async function* numbered(events) { for await (const { data } of events) yield { data } }
      async function* failing() { yield { data: 'x' }; await pause(); throw new TypeError('late bug') }
      async function* texts() { yield 'x'; await pause(); throw new TypeError('late bug') }
      async function* big() { yield 1; await pause(); yield 1n }
      async function* waiting() { yield { data: 1 }; await new Promise((resolve) => setTimeout(resolve, 60_000).unref()) }
      const log = (kind) => (fields, message) => fastify.seen.push({ kind, message: fields.err?.message + ' ' + message })
      fastify.addHook('onRequest', async (request) => {
        request.log = Object.assign(Object.create(request.log), { warn: log('warn'), error: log('error') })
      })
      fastify.addHook('onResponse', async (request, reply) => fastify.seen.push({ url: request.url, status: reply.statusCode, failure: request.failure }))`,
      {
        a: (_request, response) => {
          response.writeHead(200, { 'content-type': 'text/event-stream' })
          response.write('data: 1\n\n', () => setTimeout(() => response.destroy(), 50))
        }
      },
      { listen: listener }
    )
    const isHttp2 = 'http2' in listener
    const seen = async (path: string, leaves = false) => {
      seenBy(gateway).splice(0)
      if (isHttp2) {
        const session = http2.connect(gateway.url.replace('http:', 'https:'), { rejectUnauthorized: false })
        const stream = session.request({ ':path': path }).on('error', () => {})
        stream.resume()
        await once(stream, 'response')
        if (leaves) stream.close(http2.constants.NGHTTP2_CANCEL)
        else await new Promise<void>((resolve) => stream.once('close', () => resolve()))
        session.destroy()
      } else {
        const request = http.get(`${gateway.url}${path}`).on('error', () => {})
        const [response] = (await once(request, 'response')) as [IncomingMessage]
        response.on('error', () => {}).resume()
        if (leaves) request.destroy()
        else await new Promise<void>((resolve) => response.once('close', () => resolve()))
      }
      await eventually(() => seenBy(gateway).some((entry) => 'url' in (entry as object)))
      return seenBy(gateway) as Record<string, unknown>[]
    }
    const plugin = (url: string, message: RegExp) => [
      { kind: 'error', message },
      { url, status: 200, failure: 'JW_PLUGIN_FAILED' }
    ]
    t.match(await seen('/reset'), [
      { kind: 'warn', message: /response closed before its end/ },
      { url: '/reset', status: 200, failure: 'JW_UPSTREAM_RESET' }
    ])
    t.match(await seen('/bug'), plugin('/bug', /^late bug a response that plugin handlers made .* late bug/))
    t.match(await seen('/bigint'), plugin('/bigint', /BigInt/))
    t.match(await seen('/plain'), plugin('/plain', /late bug/))
    t.match(await seen('/destroyed'), plugin('/destroyed', /destroyed before its end/))
    const left = await seen('/left', true)
    t.match(left, [{ url: '/left', status: 499, failure: 'JW_CLIENT_GONE' }])
    t.equal(left.length, 1)
  }
})

t.test('HTTP/2 with TLS: the same bytes', async (t) => {
  const { cert, key } = await selfSigned(t)
  const a = streaming('text/event-stream')
  const gateway = await handlers(
    t,
    `fastify.get('/feed', async ({ mesh }, reply) => {
      const both = merge({ a: readEvents(await mesh.stream('a', '/')), b: readEvents(await mesh.stream('b', '/')) })
      return sendEvents(reply, (async function* () { for await (const { source, value } of both) yield { event: source, data: value.data } })())
    })`,
    { a: a.listener, b: a.listener },
    { listen: { port: 0, tls: { cert, key }, http2: true } }
  )
  const session = http2.connect(gateway.url.replace('http:', 'https:'), { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  const stream = session.request({ ':path': '/feed' })
  let text = ''
  stream.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  await eventually(() => a.open.length === 2)
  a.open[0]!.write('data: 1\n\n')
  await eventually(() => text === ':\n\nevent: a\ndata: "1"\n\n')
  stream.close(http2.constants.NGHTTP2_CANCEL)
  await eventually(() => a.ended() === 2)
  t.equal(text, ':\n\nevent: a\ndata: "1"\n\n')
})
