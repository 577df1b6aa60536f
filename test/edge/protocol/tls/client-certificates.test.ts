// slow: takes about 5 s
/** Client certificates: required, requested, by host; and requests on a connection that was opened for another host. */
import type http2 from 'node:http2'
import type { ConnectionOptions } from 'node:tls'
import { connect, createSecureContext } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import type { Issued } from '../../../helpers/certificates.ts'
import { authority } from '../../../helpers/certificates.ts'
import { eventually } from '../../../helpers/eventually.ts'
import { askOver, listening, scene, sessionTo, shake } from './support.ts'

const pairOf = ({ certFile, keyFile }: Issued) => ({ cert: certFile, key: keyFile })
const shows = ({ cert, key }: Issued) => ({ cert, key })

/** Adds a route that responds with the request's data about the client certificate. */
const telling = (server: FastifyInstance) => {
  server.get('/who', async ({ clientCertificate }) => ({ clientCertificate }))
}

function parties(t: Parameters<typeof scene>[0]) {
  const { issue, folder, path } = scene(t)
  const [one, two] = [authority(folder, 'one'), authority(folder, 'two')]
  return {
    path,
    issue,
    main: pairOf(issue('main', ['*.example.com', 'example.com'])),
    one,
    two,
    alice: one.issue('alice', { san: 'URI:spiffe://example.com/alice,email:alice@example.com' }),
    bob: two.issue('bob')
  }
}

const versions = ['TLSv1.2', 'TLSv1.3'] as const

for (const short of [true, false]) {
  t.test(`a client certificate is required for all hosts, by ${short ? 'ca' : 'clientCertificate'}`, async (t) => {
    const { main, one, alice, bob } = parties(t)
    const tls = { ...main, ...(short ? { ca: one.file } : { clientCertificate: { ca: one.file } }) }
    const { port, metric, log } = await listening(t, tls)
    for (const maxVersion of versions) {
      for (const servername of ['a.example.com', undefined]) {
        const to = { maxVersion, ...(servername && { servername }) }
        t.match(await shake(port, { ...to, ...shows(alice) }), { status: 200 })
        t.match(await shake(port, to), { status: 0 }, 'none')
        t.match(
          await shake(port, { ...to, ...shows(bob) }),
          { status: 0 },
          'a certificate of another authority is refused'
        )
      }
    }
    t.equal(await metric('jingwei_edge_refused_total{reason="client-certificate",listener="default"}'), 8)
    const codes = log.filter(({ route, status }) => route === null && status === undefined).map(({ error }) => error)
    t.strictSame(
      new Set(codes),
      new Set(['ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'])
    )
    const refused = log.filter(({ reason }) => reason === 'client-certificate')
    t.equal(refused.length, 8)
    for (const line of refused) t.equal(line.ip, '127.0.0.1', String(line.error))
    t.equal(refused.filter(({ serverName }) => serverName === 'a.example.com').length, 4)
    t.equal(refused.filter((line) => !('serverName' in line)).length, 4)
  })
}

