// slow: takes about 15 s
/** `edge.compression`: which responses are compressed, with which bytes and headers, over each protocol and response path. */

import { createHash, randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { brotliDecompressSync, constants, gunzipSync, gzipSync, zstdDecompressSync } from 'node:zlib'
import type { Test } from 'tap'
import t from 'tap'
import type { Fault } from '../../../config/faults.ts'
import type { ConfigError } from '../../../config/load.ts'
import { parseConfig } from '../../../plugins/config.ts'
import { Negotiator } from '../../../plugins/edge/concerns/compression/accept-encoding.ts'
import { typeTest } from '../../../plugins/edge/concerns/compression/options.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { GatewayOptions } from '../../helpers/gateway.ts'
import { configOf, connect, gatewayBefore, get, raw, startGateway, startService } from '../../helpers/gateway.ts'

const json = Buffer.from(JSON.stringify(Array.from({ length: 2000 }, (_, id) => ({ id, name: `user ${id % 7}` }))))
const type = { 'content-type': 'application/json; charset=utf-8' }

/** Decodes all bytes that were flushed so far. */
const decoders = {
  gzip: (bytes: Buffer) => gunzipSync(bytes, { finishFlush: constants.Z_SYNC_FLUSH }),
  br: (bytes: Buffer) => brotliDecompressSync(bytes, { finishFlush: constants.BROTLI_OPERATION_FLUSH }),
  zstd: (bytes: Buffer) => zstdDecompressSync(bytes, { finishFlush: constants.ZSTD_e_flush })
}
const encodings = Object.keys(decoders) as (keyof typeof decoders)[]

type Handler = (request: IncomingMessage, response: ServerResponse) => void

const paths = ['raw', 'reply'] as const

/** A gateway with compression before a service. On the `reply` path a plugin's `onSend` hook passes each payload on. */
async function start(t: Test, handler: Handler, compression: object, more: object = {}, path: 'raw' | 'reply' = 'raw') {
  const service = await startService(handler)
  t.teardown(service.close)
  const options: GatewayOptions =
    path === 'raw' ? {} : { before: (server) => server.addHook('onSend', (_r, _p, body, done) => done(null, body)) }
  const gateway = await startGateway(
    {
      services: { any: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { compression } }],
      ...more
    },
    { log: true, ...options }
  )
  t.teardown(gateway.close)
  const metric = async (name: string) => {
    const text = await gateway.server.metrics.metrics()
    const lines = text.split('\n').filter((line) => line.startsWith(name))
    return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
  }
  const isIdle = () => eventually(async () => (await metric('jingwei_edge_compression_memory_bytes')) === 0)
  return { ...gateway, metric, isIdle }
}

/** Sends a body with its length and the usual headers. */
const sending =
  (body: Buffer, headers: object, status = 200): Handler =>
  (_request, response) => {
    response.writeHead(status, { 'content-length': body.length, etag: '"v1"', 'accept-ranges': 'bytes', ...headers })
    response.end(body)
  }

