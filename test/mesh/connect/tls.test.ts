/** TLS to a service's instances: trusted peers, client certificates, and attempts to bypass verification. */
import { randomBytes } from 'node:crypto'
import t from 'tap'
import { alternativeNames } from '../../../plugins/alternative-names.ts'
import { authority, folderFor } from '../../helpers/certificates.ts'
import { service } from '../../helpers/mesh/mesh.ts'
import { startMesh } from '../../helpers/mesh/start-mesh.ts'
import { call, calling, logged, secure } from './support.ts'

const folder = folderFor(t)
const ours = authority(folder, 'ours')
const theirs = authority(folder, 'theirs')
const good = ours.issue('good', { san: 'DNS:orders.internal,IP:127.0.0.1' })

t.test('an instance with an address is trusted by a configured authority', async (t) => {
  const { url, handshakes } = await secure(t, good)
  t.equal(await call(calling(t, url, { ca: ours.file })), 'hello')
  t.match(handshakes, [{ sni: false, client: undefined, protocol: 'TLSv1.3' }])
})

t.test("without a configured authority, those of Node are trusted, which do not include the test's", async (t) => {
  const { url, handshakes } = await secure(t, good)
  for (const tls of [undefined, {}]) {
    t.equal(await call(calling(t, url, tls)), 'JW_UPSTREAM_UNTRUSTED')
  }
  t.equal(await call(calling(t, url, { ca: theirs.file })), 'JW_UPSTREAM_UNTRUSTED')
  t.ok(handshakes.length <= 3)
})

t.test('no environment switches the verification off', async (t) => {
  const { url } = await secure(t, good)
  const before = process.env.NODE_TLS_REJECT_UNAUTHORIZED
  process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'
  t.teardown(() => {
    if (before === undefined) delete process.env.NODE_TLS_REJECT_UNAUTHORIZED
    else process.env.NODE_TLS_REJECT_UNAUTHORIZED = before
  })
  t.equal(await call(calling(t, url, { ca: theirs.file })), 'JW_UPSTREAM_UNTRUSTED')
  t.equal(await call(calling(t, url, undefined)), 'JW_UPSTREAM_UNTRUSTED')
})

t.test('an expired certificate is not trusted', async (t) => {
  const { url } = await secure(t, ours.issue('expired', { san: 'IP:127.0.0.1', days: -1 }))
  t.equal(await call(calling(t, url, { ca: ours.file })), 'JW_UPSTREAM_UNTRUSTED')
})

t.test('a certificate that cannot be verified is logged once, and so is its recovery', async (t) => {
  const { url, server } = await secure(t, ours.issue('late', { san: 'IP:127.0.0.1', days: -1 }))
  const { log, lines } = logged()
  const mesh = calling(t, url, { ca: ours.file }, { log })
  const reports = () => lines.filter(({ message }) => message.startsWith('certificate of https:'))
  for (let i = 0; i < 3; i++) t.equal(await call(mesh), 'JW_UPSTREAM_UNTRUSTED')
  const about = { service: 'orders', instance: url }
  t.match(reports(), [{ level: 'error', fields: { ...about, cause: 'CERT_HAS_EXPIRED' } }])
  t.equal(reports().length, 1)
  server.setSecureContext(good)
  for (let i = 0; i < 3; i++) t.equal(await call(mesh), 'hello')
  t.match(reports().slice(1), [{ level: 'info', fields: about }])
  t.equal(reports().length, 2)
})

t.test('a certificate of another host is not trusted, whatever the Host header is', async (t) => {
  const { url, handshakes } = await secure(t, ours.issue('elsewhere', { san: 'DNS:elsewhere.internal' }))
  const mesh = calling(t, url, { ca: ours.file })
  t.equal(await call(mesh), 'JW_UPSTREAM_UNTRUSTED')
  t.equal(await call(mesh, { host: 'elsewhere.internal' }), 'JW_UPSTREAM_UNTRUSTED')
  t.ok(handshakes.every(({ sni }) => sni === false))
})

t.test('serverName is sent as SNI, and is the name that the certificate must have', async (t) => {
  const { url, handshakes } = await secure(t, ours.issue('named', { san: 'DNS:orders.internal' }))
  const mesh = calling(t, url, { ca: ours.file, serverName: 'orders.internal' })
  t.equal(await call(mesh, { host: 'shop.example.com' }), 'hello')
  t.equal(await call(mesh, { host: 'other.example.com' }), 'hello')
  t.ok(handshakes.length > 0 && handshakes.every(({ sni }) => sni === 'orders.internal'))
  const wrong = calling(t, url, { ca: ours.file, serverName: 'users.internal' })
  t.equal(await call(wrong), 'JW_UPSTREAM_UNTRUSTED')
})

t.test('san: the certificate must have one of the names instead of the host', async (t) => {
  const uri = 'spiffe://example.org/orders'
  const { url, handshakes } = await secure(t, ours.issue('spiffe', { san: `URI:${uri},DNS:*.orders.internal` }))
  const to = (san: string[], more = {}) => call(calling(t, url, { ca: ours.file, san, ...more }))
  t.equal(await to([uri]), 'hello')
  t.equal(await to(['spiffe://example.org/users', uri]), 'hello')
  t.equal(await to(['a.orders.internal']), 'hello', 'a wildcard of the certificate')
  t.equal(await to(['spiffe://example.org/orders/']), 'JW_UPSTREAM_UNTRUSTED')
  t.equal(await to(['spiffe://example.org/order']), 'JW_UPSTREAM_UNTRUSTED')
  t.equal(await to(['127.0.0.1']), 'JW_UPSTREAM_UNTRUSTED')
  t.equal(await to(['users.internal']), 'JW_UPSTREAM_UNTRUSTED')
  t.equal(await to([uri], { serverName: 'lb.internal' }), 'hello', 'serverName sets the SNI')
  t.equal(handshakes.at(-1)!.sni, 'lb.internal')
})

