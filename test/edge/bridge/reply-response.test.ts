// slow: takes about 14 s
// Responses that go through Fastify's reply, so that `onSend` hooks see them: byte for byte, over every protocol.
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import { Readable, Transform } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import zlib from 'node:zlib'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { eventually } from '../../helpers/eventually.ts'
import { gatewayBefore, startService } from '../../helpers/gateway.ts'

/** A body of this size; each byte depends on its offset. */
function bytes(size: number): Buffer {
  const body = Buffer.alloc(size)
  for (let i = 0; i < size; i++) body[i] = (i * 7 + (i >> 8) * 13) & 0xff
  return body
}

/** Sizes of the chunks that the service sends. */
const shapes: readonly (readonly number[])[] = [
  [], [1], [60, 60], [150, 1, 150], [16_384], [16_384, 16_385, 7], [40_000, 10, 70_000], [1_000_000]
] // biome-ignore format: a list

function bodyOf(which: number): Buffer {
  return bytes(shapes[which >> 1]!.reduce((sum, size) => sum + size, 0))
}

/** Sends the body that the path names, in its chunks; with a length, if the number is even. */
function serveShape(request: IncomingMessage, response: ServerResponse): void {
  const which = Number(request.url!.slice(1))
  const sizes = shapes[which >> 1]!
  const body = bodyOf(which)
  response.writeHead(200, { 'content-type': 'x/y', ...(which % 2 === 0 && { 'content-length': body.length }) })
  let at = 0
  const next = (index: number): void => {
    const size = sizes[index]
    if (size === undefined) return void response.end()
    response.write(body.subarray(at, at + size))
    at += size
    setImmediate(next, index + 1)
  }
  next(0)
}

/** Sends an endless body, until the connection closes. */
function endless(_request: IncomingMessage, response: ServerResponse): void {
  const timer = setInterval(() => response.write('and so on'), 5)
  response.once('close', () => clearInterval(timer))
}

type Hook = (request: FastifyRequest, reply: FastifyReply, payload: Readable) => unknown

/** Hooks by name, which a request selects in a header, with the client's way to restore the body. */
const hooks: Readonly<Record<string, readonly [hook: Hook, decode?: (body: Buffer) => Buffer]>> = {
  'no change': [(_request, _reply, payload) => payload],
  gzip: [
    (_request, reply, payload) => {
      reply.header('content-encoding', 'gzip')
      return payload.pipe(zlib.createGzip({ level: 1 }))
    },
    zlib.gunzipSync
  ],
  'the whole body, in a Buffer': [async (_request, _reply, payload) => buffer(payload)],
  'the whole body, in kept chunks': [
    async (_request, _reply, payload) => {
      const kept: Buffer[] = []
      for await (const chunk of payload) {
        kept.push(chunk as Buffer)
        await new Promise(setImmediate)
      }
      return Readable.from(kept)
    }
  ],
  'a generator': [
    (_request, _reply, payload) =>
      Readable.from(
        (async function* () {
          for await (const chunk of payload) yield chunk
        })()
      )
  ],
  'a stream of the web': [(_request, _reply, payload) => Readable.toWeb(payload)],
  'a Transform': [
    (_request, _reply, payload) =>
      payload.pipe(
        new Transform({ transform: (chunk: Buffer, _encoding, done) => void setImmediate(done, null, inverted(chunk)) })
      ),
    inverted
  ]
}

function inverted(chunk: Buffer): Buffer {
  return Buffer.from(chunk.map((byte) => byte ^ 0xff))
}

/** Adds a hook that runs the hook that the request names. */
function byName(fastify: FastifyInstance): void {
  fastify.addHook('onSend', (request, reply, payload, done) => {
    const [run] = hooks[String(request.headers['x-hook'])] ?? [() => payload]
    const result = run(request, reply, payload as Readable)
    if (result instanceof Promise) result.then((made) => done(null, made), done)
    else done(null, result)
  })
}

type Respond = (request: IncomingMessage, response: ServerResponse) => void

async function serving(t: Test, protocol: Protocol, before: (fastify: FastifyInstance) => void, respond: Respond) {
  let open = 0
  const service = await startService((request, response) => {
    open++
    response.once('close', () => open--)
    respond(request, response)
  })
  t.teardown(service.close)
  const config = { listen: listenFor(t, protocol), mesh: { retry: false } }
  const gateway = await gatewayBefore(t, service.url, config, { log: true, before })
  t.equal(gateway.server.responsePath('all'), 'reply')
  let read = 0
  /** Returns the access log's next line. */
  const line = async () => {
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    await eventually(() => lines().length > read)
    return lines()[read++]!
  }
  /** Resolves when no response of the service is open, and no call is in flight. */
  const free = () => eventually(() => open === 0 && gateway.server.mesh.status()[0]!.active === 0)
  return { ...gateway, ...anyClient(t, protocol, gateway.port), line, free }
}

