// slow: takes about 20 s
/** The listener for services of the mesh, with a scripted Consul: certificates, their changes, decisions, direction. */
import { once } from 'node:events'
import type http from 'node:http'
import https from 'node:https'
import type { ConnectionOptions } from 'node:tls'
import tls from 'node:tls'
import t from 'tap'
import { ConnectionCaller } from '../../../../plugins/edge/protocol/inbound/caller.ts'
import { eventually } from '../../../helpers/eventually.ts'
import {
  domain,
  first,
  intention,
  issued,
  leafPath,
  matchPath,
  ok,
  scene,
  second,
  shows,
  uriOf,
  web
} from './inbound-support.ts'

/** Returns the extension subjectAltName with one URI of any bytes, which the syntax of OpenSSL's names does not allow. */
function uriOfBytes(text: string): string {
  const tagged = (tag: number, bytes: Buffer) => Buffer.concat([Buffer.from([tag, bytes.length]), bytes])
  return `DER:${tagged(0x30, tagged(0x86, Buffer.from(text, 'latin1'))).toString('hex')}`
}

t.test('names that Consul does not have', async (t) => {
  const { ask } = await scene(t)
  const names = [
    'web;By=spiffe:evil;Subject="CN=admin"', 'web,By=a', 'w"b', 'w\\b', "w'b", 'we\x01b', 'web\x00', 'we\x7fb', 'we\xffb', 'web=a', '*',
    'web%3bBy=a', 'w%2cb', 'w%22b', 'w%00b', 'w%0d%0aX', 'w%2fb', 'w%7fb', 'w%C2%85b', '%E2%80%AE', '%E2%80%A8', 'web, URI:x'
  ] // biome-ignore format: a list
  for (const [index, name] of names.entries()) {
    const certificate = first.issue(`odd${index}`, { san: uriOfBytes(uriOf(name)) })
    t.notMatch(await ask(shows(certificate)), 'HTTP', JSON.stringify(name))
  }
  for (const name of ['web_2.a-b', 'a%20b', 'caf%C3%A9']) {
    const certificate = first.issue(`plain-${name.replaceAll('%', '')}`, { san: uriOfBytes(uriOf(name)) })
    t.match(await ask(shows(certificate)), ok, name)
  }
})

t.test('values of x-forwarded-client-cert with separators are quoted', (t) => {
  const callers = (own: string, id: string) =>
    new ConnectionCaller(() => null, { id, service: 'web' }, { own, hash: 'HASH' }).forwarded
  t.equal(callers('spiffe://a/svc/b', 'spiffe://a/svc/c'), 'By=spiffe://a/svc/b;Hash=HASH;URI=spiffe://a/svc/c')
  t.equal(callers('a,b', 'x;By="y"'), 'By="a,b";Hash=HASH;URI="x;By=\\"y\\""')
  t.equal(callers('a=b', 'x\\'), 'By="a=b";Hash=HASH;URI="x\\\\"')
  t.end()
})

for (const http2 of [false, true]) {
  t.test(`certificates of callers, with http2: ${http2}`, async (t) => {
    const { ask, metrics, admin } = await scene(t, { http2 })
    t.match(await ask(shows(web)), ok)
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      const refused: [what: string, options: ConnectionOptions][] = [
        ['no certificate', {}],
        ['of another authority', shows(issued(second, 'web'))],
        ['without a name', shows(first.issue('nobody'))],
        ['another trust domain', shows(issued(first, 'far', `URI:${uriOf('web', 'other.consul')}`))],
        ['two URIs', shows(issued(first, 'two', `URI:${uriOf('web')},URI:${uriOf('batch')}`))],
        ['not a service', shows(issued(first, 'agent', `URI:spiffe://${domain}/agent/client/dc/dc1/id/node1`))],
        ['a DNS name alone', shows(issued(first, 'dns', 'DNS:web'))]
      ]
      for (const [what, options] of refused) t.notMatch(await ask({ maxVersion, ...options }), 'HTTP', what)
    }
    const counted = /^jingwei_edge_refused_total\{reason="client-certificate",listener="mesh"\} (\d+)$/m
    t.equal(Number(counted.exec(await metrics())?.[1]), 14)
    t.match(await ask(shows(web)), ok, 'still serves')
    const { body } = await admin('/admin/listeners')
    t.match(body, [
      { name: 'public', direction: 'north-south', tls: false },
      {
        name: 'mesh',
        direction: 'east-west',
        tls: true,
        http2,
        connect: { service: 'jingwei', spiffeId: uriOf('jingwei'), error: null, rules: [], otherwise: 'allowed' }
      }
    ])
    t.match(
      await metrics(),
      /^jingwei_edge_certificate_expiry_timestamp_seconds\{listener="mesh",certificate="connect:jingwei"\} \d+$/m
    )
  })
}