t.test('a requested certificate may be missing but not invalid, and requests have the verified one', async (t) => {
  const { main, one, alice, bob } = parties(t)
  const tls = { ...main, clientCertificate: { mode: 'request', ca: one.file } }
  const { port, log } = await listening(t, tls, {}, { before: telling })
  for (const maxVersion of versions) {
    t.match(await shake(port, { maxVersion }), { status: 200 })
    t.match(await shake(port, { maxVersion, ...shows(alice) }), { status: 200 })
    const refused = await shake(port, { maxVersion, ...shows(bob) })
    t.match(refused, { status: 400, body: /JW_CLIENT_CERTIFICATE/ })
    t.notMatch(refused.body, /LEAF/)
  }
  const lines = () => log.filter(({ error }) => error === 'JW_CLIENT_CERTIFICATE')
  await eventually(() => lines().length === versions.length)
  for (const line of lines()) t.match(line, { status: 400, cause: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' })
  const who = async (options: http2.SecureClientSessionOptions) => {
    const session = await sessionTo(t, port, options)
    const stream = session.request({ ':path': '/who', ':authority': 'a.example.com' })
    let text = ''
    for await (const chunk of stream) text += chunk
    return JSON.parse(text).clientCertificate
  }
  t.equal(await who({}), null)
  t.match(await who(shows(alice)), {
    subject: 'CN=alice',
    issuer: 'CN=one',
    alternativeNames: { URI: ['spiffe://example.com/alice'], email: ['alice@example.com'] },
    fingerprint: /^([\dA-F]{2}:){31}[\dA-F]{2}$/
  })
})

t.test('a session that is resumed without a certificate is not a verified client', async (t) => {
  const { main, one, alice } = parties(t)
  const tls = { ...main, clientCertificate: { mode: 'request', ca: one.file } }
  const { port } = await listening(t, tls, {}, { before: telling })
  for (const maxVersion of versions) {
    for (const [certificate, expected] of [
      [{}, null],
      [shows(alice), { subject: 'CN=alice' }]
    ] as const) {
      const first = await shake(port, { maxVersion, ...certificate })
      t.ok(first.session)
      const session = await sessionTo(t, port, {
        maxVersion,
        ...certificate,
        ...(first.session && { session: first.session })
      })
      t.ok((session.socket as unknown as { isSessionReused(): boolean }).isSessionReused(), maxVersion)
      const stream = session.request({ ':path': '/who', ':authority': 'a.example.com' })
      let text = ''
      for await (const chunk of stream) text += chunk
      t.match(JSON.parse(text), { clientCertificate: expected })
    }
  }
})

async function byHost(t: Parameters<typeof scene>[0], http2 = true) {
  const all = parties(t)
  const tls = {
    ...all.main,
    hosts: [
      {
        names: ['admin.example.com', 'root.example.com', 'ADMIN.münchen.example.com'],
        clientCertificate: { ca: all.one.file }
      },
      { names: ['*.partners.example.com'], clientCertificate: { ca: all.two.file } },
      { names: ['maybe.example.com'], clientCertificate: { mode: 'request', ca: all.one.file } }
    ]
  }
  return { ...all, ...(await listening(t, tls, { listen: { tls, http2 } }, { before: telling })) }
}

for (const http2 of [true, false]) {
  t.test(`each host has its own rules and authorities, with http2: ${http2}`, async (t) => {
    const { port, alice, bob } = await byHost(t, http2)
    const cases: [host: string, certificate: Issued | null, expected: number][] = [
      ['www.example.com', null, 200],
      ['www.example.com', alice, 200],
      ['admin.example.com', alice, 200],
      ['ADMIN.example.com', alice, 200],
      ['admin.example.com', bob, 0],
      ['admin.xn--mnchen-3ya.example.com', alice, 200],
      ['admin.xn--mnchen-3ya.example.com', null, 0],
      ['admin.example.com', null, 0],
      ['a.partners.example.com', bob, 200],
      ['a.b.partners.example.com', bob, 200],
      ['a.partners.example.com', alice, 0],
      ['a.partners.example.com', null, 0],
      ['maybe.example.com', null, 200],
      ['maybe.example.com', alice, 200],
      ['maybe.example.com', bob, 400]
    ]
    for (const maxVersion of versions) {
      for (const [servername, certificate, status] of cases) {
        const options = { maxVersion, servername, ...(certificate && shows(certificate)) }
        t.match(await shake(port, options, servername), { status }, `${servername} ${maxVersion}`)
      }
    }
  })
}

t.test('a certificate is only requested for hosts that are configured so', async (t) => {
  const { port, alice } = await byHost(t)
  const verified = async (servername: string) => {
    const session = await sessionTo(t, port, { servername, ...shows(alice) })
    const stream = session.request({ ':path': '/who', ':authority': servername })
    let text = ''
    for await (const chunk of stream) text += chunk
    return JSON.parse(text).clientCertificate
  }
  t.equal(await verified('www.example.com'), null)
  t.match(await verified('root.example.com'), { subject: 'CN=alice' })
})

t.test('a request for a host with rules other than those of its connection is 421', async (t) => {
  const { port, alice, bob } = await byHost(t)
  const misdirected = { status: 421, body: /JW_MISDIRECTED/ }
  for (const host of [
    'admin.example.com',
    'ADMIN.EXAMPLE.COM',
    'admin.example.com.',
    'admin.example.com:443',
    'admin.example.com.:8443',
    'Admin.xn--mnchen-3ya.example.com',
    'x.partners.example.com'
  ]) {
    for (const servername of ['www.example.com', 'maybe.example.com', undefined]) {
      const options = { ...(servername && { servername }), ...shows(alice) }
      t.match(await shake(port, options, host), misdirected, `${servername} ${host}`)
    }
  }
  t.match(
    await shake(port, { servername: 'admin.example.com', ...shows(alice) }, 'a.partners.example.com'),
    misdirected
  )
  t.match(await shake(port, { servername: 'a.partners.example.com', ...shows(bob) }, 'admin.example.com'), misdirected)
  t.match(await shake(port, { servername: 'admin.example.com', ...shows(alice) }, 'www.example.com'), misdirected)
  t.match(await shake(port, { servername: 'admin.example.com', ...shows(alice) }, 'root.example.com'), { status: 200 })

  const session = await sessionTo(t, port, { servername: 'www.example.com' })
  t.match(await askOver(session, 'other.example.com'), { status: 200 })
  t.match(await askOver(session, 'admin.example.com'), misdirected, 'HTTP/2: connections are coalesced')
  t.match(await askOver(session, 'www.example.com'), { status: 200 }, 'the session continues')
})

t.test('no session is resumed with rules by host, since it would carry the verification of another host', async (t) => {
  const { port, alice } = await byHost(t)
  for (const maxVersion of versions) {
    const open = await shake(port, { maxVersion, servername: 'www.example.com' }, 'www.example.com')
    const closed = await shake(
      port,
      { maxVersion, servername: 'admin.example.com', ...shows(alice) },
      'admin.example.com'
    )
    t.match([open.status, closed.status], [200, 200])
    for (const { session } of [open, closed]) {
      const again = { maxVersion, servername: 'admin.example.com', ...(session && { session }) }
      t.match(await shake(port, again, 'admin.example.com'), { status: 0, reused: false }, maxVersion)
      const elsewhere = { ...again, servername: 'a.partners.example.com' }
      t.match(await shake(port, elsewhere, 'a.partners.example.com'), { status: 0, reused: false }, maxVersion)
    }
  }
})

t.test('the rule of a host applies to a WebSocket handshake, too', async (t) => {
  const { port } = await byHost(t)
  const socket = connect({ port, host: '127.0.0.1', servername: 'www.example.com', rejectUnauthorized: false })
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  socket.on('error', () => {})
  const fields = ['Host: admin.example.com', 'Upgrade: websocket', 'Connection: upgrade', 'Sec-WebSocket-Version: 13']
  socket.write(`${['GET / HTTP/1.1', ...fields, 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='].join('\r\n')}\r\n\r\n`)
  await new Promise((resolve) => socket.once('close', resolve))
  t.match(text, /^HTTP\/1\.1 421 /)
})

t.test('the rule applies to a handshake for a listener of a plugin, without hooks', async (t) => {
  const { main, one, alice } = parties(t)
  const tls = { ...main, hosts: [{ names: ['admin.example.com'], clientCertificate: { ca: one.file } }] }
  const { port } = await listening(
    t,
    tls,
    { routes: [] },
    {
      before: ({ server }) => {
        server.on('upgrade', (_request, socket) => {
          socket.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n')
        })
      }
    }
  )
  const upgrade = async (options: ConnectionOptions, host: string) => {
    const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...options })
    let text = ''
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString()
    })
    socket.on('error', () => {})
    const fields = [`Host: ${host}`, 'Upgrade: websocket', 'Connection: upgrade', 'Sec-WebSocket-Version: 13']
    socket.write(`${['GET / HTTP/1.1', ...fields, 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='].join('\r\n')}\r\n\r\n`)
    await new Promise((resolve) => socket.once('close', resolve))
    return text.slice(9, 12)
  }
  t.equal(await upgrade({ servername: 'www.example.com' }, 'www.example.com'), '101')
  t.equal(await upgrade({ servername: 'admin.example.com', ...shows(alice) }, 'admin.example.com'), '101')
  t.equal(await upgrade({ servername: 'www.example.com' }, 'admin.example.com'), '421')
})