for (const protocol of protocols) {
  for (const path of paths) {
    t.test(`over ${protocol} on the ${path} path, a body is compressed with each encoding`, async (t) => {
      const listen = { listen: listenFor(t, protocol) }
      const gateway = await start(t, sending(json, { ...type, vary: 'Origin' }), {}, listen, path)
      t.equal(gateway.server.responsePath('all'), path)
      const { ask } = anyClient(t, protocol, gateway.port)
      for (const encoding of encodings) {
        const { status, headers, body, isWhole } = await ask('/', { headers: { 'accept-encoding': encoding } })
        t.equal(status, 200)
        t.ok(isWhole)
        t.match(headers, { 'content-encoding': encoding, vary: 'Origin, Accept-Encoding', etag: 'W/"v1"', ...type })
        for (const name of ['content-length', 'accept-ranges']) t.notOk(name in headers, name)
        t.ok(body.length < json.length / 5, `${body.length}`)
        t.ok(decoders[encoding](body).equals(json), encoding)
      }
      const plain = await ask('/')
      t.match(plain.headers, { 'content-length': `${json.length}`, etag: '"v1"', 'accept-ranges': 'bytes' })
      t.match(plain.headers, { vary: 'Origin, Accept-Encoding', 'content-encoding': undefined })
      t.ok(plain.body.equals(json))

      const head = await ask('/', { method: 'HEAD', headers: { 'accept-encoding': 'br' } })
      t.match(head, { status: 200, headers: { 'content-encoding': 'br', etag: 'W/"v1"' }, isWhole: true })
      t.notOk('content-length' in head.headers)
      t.equal(head.body.length, 0)
      await gateway.isIdle()
      t.equal(await gateway.metric('jingwei_edge_compressed_responses_total'), 3)
    })

    t.test(`over ${protocol} on the ${path} path, each part of a slow body arrives at once`, async (t) => {
      let write: ServerResponse | undefined
      const handler: Handler = (_request, response) => {
        write = response
        response.writeHead(200, { ...type, trailer: 'x-sum' }).flushHeaders()
      }
      const gateway = await start(t, handler, {}, { listen: listenFor(t, protocol) }, path)
      const { begin } = anyClient(t, protocol, gateway.port)
      for (const encoding of encodings) {
        const call = begin('/', { headers: { 'accept-encoding': encoding, te: 'trailers' } })
        t.match((await call.begun).headers, { 'content-encoding': encoding })
        let sent = ''
        for (const part of ['[1', ',2', `,"${'x'.repeat(3000)}"`, ',4]']) {
          sent += part
          write!.write(part)
          await eventually(() => call.body().length > 0 && decoders[encoding](call.body()).toString() === sent)
        }
        write!.addTrailers({ 'x-sum': '7' })
        write!.end()
        const { isWhole, trailers } = await call.response
        t.ok(isWhole)
        t.match(trailers, { 'x-sum': '7' })
      }
      await gateway.isIdle()
    })

    t.test(`over ${protocol} on the ${path} path, an abort on either side ends the stream`, async (t) => {
      const open = new Set<ServerResponse>()
      const handler: Handler = ({ url }, response) => {
        response.writeHead(200, type)
        response.write(url === '/cut' ? json : '[')
        if (url === '/cut') setTimeout(() => response.destroy(), 20)
        else open.add(response.once('close', () => open.delete(response)))
      }
      const gateway = await start(t, handler, {}, { listen: listenFor(t, protocol) }, path)
      const { begin, ask } = anyClient(t, protocol, gateway.port)
      const headers = { 'accept-encoding': 'gzip' }
      const call = begin('/stay', { headers })
      await call.data
      t.ok((await gateway.metric('jingwei_edge_compression_memory_bytes')) > 0)
      await call.leave()
      await eventually(() => open.size === 0)
      await gateway.isIdle()
      const cut = await ask('/cut', { headers })
      // On the reply path, the client gets an error if no byte of the response was sent yet.
      t.ok(!cut.isWhole || (path === 'reply' && cut.status === 502), `${cut.status}`)
      await gateway.isIdle()
    })
  }

  t.test(`over ${protocol}, other responses pass byte for byte`, async (t) => {
    const zipped = gzipSync(json)
    const cases: Record<string, [headers: Record<string, string>, body: Buffer, status?: number]> = {
      events: [{ 'content-type': 'text/event-stream' }, json],
      encoded: [{ ...type, 'content-encoding': 'gzip' }, zipped],
      'no-transform': [{ ...type, 'cache-control': 'public, No-Transform' }, json],
      part: [{ ...type, 'content-range': `bytes 0-${json.length - 1}/99999999` }, json, 206],
      image: [{ 'content-type': 'image/png' }, json],
      untyped: [{}, json],
      small: [type, json.subarray(0, 1023)],
      empty: [type, Buffer.alloc(0)],
      digest: [{ ...type, 'repr-digest': 'sha-256=:AAAA:' }, json],
      signed: [{ ...type, 'signature-input': 'a=("content-length")' }, json]
    }
    const handler: Handler = (request, response) => {
      const [headers, body, status = 200] = cases[request.url!.slice(1)]!
      sending(body, headers, status)(request, response)
    }
    const listen = { listen: listenFor(t, protocol) }
    for (const path of paths) {
      const gateway = await start(t, handler, { types: ['*/*'] }, listen, path)
      const { ask } = anyClient(t, protocol, gateway.port)
      for (const [name, [headers, body, status = 200]] of Object.entries(cases)) {
        if (name === 'image') continue
        const got = await ask(`/${name}`, { headers: { 'accept-encoding': 'gzip, br, zstd' } })
        t.match(got, { status, headers: { ...headers, 'content-length': `${body.length}`, etag: '"v1"' } }, name)
        t.equal('vary' in got.headers, false, `${name} has no Vary`)
        t.ok(got.body.equals(body), `${name}: ${path}`)
      }
    }
    const gateway = await start(t, handler, {}, listen)
    const { ask } = anyClient(t, protocol, gateway.port)
    t.ok((await ask('/image', { headers: { 'accept-encoding': 'gzip' } })).body.equals(json))
  })
}

