// slow: takes about 9 s
/** Retries: requests that are sent again, to which instance, how often, and requests that never are. */
import type { ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { fetch } from 'undici'
import type { MeshPolicy } from '../../../config/schema.ts'
import type { MeshErrorCode } from '../../../plugins/mesh/core/errors.ts'
import { ConnectionError, MeshError } from '../../../plugins/mesh/core/errors.ts'
import { RetryLimit } from '../../../plugins/mesh/core/repeating/retry-limit.ts'
import type { Service } from '../../../plugins/mesh/core/service.ts'
import type { Interceptor, MeshDeps } from '../../../plugins/mesh/core/types.ts'
import { eventually } from '../../helpers/eventually.ts'
import { meshOf, meterStub, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { connecting, raw, refused, resetting, upstream } from '../../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const get = { origin, path: '/', method: 'GET' } as const
const deps = { meter: null, now: () => 0 } as unknown as MeshDeps
const on503 = { ...retryOptions, on: ['connect-failure', 503] as (typeof retryOptions)['on'] }

t.test('a refused connection is retried at another instance, for every method', async (t) => {
  const good = await upstream(t, 'good')
  const mesh = meshOf(t, [service('orders', [await refused(), good.url], { retry: retryOptions })])
  for (const method of ['GET', 'POST', 'PATCH', 'DELETE'] as const) {
    for (let i = 0; i < 4; i++) {
      const { statusCode, body } = await mesh.request({ ...get, method, body: method === 'GET' ? null : 'x' })
      t.equal(statusCode, 200, method)
      await body.dump()
    }
  }
  t.equal(good.requests.length, 16)
  t.equal(mesh.status()[0]!.instances[0]!.active, 0)
})

t.test('a retry does not go to the same instance while another is available', async (t) => {
  const dead = [await refused(), await refused(), await refused()]
  for (const balance of ['round-robin', 'least-request', 'random'] as const) {
    const good = await upstream(t, 'good')
    const mesh = meshOf(
      t,
      [service('orders', [...dead, good.url], { balance, retry: { ...retryOptions, attempts: 3 } })],
      { random: Math.random }
    )
    const tried: string[] = []
    const note: Interceptor = (dispatch) => (opts, handler) => {
      tried.push(String(opts.origin))
      return dispatch(opts, handler)
    }
    mesh.use(note, { per: 'attempt' })
    for (let i = 0; i < 20; i++) {
      tried.length = 0
      const { body } = await mesh.request(get)
      t.equal(await body.text(), 'good', balance)
      t.equal(new Set(tried).size, tried.length, `${balance}: ${tried.length} attempts, all different`)
    }
  }
})

t.test('attempts are bounded, and the only instance is tried again', async (t) => {
  const mesh = meshOf(t, [service('orders', [await refused()], { retry: retryOptions })])
  const { context } = await contextOf(mesh)
  t.equal(context.attempts, 3)
  await t.rejects(mesh.request(get), { code: 'JW_UPSTREAM_REFUSED' })
})

async function contextOf(mesh: ReturnType<typeof meshOf>) {
  const recorder = new Recorder()
  let call: { attempts: number } | undefined
  const noted = recorder.onRequestStart.bind(recorder)
  recorder.onRequestStart = (controller, context?: unknown) => {
    call = (context as { call: { attempts: number } }).call
    noted(controller)
  }
  mesh.dispatch(get, recorder)
  await recorder.done
  return { context: call!, recorder }
}

t.test('a reset is retried for idempotent methods only', async (t) => {
  const bad = await resetting(t)
  const good = await upstream(t, 'good')
  const mesh = meshOf(t, [service('orders', [bad.url, good.url], { retry: retryOptions })])
  for (const method of ['GET', 'PUT'] as const) {
    const { body } = await mesh.request({ ...get, method, body: method === 'PUT' ? 'x' : null })
    t.equal(await body.text(), 'good')
    await (await mesh.request(get)).body.dump()
  }
  const before = good.requests.length
  let failed = 0
  for (let i = 0; i < 2; i++) {
    await mesh.request({ ...get, method: 'POST', body: 'x' }).then(
      ({ body }) => body.dump(),
      () => failed++
    )
  }
  t.equal(failed, 1)
  t.equal(good.requests.length, before + 1, 'the failed POST was not retried')
})

t.test('a malformed response is retried like a reset', async (t) => {
  const garbage = [
    'SSH-2.0-OpenSSH_9\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n',
    'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n',
    'HTTP/1.1 101 Switching Protocols\r\n\r\n',
    `HTTP/1.1 200 ${'x'.repeat(70_000)}`
  ]
  for (const bytes of garbage) {
    for (const condition of ['reset', 'gateway-error', '5xx'] as const) {
      const bad = await raw(t, (socket) => socket.once('data', () => socket.end(bytes)))
      const good = await upstream(t, 'good')
      const retry = { ...retryOptions, on: [condition] }
      const mesh = meshOf(t, [service('orders', [bad.url, good.url], { retry })])
      for (let i = 0; i < 4; i++) t.equal(await (await mesh.request(get)).body.text(), 'good', condition)
      t.ok(bad.count() > 0, 'the malformed instance was tried')
      await t.rejects(
        mesh.request({ ...get, method: 'POST' }).then(() => mesh.request({ ...get, method: 'POST' })),
        {
          code: /^JW_(UPSTREAM_MALFORMED|UPSTREAM_HEADERS_TOO_LARGE|BAD_UPGRADE)$/
        }
      )
    }
  }
})

t.test('a call is not retried once a part of the response has reached the caller', async (t) => {
  const closing = await raw(t, (socket) =>
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart')
      setTimeout(() => socket.resetAndDestroy(), 20)
    })
  )
  const good = await upstream(t, 'good')
  const mesh = meshOf(t, [
    service('orders', [closing.url, good.url], { retry: { ...retryOptions, on: ['reset', '5xx'] } })
  ])
  const recorder = new Recorder()
  mesh.dispatch(get, recorder)
  await recorder.done
  t.strictSame(recorder.events, ['start', '200', 'data', 'error'])
  t.equal(good.requests.length, 0)
})

