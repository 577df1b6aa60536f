// slow: takes about 7 s
/** Calls that share a response, calls that must not, and the independence of callers from each other. */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Group } from '../../../plugins/mesh/concerns/collapse/group.ts'
import type { CollapseOptions } from '../../../plugins/mesh/concerns/collapse/options.ts'
import { identityOf } from '../../../plugins/mesh/core/sharing/identity.ts'
import type { DispatchHandler, DispatchOptions } from '../../../plugins/mesh/core/types.ts'
import { eventually } from '../../helpers/eventually.ts'
import { get as askFor, connect, startGateway } from '../../helpers/gateway.ts'
import { meshOf, meterStub, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { upstream } from '../../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const get = { origin, path: '/', method: 'GET' } as const
const options: CollapseOptions = { headers: [], excludeHeaders: [], maxBody: 100_000 }

/** A service that holds its responses until the test sends them. */
async function holdingService(t: Parameters<typeof upstream>[0], policy: object = {}) {
  const responses: ServerResponse[] = []
  const server = await upstream(t, 'orders', (_request, response) => void responses.push(response))
  const { meter, counts } = meterStub()
  const mesh = meshOf(t, [service('orders', [server.url], { collapse: options, ...policy })], { meter })
  const ask = (more: object = {}) => {
    const recorder = new Recorder()
    mesh.dispatch({ ...get, ...more } as DispatchOptions, recorder)
    return recorder
  }
  const arrived = (count: number) => eventually(() => responses.length === count, `${count} requests`)
  const collapsed = () => counts['jingwei_mesh_collapsed_total{orders}'] ?? 0
  return { ...server, mesh, responses, ask, arrived, collapsed }
}

t.test('calls that arrive before the headers share one response', async (t) => {
  const { responses, ask, arrived, collapsed, mesh } = await holdingService(t, { collapse: true })
  const all = Array.from({ length: 5 }, () => ask())
  await arrived(1)
  all.push(ask())
  responses[0]!.writeHead(200, { 'content-length': 10 }).write('hello')
  await Promise.all(all.map((each) => eventually(() => each.body === 'hello', 'the first half')))
  const late = ask()
  await arrived(2)
  responses[0]!.end('world')
  responses[1]!.end('later')
  await Promise.all([...all, late].map(({ done }) => done))
  for (const each of all) {
    t.strictSame(each.events, ['start', '200', 'data', 'end'])
    t.equal(each.body, 'helloworld')
  }
  t.equal(late.body, 'later')
  t.equal(new Set(all.map(({ controller }) => controller)).size, 6, 'each caller has its own controller')
  t.equal(collapsed(), 5)
  t.equal(mesh.status()[0]!.active, 0)
  const after = ask()
  await arrived(3)
  responses[2]!.end('new')
  await after.done
  t.equal(after.body, 'new', 'the response is not stored')
})

t.test('a caller that throws at the end does not affect the others', async (t) => {
  for (const end of ['the response ends', 'the connection breaks']) {
    const { responses, ask, arrived } = await holdingService(t, { collapse: true })
    const all = [ask(), ask(), ask()]
    await arrived(1)
    for (const each of all.slice(0, 2)) {
      each.onResponseEnd = each.onResponseError = () => {
        throw new Error('at the end')
      }
    }
    responses[0]!.writeHead(200, { 'content-length': 10 }).write('hello')
    await eventually(() => all[2]!.body === 'hello', 'the first half')
    if (end === 'the response ends') responses[0]!.end('world')
    else responses[0]!.destroy()
    await all[2]!.done
    t.equal(all[2]!.events.at(-1), end === 'the response ends' ? 'end' : 'error')
  }
})

t.test('errors and HEAD are shared, and each record is that of the shared call', async (t) => {
  const { responses, ask, arrived, url } = await holdingService(t)
  const [a, b] = [ask({ method: 'HEAD' }), ask({ method: 'HEAD' })]
  await arrived(1)
  responses[0]!.writeHead(200, { 'content-length': 1_000_000 }).end()
  await Promise.all([a.done, b.done])
  t.strictSame(b.events, ['start', '200', 'end'])

  const calls: { instance: string; attempts: number }[] = []
  const noted = [new Recorder(), new Recorder()].map((recorder) => {
    const before = recorder.onRequestStart.bind(recorder)
    recorder.onRequestStart = (controller, context?: unknown) => {
      calls.push((context as { call: (typeof calls)[number] }).call)
      before(controller)
    }
    return recorder
  })
  const mesh = meshOf(t, [service('orders', [url], { collapse: options })])
  for (const recorder of noted) mesh.dispatch(get, recorder)
  await arrived(2)
  responses[1]!.socket!.resetAndDestroy()
  await Promise.all(noted.map(({ done }) => done))
  for (const recorder of noted) {
    t.strictSame(recorder.events, ['start', 'error'])
    t.equal(recorder.error?.code, 'JW_UPSTREAM_RESET')
  }
  t.match(calls, [
    { instance: url, attempts: 1 },
    { instance: url, attempts: 1 }
  ])
})

t.test('requests that differ in more than harmless headers are not shared', async (t) => {
  const { of } = identityOf({ excludeHeaders: [] })
  const request = (more: object) => of({ ...get, headers: {}, ...more } as DispatchOptions)
  const flat = request({ headers: ['host', 'a', 'cookie', 'x=1', 'cookie', 'y=2', 'traceparent', '1'] })
  t.equal(flat, request({ headers: { Host: 'a', cookie: ['x=1', 'y=2'] } }), 'for any format of the headers')
  const different = [
    {},
    { path: '/other' },
    { headers: { authorization: 'a' } },
    { headers: { authorization: 'b' } },
    { headers: { cookie: 'a' } },
    { headers: { range: 'bytes=0-1' } },
    { headers: { host: 'other' } },
    { headers: { 'if-none-match': '"1"' } },
    { headers: { accept: '' } },
    { headers: { accept: 'a', 'accept-language': 'b' } },
    { headers: { accept: 'b', 'accept-language': 'a' } },
    { headers: { accept: 'a,b' } },
    { headers: { accept: ['a', 'b'] } },
    { headers: { accept: 'a\n","b' } },
    ...['x-api-key', 'x-auth-token', 'x-session-id', 'x-tenant', 'origin', 'x-forwarded-for', 'x-nobody-thought-of-it']
      .flatMap((name) => ['ann', 'bob'].map((value) => ({ headers: { [name]: value } }))), // biome-ignore format: a list
    { caller: { ip: '::1', consumer: { id: 'ann' }, trusted: false } },
    { caller: { ip: '::1', consumer: { id: 'bob' }, trusted: false } },
    { caller: { ip: '::1', consumer: null, trusted: true } }
  ]
  const keys = different.map(request)
  t.equal(new Set(keys).size, different.length)
  t.ok(keys.every((key) => key !== null))
  t.equal(request({ headers: { traceparent: '1' } }), request({ headers: { 'X-Request-Id': '2' } }))
  const override = { headers: { 'x-http-method-override': 'DELETE' } }
  for (const never of [{ method: 'POST' }, { body: 'x' }, { upgrade: 'websocket' }, { query: { a: 1 } }, override]) {
    t.equal(request(never), null)
  }
})

t.test('the configuration excludes and includes headers', async (t) => {
  const { of } = identityOf({
    excludeHeaders: ['X-Forwarded-For', 'authorization', 'Cookie', 'traceparent'],
    headers: ['Traceparent'],
    perRequest: ['x-own-id']
  })
  const request = (headers: object) => of({ ...get, headers } as DispatchOptions)
  const none = request({})
  t.equal(request({ 'x-forwarded-for': '192.0.2.1' }), none)
  t.equal(request({ 'x-own-id': '1' }), none)
  for (const name of ['authorization', 'cookie', 'traceparent']) t.not(request({ [name]: '1' }), none, name)
})

t.test('response headers decide about sharing', async (t) => {
  const { responses, ask, arrived, collapsed } = await holdingService(t)
  /** Returns true if the second call gets the response to the first; otherwise it sends its own request. */
  const shared = async (headers: IncomingHttpHeaders, first: object = {}, second: object = {}) => {
    responses.length = 0
    const [a, b] = [ask({ headers: first }), ask({ headers: second })]
    await arrived(1)
    const before = collapsed()
    responses[0]!.writeHead(200, { 'content-length': 1, ...headers }).end('1')
    await a.done
    const isShared = collapsed() > before
    if (!isShared) {
      await arrived(2)
      responses[1]!.end('2')
    }
    await b.done
    t.strictSame(b.events, ['start', '200', 'data', 'end'])
    t.equal(b.body, isShared ? '1' : '2')
    return isShared
  }
  t.ok(await shared({}))
  t.ok(await shared({}, { traceparent: 'a' }, { traceparent: 'b' }), 'harmless')
  t.ok(await shared({ vary: 'Accept, Cookie' }), 'the values are the same')
  t.ok(await shared({ vary: 'Origin' }, { origin: 'a' }, { origin: 'a' }))
  t.ok(await shared({ vary: 'Traceparent' }, { traceparent: 'a' }, { traceparent: 'a' }))
  t.notOk(await shared({ vary: 'Traceparent' }, { traceparent: 'a' }, { traceparent: 'b' }))
  t.notOk(await shared({ vary: '*' }))
  t.notOk(await shared({ 'set-cookie': ['session=1'] }))
  t.notOk(await shared({ 'cache-control': 'max-age=1, private' }))
  t.notOk(await shared({ 'cache-control': 'no-store' }))
  t.notOk(await shared({ 'cache-control': 'x="unfinished, public' }))
  t.ok(await shared({ 'cache-control': 'no-store' }, { cookie: 'me' }, { cookie: 'me' }), 'the cookies are the same')
  t.notOk(await shared({ 'content-type': 'text/event-stream; charset=utf-8' }))
})

t.test('statuses about a single request are not shared', async (t) => {
  const { responses, ask, arrived, collapsed } = await holdingService(t)
  const shared = [200, 204, 301, 304, 404, 410, 500, 503]
  const own = [400, 401, 403, 405, 407, 408, 409, 412, 413, 414, 416, 417, 421, 425, 426, 429, 431, 451]
  for (const status of [...shared, ...own]) {
    responses.length = 0
    const before = collapsed()
    const [a, b] = [ask(), ask()]
    await arrived(1)
    responses[0]!.writeHead(status).end()
    await a.done
    if (own.includes(status)) {
      await arrived(2)
      responses[1]!.writeHead(200).end()
    }
    await b.done
    t.strictSame([a.status, b.status], [status, own.includes(status) ? 200 : status])
    t.equal(collapsed() - before, own.includes(status) ? 0 : 1, `${status}`)
  }
})

t.test('through the gateway: callers that differ get responses of their own', async (t) => {
  const { url, requests } = await upstream(t, 'orders', (request, response) => {
    setTimeout(() => response.end(JSON.stringify(request.rawHeaders)), 50)
  })
  const gateway = await startGateway({
    listen: { trustProxy: ['127.0.0.1'] },
    edge: { requestId: { header: 'X-Own-Id' } },
    services: { orders: { instances: [url] } },
    routes: [
      { name: 'all', match: { path: '/' }, service: 'orders', mesh: { collapse: true } },
      { name: 'named', match: { path: '/named' }, service: 'orders', mesh: { collapse: { headers: ['accept'] } } }
    ]
  })
  t.teardown(gateway.close)
  const identifying = [
    'X-Api-Key', 'X-Auth-Token', 'X-Session-Id', 'X-Tenant', 'Origin', 'X-HTTP-Method-Override', 'X-Forwarded-For',
    'Authorization', 'Cookie', 'User-Agent', 'Accept-Language'
  ] // biome-ignore format: a list
  for (const path of ['/', '/named']) {
    for (const name of identifying) {
      const responses = await Promise.all(['ann', 'bob'].map((who) => askFor(gateway.port, path, [`${name}: ${who}`])))
      responses.forEach(({ body }, index) => {
        t.match(body, index === 0 ? '"ann' : '"bob', `${path} ${name}`)
      })
    }
    const before = requests.length
    const traced = [1, 2].map((id) => askFor(gateway.port, path, [`Traceparent: ${id}`]))
    const [a, b] = await Promise.all(traced)
    t.equal(a!.body, b!.body)
    t.equal(requests.length - before, 1, 'the request id makes no difference')
  }
})

t.test('many callers of one response cost as much each as few do', async (t) => {
  const start = { status: 200, headers: { 'content-length': '2' } }
  const whole = { status: 200, headers: {} }
  /** CPU time in microseconds for all of `count` callers. */
  const cost = (count: number, { status, headers }: typeof start | typeof whole, leaving: boolean) => {
    let group!: DispatchHandler
    const dispatch = (_opts: DispatchOptions, handler: DispatchHandler) => {
      group = handler
      return true
    }
    const sharing = () => () => true
    const shared = new Group({ service: 'any', dispatch, sharing, maxBody: 100, count() {}, report() {} }, () => {})
    const controller = { aborted: false, paused: false, reason: null, abort() {}, pause() {}, resume() {} }
    const callers = Array.from({ length: count }, () => new Recorder())
    const before = process.cpuUsage().user
    shared.begin(get as DispatchOptions, callers[0]!)
    group.onRequestStart!(controller, null)
    for (const caller of callers.slice(1)) shared.join(get as DispatchOptions, caller)
    if (leaving) for (const caller of callers.slice(0, -1)) caller.controller.abort(new Error('left'))
    group.onResponseStart!(controller, status, headers, 'OK')
    group.onResponseData!(controller, Buffer.from('ok'))
    group.onResponseEnd!(controller, {})
    const after = process.cpuUsage().user
    t.equal(callers.at(-1)!.body, 'ok')
    return after - before
  }
  for (const response of [start, whole]) {
    for (const leaving of [false, true]) {
      const least = (count: number) => Math.min(...[1, 2, 3].map(() => cost(count, response, leaving)))
      least(1000)
      const [few, many] = [least(2000), least(32_000)]
      // Quadratic would be 256 times as much. The kernel may count CPU time in steps of 10 ms.
      t.ok(many < Math.max(few, 10_000) * 80, `${few} and ${many} µs`)
    }
  }
})

t.test('the first caller may leave: the others get the response, each may leave at any time', async (t) => {
  const { responses, ask, arrived, mesh } = await holdingService(t)
  const [a, b, c] = [ask(), ask(), ask()]
  await arrived(1)
  a.controller.abort(new Error('left'))
  t.strictSame(a.events, ['start', 'error'])
  t.equal(a.error?.message, 'left')
  responses[0]!.writeHead(200, { 'content-length': 4 }).write('ab')
  await eventually(() => b.body === 'ab' && c.body === 'ab', 'the first half')
  b.controller.abort(new Error('left, too'))
  responses[0]!.end('cd')
  await c.done
  t.equal(c.body, 'abcd')
  t.strictSame(b.events, ['start', '200', 'data', 'error'])

  const [d, e] = [ask(), ask()]
  await arrived(2)
  d.controller.abort(new Error('left'))
  const { socket } = responses[1]!
  await sleep(20)
  t.notOk(socket!.destroyed)
  e.controller.abort(new Error('the last one'))
  await eventually(() => socket!.destroyed, 'the connection of the call without a caller to close')
  t.equal(mesh.status()[0]!.active, 0)
  const f = ask()
  await arrived(3)
  responses[2]!.end('f')
  await f.done
  t.equal(f.body, 'f', 'a later call does not join the aborted one')
})

t.test('a slow client stalls no other, and gets the whole response', async (t) => {
  const { responses, ask, arrived } = await holdingService(t)
  const text = 'x'.repeat(100_000)
  for (const slow of [0, 1]) {
    responses.length = 0
    const both = [ask(), ask()]
    await arrived(1)
    both[slow]!.controller.pause()
    responses[0]!.writeHead(200, { 'content-length': text.length }).end(text)
    await both[1 - slow]!.done
    t.ok(both[1 - slow]!.body === text)
    t.strictSame(both[slow]!.events, ['start', '200'])
    both[slow]!.controller.resume()
    await both[slow]!.done
    t.ok(both[slow]!.body === text)
  }
})

t.test('a single caller applies backpressure, as without collapsing', async (t) => {
  let sent = 0
  const { url } = await upstream(t, 'large', (_request, response) => {
    const write = () => {
      while (sent < 50_000_000) {
        sent += 100_000
        if (!response.write(Buffer.alloc(100_000))) return void response.once('drain', write)
      }
      response.end()
    }
    write()
  })
  const mesh = meshOf(t, [service('orders', [url], { collapse: options })])
  let size = 0
  const recorder = new Recorder()
  recorder.onResponseData = (_controller, chunk) => {
    size += chunk.length
  }
  mesh.dispatch(get, recorder)
  recorder.controller.pause()
  await eventually(() => recorder.status === 200, 'the header section')
  let before = -1
  await eventually(() => {
    const still = before === sent
    before = sent
    return still
  }, 'the service to be held up')
  await sleep(100)
  t.ok(sent < 30_000_000, `${sent}`)
  recorder.controller.resume()
  await recorder.done
  t.equal(size, 50_000_000)
})

t.test('a large response is not shared: the others send their own requests', async (t) => {
  const { responses, ask, arrived, collapsed } = await holdingService(t)
  const [a, b] = [ask(), ask()]
  await arrived(1)
  responses[0]!.writeHead(200, { 'content-length': 100_001 }).end('x'.repeat(100_001))
  await arrived(2)
  b.controller.pause()
  responses[1]!.end('its own')
  await a.done
  await eventually(() => b.status === 200, 'the response to the second caller')
  t.equal(b.body, '')
  b.controller.resume()
  await b.done
  t.equal(b.body, 'its own')
  t.equal(collapsed(), 0)
})

t.test('unknown length: the others get the response once it is complete', async (t) => {
  const { responses, ask, arrived, collapsed } = await holdingService(t)
  const [a, b, c] = [ask(), ask(), ask()]
  await arrived(1)
  responses[0]!.write('one ')
  await eventually(() => a.body === 'one ', 'the first part')
  t.strictSame(b.events, ['start'])
  c.controller.pause()
  responses[0]!.end('two')
  await Promise.all([a.done, b.done])
  t.strictSame(b.events, ['start', '200', 'data', 'end'])
  t.equal(b.body, 'one two')
  t.strictSame(c.events, ['start', '200'])
  c.controller.resume()
  t.strictSame(c.events, ['start', '200', 'data', 'end'])
  t.equal(collapsed(), 2)
})

t.test('unknown length: if the response is too large or too slow, the others send their own requests', async (t) => {
  const { responses, ask, arrived, collapsed } = await holdingService(t)
  const [a, b] = [ask(), ask()]
  await arrived(1)
  responses[0]!.write('x'.repeat(100_001))
  await arrived(2)
  responses[0]!.end()
  responses[1]!.end('b')
  await Promise.all([a.done, b.done])
  t.equal(a.body.length, 100_001)
  t.equal(b.body, 'b')

  const [c, d, e] = [ask(), ask(), ask()]
  await arrived(3)
  responses[2]!.write('a stream')
  await eventually(() => c.body === 'a stream', 'the stream')
  c.controller.pause()
  await arrived(5)
  responses[3]!.end('own')
  responses[4]!.end('own')
  await Promise.all([d.done, e.done])
  t.strictSame([d.body, e.body], ['own', 'own'])
  responses[2]!.end(' goes on')
  await sleep(50)
  t.equal(c.body, 'a stream')
  c.controller.resume()
  await c.done
  t.equal(c.body, 'a stream goes on')
  t.equal(collapsed(), 0)
})

t.test('unknown length: if the reading caller leaves, another one reads', async (t) => {
  const { responses, ask, arrived, collapsed } = await holdingService(t)
  const [a, b, c] = [ask(), ask(), ask()]
  await arrived(1)
  responses[0]!.write('one ')
  await eventually(() => a.body === 'one ', 'the first part')
  a.controller.abort(new Error('left'))
  t.equal(b.body, 'one ')
  t.strictSame(c.events, ['start'])
  c.controller.abort(new Error('left, too'))
  responses[0]!.write('two ')
  responses[0]!.end('three')
  await b.done
  t.equal(b.body, 'one two three')
  t.equal(collapsed(), 1)

  const [d, e] = [ask(), ask()]
  await arrived(2)
  responses[1]!.write('one ')
  await eventually(() => d.body === 'one ', 'the first part')
  // While the chunk is being distributed.
  d.onResponseData = () => d.controller.abort(new Error('left in the middle'))
  responses[1]!.write('two ')
  await eventually(() => e.body === 'one two ', 'the missed chunk and the next one')
  responses[1]!.socket!.resetAndDestroy()
  await e.done
  t.strictSame(e.events, ['start', '200', 'data', 'error'])
})

t.test('a handler that throws does not affect the others', async (t) => {
  const { responses, ask, arrived } = await holdingService(t)
  const [bad, good, worse] = [ask(), ask(), ask()]
  bad.onResponseStart = () => {
    throw new Error('cannot be written')
  }
  worse.onResponseEnd = () => {
    throw new Error('in the end')
  }
  await arrived(1)
  responses[0]!.writeHead(200, { 'content-length': 2 }).end('ok')
  await Promise.all([bad.done, good.done])
  t.equal(bad.error?.message, 'cannot be written')
  t.equal(worse.body, 'ok')
  t.strictSame(good.events, ['start', '200', 'data', 'end'])
})

t.test('retries are shared, calls with different policies are not', async (t) => {
  let count = 0
  const { url } = await upstream(t, 'busy', (_request, response) => {
    response.writeHead(++count === 1 ? 503 : 200, { 'content-length': 1 }).end(String(count))
  })
  const retry = { ...retryOptions, on: [503] as (typeof retryOptions)['on'] }
  const mesh = meshOf(t, [service('orders', [url], { collapse: options, retry })])
  const all = await Promise.all(Array.from({ length: 4 }, async () => (await mesh.request(get)).body.text()))
  t.strictSame(all, ['2', '2', '2', '2'])
  const other = Object.freeze({ timeout: 1000 })
  const both = [mesh.request(get), mesh.request({ ...get, mesh: other })]
  t.strictSame((await Promise.all(both.map(async (each) => (await each).body.text()))).sort(), ['3', '4'])
  t.ok(mesh.describe('orders').includes('collapse'))
  t.notOk(mesh.describe('orders', { collapse: false }).includes('collapse'))
})

t.test('through the gateway: one request to the service, a response for each client', async (t) => {
  const responses: ServerResponse[] = []
  const { url } = await upstream(t, 'orders', (_request, response) => void responses.push(response))
  const gateway = await startGateway({
    mesh: { collapse: true },
    services: { orders: { instances: [url] } },
    routes: [{ name: 'orders', match: { path: '/' }, service: 'orders' }]
  })
  t.teardown(gateway.close)
  const ask = () => connect(gateway.port, 'GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  const clients = [ask(), ask(), ask()]
  await eventually(() => responses.length === 1, 'the shared request')
  // Time for the other callers.
  await sleep(100)
  t.equal(responses.length, 1)
  clients[0]!.socket.destroy()
  await sleep(20)
  responses[0]!.writeHead(200, { 'content-length': 5 }).end('hello')
  for (const client of clients.slice(1)) t.match((await client.closed).text, /^HTTP\/1.1 200 OK.*\r\n\r\nhello$/s)
})

t.test('a response that varies by caller goes to no other caller when its own leaves', async (t) => {
  const responses: (() => void)[] = []
  const { url, requests } = await upstream(t, 'a', (request, response) => {
    const { traceparent } = request.headers
    responses.push(() => response.writeHead(200, { 'cache-control': 'private' }).end(`for ${traceparent}`))
  })
  const mesh = meshOf(t, [service('orders', [url], { collapse: true })])
  const [a, b] = ['a', 'b'].map((traceparent) => {
    const recorder = new Recorder()
    mesh.dispatch({ ...get, headers: ['traceparent', traceparent] } as DispatchOptions, recorder)
    return recorder
  }) as [Recorder, Recorder]
  await eventually(() => requests.length === 1, 'the shared request')
  a.controller.abort(new Error('left'))
  responses[0]!()
  await eventually(() => requests.length === 2, 'a request of its own')
  responses[1]!()
  await b.done
  t.equal(b.body, 'for b')
  await eventually(() => mesh.status()[0]!.active === 0, 'no call in flight')
})

t.test('a fault that one caller requested is not shared with others', async (t) => {
  const { url } = await upstream(t, 'fine')
  const policy = { collapse: true, fault: { header: true, maxActive: 10 } } as const
  const mesh = meshOf(t, [service('orders', [url], policy)])
  const ask = (headers: string[], trusted: boolean) => {
    const recorder = new Recorder()
    const caller = { ip: '', consumer: null, trusted }
    mesh.dispatch({ ...get, headers, caller } as DispatchOptions, recorder)
    return recorder
  }
  const faulty = ask(['x-jingwei-fault-delay', '50', 'x-jingwei-fault-abort', '503'], true)
  const innocent = ask([], false)
  await Promise.all([faulty.done, innocent.done])
  t.strictSame([faulty.status, innocent.status], [503, 200])
})