for (const path of paths) {
  t.test(`on the ${path} path, statuses without a body stay as they are`, async (t) => {
    const handler: Handler = ({ url }, response) => {
      response.writeHead(Number(url!.slice(1)), { ...type, etag: '"v1"' }).end()
    }
    const gateway = await start(t, handler, {}, {}, path)
    const accept = 'Accept-Encoding: gzip'
    t.match(await get(gateway.port, '/204', [accept]), { status: 204, headers: { etag: '"v1"' }, body: '' })
    const unchanged = (...known: string[]) =>
      get(gateway.port, '/304', [accept, ...known.map((tag) => `If-None-Match: ${tag}`)])
    const vary = 'Accept-Encoding'
    t.match(await unchanged('"v1"'), { status: 304, headers: { etag: '"v1"', vary } })
    t.match(await unchanged('W/"v1"'), { status: 304, headers: { etag: 'W/"v1"', vary } })
    t.match(await unchanged('W/"v11"'), { status: 304, headers: { etag: '"v1"', vary } })
    t.match(await unchanged(), { status: 304, headers: { etag: '"v1"', vary } })
  })

  t.test(`on the ${path} path, a 304 has Vary where the whole response would have it`, async (t) => {
    const fields: Record<string, Record<string, string>> = {
      bare: {},
      origin: { vary: 'Origin' },
      image: { 'content-type': 'image/png' },
      fixed: { 'cache-control': 'no-transform' },
      zipped: { 'content-encoding': 'gzip' }
    }
    const handler: Handler = ({ url }, response) => void response.writeHead(304, fields[url!.slice(1)]).end()
    const gateway = await start(t, handler, {}, {}, path)
    for (const [name, vary] of [
      ['bare', 'Accept-Encoding'],
      ['origin', 'Origin, Accept-Encoding'],
      ['image', undefined],
      ['fixed', undefined],
      ['zipped', undefined]
    ] as const) {
      const got = await get(gateway.port, `/${name}`, ['Accept-Encoding: gzip', 'If-Modified-Since: x'])
      t.equal(got.headers.vary, vary, name)
    }
  })

  t.test(`on the ${path} path, If-Match has the tags of the service`, async (t) => {
    const seen: unknown[] = []
    const handler: Handler = (request, response) => {
      const { 'if-match': match, 'if-none-match': noMatch } = request.headers
      seen.push([match, noMatch])
      sending(json, type)(request, response)
    }
    const gateway = await start(t, handler, {}, {}, path)
    const { headers } = await get(gateway.port, '/', ['Accept-Encoding: gzip'])
    t.equal(headers.etag, 'W/"v1"')
    for (const [given, expected] of [
      ['W/"v1"', '"v1"'],
      ['"v0", W/"v1",W/"b"', '"v0", "v1","b"'],
      ['"a, W/", W/"b"', '"a, W/", "b"'],
      ['"v1"', '"v1"'],
      ['*', '*'],
      ['W/', 'W/']
    ] as const) {
      await get(gateway.port, '/', [`If-Match: ${given}`, 'If-None-Match: W/"v1"'])
      t.strictSame(seen.pop(), [expected, 'W/"v1"'], given)
    }
  })

  t.test(`on the ${path} path, messages of gRPC stay as they are`, async (t) => {
    const handler: Handler = ({ url }, response) => {
      response.writeHead(200, { 'content-type': `application/${url!.slice(1)}` }).end(json)
    }
    const gateway = await start(t, handler, { types: ['*/*'] }, {}, path)
    for (const subtype of ['grpc', 'grpc+json', 'grpc-web+proto', 'grpc-web-text', 'GRPC+proto']) {
      const got = await get(gateway.port, `/${subtype}`, ['Accept-Encoding: gzip'])
      t.match(got, { status: 200, headers: { 'content-encoding': undefined, vary: undefined } }, subtype)
      t.ok(Buffer.from(got.body, 'latin1').equals(json), subtype)
    }
    t.match(await get(gateway.port, '/grpcx', ['Accept-Encoding: gzip']), { headers: { 'content-encoding': 'gzip' } })
  })

  t.test(`on the ${path} path, errors of a service and responses to HTTP/1.0 are compressed, too`, async (t) => {
    const gateway = await start(t, sending(json, type, 500), {}, {}, path)
    const failed = await get(gateway.port, '/', ['Accept-Encoding: gzip'])
    t.match(failed, { status: 500, headers: { 'content-encoding': 'gzip' } })
    t.ok(decoders.gzip(Buffer.from(failed.body, 'latin1')).equals(json))
    const old = await raw(gateway.port, 'GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n')
    t.notMatch(old.slice(0, old.indexOf('\r\n\r\n')), /transfer-encoding|content-length/i)
    t.ok(decoders.gzip(Buffer.from(old.slice(old.indexOf('\r\n\r\n') + 4), 'latin1')).equals(json))
  })

  t.test(
    `on the ${path} path, a personal response to a known client is compressed only where that is allowed`,
    async (t) => {
      const handler: Handler = (request, response) => {
        const cache = request.headers['x-cache']
        const login = request.headers['x-login'] === undefined ? {} : { 'set-cookie': 'session=1' }
        sending(json, { ...type, ...login, ...(cache !== undefined && { 'cache-control': cache }) })(request, response)
      }
      const key = {
        consumers: [
          { name: 'guest' },
          {
            name: 'ann',
            keyAuth: { hash: `sha256:${createHash('sha256').update('a-key-of-some-length-1234').digest('hex')}` }
          }
        ],
        edge: { authentication: { anonymous: 'guest' }, keyAuth: {} }
      }
      const gateway = await start(t, handler, {}, key, path)
      const open = await start(t, handler, { authenticated: true }, {}, path)
      const isCompressed = async (port: number, ...headers: string[]) => {
        const got = await get(port, '/', ['Accept-Encoding: gzip', ...headers])
        t.equal(got.status, 200)
        t.equal(got.headers.vary, 'Accept-Encoding')
        return got.headers['content-encoding'] === 'gzip'
      }
      for (const known of ['Cookie: a=b', 'Authorization: Basic YTpi', 'X-API-Key: a-key-of-some-length-1234']) {
        t.equal(await isCompressed(gateway.port, known), false, known)
        t.equal(await isCompressed(gateway.port, known, 'X-Cache: private, max-age=5'), false, known)
        t.equal(await isCompressed(gateway.port, known, 'X-Cache: public, no-store'), false, known)
        t.equal(await isCompressed(gateway.port, known, 'X-Cache: public, max-age=5'), true, known)
        t.equal(await isCompressed(gateway.port, known, 'X-Cache: s-maxage=5'), true, known)
        for (const other of [
          'publicity',
          'max-age=1, x="a, public"',
          'no-public',
          'x=public',
          's-maxage',
          'x="s-maxage=5'
        ]) {
          t.equal(await isCompressed(gateway.port, known, `X-Cache: ${other}`), false, `${known}: ${other}`)
        }
        t.equal(
          await isCompressed(gateway.port, known, 'X-Cache: public', 'X-Login: 1'),
          false,
          `${known}: a new cookie`
        )
        t.equal(await isCompressed(open.port, known), true, known)
      }
      t.equal(await isCompressed(gateway.port), true)
      t.equal(await isCompressed(gateway.port, 'Cache-Control: no-transform'), false)
    }
  )

  t.test(`on the ${path} path, a client that forwardAuth or a function has let in is a known one`, async (t) => {
    const folder = t.testdir({ 'authorize.ts': 'export default () => ({ consumer: null })' })
    const server = await startService((_request, response) => response.writeHead(200).end())
    t.teardown(server.close)
    const handler: Handler = (request, response) => {
      const cache = request.headers['x-cache'] ?? 'max-age=1'
      sending(json, { ...type, 'cache-control': cache })(request, response)
    }
    for (const edge of [
      { forwardAuth: { url: server.url, requestHeaders: ['x-key'] } },
      { authorizer: { module: `${folder}/authorize.ts` } }
    ]) {
      const [name = ''] = Object.keys(edge)
      const gateway = await start(t, handler, {}, { edge }, path)
      const encodingOf = async (...headers: string[]) => {
        const got = await get(gateway.port, '/', ['Accept-Encoding: gzip', 'X-Key: 1', ...headers])
        t.match(got, { status: 200, headers: { vary: 'Accept-Encoding' } }, name)
        return got.headers['content-encoding']
      }
      t.equal(await encodingOf(), undefined, name)
      t.equal(await encodingOf('X-Cache: public'), 'gzip', name)
    }
  })

  t.test(`on the ${path} path, a client that does not read stops the service`, async (t) => {
    let sent = 0
    const handler: Handler = (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/plain' })
      const more = () => {
        do sent += 65_536
        while (response.write(randomBytes(65_536)))
      }
      response.on('drain', more)
      more()
    }
    const gateway = await start(t, handler, {}, {}, path)
    const client = connect(gateway.port, 'GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n')
    t.teardown(() => client.socket.destroy())
    client.socket.pause()
    let before = -1
    // Nothing moves any more; without backpressure the service would go on for as long as the test lasts.
    await eventually(async () => {
      const isStill = sent > 0 && sent === before
      before = sent
      await new Promise((resolve) => setTimeout(resolve, 200))
      return isStill && sent === before
    })
    t.ok(sent < 30_000_000, `${sent} bytes`)
  })

  t.test(`on the ${path} path, responses beyond the memory are not compressed`, async (t) => {
    const open: ServerResponse[] = []
    const handler: Handler = (_request, response) => {
      response.writeHead(200, type).write('[')
      open.push(response)
    }
    const gateway = await start(t, handler, { encodings: ['br'], level: { br: 9 } }, {}, path)
    const { begin } = anyClient(t, 'HTTP/1.1', gateway.port)
    const calls = []
    const codings = []
    for (let count = 0; count < 12; count++) {
      const call = begin('/', { headers: { 'accept-encoding': 'br' } })
      codings.push((await call.begun).headers['content-encoding'])
      calls.push(call)
    }
    t.same(codings, [...Array(9).fill('br'), ...Array(3).fill(undefined)])
    t.equal(await gateway.metric('jingwei_edge_compression_skipped_total'), 3)
    for (const response of open) response.end(']')
    for (const [index, call] of calls.entries()) {
      const { body, isWhole } = await call.response
      t.ok(isWhole)
      t.equal((index < 9 ? decoders.br(body) : body).toString(), '[]')
    }
    await gateway.isIdle()
  })
}

