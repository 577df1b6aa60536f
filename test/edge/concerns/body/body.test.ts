// slow: takes about 10 s
/** `edge.body`: the bodies and headers that services and clients get over each protocol, and what is refused. */
import { brotliCompressSync, gzipSync } from 'node:zlib'
import type { Test } from 'tap'
import t from 'tap'
import type { Protocol } from '../../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../../helpers/edge/asking-client.ts'
import { eventually } from '../../../helpers/eventually.ts'
import { raw, startGateway, startService } from '../../../helpers/gateway.ts'

const document = '{ "id": 12345678901234567890, "secret": "s", "price": 1.0, "big": 1e400, "zero": -0 }'
const changed = '{ "id": 12345678901234567890, "price": 1.0, "big": 1e400, "zero": -0,"via":"gw 200" }'

const rules = {
  request: { remove: ['/admin'], rename: { '/old': '/new' }, set: { '/caller': '{request.ip}' }, add: { '/page': 1 } },
  response: { remove: ['/secret'], set: { '/via': 'gw {response.status}' } }
}

interface Seen {
  body: string
  headers: Record<string, string>
  trailers: Record<string, string>
  rawLength: number
}

/** Starts a gateway whose service stores what it gets, and responds as the path says. */
async function start(t: Test, options: object = {}, protocol: Protocol = 'HTTP/1.1', edge: object = {}) {
  const seen: Seen[] = []
  const service = await startService(async (request, response) => {
    const chunks: Buffer[] = []
    request.on('error', () => {})
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer)
    } catch {
      // The gateway has ended the request, because its client has left.
      return
    }
    const body = Buffer.concat(chunks)
    const { headers, trailers, url = '' } = request
    seen.push({ body: body.toString(), headers, trailers, rawLength: body.length } as Seen)
    const { searchParams } = new URL(url, 'http://s')
    const coding = searchParams.get('coding')
    const size = Number(searchParams.get('size') ?? 0)
    const plain = Buffer.from(searchParams.get('body') ?? (size > 0 ? `{"secret":"${'x'.repeat(size)}"}` : document))
    const bytes = coding === 'gzip' ? gzipSync(plain) : coding === 'br' ? brotliCompressSync(plain) : plain
    response.statusCode = Number(searchParams.get('status') ?? 200)
    response.setHeader('content-type', searchParams.get('type') ?? 'application/json')
    if (coding !== null) response.setHeader('content-encoding', coding)
    response.setHeader('etag', '"v1"')
    for (const name of ['accept-ranges', 'content-digest', 'repr-digest', 'digest', 'content-md5'])
      response.setHeader(name, 'x')
    if (searchParams.has('hints')) response.writeEarlyHints({ link: '</a.css>; rel=preload' })
    if (searchParams.has('trailers')) {
      response.setHeader('trailer', 'content-digest')
      response.write(bytes)
      response.addTrailers({ 'content-digest': 'x' })
      response.end()
    } else if (searchParams.has('chunked')) {
      for (let at = 0; at < bytes.length; at += 1000) response.write(bytes.subarray(at, at + 1000))
      response.end()
    } else if (searchParams.has('reset')) {
      response.setHeader('content-length', bytes.length)
      response.write(bytes.subarray(0, 5), () => response.destroy())
    } else {
      if (![204, 304].includes(response.statusCode)) response.setHeader('content-length', bytes.length)
      response.end(request.method === 'HEAD' || [204, 304].includes(response.statusCode) ? undefined : bytes)
    }
  })
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      listen: listenFor(t, protocol),
      services: { any: { instances: [service.url] } },
      routes: [
        { name: 'all', match: { path: '/' }, service: 'any', edge: { body: { ...rules, ...options }, ...edge } },
        { name: 'plain', match: { path: '/plain' }, service: 'any' }
      ]
    },
    {
      log: true,
      before: (server) =>
        void server.register(async (own) => {
          const config = { edge: { body: { maxSize: '1kb', ...rules } } }
          own.post('/own', { config }, async ({ body }) => ({ got: body, secret: 1 }))
          own.get('/own/text', { config }, async (_request, reply) => reply.type('text/plain').send('{"secret":1}'))
          own.get('/own/fails', { config }, async () => {
            throw Object.assign(new Error('teapot'), { statusCode: 418 })
          })
        })
    }
  )
  t.teardown(gateway.close)
  const client = anyClient(t, protocol, gateway.port)
  const metric = async (pattern: RegExp) => pattern.exec(await gateway.server.metrics.metrics())?.[1]
  const post = async (body: string | Buffer, headers: Record<string, string> = {}, path = '/') => {
    const before = seen.length
    const response = await client.ask(path, {
      method: 'POST',
      body,
      headers: { 'content-type': 'application/json', ...headers }
    })
    const text = response.body.toString()
    return { ...response, text, code: codeIn(text), seen: seen[before] }
  }
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  return { ...gateway, ...client, post, seen, lines, metric }
}

