// Framing on the wire of the responses that Fastify sends: a response never runs into the next.
import type { IncomingMessage, ServerResponse } from 'node:http'
import http2 from 'node:http2'
import { PassThrough, Readable } from 'node:stream'
import tls from 'node:tls'
import type { FastifyInstance, FastifyReply } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { connect, gatewayBefore, startService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

type Deed = (reply: FastifyReply, payload: Readable) => unknown

/** Hooks by name, with the pattern of all bytes that the client gets. */
const deeds: Readonly<Record<string, Deed>> = {
  same: (_reply, payload) => payload,
  consumed: async (_reply, payload) => {
    for await (const _ of payload);
    return payload
  },
  'more, of a stream around it': (reply, payload) => {
    reply.header('content-length', 3)
    return payload.pipe(new PassThrough())
  },
  'more, of the body': (reply, payload) => {
    reply.header('content-length', 3)
    return payload
  },
  fewer: (reply, payload) => {
    reply.header('content-length', 30)
    return payload.pipe(new PassThrough())
  },
  'more, put before it': (_reply, payload) => {
    payload.unshift(Buffer.from('pre'))
    return payload
  },
  trailer: (reply, payload) => {
    reply.trailer('x-t', async () => 'v')
    return payload
  },
  'trailer and length': (reply) => {
    reply.header('content-length', 5).trailer('x-t', async () => 'v')
    return 'hello'
  },
  chunked: (reply, payload) => {
    reply.header('transfer-encoding', 'chunked')
    return payload
  },
  'gzip, chunked': (reply, payload) => {
    reply.header('transfer-encoding', 'gzip, chunked')
    return payload.pipe(new PassThrough())
  },
  'fields of the connection': (reply) => {
    reply.headers({ connection: 'x-a, keep-alive', 'keep-alive': 'timeout=1', upgrade: 'h2c', te: 'x', 'x-a': '1' })
    return 'hello'
  },
  close: (reply) => {
    reply.header('connection', 'x-a, Close')
    return 'hello'
  },
  204: (reply, payload) => {
    reply.code(204)
    return payload
  },
  '204 with trailers': (reply) => {
    reply.code(204).trailer('x-t', async () => 'v')
    return null
  },
  'a Response': () => new Response('hello', { status: 201, headers: { 'content-length': '3', 'x-a': '1' } })
}

function hooking(server: FastifyInstance): void {
  server.addHook('onSend', async ({ headers, method }, reply, payload) => {
    const deed = deeds[String(headers['x-deed'])]
    if (deed === undefined || reply.statusCode !== 200 || method === 'POST') return payload
    return deed(reply, payload as Readable)
  })
  // A route of a plugin's own.
  server.register(async (own) => {
    own.get('/own', async ({ headers }, reply) => {
      reply.header('content-length', headers['x-length'] ?? 5)
      return Readable.from([Buffer.from('hello')])
    })
  })
}

const serve = ({ url }: IncomingMessage, response: ServerResponse) => {
  if (url === '/length') response.setHeader('content-length', 5)
  response.write('he')
  setTimeout(() => response.end('llo'), 5)
}

/** Sends two pipelined requests; returns all bytes until the connection is closed. */
async function twice(t: Test, port: number, isTls: boolean, headerSection: string): Promise<string> {
  const bytes = `${headerSection}\r\nHost: h\r\n\r\nGET /length HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`
  if (!isTls) return (await connect(port, bytes).closed).text
  const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false })
  t.teardown(() => socket.destroy())
  let text = ''
  socket
    .on('error', () => {})
    .on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
    })
  socket.write(bytes)
  await new Promise((resolve) => socket.once('close', resolve))
  return text
}

/** Removes the fields that differ between responses. */
function plain(text: string): string {
  return text.replace(/^(x-request-id|Date|Keep-Alive|content-type): .*\r\n/gim, '').replace(/"requestId":"[^"]*"/g, '')
}

const error =
  /^HTTP\/1\.1 500 Internal Server Error\r\n(?!.*transfer-encoding).*content-length: (\d+)\r\n.*\r\n\r\n(\{.*\})$/s
/** Returns whether all that came is less than one response. */
function isCutShort(text: string): boolean {
  const [headerSection = '', body = ''] = text.split('\r\n\r\n')
  const length = /content-length: (\d+)/.exec(headerSection)?.[1]
  return text === '' || (length !== undefined && body.length < Number(length))
}

const second = 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: close\r\n\r\nhello'
const chunks = 'transfer-encoding: chunked\r\n'

