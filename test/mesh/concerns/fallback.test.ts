/** Fallbacks when a service does not respond: their order, conditions, callers and marks. */
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { MeshPolicy } from '../../../config/schema.ts'
import type { FallbackOptions } from '../../../plugins/mesh/concerns/fallback/options.ts'
import { StaleStore } from '../../../plugins/mesh/concerns/fallback/stale-store.ts'
import type { DispatchOptions } from '../../../plugins/mesh/core/types.ts'
import { eventually } from '../../helpers/eventually.ts'
import { get as ask, configOf, startGateway } from '../../helpers/gateway.ts'
import { meshOf, meterStub, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { raw, refused, resetting, silent, upstream } from '../../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const get = { origin, path: '/', method: 'GET' } as const
const usual: FallbackOptions['on'] = [
  'no-instance', 'circuit-open', 'overloaded', 'connect-failure', 'reset', 'timeout'
] // biome-ignore format: a list
const on = [...usual, '5xx'] as FallbackOptions['on']
const fixed = (more: Partial<FallbackOptions> = {}): FallbackOptions => ({
  on,
  status: 200,
  body: '{"items":[]}',
  ...more
})
const to = (name: string, more: Partial<FallbackOptions> = {}): FallbackOptions => ({ on, service: name, ...more })
const stale = { maxAge: 60_000, maxEntries: 3, maxBody: 1000, excludeHeaders: [] as string[] }
const kept = (more: Partial<FallbackOptions> = {}): FallbackOptions => ({ on, stale, ...more })

async function responseOf(mesh: ReturnType<typeof meshOf>, more: object = {}) {
  const { statusCode, headers, body } = await mesh.request({ ...get, ...more } as never)
  return { status: statusCode, headers, text: await body.text(), mark: headers['x-jingwei-fallback'] }
}

t.test('a static response has its headers, its length and the header x-jingwei-fallback', async (t) => {
  const { meter, counts } = meterStub()
  const gone = await refused()
  const mesh = meshOf(
    t,
    [
      service('orders', [gone], { fallback: [fixed({ status: 203, headers: { 'X-From': 'us' } })] }),
      service('text', [gone], { fallback: [fixed({ body: 'not { json', headers: { 'content-length': '9999' } })] }),
      service('typed', [gone], { fallback: [fixed({ headers: { 'Content-Type': 'text/csv' } })] }),
      service('empty', [gone], { fallback: [fixed({ status: 204, body: 'none' })] })
    ],
    { meter }
  )
  const { status, headers, text, mark } = await responseOf(mesh)
  t.strictSame({ status, text, mark }, { status: 203, text: '{"items":[]}', mark: 'static' })
  t.match(headers, { 'x-from': 'us', 'content-type': 'application/json', 'content-length': '12' })
  t.equal(counts['jingwei_mesh_fallbacks_total{orders,static}'], 1)
  const headResponse = await responseOf(mesh, { method: 'HEAD' })
  t.equal(headResponse.text, '')
  t.equal(headResponse.headers['content-length'], '12')
  const plain = await responseOf(mesh, { origin: 'http://text.mesh' })
  t.match(plain.headers, { 'content-type': 'text/plain; charset=utf-8', 'content-length': '10' })
  t.equal((await responseOf(mesh, { origin: 'http://typed.mesh' })).headers['content-type'], 'text/csv')
  const empty = await responseOf(mesh, { origin: 'http://empty.mesh' })
  t.match(empty, { status: 204, text: '' })
  t.equal(empty.headers['content-length'], undefined)
})

t.test('`on` selects the failures to which a fallback applies', async (t) => {
  const responding = await upstream(t, 'any', (request, response) => {
    response.writeHead(Number(request.url!.slice(1))).end('real')
  })
  const failures = {
    'no-instance': service('orders', []),
    'connect-failure': service('orders', [await refused()]),
    reset: service('orders', [(await resetting(t)).url]),
    timeout: service('orders', [(await silent(t)).url], { timeout: 50 }),
    attempt: service('orders', [(await silent(t)).url], { attemptTimeout: 50 })
  }
  for (const [name, config] of Object.entries(failures)) {
    const condition = (name === 'attempt' ? 'timeout' : name) as FallbackOptions['on'][number]
    const mesh = meshOf(t, [config])
    const others = on.filter((item) => item !== condition)
    t.equal((await responseOf(mesh, { mesh: { fallback: [fixed({ on: [condition] })] } })).mark, 'static', name)
    await t.rejects(responseOf(mesh, { mesh: { fallback: [fixed({ on: others })] } }), `${name} is none of the others`)
  }

  const codes = {
    JW_CIRCUIT_OPEN: 'circuit-open',
    JW_OVERLOADED: 'overloaded',
    JW_UPSTREAM_LIMITED: 'overloaded',
    JW_UPSTREAM_UNTRUSTED: 'connect-failure',
    JW_OUT_OF_DESCRIPTORS: 'overloaded',
    JW_CREDENTIALS_UNAVAILABLE: 'connect-failure',
    JW_INTENTION_DENIED: null
  } as const
  let code: keyof typeof codes = 'JW_OVERLOADED'
  const mesh = meshOf(t, [service('orders', [responding.url])])
  mesh.use(
    (dispatch) => (opts, handler) => {
      if (opts.path !== '/') return dispatch(opts, handler)
      handler.onResponseError?.(opts.call!, Object.assign(new Error(code), { code }))
      return true
    },
    { per: 'attempt' }
  )
  for (code of Object.keys(codes) as (keyof typeof codes)[]) {
    const condition = codes[code]
    if (condition === null) {
      await t.rejects(responseOf(mesh, { mesh: { fallback: [fixed()] } }), { code }, 'a denied call stays denied')
      continue
    }
    t.equal((await responseOf(mesh, { mesh: { fallback: [fixed({ on: [condition] })] } })).mark, 'static', code)
    const others = on.filter((item) => item !== condition)
    await t.rejects(responseOf(mesh, { mesh: { fallback: [fixed({ on: others })] } }), { code })
  }

  for (const [conditions, yes, no] of [
    [['5xx'], [500, 503, 599], [404, 429, 200]],
    [
      [404, 503],
      [404, 503],
      [500, 403]
    ]
  ] as const) {
    const policy = { mesh: { fallback: [fixed({ on: [...conditions] })] } }
    for (const status of yes) {
      t.equal((await responseOf(mesh, { path: `/${status}`, ...policy })).mark, 'static', `${conditions}: ${status}`)
    }
    for (const status of no) {
      const response = await responseOf(mesh, { path: `/${status}`, ...policy })
      t.match(response, { mark: undefined, status, text: 'real' }, `${conditions}: not ${status}`)
    }
  }
  await eventually(() => mesh.status()[0]!.active === 0, 'the discarded response to end')
})

t.test('another service gets the call with its body, under its own policy', async (t) => {
  const { meter, counts } = meterStub()
  const busy = await upstream(t, 'busy', (request, response) => {
    request.resume().on('end', () => response.writeHead(503).end('busy'))
  })
  const good = await upstream(t, 'good', (request, response) => {
    response.setHeader('x-host', request.headers.host!)
    request.pipe(response)
  })
  const mesh = meshOf(
    t,
    [service('orders', [busy.url], { fallback: [to('readonly')] }), service('readonly', [good.url])],
    { meter }
  )
  const bodies = ['in memory', Buffer.from('in memory'), Readable.from(['in ', 'memory'])]
  for (const body of bodies) {
    const response = await responseOf(mesh, { method: 'PUT', body, headers: { host: 'shop.example' } })
    t.match(response, { status: 200, text: 'in memory', mark: 'service:readonly' })
    t.equal(response.headers['x-host'], 'shop.example')
  }
  t.equal(counts['jingwei_mesh_fallbacks_total{orders,service}'], 3)
  const records: { service: string; instance: string; attempts: number; sent: boolean }[] = []
  const recorder = new Recorder()
  const noted = recorder.onRequestStart.bind(recorder)
  recorder.onRequestStart = (controller, context?: unknown) => {
    records.push((context as { call: (typeof records)[number] }).call)
    noted(controller)
  }
  mesh.dispatch(get, recorder)
  await recorder.done
  t.strictSame(recorder.events, ['start', '200', 'end'])
  const [{ service: name, instance, attempts, sent } = {}] = records
  t.strictSame([name, instance, attempts, sent], ['readonly', good.url, 2, true], 'one record has both calls')
})

t.test('a request that may not be sent twice goes to a fallback only if nothing of it was sent', async (t) => {
  const busy = await upstream(t, 'busy', (request, response) => {
    request.resume().on('end', () => response.writeHead(503).end('busy'))
  })
  const good = await upstream(t, 'good', (request, response) => request.pipe(response))
  const fallback = [to('good')]
  const mesh = meshOf(t, [
    service('orders', [busy.url], { fallback }),
    service('dead', [await refused()], { fallback }),
    service('none', [], { fallback }),
    service('reset', [(await resetting(t)).url], { fallback: [to('good'), fixed()] }),
    service('good', [good.url])
  ])
  const post = (name: string, more: object = {}) =>
    responseOf(mesh, { origin: `http://${name}.mesh`, method: 'POST', body: 'x', ...more })
  t.match(await post('orders'), { status: 503, text: 'busy', mark: undefined })
  t.match(await post('orders', { headers: { 'idempotency-key': 'k' } }), { status: 200, text: 'x' })
  t.match(await post('dead'), { status: 200, text: 'x' })
  t.match(await post('none'), { status: 200, text: 'x' })
  t.match(await post('reset'), { status: 200, mark: 'static' }, 'the next entry may do')
  const large = () => Readable.from([Buffer.alloc(100_000)])
  const announced = { headers: { 'content-length': '100000' } }
  t.equal((await post('none', { body: large() })).text.length, 100_000)
  t.equal((await post('none', { body: large(), ...announced })).text.length, 100_000, 'too large to keep, but unread')
  t.equal((await post('dead', { body: large(), ...announced })).text.length, 100_000)
  t.match(await post('reset', { body: large(), method: 'PUT' }), { mark: 'static' })
  t.match(await post('orders', { body: large(), method: 'PUT', ...announced }), { status: 503 })
  t.match(await post('orders', { body: large(), method: 'PUT' }), { status: 503 })
})

t.test('fallbacks are tried in order, and if all fail, the first failure is reported', async (t) => {
  const busy = await upstream(t, 'busy', (request, response) => {
    request.resume().on('end', () => response.writeHead(503).end('busy'))
  })
  const good = await upstream(t, 'good')
  const dead = await refused()
  const mesh = meshOf(t, [
    service('orders', [(await silent(t)).url], { timeout: 50 }),
    service('busy', [busy.url]),
    service('dead', [dead]),
    service('good', [good.url])
  ])
  const by = (...fallback: FallbackOptions[]) => responseOf(mesh, { mesh: { timeout: 50, fallback } })
  t.equal((await by(to('busy'), to('dead'), to('good'), fixed())).mark, 'service:good')
  t.equal((await by(fixed(), to('good'))).mark, 'static')
  t.equal(
    (await by(to('dead', { on: ['timeout'] }), fixed({ on: ['timeout'] }))).mark,
    'static',
    'the fallback applies to the failure of the previous fallback'
  )
  t.match(
    await by(to('dead'), to('busy')),
    { status: 503, text: 'busy', mark: 'service:busy' },
    'an error status is a response'
  )
  await t.rejects(by(to('dead')), { code: 'JW_CALL_TIMEOUT' }, 'the failure of the service itself')
  await t.rejects(by(to('silent')), { code: 'JW_CALL_TIMEOUT' })
})

t.test('services that are fallbacks of each other do not loop', async (t) => {
  const dead = await refused()
  const mesh = meshOf(t, [
    service('orders', [dead], { fallback: [to('b')] }),
    service('b', [dead], { fallback: [to('orders'), to('c')] }),
    service('c', [dead], { fallback: [to('b'), to('orders'), fixed()] })
  ])
  t.match(await responseOf(mesh), { status: 200, text: '{"items":[]}', mark: 'service:b' })
})

t.test('no fallback once the response has begun', async (t) => {
  const closing = await raw(t, (socket) =>
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart')
      setTimeout(() => socket.resetAndDestroy(), 20)
    })
  )
  const mesh = meshOf(t, [service('orders', [closing.url], { fallback: [kept(), fixed()] })])
  const recorder = new Recorder()
  mesh.dispatch(get, recorder)
  await recorder.done
  t.strictSame(recorder.events, ['start', '200', 'data', 'error'])
  await t.rejects(
    responseOf(mesh).then(({ mark }) => mark),
    'an incomplete response is not stored'
  )
})

