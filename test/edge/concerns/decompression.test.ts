// slow: takes about 10 s
/** `edge.decompression`: the bodies and headers that services get, and the bodies that are refused, over each protocol. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { brotliCompressSync, constants, createGzip, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import type { Test } from 'tap'
import t from 'tap'
import { codingsOf, hasLongWindow } from '../../../plugins/edge/concerns/decompression/decoders.ts'
import decompression from '../../../plugins/edge/concerns/decompression/index.ts'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { postFields } from '../../helpers/edge/http2-fields.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { connect, raw, startGateway, startService } from '../../helpers/gateway.ts'

const plain = Buffer.from(JSON.stringify(Array.from({ length: 3000 }, (_, id) => ({ id, name: `user ${id % 11} é` }))))
const megabyte = 1024 * 1024

const encode = {
  gzip: (bytes: Buffer) => gzipSync(bytes),
  br: (bytes: Buffer) => brotliCompressSync(bytes),
  zstd: (bytes: Buffer) => zstdCompressSync(bytes),
  deflate: (bytes: Buffer) => deflateSync(bytes)
} as const
const codings = Object.keys(encode) as (keyof typeof encode)[]

async function start(
  t: Test,
  options: object,
  protocol: Protocol = 'HTTP/1.1',
  edge: object = {},
  listen: object = {}
) {
  let received = 0
  const service = await startService((request, response) => {
    const hash = createHash('sha256')
    let size = 0
    request.on('data', (chunk: Buffer) => {
      received += chunk.length
      size += chunk.length
      hash.update(chunk)
    })
    request.on('error', () => {})
    request.on('end', () => {
      const { headers, trailers } = request
      response.end(JSON.stringify({ headers, trailers, size, sha: hash.digest('hex') }))
    })
  })
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      listen: { ...listenFor(t, protocol), ...listen },
      services: { any: { instances: [service.url] } },
      edge: { decompression: options, ...edge },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
    },
    {
      log: true,
      before: (server) =>
        void server.register(async (own) => {
          own.post('/own', { config: { edge: { decompression: true } } }, async ({ body }) => body)
        })
    }
  )
  t.teardown(gateway.close)
  const { ask, begin } = anyClient(t, protocol, gateway.port)
  const memory = async () => {
    const text = await gateway.server.metrics.metrics()
    return Number(/^jingwei_edge_decompression_memory_bytes (\d+)/m.exec(text)?.[1])
  }
  const isIdle = () => eventually(async () => (await memory()) === 0)
  const post = async (encoding: string, body: Buffer, headers: Record<string, string> = {}, path = '/') => {
    const response = await ask(path, { method: 'POST', body, headers: { 'content-encoding': encoding, ...headers } })
    const text = response.body.toString()
    return {
      ...response,
      seen: JSON.parse(text || '{}') as Seen & { size: number; sha: string; code?: string }
    }
  }
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  return { ...gateway, post, begin, isIdle, memory, lines, received: () => received }
}

const shaOf = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

for (const protocol of protocols) {
  t.test(`over ${protocol}, the service gets the plain body of each encoding`, async (t) => {
    const { post, isIdle } = await start(t, {}, protocol)
    const digests = { digest: 'sha-256=AAAA', 'content-digest': 'sha-256=:AAAA:', 'content-md5': 'AAAA' }
    for (const coding of codings) {
      for (const name of coding === 'gzip' ? ['gzip', 'X-GZIP', 'identity, gzip'] : [coding]) {
        const { status, seen } = await post(name, encode[coding](plain), { ...digests, 'content-type': 'text/x' })
        t.equal(status, 200, name)
        t.match(seen, { size: plain.length, sha: shaOf(plain), headers: { 'content-type': 'text/x' } }, name)
        for (const gone of ['content-encoding', 'content-length', ...Object.keys(digests)])
          t.notOk(gone in seen.headers, gone)
      }
    }
    const stacked = encode.br(encode.gzip(encode.zstd(plain)))
    t.match((await post('zstd, gzip,br', stacked)).seen, { sha: shaOf(plain) })
    await isIdle()
  })

  t.test(`over ${protocol}, other bodies pass byte for byte`, async (t) => {
    const { post, isIdle } = await start(t, {}, protocol)
    const zipped = encode.gzip(plain)
    for (const encoding of ['aws-chunked', 'gzip, foo', 'compress', 'gzip, gzip, gzip, gzip', 'identity']) {
      const { status, seen } = await post(encoding, zipped, { digest: 'sha-256=AAAA' })
      t.equal(status, 200, encoding)
      t.match(seen, { sha: shaOf(zipped), headers: { 'content-encoding': encoding, digest: 'sha-256=AAAA' } })
    }
    await isIdle()
  })

  t.test(`over ${protocol}, bombs are refused with 413`, async (t) => {
    const gateway = await start(t, { maxSize: '5mb' }, protocol)
    const { post, isIdle, lines, received } = gateway
    const zeros = Buffer.alloc(50 * megabyte)
    for (const coding of codings) {
      const before = received()
      const { status, seen } = await post(coding, encode[coding](zeros))
      t.equal(status, 413, coding)
      t.equal(seen.code, 'JW_BODY_TOO_LARGE')
      t.ok(received() - before <= 5 * megabyte, `${received() - before} bytes`)
    }
    // The inner bomb is counted, too, although the outer stage has little output.
    t.equal((await post('gzip, gzip', encode.gzip(encode.gzip(zeros)))).status, 413)
    const members = Buffer.concat(Array(300_000).fill(gzipSync('')))
    t.equal((await post('gzip, gzip', encode.gzip(members))).status, 413)
    await isIdle()
    await eventually(() => lines().length === 6)
    t.match(lines()[0], { error: 'JW_BODY_TOO_LARGE', reason: 'decompressed_ratio', status: 413 })
    const text = await gateway.server.metrics.metrics()
    t.match(text, /jingwei_edge_refusals_total\{concern="decompression",route="all",code="JW_BODY_TOO_LARGE"\} 6\n/)
    const random = Buffer.concat(Array.from({ length: 100 }, (_, id) => createHash('sha512').update(`${id}`).digest()))
    const large = Buffer.concat(Array(1000).fill(random))
    t.equal((await post('gzip', gzipSync(large, { level: 1 }))).status, 413)
    await eventually(() => lines().length === 7)
    t.match(lines()[6], { reason: 'decompressed_size' })
  })

  t.test(`over ${protocol}, malformed bodies are refused with 400`, async (t) => {
    const { post, isIdle, begin, received } = await start(t, {}, protocol)
    for (const coding of codings) {
      const zipped = encode[coding](plain)
      const cases: [string, Buffer][] = [
        ['plain', plain],
        ['cut', zipped.subarray(0, -4)],
        ['with more behind it', Buffer.concat([zipped, Buffer.from('GET / HTTP/1.1\r\n\r\n')])]
      ]
      for (const [what, body] of cases) {
        const { status, seen } = await post(coding, body)
        t.match({ status, seen }, { status: 400, seen: { code: 'JW_BAD_ENCODING' } }, `${coding} ${what}`)
      }
    }
    t.equal((await post('gzip', Buffer.concat([gzipSync('a'), gzipSync('b')]))).seen.size, 2, 'two members')
    for (const rest of ['\0', '\0GET / HTTP/1.1\r\n\r\n', `\0${gzipSync('b').toString('latin1')}`]) {
      const body = Buffer.concat([gzipSync('a'), Buffer.from(rest, 'latin1')])
      t.match(await post('gzip', body), { status: 400, seen: { code: 'JW_BAD_ENCODING' } }, `behind it: ${rest.length}`)
      const call = begin('/', { method: 'POST', headers: { 'content-encoding': 'gzip' }, streams: true })
      call.send(body.subarray(0, -rest.length))
      await eventually(() => received() > 0)
      call.send(body.subarray(-rest.length))
      call.end()
      t.equal((await call.response).status, 400, `behind it, later: ${rest.length}`)
    }
    await isIdle()
  })

  t.test(`over ${protocol}, chunks reach the service while the body is sent; an abort ends the stream`, async (t) => {
    const { begin, isIdle, memory, received } = await start(t, {}, protocol)
    const headers = { 'content-encoding': 'gzip' }
    const call = begin('/', { method: 'POST', headers, streams: true })
    const gzip = createGzip()
    gzip.on('data', (chunk: Buffer) => call.send(chunk))
    let sent = 0
    for (const part of ['one', 'two', 'three']) {
      gzip.write(part)
      gzip.flush(constants.Z_SYNC_FLUSH)
      sent += part.length
      await eventually(() => received() === sent)
    }
    await once(gzip.end(), 'end')
    call.end()
    t.match(JSON.parse((await call.response).body.toString()), { size: sent, sha: shaOf(Buffer.from('onetwothree')) })
    await isIdle()

    const cut = begin('/', { method: 'POST', headers, streams: true })
    cut.send(encode.gzip(plain).subarray(0, 500))
    await eventually(async () => (await memory()) > 0 && received() > sent)
    await cut.leave()
    await isIdle()
  })
}

t.test('over HTTP/2, all fields count, of which Node shows the first', async (t) => {
  const { port } = await start(t, { unknown: 'refuse', maxSize: '2mb' }, 'HTTP/2')
  const post = (body: Buffer, ...codings: string[]) =>
    postFields(
      t,
      port,
      '/',
      codings.map((coding) => ['content-encoding', coding] as const),
      body
    )
  const { headers, ...seen } = JSON.parse(await post(encode.gzip(encode.br(plain)), 'br', 'gzip')) as Seen
  t.match(seen, { size: plain.length, sha: shaOf(plain) })
  t.notOk('content-encoding' in headers)
  t.match(await post(Buffer.from('x'), 'identity', 'compress'), 'JW_UNKNOWN_ENCODING')
  t.match(await post(encode.gzip(Buffer.alloc(3 * megabyte)), 'identity', 'gzip'), 'JW_BODY_TOO_LARGE')
})

t.test('an encoding that is unknown is refused by option, and the client learns which are known', async (t) => {
  const { post } = await start(t, { unknown: 'refuse' })
  const { status, headers, seen } = await post('foo', plain)
  t.match({ status, headers, seen }, { status: 415, headers: { 'accept-encoding': 'gzip, br, zstd, deflate' } })
  t.equal(seen.code, 'JW_UNKNOWN_ENCODING')
  t.equal((await post('gzip, gzip, gzip, gzip', plain)).status, 415)
  t.equal((await post('identity', plain)).status, 200)
})

t.test('in shadow mode, limits are counted only', async (t) => {
  const { post, server } = await start(t, { maxSize: '1kb', unknown: 'refuse', mode: 'shadow' })
  t.equal((await post('gzip', encode.gzip(plain))).seen.sha, shaOf(plain))
  t.equal((await post('foo', plain)).seen.sha, shaOf(plain))
  t.match(
    await server.metrics.metrics(),
    /jingwei_edge_shadow_refusals_total\{concern="decompression",route="all"\} 2\n/
  )
})

t.test('own routes of plugins get the plain body; concerns that read bodies, too', async (t) => {
  const { post } = await start(t, {})
  const json = { 'content-type': 'application/json' }
  t.same((await post('br', encode.br(plain), json, '/own')).seen, JSON.parse(plain.toString()))
  t.match((await post('br', plain, json, '/own')).seen, { code: 'JW_BAD_ENCODING', statusCode: 400 })
  t.match((await post('gzip', encode.gzip(Buffer.alloc(20 * megabyte, ' ')), json, '/own')).seen, { statusCode: 413 })
  const body = { required: true, content: { 'application/json': { type: 'object', required: ['a'] } } }
  const checked = await start(t, {}, 'HTTP/1.1', { validation: { body } })
  t.equal((await checked.post('gzip', gzipSync('{"a":1}'), json)).status, 200)
  t.equal((await checked.post('gzip', gzipSync('{"b":1}'), json)).status, 400)
})

t.test('a client that waits for 100 gets it before the refusal', async (t) => {
  const { port } = await start(t, { maxSize: '1kb' })
  const zipped = encode.gzip(plain)
  const head = ['POST / HTTP/1.1', 'Host: h', 'Content-Encoding: gzip', `Content-Length: ${zipped.length}`].join('\r\n')
  const client = connect(port, `${head}\r\nExpect: 100-continue\r\n\r\n`)
  t.teardown(() => client.socket.destroy())
  await client.until('HTTP/1.1 100 Continue\r\n\r\n')
  client.send(zipped)
  await client.until('413 Payload Too Large', 'JW_BODY_TOO_LARGE')
})

t.test('trailers of a chunked body reach the service', async (t) => {
  const { port } = await start(t, {})
  const zipped = gzipSync('hello')
  const chunk = Buffer.concat([
    Buffer.from(`${zipped.length.toString(16)}\r\n`),
    zipped,
    Buffer.from('\r\n0\r\nX-Sum: 7\r\n\r\n')
  ])
  const head =
    'POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Encoding: gzip\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n'
  t.match(await raw(port, Buffer.concat([Buffer.from(head), chunk])), /"x-sum":"7"[\s\S]*"size":5/)
  const empty = head.replace('Trailer: X-Sum\r\n', '')
  t.match(await raw(port, `${empty}0\r\n\r\n`), /"size":0/, 'an empty body has no encoding')
})

t.test('bodies beyond the memory are refused with 503', async (t) => {
  const { begin, post, isIdle } = await start(t, {}, 'HTTP/1.1', {}, { trustProxy: ['127.0.0.1'] })
  const calls = []
  const first = encode.zstd(plain).subarray(0, 10)
  for (let count = 0; count < 30; count++) {
    const headers = { 'content-encoding': 'zstd', 'x-forwarded-for': `192.0.2.${count % 2}` }
    const call = begin('/', { method: 'POST', headers, streams: true })
    call.send(first)
    calls.push(call)
  }
  let refused = await post('zstd', encode.zstd(plain))
  await eventually(async () => {
    if (refused.status === 503) return true
    refused = await post('zstd', encode.zstd(plain))
    return false
  })
  t.match(refused.seen, { code: 'JW_DECOMPRESSION_BUSY' })
  t.ok(refused.headers['retry-after'])
  t.equal((await post('gzip', encode.gzip(plain))).status, 200, 'gzip takes less')
  await Promise.all(calls.map((call) => call.leave()))
  await isIdle()
  t.equal((await post('zstd', encode.zstd(plain))).status, 200)
})

t.test('the bodies of one client leave memory for those of others', async (t) => {
  const { begin, post, memory, isIdle } = await start(t, {}, 'HTTP/1.1', {}, { trustProxy: ['127.0.0.1'] })
  const calls = []
  const from = (address: string) => ({ 'x-forwarded-for': address })
  for (let count = 0; count < 40; count++) {
    const headers = { 'content-encoding': 'zstd', ...from('2001:db8::1') }
    const call = begin('/', { method: 'POST', headers, streams: true })
    call.send(encode.zstd(plain).subarray(0, 10))
    calls.push(call)
  }
  await eventually(async () => (await memory()) > 110 * megabyte)
  t.ok((await memory()) <= 128 * megabyte)
  const body = encode.zstd(plain)
  t.match(
    await post('zstd', body, from('2001:db8::2')),
    { status: 503, seen: { code: 'JW_DECOMPRESSION_BUSY' } },
    'same /64'
  )
  t.equal((await post('zstd', body, from('2001:db8:1::2'))).status, 200)
  await Promise.all(calls.map((call) => call.leave()))
  await isIdle()
  t.equal((await post('zstd', body, from('2001:db8::2'))).status, 200)
})

t.test('a long window of brotli takes its memory in any place', async (t) => {
  const { begin, memory, isIdle } = await start(t, { maxSize: '40mb' })
  const lgwin = (bits: number) => ({ params: { [constants.BROTLI_PARAM_LGWIN]: bits } })
  const memoryOf = async (encoding: string, body: Buffer) => {
    const call = begin('/', { method: 'POST', headers: { 'content-encoding': encoding }, streams: true })
    call.send(body.subarray(0, -1))
    await eventually(async () => (await memory()) > 0)
    let last = -1
    await eventually(async () => {
      const before = last
      last = await memory()
      await new Promise((resolve) => setTimeout(resolve, 100))
      return last === before
    })
    await call.leave()
    await isIdle()
    return last
  }
  const long = brotliCompressSync(plain, lgwin(24))
  const short = brotliCompressSync(plain, lgwin(22))
  const difference = (await memoryOf('br', long)) - (await memoryOf('br', short))
  t.ok(difference > 8 * megabyte)
  t.equal((await memoryOf('br, gzip', gzipSync(long))) - (await memoryOf('br, gzip', gzipSync(short))), difference)
  t.equal(
    (await memoryOf('br, br, gzip', gzipSync(brotliCompressSync(long, lgwin(24))))) -
      (await memoryOf('br, br, gzip', gzipSync(brotliCompressSync(short, lgwin(22))))),
    2 * difference
  )
})

t.test('encodings in a field, and windows of brotli', async (t) => {
  t.same(codingsOf('gzip, br'), ['br', 'gzip'])
  t.same(codingsOf(' , identity,'), [])
  t.equal(codingsOf('gzip, br, zstd, deflate'), null)
  t.equal(codingsOf('toString'), null)
  t.equal(codingsOf(`${','.repeat(300)}gzip`), null)
  for (let bits = 10; bits <= 24; bits++) {
    const bytes = brotliCompressSync(plain, { params: { [constants.BROTLI_PARAM_LGWIN]: bits } })
    t.equal(hasLongWindow(bytes[0]!), bits > 22, `${bits}`)
  }
})

t.test('explain', async (t) => {
  const example = {
    method: 'POST',
    target: '/',
    ip: '127.0.0.1',
    consumer: null,
    user: null,
    paths: undefined as never,
    date: 0
  }
  const explained = (encoding: string, unknown = 'pass') =>
    decompression.explain?.({ edge: { decompression: { unknown } } } as never, {
      ...example,
      headers: { 'content-encoding': encoding }
    })
  t.equal(explained('gzip, br'), 'decompresses the body: br, gzip')
  t.equal(explained(''), 'passes the body on: it has no Content-Encoding')
  t.equal(explained('foo'), 'passes the body on: its encoding is unknown')
  t.equal(explained('foo', 'refuse'), 'refuses the body: its encoding is unknown')
})