t.test('san: the common name is ignored', async (t) => {
  const { url } = await secure(t, ours.issue('bare', { cn: 'orders.internal' }))
  t.equal(await call(calling(t, url, { ca: ours.file, san: ['orders.internal'] })), 'JW_UPSTREAM_UNTRUSTED')
})

t.test('san: the authority is still verified', async (t) => {
  const { url } = await secure(t, theirs.issue('same', { san: 'DNS:orders.internal' }))
  t.equal(await call(calling(t, url, { ca: ours.file, san: ['orders.internal'] })), 'JW_UPSTREAM_UNTRUSTED')
})

t.test('names in quotes cannot pass for two', async (t) => {
  t.strictSame(alternativeNames('DNS:"a, URI:spiffe://x", IP Address:10.0.0.1, DNS:b'), {
    DNS: ['a, URI:spiffe://x', 'b'],
    'IP Address': ['10.0.0.1']
  })
  for (const odd of ['othername:XmppAddr:"a, URI:spiffe://x"', 'DNS:a"b', 'nothing', undefined, '']) {
    t.strictSame(alternativeNames(odd), {}, `${odd}`)
  }
})

t.test('a call to an instance with another identity is retried elsewhere', async (t) => {
  const wrong = await secure(t, ours.issue('wrong', { san: 'DNS:users.internal' }))
  const right = await secure(t, good)
  const retry = { attempts: 1, on: ['connect-failure'], methods: ['GET'], backoff: { base: 1, max: 1 }, budget: 1 }
  const tls = { ca: ours.file, san: ['orders.internal'], minVersion: 'TLSv1.2' as const }
  const policy = { tls, retry: { idempotencyKey: true, maxBody: 1000, ...retry } as never }
  const mesh = startMesh({ services: { orders: service('orders', [wrong.url, right.url], policy) } })
  t.teardown(() => mesh.destroy())
  for (let count = 0; count < 6; count++) t.equal(await call(mesh), 'hello')
})

t.test('a client certificate is presented to a peer that requests one', async (t) => {
  const { url, handshakes } = await secure(t, { ...good, ca: ours.cert, requestCert: true })
  const gateway = ours.issue('gateway')
  const shown = { ca: ours.file, cert: gateway.certFile, key: gateway.keyFile }
  t.equal(await call(calling(t, url, shown)), 'hello')
  t.equal(handshakes.at(-1)!.client, 'gateway')
  t.match(await call(calling(t, url, { ca: ours.file })), /^JW_UPSTREAM_(TLS|RESET)$/)
  const foreign = theirs.issue('foreign')
  const other = { ca: ours.file, cert: foreign.certFile, key: foreign.keyFile }
  t.match(await call(calling(t, url, other)), /^JW_UPSTREAM_(TLS|RESET)$/)
})

t.test('the minimum version is TLS 1.2, or 1.3 if configured', async (t) => {
  const old = await secure(t, { ...good, minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' })
  t.equal(await call(calling(t, old.url, { ca: ours.file })), 'hello')
  t.equal(await call(calling(t, old.url, { ca: ours.file, minVersion: 'TLSv1.3' })), 'JW_UPSTREAM_TLS')
  const ancient = await secure(t, {
    ...good,
    minVersion: 'TLSv1',
    maxVersion: 'TLSv1.1',
    ciphers: 'DEFAULT@SECLEVEL=0'
  })
  t.match(await call(calling(t, ancient.url, { ca: ours.file })), /^JW_UPSTREAM_(TLS|RESET)$/)
  t.equal(ancient.handshakes.length, 0)
})

t.test('no session is resumed: resumption would skip the verification of the name', async (t) => {
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const ticketKeys = randomBytes(48)
    const { url, server, handshakes } = await secure(t, { ...good, maxVersion, ticketKeys })
    const mesh = calling(t, url, { ca: ours.file, san: ['orders.internal'] })
    t.equal(await call(mesh), 'hello')
    server.closeAllConnections()
    t.equal(await call(mesh).then((said) => (said === 'hello' ? said : call(mesh))), 'hello')
    t.notOk(handshakes.some(({ resumed }) => resumed))
    const users = ours.issue(`users-${maxVersion}`, { san: 'DNS:users.internal' })
    server.setSecureContext({ cert: users.cert, key: users.key, maxVersion, ticketKeys })
    server.closeAllConnections()
    t.not(await call(mesh), 'hello')
    t.equal(await call(mesh), 'JW_UPSTREAM_UNTRUSTED', 'the name is verified on each connection')
  }
})

t.test('the mesh does not start with invalid files', async (t) => {
  const { url } = await secure(t, good)
  const other = ours.issue('other')
  for (const [tls, why] of [
    [{ ca: `${folder}/none.pem` }, /ENOENT/],
    [{ ca: good.keyFile }, /ca contains no certificate/],
    [{ cert: good.certFile }, /both cert and key/],
    [{ cert: good.certFile, key: other.keyFile }, /does not belong to the certificate/]
  ] as const) {
    t.throws(() => calling(t, url, tls), why)
  }
})