t.test('a huge error response is aborted, also if the caller has paused', async (t) => {
  const huge = await upstream(t, 'huge', (_request, response) => {
    response.writeHead(503)
    const more = () => {
      while (response.write(Buffer.alloc(65_536)));
      response.once('drain', more)
    }
    more()
  })
  const mesh = meshOf(t, [service('orders', [huge.url], { fallback: [fixed()] })])
  const recorder = new Recorder()
  mesh.dispatch(get, recorder)
  recorder.controller.pause()
  await eventually(() => recorder.status === 200, 'the response of the fallback')
  t.strictSame(recorder.events, ['start', '200'], 'the body waits for the caller')
  recorder.controller.resume()
  t.strictSame(recorder.events, ['start', '200', 'data', 'end'])
  await eventually(
    () => huge.sockets.size === 0 && mesh.status()[0]!.active === 0,
    'the connection of the huge response to close'
  )
})

t.test('the caller has one controller, which aborts the attempt in flight', async (t) => {
  const dead = await refused()
  const slow = await upstream(t, 'slow', (request, response) => {
    if (request.url === '/begun') response.writeHead(200, { 'content-length': 10 }).write('part')
  })
  const mesh = meshOf(t, [
    service('orders', [dead], { fallback: [to('slow'), fixed()] }),
    service('slow', [slow.url]),
    service('waiting', [slow.url], { fallback: [fixed()] })
  ])
  for (const [more, events] of [
    [{}, ['start', 'error']],
    [{ path: '/begun' }, ['start', '200', 'data', 'error']],
    [{ origin: 'http://waiting.mesh' }, ['start', 'error']]
  ] as const) {
    const recorder = new Recorder()
    const before = slow.requests.length
    mesh.dispatch({ ...get, ...more }, recorder)
    const { controller } = recorder
    await eventually(() => slow.requests.length > before, 'the request at the service')
    if (events.length > 2) await eventually(() => recorder.body === 'part', 'the beginning of the response')
    const { socket } = slow.requests.at(-1)!
    controller.abort(new Error('left'))
    t.strictSame(recorder.events, events)
    t.equal(recorder.error?.message, 'left')
    t.ok(controller.aborted)
    t.equal(recorder.controller, controller)
    await eventually(() => socket.destroyed, 'the end of the attempt')
    await sleep(20)
    t.strictSame(recorder.events, events, 'no further request is sent')
  }
  const early = new Recorder()
  mesh.dispatch(get, early)
  early.controller.abort(new Error('at once'))
  t.strictSame(early.events, ['start', 'error'])
})

