// slow: takes about 7 s
// Memory that is freed, borrowed or reused while forwarding: no byte of a body changes, with any other readers.
import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import { buffer } from 'node:stream/consumers'
import type { Test } from 'tap'
import t from 'tap'
import type { RunningService } from '../../helpers/gateway.ts'
import { gatewayBefore, startService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const { cert, key } = selfSigned(t)

const sizes = [0, 1, 100, 5000, 16_384, 16_385, 70_000, 300_000]

/** The body of a message: each byte depends on its offset and its request. */
function bodyOf(id: number): Buffer {
  const body = Buffer.alloc(sizes[id % sizes.length]!)
  for (let i = 0; i < body.length; i++) body[i] = (id * 37 + i * 11 + (i >> 8)) & 0xff
  return body
}

interface Echo extends RunningService {
  /** Requests with a body of another path. */
  wrong: string[]
  served: number
}

/** Responds with the request's body; with `breaks`, closes the connection within the first attempts of some. */
async function echoing(t: Test, breaks = false): Promise<Echo> {
  const attemptsById = new Map<number, number>()
  const service = await startService(async (request, response) => {
    const id = Number(request.url!.slice(1))
    // Larger bodies are not buffered for another attempt.
    const size = sizes[id % sizes.length]!
    const before = attemptsById.get(id) ?? 0
    attemptsById.set(id, before + 1)
    if (breaks && size < 20_000 && before < id % 3) {
      if (size === 0) request.socket.destroy()
      else request.once('data', () => request.socket.destroy())
      return
    }
    const body = await buffer(request).catch(() => null)
    if (body === null) return
    echo.served++
    if (!body.equals(request.method === 'GET' ? Buffer.alloc(0) : bodyOf(id))) echo.wrong.push(request.url!)
    const sent = bodyOf(id)
    response.setHeader('cache-control', 'public, max-age=60')
    // Written in pieces, so that a part of the response waits while the client reads.
    for (let at = 0; at < sent.length; at += 30_000) response.write(sent.subarray(at, at + 30_000))
    response.end()
  })
  t.teardown(service.close)
  const echo: Echo = { ...service, wrong: [], served: 0 }
  return echo
}

type Send = (method: string, id: number) => Promise<Buffer>

const slowly = async (stream: NodeJS.ReadableStream, id: number) => {
  const chunks: Buffer[] = []
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    if (id % 4 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
  }
  return Buffer.concat(chunks)
}

/** Writes a body in pieces, some of them a little later. */
async function write(stream: NodeJS.WritableStream, method: string, id: number): Promise<void> {
  if (method !== 'GET') {
    const body = bodyOf(id)
    for (let at = 0; at < body.length; at += 10_000) {
      // A copy: a changed buffer would otherwise be compared with itself.
      stream.write(Buffer.from(body.subarray(at, at + 10_000)))
      if (id % 3 === 0) await new Promise(setImmediate)
    }
  }
  stream.end()
}

function http1(t: Test, port: number, secure: boolean): Send {
  const agent = secure
    ? new https.Agent({ keepAlive: true, maxSockets: 8, rejectUnauthorized: false })
    : new http.Agent({ keepAlive: true, maxSockets: 8 })
  t.teardown(() => agent.destroy())
  return async (method, id) => {
    const request = (secure ? https : http).request({ port, host: '127.0.0.1', path: `/${id}`, method, agent })
    const response = once(request, 'response') as Promise<[http.IncomingMessage]>
    await Promise.all([response, write(request, method, id)])
    return slowly((await response)[0], id)
  }
}

async function http2Client(t: Test, port: number): Promise<Send> {
  const session = http2.connect(`https://localhost:${port}`, {
    rejectUnauthorized: false,
    settings: { initialWindowSize: 5000 }
  })
  t.teardown(() => session.destroy())
  await once(session, 'remoteSettings')
  return async (method, id) => {
    const stream = session.request({ ':path': `/${id}`, ':method': method }, { endStream: method === 'GET' })
    const [body] = await Promise.all([slowly(stream, id), method === 'GET' ? null : write(stream, method, id)])
    return body
  }
}

const protocols: readonly (readonly [string, object, (t: Test, port: number) => Send | Promise<Send>])[] = [
  ['HTTP/1.1', {}, (t, port) => http1(t, port, false)],
  ['TLS', { tls: { cert, key } }, (t, port) => http1(t, port, true)],
  ['HTTP/2', { tls: { cert, key }, http2: true }, http2Client]
]

interface Case {
  what: string
  mesh: object
  methods: readonly string[]
  breaks?: boolean
  shadow?: boolean
}

const cases: readonly Case[] = [
  { what: 'bodies that are freed once they are sent', mesh: { retry: false }, methods: ['POST', 'PUT', 'GET'] },
  {
    what: 'bodies that are kept for another attempt',
    mesh: {
      retry: { attempts: 5, on: ['connect-failure', 'reset'], budget: '100%', backoff: { base: '1ms', max: '2ms' } }
    },
    methods: ['PUT'],
    breaks: true
  },
  {
    what: 'bodies that a mirror reads too',
    mesh: { retry: false, mirror: { service: 'shadow' } },
    methods: ['POST'],
    shadow: true
  },
  {
    what: 'responses that several callers share',
    mesh: { retry: false, collapse: true, fallback: [{ stale: { maxAge: '1m' } }] },
    methods: ['GET', 'GET', 'GET']
  }
]

for (const [protocol, listen, client] of protocols) {
  for (const { what, mesh, methods, breaks = false, shadow = false } of cases) {
    t.test(`no byte of another request, ${protocol}: ${what}`, async (t) => {
      const service = await echoing(t, breaks)
      const copies = await echoing(t)
      const services = { any: { instances: [service.url] }, shadow: { instances: [copies.url] } }
      const { port } = await gatewayBefore(t, service.url, { listen, mesh, services })
      const send = await client(t, port)
      const wrong: string[] = []
      let next = 0
      const worker = async () => {
        while (next < 120) {
          const id = next++
          const results = await Promise.all(methods.map((method) => send(method, id)))
          for (const body of results) {
            // The first bytes distinguish the gateway's own response from bytes of another request.
            if (!body.equals(bodyOf(id))) wrong.push(`/${id}: ${body.length} bytes, ${body.subarray(0, 200)}`)
          }
        }
      }
      await Promise.all(Array.from({ length: 6 }, worker))
      t.same(wrong, [], 'each client gets the bytes of its own response')
      t.same(service.wrong, [], 'the service gets the bytes of each request')
      t.same(copies.wrong, [], 'the shadow service gets the bytes of each request')
      if (shadow) t.ok(copies.served > 0)
    })
  }
}