t.test(
  'own routes of plugins and composed routes are compressed; an error in place of a response is not mislabelled',
  async (t) => {
    const service = await startService(sending(json, type))
    t.teardown(service.close)
    const gateway = await startGateway(
      {
        edge: { compression: {} },
        services: { any: { instances: [service.url] } },
        routes: [
          {
            name: 'both',
            match: { path: '/both', methods: ['GET'] },
            compose: { calls: { x: { service: 'any', path: '/', group: 'x' } } }
          }
        ]
      },
      {
        before: (parent) =>
          void parent.register(async (server) => {
            const config = { edge: { compression: true } }
            server.get('/own', { config }, () => JSON.parse(json.toString()) as unknown)
            server.get('/bytes', { config }, (_request, reply) => reply.type('text/plain').send(json))
            server.get('/web', { config }, (_request, reply) =>
              reply.type('text/plain').send(new Blob([json]).stream())
            )
            server.get('/off', () => JSON.parse(json.toString()) as unknown)
            server.get('/failing', { config }, async (_request, reply) => {
              const { Readable } = await import('node:stream')
              const failing = new Readable({ read: () => failing.destroy(new Error('no data')) })
              return reply.type('application/json').send(failing)
            })
          })
      }
    )
    t.teardown(gateway.close)
    const accept = ['Accept-Encoding: gzip']
    for (const path of ['/own', '/bytes', '/web', '/both']) {
      const { headers, body } = await get(gateway.port, path, accept)
      t.match(headers, { 'content-encoding': 'gzip', vary: 'Accept-Encoding' }, path)
      const text = decoders.gzip(Buffer.from(body, 'latin1')).toString()
      t.equal(path === '/both' ? JSON.stringify((JSON.parse(text) as { x: unknown }).x) : text, json.toString(), path)
    }
    t.equal((await get(gateway.port, '/off', accept)).headers['content-encoding'], undefined)
    const failed = await get(gateway.port, '/failing', accept)
    t.match(failed, { status: 500, headers: { 'content-encoding': undefined } })
    t.match(JSON.parse(failed.body), { statusCode: 500 })
  }
)