t.test('after a connection closes under a request, it counts as sent, for any error code', async (t) => {
  const bad = await raw(t, (socket) => socket.resume())
  const good = await upstream(t, 'good')
  const mesh = meshOf(t, [service('orders', [bad.url, good.url], { retry: retryOptions })])
  mesh.use(
    (dispatch) => (opts, handler) =>
      dispatch(opts, {
        onRequestStart(controller, context) {
          handler.onRequestStart?.(controller, context)
          // The error that the pool reports for requests in flight when it is destroyed.
          if (opts.origin === bad.url) {
            setTimeout(() => controller.abort(new ConnectionError('JW_INSTANCE_REMOVED', new Error('destroyed'))), 20)
          }
        },
        onResponseStart: (...args) => handler.onResponseStart?.(...args),
        onResponseData: (...args) => handler.onResponseData?.(...args),
        onResponseEnd: (...args) => handler.onResponseEnd?.(...args),
        onResponseError: (...args) => handler.onResponseError?.(...args)
      }),
    { per: 'attempt' }
  )
  await t.rejects(mesh.request({ ...get, method: 'POST', body: 'x' }), { code: 'JW_INSTANCE_REMOVED' })
  t.equal(good.requests.length, 0)
})

t.test('after retries of a status, the last response is forwarded completely', async (t) => {
  let count = 0
  const busy = await upstream(t, 'busy', (_request, response) => {
    count++
    response.writeHead(503, { 'x-count': count })
    response.end(`busy ${count}`)
  })
  const mesh = meshOf(t, [service('orders', [busy.url], { retry: on503 })])
  const { statusCode, headers, body } = await mesh.request(get)
  t.equal(statusCode, 503)
  t.equal(headers['x-count'], '3')
  t.equal(await body.text(), 'busy 3')

  const posted = await mesh.request({ ...get, method: 'POST', body: 'x' })
  t.equal(await posted.body.text(), 'busy 4', 'POST is sent once')
  const off = await mesh.request({ ...get, mesh: Object.freeze({ retry: false as const }) })
  t.equal(await off.body.text(), 'busy 5', 'retry: false sends a call once')
})