t.test('a client certificate can be required for all hosts except one', async (t) => {
  const { main, one, alice } = parties(t)
  const tls = { ...main, ca: one.file, hosts: [{ names: ['open.example.com'], clientCertificate: { mode: 'none' } }] }
  const { port } = await listening(t, tls)
  for (const maxVersion of versions) {
    t.match(await shake(port, { maxVersion, servername: 'open.example.com' }, 'open.example.com'), { status: 200 })
    t.match(await shake(port, { maxVersion, servername: 'open.example.com' }, 'www.example.com'), { status: 421 })
    t.match(await shake(port, { maxVersion, servername: 'www.example.com' }, 'www.example.com'), { status: 0 })
    t.match(await shake(port, { maxVersion, ...shows(alice) }, 'www.example.com'), { status: 200 })
    t.match(
      await shake(port, { maxVersion, ...shows(alice) }, 'open.example.com'),
      { status: 421 },
      'a request on a connection without a server name is 421'
    )
  }
})

t.test('a second handshake on a connection cannot change whose certificate was verified', async (t) => {
  const { port, alice, bob } = await byHost(t)
  const options = { servername: 'maybe.example.com', maxVersion: 'TLSv1.2' as const, ...shows(alice) }
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...options })
  await new Promise((resolve) => socket.once('secureConnect', resolve))
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  const failed = new Promise<string | undefined>((resolve) => {
    socket.on('error', ({ code }: NodeJS.ErrnoException) => resolve(code))
    socket.on('close', () => resolve(undefined))
  })
  socket.setKeyCert(createSecureContext(shows(bob)))
  socket.renegotiate({}, (error) => {
    if (!error) socket.write('GET /who HTTP/1.1\r\nHost: maybe.example.com\r\nConnection: close\r\n\r\n')
  })
  t.equal(await failed, 'ERR_SSL_NO_RENEGOTIATION')
  t.equal(text, '')
})