function codeIn(text: string): string | undefined {
  try {
    return (JSON.parse(text) as { code?: string }).code
  } catch {
    return undefined
  }
}

const target = (parameters: Record<string, string>, path = '/') => `${path}?${new URLSearchParams(parameters)}`

for (const protocol of protocols) {
  t.test(`requests over ${protocol}`, async (t) => {
    const { post, begin, seen } = await start(t, {}, protocol)
    const digests = { digest: 'x', 'content-digest': 'x', 'repr-digest': 'x', 'content-md5': 'x' }
    const before = '{"id":1.0,"admin":true,"old":[-0],"caller":"me"}'
    const after = '{"id":1.0,"caller":"127.0.0.1","new":[-0],"page":1}'
    const first = await post(before, digests)
    t.equal(first.status, 200)
    t.equal(first.seen!.body, after)
    t.equal(first.seen!.headers['content-length'], String(after.length))
    t.notOk(first.seen!.headers['transfer-encoding'])
    for (const name of Object.keys(digests)) t.notOk(name in first.seen!.headers, name)
    t.equal(first.text, changed)

    for (const type of [
      'application/problem+json',
      'Application/JSON; charset="UTF-8"',
      'application/json;charset=us-ascii'
    ]) {
      t.equal((await post(before, { 'content-type': type })).seen!.body, after, type)
    }
    for (const type of ['text/plain', 'application/jsonp', 'application/json-seq', 'multipart/form-data; boundary=x']) {
      const { seen } = await post(before, { 'content-type': type, ...digests })
      t.equal(seen!.body, before, type)
      t.equal(seen!.headers.digest, 'x', type)
    }

    // Without a length, byte by byte.
    const call = begin('/', { method: 'POST', headers: { 'content-type': 'application/json' }, streams: true })
    for (const byte of before) call.send(byte)
    call.end()
    t.equal((await call.response).status, 200)
    t.equal(seen.at(-1)!.body, after)

    // An empty body of unknown length.
    const empty = begin('/', { method: 'POST', headers: { 'content-type': 'application/json' }, streams: true })
    empty.end()
    t.equal((await empty.response).status, 200)
    t.equal(seen.at(-1)!.body, '')
  })

  t.test(`responses over ${protocol}`, async (t) => {
    const { ask, seen } = await start(t, {}, protocol)
    const simple = await ask('/', { headers: { range: 'bytes=0-3', 'accept-encoding': 'gzip' } })
    t.equal(simple.body.toString(), changed)
    t.ok(simple.isWhole)
    t.equal(simple.status, 200)
    t.equal(simple.headers['content-length'], String(changed.length))
    t.equal(simple.headers.etag, 'W/"v1"')
    for (const name of [
      'accept-ranges',
      'content-digest',
      'repr-digest',
      'digest',
      'content-md5',
      'content-encoding'
    ]) {
      t.notOk(name in simple.headers, name)
    }
    for (const parameters of [{ coding: 'gzip' }, { coding: 'br' }, { chunked: '' }, { trailers: '' }] as Record<
      string,
      string
    >[]) {
      const { status, body, headers, isWhole, trailers } = await ask(target(parameters))
      const about = JSON.stringify(parameters)
      t.same([status, body.toString(), isWhole], [200, changed, true], about)
      t.notOk('content-encoding' in headers, about)
      t.notOk('content-digest' in trailers, about)
    }
    await ask('/', { headers: { 'if-match': 'W/"v1", "v2"' } })
    t.equal(seen.at(-1)!.headers['if-match'], '"v1", "v2"')
    const hinted = await ask(target({ hints: '' }))
    t.same([hinted.hints, hinted.body.toString()], [[103], changed])

    const head = await ask('/', { method: 'HEAD' })
    t.same([head.status, head.headers.etag, head.isWhole], [200, 'W/"v1"', true])
    t.notOk('content-length' in head.headers)
    t.match(await ask(target({ status: '204' })), { status: 204, isWhole: true })
    t.match(await ask(target({ status: '304' }), { headers: { 'if-none-match': 'W/"v1"' } }), {
      status: 304,
      headers: { etag: 'W/"v1"' }
    })
    t.match(await ask(target({ status: '304' }), { headers: { 'if-none-match': '"v1"' } }), {
      status: 304,
      headers: { etag: '"v1"' }
    })
    const page = await ask(target({ type: 'text/html' }))
    t.same([page.body.toString(), page.headers.etag, page.headers.digest], [document, '"v1"', 'x'], 'other types pass')
    const failed = await ask(target({ status: '503' }))
    t.same([failed.status, JSON.parse(failed.body.toString()).via], [503, 'gw 503'])
    const plain = await ask('/plain', { headers: { range: 'bytes=0-3', 'accept-encoding': 'gzip' } })
    t.same([plain.body.toString(), plain.headers.etag], [document, '"v1"'], 'other routes are not touched')
    const large = await ask(target({ size: '900000', chunked: '' }))
    t.same([large.body.toString(), large.isWhole], ['{"via":"gw 200"}', true])
  })

  t.test(`bodies that cannot be changed, over ${protocol}`, async (t) => {
    const { post, ask, lines, log, seen } = await start(t, { maxSize: '1kb' }, protocol)
    const cases = [
      ['{"a":1', {}, 400, 'JW_BODY_INVALID', 'body_json'],
      ['{"a":NaN}', {}, 400, 'JW_BODY_INVALID', 'body_json'],
      [Buffer.from([0x22, 0xff, 0x22]), {}, 400, 'JW_BODY_INVALID', 'body_json'],
      ['{"admin":1,"\\u0061dmin":2}', {}, 400, 'JW_BODY_INVALID', 'body_duplicate_key'],
      ['['.repeat(200) + ']'.repeat(200), {}, 400, 'JW_BODY_INVALID', 'body_nesting'],
      [`{"a":"${'x'.repeat(1100)}"}`, {}, 413, 'JW_BODY_TOO_LARGE', 'body_size'],
      ['{}', { 'content-type': 'application/json; charset=utf-16' }, 415, 'JW_BODY_CODING', 'body_coding'],
      [gzipSync('{}'), { 'content-encoding': 'gzip' }, 415, 'JW_BODY_CODING', 'body_coding']
    ] as const
    for (const [index, [body, headers, status, code, reason]] of cases.entries()) {
      t.match(await post(body, headers), { status, code, isWhole: true }, reason)
      await eventually(() => lines().length > index)
      t.match(lines()[index], { status, error: code, reason })
    }
    t.equal(seen.length, 0, 'the service gets none of them')
    const responses = [
      { body: '{"secret":1' },
      { body: '{"secret":1,"secret":2}' },
      { size: '1100' },
      { size: '900000', chunked: '' },
      { size: '900000', coding: 'gzip' },
      { coding: 'odd' },
      { status: '206' },
      { status: '206', type: 'multipart/byteranges; boundary=x' },
      { type: 'application/json; charset=iso-8859-1' }
    ]
    for (const parameters of responses) {
      const { status, body, headers, isWhole } = await ask(target(parameters as unknown as Record<string, string>))
      const about = JSON.stringify(parameters).slice(0, 50)
      t.same([status, codeIn(body.toString()), isWhole], [502, 'JW_RESPONSE_UNCHANGEABLE', true], about)
      t.notMatch(body.toString(), /secret/, about)
      t.notOk('etag' in headers, about)
    }
    t.ok(log.some(({ msg }) => String(msg).startsWith('a response cannot be changed')))
    const reset = await ask(target({ reset: '' }))
    t.same([reset.status, codeIn(reset.body.toString())], [502, 'JW_UPSTREAM_RESET'])
    t.equal((await ask('/')).body.toString(), changed, 'the gateway goes on')
  })

  t.test(`own routes over ${protocol}`, async (t) => {
    const { post, ask } = await start(t, {}, protocol)
    const { text } = await post('{"admin":1,"caller":2,"x":1.0}', {}, '/own')
    t.equal(text, '{"got":{"caller":"127.0.0.1","x":1,"page":1},"via":"gw 200"}')
    t.match(await post('{"admin":', {}, '/own'), { status: 400, code: 'JW_BODY_INVALID' })
    t.equal((await ask('/own/text')).body.toString(), '{"secret":1}')
    const failed = JSON.parse((await ask('/own/fails')).body.toString()) as object
    t.match(failed, { statusCode: 418 })
    t.notOk('via' in failed, 'errors of the gateway are not changed')
    t.match(await post(`{"a":"${'x'.repeat(1100)}"}`, {}, '/own'), { status: 413 })
  })
}