t.test('conditions can be statuses, gateway-error and 5xx', async (t) => {
  let status = 0
  let count = 0
  const { url } = await upstream(t, 'any', (_request, response) => {
    count++
    response.statusCode = status
    response.end()
  })
  const mesh = meshOf(t, [service('orders', [url])])
  const tried = async (on: (typeof retryOptions)['on'], response: number) => {
    status = response
    count = 0
    await (await mesh.request({ ...get, mesh: { retry: { ...retryOptions, attempts: 1, on } } })).body.dump()
    return count === 2
  }
  for (const [on, yes, no] of [
    [[429], [429], [503, 200]],
    [['gateway-error'], [502, 503, 504], [500, 501, 404]],
    [['5xx'], [500, 502, 599], [404, 200]],
    [['connect-failure', 'reset'], [], [500, 503]]
  ] as const) {
    for (const response of yes) t.ok(await tried([...on], response), `${on}: ${response}`)
    for (const response of no) t.notOk(await tried([...on], response), `${on}: not ${response}`)
  }
})

t.test('a small discarded response keeps its connection, a huge or endless one is aborted', async (t) => {
  let connections = 0
  let body = (): string | Readable => 'small'
  const busy = await upstream(t, 'busy', (_request, response) => {
    response.statusCode = 503
    const content = body()
    if (typeof content === 'string') response.end(content)
    else content.on('error', () => {}).pipe(response)
    response.flushHeaders()
    response.on('close', () => content instanceof Readable && content.destroy())
  })
  busy.server.on('connection', () => connections++)
  const good = await upstream(t, 'good')
  const mesh = meshOf(t, [service('orders', [busy.url, good.url], { retry: on503 })])
  const ask = async () => {
    const response = await mesh.request(get)
    t.equal(await response.body.text(), 'good')
    await (await mesh.request(get)).body.dump()
  }
  for (let i = 0; i < 3; i++) await ask()
  t.equal(connections, 1)

  body = () => Readable.from(endless(), { objectMode: false })
  await ask()
  await eventually(() => busy.sockets.size === 0, 'the connection of the huge response to close')

  body = () => new Readable({ read() {} })
  await ask()
  await eventually(() => busy.sockets.size === 0, 'the connection of the silent response to close')
  t.equal(mesh.status()[0]!.instances[0]!.active, 0)
})

function* endless() {
  for (;;) yield Buffer.alloc(16 * 1024)
}

t.test('a caller that paused early does not stall a discarded response', async (t) => {
  let first = true
  const { url } = await upstream(t, 'busy', (_request, response) => {
    response.statusCode = first ? 503 : 200
    first = false
    response.end('x'.repeat(1000))
  })
  const mesh = meshOf(t, [service('orders', [url], { retry: on503 })])
  const recorder = new Recorder()
  mesh.dispatch(get, recorder)
  recorder.controller.pause()
  await eventually(() => recorder.status === 200, 'the header section of the second response')
  t.equal(mesh.status()[0]!.instances[0]!.active, 1)
  recorder.controller.resume()
  await recorder.done
  t.equal(recorder.body.length, 1000)
  t.equal(mesh.status()[0]!.instances[0]!.active, 0)
})

t.test('Retry-After: if longer than backoff.max, the response is forwarded at once', async (t) => {
  let count = 0
  const { url } = await upstream(t, 'busy', (_request, response) => {
    count++
    response.writeHead(503, { 'retry-after': '2' }).end('busy')
  })
  const mesh = meshOf(t, [service('orders', [url], { retry: { ...on503, backoff: { base: 25, max: 250 } } })])
  const { statusCode, headers, body } = await mesh.request(get)
  t.match([statusCode, headers['retry-after'], await body.text()], [503, '2', 'busy'])
  t.equal(count, 1, 'no wait of two seconds for another attempt')
})

