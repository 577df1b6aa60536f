// Hooks of plugins with a scope or a position: over HTTP/1.1, TLS, HTTP/2 and for WebSockets, and the bytes of bodies.
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import http2 from 'node:http2'
import https from 'node:https'
import type { Readable } from 'node:stream'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'
import { echo, startWebSocketService } from '../helpers/edge/websocket.ts'
import { folder, listen, service } from '../helpers/plugins.ts'
import { selfSigned } from '../helpers/self-signed.ts'

const word = { 'x-word': 'yes' }
const files = {
  'guard.mjs': `export default async function guard (fastify) {
    fastify.addHook('onRequest', (request, reply, done) => {
      reply.header('x-guard', 'met')
      if (request.headers['x-word'] === 'yes') done()
      else reply.code(401).send('the word?')
    })
  }`
}

async function gateway(t: Test, tls: boolean, entry: object) {
  const root = await folder(t, files)
  const origin = await service(t, (request, response) => request.pipe(response))
  const { url: sockets, close } = await startWebSocketService({ onPeer: echo })
  t.teardown(close)
  const text = JSON.stringify({
    listen: { host: '127.0.0.1', port: 0, ...(tls && { tls: selfSigned(t), http2: true }) },
    admin: false,
    services: { orders: { instances: [origin] }, sockets: { instances: [sockets] } },
    routes: [
      { name: 'guarded', match: { path: '/guarded' }, service: 'orders', plugins: ['guard'] },
      { name: 'open', match: { path: '/open' }, service: 'orders' },
      { name: 'ws', match: { path: '/ws' }, service: 'sockets', plugins: ['guard'] },
      { name: 'open-ws', match: { path: '/open-ws' }, path: { rewrite: { prefix: '/ws' } }, service: 'sockets' }
    ],
    plugins: [{ path: './guard.mjs', scope: 'routes', ...entry }]
  })
  return listen(t, parseConfig(text, `${root}/gateway.yaml`))
}

const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
const sent = randomBytes(3_000_001)

async function bytesOf(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

interface Response {
  status: number
  guard: unknown
  body: Buffer
}
type Post = (url: string, path: string, headers: Record<string, string>) => Promise<Response>

const overHttp2: Post = async (url, path, headers) => {
  const session = http2.connect(url, { rejectUnauthorized: false })
  try {
    const stream = session.request({ ':method': 'POST', ':path': path, ...headers })
    const responded = once(stream, 'response') as Promise<[http2.IncomingHttpHeaders]>
    stream.on('error', () => {})
    stream.end(sent)
    const [fields] = await responded
    return { status: Number(fields[':status']), guard: fields['x-guard'], body: await bytesOf(stream) }
  } finally {
    session.destroy()
  }
}
const overTls: Post = async (url, path, headers) => {
  const request = https.request(url + path, { method: 'POST', headers, rejectUnauthorized: false, agent: false })
  request.on('error', () => {})
  request.end(sent)
  const [response] = await once(request, 'response')
  const body = await bytesOf(response)
  request.destroy()
  return { status: response.statusCode, guard: response.headers['x-guard'], body }
}
const overHttp: Post = async (url, path, headers) => {
  const response = await fetch(url + path, { method: 'POST', headers, body: sent })
  const body = Buffer.from(await response.arrayBuffer())
  return { status: response.status, guard: response.headers.get('x-guard') ?? undefined, body }
}

const protocols: Record<string, [tls: boolean, post: Post]> = {
  'HTTP/1.1': [false, overHttp],
  TLS: [true, overTls],
  'HTTP/2': [true, overHttp2]
}

for (const [protocol, [tls, post]] of Object.entries(protocols)) {
  for (const [what, entry] of Object.entries({ 'without order': {}, 'with order': { order: { after: 'cors' } } })) {
    t.test(`${protocol}: a plugin with scope: routes runs on those only, ${what}`, async (t) => {
      const { url } = await gateway(t, tls, entry)
      const refused = await post(url, '/guarded', {})
      t.strictSame([refused.status, refused.guard, refused.body.toString()], [401, 'met', 'the word?'])
      const passed = await post(url, '/guarded', word)
      t.strictSame([passed.status, passed.guard, digest(passed.body)], [200, 'met', digest(sent)])
      const open = await post(url, '/open', {})
      t.strictSame([open.status, open.guard, digest(open.body)], [200, undefined, digest(sent)])
    })
  }
}

t.test('the hook runs on the handshake of a WebSocket, and messages pass unchanged', async (t) => {
  const { url } = await gateway(t, false, { order: { before: 'websocket' } })
  const ask = async (path: string, headers: Record<string, string>) => {
    // Node's own WebSocket takes no headers.
    const { WebSocket } = await import('undici')
    const socket = new WebSocket(url.replace('http', 'ws') + path, { headers })
    socket.binaryType = 'arraybuffer'
    const opened = await new Promise<boolean>((resolve) => {
      socket.addEventListener('open', () => resolve(true))
      socket.addEventListener('error', () => resolve(false))
    })
    if (!opened) return null
    const message = new Promise<ArrayBuffer>((resolve) =>
      socket.addEventListener('message', ({ data }) => resolve(data as ArrayBuffer))
    )
    socket.send(sent.subarray(0, 50_000))
    const back = Buffer.from(await message)
    socket.close()
    return digest(back)
  }
  t.equal(await ask('/ws', {}), null, 'refused')
  t.equal(await ask('/ws', word), digest(sent.subarray(0, 50_000)))
  t.equal(await ask('/open-ws', {}), digest(sent.subarray(0, 50_000)))
})
