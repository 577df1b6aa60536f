// slow: makes certificates
/** Client certificates as credentials: names in every spelling, several methods, changes of consumers, and the headers of RFC 9440. */
import { X509Certificate } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import tls from 'node:tls'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'
import { namesOf, writtenDn } from '../../../plugins/edge/concerns/mtls-auth/names.ts'
import { consumersTiming } from '../../../plugins/edge/consumers/index.ts'
import type { Issued } from '../../helpers/certificates.ts'
import { authority, folderFor } from '../../helpers/certificates.ts'
import { anyClient } from '../../helpers/edge/asking-client.ts'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { configOf, startEcho, startWith } from '../../helpers/gateway.ts'
import { folder } from '../../helpers/plugins.ts'

consumersTiming.intervalMs = 10

const made = folderFor(t)
const [one, two] = [authority(made, 'one'), authority(made, 'two')]
const server = one.issue('server', { san: 'DNS:localhost,IP:127.0.0.1' })
const alice = one.issue('alice', {
  cn: 'alice/O=Example, Inc',
  san: 'URI:spiffe://example.com/alice,DNS:A.Example.com'
})
const bob = one.issue('bob', { san: 'email:Bob@Example.com' })
const other = two.issue('other', { cn: 'bob' })
const fingerprint = (issued: Issued) => new X509Certificate(issued.cert).fingerprint256
const der = ({ cert }: { cert: string }) => `:${new X509Certificate(cert).raw.toString('base64')}:`

interface Options {
  edge?: object
  consumers?: object
  listen?: object
  protocol?: 'TLS' | 'HTTP/2'
  route?: object
  more?: object[]
  services?: object
}

const bothAuthorities = join(made, 'both.pem')
await writeFile(bothAuthorities, one.cert + two.cert)

async function gatewayWith(t: Test, options: Options) {
  const { edge = { mtlsAuth: {} }, consumers = [], listen, protocol = 'TLS', more = [] } = options
  const service = await startEcho()
  t.teardown(service.close)
  const root = await folder(t, { 'people.json': JSON.stringify(consumers) })
  const asked = { mode: 'request', ca: bothAuthorities }
  const own = { tls: { cert: server.certFile, key: server.keyFile, clientCertificate: asked } }
  const text = JSON.stringify({
    listen: { port: 0, http2: protocol === 'HTTP/2', ...own, ...listen },
    services: options.services ?? { any: { instances: [service.url] } },
    edge,
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', ...options.route }, ...more],
    consumers: options.consumers === undefined ? [] : { file: 'people.json' }
  })
  const gateway = await startWith(parseConfig(text, join(root, 'gateway.yaml'), {}), { log: true })
  t.teardown(gateway.close)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  const clientOf = (issued: Issued | null) =>
    anyClient(t, protocol, gateway.port, issued === null ? {} : { cert: issued.cert, key: issued.key })
  const outcome = async (issued: Issued | null, headers: Record<string, string> = {}) => {
    const before = lines().length
    const { status } = await clientOf(issued).ask('/', { headers })
    await eventually(() => lines().length > before)
    return [status, lines().at(-1)?.reason ?? lines().at(-1)?.consumer]
  }
  const seen = async (issued: Issued | null, headers: Record<string, string> = {}, path = '/') => {
    const { status, body } = await clientOf(issued).ask(path, { headers })
    if (status !== 200) throw new Error(body.toString())
    return (JSON.parse(body.toString()) as Seen).headers
  }
  return { ...gateway, root, clientOf, outcome, seen }
}