t.test('Retry-After: binds only the instance that sent it', async (t) => {
  let tries: string[] = []
  const instanceOf = (name: string, respond: (times: number, response: ServerResponse) => void) => {
    let times = 0
    return upstream(t, name, (_request, response) => {
      tries.push(name)
      respond(++times, response)
    })
  }
  const busy = await instanceOf('busy', (_times, response) =>
    response.writeHead(503, { 'retry-after': '999999' }).end()
  )
  const well = await instanceOf('well', (_times, response) => response.end('well'))
  const weak = await instanceOf('weak', (times, response) => {
    response.statusCode = times % 3 === 0 ? 200 : 503
    response.end('weak')
  })
  const closing = await instanceOf('closing', (_times, response) => void response.socket!.destroy())
  const soon = await instanceOf('soon', (times, response) => {
    response.writeHead(times === 1 ? 503 : 200, { 'retry-after': '1' }).end('soon')
  })
  const of = (name: string, urls: string[], attempts: number, max: number) =>
    service(name, urls, { retry: { ...on503, on: ['reset', 503], attempts, backoff: { base: 0, max } } })
  const mesh = meshOf(t, [
    of('two', [busy.url, well.url], 2, 0),
    of('again', [busy.url, weak.url], 3, 0),
    of('failing', [busy.url, closing.url], 3, 0),
    of('all', [busy.url, soon.url], 3, 5000)
  ])
  const ask = async (name: string) => {
    tries = []
    const { statusCode, body } = await mesh.request({ ...get, origin: `http://${name}.mesh` })
    return [statusCode, await body.text()]
  }
  t.strictSame(await ask('two'), [200, 'well'])
  t.strictSame(tries, ['busy', 'well'], 'the other instance is tried at once')
  t.strictSame(await ask('again'), [200, 'weak'])
  t.strictSame(tries, ['busy', 'weak', 'weak', 'weak'], 'the instance with Retry-After is not tried again')
  await t.rejects(ask('failing'), { code: /./ })
  t.strictSame(tries, ['busy', 'closing', 'closing', 'closing'], 'a failure of another kind does not select it either')
  const started = performance.now()
  t.strictSame(await ask('all'), [200, 'soon'])
  t.strictSame(tries, ['busy', 'soon', 'soon'], 'if all send Retry-After, the shortest is waited for')
  t.ok(performance.now() - started >= 990, 'the retry waits for Retry-After')
})

t.test('Retry-After: looking for another instance does not advance the rotation', async (t) => {
  const tries: string[] = []
  const instanceOf = (name: string, status: number) =>
    upstream(t, name, (_request, response) => {
      tries.push(name)
      response.writeHead(status, { 'retry-after': '999999' }).end()
    })
  const [busy, first, second] = [await instanceOf('busy', 503), await instanceOf('a', 200), await instanceOf('b', 200)]
  const retry = { ...on503, attempts: 1, backoff: { base: 0, max: 0 } }
  const mesh = meshOf(t, [service('orders', [busy.url, first.url, second.url], { retry })])
  for (let i = 0; i < 4; i++) await (await mesh.request(get)).body.dump()
  t.strictSame(tries, ['busy', 'a', 'b', 'busy', 'a', 'b'], 'calls and retries rotate')
})

t.test('Retry-After: honoured as seconds and as a date, and forwarded if the call would end before', async (t) => {
  let after = ''
  const times: number[] = []
  const { url } = await upstream(t, 'busy', (_request, response) => {
    times.push(performance.now())
    response.writeHead(times.length === 1 ? 503 : 200, after === '' ? {} : { 'retry-after': after })
    response.end()
  })
  const patient = { ...on503, backoff: { base: 1, max: 10_000 } }
  const mesh = meshOf(t, [service('orders', [url], { retry: patient })])
  const ask = async (value: string, timeout = 20_000) => {
    after = value
    times.length = 0
    const { statusCode, body } = await mesh.request({ ...get, mesh: { timeout } })
    await body.dump()
    return { statusCode, gap: (times[1] ?? 0) - times[0]! }
  }
  const seconds = await ask('1')
  t.equal(seconds.statusCode, 200)
  t.ok(seconds.gap >= 990, `${seconds.gap}`)
  const date = await ask(new Date(Date.now() + 2500).toUTCString())
  t.equal(date.statusCode, 200)
  t.ok(date.gap >= 1000, `${date.gap}`)
  t.equal((await ask('2', 1000)).statusCode, 503, 'longer than the whole call')
  t.equal((await ask('999999999999')).statusCode, 503)
  for (const nonsense of ['0', '-1', 'soon', '', new Date(0).toUTCString()]) {
    t.equal((await ask(nonsense)).statusCode, 200, `"${nonsense}"`)
  }
})