t.test('trailers of a changed request body', async (t) => {
  const { port, seen } = await start(t)
  const head =
    'POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\ntrailer: x-a, digest\r\nconnection: close\r\n\r\n'
  await raw(port, `${head}b\r\n{"admin":1}\r\n0\r\nx-a: 1\r\ndigest: x\r\n\r\n`)
  t.same([seen[0]!.body, seen[0]!.trailers], ['{"caller":"127.0.0.1","page":1}', { 'x-a': '1' }])
})

t.test('a request body without a change keeps its digest', async (t) => {
  const { post, metric } = await start(t, { request: { remove: ['/admin'] } })
  t.match((await post('{"n":1.0}', { digest: 'x' })).seen, { body: '{"n":1.0}', headers: { digest: 'x' } })
  t.notOk('digest' in (await post('{"admin":1}', { digest: 'x' })).seen!.headers)
  t.equal(
    await metric(/^jingwei_edge_changed_bodies_total\{route="all",direction="request",result="unchanged"\} (\d+)/m),
    '1'
  )
})

t.test('two fields with a type, and one that is malformed', async (t) => {
  const { port, seen } = await start(t)
  const send = (fields: string) =>
    raw(port, `POST / HTTP/1.1\r\nhost: a\r\n${fields}content-length: 11\r\nconnection: close\r\n\r\n{"admin":1}`)
  t.match(await send('content-type: text/plain\r\ncontent-type: application/json\r\n'), /^HTTP\/1\.1 415 /)
  t.match(await send('content-type: text/plain\r\ncontent-type: text/html\r\n'), /^HTTP\/1\.1 200 /)
  for (const malformed of [
    'json',
    'application/json/x',
    'text/plain, application/json',
    'application/json, text/plain'
  ])
    t.match(await send(`content-type: ${malformed}\r\n`), /^HTTP\/1\.1 415 /, malformed)
  t.match(await send('content-type: text/plain\r\ncontent-type: json\r\n'), /^HTTP\/1\.1 415 /)
  t.match(await send('content-type:\r\n'), /^HTTP\/1\.1 200 /)
  t.match(await send(`content-type: application/json${';a=b'.repeat(100)}\r\n`), /^HTTP\/1\.1 200 /)
  t.same(
    seen.map(({ body }) => body),
    ['{"admin":1}', '{"admin":1}', '{"caller":"127.0.0.1","page":1}']
  )
  const strict = await start(t, { request: { ...rules.request, types: ['*/*'] } })
  await raw(
    strict.port,
    'POST / HTTP/1.1\r\nhost: a\r\ncontent-type: json\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{"admin":1}'
  )
  t.equal(strict.seen[0]!.body, '{"caller":"127.0.0.1","page":1}', '*/*: any body')
  t.match(await strict.post('a=1', { 'content-type': 'text/plain' }), { status: 400 })
})

