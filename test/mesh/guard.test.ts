// slow: takes about 51 s
/** Interceptors of users that misbehave, in every callback and every way: each fails its own call only. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { interceptors } from 'undici'
import { ForwardingHandler } from '../../plugins/mesh/core/handlers/forwarding-handler.ts'
import type {
  DispatchController,
  DispatchHandler,
  DispatchOptions,
  Interceptor,
  Logger
} from '../../plugins/mesh/core/types.ts'
import { eventually } from '../helpers/eventually.ts'
import { meshOf, Recorder, retryOptions, service } from '../helpers/mesh/mesh.ts'
import { policyOf } from '../helpers/mesh/policy.ts'
import { upstream } from '../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const callbacks = [
  'dispatch', 'onRequestStart', 'onBodySent', 'onRequestSent', 'onRequestUpgrade', 'onResponseStart', 'onResponseData',
  'onResponseEnd', 'onResponseError'
] as const // biome-ignore format: a list
type Callback = (typeof callbacks)[number]

/** Failures of a call: by a socket, by a timer, by an abort of the caller. */
type Failing = 'reset' | 'silent' | 'left'
const ways = ['throw', 'reject', 'abort', 'abort later', 'twice', 'never', 'pause', 'fail first', 'end first'] as const
type Way = (typeof ways)[number]

/** Misbehaves in one callback as the way says, and forwards all others. */
class Misbehaving extends ForwardingHandler {
  readonly #callback: Callback
  readonly #way: Way
  #controller: DispatchController | null = null

  constructor(next: DispatchHandler, callback: Callback, way: Way) {
    super(next)
    this.#callback = callback
    this.#way = way
  }