t.test('ALPN is not trusted: the first bytes show the protocol', async (t) => {
  for (const http2 of [false, true]) {
    const { ask } = await scene(t, { http2 })
    for (const ALPNProtocols of [['h2'], ['http/1.1'], ['h2', 'http/1.1'], undefined]) {
      t.match(await ask({ ...shows(web), ...(ALPNProtocols && { ALPNProtocols }) }), ok, `${http2} ${ALPNProtocols}`)
    }
  }
})

t.test('the first bytes arrive one by one, and a silent connection is closed', async (t) => {
  const { port } = await scene(t, { http2: true, listen: { timeouts: { headers: '1s' } } })
  const socket = tls.connect({
    port,
    host: '127.0.0.1',
    rejectUnauthorized: false,
    ALPNProtocols: ['h2'],
    ...shows(web)
  })
  await once(socket, 'secureConnect')
  // P of PATCH, and of HTTP/2's PRI.
  for (const byte of 'PATCH / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n') {
    socket.write(byte)
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.match(Buffer.concat(await socket.toArray()).toString(), ok)
  const silent = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...shows(web) })
  silent.on('error', () => {})
  await once(silent, 'secureConnect')
  await once(silent, 'close')
})

t.test('no handshake before the certificate has arrived; readiness waits for certificate and rules', async (t) => {
  const { ask, say, admin, ready } = await scene(t, { isReady: false })
  t.notMatch(await ask(shows(web)), 'HTTP')
  t.match(await admin('/health/ready'), { status: 503, body: { status: 'discovering', waitingFor: ['listener mesh'] } })
  say.leaf(first)
  say.roots(first)
  await eventually(async () => /^HTTP/.test(await ask(shows(web))), 'a handshake')
  t.match(await ask(shows(web)), /^HTTP\/1\.1 503 .*retry-after: 1\r.*JW_CALLER_UNDECIDED/s, 'fails closed')
  t.match(await admin('/health/ready'), { status: 503, body: { listeners: { mesh: { error: /500/ } } } })
  say.rules()
  say.otherwise(true)
  await ready()
  t.match(await ask(shows(web)), ok)
})

t.test('whenUnknown: allow', async (t) => {
  const { ask, say } = await scene(t, { isReady: false, connect: { whenUnknown: 'allow' } })
  say.leaf(first)
  say.roots(first)
  await eventually(async () => ok.test(await ask(shows(web))), 'a response')
  say.rules(intention('web', 'deny'))
  say.otherwise(true)
  await eventually(async () => /^HTTP\/1\.1 403/.test(await ask(shows(web))), 'the denial, once known')
})

t.test('decisions by precedence; they apply to open connections; the last ones stay', async (t) => {
  const { ask, say, port, consul } = await scene(t)
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false, ...shows(web) })
  t.teardown(() => agent.destroy())
  let connections = 0
  const again = async () => {
    const request = https.request({ port, host: '127.0.0.1', agent }).end()
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    if (!request.reusedSocket) connections++
    await response.toArray()
    return response.statusCode
  }
  const becomes = (status: number) => eventually(async () => (await again()) === status, `${status}`)
  t.equal(await again(), 200)
  say.rules(intention('web', 'deny'))
  await becomes(403)
  t.match(await ask(shows(issued(first, 'batch'))), ok, 'by default')
  say.rules(intention('*', 'deny', 8), intention('web', 'allow'))
  await becomes(200)
  t.match(await ask(shows(issued(first, 'batch'))), /^HTTP\/1\.1 403 .*JW_CALLER_DENIED/s)
  say.rules(intention('web', 'allow', 9, { SourceNS: 'other' }), intention('*', 'deny', 8))
  await becomes(403)
  say.rules(intention('web', '', 9, { Permissions: [{ Action: 'allow', HTTP: { PathPrefix: '/' } }] }))
  await becomes(403)
  say.rules(intention('web', 'deny', 9, { SourcePeer: 'cluster-02' }))
  await becomes(200)
  say.rules()
  say.otherwise(false)
  await becomes(403)
  say.rules(intention('web', 'allow'))
  await becomes(200)
  consul.respond(matchPath, 'no leader', null, 500)
  const before = consul.requests.length
  await eventually(() => consul.requests.length > before + 1, 'failed queries')
  t.equal(await again(), 200, 'the last known ones')
  t.match(await ask(shows(issued(first, 'batch'))), /^HTTP\/1\.1 403/)
  t.equal(connections, 1, 'all on one connection')
})