t.test('rules for statuses and types, one after another', async (t) => {
  const response = [
    { statuses: ['2xx'], only: ['/id', '/data'] },
    { statuses: [404, '5xx'], set: { '': { error: 'status {response.status}' } } },
    { types: ['application/problem+json'], rename: { '/id': '/n' } },
    { statuses: [200], rename: { '': '/page' } }
  ]
  const { ask } = await start(t, { response, request: undefined })
  const text = async (parameters: Record<string, string>) => (await ask(target(parameters))).body.toString()
  t.equal(await text({ body: '{"id":1.0,"x":2}' }), '{"page":{"id":1.0}}')
  t.equal(await text({ body: '{"id":1.0,"x":2}', status: '201' }), '{"id":1.0}')
  t.equal(await text({ body: '{"id":1.0}', status: '500' }), '{"error":"status 500"}')
  t.equal(await text({ body: '{"id":1.0}', status: '404' }), '{"error":"status 404"}')
  t.equal(await text({ body: '{"id":1.0}', status: '400' }), '{"id":1.0}')
  t.equal(await text({ body: '{"id":1.0}', status: '400', type: 'application/problem+json' }), '{"n":1.0}')
})

t.test('decompression, validation, compression and the cache', async (t) => {
  const schema = {
    type: 'object',
    properties: { admin: { type: 'boolean' }, old: { type: 'integer' } },
    additionalProperties: false
  }
  const { post, ask, seen } = await start(t, {}, 'HTTP/1.1', {
    decompression: {},
    compression: { minSize: '1b', authenticated: true },
    validation: { body: { content: { 'application/json': schema } } },
    cache: { ttl: { 200: '60s' } }
  })
  const { status, seen: got } = await post(gzipSync('{"admin":true,"old":1}'), { 'content-encoding': 'gzip' })
  t.same([status, got!.body], [200, '{"new":1,"caller":"127.0.0.1","page":1}'], 'the schema is that of the client')
  t.equal((await post('{"new":1}')).status, 400)
  const before = seen.length
  const first = await ask('/', { headers: { 'accept-encoding': 'gzip' } })
  t.same([first.headers['content-encoding'], first.headers.etag], ['gzip', 'W/"v1"'])
  const second = await ask('/', { headers: { range: 'bytes=0-1' } })
  t.equal(
    second.body.toString(),
    changed,
    'the cache has the bytes of the service, and they are changed for each client'
  )
  t.match(second.headers['cache-status'], /hit/)
  t.equal(seen.length, before + 1)
  t.match(await ask('/', { headers: { 'if-none-match': 'W/"v1"' } }), { status: 304, headers: { etag: 'W/"v1"' } })
})

