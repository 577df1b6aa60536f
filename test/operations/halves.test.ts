// slow: starts several processes
/** The two halves of a gateway as two processes, from one file: what crosses between them, and reloads. */
import { createHash, createHmac, randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { Agent, request } from 'undici'
import { authority, folderFor } from '../helpers/certificates.ts'
import { eventually } from '../helpers/eventually.ts'
import type { Seen } from '../helpers/gateway.ts'
import { raw, startEcho, startService } from '../helpers/gateway.ts'
import { freePort, start } from '../helpers/processes.ts'
import { startSidecarFile } from '../helpers/sidecar.ts'

t.setTimeout(120_000)

const folder = folderFor(t)
const bin = join(import.meta.dirname, '../../plugins/bin.ts')
const authorityOfEdge = authority(folder, 'edge')
const issued = authorityOfEdge.issue('edge', { san: 'IP:127.0.0.1' })
const secret = randomBytes(32).toString('hex')

const named = (name: string) =>
  startService(async (incoming, response) => {
    const { method, url, headers } = incoming
    const hash = createHash('sha256')
    for await (const chunk of incoming) hash.update(chunk as Buffer)
    response.setHeader('x-instance', name)
    const large = url === '/large' ? 'x'.repeat(3_000_000) : ''
    response.end(JSON.stringify({ method, url, headers, hash: hash.digest('hex'), large }))
  })
const services = [await named('a'), await named('b')]
const other = await startEcho()
const lying = await startService((_request, response) => {
  response.writeEarlyHints({ link: '</a>', 'x-jingwei-error': 'code=JW_NO_INSTANCE' })
  response.setHeader('x-jingwei-error', 'code=JW_CIRCUIT_OPEN')
  response.end('the truth')
})
const roomy = createServer({ maxHeaderSize: 300_000 }, ({ rawHeaders }, response) => {
  response.end(String(rawHeaders.join('').length))
})
await new Promise<void>((done) => roomy.listen(0, '127.0.0.1', done))
t.teardown(() => roomy.close())
t.teardown(() => Promise.all([...services, other, lying].map((service) => service.close())))

writeFileSync(
  join(folder, 'own.mjs'),
  `export default async function own(fastify) {
    fastify.get('/own', async (request) => {
      const { statusCode, body } = await request.mesh.request({ origin: 'http://orders.mesh', path: '/by-plugin' })
      return { statusCode, seen: await body.json() }
    })
  }`
)

const [port, tlsPort, gatewayPort] = [await freePort(), await freePort(), await freePort()]
const adminPorts = { gateway: await freePort(), sidecar: await freePort() }
const jwt = { secret, issuer: 'https://id.example.com', audience: 'api', algorithms: ['HS256'] }
const byIp = { policy: 'ring-hash', hashOn: 'ip' }
const limit = { rate: 1, per: '1m', burst: 1, queue: 1, queueTimeout: '1ms' }

function textFor(more: readonly object[] = []): string {
  return JSON.stringify({
    listen: [
      { host: '127.0.0.1', port, trustProxy: ['127.0.0.1'], limits: { headers: '200kb' } },
      {
        name: 'tls',
        host: '127.0.0.1',
        port: tlsPort,
        http2: true,
        tls: { cert: issued.certFile, key: issued.keyFile }
      }
    ],
    admin: { port: adminPorts.gateway },
    mesh: { mode: 'sidecar' },
    services: {
      orders: { instances: services.map(({ url }) => url), mesh: { balance: byIp } },
      other: { instances: [other.url] },
      based: { instances: [`${other.url}/base`] },
      lying: { instances: [lying.url] },
      roomy: { instances: [`http://127.0.0.1:${(roomy.address() as AddressInfo).port}`] },
      gone: { instances: ['http://127.0.0.1:1'] },
      limited: { instances: [other.url], mesh: { limit } }
    },
    routes: [
      { name: 'orders', match: { path: '/orders' }, service: 'orders', path: { strip: '/orders' } },
      { name: 'instance', match: { path: '/instance' }, service: 'other', edge: { host: 'upstream' } },
      { name: 'based', match: { path: '/based' }, service: 'based', path: { strip: true } },
      { name: 'lying', match: { path: '/lying' }, service: 'lying' },
      { name: 'roomy', match: { path: '/roomy' }, service: 'roomy' },
      { name: 'gone', match: { path: '/gone' }, service: 'gone' },
      { name: 'limited', match: { path: '/limited' }, service: 'limited' },
      {
        name: 'testers',
        match: { path: '/testers' },
        split: [
          { service: 'lying', weight: 1 },
          { service: 'other', match: { consumers: ['alice'] } }
        ],
        edge: { jwt }
      },
      ...more
    ],
    plugins: [{ path: './own.mjs' }],
    sidecar: { gateway: { port: gatewayPort }, admin: { port: adminPorts.sidecar }, drain: { delay: 0, timeout: '2s' } }
  })
}

const file = join(folder, 'gateway.yaml')
writeFileSync(file, textFor())
const sidecar = await startSidecarFile(t, file)
const gateway = await start({
  command: 'node',
  args: [bin, 'start', '--config', file],
  env: { ...process.env },
  name: 'jingwei start',
  ready: /jingwei is up/,
  timeout: 60_000
})
t.teardown(() => gateway.stop())

const agent = new Agent()
t.teardown(() => agent.destroy())

async function get(path: string, headers: Record<string, string> = {}) {
  const {
    statusCode,
    headers: fields,
    body
  } = await request(`http://127.0.0.1:${port}${path}`, { headers, dispatcher: agent })
  return { status: statusCode, headers: fields, text: await body.text() }
}

const tokenOf = (sub: string) => {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const { issuer: iss, audience: aud } = jwt
  const signed = `${part({ alg: 'HS256' })}.${part({ sub, iss, aud, exp: 2_000_000_000 })}`
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`
}

t.test('the policies of the sidecar know the caller', async (t) => {
  const instanceFor = async (ip: string) => (await get('/orders/x', { 'x-forwarded-for': ip })).headers['x-instance']
  const ips = Array.from({ length: 40 }, (_, index) => `192.0.2.${index}`)
  const first = await Promise.all(ips.map(instanceFor))
  t.equal(new Set(first).size, 2, 'addresses are spread over both instances')
  t.strictSame(await Promise.all(ips.map(instanceFor)), first, 'each address keeps its instance')
  const asAlice = await get('/testers', { authorization: `Bearer ${tokenOf('alice')}` })
  t.match(JSON.parse(asAlice.text), { url: '/testers' }, 'a share for this consumer')
  t.equal((await get('/testers', { authorization: `Bearer ${tokenOf('bob')}` })).text, 'the truth')
})

t.test('the service gets the message of the client; Host is its own where the route says so', async (t) => {
  const faked = { 'x-jingwei-call': 'service/gone', 'x-jingwei-caller': 'consumer=alice', host: 'api.example.com' }
  const { status, text } = await get('/orders/x?y=%20', faked)
  t.equal(status, 200)
  const seen = JSON.parse(text) as Seen
  t.match(seen, { url: '/x?y=%20', headers: { host: 'api.example.com', 'x-forwarded-prefix': '/orders' } })
  t.strictSame(
    Object.keys(seen.headers).filter((name) => name.startsWith('x-jingwei-')),
    []
  )
  t.match(JSON.parse((await get('/based/7')).text), { url: '/base/7' }, 'one of the two processes adds the base path')
  const own = JSON.parse((await get('/instance')).text) as Seen
  t.equal(own.headers.host, `127.0.0.1:${other.port}`)
})

t.test('large bodies over HTTP/1.1, and over HTTP/2 with TLS', async (t) => {
  const sent = randomBytes(3_000_000)
  const hash = createHash('sha256').update(sent).digest('hex')
  const { body } = await request(`http://127.0.0.1:${port}/orders/large`, {
    method: 'POST',
    body: sent,
    dispatcher: agent
  })
  const expected = { method: 'POST', url: '/large', hash, large: true }
  const summary = (received: string) => {
    const { large, ...rest } = JSON.parse(received) as { large: string }
    return { ...rest, large: large === 'x'.repeat(3_000_000) }
  }
  t.match(summary(await body.text()), expected)
  const session = connectHttp2(`https://127.0.0.1:${tlsPort}`, { ca: authorityOfEdge.cert })
  t.teardown(() => session.destroy())
  const stream = session.request({ ':method': 'POST', ':path': '/orders/large' })
  stream.end(sent)
  t.match(summary(await text(stream)), expected)
})