t.test('Retry-After: the remaining time of the call counts, not its timeout', async (t) => {
  let clock = 0
  const { url } = await upstream(t, 'busy', (_request, response) => {
    clock += 9500
    response.writeHead(503, { 'retry-after': '1' })
    response.end()
  })
  const retry = { ...on503, backoff: { base: 1, max: 5000 } }
  const mesh = meshOf(t, [service('orders', [url], { timeout: 10_000, retry })], { now: () => clock })
  const { statusCode, body } = await mesh.request(get)
  await body.dump()
  t.equal(statusCode, 503)
})

t.test('the budget bounds the retries to a service that fails permanently', async (t) => {
  let count = 0
  const { url } = await upstream(t, 'busy', (_request, response) => {
    count++
    response.statusCode = 503
    response.end()
  })
  const retry = { ...on503, attempts: 2, backoff: { base: 0, max: 0 }, budget: 0.2 }
  const mesh = meshOf(t, [service('orders', [url], { retry })], { now: () => 0 })
  for (let i = 0; i < 500; i++) await (await mesh.request(get)).body.dump()
  t.equal(count, 500 + 100 + 100, 'a hundred, and a fifth of the calls')
})

t.test('a call may end while it waits to retry', async (t) => {
  let responses = 0
  const { url } = await upstream(t, 'busy', (_request, response) => {
    response.statusCode = ++responses % 2 === 1 ? 503 : 200
    response.end()
  })
  const retry = { ...on503, attempts: 1 }
  const mesh = meshOf(t, [service('orders', [url], { retry })])
  const statusOf = async (more = {}) => {
    const { statusCode, body } = await mesh.request({ ...get, ...more })
    await body.dump()
    return statusCode
  }
  const late = Object.freeze({ retry: { ...retry, backoff: { base: 60_000, max: 60_000 } }, timeout: 120_000 })
  for (let i = 0; i < 5; i++) {
    responses = 0
    const recorder = new Recorder()
    mesh.dispatch({ ...get, mesh: late }, recorder)
    await eventually(
      () => responses === 1 && mesh.status()[0]!.instances[0]!.active === 0,
      'the pause before the retry'
    )
    recorder.controller.abort(new Error('left'))
    t.strictSame(recorder.events, ['start', 'error'], 'the call waits to be retried')
  }
  for (let i = 0; i < 5; i++) {
    responses = 0
    await t.rejects(statusOf({ mesh: { ...late, timeout: 50 } }), { code: 'JW_CALL_TIMEOUT' })
  }
  responses = 0
  t.equal(await statusOf(), 200)
})

t.test('a failure to connect costs no budget', async (t) => {
  const good = await upstream(t, 'good')
  const mesh = meshOf(t, [service('orders', [await refused(), good.url], { retry: retryOptions })], { now: () => 0 })
  const all = await Promise.all(Array.from({ length: 400 }, async () => (await mesh.request(get)).body.text()))
  t.ok(all.every((name) => name === 'good'))
})

t.test('the backoff is exponential, bounded and multiplied by the random number', async (t) => {
  const times: number[] = []
  const { url } = await upstream(t, 'busy', (_request, response) => {
    times.push(performance.now())
    response.statusCode = 503
    response.end()
  })
  let draw = 0.9999
  const retry = { ...on503, attempts: 3, backoff: { base: 60, max: 150 } }
  const mesh = meshOf(t, [service('orders', [url], { retry })], { random: () => draw })
  await (await mesh.request(get)).body.dump()
  const gaps = times.slice(1).map((time, i) => time - times[i]!)
  t.equal(gaps.length, 3)
  for (const [i, least] of [58, 118, 148].entries()) t.ok(gaps[i]! >= least, `${gaps[i]} >= ${least}`)

  draw = 0
  times.length = 0
  await (await mesh.request({ ...get, mesh: { retry: { ...retry, backoff: { base: 8000, max: 9000 } } } })).body.dump()
  t.ok(times.at(-1)! - times[0]! < 5000, 'no pause at a random number of zero')
})