const hello: Respond = (_request, response) => {
  const headers = { 'content-type': 'text/plain', 'content-length': 5, etag: '"service"', 'set-cookie': ['a=1', 'b=2'] }
  response.writeHead(200, { ...headers, vary: 'accept', server: 'x' }).end('hello')
}

for (const protocol of protocols) {
  t.test(`${protocol}: bodies of every shape, through each kind of hook`, async (t) => {
    const { ask, line, free } = await serving(t, protocol, byName, serveShape)
    for (const [name, [, decode = (body: Buffer) => body]] of Object.entries(hooks)) {
      for (let which = 0; which < shapes.length * 2; which++) {
        const { status, body, isWhole } = await ask(`/${which}`, { headers: { 'x-hook': name } })
        const what = `${name}, ${shapes[which >> 1]!.join(' + ')} bytes`
        t.match({ status, isWhole }, { status: 200, isWhole: true }, what)
        t.ok(decode(body).equals(bodyOf(which)), what)
        t.match(await line(), { status: 200, bytesSent: body.length, error: undefined }, what)
      }
    }
    await free()
  })

  t.test(`${protocol}: a hook can change headers, cookies and the status`, async (t) => {
    const { ask } = await serving(
      t,
      protocol,
      (fastify) => {
        fastify.addHook('onRequest', async (_request, reply) => void reply.header('vary', 'origin'))
        fastify.addHook('onSend', async (_request, reply) => {
          t.match(reply.getHeaders(), { etag: '"service"', 'content-length': '5', vary: 'accept, origin' })
          reply.header('x-status', reply.statusCode).header('set-cookie', 'c=3').removeHeader('server').code(203)
        })
      },
      hello
    )
    const { status, headers, body } = await ask('/')
    t.equal(status, 203)
    t.equal(String(body), 'hello')
    t.match(headers, {
      'x-status': '200',
      'set-cookie': ['a=1', 'b=2', 'c=3'],
      vary: 'accept, origin',
      server: undefined
    })
    t.equal(headers['content-length'], '5')
  })

  const replaced: Readonly<Record<string, readonly [payload: unknown, body: string]>> = {
    'a string': ['résumé', 'résumé'],
    'a Buffer': [Buffer.from('bytes'), 'bytes'],
    'an empty string': ['', ''],
    'null': [null, '']
  } // biome-ignore format: a table
  for (const [name, [payload, body]] of Object.entries(replaced)) {
    t.test(`${protocol}: an endless body is replaced by ${name}`, async (t) => {
      const { ask, line, free } = await serving(
        t,
        protocol,
        (fastify) => fastify.addHook('onSend', async () => payload),
        endless
      )
      const got = await ask('/')
      t.match(got, { status: 200, isWhole: true, headers: { 'content-length': String(Buffer.byteLength(body)) } })
      t.equal(String(got.body), body)
      await free()
      t.match(await line(), { status: 200, bytesSent: Buffer.byteLength(body), error: undefined })
    })
  }

  t.test(`${protocol}: a stream of the hook replaces an endless body`, async (t) => {
    const { ask, free } = await serving(
      t,
      protocol,
      (fastify) => fastify.addHook('onSend', async () => Readable.from([Buffer.from('in '), Buffer.from('stead')])),
      endless
    )
    const { body, isWhole } = await ask('/')
    t.equal(String(body), 'in stead')
    t.ok(isWhole)
    await free()
  })

  for (const [what, method, status] of [
    ['HEAD', 'HEAD', 200],
    ['204', 'GET', 204],
    ['205', 'GET', 205],
    ['304', 'GET', 304]
  ] as const) {
    for (const payload of ['the same', 'a stream', 'a string'] as const) {
      t.test(`${protocol}: ${what} has no content, with ${payload} as payload`, async (t) => {
        const { ask, line, free } = await serving(
          t,
          protocol,
          (fastify) =>
            fastify.addHook('onSend', async (_request, _reply, given: unknown) =>
              payload === 'the same' ? given : payload === 'a stream' ? Readable.from(['x']) : 'x'
            ),
          (_request, response) => {
            const length = status === 200 ? { 'content-length': 7 } : {}
            response.writeHead(status, { etag: '"e"', ...length }).end()
          }
        )
        for (let i = 0; i < 2; i++) {
          const got = await ask('/', { method })
          t.match(got, { status, isWhole: true, headers: { etag: '"e"' } })
          if (what !== '205' || payload === 'the same') t.equal(got.body.length, 0)
          if (what === 'HEAD' && payload === 'the same') t.equal(got.headers['content-length'], '7')
          t.match(await line(), { status, bytesSent: got.body.length, error: undefined })
        }
        await free()
      })
    }
  }

  t.test(`${protocol}: a hook turns a response with a body into a 304`, async (t) => {
    const { ask, free } = await serving(
      t,
      protocol,
      (fastify) => {
        fastify.addHook('onSend', async (_request, reply, payload: unknown) => {
          reply.code(304)
          return payload
        })
      },
      endless
    )
    t.match(await ask('/'), { status: 304, isWhole: true, body: Buffer.alloc(0) })
    await free()
  })

  t.test(`${protocol}: trailers and informational responses are forwarded, also with a Transform`, async (t) => {
    const { ask } = await serving(t, protocol, byName, (_request, response) => {
      response.writeEarlyHints({ link: '</a>; rel=preload' })
      response.writeHead(200, { trailer: 'x-sum' }).write('hello')
      response.addTrailers({ 'x-sum': '7' })
      response.end()
    })
    for (const name of ['no change', 'gzip', 'a Transform']) {
      const { trailers, hints, isWhole } = await ask('/', { headers: { 'x-hook': name } })
      t.match({ trailers, hints, isWhole }, { trailers: { 'x-sum': '7' }, hints: [103], isWhole: true }, name)
    }
    const whole = await ask('/', { headers: { 'x-hook': 'the whole body, in a Buffer' } })
    t.match(
      whole,
      { status: 200, isWhole: true, headers: { 'content-length': '5' } },
      'a response with Content-Length has no trailers'
    )
  })

  t.test(`${protocol}: the header section does not wait for a silent body`, async (t) => {
    const { leave, line, free } = await serving(t, protocol, byName, (_request, response) => response.flushHeaders())
    for (const name of ['no change', 'a Transform']) {
      await leave('/', ({ response }) => response, { headers: { 'x-hook': name } })
      t.match(await line(), { status: 499, error: 'JW_CLIENT_GONE' })
    }
    await free()
  })

  t.test(`${protocol}: the client leaves while a hook waits, and within the body`, async (t) => {
    const waiting = Promise.withResolvers<void>()
    const { leave, line, free } = await serving(
      t,
      protocol,
      (fastify) => {
        fastify.addHook('onSend', async (request, _reply, payload) => {
          if (request.url !== '/waits') return
          waiting.resolve()
          await once(payload as Readable, 'end')
        })
        byName(fastify)
      },
      endless
    )
    await leave('/waits', () => waiting.promise)
    t.match(await line(), { status: 499, error: 'JW_CLIENT_GONE' })
    await free()
    for (const name of ['no change', 'gzip', 'a generator', 'a stream of the web', 'a Transform']) {
      await leave('/', ({ data }) => data, { headers: { 'x-hook': name } })
      t.match(await line(), { status: 499, error: 'JW_CLIENT_GONE' }, name)
      await free()
    }
  })

  t.test(`${protocol}: a client that reads nothing stops the service (backpressure)`, async (t) => {
    let sent = 0
    const { port, free } = await serving(t, protocol, byName, (_request, response) => {
      const chunk = Buffer.alloc(64 * 1024)
      const more = (): void => {
        do sent += chunk.length
        while (response.write(chunk))
        response.once('drain', more)
      }
      more()
    })
    for (const name of ['no change', 'a Transform', 'a stream of the web']) {
      sent = 0
      const stop = await unread(protocol, port, name)
      let before = -1
      // All buffers are full once the service sends no more.
      while (sent !== before || sent === 0) {
        before = sent
        await new Promise((resolve) => setTimeout(resolve, 300))
      }
      t.ok(sent < 40_000_000, `${name}: ${sent} bytes`)
      stop()
      await free()
    }
  })

  t.test(`${protocol}: failures before the header section is sent get a response of the error table`, async (t) => {
    let fail = () => {}
    const { ask, line, free } = await serving(
      t,
      protocol,
      (fastify) => {
        fastify.addHook('onSend', async (request, reply, payload) => {
          if (reply.statusCode !== 200) return
          reply.header('content-encoding', 'x').header('x-hook', 'kept')
          if (request.url === '/throws') throw new Error('a slip')
          if (request.url === '/status') throw Object.assign(new Error('not you'), { statusCode: 403 })
          if (request.url === '/header') reply.header('x-bad', 'a\nb')
          if (request.url === '/type') return { an: 'object' }
          if (request.url === '/waits') {
            fail()
            await new Promise((resolve) => (payload as Readable).once('error', resolve))
          }
          if (request.url === '/transform') {
            return (payload as Readable).pipe(
              new Transform({ transform: (_chunk, _encoding, done) => done(new Error('x')) })
            )
          }
        })
      },
      (request, response) => {
        if (request.url === '/reset') response.destroy()
        else {
          response.writeHead(200, { 'cache-control': 'max-age=9', etag: '"e"', 'set-cookie': 'a=1' }).write('hello')
          fail = () => response.destroy()
        }
      }
    )
    for (const [path, status, code] of [
      ['/reset', 502, 'JW_UPSTREAM_RESET'],
      ['/waits', 502, 'JW_UPSTREAM_RESET'],
      ['/throws', 500, 'JW_INTERNAL'],
      ['/status', 403, undefined],
      ['/header', 500, 'JW_BAD_HEADER'],
      ['/type', 500, 'JW_INTERNAL'],
      ['/transform', 500, 'JW_INTERNAL']
    ] as const) {
      const got = await ask(path)
      t.match(got, { status, isWhole: true }, path)
      t.match(JSON.parse(String(got.body)), { statusCode: status, ...(code && { code }) }, path)
      for (const name of ['cache-control', 'etag', 'set-cookie', 'content-encoding', 'x-bad']) {
        t.equal(got.headers[name], undefined, `${path}: ${name} is the service's, or its body's`)
      }
      t.match(await line(), { status, bytesSent: 0 }, path)
      await free()
    }
  })

  t.test(`${protocol}: if the service fails within the body, the response is aborted`, async (t) => {
    const {
      leave: _leave,
      ask,
      line,
      free
    } = await serving(t, protocol, byName, (request, response) => {
      response.writeHead(200)
      const big = bytes(300_000)
      response.write(big, () => setTimeout(() => response.destroy(), Number(request.headers['x-after'])))
    })
    for (const name of ['no change', 'gzip', 'a generator', 'a stream of the web', 'a Transform']) {
      const { status, isWhole } = await ask('/', { headers: { 'x-hook': name, 'x-after': '50' } }).catch(() => broken)
      t.notOk(isWhole, name)
      t.match({ status, line: await line() }, { status: 200, line: { status: 200, error: 'JW_UPSTREAM_RESET' } }, name)
      await free()
    }
  })

  t.test(`${protocol}: a plugin responds during the call to the service`, async (t) => {
    const { ask, line, free } = await serving(
      t,
      protocol,
      (fastify) => {
        byName(fastify)
        fastify.addHook('preHandler', async (_request, reply) => {
          setTimeout(() => void reply.code(418).send('too slow'), 50)
        })
      },
      (_request, response) => void setTimeout(() => response.end('late'), 500)
    )
    t.match(await ask('/'), { status: 418, isWhole: true, body: Buffer.from('too slow') })
    await free()
    t.match(await line(), { status: 418, error: undefined })
  })
}