  #do(callback: Callback, controller: DispatchController | null, pass: () => void): unknown {
    this.#controller ??= controller
    if (callback !== this.#callback) return pass()
    const fault = new Error('a fault of the plugin')
    switch (this.#way) {
      case 'throw':
        throw fault
      case 'reject':
        return sleep(1).then(() => {
          throw fault
        })
      case 'abort':
        return this.#controller?.abort(fault)
      case 'abort later':
        setTimeout(() => this.#controller?.abort(fault), 5)
        return
      case 'twice':
        pass()
        return pass()
      case 'never':
        return
      case 'pause': // and never resume
        pass()
        return this.#controller?.pause()
      case 'fail first':
        this.next.onResponseError?.(this.#controller!, fault)
        return pass()
      case 'end first':
        this.next.onResponseEnd?.(this.#controller!, {})
        return pass()
    }
  }

  override onRequestStart(controller: DispatchController, context: unknown) {
    return this.#do('onRequestStart', controller, () => super.onRequestStart(controller, context)) as undefined
  }

  override onBodySent(chunk: Buffer) {
    return this.#do('onBodySent', null, () => super.onBodySent(chunk)) as undefined
  }

  override onRequestSent() {
    return this.#do('onRequestSent', null, () => super.onRequestSent()) as undefined
  }

  override onRequestUpgrade(...args: [DispatchController, number, IncomingHttpHeaders, Duplex]) {
    return this.#do('onRequestUpgrade', args[0], () => super.onRequestUpgrade(...args)) as undefined
  }

  override onResponseStart(...args: [DispatchController, number, IncomingHttpHeaders, string?]) {
    return this.#do('onResponseStart', args[0], () => super.onResponseStart(...args)) as undefined
  }

  override onResponseData(...args: [DispatchController, Buffer]) {
    return this.#do('onResponseData', args[0], () => super.onResponseData(...args)) as undefined
  }

  override onResponseEnd(...args: [DispatchController, IncomingHttpHeaders]) {
    return this.#do('onResponseEnd', args[0], () => super.onResponseEnd(...args)) as undefined
  }

  override onResponseError(...args: [DispatchController, Error]) {
    return this.#do('onResponseError', args[0], () => super.onResponseError(...args)) as undefined
  }
}

const isBad = (opts: DispatchOptions) => opts.path !== '/good'

function misbehaving(callback: Callback, way: Way): Interceptor {
  return (dispatch) => (opts, handler) => {
    if (!isBad(opts)) return dispatch(opts, handler)
    if (callback !== 'dispatch') return dispatch(opts, new Misbehaving(handler, callback, way))
    const fault = new Error('a fault of the plugin')
    switch (way) {
      case 'throw':
        throw fault
      case 'reject':
        return Promise.reject(fault) as unknown as boolean
      case 'twice':
        dispatch(opts, handler)
        return dispatch(opts, handler)
      case 'never':
        return true
      case 'fail first':
        handler.onResponseError?.(null as never, fault)
        return dispatch(opts, handler)
      case 'end first':
        handler.onResponseEnd?.(null as never, {})
        return dispatch(opts, handler)
      default:
        setTimeout(() => handler.onResponseError?.(null as never, fault), 5)
        return true
    }
  }
}

/** Responds, or fails as the path requests. */
async function target(t: Test) {
  const { url, server } = await upstream(t, 'orders', (request, response) => {
    request.resume().on('end', () => {
      if (request.url === '/reset') request.socket.resetAndDestroy()
      else if (request.url !== '/silent' && request.url !== '/left') response.end('whole')
    })
  })
  server.on('upgrade', (_request, socket) => {
    socket.on('error', () => {})
    socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n')
    socket.pipe(socket)
  })
  return url
}

function logStub() {
  const lines: { fields: Record<string, unknown>; message: string }[] = []
  const log: Logger = {
    info() {},
    warn() {},
    error: (fields, message) => void lines.push({ fields: fields as Record<string, unknown>, message })
  }
  return { lines, log }
}

/** One connection at a time: a slot that a misbehaving call did not release would block the next call. */
const { circuitBreaker } = policyOf({ circuitBreaker: { maxConnections: 1, maxPendingRequests: 1 } })
const policy = { circuitBreaker: circuitBreaker!, retry: { ...retryOptions, attempts: 1 } }
/** Policies for calls that end in a timeout. */
const short = Object.freeze({ timeout: 1500, attemptTimeout: 1000 })
const shortest = Object.freeze({ timeout: 1000, attemptTimeout: 150 })

const terminal = new Set(['end', 'error', 'upgrade'])

async function run(t: Test, per: 'request' | 'attempt', interceptor: Interceptor, opts: Partial<DispatchOptions>) {
  const { lines, log } = logStub()
  const mesh = meshOf(t, [service('orders', [await target(t)], policy)], { log })
  mesh.use(interceptor, { per, name: 'bad' })
  const recorder = new Recorder()
  let upgraded: Duplex | undefined
  recorder.onRequestUpgrade = (...[, , , socket]: unknown[]) => {
    upgraded = socket as Duplex
    Recorder.prototype.onRequestUpgrade.call(recorder)
  }
  mesh.dispatch({ origin, path: '/', method: 'GET', ...opts } as DispatchOptions, recorder)
  if (opts.path === '/left') setTimeout(() => recorder.controller.abort(new Error('the caller left')), 20)
  await recorder.done
  upgraded?.destroy()
  const next = await mesh.request({ origin, path: '/good', method: 'GET' })
  t.equal(await next.body.text(), 'whole', 'the next call is served')
  await eventually(() => mesh.status()[0]!.active === 0, 'no call in flight')
  await eventually(() => mesh.status()[0]!.instances[0]!.active === 0, 'no attempt in flight')
  const ends = recorder.events.filter((event) => terminal.has(event))
  t.equal(ends.length, 1, `one final event: ${recorder.events}`)
  t.ok(terminal.has(recorder.events.at(-1)!), `the final event is the last one: ${recorder.events}`)
  return { recorder, lines }
}

/** Ends of a call that are allowed besides `JW_PLUGIN_FAILED`. */
const harmless: Partial<Record<`${Callback} ${Way}`, 'end' | 'upgrade' | 'either'>> = {
  'onBodySent never': 'end',
  'onBodySent twice': 'end',
  'onRequestSent never': 'end',
  'onRequestSent twice': 'end',
  'onRequestStart never': 'end',
  'onRequestStart twice': 'end',
  'onRequestUpgrade twice': 'upgrade',
  'onRequestUpgrade pause': 'upgrade',
  'onResponseEnd pause': 'end',
  'onResponseEnd twice': 'end',
  'onResponseEnd end first': 'end',
  'dispatch twice': 'either'
}

function optsFor(callback: Callback, way: Way): Partial<DispatchOptions> {
  if (callback === 'onRequestUpgrade') return { upgrade: 'echo' }
  const sending = callback === 'onBodySent' || callback === 'onRequestSent'
  // The fault comes later, but before a response.
  const later = (sending || callback === 'onRequestStart') && (way === 'reject' || way === 'abort later')
  return { path: later ? '/silent' : '/', ...(sending && { method: 'POST', body: 'abc' }) }
}

for (const per of ['request', 'attempt'] as const) {
  for (const callback of callbacks) {
    if (callback === 'onResponseError') continue
    for (const way of ways) {
      t.test(`per ${per}: ${callback}: ${way}`, async (t) => {
        const expected = harmless[`${callback} ${way}`]
        const waits = way === 'never' || way === 'pause'
        const opts = { ...optsFor(callback, way), ...(waits && !expected && { mesh: short }) }
        const { recorder, lines } = await run(t, per, misbehaving(callback, way), opts)
        if (expected === 'end' || expected === 'upgrade') {
          t.equal(recorder.events.at(-1), expected)
          if (expected === 'end') t.equal(recorder.body, 'whole')
          return
        }
        if (expected === 'either' && recorder.error === null) {
          t.equal(recorder.body, 'whole')
          return
        }
        t.equal(recorder.error?.code, 'JW_PLUGIN_FAILED', String(recorder.error))
        t.equal(lines.length, 1, 'the failure is logged once')
        t.match(lines[0], {
          fields: { interceptor: 'bad', per, service: 'orders', err: Error },
          message: /bad failed in/
        })
      })
    }
  }

  for (const failing of ['reset', 'silent', 'left'] as Failing[]) {
    for (const way of ways) {
      t.test(`per ${per}: onResponseError of a call that fails, ${failing}: ${way}`, async (t) => {
        const opts = {
          path: `/${failing}`,
          method: 'POST',
          body: 'x',
          mesh: failing === 'silent' ? shortest : short
        } as const
        const { recorder } = await run(t, per, misbehaving('onResponseError', way), opts)
        t.equal(recorder.events.at(-1), 'error')
        if (failing === 'left') t.equal(recorder.error?.message, 'the caller left')
        else if (way === 'throw' || way === 'fail first') t.equal(recorder.error?.code, 'JW_PLUGIN_FAILED')
      })
    }
  }

  t.test(`per ${per}: a handler of undici's former contract`, async (t) => {
    const former = { onConnect() {}, onHeaders() {}, onData() {}, onComplete() {}, onError() {} } as DispatchHandler
    const interceptor: Interceptor = (dispatch) => (opts, handler) => dispatch(opts, isBad(opts) ? former : handler)
    const { recorder, lines } = await run(t, per, interceptor, {})
    t.equal(recorder.error?.code, 'JW_PLUGIN_FAILED')
    t.match(lines[0]?.message, /invalid onRequestStart method/)
  })

  t.test(`per ${per}: an error with a status is the interceptor's response`, async (t) => {
    const refusal = Object.assign(new Error('no more of these'), { statusCode: 429, code: 'QUOTA' })
    const interceptor: Interceptor = (dispatch) => (opts, handler) => {
      if (isBad(opts)) throw refusal
      return dispatch(opts, handler)
    }
    const { recorder, lines } = await run(t, per, interceptor, {})
    t.equal(recorder.error, refusal)
    t.strictSame(lines, [])
  })

  t.test(`per ${per}: chunks of any kind, opts of its own making, an async interceptor`, async (t) => {
    class Chunks extends ForwardingHandler {
      override onResponseData(controller: DispatchController, chunk: Buffer) {
        const [first, second] = [chunk.subarray(0, 2), chunk.subarray(2)]
        this.next.onResponseData?.(controller, String(first) as never)
        this.next.onResponseData?.(controller, new Uint8Array(second) as never)
      }
    }
    const interceptor: Interceptor = (dispatch) =>
      (async (opts: DispatchOptions, handler: DispatchHandler) => {
        if (opts.path === '/own') {
          const { call, instance, attempt } = opts
          dispatch(
            { origin: opts.origin!, path: '/', method: 'GET', call: call!, instance: instance!, attempt: attempt! },
            handler
          )
          return
        }
        await sleep(1)
        dispatch(opts, new Chunks(handler))
      }) as never
    for (const path of ['/', '/own']) {
      const { recorder, lines } = await run(t, per, interceptor, { path })
      t.equal(recorder.body, 'whole')
      t.strictSame(lines, [])
    }
  })
}

t.test('bytes beyond Content-Length never reach the caller', async (t) => {
  class Longer extends ForwardingHandler {
    override onResponseData(controller: DispatchController, chunk: Buffer) {
      this.next.onResponseData?.(controller, chunk)
      this.next.onResponseData?.(controller, Buffer.from('HTTP/1.1 200 OK\r\n'))
    }
  }
  const interceptor: Interceptor = (dispatch) => (opts, handler) =>
    dispatch(opts, isBad(opts) ? new Longer(handler) : handler)
  const { recorder } = await run(t, 'request', interceptor, {})
  t.equal(recorder.body, 'whole')
  t.equal(recorder.error?.code, 'JW_PLUGIN_FAILED')
})

t.test("undici's retry interceptor repeats the call, and reports the error in the end", async (t) => {
  for (const per of ['request', 'attempt'] as const) {
    for (const good of [2, 99]) {
      let count = 0
      const { url } = await upstream(t, 'orders', (_request, response) => {
        count++
        response.writeHead(count < good ? 503 : 200).end(`answer ${count}`)
      })
      const mesh = meshOf(t, [service('orders', [url], { timeout: 5000 })])
      mesh.use(interceptors.retry({ statusCodes: [503], maxRetries: 2, minTimeout: 1, maxTimeout: 5 }), {
        per,
        name: 'retry'
      })
      const recorder = new Recorder()
      mesh.dispatch({ origin, path: '/', method: 'GET' }, recorder)
      await recorder.done
      if (good === 2) t.equal(recorder.body, 'answer 2', per)
      else t.match(recorder.error, { code: 'UND_ERR_REQ_RETRY', statusCode: 503 }, per)
      await eventually(() => mesh.status()[0]!.active === 0, 'no call in flight')
      t.equal(mesh.status()[0]!.instances[0]!.active, 0)
    }
  }
})

/** Per request, `dns` asks for the address of a service's virtual host; `dump` passes on a length and no body. */
const unfit = new Set(['request dns', 'request dump', 'attempt dump'])
const bundled: Record<string, () => Interceptor> = {
  retry: () => interceptors.retry(),
  redirect: () => interceptors.redirect({ maxRedirections: 2 }),
  dump: () => interceptors.dump(),
  dns: () => interceptors.dns(),
  cache: () => interceptors.cache(),
  responseError: () => interceptors.responseError(),
  decompress: () => interceptors.decompress(),
  deduplicate: () => interceptors.deduplicate()
}

t.test("undici's other interceptors end in a response or an error at once, and leave no state", async (t) => {
  t.strictSame(Object.keys(bundled).sort(), Object.keys(interceptors).sort(), 'every interceptor of undici is tested')
  const { url } = await upstream(t, 'orders', (request, response) => {
    request.resume()
    if (request.url === '/moved') response.writeHead(302, { location: '/' }).end()
    else
      response
        .writeHead(request.url === '/404' ? 404 : 200, { 'cache-control': 'max-age=60', 'content-length': 5 })
        .end('whole')
  })
  for (const per of ['request', 'attempt'] as const) {
    for (const [name, make] of Object.entries(bundled)) {
      const { lines, log } = logStub()
      const mesh = meshOf(t, [service('orders', [url], policy)], { log })
      mesh.use(make(), { per, name })
      for (const path of ['/', '/', '/404', '/moved']) {
        for (const method of ['GET', 'POST']) {
          const recorder = new Recorder()
          // Headers as the edge passes them: a flat list.
          const headers = ['accept', 'text/plain']
          mesh.dispatch({ origin, path, method, headers } as DispatchOptions, recorder)
          await recorder.done
          const what = `per ${per}: ${name}: ${method} ${path}`
          const isFine = recorder.error === null || (name === 'responseError' && path === '/404')
          if (unfit.has(`${per} ${name}`))
            t.match(recorder.error ?? { code: 'JW_PLUGIN_FAILED' }, { code: 'JW_PLUGIN_FAILED' }, what)
          else t.ok(isFine && (recorder.error !== null || recorder.body === 'whole' || path === '/moved'), what)
        }
      }
      if (unfit.has(`${per} ${name}`)) t.match(lines[0], { fields: { interceptor: name } })
      await eventually(() => mesh.status()[0]!.active === 0, 'no call in flight')
      t.equal(mesh.status()[0]!.instances[0]!.active, 0)
    }
  }
})

t.test('an interceptor that fails while chains are composed is named', async (t) => {
  const { lines, log } = logStub()
  const url = await target(t)
  const mesh = meshOf(t, [service('orders', [url])], { log })
  mesh.use((() => undefined) as never, { per: 'request', name: 'empty' })
  const get = { origin, path: '/', method: 'GET' } as const
  await t.rejects(mesh.request(get), { code: 'JW_PLUGIN_FAILED', message: /interceptor empty failed in compose/ })
  t.match(lines[0], { fields: { interceptor: 'empty' } })
})

t.test('use() after the first request is an error', async (t) => {
  const mesh = meshOf(t, [service('orders', [await target(t)])])
  const pass: Interceptor = (dispatch) => dispatch
  mesh.use(pass, { per: 'request' })
  await mesh.request({ origin, path: '/', method: 'GET' }).then(({ body }) => body.dump())
  const before = mesh.describe('orders')
  t.throws(() => mesh.use(pass, { per: 'request', name: 'late' }), {
    message: /interceptor late before the first request/
  })
  t.strictSame(mesh.describe('orders'), before)
})

t.test('an exception of a caller’s handler at the end is reported to it; a second one is logged', async (t) => {
  const { lines, log } = logStub()
  const mesh = meshOf(t, [service('orders', [await target(t)], policy)], { log })
  for (const path of ['/', '/silent', '/reset']) {
    const policy = path === '/silent' && { mesh: shortest }
    const recorder = new Recorder()
    let reports = 0
    recorder.onResponseEnd = () => {
      throw new Error('at the end')
    }
    recorder.onResponseError = () => {
      reports++
      throw new Error('at the error')
    }
    mesh.dispatch({ origin, path, method: 'POST', body: 'x', ...policy } as DispatchOptions, recorder)
    await eventually(() => reports === 1, 'the report to the caller')
  }
  await eventually(() => lines.length === 3, 'each exception is logged')
  t.match(lines[0], { fields: { service: 'orders', err: { message: 'at the error' } } })
  t.equal(mesh.status()[0]!.active, 0)
})