t.test('deadline and abort during the pause end the call at once', async (t) => {
  const retry = { ...retryOptions, attempts: 1, backoff: { base: 60_000, max: 60_000 } }
  const gone = await refused()
  const mesh = meshOf(t, [service('orders', [gone], { timeout: 100, retry })])
  await t.rejects(mesh.request(get), { code: 'JW_CALL_TIMEOUT' })

  const recorder = new Recorder()
  mesh.dispatch({ ...get, mesh: { timeout: 60_000 } }, recorder)
  await eventually(() => mesh.status()[0]!.instances[0]!.active === 0, 'the first attempt to fail')
  await sleep(20)
  recorder.controller.abort(new Error('left'))
  t.strictSame(recorder.events, ['start', 'error'])
  t.equal(recorder.error?.message, 'left')
  t.ok(recorder.controller.aborted)
  await mesh.close()
})

t.test('a stream is not read by a refused connection, and is sent completely', async (t) => {
  const got: Buffer[][] = []
  const good = await upstream(t, 'good', (request, response) => {
    const chunks: Buffer[] = []
    got.push(chunks)
    request.on('data', (chunk) => chunks.push(chunk)).on('end', () => response.end('good'))
  })
  const mesh = meshOf(t, [service('orders', [await refused(), good.url], { retry: retryOptions })])
  const content = Buffer.alloc(300_000, 'abcdefg')
  for (const body of [Readable.from([content.subarray(0, 100_000), content.subarray(100_000)]), chunksOf(content)]) {
    got.length = 0
    const response = await mesh.request({ ...get, method: 'POST', body: body as Readable })
    t.equal(await response.body.text(), 'good')
    t.equal(got.length, 1)
    t.ok(Buffer.concat(got[0]!).equals(content))
    await (await mesh.request({ ...get, method: 'PUT', body: '' })).body.dump()
  }
  const fetched = await fetch(`${origin}/`, { dispatcher: mesh, method: 'POST', body: 'by fetch' })
  t.equal(await fetched.text(), 'good')
})

async function* chunksOf(content: Buffer) {
  yield content.subarray(0, 1000)
  yield content.subarray(1000)
}

t.test('a stream that was partly sent and is not buffered is never sent again', async (t) => {
  const good = await upstream(t, 'good')
  const bad = await resetting(t)
  const retry = { ...retryOptions, on: ['reset', 503] as (typeof retryOptions)['on'], maxBody: 0 }
  const mesh = meshOf(t, [service('orders', [bad.url, good.url], { retry })])
  await t.rejects(mesh.request({ ...get, method: 'PUT', body: Readable.from(['a', 'b']) }))
  t.equal(good.requests.length, 0)
})

t.test('an early response to an unread stream is passed on', async (t) => {
  const early = await raw(t, (socket) => {
    socket.write('HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nfull')
  })
  const good = await upstream(t, 'good')
  const mesh = meshOf(t, [service('orders', [early.url, good.url], { retry: { ...on503, maxBody: 0 } })])
  const recorder = new Recorder()
  mesh.dispatch({ ...get, method: 'PUT', body: new Readable({ read() {} }) }, recorder)
  await recorder.done
  t.strictSame(recorder.events.at(-1), recorder.status === 503 ? 'end' : 'error')
  t.equal(good.requests.length, 0)
})

t.test('an attempt that gets no connection in time does not destroy the body', async (t) => {
  const stuck = await connecting(t)
  const good = await upstream(t, 'good', (request, response) => request.pipe(response))
  const retry = { ...retryOptions, on: ['connect-failure', 'gateway-error'] as (typeof retryOptions)['on'] }
  const mesh = meshOf(t, [service('orders', [stuck.url, good.url], { attemptTimeout: 100, retry })])
  const posted = await mesh.request({ ...get, method: 'POST', body: 'in memory' })
  t.equal(await posted.body.text(), 'in memory', 'nothing was sent, so POST may be retried')
  await (await mesh.request(get)).body.dump()
  await t.rejects(
    mesh.request({ ...get, method: 'POST', body: Readable.from(['a stream']) }),
    { code: 'JW_ATTEMPT_TIMEOUT' },
    'the pool still holds the stream'
  )
})