const broken = { status: 200, isWhole: false }

/** Sends a request and reads no response. Returns a function that closes the connection. */
async function unread(protocol: Protocol, port: number, hook: string): Promise<() => void> {
  if (protocol === 'HTTP/2') {
    const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
    session.on('error', () => {})
    const stream = session.request({ ':path': '/', 'x-hook': hook }).on('error', () => {})
    await once(stream, 'response')
    return () => session.destroy()
  }
  const options = { port, host: '127.0.0.1', headers: { 'x-hook': hook }, agent: false, rejectUnauthorized: false }
  const request = protocol === 'TLS' ? https.request(options) : http.request(options)
  request.on('error', () => {}).end()
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  response.on('error', () => {})
  return () => request.destroy()
}

for (const protocol of protocols) {
  t.test(`${protocol}: field names that are properties of Object.prototype`, async (t) => {
    const fields = ['__proto__', '1', '__proto__', '2', 'constructor', '3', 'toString', '4', 'valueof', '5']
    const before = (fastify: FastifyInstance) => {
      fastify.addHook('onSend', async ({ url }, _reply, payload) => {
        if (url === '/throws') throw new Error('a slip')
        return payload
      })
    }
    const { ask } = await serving(t, protocol, before, (_request, response) => {
      response.writeHead(200, fields).end('hello')
    })
    const { headers, body } = await ask('/')
    const others = [':status', 'date', 'x-request-id', 'connection', 'transfer-encoding']
    t.strictSame(
      Object.entries(headers)
        .filter(([name]) => !others.includes(name))
        .sort(([one], [other]) => (one < other ? -1 : 1)),
      [
        ['__proto__', '1, 2'],
        ['constructor', '3'],
        ['tostring', '4'],
        ['valueof', '5']
      ]
    )
    t.equal(body.toString(), 'hello')
    const failed = await ask('/throws')
    t.strictSame([failed.status, Object.hasOwn(failed.headers, '__proto__')], [500, false])
  })
}