t.test('a fallback applies after the retries, and at the concurrency limit', async (t) => {
  let count = 0
  const { url } = await upstream(t, 'busy', (_request, response) => {
    count++
    response.writeHead(503).end()
  })
  const retry = { ...retryOptions, on: [503] as (typeof retryOptions)['on'] }
  const mesh = meshOf(t, [service('orders', [url], { retry, fallback: [fixed()] })])
  t.equal((await responseOf(mesh)).mark, 'static')
  t.equal(count, 3)
})

/** A service with a stale fallback, which is up or down, with responses of the test. */
async function staleable(t: Parameters<typeof upstream>[0], policy: Partial<MeshPolicy> = {}) {
  let clock = 0
  let headers: Record<string, string | string[]> = {}
  let up = true
  let count = 0
  const { url } = await upstream(t, 'orders', (_request, response) => {
    if (up) response.writeHead(200, headers).end(`answer ${++count}`)
    else response.socket!.resetAndDestroy()
  })
  const { meter, counts } = meterStub()
  const mesh = meshOf(t, [service('orders', [url], { fallback: [kept()], ...policy })], { meter, now: () => clock })
  return {
    mesh,
    counts,
    pass: (ms: number) => {
      clock += ms
    },
    /** The response while the service is up. */
    good: async (said: typeof headers = {}, more: object = {}) => {
      up = true
      headers = said
      return (await responseOf(mesh, more)).text
    },
    /** The response while the service is down; null: a failure. */
    down: async (more: object = {}) => {
      up = false
      return responseOf(mesh, more).catch(() => null)
    }
  }
}

