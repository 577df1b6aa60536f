/** Stickiness through the whole gateway: the caller's data reach the balancer, the cookie reaches the client. */
import { once } from 'node:events'
import http2 from 'node:http2'
import tls from 'node:tls'
import t from 'tap'
import type { ParsedResponse, RunningGateway, RunningService } from '../../helpers/gateway.ts'
import { get, parse, startGateway, startService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

async function three(): Promise<RunningService[]> {
  return Promise.all(['1', '2', '3'].map((name) => startService((_request, response) => response.end(name))))
}

async function gatewayOver(services: RunningService[], balance: object): Promise<RunningGateway> {
  return startGateway({
    listen: { trustProxy: ['127.0.0.1/32'] },
    mesh: { balance },
    services: { s: { instances: services.map(({ url }) => url) } },
    routes: [{ name: 's', match: { path: '/' }, service: 's' }]
  })
}

t.test('with the cookie, a client returns to the same instance', async (t) => {
  const services = await three()
  const gateway = await gatewayOver(services, { policy: 'maglev', hashOn: 'cookie:jw', cookieTtl: '1h' })
  t.teardown(async () => {
    await gateway.close()
    for (const service of services) await service.close()
  })
  for (let i = 0; i < 8; i++) {
    const first: ParsedResponse = await get(gateway.port, '/')
    const [pair] = /^jw=[0-9a-f]{16}/.exec(first.headers['set-cookie'] ?? '')!
    t.match(first.headers['set-cookie'], /; Path=\/; HttpOnly; SameSite=Lax; Max-Age=3600$/)
    const again = await get(gateway.port, '/', [`Cookie: a=1; ${pair}`])
    t.equal(again.body, first.body)
    t.equal(again.headers['set-cookie'], undefined)
  }
})

t.test('over TLS, to the gateway or to a trusted proxy before it, a sticky cookie is Secure', async (t) => {
  const services = await three()
  const url = services.map(({ url }) => url)
  const policy = { policy: 'maglev', hashOn: 'cookie:jw', cookieTtl: '1h' }
  const config = (tls?: object) => ({
    listen: { trustProxy: ['127.0.0.1/32'], ...(tls && { tls, http2: true }) },
    services: { s: { instances: url, mesh: { balance: policy } }, other: { instances: url } },
    routes: [
      { name: 's', match: { path: '/' }, service: 's' },
      { name: 'split', match: { path: '/split' }, split: [{ service: 's', weight: 1 }], stickOn: 'cookie:lane' },
      { name: 'one', match: { path: '/one' }, split: [{ service: 's', weight: 1 }], stickOn: 'cookie:jw' }
    ]
  })
  const plain = await startGateway(config())
  const secure = await startGateway(config(selfSigned(t)))
  t.teardown(async () => {
    await Promise.all([plain.close(), secure.close()])
    for (const service of services) await service.close()
  })
  const attributes = 'Path=/; HttpOnly; SameSite=Lax'
  const cookiesOf = (headers: Record<string, string>) => headers['set-cookie']!.split('\n').sort()
  for (const [path, names] of Object.entries({ '/': ['jw'], '/split': ['jw', 'lane'], '/one': ['jw'] })) {
    const expected = (scheme: string) =>
      names.map((name) => {
        const more = `${scheme === 'https' ? '; Secure' : ''}${name === 'jw' ? '; Max-Age=3600' : ''}`
        return new RegExp(`^${name}=[0-9a-f]{16}; ${attributes}${more}$`)
      })
    t.match(cookiesOf((await get(plain.port, path)).headers), expected('http'), `${path} in the clear`)
    for (const proto of ['https', 'HTTPS', 'wss']) {
      const { headers } = await get(plain.port, path, [`X-Forwarded-Proto: ${proto}`])
      t.match(cookiesOf(headers), expected('https'), `${path}, a proxy says ${proto}`)
    }
    t.match(cookiesOf(await overTls(secure.port, path)), expected('https'), `${path} over TLS`)
    t.match(cookiesOf(await overHttp2(secure.port, path)), expected('https'), `${path} over HTTP/2`)
    const behind = await overHttp2(secure.port, path, { 'x-forwarded-proto': 'http' })
    t.match(cookiesOf(behind), expected('http'), `${path}, the client came to a proxy in the clear`)
  }
  const untrusting = await startGateway({ ...config(), listen: {} })
  t.teardown(untrusting.close)
  const { headers } = await get(untrusting.port, '/', ['X-Forwarded-Proto: https'])
  t.notMatch(headers['set-cookie'], 'Secure', 'headers of untrusted clients are ignored')
})

/** The headers of a response, several of one name joined by a line feed. */
async function overTls(port: number, path: string): Promise<Record<string, string>> {
  const socket = tls.connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] })
  let received = ''
  socket.on('data', (chunk: Buffer) => {
    received += chunk.toString('latin1')
  })
  socket.write(`GET ${path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`)
  await once(socket, 'close')
  return parse(received).headers
}

async function overHttp2(port: number, path: string, more: object = {}): Promise<Record<string, string>> {
  const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  const stream = session.request({ ':path': path, ...more }).resume()
  const [headers] = (await once(stream, 'response')) as [Record<string, string | string[]>]
  await once(stream, 'close')
  session.close()
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, [value].flat().join('\n')]))
}

t.test("a sticky key can be the client's address, as far as its proxy is trusted", async (t) => {
  const services = await three()
  const gateway = await gatewayOver(services, { policy: 'ring-hash', hashOn: 'ip', maxLoad: '150%' })
  t.teardown(async () => {
    await gateway.close()
    for (const service of services) await service.close()
  })
  const homes: string[] = []
  for (let i = 0; i < 60; i++) homes.push((await get(gateway.port, '/', [`X-Forwarded-For: 203.0.113.${i}`])).body)
  t.equal(new Set(homes).size, 3)
  for (const i of [0, 9, 30]) {
    t.equal((await get(gateway.port, '/', [`X-Forwarded-For: 203.0.113.${i}`])).body, homes[i])
  }
})
