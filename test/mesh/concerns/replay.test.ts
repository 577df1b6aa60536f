/** Streamed request bodies that are sent again: bodies that are buffered, and bodies that never are. */
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { ReplayBody, ReplayPool } from '../../../plugins/mesh/core/repeating/replay-body.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, startGateway } from '../../helpers/gateway.ts'
import { meshOf, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { connecting, raw, refused, resetting, upstream } from '../../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const put = { origin, path: '/', method: 'PUT' } as const
const retry = { ...retryOptions, on: ['connect-failure', 'reset', 'gateway-error'] as (typeof retryOptions)['on'] }

/** A service that echoes the body; `head` lists the framing headers received. */
async function echo(t: Parameters<typeof upstream>[0]) {
  const heads: Record<string, unknown>[] = []
  const server = await upstream(t, 'echo', (request, response) => {
    const { 'content-length': length, 'transfer-encoding': coding } = request.headers
    heads.push({ length, coding })
    request.pipe(response)
  })
  return { ...server, heads }
}

/** A stream that the test writes. */
function source() {
  const stream = new Readable({ read() {} })
  return { stream, push: (chunk: string | Buffer | null) => void stream.push(chunk) }
}

/** Responds 503 once it has received so many bytes of the body. */
function failingAfter(t: Parameters<typeof upstream>[0], bytes: number) {
  return upstream(t, 'busy', (request, response) => {
    let got = 0
    request.on('data', (chunk: Buffer) => {
      got += chunk.length
      if (got >= bytes && !response.writableEnded) response.writeHead(503, { 'content-length': 0 }).end()
    })
  })
}

t.test('chunks that the first attempt read are sent again, then the rest, with the same framing', async (t) => {
  const bad = await failingAfter(t, 4)
  const good = await echo(t)
  const mesh = meshOf(t, [service('orders', [bad.url, good.url], { retry })])
  for (const [headers, head] of [
    [{}, { length: undefined, coding: 'chunked' }],
    [{ 'content-length': '8' }, { length: '8', coding: undefined }]
  ] as const) {
    const { stream, push } = source()
    push('abcd')
    const response = mesh.request({ ...put, headers, body: stream })
    await eventually(() => good.heads.length === 1, 'the second attempt, before the body has ended')
    push('efgh')
    push(null)
    const { statusCode, body } = await response
    t.equal(statusCode, 200)
    t.equal(await body.text(), 'abcdefgh')
    t.strictSame(good.heads.splice(0), [head])
  }
  t.match(mesh.status()[0]!.concerns.replay, { bytes: 0 })
})

t.test('a reset within the body does not destroy the stream', async (t) => {
  const good = await echo(t)
  const mesh = meshOf(t, [service('orders', [(await resetting(t)).url, good.url], { retry })])
  const { stream, push } = source()
  push('first ')
  const response = mesh.request({ ...put, body: stream })
  await eventually(() => good.heads.length === 1, 'the second attempt')
  t.notOk(stream.destroyed)
  push('second')
  push(null)
  t.equal(await (await response).body.text(), 'first second')
})

t.test('strings, generators and web streams are sent again', async (t) => {
  const good = await echo(t)
  const mesh = meshOf(t, [service('orders', [(await resetting(t)).url, good.url], { retry })])
  async function* generated() {
    yield Buffer.from('a')
    yield 'b'
  }
  const bodies = [Readable.from(['a', 'b']), generated(), new Blob(['ab']).stream()]
  for (const body of bodies) {
    t.equal(await (await mesh.request({ ...put, body: body as Readable })).body.text(), 'ab')
  }
})

t.test('only bodies that may be sent twice are buffered, and only up to the limit', async (t) => {
  const bad = await failingAfter(t, 1)
  const good = await echo(t)
  const mesh = meshOf(t, [service('orders', [bad.url, good.url], { retry: { ...retry, maxBody: 1000 } })])
  const bodies: unknown[] = []
  mesh.use(
    (dispatch) => (opts, handler) => {
      bodies.push(opts.body)
      return dispatch(opts, handler)
    },
    { per: 'attempt' }
  )
  const status = async (more: object) => {
    bodies.length = 0
    const { statusCode, body } = await mesh.request({ ...put, ...more })
    await body.dump()
    // Each call begins with the failing instance.
    if (statusCode === 503) await (await mesh.request({ ...put, method: 'GET' })).body.dump()
    return statusCode
  }
  const stream = (size: number) => Readable.from([Buffer.alloc(size)])
  t.equal(await status({ body: stream(1000) }), 200)
  t.equal(await status({ body: stream(1001) }), 503, 'too large, found while reading')
  const large = stream(1001)
  t.equal(await status({ body: large, headers: { 'content-length': '1001' } }), 503)
  t.equal(bodies[0], large, 'a body that is known to be too large is not wrapped')
  const posted = stream(10)
  t.equal(await status({ method: 'POST', body: posted }), 503)
  t.equal(bodies[0], posted)
  t.equal(await status({ method: 'POST', body: stream(10), headers: { 'idempotency-key': 'k' } }), 200)
  const text = Buffer.from('in memory')
  t.equal(await status({ body: text }), 200)
  t.equal(bodies[0], text)
  t.equal(await status({ body: stream(10), mesh: { retry: { ...retry, maxBody: 0 } } }), 503)
})

t.test('a body whose attempt gets no connection in time is sent to another instance', async (t) => {
  const good = await echo(t)
  const policy = { attemptTimeout: 200, retry: { ...retry, on: [...retry.on] } }
  const mesh = meshOf(t, [service('orders', [(await connecting(t)).url, good.url], policy)])
  const { body } = await mesh.request({ ...put, body: Readable.from(['a stream']) })
  t.equal(await body.text(), 'a stream')
  const dead = meshOf(t, [service('orders', [await refused(), good.url], { retry })])
  t.equal(await (await dead.request({ ...put, body: Readable.from(['unread']) })).body.text(), 'unread')
})

t.test('a source that fails ends the call, once, and is not sent again', async (t) => {
  const good = await echo(t)
  const mesh = meshOf(t, [service('orders', [good.url, good.url], { retry })])
  const { stream, push } = source()
  push('begun')
  const response = mesh.request({ ...put, body: stream })
  await eventually(() => good.heads.length === 1, 'the request at the service')
  stream.destroy(Object.assign(new Error('the client is gone'), { code: 'ECONNRESET', syscall: 'read' }))
  // The echo has responded by now, so the response's body is aborted.
  await t.rejects(
    response.then(({ body }) => body.text()),
    { message: 'the client is gone' }
  )
  await sleep(50)
  t.equal(good.heads.length, 1)

  const early = Readable.from([])
  early.destroy(new Error('never was'))
  await t.rejects(mesh.request({ ...put, body: early }), { message: 'never was' })
})

t.test('a source that fails between two attempts fails the next', async (t) => {
  const mesh = meshOf(t, [
    service('orders', [(await resetting(t)).url, (await echo(t)).url], {
      retry: { ...retry, backoff: { base: 100, max: 100 } }
    })
  ])
  const { stream, push } = source()
  push('begun')
  const response = mesh.request({ ...put, body: stream })
  await eventually(() => mesh.status()[0]!.instances[0]!.active === 1, 'the first attempt')
  await eventually(() => mesh.status()[0]!.instances[0]!.active === 0, 'the end of the first attempt')
  stream.destroy(new Error('gone meanwhile'))
  await t.rejects(response, { message: 'gone meanwhile' })
})

t.test('an abort, and a response before the end of the body, destroy the rest of the body', async (t) => {
  const early = await upstream(t, 'early', (_request, response) => response.writeHead(413).end('too much'))
  const quiet = await upstream(t, 'quiet', () => {})
  const mesh = meshOf(t, [service('orders', [early.url], { retry }), service('quiet', [quiet.url], { retry })])
  const first = source()
  first.push('x')
  const { statusCode, body } = await mesh.request({ ...put, body: first.stream })
  t.equal(statusCode, 413)
  t.equal(await body.text(), 'too much')
  await eventually(() => first.stream.destroyed, 'the end of the first')

  const second = source()
  second.push('x')
  const recorder = new Recorder()
  mesh.dispatch({ ...put, origin: 'http://quiet.mesh', body: second.stream }, recorder)
  await eventually(() => quiet.requests.length === 1, 'the request at the service')
  recorder.controller.abort(new Error('left'))
  t.ok(second.stream.destroyed)
  t.strictSame(recorder.events, ['start', 'error'])
  await eventually(() => quiet.sockets.size === 0, 'the connection to close')
})

t.test('no more is read than the service accepts', async (t) => {
  const stuck = await raw(t, (socket) => socket.pause())
  const mesh = meshOf(t, [service('orders', [stuck.url], { retry })])
  let read = 0
  const stream = new Readable({
    read() {
      read += 65_536
      this.push(Buffer.alloc(65_536))
    }
  })
  const recorder = new Recorder()
  mesh.dispatch({ ...put, body: stream }, recorder)
  let before = -1
  await eventually(() => {
    const still = read > 0 && read === before
    before = read
    return still
  }, 'the reading to stop')
  await sleep(100)
  t.ok(read < 20 * 1024 * 1024, `${read} bytes`)
  recorder.controller.abort(new Error('enough'))
  await recorder.done
})

const collect = async (body: AsyncIterable<string | Uint8Array>) => {
  let text = ''
  for await (const chunk of body) text += Buffer.from(chunk as Uint8Array).toString()
  return text
}

t.test('ReplayBody reads its source and replays it', async (t) => {
  const of = (items: string[], most = 100, pool = new ReplayPool()) => {
    const kept = new ReplayBody(Readable.from(items.map((item) => Buffer.from(item))), most, pool)
    return { kept, pool }
  }
  t.test('a complete body has concurrent readers, an incomplete one has one', async (t) => {
    const { kept, pool } = of(['a', 'b', 'c'])
    const first = kept[Symbol.asyncIterator]()
    t.same((await first.next()).value.toString(), 'a')
    const second = kept[Symbol.asyncIterator]()
    await t.rejects(first.next(), 'taken over')
    t.same((await second.next()).value.toString(), 'a')
    t.notOk(kept.whole)
    t.equal(await collect(kept), 'abc')
    t.ok(kept.whole)
    t.strictSame(await Promise.all([collect(kept), collect(kept)]), ['abc', 'abc'])
    t.strictSame(pool.status(), { bytes: 3 })
    kept.close()
    t.strictSame(pool.status(), { bytes: 0 })
    await t.rejects(collect(kept))
  })
  t.test('a body beyond the limit continues for its reader, and is not replayable', async (t) => {
    const { kept, pool } = of(['aa', 'bb', 'cc', 'dd'], 3)
    t.ok(kept.replayable)
    t.equal(await collect(kept), 'aabbccdd')
    t.notOk(kept.replayable)
    t.strictSame(pool.status(), { bytes: 0 })
    await t.rejects(collect(kept))
  })
  t.test('an abandoned reader does not consume chunks of the next', async (t) => {
    let give!: (chunk: Buffer) => void
    const chunks = [Promise.resolve(Buffer.from('a')), new Promise<Buffer>((resolve) => (give = resolve))]
    async function* slow() {
      yield* chunks
    }
    const kept = new ReplayBody(slow(), 3, new ReplayPool())
    const first = kept[Symbol.asyncIterator]()
    await first.next()
    const waiting = first.next()
    const second = collect(kept)
    await sleep(5)
    give(Buffer.from('too large to be kept'))
    await t.rejects(waiting)
    t.equal(await second, 'atoo large to be kept')
  })
  t.test('the reader of a sealed body continues', async (t) => {
    const { kept } = of(['a', 'b'])
    const reader = kept[Symbol.asyncIterator]()
    await reader.next()
    kept.seal()
    t.notOk(kept.replayable)
    t.same((await reader.next()).value.toString(), 'b')
    t.ok((await reader.next()).done)
  })
  t.test('thousands of tiny chunks are not buffered, nor more than the total limit', async (t) => {
    const { kept } = of(
      Array.from({ length: 1025 }, () => 'x'),
      10_000
    )
    t.equal((await collect(kept)).length, 1025)
    t.notOk(kept.replayable)
    const pool = new ReplayPool()
    t.ok(pool.take(64 * 1024 * 1024))
    const full = of(['a'], 100, pool).kept
    t.equal(await collect(full), 'a')
    t.notOk(full.replayable)
  })
})

t.test('through the gateway: an upload is sent again, and a client that leaves is noticed', async (t) => {
  const bad = await failingAfter(t, 3)
  const good = await echo(t)
  const gateway = await startGateway({
    mesh: { balance: 'round-robin', retry: { on: ['gateway-error'], attempts: 3 } },
    services: { orders: { instances: [bad.url, good.url] } },
    routes: [{ name: 'r', match: { path: '/' }, service: 'orders' }]
  })
  t.teardown(gateway.close)
  for (let i = 0; i < 4; i++) {
    const client = connect(gateway.port, 'PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n')
    await eventually(() => good.heads.length === 1, 'the request at the good instance')
    client.send('3\r\ndef\r\n0\r\n\r\n')
    const text = await client.until('def')
    t.match(text, /200 OK.*abc/s)
    client.socket.destroy()
    good.heads.length = 0
  }
  const leaving = connect(gateway.port, 'PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc')
  await eventually(() => good.heads.length === 1, 'the request at the service')
  const { socket } = good.requests.at(-1)!
  leaving.socket.destroy()
  await eventually(() => socket.destroyed, 'the connection of the attempt to close')
})