t.test('responses that the gateway and plugins make in place of the service are not changed', async (t) => {
  const { ask } = await start(t, {}, 'HTTP/1.1', {
    errorPages: { upstream: [503] },
    rateLimit: { max: 3, window: '1h' }
  })
  t.notMatch((await ask(target({ status: '503' }))).body.toString(), /via|secret/)
  t.match((await ask(target({ status: '500' }))).body.toString(), /"via":"gw 500"/)
  t.match(JSON.parse((await ask(target({ reset: '' }))).body.toString()), { code: 'JW_UPSTREAM_RESET', via: undefined })
  t.match(JSON.parse((await ask('/')).body.toString()), { statusCode: 429, via: undefined })
})

t.test('shadow mode passes on what cannot be changed', async (t) => {
  const { post, ask, lines, server } = await start(t, { mode: 'shadow', maxSize: '1kb' })
  const large = `{"a":"${'x'.repeat(100_000)}"}`
  for (const [index, body] of ['{"admin":', large, '{"admin":1,"admin":2}'].entries()) {
    t.equal((await post(body)).seen!.body, body)
    await eventually(() => lines().length > index)
    t.match(lines()[index], { status: 200, shadow: [{ concern: 'body' }] })
  }
  t.equal((await post('{"admin":1}')).seen!.body, '{"caller":"127.0.0.1","page":1}', 'others are changed')
  t.equal((await ask(target({ body: '{"secret":' }))).body.toString(), '{"secret":')
  t.equal((await ask(target({ body: large.slice(0, 5000), chunked: '' }))).body.toString(), large.slice(0, 5000))
  t.match(await server.metrics.metrics(), /jingwei_edge_shadow_refusals_total\{concern="body",route="all"\} 5\n/)
})

