/** Bytes on the wire for a request, and the end of its body. */
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { PassThrough, Readable } from 'node:stream'
import type { Test } from 'tap'
import t from 'tap'
import type { DispatchOptions } from '../../../plugins/mesh/core/types.ts'
import { readRequest } from '../../fuzz/messages.ts'
import { eventually } from '../../helpers/eventually.ts'
import { raw } from '../../helpers/mesh/servers.ts'
import { Heard, iterations, poolTo } from './support.ts'

const empty = 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'

type RequestOptions = Partial<DispatchOptions> & { trailers?: () => readonly string[] }

/** A service that responds to each complete request, and records the bytes received. */
async function service(t: Test) {
  const wire = { text: '', whole: [] as string[], sockets: [] as Socket[] }
  const { url } = await raw(t, (socket) => {
    let text = ''
    wire.sockets.push(socket)
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
      wire.text = text
      for (let read = readRequest(text, 0); read?.complete; read = readRequest(text, 0)) {
        wire.whole.push(text.slice(0, read.end))
        text = text.slice(read.end)
        socket.write(empty)
      }
    })
  })
  const { ask } = poolTo(t, url)
  const host = new URL(url).host
  const send = async (opts: RequestOptions) => {
    const heard = ask(opts)
    await heard.done
    return { heard, text: wire.whole.pop()?.replace(`host: ${host}\r\nconnection: keep-alive\r\n`, 'HOST\r\n') }
  }
  return { url, wire, ask, send, host }
}

t.test('headers of every form are sent', async (t) => {
  const { send, host } = await service(t)
  const bytes = 'GET /a?b=1 HTTP/1.1\r\nHOST\r\nA: 1\r\nb: 2\r\nb: 3\r\nC: \xe9\r\nd: \r\n\r\n'
  const forms: [string, unknown][] = [
    ['flat', ['A', '1', 'b', '2', 'b', '3', 'C', '\xe9', 'd', '', 'none', undefined]],
    ['flat, several values', ['A', '1', 'b', ['2', '3'], 'C', '\xe9', 'd', '']],
    ['object', { A: '1', b: ['2', '3'], C: '\xe9', d: '', none: undefined, nil: null, no: [] }],
    ['pairs', new Map<string, unknown>([['A', 1], ['b', [2, 3]], ['C', '\xe9'], ['d', '']])]
  ] // biome-ignore format: a table
  for (const [name, headers] of forms) {
    const { text } = await send({ path: '/a?b=1', headers: headers as never })
    t.equal(text, bytes, name)
  }
  t.equal(
    (await send({ path: '/a', query: { b: 'c d', e: [1, 2] } })).text,
    'GET /a?b=c+d&e=1&e=2 HTTP/1.1\r\nHOST\r\n\r\n'
  )
  const own = await send({ headers: ['Host', 'other', 'X', 'y', 'Connection', 'keep-alive'] })
  t.equal(own.text, 'GET / HTTP/1.1\r\nhost: other\r\nconnection: keep-alive\r\nX: y\r\n\r\n')
  for (const closing of [
    { headers: { connection: 'Close' } },
    { reset: true },
    { headers: ['connection', 'close', 'connection', 'keep-alive'] }
  ]) {
    t.equal((await send(closing)).text, `GET / HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`)
  }
})