for (const protocol of ['TLS', 'HTTP/2'] as const) {
  t.test(`a certificate names its consumer, by each of its names, over ${protocol}`, async (t) => {
    const identities: object[] = [
      { subject: 'CN=alice, O=Example\\, Inc' },
      { subject: 'o=Example\\, Inc,cn=alice' },
      { subject: 'CN=alice,O=Example\\2C Inc', issuer: 'CN=one' },
      { cn: 'alice' },
      { uri: 'spiffe://example.com/alice' },
      { dns: 'a.example.COM.' },
      { fingerprint: fingerprint(alice) },
      { fingerprint: fingerprint(alice).replaceAll(':', '').toLowerCase(), issuer: 'CN=one' }
    ]
    const { outcome, clientOf } = await gatewayWith(t, { protocol, consumers: [{ name: 'nobody' }] })
    const refused = await clientOf(null).ask('/')
    t.equal(refused.headers['www-authenticate'], 'mTLS realm="jingwei"')
    t.match(JSON.parse(refused.body.toString()), { code: 'JW_CERTIFICATE_MISSING', statusCode: 401 })
    t.same(await outcome(alice), [401, 'mtls_unknown'])
    for (const identity of identities) {
      const each = await gatewayWith(t, { protocol, consumers: [{ name: 'amy', mtlsAuth: identity }] })
      t.same(await each.outcome(alice), [200, 'amy'], JSON.stringify(identity))
      t.same(await each.outcome(bob), [401, 'mtls_unknown'])
      t.same(await each.outcome(null), [401, 'mtls_missing'])
      await each.close()
    }
  })
}

t.test('names that look alike are other names', async (t) => {
  const almost = [
    { subject: 'CN=alice' },
    { subject: 'CN=alice, O=Example, Inc=' },
    { subject: 'CN=alice+O=Example\\, Inc' },
    { cn: 'Alice' },
    { uri: 'spiffe://example.com/Alice' },
    { dns: '*.example.com' },
    { email: 'alice@example.com' },
    { cn: 'alice', issuer: 'CN=two' },
    { fingerprint: fingerprint(bob) }
  ]
  const { outcome } = await gatewayWith(t, { consumers: [{ name: 'amy', mtlsAuth: almost }] })
  t.same(await outcome(alice), [401, 'mtls_unknown'])
  t.same(await outcome(bob), [200, 'amy'], 'the fingerprint')
})

t.test('the issuer tells certificates of the same name apart', async (t) => {
  const consumers = [
    { name: 'bob', mtlsAuth: [{ cn: 'bob', issuer: 'CN=one' }, { email: 'Bob@example.COM' }] },
    { name: 'partner', mtlsAuth: { cn: 'bob' } }
  ]
  const { outcome } = await gatewayWith(t, { consumers })
  t.same(await outcome(bob), [200, 'bob'])
  t.same(await outcome(other), [200, 'partner'])
})

t.test('conditions accept certificates without a declared consumer', async (t) => {
  const accepting = async (mtlsAuth: object, consumers: object[] = []) => {
    const { outcome, close } = await gatewayWith(t, { edge: { mtlsAuth }, consumers })
    const outcomes = [await outcome(alice), await outcome(bob), await outcome(other)]
    await close()
    return outcomes
  }
  const no = [401, 'mtls_not_allowed']
  t.same(await accepting({ allow: 'any' }), [
    [200, 'CN=alice, O=Example\\, Inc'],
    [200, 'CN=bob'],
    [200, 'CN=bob']
  ])
  t.same(await accepting({ allow: [{ issuer: 'CN=one' }], consumer: 'cn' }), [[200, 'alice'], [200, 'bob'], no])
  t.same(await accepting({ allow: [{ issuer: 'CN=two' }, { dns: '/^[a-z]\\.example\\.com$/' }], consumer: 'cn' }), [
    [200, 'alice'],
    no,
    [200, 'bob']
  ])
  t.same(await accepting({ allow: [{ issuer: ['CN=one', 'CN=two'], cn: 'bob' }], consumer: 'email' }), [
    no,
    [200, 'Bob@example.com'],
    [401, 'mtls_unknown']
  ])
  t.same(await accepting({ allow: [{ subject: '/^CN=.*$/' }], consumer: 'cn' }, [{ name: 'bob' }]), [
    [200, 'alice'],
    [200, 'mtls|bob'],
    [200, 'mtls|bob']
  ])
})