t.test('stale: the last successful response is sent with its age', async (t) => {
  const { good, down, pass, counts, mesh } = await staleable(t)
  t.equal(await down(), null, 'nothing is stored yet')
  await good({ etag: '"1"' })
  const text = await good({ etag: '"2"', age: '10', 'keep-alive': 'timeout=3', 'cache-status': 'cdn; fwd=miss' })
  pass(5500)
  const response = await down()
  t.match(response, { status: 200, text, mark: 'stale' })
  t.match(response!.headers, {
    etag: '"2"',
    age: '15',
    'content-length': String(text.length),
    'cache-status': 'cdn; fwd=miss, jingwei; hit; detail=stale-if-error'
  })
  t.notHas(response!.headers, { 'transfer-encoding': 'chunked' })
  const headResponse = await down({ method: 'HEAD' })
  t.match(headResponse, { status: 200, text: '', mark: 'stale' })
  t.equal(headResponse!.headers['content-length'], String(text.length))
  t.equal(counts['jingwei_mesh_fallbacks_total{orders,stale}'], 2)
  t.equal(await down({ path: '/other' }), null)
  t.equal(await down({ headers: { host: 'other' } }), null)
  t.equal(await down({ method: 'POST' }), null)
  t.equal(
    await down({ headers: { 'cache-control': 'no-cache' } }),
    null,
    'Cache-Control: no-cache of the request refuses a stale response'
  )
  t.match(mesh.status()[0]!.concerns.stale, { answers: 1, bytes: text.length })
  pass(55_000)
  t.equal(await down(), null, 'the stored response is too old')
})