t.test('bodies of every form are sent', async (t) => {
  const { send } = await service(t)
  const headerSection = (method: string, more: string) => `${method} / HTTP/1.1\r\nHOST\r\n${more}\r\n`
  const large = 'x\xe9'.repeat(40_000)
  const bytes = Buffer.from(large, 'latin1')
  const view = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
  async function* pieces(...list: (string | Uint8Array)[]) {
    yield* list
  }
  const table: [string, RequestOptions, string][] = [
    ['none', { method: 'GET' }, headerSection('GET', '')],
    ['none, of a POST', { method: 'POST' }, headerSection('POST', 'content-length: 0\r\n')],
    ['none, of a DELETE', { method: 'DELETE', body: null }, headerSection('DELETE', '')],
    ['none, of a DELETE that says so', { method: 'DELETE', headers: { 'content-length': '0' } }, headerSection('DELETE', 'content-length: 0\r\n')],
    ['empty text', { method: 'PUT', body: '' }, headerSection('PUT', 'content-length: 0\r\n')],
    ['empty bytes', { method: 'PUT', body: Buffer.alloc(0) }, headerSection('PUT', 'content-length: 0\r\n')],
    ['text', { method: 'PUT', body: 'gr\xfc\xdfe' }, `${headerSection('PUT', 'content-length: 7\r\n')}gr\xc3\xbc\xc3\x9fe`],
    ['bytes', { method: 'PUT', body: Buffer.from([0, 255, 10]) }, `${headerSection('PUT', 'content-length: 3\r\n')}\0\xff\n`],
    ['an array of bytes', { method: 'PUT', body: new Uint8Array([1, 2]) as never }, `${headerSection('PUT', 'content-length: 2\r\n')}\x01\x02`],
    ['many bytes', { method: 'PUT', body: view as never }, `${headerSection('PUT', 'content-length: 80000\r\n')}${large}`],
    ['bytes with a Content-Length', { method: 'PUT', headers: ['Content-Length', '2'], body: 'ab' }, `${headerSection('PUT', 'content-length: 2\r\n')}ab`],
    ['a stream', { method: 'PUT', body: Readable.from([Buffer.from('ab'), 'c\xe9', '']) }, `${headerSection('PUT', 'transfer-encoding: chunked\r\n')}2\r\nab\r\n3\r\nc\xc3\xa9\r\n0\r\n\r\n`],
    ['a stream of a length', { method: 'PUT', headers: { 'content-length': 3 } as never, body: Readable.from(['a', 'bc']) }, `${headerSection('PUT', 'content-length: 3\r\n')}abc`],
    ['a large stream', { method: 'PUT', body: Readable.from([bytes]) }, `${headerSection('PUT', 'transfer-encoding: chunked\r\n')}13880\r\n${large}\r\n0\r\n\r\n`],
    ['an empty stream', { method: 'PUT', body: Readable.from([]) }, headerSection('PUT', 'content-length: 0\r\n')],
    ['an empty stream of a length', { method: 'PUT', headers: { 'content-length': '0' }, body: Readable.from([]) }, headerSection('PUT', 'content-length: 0\r\n')],
    ['an iterable', { method: 'PUT', body: pieces('a', Buffer.from('b'), new Uint8Array([99])) as never }, `${headerSection('PUT', 'transfer-encoding: chunked\r\n')}1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n`],
    ['an iterable of a length', { method: 'PUT', headers: { 'content-length': '2' }, body: pieces('a', 'b') as never }, `${headerSection('PUT', 'content-length: 2\r\n')}ab`],
    ['a list', { method: 'PUT', body: ['a', 'bc'] as never }, `${headerSection('PUT', 'transfer-encoding: chunked\r\n')}1\r\na\r\n2\r\nbc\r\n0\r\n\r\n`],
    ['an empty iterable', { method: 'PUT', body: pieces() as never }, headerSection('PUT', 'content-length: 0\r\n')],
    ['trailers', { method: 'PUT', body: Readable.from(['a']), trailers: () => ['X-Sum', '7', 'b', '\xe9'] }, `${headerSection('PUT', 'transfer-encoding: chunked\r\n')}1\r\na\r\n0\r\nX-Sum: 7\r\nb: \xe9\r\n\r\n`],
    ['trailers behind nothing', { method: 'PUT', body: Readable.from([]), trailers: () => ['X-Sum', '7'] }, `${headerSection('PUT', 'transfer-encoding: chunked\r\n')}0\r\nX-Sum: 7\r\n\r\n`],
    ['no trailers after all', { method: 'PUT', body: pieces('a') as never, trailers: () => [] }, `${headerSection('PUT', 'transfer-encoding: chunked\r\n')}1\r\na\r\n0\r\n\r\n`],
    ['trailers of a length', { method: 'PUT', headers: { 'content-length': '1' }, body: Readable.from(['a']), trailers: () => ['X-Sum', '7'] }, `${headerSection('PUT', 'content-length: 1\r\n')}a`]
  ] // biome-ignore format: a table
  for (const [name, opts, expected] of table) {
    const { text, heard } = await send(opts)
    t.equal(text, expected, name)
    t.equal(heard.error, null, name)
  }
})

t.test('sent bytes are reported to the handler', async (t) => {
  const { send } = await service(t)
  t.equal((await send({ method: 'PUT', body: 'abc' })).heard.sent, 3)
  t.equal((await send({ method: 'PUT', body: Readable.from(['abc', 'de']) })).heard.sent, 5)
})

t.test('a body with a method that defines none closes the connection', async (t) => {
  const { send, wire } = await service(t)
  for (const method of ['GET', 'DELETE', 'OPTIONS']) {
    const { text } = await send({ method, body: 'abc' })
    t.match(text, `\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc`)
    await eventually(
      () => wire.sockets.every(({ readableEnded, destroyed }) => readableEnded || destroyed),
      'the connections to close'
    )
  }
})

