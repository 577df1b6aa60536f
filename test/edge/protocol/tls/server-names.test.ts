// slow: takes about 4 s
/** The certificate of a handshake, by the name that the client asks for. */
import { spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { eventually } from '../../../helpers/eventually.ts'
import { lay, listening, scene, sessionTo, shake } from './support.ts'

const pairOf = ({ certFile, keyFile }: { certFile: string; keyFile: string }) => ({ cert: certFile, key: keyFile })

t.test('certificates are selected by exact name, wildcard of one label, and default', async (t) => {
  const { issue } = scene(t)
  const main = issue('main')
  const exact = issue('exact', ['API.Example.com', 'exact.example.com.'])
  const wild = issue('wild', ['*.example.com', '*.xn--mnchen-3ya.example'])
  const address = issue('address', [], { san: 'IP:127.0.0.1,IP:::1,DNS:*,DNS:f*.example.net' })
  const { port } = await listening(t, { ...pairOf(main), certificates: [exact, wild, address].map(pairOf) })
  const cases: [name: string | undefined, shown: string][] = [
    ['api.example.com', 'exact'],
    ['API.EXAMPLE.COM', 'exact'],
    ['exact.example.com', 'exact'],
    ['other.example.com', 'wild'],
    ['a.b.example.com', 'main'],
    ['example.com', 'main'],
    ['www.xn--mnchen-3ya.example', 'wild'],
    ['foo.example.net', 'main'],
    ['localhost', 'main'],
    [undefined, 'main'],
    // Names that no regular client sends.
    ['__proto__', 'main'],
    ['constructor', 'main'],
    ['toString.example.com', 'wild'],
    ['*.example.com', 'wild'],
    ['.example.com', 'main'],
    [`${'a'.repeat(63)}.${'b'.repeat(63)}.${'c'.repeat(63)}.${'d'.repeat(60)}`, 'main'],
    ['a b\u0001../../etc', 'main'],
    ['www.münchen.example', 'main'],
    ['[', 'main'],
    [':', 'main']
  ]
  for (const [servername, shown] of cases) {
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      const result = await shake(port, { ...(servername !== undefined && { servername }), maxVersion })
      t.match(result, { shown, status: 200, protocol: maxVersion }, `${servername} ${maxVersion}`)
    }
  }
})

t.test('a client that sends an address as server name, against RFC 6066, gets the default', async (t) => {
  const { issue } = scene(t)
  const address = issue('address', [], { san: 'IP:127.0.0.1' })
  const { port } = await listening(t, { ...pairOf(issue('main')), certificates: [pairOf(address)] })
  const shownFor = async (name: string) => {
    const client = spawn('openssl', ['s_client', '-connect', `127.0.0.1:${port}`, '-servername', name])
    client.stdin.end()
    let text = ''
    for await (const chunk of client.stdout) text += chunk
    return /subject=CN = (\w+)/.exec(text)?.[1]
  }
  t.equal(await shownFor('127.0.0.1'), 'address')
  t.equal(await shownFor('127.0.0.2'), 'main')
  t.equal(await shownFor('::1'), 'main')
})

t.test('the same certificates are selected over HTTP/2', async (t) => {
  const { issue } = scene(t)
  const { port } = await listening(t, { ...pairOf(issue('main')), certificates: [pairOf(issue('a.example'))] })
  const session = await sessionTo(t, port, { servername: 'a.example' })
  const socket = session.socket as unknown as { getPeerCertificate(): { subject: { CN: string } } }
  t.equal(socket.getPeerCertificate().subject.CN, 'a.example')
})

t.test('with strict, names without a certificate and no name fail with an alert, and are logged', async (t) => {
  const { issue } = scene(t)
  const gateway = await listening(t, {
    certificates: [pairOf(issue('a.example')), pairOf(issue('*.b.example'))],
    strict: true
  })
  const { port, metric, log } = gateway
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    t.match(await shake(port, { servername: 'a.example', maxVersion }), { shown: 'a.example', status: 200 })
    t.match(await shake(port, { servername: 'x.b.example', maxVersion }), { shown: '*.b.example', status: 200 })
    for (const servername of ['c.example', 'x.y.b.example', 'b.example', undefined]) {
      const { error, shown } = await shake(port, { ...(servername && { servername }), maxVersion })
      t.match(error, /HANDSHAKE_FAILURE/, `${servername} ${maxVersion}`)
      t.equal(shown, undefined)
    }
  }
  t.equal(await metric('jingwei_edge_refused_total{reason="server-name",listener="default"}'), 8)
  const refused = log.filter(({ error }) => error === 'server-name')
  t.equal(refused.length, 8)
  const names = ['c.example', 'x.y.b.example', 'b.example', undefined]
  t.strictSame(
    refused.map(({ ip, serverName }) => ({ ip, serverName })),
    [...names, ...names].map((serverName) => ({ ip: '127.0.0.1', serverName }))
  )
})