t.test('a WebSocket is joined on a route with compression', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const gateway = await gatewayBefore(t, service.url, { edge: { compression: { authenticated: true } } })
  const client = connect(gateway.port, handshake('/', ['Accept-Encoding: gzip']))
  t.teardown(() => client.socket.destroy())
  t.match(await client.until('\r\n\r\n'), /^HTTP\/1\.1 101 (?![\s\S]*vary)/i)
})

t.test('the encoding is that which the client weighs most', async (t) => {
  const all = new Negotiator(['zstd', 'br', 'gzip'])
  for (const [field, encoding, needsEncoding = false] of [
    [undefined, null],
    ['', null],
    ['gzip', 'gzip'],
    ['gzip, deflate, br, zstd', 'zstd'],
    ['gzip;q=1.0, br;q=0.9', 'gzip'],
    ['GZIP;Q=0.5,BR;q=0.501', 'br'],
    ['x-gzip', 'gzip'],
    ['*', 'zstd'],
    ['zstd;q=0, *;q=0.1', 'br'],
    ['*;q=0', null, true],
    ['identity', null],
    ['identity;q=0', null, true],
    ['gzip, identity;q=0', 'gzip', true],
    ['gzip;q=0.5, identity', null],
    ['gzip;q=0.5, identity;q=0.5', 'gzip'],
    ['gzip, *;q=0', 'gzip', true],
    ['gzip, *;q=0, identity;q=0.1', 'gzip'],
    ['gzip;q=0', null],
    ['deflate', null],
    ['gzip;q=2', null],
    ['gzip;foo=1', null],
    [`${'a,'.repeat(300)}gzip`, null],
    [`${'a,'.repeat(40)}gzip`, null]
  ] as const) {
    t.same(all.choose(field), { encoding, needsEncoding }, field ?? 'no field')
    t.same(all.choose(field), { encoding, needsEncoding }, 'again')
  }
  t.equal(new Negotiator(['gzip', 'br']).choose('br, gzip').encoding, 'gzip')
})