t.test('stale: private responses are neither stored for nor sent to other callers', async (t) => {
  const { good, down, pass } = await staleable(t)
  let path = 0
  /** Returns true if the response with these headers to `first` is given to `second`. */
  const isKept = async (headers: Record<string, string | string[]>, first: object = {}, second: object = first) => {
    path++
    await good(headers, { path: `/${path}`, ...first })
    return (await down({ path: `/${path}`, ...second })) !== null
  }
  t.ok(await isKept({}))
  t.ok(await isKept({ 'cache-control': 'max-age=0' }))
  for (const directive of ['no-store', 'private', 'Private="x"', 'no-cache', 'must-revalidate', 's-maxage=0']) {
    t.notOk(await isKept({ 'cache-control': `max-age=0, ${directive}` }), directive)
  }
  t.ok(await isKept({ 'cache-control': 's-maxage=0, stale-if-error=60' }))
  t.notOk(await isKept({ 'set-cookie': 'session=1' }))
  t.notOk(await isKept({ 'content-length': '8', vary: '*' }))
  for (const name of ['authorization', 'cookie']) {
    const personal = { headers: { [name]: 'me' } }
    t.notOk(await isKept({}, personal), name)
    t.notOk(await isKept({}, {}, personal), 'a response to a personal request is not given to another caller')
    t.notOk(await isKept({}, personal, {}), 'it is not given to callers with credentials either')
    t.ok(await isKept({ 'cache-control': 'public' }, personal), 'a public response is given to all callers')
  }
  const known = { caller: { ip: '::1', consumer: { id: 'ann' }, trusted: false } }
  t.notOk(await isKept({}, known))
  t.ok(await isKept({ 'cache-control': 'public' }, known))

  const own = (name: string) => ({ headers: { [name]: 'me' } })
  const identifying = [
    'x-api-key', 'x-auth-token', 'x-session-id', 'x-tenant', 'origin', 'x-forwarded-for', 'user-agent',
    'x-nobody-thought-of-it'
  ] // biome-ignore format: a list
  for (const name of identifying) {
    t.ok(await isKept({}, own(name)), name)
    t.notOk(await isKept({}, own(name), {}), `${name}: a caller without it gets no stale response`)
    t.notOk(
      await isKept({}, own(name), { headers: { [name]: 'other' } }),
      `${name}: a caller with another value gets no stale response`
    )
    t.notOk(
      await isKept({ vary: 'accept-encoding' }, own(name), {}),
      `${name}: Vary that names another header does not help`
    )
    t.ok(
      await isKept({ 'cache-control': 'public' }, own(name), {}),
      `${name}: a public response is given to all callers`
    )
    t.notOk(
      await isKept({ 'cache-control': 'public', vary: name }, own(name), {}),
      `${name}: a public response is given as Vary allows`
    )
  }
  t.ok(await isKept({}, own('traceparent'), {}))
  t.notOk(await isKept({ vary: 'traceparent' }, own('traceparent'), {}))
  for (const name of [
    'host',
    'x-forwarded-host',
    'x-forwarded-proto',
    'x-forwarded-scheme',
    'x-forwarded-ssl',
    'x-original-url',
    'x-http-method-override'
  ]) {
    t.notOk(
      await isKept({ 'cache-control': 'public' }, own(name), {}),
      `${name}: another resource gets no stale response`
    )
  }
  const ann = { caller: { ip: '::1', consumer: { id: 'ann' }, trusted: false } }
  const bob = { caller: { ip: '::1', consumer: { id: 'bob' }, trusted: false } }
  t.notOk(await isKept({ 'cache-control': 'public' }, ann, bob), 'consumers do not share responses')
  t.ok(await isKept({ 'cache-control': 'public' }, ann))

  const language = (value: string) => ({ path: '/vary', headers: { 'accept-language': value } })
  const german = await good({ vary: 'Accept-Language' }, language('de'))
  const french = await good({ vary: 'Accept-Language' }, language('fr'))
  t.equal((await down(language('de')))?.text, german)
  t.equal((await down(language('fr')))?.text, french)
  t.equal(await down(language('it')), null)

  await good({ 'cache-control': 'max-age=10, must-revalidate', age: '4' }, { path: '/fresh' })
  pass(5900)
  t.ok(await down({ path: '/fresh' }), 'the stored response is fresh')
  pass(200)
  t.equal(await down({ path: '/fresh' }), null, 'must-revalidate forbids a stale response')
})