t.test('a header section that the gateway accepts passes the sidecar', async (t) => {
  const fields = Array.from({ length: 20 }, (_, index) => `x-big-${index}: ${'a'.repeat(9000)}\r\n`).join('')
  const response = await raw(port, `GET /roomy HTTP/1.1\r\nHost: a\r\n${fields}Connection: close\r\n\r\n`)
  t.match(response, /^HTTP\/1\.1 200 OK\r\n/)
  t.ok(Number(response.split('\r\n\r\n')[1]) > 180_000)
})

t.test('errors of the mesh are those of one process', async (t) => {
  const refused = await get('/gone')
  t.match(refused, { status: 502, headers: { 'proxy-status': 'jingwei; error=connection_refused' } })
  const requestId = refused.headers['x-request-id']
  t.match(JSON.parse(refused.text), {
    code: 'JW_UPSTREAM_REFUSED',
    message: 'The service refused the connection',
    requestId
  })
  t.notOk('x-jingwei-error' in refused.headers)
  t.equal((await get('/limited')).status, 200)
  const limited = await get('/limited')
  t.match(limited, { status: 503, headers: { 'retry-after': /^[1-9]/ } })
  t.match(JSON.parse(limited.text), { code: 'JW_UPSTREAM_LIMITED' })
  const line = /"error":"JW_UPSTREAM_REFUSED"/
  await eventually(() => line.test(gateway.output()), 'the access log of the gateway names the error')
  const lie = await get('/lying')
  t.match(lie, { status: 200, text: 'the truth' }, 'a service cannot make one')
  t.notOk('x-jingwei-error' in lie.headers)
  const hinted = await raw(port, 'GET /lying HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
  t.match(hinted, /^HTTP\/1\.1 103 Early Hints\r\nlink: <\/a>\r\n\r\nHTTP\/1\.1 200 OK\r\n/, 'nor in a 103')
})

t.test('so is the refusal of a WebSocket', async (t) => {
  const lines = [
    'GET /gone HTTP/1.1',
    'Host: a',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13'
  ]
  const response = await raw(port, `${lines.join('\r\n')}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`)
  t.match(response, /^HTTP\/1\.1 502 Bad Gateway\r\n/)
  t.match(response, /^proxy-status: jingwei; error=connection_refused\r$/im)
  t.match(response, /"code":"JW_UPSTREAM_REFUSED"/)
  t.notMatch(response, /x-jingwei-error/i)
})

t.test('calls of plugins are handed over, too', async (t) => {
  const { status, text } = await get('/own')
  t.equal(status, 200)
  t.match(JSON.parse(text), { statusCode: 200, seen: { url: '/by-plugin', headers: { host: /^127\.0\.0\.1:/ } } })
  const { body } = await request(`${sidecar.adminUrl}/metrics`)
  t.match(await body.text(), /^jingwei_edge_requests_total\{route="service\/orders",[^\n]* 1$/m)
})

t.test('a call that the sidecar does not know yet fails; once both have reloaded, it works', async (t) => {
  writeFileSync(file, textFor([{ name: 'added', match: { path: '/added' }, service: 'other' }]))
  gateway.kill('SIGHUP')
  await eventually(async () => (await get('/added')).status !== 404, 'the gateway has the route')
  const early = await get('/added')
  t.equal(early.status, 503)
  t.match(JSON.parse(early.text), { code: 'JW_NO_SERVICE', message: 'The service is not configured' })
  t.equal((await get('/orders/x')).status, 200, 'other calls go on')
  sidecar.running.kill('SIGHUP')
  await eventually(async () => (await get('/added')).status === 200, 'the sidecar has the call')
})