t.test('with several methods, and in shadow mode', async (t) => {
  const key = `sha256:${(await import('node:crypto')).hash('sha256', 'k')}`
  const consumers = [
    { name: 'amy', mtlsAuth: { cn: 'alice' } },
    { name: 'kim', keyAuth: { hash: key } }
  ]
  const any = await gatewayWith(t, {
    edge: { mtlsAuth: {}, keyAuth: {}, authentication: { require: 'any', anonymous: 'guest' } },
    consumers
  })
  t.same(await any.outcome(alice), [200, 'amy'])
  t.same(await any.outcome(null, { 'x-api-key': 'k' }), [200, 'kim'])
  t.same(await any.outcome(alice, { 'x-api-key': 'wrong' }), [200, 'amy'])
  t.same(await any.outcome(bob, { 'x-api-key': 'k' }), [200, 'kim'])
  t.same(await any.outcome(bob), [401, 'mtls_unknown'], 'a wrong certificate is not anonymous')
  t.same(await any.outcome(null), [200, 'guest'])
  const all = await gatewayWith(t, {
    edge: { mtlsAuth: {}, keyAuth: {}, authentication: { require: 'all' } },
    consumers
  })
  t.same(await all.outcome(alice), [401, 'key_missing'])
  t.same(await all.outcome(null, { 'x-api-key': 'k' }), [401, 'mtls_missing'])
  t.same(await all.outcome(alice, { 'x-api-key': 'k' }), [200, 'kim'], 'the last one names the consumer')
  const shadow = await gatewayWith(t, { edge: { mtlsAuth: { mode: 'shadow' } }, consumers })
  t.same(await shadow.outcome(bob), [200, undefined])
  t.match(shadow.log.at(-1)?.shadow, [{ concern: 'mtls-auth', reason: 'mtls_unknown' }])
})

t.test('a changed consumer counts on open connections', async (t) => {
  const { root, clientOf } = await gatewayWith(t, {
    protocol: 'HTTP/2',
    consumers: [{ name: 'amy', mtlsAuth: { cn: 'alice' } }]
  })
  const { ask } = clientOf(alice)
  t.equal((await ask('/')).status, 200)
  await writeFile(join(root, 'people.json'), JSON.stringify([{ name: 'amy' }]))
  await eventually(async () => (await ask('/')).status === 401)
})

t.test('a WebSocket over TLS needs the certificate', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const { port } = await gatewayWith(t, {
    services: { any: { instances: [service.url] } },
    edge: { mtlsAuth: { allow: 'any' }, forwardClientCert: {} }
  })
  const shake = async (issued: Partial<Issued>) => {
    const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...issued })
    t.teardown(() => socket.destroy())
    socket.write(handshake('/ws'))
    const [chunk] = (await (await import('node:events')).once(socket, 'data')) as [Buffer]
    return chunk.toString('latin1')
  }
  t.match(await shake({}), /^HTTP\/1.1 401 /)
  t.match(await shake({ cert: alice.cert, key: alice.key }), /^HTTP\/1.1 101 /)
  t.equal(service.requests.length, 1)
  t.equal(service.requests[0]!.headers['client-cert'], der(alice))
})

for (const protocol of ['TLS', 'HTTP/2'] as const) {
  t.test(`services get the certificate, and clients cannot forge it on any route, over ${protocol}`, async (t) => {
    const forged = { 'client-cert': der(bob), 'client-cert-chain': der(two), client_cert: der(bob) }
    const { seen } = await gatewayWith(t, {
      protocol,
      edge: {},
      route: { edge: { forwardClientCert: { chain: true } } },
      more: [
        { name: 'other', match: { path: '/other' }, service: 'any' },
        { name: 'proxy', match: { path: '/proxy' }, service: 'any', via: 'http-proxy' },
        {
          name: 'told',
          match: { path: '/told' },
          service: 'any',
          via: 'http-proxy',
          edge: { forwardClientCert: {} }
        }
      ]
    })
    const withChain = { ...alice, cert: alice.cert + one.cert }
    const headers = await seen(withChain, forged)
    t.equal(headers['client-cert'], der(alice))
    t.equal(headers['client-cert-chain'], der(one))
    t.equal(headers.client_cert, undefined)
    const none = await seen(null, forged)
    t.same([none['client-cert'], none['client-cert-chain'], none.client_cert], [undefined, undefined, undefined])
    const elsewhere = await seen(alice, forged, '/other')
    t.same([elsewhere['client-cert'], elsewhere['client-cert-chain']], [undefined, undefined])
    const proxied = await seen(alice, forged, '/proxy')
    t.same(
      [proxied['client-cert'], proxied['client-cert-chain'], proxied.client_cert],
      [undefined, undefined, undefined]
    )
    const told = await seen(withChain, forged, '/told')
    t.same([told['client-cert'], told['client-cert-chain']], [der(alice), undefined])
    if (protocol === 'TLS') {
      const dropped = await seen(alice, { connection: 'close, client-cert' })
      t.equal(dropped['client-cert'], der(alice), 'a client cannot have it removed')
    }
  })
}