t.test('a server name with invalid characters is escaped in the log', async (t) => {
  const { issue } = scene(t)
  const { port, log } = await listening(t, { ...pairOf(issue('a.example')), strict: true })
  await shake(port, { servername: 'C.exa"\\\n{}mple.' })
  t.match(
    log.filter(({ reason }) => reason === 'server-name'),
    [{ serverName: 'c.exa?????mple' }]
  )
})

t.test('the default certificate is the one named, else the first of the list', async (t) => {
  const { issue } = scene(t)
  const certificates = [issue('a.example'), issue('b.example', ['*.b.example'])].map(pairOf)
  const first = await listening(t, { certificates })
  t.match(await shake(first.port), { shown: 'a.example' })
  const named = await listening(t, { certificates, default: 'X.b.example' })
  t.match(await shake(named.port), { shown: 'b.example' })
  t.match(await shake(named.port, { servername: 'a.example' }), { shown: 'a.example' })
  const idna = issue('idna', ['www.xn--mnchen-3ya.example'])
  const written = await listening(t, { certificates: [...certificates, pairOf(idna)], default: 'www.München.example' })
  t.match(await shake(written.port), { shown: 'idna' })
})

t.test('of several certificates for one name, the one that expires last is served', async (t) => {
  const { issue } = scene(t)
  const [short, long] = [issue('short', ['a.example'], { days: 1 }), issue('long', ['a.example'], { days: 9 })]
  for (const certificates of [[short, long].map(pairOf), [long, short].map(pairOf)]) {
    const { port } = await listening(t, { certificates })
    t.match(await shake(port, { servername: 'a.example' }), { shown: 'long' })
  }
})

t.test('folders can have pairs with the file names of other software', async (t) => {
  const { issue, folder, path } = scene(t)
  lay(issue('crt'), folder, 'a.crt', 'a.key')
  lay(issue('cer'), folder, 'b.cer', 'b.key')
  lay(issue('pem'), folder, 'c.pem', 'c.key')
  lay(issue('haproxy'), folder, 'd.crt', 'd.crt.key')
  lay(issue('mkcert'), folder, 'e.pem', 'e-key.pem')
  const both = issue('both')
  writeFileSync(path('f.pem'), `${both.key}${both.cert}`)
  // A Kubernetes secret: links into a hidden folder.
  lay(issue('secret'), path('secret/..data'))
  for (const name of ['tls.crt', 'tls.key']) symlinkSync(`..data/${name}`, path(`secret/${name}`))
  writeFileSync(path('secret/ca.crt'), readFileSync(path('a.crt')))
  // certbot: cert.pem and chain.pem lie beside the two files that are used.
  lay(issue('certbot'), path('live/certbot'), 'fullchain.pem', 'privkey.pem')
  for (const name of ['cert.pem', 'chain.pem'])
    copyFileSync(path('live/certbot/fullchain.pem'), path(`live/certbot/${name}`))
  mkdirSync(path('empty'))
  writeFileSync(path('README'), 'no certificate')
  lay(issue('hidden'), folder, '.hidden.crt', '.hidden.key')
  const gateway = await listening(t, { folders: [folder, path('live')], strict: true })
  for (const name of ['crt', 'cer', 'pem', 'haproxy', 'mkcert', 'both', 'secret', 'certbot']) {
    t.match(await shake(gateway.port, { servername: name }), { shown: name, status: 200 }, name)
  }
  t.match((await shake(gateway.port, { servername: 'hidden' })).error, /HANDSHAKE_FAILURE/)
  t.strictSame(
    gateway.log.filter(({ level }) => Number(level) > 30),
    []
  )
  t.equal(gateway.server.certificates().length, 8)
})

