// slow: takes about 34 s
// Streams of `onSend` hooks that keep a response waiting: bounded by the plugin's hookTimeout, on every protocol.
import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import { join } from 'node:path'
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { eventually } from '../helpers/eventually.ts'
import { startWith } from '../helpers/gateway.ts'
import { folder, service } from '../helpers/plugins.ts'

const stalling = `
import { PassThrough, Readable, Transform } from 'node:stream'

const through = (transform, more) => new Transform({ transform, ...more })
const oneChunk = (body) => {
  const out = new PassThrough()
  body.once('data', (chunk) => {
    out.write(chunk)
    body.pause()
  })
  return out
}
const ways = {
  'reads nothing': () => new PassThrough(),
  'reads one chunk': (body) => body.pipe(through(() => {})),
  'never ends': (body) => body.pipe(through((chunk, encoding, done) => done(), { flush() {} })),
  'sends one chunk': oneChunk,
  'ends the body': (body) => {
    body.destroy()
    return new PassThrough()
  },
  'cannot be destroyed': () => new Readable({ read() {}, destroy() {} }),
  'sends slowly': (body) => body.pipe(through((chunk, encoding, done) => setTimeout(done, 200, null, chunk))),
  'sends as it reads': (body) => body.pipe(new PassThrough())
}

export default async function stalling (fastify) {
  fastify.addHook('onSend', async ({ headers }, reply, payload) =>
    payload instanceof Readable ? ways[headers['x-way']](payload) : payload)
}`

// Each test has a gateway of its own, and mostly waits for time limits.
t.jobs = protocols.length

for (const protocol of protocols) {
  t.test(protocol, { timeout: 120_000 }, async (t) => {
    let open = 0
    const origin = await service(t, (request, response) => {
      open++
      response.once('close', () => open--)
      response.writeHead(200)
      if (request.url === '/endless') {
        const timer = setInterval(() => response.write('x'.repeat(20_000)), 5)
        response.once('close', () => clearInterval(timer))
      } else if (request.url === '/silent') {
        response.write('some')
        setTimeout(() => response.end('thing'), 1500)
      } else if (request.url === '/chunks') {
        const timer = setInterval(() => response.write('chunk'), 100)
        setTimeout(() => {
          clearInterval(timer)
          response.end('end')
        }, 1500)
      } else response.end('something')
    })
    const config = {
      listen: listenFor(t, protocol),
      admin: false,
      mesh: { retry: false },
      services: { any: { instances: [origin] } },
      routes: [{ name: 'any', match: { path: '/' }, service: 'any' }],
      plugins: [{ path: './stalling.mjs', hookTimeout: '600ms' }]
    }
    const root = await folder(t, { 'stalling.mjs': stalling })
    const gateway = await startWith(parseConfig(JSON.stringify(config), join(root, 'gateway.yaml')), { log: true })
    t.teardown(gateway.close)
    const client = anyClient(t, protocol, gateway.port)
    const ask = (path: string, way: string) => client.ask(path, { headers: { 'x-way': way } }).catch(() => null)
    const faults = () => gateway.log.filter(({ level, msg }) => level === 50 && /hookTimeout/.test(String(msg)))
    const free = () => eventually(() => open === 0 && gateway.server.mesh.status()[0]!.active === 0)

    for (const path of ['/', '/endless']) {
      gateway.log.length = 0
      // The stream that never ends keeps reading an endless body, so it does not stall.
      const stalled = ['reads nothing', 'reads one chunk', 'ends the body', ...(path === '/' ? ['never ends'] : [])]
      const responses = await Promise.all([...stalled, 'cannot be destroyed'].map((way) => ask(path, way)))
      const unclean = responses.pop()
      t.notOk(unclean?.isWhole, `${path}: a stream that cannot be destroyed closes the connection`)
      for (const [index, got] of responses.entries()) {
        const what = `${path}: a stream that ${stalled[index]}`
        t.strictSame([got?.status, got?.isWhole], [500, true], what)
        t.match(JSON.parse(String(got?.body)), { code: 'JW_PLUGIN_FAILED' }, what)
      }
      await free()
      t.equal(faults().length, stalled.length + 1, path)
      for (const line of faults()) {
        t.match(line, { plugin: 'stalling', hook: 'onSend', msg: /stream neither read, wrote nor ended within 600 ms/ })
      }
      gateway.log.length = 0
      const got = await ask(path, 'sends one chunk')
      t.notOk(got?.isWhole, `${path}: a stream that stalls after the header section closes the connection`)
      if (got !== null) t.equal(got.status, 200)
      await free()
      await eventually(() => gateway.log.some(({ error }) => error === 'JW_PLUGIN_FAILED'))
      t.equal(faults().length, 1)
    }

    gateway.log.length = 0
    await readNothing(gateway.port, protocol, { ':path': '/endless', 'x-way': 'sends as it reads' }, 2000)
    await free()
    for (const [path, way] of [
      ['/chunks', 'sends slowly'],
      ['/silent', 'sends as it reads']
    ] as const) {
      const got = await ask(path, way)
      t.strictSame([got?.status, got?.isWhole], [200, true], `${path}: a stream that ${way}`)
      t.match(String(got?.body), /(end|something)$/)
    }
    await client.leave('/', async () => new Promise((resolve) => setTimeout(resolve, 100)), {
      headers: { 'x-way': 'reads nothing' }
    })
    await free()
    t.strictSame(
      faults(),
      [],
      'a slow service, a slow client or a disconnected client does not count against hookTimeout'
    )
  })
}

/** Sends a request whose response the client does not read, and leaves after a time. */
async function readNothing(port: number, protocol: string, fields: Record<string, string>, ms: number): Promise<void> {
  const options = { port, host: '127.0.0.1', rejectUnauthorized: false }
  const { ':path': path, ...headers } = fields
  if (protocol === 'HTTP/2') {
    const session = http2.connect(`https://127.0.0.1:${port}`, options)
    session.on('error', () => {})
    const stream = session.request(fields)
    stream.on('error', () => {})
    await once(stream, 'response')
    await new Promise((resolve) => setTimeout(resolve, ms))
    session.destroy()
    return
  }
  const request = (protocol === 'TLS' ? https : http).request({ ...options, path, headers, agent: false })
  request.on('error', () => {}).end()
  await once(request, 'response')
  await new Promise((resolve) => setTimeout(resolve, ms))
  request.destroy()
}