t.test('certificate and roots are replaced while the listener runs', async (t) => {
  const { port, say, ask } = await scene(t)
  const shown = () =>
    new Promise<string>((resolve, reject) => {
      const options = { port, host: '127.0.0.1', rejectUnauthorized: false, ...shows(web) }
      const socket = tls.connect(options, () => {
        resolve(socket.getPeerX509Certificate()!.toString())
        socket.destroy()
      })
      socket.once('error', reject)
    })
  const open = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...shows(web) })
  await once(open, 'secureConnect')
  const theirs = shows(issued(second, 'web'))
  t.notMatch(await ask(theirs), 'HTTP')
  say.roots(second, first)
  await eventually(async () => ok.test(await ask(theirs)), 'the second root')
  t.match(await ask(shows(web)), ok, 'the first one is still trusted')
  const renewed = say.leaf(second)
  await eventually(async () => (await shown()).trim() === renewed.trim(), 'the new leaf')
  say.roots(second)
  await eventually(async () => !ok.test(await ask(shows(web))), 'the first root is gone')
  open.write('GET / HTTP/1.1\r\nhost: jingwei\r\nconnection: close\r\n\r\n')
  t.match(Buffer.concat(await open.toArray()).toString(), ok, 'open connections continue')
})

t.test('a reload keeps the identity, and may change the service; its presence needs a restart', async (t) => {
  const { ask, say, reload, sections, consul, port, admin } = await scene(t)
  const before = consul.requests.filter((url) => url.startsWith(leafPath('jingwei'))).length
  t.match(await reload({ ...sections(), watch: false }), { applied: true })
  t.match(await ask(shows(web)), ok)
  t.equal(
    consul.requests.filter((url) => url.startsWith(leafPath('jingwei'))).length,
    before,
    'Consul receives no further request for the leaf'
  )
  say.leaf(first, 'front')
  consul.respond(matchPath, { jingwei: [], front: [intention('web', 'deny', 9, { DestinationName: 'front' })] })
  t.match(await reload(sections({ service: 'front' })), { applied: true })
  const name = () =>
    new Promise<string>((resolve) => {
      const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...shows(web) }, () => {
        resolve(String(socket.getPeerCertificate().subjectaltname))
        socket.destroy()
      })
    })
  await eventually(async () => (await name()) === `URI:${uriOf('front')}`, 'the other certificate')
  await eventually(async () => /^HTTP\/1\.1 403/.test(await ask(shows(web))), 'its intentions')
  const { listen, ...rest } = sections()
  const plain = listen.map((listener) => ({ ...listener, connect: undefined }))
  const { applied, faults } = await reload({ ...rest, listen: plain })
  t.equal(applied, false)
  t.match(faults, [{ path: 'listen[1]', message: /restart/ }])
  t.match((await admin('/admin/listeners')).body[1], { connect: { service: 'front' } })
})

t.test('direction: metrics, explain and separate counters of limits', async (t) => {
  const edge = { rateLimit: { max: 2, window: '1h' } }
  const { ask, portOf, metrics, admin } = await scene(t, { edge })
  const statuses = async (send: () => Promise<number>) => [await send(), await send(), await send()]
  const byClient = async () => (await fetch(`http://127.0.0.1:${portOf('public')}/`)).status
  const byService = async () => Number(/^HTTP\/1\.1 (\d+)/.exec(await ask(shows(web)))![1])
  t.same(await statuses(byService), [200, 200, 429])
  t.same(await statuses(byClient), [200, 200, 429], 'of the same address')
  const text = await metrics()
  for (const direction of ['north-south', 'east-west']) {
    t.match(text, `jingwei_edge_requests_total{route="all",method="GET",status="200",direction="${direction}"} 2`)
    t.match(text, `jingwei_edge_request_duration_seconds_count{route="all",direction="${direction}"} 3`)
  }
  const { body } = await admin('/admin/explain?path=/x&listener=mesh')
  t.match(body, { request: { listener: 'mesh', direction: 'east-west' } })
  t.ok(body.edge.includes('mesh-caller'))
  t.match((await admin('/admin/routes')).body, [{ directions: ['north-south', 'east-west'] }])
})
