/** `redirect: https`. */
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import net from 'node:net'
import t from 'tap'
import { authority, folderFor } from '../../helpers/certificates.ts'
import { startGateway } from '../../helpers/gateway.ts'
import { ask, clientView, drain, running, service } from '../../helpers/listeners.ts'

t.setTimeout(60_000)

const route = (name: string, match: object) => ({ name, match, service: 'any' })

t.test('redirects go to the listener with TLS, only for hosts of a route or a certificate', async (t) => {
  const folder = folderFor(t)
  const ours = authority(folder, 'ours')
  const { certFile: cert, keyFile: key } = ours.issue('named', { san: 'DNS:named.example,DNS:*.wild.example' })
  const sections = {
    services: { any: { instances: [await service(t)] } },
    routes: [
      route('all', { path: '/' }),
      route('api', { path: '/api', hosts: ['api.example.com', '*.deep.example.com'] }),
      route('proof', { path: '/.well-known/acme-challenge', hosts: ['named.example'] })
    ],
    plugins: [{ path: './client-view.mjs' }]
  }
  const plain = { name: 'plain', host: '127.0.0.1', port: 0, drain, redirect: 'https' }
  const secure = { name: 'secure', host: '127.0.0.1', port: 0, tls: { cert, key }, http2: true }
  const behind = { name: 'behind', host: '127.0.0.1', port: 0, redirect: 'https', trustProxy: ['127.0.0.1'] }
  const internal = { name: 'internal', host: '127.0.0.1', port: 0 }
  const gateway = await running(t, folder, { listen: [plain, secure, behind, internal], ...sections })
  const port = gateway.portOf('plain')
  const at = gateway.portOf('secure')
  const to = (host: string, path: string, more: http.RequestOptions = {}) =>
    ask({ port, path, ...more, headers: { host, ...more.headers } })

  for (const host of [
    'named.example',
    'NAMED.example:8080',
    'x.wild.example',
    'api.example.com',
    'a.b.deep.example.com'
  ]) {
    const { status, headers, text } = await to(host, '/a%20b?c=d&e')
    t.equal(status, 308, host)
    t.equal(headers.location, `https://${host.replace(':8080', '')}:${at}/a%20b?c=d&e`)
    t.equal(text, '')
  }
  for (const host of [
    'evil.example',
    'a.b.wild.example',
    'named.example.evil',
    '127.0.0.1',
    '[::1]:80',
    'deep.example.com'
  ]) {
    const { status, headers } = await to(host, '/')
    t.equal(status, 404, host)
    t.equal(headers.location, undefined)
  }
  t.equal((await to('named.example/x@evil.example', '/')).status, 400)
  t.equal((await to('named.example', '/a/../b')).status, 400)
  t.equal(
    (await to('named.example', '//evil.example/x')).headers.location,
    `https://named.example:${at}//evil.example/x`
  )
  t.equal((await to('named.example', '/nothing', { method: 'DELETE' })).status, 308)
  t.equal((await to('named.example', '/.well-known/acme-challenge/x')).status, 200)
  t.equal((await to('named.example', '/.well-known/other')).status, 308)

  const handshake = {
    connection: 'upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': `${'A'.repeat(22)}==`
  }
  t.equal((await to('named.example', '/', { headers: handshake })).status, 308)

  const upload = http.request({ port, method: 'POST', headers: { host: 'named.example', 'content-length': 10 } })
  upload.on('error', () => {})
  upload.write('12345')
  const [response] = (await once(upload, 'response')) as [http.IncomingMessage]
  t.match([response.statusCode, response.headers.connection], [308, 'close'])
  upload.destroy()

  await t.test('requests that a trusted proxy received by https are served', async (t) => {
    const headers = { host: 'named.example', 'x-forwarded-proto': 'https' }
    const response = await ask({ port: gateway.portOf('behind'), headers })
    t.match([response.status, clientView(response).protocol], [200, 'https'])
    t.equal((await ask({ port: gateway.portOf('behind'), headers: { host: 'named.example' } })).status, 308)
    t.equal((await ask({ port, headers })).status, 308)
    const statuses: Record<string, number> = {}
    for (const scheme of ['wss', 'HTTPS', 'http, https', 'ws', 'http', 'https, http', 'xhttps']) {
      const forwarded = { ...headers, 'x-forwarded-proto': scheme }
      statuses[scheme] = (await ask({ port: gateway.portOf('behind'), headers: forwarded })).status
    }
    const served = { wss: 200, HTTPS: 200, 'http, https': 200 }
    t.same(statuses, { ...served, ws: 308, http: 308, 'https, http': 308, xhttps: 308 })
    t.end()
  })
  const inside = { port: gateway.portOf('internal'), headers: { host: 'named.example' } }
  t.equal((await ask(inside)).status, 200, 'a listener without `redirect` does not redirect')

  const { port: adminPort } = gateway.runtime.admin!.address as AddressInfo
  const explained = async (path: string) =>
    (await fetch(`http://127.0.0.1:${adminPort}/admin/explain?listener=plain&path=${path}`)).json() as Promise<unknown>
  t.match(await explained('/api'), { route: null, refused: { status: 308, message: /redirected to https/ } })
  t.match(await explained('/.well-known/acme-challenge/x&header=host:named.example'), { route: 'proof' })
  t.match(await explained('/.well-known/acme-challenge/x'), { route: null, refused: { status: 308 } })
  t.match(await explained('/a/../b'), { route: null, refused: { status: 400 } })
  t.match(
    await gateway.metrics(),
    /^jingwei_edge_requests_total\{route="all",method="GET",status="308",direction="north-south"\} \d+$/m
  )

  const changed = { ...plain, unknownHost: 421, redirect: { port: 443, status: 301 } }
  t.equal((await gateway.reload({ listen: [changed, secure], ...sections })).faults.length, 1)
  t.equal((await gateway.reload({ listen: [changed, secure, behind, internal], ...sections })).applied, true)
  t.match(await to('named.example:80', '/'), { status: 301, headers: { location: 'https://named.example/' } })
  t.equal((await to('named.example', '/', { method: 'POST' })).status, 308)
  t.equal((await to('evil.example', '/')).status, 421)
})