t.test('routes, explain and the admin port show the hosts that request certificates', async (t) => {
  const { main, one, two, issue } = parties(t)
  const other = pairOf(issue('other', ['other.test']))
  const match = (...hosts: string[]) => ({ path: '/', hosts })
  const service = 'any'
  const { server } = await listening(
    t,
    {
      ...main,
      certificates: [other],
      hosts: [
        { names: ['admin.example.com', 'uncertified.test'], clientCertificate: { ca: one.file } },
        { names: ['*.b.example.com'], clientCertificate: { mode: 'request', ca: two.file } },
        { names: ['open.example.com'], clientCertificate: { mode: 'none' } }
      ]
    },
    {
      routes: [
        { name: 'all', match: { path: '/' }, service },
        { name: 'www', match: match('www.example.com', 'open.example.com'), service },
        { name: 'admin', match: match('ADMIN.example.com'), service },
        { name: 'wildcard', match: match('*.example.com'), service },
        { name: 'below', match: match('x.y.b.example.com'), service },
        { name: 'beside', match: match('b.example.com', '*.c.example.com'), service }
      ]
    }
  )
  const shown = async (url: string) => (await server.admin!.inject(url)).json()
  const routes: { name: string; edge: string[] }[] = await shown('/admin/routes')
  t.strictSame(
    routes.filter(({ edge }) => edge.includes('client-certificate')).map(({ name }) => name),
    ['all', 'admin', 'wildcard', 'below']
  )
  const explained = async (host: string) => (await shown(`/admin/explain?path=/&header=host:${host}`)).edge
  t.ok((await explained('admin.example.com:8443')).includes('client-certificate'))
  t.notOk((await explained('admn.example.com')).includes('client-certificate'))
  const all: { use: string; clientCertificates: object[] }[] = await shown('/admin/certificates')
  const certificates = all.filter(({ use }) => use === 'server')
  t.strictSame(
    certificates.map(({ clientCertificates }) => clientCertificates),
    [
      [
        { host: '*.example.com', mode: 'none', ca: null },
        { host: 'admin.example.com', mode: 'require', ca: one.file },
        { host: '*.b.example.com', mode: 'request', ca: two.file },
        { host: 'open.example.com', mode: 'none', ca: null },
        { host: 'example.com', mode: 'none', ca: null },
        { host: 'uncertified.test', mode: 'require', ca: one.file }
      ],
      [{ host: 'other.test', mode: 'none', ca: null }]
    ]
  )
})

t.test('without client certificates, nothing about them is shown', async (t) => {
  const { main } = parties(t)
  const { server } = await listening(t, main)
  const shown = async (url: string) => (await server.admin!.inject(url)).json()
  t.notOk((await shown('/admin/routes'))[0].edge.includes('client-certificate'))
  t.strictSame((await shown('/admin/certificates'))[0].clientCertificates, [])
})