t.test('stale: the configuration excludes headers', async (t) => {
  const excludeHeaders = ['X-Forwarded-For', 'authorization']
  const { good, down } = await staleable(t, { fallback: [kept({ stale: { ...stale, excludeHeaders } })] })
  const text = await good({}, { headers: { 'x-forwarded-for': '192.0.2.1' } })
  t.equal((await down({ headers: { 'x-forwarded-for': '192.0.2.2' } }))?.text, text)
  await good({}, { path: '/mine', headers: { authorization: 'me' } })
  t.equal(await down({ path: '/mine' }), null, 'headers with credentials cannot be excluded')
})

t.test('stale: the newer response wins, private or shared', async (t) => {
  const { good, down, pass } = await staleable(t)
  const me = { headers: { 'x-tenant': 'me' } }
  const other = { headers: { 'x-tenant': 'other' } }
  const forAll = await good({ 'cache-control': 'public' }, me)
  pass(1)
  const mine = await good({}, me)
  t.equal((await down(me))?.text, mine)
  t.equal((await down(other))?.text, forAll)
  pass(1)
  const newer = await good({ 'cache-control': 'public' }, other)
  t.equal((await down(me))?.text, newer)
})

t.test('stale: bounded in number and size, least recently used entries are evicted', async (t) => {
  let clock = 0
  const store = new StaleStore(stale, () => clock)
  const request = (path: string, headers = {}) => ({ ...get, path, headers }) as DispatchOptions
  const put = (path: string, body: string, headers = {}, requestHeaders = {}) => {
    const recording = store.record(request(path, requestHeaders), 200, headers)
    recording?.add(Buffer.from(body))
    recording?.end()
  }
  const found = (path: string, headers = {}) => store.find(request(path, headers))?.body.toString()
  for (const path of ['a', 'b', 'c']) put(path, path)
  t.equal(found('a'), 'a')
  put('d', 'd')
  t.strictSame(
    ['a', 'b', 'c', 'd'].map((path) => found(path)),
    ['a', undefined, 'c', 'd']
  )
  put('a', 'newer')
  t.equal(found('a'), 'newer')
  t.strictSame(store.status(), { answers: 3, bytes: 7 })
  put('large', 'x'.repeat(1001))
  t.equal(found('large'), undefined)
  t.equal(store.record(request('large'), 200, { 'content-length': '1001' }), null)
  t.equal(store.record(request('a'), 404, {}), null)
  for (let i = 0; i < 20; i++) put('v', `${i}`, { vary: 'x' }, { x: `${i}` })
  t.equal(store.status().answers, 3)
  t.equal(found('v', { x: '19' }), '19')
  clock = 60_001
  t.equal(found('v', { x: '19' }), undefined)
})

