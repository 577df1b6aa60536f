/** undici's diagnostics channels: messages about calls by this client, compared with those of undici's own client. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import type { RequestListener } from 'node:http'
import { createServer } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import type { Test } from 'tap'
import t from 'tap'
import { Client } from 'undici'
import type { DispatchOptions } from '../../../plugins/mesh/core/types.ts'
import { authority, folderFor } from '../../helpers/certificates.ts'
import { meshOf, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { raw, refused } from '../../helpers/mesh/servers.ts'
import { Heard, poolTo } from './support.ts'

interface Message {
  request: {
    origin: string
    method: string
    path: string
    headers: string[]
    completed: boolean
    aborted: boolean
    addHeader(name: string, value: string): unknown
  }
  response: { statusCode: number; statusText: string; headers: Buffer[] }
  trailers: Buffer[]
  chunk: Uint8Array
  error: Error & { code?: string }
  headers: string
  socket: { remotePort: number }
  connectParams: { host: string; hostname: string; protocol: string; port: string; servername: string | null }
}

const names = [
  'client:beforeConnect', 'client:connected', 'client:connectError', 'client:sendHeaders', 'request:create',
  'request:bodyChunkSent', 'request:bodySent', 'request:headers', 'request:bodyChunkReceived', 'request:trailers',
  'request:error'
] as const // biome-ignore format: a list
type Name = (typeof names)[number]

/** Subscribes to channels, by default to all of them, until the test ends. */
function observe(t: Test, on: { [N in Name]?: (message: Message) => void } = {}, channels: readonly Name[] = names) {
  const seen: { name: Name; message: Message }[] = []
  for (const name of channels) {
    const hear = (message: unknown) => {
      seen.push({ name, message: message as Message })
      on[name]?.(message as Message)
    }
    subscribe(`undici:${name}`, hear)
    t.teardown(() => unsubscribe(`undici:${name}`, hear))
  }
  return {
    seen,
    of: (name: Name) => seen.filter((each) => each.name === name).map(({ message }) => message),
    order: () => seen.map(({ name }) => name).filter((name, i, all) => name !== all[i - 1])
  }
}

const respond: RequestListener = (request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk) => chunks.push(chunk))
  request.on('end', () => {
    response.writeHead(200, 'Fine', {
      'x-got': Buffer.concat(chunks).length,
      trailer: 'x-sum',
      'x-added': request.headers['x-added'] ?? ''
    })
    response.addTrailers({ 'x-sum': '42' })
    response.end('hello')
  })
}