t.test('an invalid pair of a folder is skipped, and logged', async (t) => {
  const { issue, folder, path } = scene(t)
  lay(issue('good'), folder, 'good.crt', 'good.key')
  lay(issue('other'), folder, 'bad.crt', 'bad.key')
  copyFileSync(path('good.key'), path('bad.key'))
  const { port, log, metric } = await listening(t, { folders: [folder] })
  t.match(await shake(port, { servername: 'other' }), { shown: 'good' })
  await eventually(() => log.some(({ level }) => level === 50))
  t.match(
    log.filter(({ level }) => level === 50),
    [
      {
        listener: 'default',
        certificate: path('bad.crt'),
        reason: `${path('bad.key')} is not the key of the certificate`
      }
    ]
  )
  t.equal(await metric('jingwei_edge_certificates_unusable{listener="default"}'), 1)
})

t.test('the admin port shows certificates without secrets, and metrics their times', async (t) => {
  const { issue } = scene(t)
  const [main, old] = [issue('main', ['main', 'www.main']), issue('old', ['old'], { days: -1 })]
  const { server, metric, log } = await listening(t, { ...pairOf(main), certificates: [pairOf(old)] })
  const { statusCode, body } = await server.admin!.inject({
    url: '/admin/certificates',
    headers: { host: '127.0.0.1' }
  })
  t.equal(statusCode, 200)
  t.match(JSON.parse(body), [
    {
      listener: 'default', certificate: main.certFile, isDefault: true, error: null, names: ['main', 'www.main'],
      subject: 'CN=main', issuer: 'CN=ours', keyType: 'EC prime256v1', fingerprint: /^([\dA-F]{2}:){31}/, notAfter: /Z$/
    },
    { certificate: old.certFile, isDefault: false, names: ['old'] }
  ]) // biome-ignore format: short
  t.notMatch(body, /PRIVATE|BEGIN/)
  const labels = `{listener="default",certificate="${main.certFile}"}`
  const inDays = async (name: string) => ((await metric(name + labels))! - Date.now() / 1000) / 86_400
  t.ok(Math.abs((await inDays('jingwei_edge_certificate_expiry_timestamp_seconds')) - 2) < 0.1)
  t.ok(Math.abs(await inDays('jingwei_edge_certificate_not_before_timestamp_seconds')) < 0.1)
  t.match(
    log.filter(({ level }) => level === 40),
    [{ certificate: old.certFile, reason: /the certificate expired at / }]
  )
})

t.test('the default versions and ciphers are TLS 1.2 and 1.3 with forward secrecy', async (t) => {
  const { issue } = scene(t)
  const pair = pairOf(issue('main'))
  const { port, metric } = await listening(t, pair)
  t.match(await shake(port, { maxVersion: 'TLSv1.2' }), { cipher: /^ECDHE-ECDSA-(AES\d+-GCM|CHACHA20)/, status: 200 })
  t.match(await shake(port, { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES128-SHA' }), {
    error: /HANDSHAKE_FAILURE/
  })
  t.match(await shake(port, { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }), {
    status: 0
  })
  t.equal(await metric('jingwei_edge_refused_total{reason="tls-handshake",listener="default"}'), 2)
  const modern = await listening(t, { ...pair, minVersion: 'TLSv1.3' })
  t.match(await shake(modern.port), { protocol: 'TLSv1.3', status: 200 })
  t.match(await shake(modern.port, { maxVersion: 'TLSv1.2' }), { status: 0, error: /PROTOCOL_VERSION/ })
  const own = await listening(t, {
    ...pair,
    ciphers: ['ECDHE-ECDSA-AES256-GCM-SHA384'],
    certificates: [pairOf(issue('a'))]
  })
  for (const servername of ['main', 'a']) {
    t.match(await shake(own.port, { servername, maxVersion: 'TLSv1.2' }), { cipher: 'ECDHE-ECDSA-AES256-GCM-SHA384' })
    t.match(await shake(own.port, { servername }), { protocol: 'TLSv1.3', status: 200 })
  }
  const old = await listening(t, { ...pair, maxVersion: 'TLSv1.2' })
  t.match(await shake(old.port), { protocol: 'TLSv1.2', status: 200 })
  t.match(await shake(old.port, { minVersion: 'TLSv1.3' }), { status: 0 })
})