for (const protocol of ['HTTP/1.1', 'TLS'] as const) {
  t.test(protocol, { timeout: 60_000 }, async (t) => {
    const upstream = await startService(serve)
    t.teardown(upstream.close)
    const listen = protocol === 'TLS' ? { tls: selfSigned(t) } : {}
    const { port, log } = await gatewayBefore(t, upstream.url, { listen }, { before: hooking, log: true })
    const ask = (deed: string, line = 'GET /length HTTP/1.1', more = '') =>
      twice(t, port, protocol === 'TLS', `${line}\r\nX-Deed: ${deed}${more}`).then(plain)

    for (const deed of [
      'consumed',
      'more, of a stream around it',
      'more, of the body',
      'fewer',
      'more, put before it'
    ]) {
      log.length = 0
      const got = await ask(deed)
      const isError = error.test(got.slice(0, -second.length))
      if (got.endsWith(second)) t.ok(isError, `${deed}: a whole error response, and the next one`)
      else t.ok(isCutShort(got), `${deed}: the connection is closed within the response`)
      await eventually(() => log.some(({ error }) => error === 'JW_PLUGIN_FAILED'))
    }

    const kept = 'Connection: keep-alive\r\n'
    const trailers = `5\r\nhello\r\n0\r\nx-t: v\r\n\r\n`
    const announced = `HTTP/1.1 200 OK\r\n${chunks}trailer: x-t\r\n${kept}\r\n`
    const expected: readonly (readonly [deed: string, response: string])[] = [
      ['same', `HTTP/1.1 200 OK\r\ncontent-length: 5\r\n${kept}\r\nhello`],
      ['trailer and length', `${announced}${trailers}`],
      ['chunked', `HTTP/1.1 200 OK\r\ncontent-length: 5\r\n${kept}\r\nhello`],
      ['204', `HTTP/1.1 204 No Content\r\n${kept}\r\n`],
      ['204 with trailers', `HTTP/1.1 204 No Content\r\n${kept}\r\n`],
      ['fields of the connection', 'HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 5\r\n\r\nhello']
    ]
    for (const [deed, response] of expected) t.equal(await ask(deed), response + second, deed)
    t.match(await ask('trailer'), /^HTTP\/1\.1 200 OK\r\n(?!.*content-length.*0\r\nx-t).*\r\n0\r\nx-t: v\r\n\r\nHTTP/s)
    t.match(await ask('gzip, chunked'), /^HTTP\/1\.1 200 OK\r\ntransfer-encoding: chunked\r\n/)
    t.match((await ask('a Response')).replace(second, ''), error)
    t.equal(await ask('close'), 'HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello')
    t.equal(await ask('same', 'HEAD /length HTTP/1.1'), `HTTP/1.1 200 OK\r\ncontent-length: 5\r\n${kept}\r\n${second}`)
    t.equal(
      await ask('consumed', 'HEAD /length HTTP/1.1'),
      `HTTP/1.1 200 OK\r\ncontent-length: 5\r\n${kept}\r\n${second}`
    )
    const old = await ask('trailer', 'GET /chunks HTTP/1.0')
    t.match(old, /^HTTP\/1\.1 200 OK\r\nConnection: close\r\n\r\nhello$/, 'HTTP/1.0 has no chunks')

    t.equal(await ask('', 'GET /own HTTP/1.1'), `HTTP/1.1 200 OK\r\ncontent-length: 5\r\n${kept}\r\nhello${second}`)
    t.match((await ask('', 'GET /own HTTP/1.1', '\r\nX-Length: 3')).replace(second, ''), error)
    t.ok(isCutShort(await ask('', 'GET /own HTTP/1.1', '\r\nX-Length: 30')))
  })
}

t.test('over HTTP/2, a wrong length fails only its own response', { timeout: 60_000 }, async (t) => {
  const upstream = await startService(serve)
  t.teardown(upstream.close)
  const { port } = await gatewayBefore(
    t,
    upstream.url,
    { listen: { tls: selfSigned(t), http2: true } },
    { before: hooking }
  )
  const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  const faults: unknown[] = []
  session.on('error', (error) => faults.push(error))
  const ask = (path: string, deed: string, method = 'GET') =>
    new Promise<{ status: number; length: unknown; body: string; code: number }>((resolve) => {
      const stream = session.request({ ':path': path, ':method': method, 'x-deed': deed, 'x-length': deed })
      let [status, length, body]: [number, unknown, string] = [0, undefined, '']
      stream.on('response', (fields) => {
        status = Number(fields[':status'])
        length = fields['content-length']
      })
      stream
        .on('error', () => {})
        .on('data', (chunk: Buffer) => {
          body += String(chunk)
        })
      stream.on('close', () => resolve({ status, length, body, code: stream.rstCode! }))
      stream.end()
    })
  for (const deed of ['consumed', 'more, of a stream around it', 'more, of the body', 'fewer', 'more, put before it']) {
    const got = await ask('/length', deed)
    if (got.status === 500) t.match(got, { body: /JW_PLUGIN_FAILED/, length: String(got.body.length), code: 0 }, deed)
    else t.match(got, { code: http2.constants.NGHTTP2_INTERNAL_ERROR }, deed)
  }
  t.match(await ask('/length', '204'), { status: 204, length: undefined, body: '', code: 0 })
  t.match(await ask('/length', 'fields of the connection'), { status: 200, length: '5', body: 'hello', code: 0 })
  t.match(await ask('/length', 'trailer'), { status: 200, body: 'hello', code: 0 })
  t.match(await ask('/length', 'same', 'HEAD'), { status: 200, length: '5', body: '', code: 0 })
  t.match(await ask('/own', '5'), { status: 200, length: '5', body: 'hello', code: 0 })
  t.match(await ask('/own', '3'), { status: 500, code: 0 })
  t.match(await ask('/own', '30'), { code: http2.constants.NGHTTP2_INTERNAL_ERROR })
  t.strictSame(faults, [], 'the session stays open')
})
