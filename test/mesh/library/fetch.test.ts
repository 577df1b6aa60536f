// slow: installs packages
/** Node's `fetch` through a mesh, with the undici of each version of Node that the package supports. */
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import type { Test } from 'tap'
import t from 'tap'
import { accept, echo, Peer, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { refused } from '../../helpers/mesh/servers.ts'
import { packages } from '../../helpers/packages.ts'
import { runToEnd } from '../../helpers/processes.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

t.setTimeout(300_000)

const text = Buffer.from('compressed '.repeat(50_000))
const codings: Record<string, Buffer> = {
  gzip: gzipSync(text), br: brotliCompressSync(text), deflate: deflateSync(text)
} // biome-ignore format: a list
const chunk = randomBytes(65_536)
let aborted = 0

function serve(request: IncomingMessage, response: ServerResponse): void {
  const [path = '', query = ''] = request.url!.split('?')
  response.on('close', () => {
    if (!response.writableFinished && path !== '/cut') aborted++
  })
  const { 'x-one': one } = request.headers
  const redirect = (status: number, location: string) => response.writeHead(status, { location }).end()
  const pages: Record<string, () => void> = {
    '/json': () => {
      response.setHeader('set-cookie', ['a=1', 'b=2'])
      response.setHeader('x-latin', '\u00fc')
      response.end(Buffer.from(JSON.stringify({ url: request.url, one })))
    },
    '/echo': () => request.pipe(response),
    '/compressed': () => response.writeHead(200, { 'content-encoding': query }).end(codings[query]),
    '/missing': () => response.writeHead(404, 'Not There').end('no'),
    '/empty': () => response.writeHead(204).end(),
    '/moved': () => redirect(302, '/json'),
    '/kept': () => redirect(307, '/echo'),
    '/away': () => redirect(302, query === '' ? `${other}/` : `${other}/to?302&${query}`),
    '/silent': () => {},
    '/aborted': () => response.end(String(aborted)),
    '/cut': () => response.writeHead(200, { 'content-length': 9 }).write('part', () => response.destroy()),
    '/endless': () => {
      const more = () => {
        while (!response.destroyed && response.write(chunk));
      }
      response.on('drain', more)
      more()
    }
  }
  pages[path]!()
}

const { cert, key } = selfSigned(t)
const plain = createServer(serve)
const secure = createTlsServer({ cert: readFileSync(cert), key: readFileSync(key) }, serve)
const others = createServer(({ url }, response) => {
  const [, status, to] = /^\/to\?(\d+)&(.*)$/.exec(url!) ?? []
  if (to === undefined) response.end('another host')
  // Bytes of UTF-8, as a browser accepts them.
  else response.writeHead(Number(status), { location: Buffer.from(decodeURIComponent(to)).toString('latin1') }).end()
})
const [origin, tls, other] = await Promise.all(
  [plain, secure, others].map(async (server) => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    t.teardown(() => {
      server.closeAllConnections()
      server.close()
    })
    return `${server === secure ? 'https' : 'http'}://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
)
const chat = await startWebSocketService({
  // The client of undici 7 refuses other options of the connection beside `Upgrade`.
  onUpgrade: (request, socket) => {
    socket.write(accept(request).replace('Upgrade, X-Hop', 'Upgrade'))
    echo(new Peer(socket, false, Buffer.alloc(0)))
  }
})
t.teardown(() => chat.close())

const program = join(import.meta.dirname, 'fetch-program.ts')

async function run(node: string, undicis: readonly string[] = []) {
  const clean = Object.entries(process.env).filter(([name]) => !/^_?TAP|^NODE_OPTIONS$/.test(name))
  const urls = { ORIGIN: origin, TLS: tls, CA: cert, WS: chat.url, OTHER: other, REFUSED: await refused() }
  const env = { ...Object.fromEntries(clean), ...urls, UNDICIS: undicis.join() }
  return runToEnd(node, [program], { env, timeout: 60_000 })
}

const exchanges = [
  'json and headers', 'bytes there and back, orders', 'a stream there and back, orders', 'bytes there and back, secure',
  'a stream there and back, secure', 'a form', 'decompressed gzip', 'decompressed br', 'decompressed deflate',
  'HEAD, 404, 204', 'redirects', 'aborts reach the service', 'a slow reader', 'errors with their code', 'a fallback'
] // biome-ignore format: a list
const ways = ['mesh.fetch', 'dispatcher', 'installed']
const before = [
  ...ways.flatMap((way) => exchanges.map((name) => `${way}: ${name}`)),
  'a second installation is refused', 'other hosts, also by a redirect',
  'no redirect of another host leads into the mesh', 'a WebSocket', 'wrong names'
] // biome-ignore format: a list
const after = ['uninstalled', 'a closed mesh']

async function assertAll(t: Test, node: string, undicis: readonly string[] = []) {
  const { code, stdout, stderr } = await run(node, undicis)
  const own = undicis.map(() => 'an undici of its own')
  const lines = [...before, ...own, ...after]
  t.strictSame({ code, stderr, lines: stdout.trim().split('\n') }, { code: 0, stderr: '', lines })
}

t.test('the Node of this test', (t) => assertAll(t, process.execPath))

t.test('Node 24, whose undici has other handlers, and the first version of it that is supported', async (t) => {
  for (const version of ['24.21.0', '24.2.0']) {
    const folder = await packages(`node-${version}`, { node: version })
    await assertAll(t, join(folder, 'node_modules/.bin/node'))
  }
})

t.test('undici as a package, in versions with either kind of handlers', async (t) => {
  const folder = await packages('undicis', { undici6: 'npm:undici@6.22.0', undici7: 'npm:undici@7.16.0' })
  const own = ['undici6', 'undici7'].map((name) => pathToFileURL(join(folder, 'node_modules', name, 'index.js')).href)
  await assertAll(t, process.execPath, [...own, import.meta.resolve('undici')])
})
