// Responses that HTTP/1.1 allows and Node's HTTP/2 writer refuses: they arrive, without a crash or a hang.
import { once } from 'node:events'
import http from 'node:http'
import type { IncomingHttpHeaders } from 'node:http2'
import http2 from 'node:http2'
import type { Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import type { GatewayOptions } from '../../helpers/gateway.ts'
import { gatewayBefore, startRawService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const { cert, key } = selfSigned(t)

/** All names that Node knows; it accepts some of them only once. */
const names = Object.entries(http2.constants)
  .filter(([constant, name]) => constant.startsWith('HTTP2_HEADER_') && !String(name).startsWith(':'))
  .map(([, name]) => String(name))

/** Names that frame the message: two of them are a malformed response, over any version. */
const framing = new Set(['content-length', 'transfer-encoding'])

/** Responds to `/N` with the response of that index. */
function respondByIndex(responses: readonly string[]) {
  return (socket: Socket) => {
    socket.on('data', (chunk: Buffer) => {
      const place = Number(/^GET \/(\d+)/.exec(chunk.toString('latin1'))?.[1])
      socket.write(responses[place]!, 'latin1')
    })
  }
}

interface Got {
  status: number
  headers: IncomingHttpHeaders
  hints: IncomingHttpHeaders[]
  trailers: IncomingHttpHeaders | null
  body: string
  reset: boolean
}

async function http2Client(t: Test, responses: readonly string[], options: GatewayOptions = {}) {
  const service = await startRawService(respondByIndex(responses))
  t.teardown(service.close)
  const { port, log } = await gatewayBefore(
    t,
    service.url,
    { listen: { tls: { cert, key }, http2: true }, mesh: { retry: false } },
    options
  )
  const session = http2.connect(`https://localhost:${port}`, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  await once(session, 'connect')
  const get = async (path: string): Promise<Got> => {
    const stream = session.request({ ':path': path })
    const got: Got = { status: 0, headers: {}, hints: [], trailers: null, body: '', reset: false }
    stream.on('headers', (headers) => got.hints.push(headers))
    stream.on('response', (headers) => {
      got.headers = headers
      got.status = Number(headers[':status'])
    })
    stream.on('trailers', (trailers) => {
      got.trailers = trailers
    })
    stream.on('data', (chunk: Buffer) => {
      got.body += chunk.toString('latin1')
    })
    stream.on('error', () => {
      got.reset = true
    })
    await new Promise((resolve) => stream.once('close', resolve))
    return got
  }
  return { get, log }
}

t.test('a repeated header reaches an HTTP/2 client', async (t) => {
  const { get } = await http2Client(
    t,
    names.map((name) => `HTTP/1.1 200 OK\r\n${name}: 1\r\n${name}: 1\r\ncontent-length: 2\r\n\r\nok`)
  )
  for (const [place, name] of names.entries()) {
    const { status, body } = await get(`/${place}`)
    t.same([status, status === 200 ? body : ''], framing.has(name) ? [502, ''] : [200, 'ok'], name)
  }
})

t.test('a repeated trailer reaches an HTTP/2 client', async (t) => {
  const { get } = await http2Client(
    t,
    names.map(
      (name) =>
        `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n${name}: 1\r\n${name}: 2\r\nx-sum: 7\r\n\r\n`
    )
  )
  for (const [place, name] of names.entries()) {
    const { status, body, trailers } = await get(`/${place}`)
    t.match({ status, body, trailers }, { status: 200, body: 'ok', trailers: { 'x-sum': '7' } }, name)
  }
})

t.test('early hints with a repeated header reach an HTTP/2 client', async (t) => {
  const { get } = await http2Client(
    t,
    names.map(
      (name) =>
        `HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n${name}: 1\r\n${name}: 1\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok`
    )
  )
  for (const [place, name] of names.entries()) {
    const { status, hints, body } = await get(`/${place}`)
    t.match({ status, hints: hints.length, body }, { status: 200, hints: 1, body: 'ok' }, name)
  }
})

t.test('a singleton field keeps its first value, a list field is joined', async (t) => {
  const twice = 'etag: "a"\r\netag: "b"\r\ncontent-type: text/plain\r\ncontent-type: text/html'
  const lists =
    'content-language: de\r\ncontent-language: en\r\nx-more: 1\r\nx-more: 2\r\nset-cookie: a=1\r\nset-cookie: b=2'
  const { get } = await http2Client(t, [
    `HTTP/1.1 200 OK\r\n${twice}\r\n${lists}\r\ncontent-length: 2\r\n\r\nok`,
    `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\netag: "a"\r\netag: "b"\r\nx-more: 1\r\nx-more: 2\r\n\r\n`
  ])
  t.match((await get('/0')).headers, {
    etag: '"a"',
    'content-type': 'text/plain',
    'content-language': 'de, en',
    'x-more': '1, 2',
    'set-cookie': ['a=1', 'b=2']
  })
  t.match((await get('/1')).trailers, { etag: '"a"', 'x-more': '1, 2' })
})

t.test('an invalid status is a malformed response, over every version', async (t) => {
  const statuses = [600, 799, 999]
  const { get } = await http2Client(
    t,
    statuses.map((status) => `HTTP/1.1 ${status} Odd\r\ncontent-length: 2\r\n\r\nok`)
  )
  for (const place of statuses.keys()) t.equal((await get(`/${place}`)).status, 502)
})

const bad = 'Zoë 中'

const protocols = [
  ['HTTP/1.1', {}],
  ['HTTP/2', { tls: { cert, key }, http2: true }]
] as const

for (const [protocol, listen] of protocols) {
  t.test(`${protocol}: an invalid header of a plugin fails only its own response`, async (t) => {
    const service = await startRawService(
      respondByIndex([
        `HTTP/1.1 200 OK\r\netag: "a"\r\ncontent-length: 600\r\n\r\n${'x'.repeat(600)}`,
        'HTTP/1.1 304 Not Modified\r\netag: "a"\r\n\r\n',
        'HTTP/1.1 204 No Content\r\n\r\n',
        'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'
      ])
    )
    t.teardown(service.close)
    const before = (server: FastifyInstance) => {
      server.addHook('onRequest', async (request, reply) => {
        if (request.headers['x-bad'] !== undefined) reply.header('x-user', bad)
      })
      server.get('/own', async () => 'own')
      server.get('/own-304', async (_request, reply) => reply.code(304).send())
      server.get('/own-name', async (_request, reply) => reply.header('x user', 'a').send('own'))
    }
    const { port, log } = await gatewayBefore(t, service.url, { listen, mesh: { retry: false } }, { before, log: true })
    // To HTTP/2, Node itself writes the low bytes of a plugin's own response.
    const own = protocol === 'HTTP/2' ? ['/own-name'] : ['/own', '/own-304', '/own-name']
    const paths = ['/0', '/1', '/2', ...own]
    for (const path of paths) {
      const [first, second] = await (protocol === 'HTTP/2' ? http2Pair : http1Pair)(port, path)
      // Node remembers that a 304 has no body: its error has only the header section, and the connection is closed.
      const body = path === '/own-304' ? 'aborted' : /"statusCode":500/
      t.match(first, { status: 500, etag: undefined, body }, path)
      t.match(second, { status: 200, body: 'ok' }, `${path}: the next request has its own response`)
    }
    const failed = log.filter(({ msg }) => String(msg).startsWith('request failed'))
    t.equal(failed.length, paths.length)
    t.match(JSON.stringify(failed[0]), /x-user/, 'the log names the header')
  })
}

t.test("headers that a plugin set on Node's own response are on errors, too", async (t) => {
  const before = (server: FastifyInstance) => {
    server.addHook('onRequest', async (_request, reply) => void reply.raw.setHeader('etag', 'of the plugin'))
    server.get('/own', async () => {
      throw new Error('no')
    })
  }
  const routes = [{ name: 'api', match: { path: '/api' }, service: 'any' }]
  for (const [protocol, listen] of protocols) {
    const more = { listen, mesh: { retry: false }, routes, services: { any: { instances: ['http://127.0.0.1:9'] } } }
    const { port } = await gatewayBefore(t, '', more, { before })
    for (const [path, status] of Object.entries({ '/nothing': 404, '/own': 500, '/api': 502 })) {
      const [first] = await (protocol === 'HTTP/2' ? http2Pair : http1Pair)(port, path)
      t.match(first, { status, etag: 'of the plugin' }, `${protocol} ${path}`)
    }
  }
})

/** Two requests one after the other, the first with a header that makes a plugin fail; on one connection if it stays. */
async function http1Pair(port: number, path: string) {
  const one = async (agent: http.Agent, path: string, headers: object) => {
    const request = http.get({ port, host: '127.0.0.1', path, agent, headers: { ...headers } })
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    return {
      status: response.statusCode,
      etag: response.headers.etag,
      body: await text(response).catch(({ message }) => message)
    }
  }
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  try {
    return [await one(agent, path, { 'x-bad': '1' }), await one(agent, '/3', {})]
  } finally {
    agent.destroy()
  }
}

async function http2Pair(port: number, path: string) {
  const session = http2.connect(`https://localhost:${port}`, { rejectUnauthorized: false })
  const one = async (path: string, more: object) => {
    const stream = session.request({ ':path': path, ...more })
    const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders]
    return { status: headers[':status'], etag: headers.etag, body: await text(stream) }
  }
  try {
    return [await one(path, { 'x-bad': '1' }), await one('/3', {})]
  } finally {
    session.destroy()
  }
}