t.test('a client that takes no plain response gets a small one compressed', async (t) => {
  const gateway = await start(t, sending(Buffer.from('{}'), type), {})
  const small = await get(gateway.port, '/', ['Accept-Encoding: gzip, identity;q=0'])
  t.equal(small.headers['content-encoding'], 'gzip')
  t.equal(decoders.gzip(Buffer.from(small.body, 'latin1')).toString(), '{}')
  t.equal((await get(gateway.port, '/', ['Accept-Encoding: identity;q=0'])).body, '{}')
})

t.test('content types', async (t) => {
  const test = typeTest(['text/*', 'application/*+json', 'Application/JSON'])
  for (const type of ['text/html', 'application/problem+json', 'application/json']) t.ok(test(type), type)
  for (const type of ['text', 'text/event-stream', 'application/+jso', 'application/json5', 'image/png'])
    t.notOk(test(type), type)
  t.notOk(typeTest(['*/*'])('text/event-stream'))
})

t.test('settings without an effect are faults', async (t) => {
  const faults = (compression: object) => {
    try {
      configOf({
        services: { a: { instances: ['http://127.0.0.1:1'] } },
        edge: { compression },
        routes: [{ name: 'a', match: { path: '/' }, service: 'a' }]
      })
      return []
    } catch (error) {
      return (error as ConfigError).faults.map(({ path, message }) => `${path}: ${message}`)
    }
  }
  t.match(faults({ types: ['text/event-stream'] }), [/types\[0\]: events are never compressed/])
  t.match(faults({ types: ['application/grpc+json'] }), [/types\[0\]: messages of gRPC are never compressed/])
  const warnings: Fault[] = []
  for (const level of [9, 10, 11]) {
    parseConfig(`edge: { compression: { level: { br: ${level} } } }`, 'g.yaml', {}, (each) => void warnings.push(each))
  }
  t.match(
    warnings,
    [/^level 10 takes a thread about a second/, /^level 11/].map((message) => ({ message }))
  )
  t.match(faults({ encodings: ['br'], level: { gzip: 9 } }), [/level.gzip: "encodings" does not have gzip/])
  t.match(faults({ encodings: ['deflate'] }), [/encodings\[0\]/])
  t.match(faults({ types: ['json'] }), [/types\[0\]: expected a content type/])
  t.match(faults({ threshold: 100 }), [/write "minSize"/])
})