t.test('after a connect timeout, a stream is sent to another instance', async (t) => {
  const stuck = await connecting(t)
  const good = await upstream(t, 'good', (request, response) => request.pipe(response))
  const mesh = meshOf(t, [service('orders', [stuck.url, good.url], { connectTimeout: 100, retry: retryOptions })])
  const { body } = await mesh.request({ ...get, method: 'POST', body: Readable.from(['a stream']) })
  t.equal(await body.text(), 'a stream')
})

t.test('retries are counted by their reason', async (t) => {
  const { meter, counts } = meterStub()
  const good = await upstream(t, 'good')
  const mesh = meshOf(t, [service('orders', [await refused(), good.url], { retry: retryOptions })], { meter })
  await (await mesh.request(get)).body.dump()
  t.equal(counts['jingwei_mesh_retries_total{orders,connect-failure}'], 1)
})

t.test('a response header requests a retry', async (t) => {
  let count = 0
  const { url } = await upstream(t, 'any', (request, response) => {
    count++
    response.setHeader(request.url!.slice(1), 'yes')
    response.end()
  })
  const { meter, counts } = meterStub()
  const on = ['retriable-header:X-Retry-Me', 'reset'] as (typeof retryOptions)['on']
  const mesh = meshOf(t, [service('orders', [url], { retry: { ...retryOptions, attempts: 1, on } })], { meter })
  await (await mesh.request({ ...get, path: '/x-retry-me' })).body.dump()
  t.equal(count, 2)
  t.equal(counts['jingwei_mesh_retries_total{orders,retriable-header}'], 1)
  await (await mesh.request({ ...get, path: '/x-other' })).body.dump()
  await (await mesh.request({ ...get, path: '/x-retry-me', method: 'POST' })).body.dump()
  t.equal(count, 4, 'another header, or POST, causes no retry')
})

t.test('with an Idempotency-Key, any method may be sent twice', async (t) => {
  let count = 0
  const { url } = await upstream(t, 'busy', (request, response) => {
    count++
    request.resume().on('end', () => response.writeHead(503).end())
  })
  const mesh = meshOf(t, [service('orders', [url], { retry: { ...on503, attempts: 1 } })])
  const post = async (headers: Record<string, string> | string[], more: object = {}) => {
    count = 0
    await (await mesh.request({ ...get, method: 'POST', body: 'x', headers, ...more })).body.dump()
    return count
  }
  t.equal(await post({ 'Idempotency-Key': 'a1' }), 2)
  t.equal(await post(['idempotency-key', 'a1']), 2)
  t.equal(await post({ 'idempotency-key': '' }), 1, 'an empty Idempotency-Key is ignored')
  t.equal(await post({}), 1)
  const ignored = { mesh: { retry: { ...on503, attempts: 1, idempotencyKey: false } } }
  t.equal(await post({ 'idempotency-key': 'a1' }, ignored), 1, 'the policy can ignore Idempotency-Key')
})

t.test('refusals of the mesh itself are not retried', async (t) => {
  const everything = ['connect-failure', 'refused-stream', 'reset', 'gateway-error', '5xx', 429] as const
  const mesh = meshOf(t, [service('orders', [await refused()], { retry: { ...retryOptions, on: [...everything] } })])
  let code: MeshErrorCode = 'JW_OVERLOADED'
  let attempts = 0
  mesh.use(
    () => (opts, handler) => {
      attempts++
      handler.onResponseError?.(opts.call!, new MeshError(code, 'orders'))
      return true
    },
    { per: 'attempt' }
  )
  for (code of [
    'JW_OVERLOADED',
    'JW_CIRCUIT_OPEN',
    'JW_UPSTREAM_LIMITED',
    'JW_NO_INSTANCE',
    'JW_INTENTION_DENIED',
    'JW_CREDENTIALS_UNAVAILABLE'
  ] as const) {
    // biome-ignore format: a list
    attempts = 0
    await t.rejects(mesh.request(get), { code })
    t.equal(attempts, 1, code)
  }
})