t.test('a redirect needs no other listener, and HTTP/1.0 without a host gets 404', async (t) => {
  const listen = { redirect: { to: 'https', port: 8443 } }
  const gateway = await startGateway({
    listen,
    services: { any: { instances: ['http://127.0.0.1:1'] } },
    routes: [route('a', { path: '/', hosts: ['a.example'] })]
  })
  t.teardown(gateway.close)
  const { status, headers } = await ask({ port: gateway.port, headers: { host: 'a.example' } })
  t.match([status, headers.location], [308, 'https://a.example:8443/'])
  const socket = net.connect(gateway.port, '127.0.0.1').end('GET / HTTP/1.0\r\n\r\n')
  const text = Buffer.concat(await socket.toArray()).toString()
  t.match(text, /^HTTP\/1\.1 404 /)
  t.notMatch(text, /location/i)
})

t.test('a proxy can be trusted for X-Forwarded-Proto only', async (t) => {
  const trust = { trustProxy: ['127.0.0.1'], trustHeaders: ['x-forwarded-proto'] }
  const gateway = await startGateway({
    listen: { redirect: { to: 'https', port: 443 }, ...trust },
    services: { any: { instances: [await service(t)] } },
    routes: [route('a', { path: '/', hosts: ['a.example'] })]
  })
  t.teardown(gateway.close)
  const statusOf = async (scheme: string) =>
    (await ask({ port: gateway.port, headers: { host: 'a.example', 'x-forwarded-proto': scheme } })).status
  t.same([await statusOf('https'), await statusOf('http')], [200, 308])
})