t.test('a trusted proxy forwards the certificate of its client', async (t) => {
  const listen = {
    tls: undefined,
    trustProxy: ['127.0.0.1'],
    trustHeaders: ['x-forwarded-for', 'client-cert', 'client-cert-chain']
  }
  const plain = async (edge: object, more: object = {}) => {
    const service = await startEcho()
    t.teardown(service.close)
    const config = configOf({
      listen: { port: 0, ...listen, ...more },
      services: { any: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
      edge,
      consumers: [{ name: 'amy', mtlsAuth: { cn: 'alice' } }]
    })
    const gateway = await startWith(config, { log: true })
    t.teardown(gateway.close)
    return anyClient(t, 'HTTP/1.1', gateway.port)
  }
  const { ask } = await plain({ mtlsAuth: {}, forwardClientCert: { chain: true } })
  const { status, body } = await ask('/', { headers: { 'client-cert': der(alice), 'client-cert-chain': der(one) } })
  t.equal(status, 200)
  const { rawHeaders } = JSON.parse(body.toString()) as Seen
  t.same(
    rawHeaders.filter((_, index) => /^client-cert/i.test(rawHeaders[index - (index % 2)]!)),
    ['client-cert', der(alice), 'client-cert-chain', der(one)],
    'once'
  )
  const pem = Buffer.from(alice.cert).toString('base64')
  const raw = new X509Certificate(alice.cert).raw
  const unreadable = [
    '',
    '::',
    'x',
    der(alice).slice(1),
    `${der(alice)};a=1`,
    `${der(alice)}, ${der(alice)}`,
    `:${pem}:`,
    `:${Buffer.concat([raw, raw]).toString('base64')}:`,
    der(alice).replace('A', '_')
  ]
  for (const value of unreadable) {
    t.equal((await ask('/', { headers: { 'client-cert': value } })).status, 401, JSON.stringify(value))
  }
  t.equal((await ask('/', { headers: { 'client-cert': der(bob) } })).status, 401)
  t.equal((await ask('/')).status, 401)
  const distrusting = await plain({}, { trustProxy: ['192.0.2.1'] })
  const response = await distrusting.ask('/', { headers: { 'client-cert': der(alice) } })
  t.equal((JSON.parse(response.body.toString()) as Seen).headers['client-cert'], undefined)
})

t.test('a certificate that has expired since it was verified is refused', async (t) => {
  const expired = one.issue('expired', { cn: 'alice', days: -1 })
  const service = await startEcho()
  t.teardown(service.close)
  const config = configOf({
    listen: { port: 0, trustProxy: ['127.0.0.1'], trustHeaders: ['client-cert'] },
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { mtlsAuth: { allow: 'any' } } }]
  })
  const gateway = await startWith(config, { log: true })
  t.teardown(gateway.close)
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  t.equal((await ask('/', { headers: { 'client-cert': der(alice) } })).status, 200)
  t.equal((await ask('/', { headers: { 'client-cert': der(expired) } })).status, 401)
  await eventually(() => gateway.log.some(({ reason }) => reason === 'mtls_expired'))
})

t.test('distinguished names', (t) => {
  t.same(writtenDn('CN=a, O=b').length, 2)
  t.same(writtenDn('CN=a').length, 1)
  t.same(writtenDn('CN=J\\C3\\BCrgen'), writtenDn('cn = Jürgen '))
  t.not(writtenDn('CN=a\\+OU=b')[0], writtenDn('CN=a+OU=b')[0])
  for (const text of ['', 'alice', '/CN=alice/O=b', 'CN', '=a', 'CN=a,', 'CN=a,,O=b']) t.same(writtenDn(text), [], text)
  const names = namesOf(new X509Certificate(alice.cert))
  t.ok(writtenDn('O=Example\\, Inc, CN=alice').includes(names.of.subject[0]!))
  t.same(names.of.dns, ['a.example.com'])
  t.end()
})