/** Starts a gateway whose memory for the bodies of this client is nearly in use. */
async function startFull(t: Test, options: object, protocol: Protocol = 'HTTP/1.1') {
  const started = await start(t, { maxSize: '16mb', ...options }, protocol, { bodyLimit: false })
  const { begin, metric } = started
  const used = async () => Number(await metric(/^jingwei_edge_body_memory_bytes (\d+)/m))
  const calls = Array.from({ length: 4 }, () => {
    const call = begin('/', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      streams: true
    })
    for (let sent = 0; sent < 15; sent++) call.send('x'.repeat(1024 * 1024))
    return call
  })
  await eventually(async () => (await used()) === 60 * 1024 * 1024, 'the bodies to arrive')
  const free = async () => {
    for (const call of calls) await call.leave()
    await eventually(async () => (await used()) === 0, 'the memory to be free')
  }
  return { ...started, used, free }
}

const fiveMegabytes = 5 * 1024 * 1024

t.test('the memory of bodies is given back, and bounded for each client', async (t) => {
  const { post, ask, free } = await startFull(t, {})
  const busy = await post(`{"a":"${'x'.repeat(fiveMegabytes)}"}`)
  t.same([busy.status, busy.code, busy.headers['retry-after']], [503, 'JW_BODY_BUSY', '1'])
  for (const coding of ['identity', 'gzip']) {
    const { status, headers } = await ask(target({ size: String(fiveMegabytes), coding }))
    t.same([status, headers['retry-after']], [503, '1'], `a response with the coding ${coding}`)
  }
  await free()
  t.equal((await post('{}')).status, 200)
})

t.test('shadow mode passes on bodies for which there is no memory', async (t) => {
  for (const protocol of protocols) {
    const { post, ask, lines, free } = await startFull(t, { mode: 'shadow' }, protocol)
    const body = `{"admin":"${'x'.repeat(fiveMegabytes)}"}`
    const { status, seen: got } = await post(body)
    t.same([status, got!.body === body], [200, true], 'a request')
    const plain = `{"secret":"${'x'.repeat(fiveMegabytes)}"}`
    const large = await ask(target({ size: String(fiveMegabytes), chunked: '' }))
    t.same([large.status, large.body.toString() === plain], [200, true], 'a response')
    const packed = await ask(target({ size: String(fiveMegabytes), coding: 'gzip' }))
    t.same([packed.status, packed.headers['content-encoding']], [200, 'gzip'])
    t.ok(packed.body.equals(gzipSync(plain)), 'a response with a content coding')
    await eventually(() => lines().length === 3)
    for (const { status, shadow } of lines()) {
      t.equal(status, 200)
      t.same((shadow as object[])[0], { concern: 'body', error: 'JW_BODY_BUSY', reason: 'body_busy' })
    }
    await free()
  }
})

t.test('a client that leaves within its body', async (t) => {
  for (const protocol of protocols) {
    const { begin, metric, post, seen } = await start(t, {}, protocol)
    const call = begin('/', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      streams: true
    })
    call.send('{"a":1')
    await eventually(async () => (await metric(/^jingwei_edge_body_memory_bytes (\d+)/m)) === '6')
    await call.leave()
    await eventually(async () => (await metric(/^jingwei_edge_body_memory_bytes (\d+)/m)) === '0')
    t.equal(seen.length, 0)
    t.equal((await post('{}')).status, 200)
  }
})