t.test('a body that does not match Content-Length fails the request', async (t) => {
  const { send, wire, ask } = await service(t)
  const withLength = { 'content-length': '3' }
  const bodies = [
    () => 'ab',
    () => 'abcd',
    () => '',
    () => null,
    () => Buffer.from('abcdGET / HTTP/1.1\r\n\r\n'),
    () => Readable.from(['a', 'b']),
    () => Readable.from(['ab', 'cd']),
    () => Readable.from([]),
    () => ['a'] as never,
    () => ['abc', 'd'] as never
  ]
  for (const make of bodies) {
    const body = make() as never
    const { heard } = await send({ method: 'PUT', headers: withLength, body })
    t.equal(heard.error?.code, 'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH', String(body))
    t.strictSame(heard.events, ['start', 'error'])
    if ((body as unknown) instanceof Readable) t.ok((body as Readable).destroyed)
  }
  t.strictSame(wire.whole, [])
  t.notMatch(wire.text, /d/, 'nothing beyond the length is sent')
  const next = ask()
  await next.done
  t.equal(next.status, 200)
})

t.test('the header section does not wait for a body that has not arrived', async (t) => {
  const { url, wire, ask } = await service(t)
  const { host } = new URL(url)
  for (const [headers, framing] of [
    [{}, 'transfer-encoding: chunked'],
    [{ 'content-length': '3' }, 'content-length: 3']
  ] as const) {
    wire.text = ''
    const body = new PassThrough()
    const heard = ask({ method: 'PUT', body, headers })
    await eventually(() => wire.text !== '', 'the header section')
    t.equal(wire.text, `PUT / HTTP/1.1\r\nhost: ${host}\r\nconnection: keep-alive\r\n${framing}\r\n\r\n`)
    t.ok(heard.controller?.awaitsBody)
    body.end('abc')
    await heard.done
    t.notOk(heard.controller?.awaitsBody)
    t.equal(heard.status, 200)
  }
})

t.test('malformed requests are not sent', async (t) => {
  const { url, wire, ask } = await service(t)
  const evil = ['\r\nX: y', '\nX: y', '\rX: y', '\0', '\x7f', '\x01', '\u010a', '\u{1f600}']
  const shifty = () => {
    let times = 0
    return { toString: () => (times++ === 0 ? 'fine' : 'a\r\nX: y') }
  }
  const invalid: RequestOptions[] = [
    ...evil.flatMap((text) => [
      { path: `/${text}` },
      { method: `GET${text}` },
      { headers: { a: text } },
      { headers: { a: ['b', text] } },
      { headers: ['a', text] },
      { headers: { [`a${text}`]: 'b' } },
      { headers: { host: text } },
      { headers: { 'content-length': `1${text}` } },
      { headers: { connection: `close${text}` } },
      { upgrade: `websocket${text}` }
    ]),
    { path: '' },
    { path: '/a b' },
    { path: '/\t' },
    { path: '/?a', query: { b: 1 } },
    { method: '' },
    { method: 'GET /' },
    { method: 'G\xc9T' },
    { upgrade: '' },
    { headers: ['a'] },
    { headers: { '': 'a' } },
    { headers: { 'a b': 'c' } },
    { headers: { 'a:': 'c' } },
    { headers: { '\xe9': 'c' } },
    { headers: [Buffer.from('connection'), 'x'] as never },
    { headers: { a: [shifty()] } as never },
    { headers: { a: shifty() } as never },
    { headers: { a: Symbol('b') } as never },
    { headers: ['host', 'a', 'Host', 'b'] },
    { headers: ['content-length', '1', 'Content-Length', '1'] },
    { headers: { 'content-length': '+1' } },
    { headers: { 'content-length': '1, 1' } },
    { headers: { 'content-length': '' } },
    { headers: { 'content-length': '9'.repeat(30) } },
    { headers: { 'transfer-encoding': 'chunked' } },
    { headers: { 'Transfer-Encoding': 'identity' } },
    { headers: { connection: 'upgrade' } },
    { headers: { connection: 'content-length' } },
    { headers: { connection: [1] } as never },
    { headers: { 'keep-alive': '1' } },
    { headers: { upgrade: 'websocket' } },
    { headers: { expect: '100-continue' } }
  ]
  for (const opts of invalid) {
    const heard = ask({ method: 'PUT', ...opts })
    await heard.done
    t.match(heard.error, { code: /^UND_ERR_(INVALID_ARG|NOT_SUPPORTED)$/ }, JSON.stringify(opts))
    t.strictSame(heard.events, ['error'])
  }
  for (const body of [5, {}, new Date()] as never[]) {
    const heard = ask({ method: 'PUT', body })
    await heard.done
    t.equal(heard.error?.code, 'UND_ERR_INVALID_ARG')
  }
  t.equal(wire.text, '')
  const upgrade = poolTo(t, url).ask({ upgrade: 'websocket' })
  await eventually(() => wire.text.endsWith('\r\n\r\n'), 'the complete request')
  t.match(wire.text, /\r\nconnection: upgrade\r\nupgrade: websocket\r\n/)
  upgrade.controller!.abort(new Error('enough'))
})