t.test('misspelt names are warnings, unless certificates name other callers, too', (t) => {
  const warningsOf = (mtlsAuth: object) => {
    const warnings: string[] = []
    const config = {
      listen: { port: 0, tls: { cert: server.certFile, key: server.keyFile, ca: one.file } },
      admin: false,
      services: { any: { instances: ['http://127.0.0.1:9'] } },
      routes: [
        { name: 'all', match: { path: '/' }, service: 'any', edge: { mtlsAuth, acl: { allowConsumers: ['alise'] } } }
      ],
      consumers: [{ name: 'alice', mtlsAuth: { cn: 'alice' } }]
    }
    parseConfig(JSON.stringify(config), join(made, 'gateway.yaml'), {}, ({ message }) => warnings.push(message))
    return warnings.filter((message) => message.includes('alise'))
  }
  t.match(warningsOf({}), [/no consumer "alise" is declared; did you mean "?alice/])
  t.same(warningsOf({ allow: 'any' }), [])
  t.end()
})

t.test('settings without effect are faults', (t) => {
  const own = { cert: server.certFile, key: server.keyFile }
  const faultOf = (listen: object, more: object) => {
    try {
      configOf({
        listen: { port: 0, ...listen },
        services: { any: { instances: ['http://127.0.0.1:9'] } },
        routes: [{ name: 'all', match: { path: '/', hosts: ['a.example.com'] }, service: 'any' }],
        ...more
      })
      return null
    } catch (error) {
      return (error as Error).message
    }
  }
  const edge = { mtlsAuth: { allow: 'any' } }
  t.match(faultOf({}, { edge }), /edge\.mtlsAuth: no listener requests client certificates for route all/)
  t.match(faultOf({ tls: own }, { edge }), /no listener requests client certificates/)
  t.match(faultOf({ trustHeaders: ['client-cert'] }, { edge }), /no listener requests/)
  t.equal(faultOf({ trustHeaders: ['client-cert'], trustProxy: ['10.0.0.1'] }, { edge }), null)
  t.equal(faultOf({ tls: { ...own, ca: one.file } }, { edge }), null)
  const hosts = (name: string) => ({
    tls: { ...own, hosts: [{ names: [name], clientCertificate: { mode: 'request', ca: one.file } }] }
  })
  t.equal(faultOf(hosts('a.example.com'), { edge }), null)
  t.match(faultOf(hosts('b.example.com'), { edge }), /no listener requests/)
  const consumers = (mtlsAuth: unknown) => ({ consumers: [{ name: 'a', mtlsAuth }] })
  t.match(faultOf({}, consumers({})), /mtlsAuth: set exactly one of fingerprint, uri/)
  t.match(faultOf({}, consumers({ cn: 'a', dns: 'b' })), /set exactly one of/)
  t.match(faultOf({}, consumers([{ cn: 'a' }, { issuer: 'CN=a' }])), /mtlsAuth\[1\]: set exactly one of/)
  t.match(faultOf({}, consumers({ subject: '/CN=a' })), /subject: expected a name such as CN=alice/)
  t.match(faultOf({}, consumers({ fingerprint: 'ab:cd' })), /64 hexadecimal digits/)
  const twice = { consumers: ['a', 'b'].map((name) => ({ name, mtlsAuth: { cn: 'x' } })) }
  t.match(faultOf({}, twice), /same credential/)
  const allow = (condition: object) => ({ edge: { mtlsAuth: { allow: [condition] } } })
  t.match(faultOf({ tls: { ...own, ca: one.file } }, allow({ cn: '/^(a+)\\1$/' })), /allow\.0\.cn|allow\[0\]\.cn/)
  const faultOfAllow = (condition: object) => faultOf({ tls: { ...own, ca: one.file } }, allow(condition))
  t.match(faultOfAllow({ issuer: 'x' }), /issuer: expected a name/)
  t.match(faultOfAllow({ dns: '/.*partner.example/' }), /an expression is written .*: \/\^\.\*partner\.example\.\*\$\//)
  t.match(faultOfAllow({ subject: 'CN=*, O=Partners' }), /a name has no wildcards/)
  t.equal(faultOfAllow({ dns: '*.partner.example' }), null, 'a name of a certificate')
  t.match(faultOf({}, consumers({ dns: '/^.*$/' })), /dns: a consumer has one name; an expression can only stand in/)
  t.end()
})
