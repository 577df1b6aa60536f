/** TLS of a listener that persists over reloads: a new configuration is applied without a restart. */
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import type { TlsOptions } from '../../../../config/schema/tls.ts'
import { refusalOf } from '../../../../plugins/edge/protocol/tls/client-certificate.ts'
import { ListenerTls } from '../../../../plugins/edge/protocol/tls/listener-tls.ts'
import { authority } from '../../../helpers/certificates.ts'
import { configOf } from '../../../helpers/gateway.ts'
import { askOver, scene, sessionTo, shake } from './support.ts'

/** `listen.tls` as the loader completes it. */
const tlsOf = (tls: object): TlsOptions => configOf({ listen: { tls } }).listen.tls!

/** Applies another configuration. */
const take = async (tls: ListenerTls, options: TlsOptions) => (await tls.prepare(options))()

/** A server that enforces the rules of the requested hosts. */
async function serving(t: Test, options: object) {
  const tls = new ListenerTls('public', tlsOf(options))
  const server = http2.createSecureServer({ ...tls.serverOptions(), allowHTTP1: true }, (request, response) => {
    const host = String(request.headers[':authority'] ?? request.headers.host)
    response.statusCode = refusalOf(request.socket, tls.rules.of(host)) === null ? 200 : 421
    response.end('ok')
  })
  const lines: string[] = []
  const note = (_fields: object, message: string) => void lines.push(message)
  tls.attach(server, { log: { info: note, warn: note, error: note }, reloaded: () => {} })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    tls.detach(server)
    server.close()
  })
  return { tls, server, port: (server.address() as AddressInfo).port, lines }
}

t.test('certificates, versions and client certificates change for new handshakes only', async (t) => {
  const { issue, folder } = scene(t)
  const one = authority(folder, 'one')
  const [first, second] = [issue('first', ['a.example']), issue('second', ['b.example'])]
  const [alice, pair] = [one.issue('alice'), (each: typeof first) => ({ cert: each.certFile, key: each.keyFile })]
  const { tls, port } = await serving(t, pair(first))
  const session = await sessionTo(t, port, { servername: 'a.example' })
  t.match(await shake(port, { servername: 'b.example', maxVersion: 'TLSv1.2' }), { shown: 'first', status: 200 })

  await take(tls, tlsOf({ ...pair(first), certificates: [pair(second)], minVersion: 'TLSv1.3', ca: one.file }))
  t.match(await shake(port, { servername: 'b.example' }), { status: 0 })
  const { cert, key } = alice
  t.match(await shake(port, { servername: 'b.example', cert, key }), { shown: 'second', status: 200 })
  t.match(await shake(port, { servername: 'b.example', cert, key, maxVersion: 'TLSv1.2' }), { status: 0 })
  t.notOk(session.destroyed)
  t.match(tls.status(), [
    { listener: 'public', certificate: first.certFile, isDefault: true },
    { listener: 'public', certificate: second.certFile, isDefault: false }
  ])

  await take(tls, tlsOf({ certificates: [pair(second)], strict: true }))
  t.match(await shake(port, { servername: 'b.example', maxVersion: 'TLSv1.2' }), { shown: 'second', status: 200 })
  t.match(await shake(port, { servername: 'a.example' }), { status: 0 })
  t.equal(tls.status().length, 1)
})

t.test('open connections serve hosts whose rules have not changed', async (t) => {
  const { issue, folder } = scene(t)
  const one = authority(folder, 'one')
  const main = issue('main', ['*.example'])
  const pair = { cert: main.certFile, key: main.keyFile }
  const { tls, port } = await serving(t, pair)
  const session = await sessionTo(t, port, { servername: 'www.example' })
  const unnamed = await sessionTo(t, port)
  const statuses = async (host: string) =>
    Promise.all([session, unnamed].map(async (each) => (await askOver(each, host)).status))
  t.strictSame(await statuses('admin.example'), [200, 200])
  await take(tls, tlsOf({ ...pair, hosts: [{ names: ['admin.example'], clientCertificate: { ca: one.file } }] }))
  t.strictSame(await statuses('www.example'), [200, 200])
  t.strictSame(await statuses('admin.example'), [421, 421])
  await take(tls, tlsOf({ ...pair, hosts: [{ names: ['other.example'], clientCertificate: { ca: one.file } }] }))
  t.strictSame(await statuses('admin.example'), [200, 200])
})

t.test('an invalid configuration changes nothing', async (t) => {
  const { issue, folder } = scene(t)
  const first = issue('first')
  const { tls, port } = await serving(t, { cert: first.certFile, key: first.keyFile })
  const broken = { ...tlsOf({ cert: first.certFile, key: first.keyFile }), cert: folder }
  await t.rejects(tls.prepare(broken), { message: /^listen\.tls: .* cannot be read: .* is not a file$/ })
  t.match(await shake(port), { shown: 'first', status: 200 })
  t.match(tls.status(), [{ certificate: first.certFile, error: null }])
})

t.test('two listeners are independent', async (t) => {
  const { issue, folder } = scene(t)
  const one = authority(folder, 'one')
  const [first, second] = [issue('first'), issue('second')]
  const open = await serving(t, { cert: first.certFile, key: first.keyFile })
  const closed = await serving(t, { cert: second.certFile, key: second.keyFile, ca: one.file, minVersion: 'TLSv1.3' })
  const { cert, key } = one.issue('alice')
  t.match(await shake(open.port), { shown: 'first', status: 200 })
  t.match(await shake(closed.port), { status: 0 })
  t.match(await shake(closed.port, { cert, key }), { shown: 'second', status: 200 })
})