t.test('invalid trailers fail the request, and the message stays incomplete', async (t) => {
  const { wire, ask } = await service(t)
  for (const trailers of [
    ['a', 'b\r\nX: y'],
    ['a\r\nb', 'c'],
    ['', 'a'],
    ['a', '\0']
  ]) {
    // biome-ignore format: short
    for (const body of [Readable.from(['abc']), Readable.from([]), ['abc'] as never]) {
      const heard = ask({ method: 'PUT', body, trailers: () => trailers })
      await heard.done
      t.equal(heard.error?.code, 'UND_ERR_INVALID_ARG')
    }
  }
  const thrown = ask({
    method: 'PUT',
    body: Readable.from(['abc']),
    trailers: () => {
      throw new Error('no trailers')
    }
  })
  await thrown.done
  t.equal(thrown.error?.message, 'no trailers')
  t.strictSame(wire.whole, [])
})

t.test('a service that does not read pauses the body until it reads again', async (t) => {
  let resume!: () => void
  let got = 0
  const { url } = await raw(t, (socket) => {
    socket.pause()
    resume = () => {
      let tail = ''
      socket
        .on('data', (chunk: Buffer) => {
          got += chunk.length
          tail = (tail + chunk.toString('latin1', Math.max(0, chunk.length - 7))).slice(-7)
          if (tail === '\r\n0\r\n\r\n') socket.write(empty)
        })
        .resume()
    }
  })
  const size = 64 * 1024
  const most = 1024
  for (const kind of ['stream', 'iterable']) {
    let made = 0
    let woken = 0
    const chunk = Buffer.alloc(size, 'x')
    const body = new Readable({
      read() {
        this.push(made++ < most ? chunk : null)
      }
    })
    body.on('pause', () => woken++)
    const iterable = async function* () {
      for (; made < most; made++) yield chunk
    }
    got = 0
    const { ask } = poolTo(t, url)
    const heard = ask({ method: 'PUT', body: kind === 'stream' ? body : (iterable() as never) })
    let before = -1
    await eventually(() => {
      const still = made === before && made > 10
      before = made
      return still
    }, 'the pause')
    t.ok(made < most / 2, `${kind}: ${made} chunks of ${most}`)
    if (kind === 'stream') t.ok(woken > 0)
    resume()
    await heard.done
    t.equal(heard.status, 200)
    t.ok(got > size * most)
    t.equal(heard.sent, size * most)
  }
})

t.test('a body that fails fails the request', async (t) => {
  const { wire, ask } = await service(t)
  const broken = Object.assign(new Error('broken'), { code: 'EBROKEN' })
  for (const when of ['before', 'after']) {
    const body = new Readable({ read() {} })
    const heard = ask({ method: 'PUT', body, headers: { 'content-length': '10' } })
    await eventually(() => heard.events.length === 1, 'the start of the request')
    if (when === 'after') {
      wire.text = ''
      body.push('half')
      await eventually(() => wire.text.endsWith('half'), 'the first half of the body')
    }
    body.destroy(broken)
    await heard.done
    t.equal(heard.error, broken)
    await eventually(
      () => wire.sockets.every(({ readableEnded, destroyed }) => readableEnded || destroyed),
      'the connections to close'
    )
  }
  const left = new Readable({ read() {} })
  const heard = ask({ method: 'PUT', body: left })
  await eventually(() => heard.events.length === 1, 'the start of the request')
  left.destroy()
  await heard.done
  t.equal(heard.error?.code, 'UND_ERR_ABORTED')
  async function* failing() {
    yield 'half'
    throw broken
  }
  const iterated = ask({ method: 'PUT', body: failing() as never })
  await iterated.done
  t.equal(iterated.error, broken)
  const thrower = { [Symbol.asyncIterator]: () => { throw broken } } // biome-ignore format: short
  const unread = ask({ method: 'PUT', body: thrower as never })
  await unread.done
  t.equal(unread.error, broken)
  const strange = ask({ method: 'PUT', body: Readable.from([5, {}]) })
  await strange.done
  t.ok(strange.error)
  t.strictSame(wire.whole, [])
})