t.test(
  'maxRetries: limits the retries in flight, and the slot is free when the retried attempt has ended',
  async (t) => {
    const held: (() => void)[] = []
    const { url } = await upstream(t, 'busy', (request, response) => {
      const tries = seen.get(request.url!) ?? 0
      seen.set(request.url!, tries + 1)
      if (tries === 0) response.writeHead(503).end('first')
      else held.push(() => response.end('second'))
    })
    const seen = new Map<string, number>()
    const { meter, counts } = meterStub()
    const breaker = (mode: 'enforce' | 'shadow') => ({
      mode,
      maxConnections: 100,
      maxPendingRequests: 100,
      maxRetries: 1,
      perInstance: { maxConnections: 100, maxPendingRequests: 100 },
      errorRatio: false as const,
      slowRatio: false as const,
      slowAfter: 5000,
      minRequests: 20,
      window: 10_000,
      openFor: 10_000,
      rampFor: 10_000,
      consecutiveSuccesses: 1,
      failureStatuses: ['500-599']
    })
    const mesh = meshOf(
      t,
      [
        service('orders', [url], { circuitBreaker: breaker('enforce'), retry: { ...on503, attempts: 2 } }),
        service('lenient', [url], { circuitBreaker: breaker('shadow'), retry: { ...on503, attempts: 2 } })
      ],
      { meter }
    )
    const ask = async (path: string, from = origin) => {
      const { body } = await mesh.request({ ...get, origin: from, path })
      return body.text()
    }
    const overflows = () => counts['jingwei_mesh_retry_overflows_total{orders}'] ?? 0
    const one = ask('/1')
    await eventually(() => held.length === 1, 'the first retry')
    t.equal(await ask('/2'), 'first', 'the first response is forwarded')
    t.equal(overflows(), 1)
    t.strictSame(mesh.status()[0]!.concerns.retries, { active: 1, maxRetries: 1 })
    held.pop()!()
    t.equal(await one, 'second')
    t.strictSame(mesh.status()[0]!.concerns.retries, { active: 0, maxRetries: 1 })

    const three = new Recorder()
    mesh.dispatch({ ...get, path: '/3' }, three)
    await eventually(() => held.length === 1, 'the other retry')
    three.controller.abort(new Error('left'))
    t.match(mesh.status()[0]!.concerns.retries, { active: 0 }, 'free at once when the caller leaves')
    held.length = 0

    seen.clear()
    const both = [ask('/1', 'http://lenient.mesh'), ask('/2', 'http://lenient.mesh')]
    await eventually(() => held.length === 2, 'both retries in flight')
    for (const response of held.splice(0)) response()
    t.strictSame(await Promise.all(both), ['second', 'second'])
    t.equal(counts['jingwei_mesh_shadowed_total{lenient,max-retries}'], 1)
    t.equal(overflows(), 1)
  }
)

t.test('maxRetries: several retries of one call use one slot', async (t) => {
  let count = 0
  const { url } = await upstream(t, 'busy', (_request, response) => {
    response.writeHead(++count < 4 ? 503 : 200).end(`${count}`)
  })
  const circuitBreaker = { maxRetries: 1, mode: 'enforce' } as MeshPolicy['circuitBreaker']
  const config = service('orders', [url], { retry: { ...on503, attempts: 3 } })
  // The circuit breaker has its cap on retries only: this test does not concern the other caps.
  const limit = new RetryLimit({ name: 'orders', config: { mesh: { circuitBreaker } } } as Service, deps)
  t.ok(limit.take(null))
  t.notOk(limit.take(null))
  t.ok(limit.take(null, true), 'the next call takes the slot')
  limit.release()
  t.ok(limit.take(null))
  const mesh = meshOf(t, [config])
  t.equal(await (await mesh.request(get)).body.text(), '4')
  t.match(mesh.status()[0]!.concerns.retries, { active: 0 })
})

t.test('an empty budget is counted as an overflow', async (t) => {
  const { meter, counts } = meterStub()
  const { url } = await upstream(t, 'busy', (_request, response) => response.writeHead(503).end())
  const retry = { ...on503, attempts: 1, backoff: { base: 0, max: 0 }, budget: 0 }
  const mesh = meshOf(t, [service('orders', [url], { retry })], { meter, now: () => 0 })
  for (let i = 0; i < 103; i++) await (await mesh.request(get)).body.dump()
  t.equal(counts['jingwei_mesh_retry_overflows_total{orders}'], 3)
})