async function serve(t: Test, protocol: 'http' | 'https', listener = respond) {
  const ca = protocol === 'https' ? authority(folderFor(t), 'root') : null
  const server =
    ca === null ? createServer(listener) : createSecureServer(ca.issue('service', { san: 'IP:127.0.0.1' }), listener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return { url: `${protocol}://127.0.0.1:${(server.address() as AddressInfo).port}`, ca: ca?.cert }
}

const pairs = (fields: readonly Buffer[]) => {
  const texts = fields.map(String)
  return texts.flatMap((name, i) => (i % 2 === 0 ? [[name.toLowerCase(), texts[i + 1]]] : []))
}

/** Returns the fields of a message that do not depend on the client: no ports, no chunk boundaries. */
const comparable = ({ name, message }: { name: Name; message: Message }) => {
  const { request, response, trailers, headers, error } = message
  return {
    name,
    ...(request && { origin: String(request.origin), method: request.method, path: request.path }),
    ...(request && { fields: request.headers.map((text, i) => (i % 2 === 0 ? text.toLowerCase() : text)) }),
    ...(response && {
      status: response.statusCode,
      text: response.statusText,
      names: pairs(response.headers).map(([n]) => n)
    }),
    ...(trailers && { trailers: pairs(trailers) }),
    ...(headers && { line: String(headers).split('\r\n')[0] }),
    ...(error && { failed: true })
  }
}

for (const protocol of ['http', 'https'] as const) {
  t.test(`over ${protocol}: the same messages in the same order as undici's client`, async (t) => {
    const { url, ca } = await serve(t, protocol)
    const requests: [what: string, opts: () => Partial<DispatchOptions>][] = [
      ['a GET', () => ({ method: 'GET', path: '/a?b=c', headers: ['X-One', '1', 'accept', 'text/html'] })],
      ['a query', () => ({ method: 'GET', path: '/a', query: { b: 'c' }, headers: { 'x-one': '1' } })],
      ['bytes', () => ({ method: 'PUT', path: '/', body: 'content', headers: ['content-type', 'text/plain'] })],
      [
        'a stream',
        () => ({ method: 'POST', path: '/', body: Readable.from([Buffer.from('con'), Buffer.from('tent')]) })
      ],
      ['an empty POST', () => ({ method: 'POST', path: '/' })]
    ]
    for (const [what, opts] of requests) {
      const run = async (dispatch: (opts: DispatchOptions, heard: Heard) => unknown) => {
        const { seen } = observe(
          t,
          {},
          names.filter((name) => name.startsWith('request:') || name === 'client:sendHeaders')
        )
        const heard = new Heard()
        dispatch({ origin: url, ...opts() } as DispatchOptions, heard)
        await heard.done
        t.equal(heard.body, 'hello')
        return seen.splice(0)
      }
      const client = new Client(url, { ...(ca && { connect: { ca } }) })
      const theirs = await run((opts, heard) => client.dispatch(opts, heard))
      await client.close()
      const { pool } = poolTo(t, url, ca === undefined ? {} : { ca })
      const ours = await run((opts, heard) => pool.dispatch(opts, heard))
      // undici sends the header section before it reads the stream; this client sends available chunks with it.
      const sorted = (all: typeof ours) => all.map(comparable).filter(({ name }) => !name.endsWith('bodyChunkReceived'))
      t.strictSame(sorted(ours), sorted(theirs), what)
      t.ok(
        ours.every(({ message }) => message.request === ours[0]!.message.request),
        'all messages have the same request object'
      )
      const chunks = (all: typeof ours, name: Name) =>
        Buffer.concat(
          all.filter((each) => each.name === name).map(({ message }) => Buffer.from(message.chunk))
        ).toString()
      t.equal(chunks(ours, 'request:bodyChunkReceived'), 'hello')
      t.equal(chunks(ours, 'request:bodyChunkSent'), chunks(theirs, 'request:bodyChunkSent'))
      t.ok(ours.at(-1)!.message.request.completed)
    }
  })

  t.test(`over ${protocol}: a subscriber adds headers`, async (t) => {
    const { url, ca } = await serve(t, protocol)
    const faults: string[] = []
    observe(t, {
      'request:create': ({ request }) => {
        request.addHeader('x-added', 'by a subscriber')
        for (const [name, value] of [
          ['content-length', '7'],
          ['host', 'x'],
          ['connection', 'close'],
          ['a b', ''],
          ['a', '\r\n']
        ] as const) {
          try {
            request.addHeader(name, value)
          } catch (error) {
            faults.push((error as { code: string }).code)
          }
        }
      }
    })
    const heard = poolTo(t, url, ca === undefined ? {} : { ca }).ask({ headers: ['x-own', '1'] })
    await heard.done
    t.equal(heard.headers['x-added'], 'by a subscriber')
    t.strictSame(
      faults,
      Array.from({ length: 5 }, () => 'UND_ERR_INVALID_ARG')
    )
  })
}

t.test('a request that fails: its error, once, before onResponseError', async (t) => {
  const closing = await raw(t, (socket) => socket.once('data', () => socket.destroy()))
  const { of, order } = observe(t)
  let atHandler = -1
  const heard = poolTo(t, closing.url).ask({}, new Heard({ error: () => (atHandler = of('request:error').length) }))
  await heard.done
  t.equal(atHandler, 1)
  t.equal(of('request:error')[0]!.error, heard.error)
  t.ok(of('request:error')[0]!.request.aborted)
  t.strictSame(order(), ['request:create', 'client:sendHeaders', 'request:bodySent', 'request:error'])
})

t.test('an aborted request', async (t) => {
  const silent = await raw(t, (socket) => socket.resume())
  const { of } = observe(t)
  const reason = new Error('enough')
  const heard = poolTo(t, silent.url).ask({}, new Heard({ start: (controller) => controller.abort(reason) }))
  await heard.done
  t.strictSame(
    of('request:error').map(({ error }) => error),
    [reason]
  )
})

t.test('an upgrade: headers, then trailers without any', async (t) => {
  const service = await raw(t, (socket) =>
    socket.once('data', () => socket.write('HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'))
  )
  const { of, order } = observe(t)
  const heard = poolTo(t, service.url).ask({ upgrade: 'x' })
  await heard.done
  heard.socket!.destroy()
  t.match(of('request:headers'), [{ response: { statusCode: 101, statusText: 'Switching' } }])
  t.strictSame(order().slice(-2), ['request:headers', 'request:trailers'])
})

t.test('chunks stay as they are for a subscriber that keeps them', async (t) => {
  const body = Buffer.alloc(600_000, 'abcdefg')
  const { url } = await serve(t, 'http', (request, response) => void request.pipe(response))
  const { of } = observe(t)
  const source = { transfers: true, async *[Symbol.asyncIterator]() {
    for (let at = 0; at < body.length; at += 60_000) yield new Uint8Array(body.subarray(at, at + 60_000))
  } } // biome-ignore format: a literal
  const heard = new Heard()
  const borrowing = Object.assign(heard, { borrows: heard.onResponseData })
  poolTo(t, url).pool.dispatch({ origin: url, path: '/', method: 'POST', body: source } as never, borrowing)
  await heard.done
  for (const name of ['request:bodyChunkSent', 'request:bodyChunkReceived'] as const) {
    t.ok(Buffer.concat(of(name).map(({ chunk }) => chunk)).equals(body), name)
  }
})

t.test('in a mesh: each attempt, in the async context of its call, and each connection', async (t) => {
  const { url } = await serve(t, 'http')
  const gone = await refused()
  const store = new AsyncLocalStorage<string>()
  const contexts: unknown[] = []
  const { of } = observe(t, { 'request:create': () => contexts.push(store.getStore()) })
  const mesh = meshOf(t, [service('orders', [gone, url], { retry: retryOptions })])
  const call = (name: string) =>
    store.run(name, async () => {
      const { body } = await mesh.request({ origin: 'http://orders.mesh', path: '/x', method: 'GET' })
      t.equal(await body.text(), 'hello')
    })
  await Promise.all([call('first'), call('second')])
  const created = of('request:create').map(({ request }) => String(request.origin))
  t.ok(created.includes(gone) && created.includes(url), 'the origin is the instance')
  t.equal(
    contexts.filter((each) => each === 'first').length + contexts.filter((each) => each === 'second').length,
    created.length
  )
  const retried = of('request:error').length
  t.equal(created.length, 2 + retried)
  t.ok(retried > 0)
  t.match(
    of('client:beforeConnect').map(({ connectParams }) => connectParams.protocol),
    ['http:']
  )
  t.ok(of('client:connectError').some(({ error }) => error.code === 'ECONNREFUSED'))
  t.ok(of('client:connected').some(({ connectParams, socket }) => connectParams.port === String(socket.remotePort)))
})

t.test('without subscribers, or with subscribers of other channels, no data is collected', async (t) => {
  const { url } = await serve(t, 'http')
  const { of, seen } = observe(t, {}, ['request:error'])
  const { ask } = poolTo(t, url)
  const first = ask()
  await first.done
  t.same(seen, [])
  const { seen: late } = observe(t, {}, ['request:trailers'])
  await ask().done
  t.strictSame(
    late.map(({ name }) => name),
    ['request:trailers']
  )
  t.same(of('request:error'), [])
})