t.test('the defaults apply in a gateway', async (t) => {
  const dead = await refused()
  const good = await upstream(t, 'good')
  const config = {
    mesh: { retry: { attempts: 1 } },
    services: {
      orders: { instances: [dead], mesh: { fallback: [{ service: 'copies' }] } },
      copies: { instances: [good.url] },
      page: {
        instances: [dead],
        mesh: { fallback: [{ stale: {} }, { status: 503, headers: { 'retry-after': '5' }, body: 'back soon' }] }
      }
    },
    routes: [
      { name: 'orders', match: { path: '/orders' }, service: 'orders' },
      { name: 'page', match: { path: '/page' }, service: 'page' }
    ]
  }
  t.strictSame(configOf(config).services.orders!.mesh.fallback, [{ on: usual, service: 'copies' }])
  const gateway = await startGateway(config, { log: true })
  t.teardown(gateway.close)
  const orders = await ask(gateway.port, '/orders')
  t.match(orders, { status: 200, body: 'good', headers: { 'x-jingwei-fallback': 'service:copies' } })
  const page = await ask(gateway.port, '/page')
  t.match(page, { status: 503, body: 'back soon', headers: { 'x-jingwei-fallback': 'static', 'retry-after': '5' } })
  const headResponse = await ask(gateway.port, '/page', [], 'HEAD')
  t.match(headResponse, { status: 503, body: '', headers: { 'content-length': '9' } })
  await eventually(
    () => gateway.log.filter(({ attempts }) => attempts !== undefined).length === 3,
    'the access lines of three calls'
  )
  const line = gateway.log.find(({ attempts, instance }) => attempts !== undefined && instance === good.url)
  t.match(line, { service: 'copies', attempts: 3 })
})

t.test('through the gateway: a client that leaves during a fallback', async (t) => {
  const slow = await upstream(t, 'slow', () => {})
  const gateway = await startGateway(
    {
      services: {
        orders: { instances: [await refused()], mesh: { fallback: [{ service: 'slow' }] } },
        slow: { instances: [slow.url] }
      },
      routes: [{ name: 'orders', match: { path: '/' }, service: 'orders' }]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const leaving = new AbortController()
  const response = fetch(gateway.url, { signal: leaving.signal }).catch(() => 'left')
  await eventually(() => slow.requests.length === 1, 'the request of the fallback')
  const { socket } = slow.requests[0]!
  leaving.abort()
  t.equal(await response, 'left')
  await eventually(() => socket.destroyed, 'the end of the attempt')
  await eventually(() => gateway.log.some(({ status }) => status === 499), 'the access line with 499')
})

t.test('after a fallback with an unknown error, the next one is tried', async (t) => {
  const busy = await upstream(t, 'busy', (_request, response) => void response.writeHead(503).end())
  const garbage = await raw(t, (socket) => socket.once('data', () => socket.end('not HTTP at all\r\n\r\n')))
  const on = ['5xx'] as never
  const fallback = [
    { on, service: 'other' },
    { on, status: 200, body: 'fixed' }
  ]
  const mesh = meshOf(t, [service('orders', [busy.url], { fallback }), service('other', [garbage.url])])
  const { statusCode, body } = await mesh.request(get)
  t.strictSame([statusCode, await body.text()], [200, 'fixed'])
})

t.test('a fallback whose response is incomplete is not followed by another', async (t) => {
  const busy = await upstream(t, 'busy', (_request, response) => void response.writeHead(503).end())
  const closing = await raw(t, (socket) =>
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort'))
  )
  const on = ['5xx', 'reset'] as never
  const fallback = [
    { on, service: 'other' },
    { on, status: 200, body: 'fixed' }
  ]
  const mesh = meshOf(t, [service('orders', [busy.url], { fallback }), service('other', [closing.url])])
  const recorder = new Recorder()
  mesh.dispatch(get as DispatchOptions, recorder)
  await recorder.done
  t.strictSame(recorder.events, ['start', '200', 'data', 'error'])
})