t.test('an error of a body after its end is ignored', async (t) => {
  const { send } = await service(t)
  const body = Readable.from(['abc'], { autoDestroy: false })
  const { heard } = await send({ method: 'PUT', body })
  body.emit('error', new Error('late'))
  t.strictSame(heard.events, ['start', '200', 'end'])
})

t.test('a body that had ended, or was paused, when the request was dispatched', async (t) => {
  const { ask, wire } = await service(t)
  const ended = Readable.from(['abc'])
  await ended.toArray()
  const a = ask({ method: 'PUT', body: ended })
  await a.done
  t.equal(a.status, 200)
  t.match(wire.whole.pop(), 'content-length: 0\r\n\r\n')
  const destroyed = new Readable({ read() {} }).destroy()
  const b = ask({ method: 'PUT', body: destroyed })
  await b.done
  t.equal(b.error?.code, 'UND_ERR_ABORTED')
  const broken = new Error('broken')
  const errored = new Readable({ read() {} })
  errored.destroy(broken).once('error', () => {})
  const c = ask({ method: 'PUT', body: errored })
  await c.done
  t.equal(c.error, broken)
  const erring = new Readable({ read() {} })
  const d = ask({ method: 'PUT', body: erring }, new Heard({ start: () => erring.destroy(broken) }))
  await d.done
  t.equal(d.error, broken)
  const paused = Readable.from(['abc']).pause()
  const e = ask({ method: 'PUT', body: paused })
  await e.done
  t.equal(e.status, 200)
  t.match(wire.whole.pop(), '3\r\nabc\r\n0\r\n\r\n')
})

t.test('an empty body counts as no body: the connection is kept, for methods without a body too', async (t) => {
  const { wire, send } = await service(t)
  for (const body of ['', Buffer.alloc(0), new Uint8Array(0)]) {
    for (const method of ['GET', 'HEAD', 'DELETE', 'OPTIONS', 'POST'] as const) {
      const { text } = await send({ method, body })
      t.equal(text, `${method} / HTTP/1.1\r\nHOST${method === 'POST' ? '\r\ncontent-length: 0' : ''}\r\n\r\n`, method)
    }
  }
  t.equal(wire.sockets.length, 1)
  await send({ method: 'GET', body: 'x' })
  await send({ method: 'GET' })
  t.equal(wire.sockets.length, 2, 'a body that no service expects closes its connection')
})

t.test('a response before the end of the body stops the body and closes the connection', async (t) => {
  const { url, sockets } = await raw(t, (socket) => {
    socket.once('data', () => socket.write('HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch'))
  })
  const { ask } = poolTo(t, url)
  const body = new Readable({ read() {} })
  body.push('some')
  const heard = ask({ method: 'PUT', body })
  await heard.done
  t.strictSame([heard.events, heard.body], [['start', '413', 'data', 'end'], 'much'])
  t.ok(body.destroyed)
  await eventually(() => sockets.size === 0, 'the end of the connection', 1000)
  let returned = false
  async function* endless() {
    try {
      for (;;) {
        yield 'some'
        await iterations(1)
      }
    } finally {
      returned = true
    }
  }
  const iterated = ask({ method: 'PUT', body: endless() as never })
  await iterated.done
  t.equal(iterated.status, 413)
  await eventually(() => returned, 'the end of the iterable')
})

t.test('the early response of a closing service is delivered, although writing fails', async (t) => {
  const response = 'HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 4\r\n\r\nmuch'
  for (const framing of ['content-length: 100000000', 'x-unknown: length']) {
    const { url, server } = await raw(t, (socket) => {
      socket.once('data', () => {
        socket.pause()
        socket.write(response, () => setImmediate(() => socket.resetAndDestroy()))
      })
    })
    const { ask } = poolTo(t, url)
    const body = new Readable({ read() {} })
    body.push('some')
    const [name, value] = framing.split(': ')
    const heard = ask({ method: 'PUT', body, headers: [name!, value!] })
    const [peer] = (await once(server, 'connection')) as [Socket]
    // In the event-loop iteration in which the service has closed, before its response is read.
    peer.once('close', () => {
      for (let i = 0; i < 20; i++) body.push(Buffer.alloc(50_000, 'x'))
    })
    await heard.done
    t.strictSame([heard.events, heard.body], [['start', '413', 'data', 'end'], 'much'])
    t.ok(body.destroyed)
  }
})
