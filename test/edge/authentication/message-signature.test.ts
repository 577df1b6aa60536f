// slow: takes about 6 s
/** HTTP Message Signatures: the examples of RFC 9421, an independent signer, coverage, bodies, times and replays. */
import { generateKeyPairSync, hash, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { CLOCK } from '../../../plugins/clock.ts'
import { keyFault } from '../../../plugins/edge/concerns/message-signature/keys.ts'
import type { AskOptions, Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { handshake, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { configOf, raw, startEcho, startGateway } from '../../helpers/gateway.ts'

/** Time of all gateways and signers, in seconds. */
let time = 1893456000
const clock = { now: () => time * 1000, date: () => time * 1000 }

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const other = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const pem = (key: typeof publicKey) => key.export({ type: 'spki', format: 'pem' }) as string
const algorithm = 'ecdsa-p256-sha256'
const own = [
  { name: 'alice', messageSignature: [{ keyId: 'a 1', algorithm, key: pem(publicKey) }] },
  { name: 'bob', messageSignature: { keyId: 'b', algorithm, key: pem(other.publicKey) } }
] // biome-ignore format: a list

interface Options {
  protocol?: Protocol
  messageSignature?: object
  edge?: object
  listen?: object
  services?: object
  consumers?: readonly object[]
}

async function gatewayWith(t: Test, options: Options) {
  const { protocol = 'HTTP/1.1', messageSignature = {}, edge = {}, listen = {}, services, consumers = own } = options
  const service = await startEcho()
  t.teardown(service.close)
  const config = {
    listen: { ...listenFor(t, protocol), ...listen },
    services: services ?? { any: { instances: [service.url] } },
    edge: { messageSignature, ...edge },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    consumers
  }
  const gateway = await startGateway(config, { log: true, before: (server) => void server.decorate(CLOCK, clock) })
  t.teardown(gateway.close)
  const { ask } = anyClient(t, protocol, gateway.port)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  const outcome = async (headers: object, path = '/', options: AskOptions = {}) => {
    const before = lines().length
    const { status } = await ask(path, { ...options, headers: headers as Record<string, string> })
    await eventually(() => lines().length > before)
    const line = lines().at(-1)!
    return [status, line.reason ?? line.consumer ?? line.error]
  }
  const seen = async (headers: object, path = '/', options: AskOptions = {}) =>
    JSON.parse((await ask(path, { ...options, headers: headers as Record<string, string> })).body.toString()) as Seen
  return { ...gateway, ask, outcome, seen, lines }
}

const hostName = (protocol: Protocol) => (protocol === 'HTTP/2' ? ':authority' : 'host')

/** A request of the RFC: its message, and a signature. */
const rsa = `-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2
+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+
oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq
gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W
Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4
aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI
2wIDAQAB
-----END PUBLIC KEY-----`
const ec = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END PUBLIC KEY-----`
const ed = `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----`
const ofRfc = [
  {
    name: 'rfc',
    messageSignature: [
      { keyId: 'test-key-rsa-pss', algorithm: 'rsa-pss-sha512', key: rsa },
      { keyId: 'test-key-ecc-p256', algorithm, key: ec },
      { keyId: 'test-key-ed25519', algorithm: 'ed25519', key: ed },
      {
        keyId: 'test-shared-secret',
        algorithm: 'hmac-sha256',
        secret: 'uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=='
      }
    ]
  }
]
const rfcDigest = 'sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:'
const rfcExamples = {
  'B.2.1': [
    'sig-b21=();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"',
    'sig-b21=:d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98Xw9Q==:'
  ],
  'B.2.2': [
    'sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example"',
    'sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==:'
  ],
  'B.2.3': [
    'sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss"',
    'sig-b23=:bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==:'
  ],
  'B.2.5': [
    'sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"',
    'sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:'
  ],
  'B.2.6': [
    'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"',
    'sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:'
  ]
} as const

t.test('the requests of RFC 9421, appendix B', async (t) => {
  const before = time
  time = 1618884473
  t.teardown(() => {
    time = before
  })
  const loose = { messageSignature: { components: [], contentDigest: false }, consumers: ofRfc }
  const post = { method: 'POST', body: '{"hello": "world"}' }
  const headers = {
    host: 'example.com',
    date: 'Tue, 20 Apr 2021 02:07:55 GMT',
    'content-type': 'application/json',
    'content-digest': rfcDigest
  }
  const path = '/foo?param=Value&Pet=dog'
  const { outcome } = await gatewayWith(t, loose)
  for (const [name, [input, signature]] of Object.entries(rfcExamples)) {
    const signed = { ...headers, 'signature-input': input, signature }
    t.same(await outcome(signed, path, post), [200, 'rfc'], name)
    const changed = signature.replace(/:(.)/, (_, first: string) => `:${first === 'A' ? 'B' : 'A'}`)
    const expected = name === 'B.2.1' ? 'signature_replayed' : 'rfc'
    t.same((await outcome(signed, path, post))[1], expected, 'only the first one has a nonce')
    t.same(await outcome({ ...signed, signature: changed }, path, post), [401, 'signature_wrong'], name)
  }
  const [input, signature] = rfcExamples['B.2.3']
  const strict = await gatewayWith(t, { consumers: ofRfc })
  const full = { ...headers, 'signature-input': input, signature }
  t.same(await strict.outcome(full, path, post), [200, 'rfc'], 'with the default options')
  t.same(await strict.outcome(full, path, { ...post, body: '{"hello": "World"}' }), [401, 'signature_digest'])

  const transform = {
    host: 'example.org',
    'signature-input':
      'transform=("@method" "@path" "@authority" "accept");created=1618884473;keyid="test-key-ed25519"',
    signature: 'transform=:ZT1kooQsEHpZ0I1IjCqtQppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA==:'
  }
  const demo = '/demo?name1=Value1&Name2=value2'
  t.same(await outcome({ ...transform, Accept: 'application/json', accept: '*/*' }, demo), [200, 'rfc'], 'B.4')
  t.same(await outcome({ ...transform, accept: 'application/json, */*' }, `${demo}&param=added`), [200, 'rfc'])
  t.same(await outcome({ ...transform, Accept: '*/*', accept: 'application/json' }, demo), [401, 'signature_wrong'])
  t.same(await outcome({ ...transform, accept: 'application/json, */*' }, demo, { method: 'POST' }), [
    401,
    'signature_wrong'
  ])
  const proxy = {
    host: 'service.internal.example',
    'client-cert':
      ':MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF0ZSBDQTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaUgmnMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAWgBRm3WjLa38lbEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4YW1wbGUuY29tMAoGCCqGSM49BAMCA0gAMEUCIBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuydBVoU4hBVZ1yhk=:',
    'signature-input':
      'ttrp=("@path" "@query" "@method" "@authority" "client-cert");created=1618884473;keyid="test-key-ecc-p256"',
    signature: 'ttrp=:xVMHVpawaAC/0SbHrKRs9i8I3eOs5RtTMGCWXm/9nvZzoHsIg6Mce9315T6xoklyy0yzhD9ah4JHRwMLOgmizw==:'
  }
  t.same(await outcome(proxy, path, { method: 'POST' }), [200, 'rfc'], 'B.3')
})

interface Recorded {
  readonly algorithm: string
  readonly keyId: string
  readonly key?: string
  readonly secret?: string
  readonly input: string
  readonly signature: string
}

const recorded = JSON.parse(
  readFileSync(join(import.meta.dirname, 'independent-signatures.json'), 'utf8')
) as Recorded[]

for (const protocol of ['TLS', 'HTTP/2'] as const) {
  t.test(`signatures of http-message-signatures over ${protocol}`, async (t) => {
    const consumers = recorded.map(({ input: _input, signature: _signature, ...messageSignature }) => {
      return { name: messageSignature.algorithm, messageSignature }
    })
    const messageSignature = { tag: 'gateway', parameters: ['nonce', 'expires', 'alg'] }
    const { outcome } = await gatewayWith(t, { protocol, consumers, messageSignature })
    const body = '{"amount": 1}'
    const path = '/a%20b/c?d=e&f=%2F+g'
    for (const { algorithm, input, signature } of recorded) {
      const list = protocol === 'HTTP/2' ? { 'x-list': ['one', 'two'] } : { 'X-List': 'one', 'x-list': 'two' }
      const headers = {
        [hostName(protocol)]: 'api.example.com',
        'content-type': 'application/json',
        'content-digest': `sha-256=:${hash('sha256', body, 'base64')}:`,
        'x-dict': 'a=1,   b=2;x=1;y=2, c=(a   b    c)',
        'signature-input': input,
        signature,
        ...list
      }
      const ask = (more: object = {}, target = path, sent = body) =>
        outcome({ ...headers, ...more }, target, { method: 'POST', body: sent })
      t.same(await ask({}, path.replace('f=', 'F=')), [401, 'signature_base'], 'a covered query parameter')
      t.same(await ask({}, path.replace('d=e', 'd=E')), [401, 'signature_wrong'])
      t.same(await ask({ 'x-dict': 'a=1, b=3;x=1;y=2, c=(a b c)' }), [401, 'signature_wrong'])
      t.same(await ask({ [hostName(protocol)]: 'api.example.org' }), [401, 'signature_wrong'])
      t.same(await ask({}, path, '{"amount": 2}'), [401, 'signature_digest'])
      t.same(await ask(), [200, algorithm])
      t.same(await ask(), [401, 'signature_replayed'])
    }
  })
}

interface Signed {
  /** Components with the lines that are signed. */
  components?: Record<string, string>
  parameters?: string
  keyId?: string
  key?: typeof privateKey
  label?: string
}

const target = { '@method': 'GET', '@authority': 'api.example', '@path': '/' }

/** Returns the fields of a signature, made without the code under test. */
function signed({ components = target, parameters = '', keyId = 'a 1', key = privateKey, label = 's' }: Signed) {
  const names = Object.keys(components).map((name) => (name.startsWith('"') ? name : `"${name}"`))
  const created = parameters.includes(';created') ? '' : `;created=${time}`
  const input = `(${names.join(' ')})${created};keyid="${keyId}"${parameters}`
  const lines = Object.values(components).map((value, index) => `${names[index]}: ${value}`)
  const text = [...lines, `"@signature-params": ${input}`].join('\n')
  const bytes = sign('sha256', Buffer.from(text, 'latin1'), { key, dsaEncoding: 'ieee-p1363' })
  return { 'signature-input': `${label}=${input}`, signature: `${label}=:${bytes.toString('base64')}:` }
}

for (const protocol of protocols) {
  t.test(`what a signature must cover, over ${protocol}`, async (t) => {
    const { outcome, ask, seen, port } = await gatewayWith(t, { protocol })
    const scheme = protocol === 'HTTP/1.1' ? 'http' : 'https'
    const host = { [hostName(protocol)]: `API.example:${scheme === 'http' ? 80 : 443}` }
    const check = (given: Signed, more: object = {}, path = '/', options: AskOptions = {}) =>
      outcome({ ...host, ...more, ...signed(given) }, path, options)
    t.same(await check({}), [200, 'alice'])
    t.same(await check({ keyId: 'b', key: other.privateKey }), [200, 'bob'])
    const uri = { '@method': 'GET', '@target-uri': `${scheme}://api.example/a%2Cb?c` }
    t.same(await check({ components: uri }, {}, '/a%2Cb?c'), [200, 'alice'])
    const line = { '@method': 'GET', '@request-target': '/a?b=c', '@authority': 'api.example' }
    t.same(await check({ components: line }, {}, '/a?b=c'), [200, 'alice'])
    t.same(await check({ components: { ...target, '@query': '?' } }), [200, 'alice'])
    t.same(await check({ components: { ...target, '@query': '?' } }, {}, '/?'), [200, 'alice'])
    t.same(await check({}, {}, '/?'), [401, 'signature_components'], 'a query that is not signed')
    t.same(await check({ components: { ...target, '"@query-param";name="a"': 'b' } }, {}, '/?a=b'), [
      401,
      'signature_components'
    ])
    for (const [name] of Object.entries(target)) {
      const { [name as '@path']: _missing, ...components } = target
      t.same(await check({ components }), [401, 'signature_components'], name)
    }
    t.same(await check({}, {}, '/', { method: 'DELETE' }), [401, 'signature_wrong'])
    t.same(await check({ key: other.privateKey }), [401, 'signature_wrong'])
    t.same(await check({ keyId: 'c' }), [401, 'signature_key'])

    const parameter = { ...target, '@query': '?a=1&%62=%20~&b2=3', '"@query-param";name="b"': '%20%7E' }
    t.same(await check({ components: parameter }, {}, '/?a=1&%62=%20~&b2=3'), [200, 'alice'])
    const repeated = { ...target, '@query': '?b=1&b=1', '"@query-param";name="b"': '1' }
    t.same(await check({ components: repeated }, {}, '/?b=1&b=1'), [401, 'signature_base'])

    const field = { ...target, 'x-user': 'a' }
    t.same(await check({ components: field }, { 'x-user': 'a' }), [200, 'alice'])
    t.same(await check({ components: field }, { 'x-user': 'b' }), [401, 'signature_wrong'])
    t.same(await check({ components: { ...target, 'x-user': 'a\u00e9' } }, { 'x-user': 'a\u00e9' }), [200, 'alice'])
    t.same(await check({ components: field }), [401, 'signature_base'])
    t.same(await check({ components: field }, { 'x-user': 'a', x_user: 'b' }), [401, 'signature_base'])
    if (protocol !== 'HTTP/2') {
      t.same(await check({ components: field }, { 'x-user': 'a', 'X-User': 'b' }), [401, 'signature_wrong'])
      t.same(await check({ components: { ...target, 'x-user': 'a, b' } }, { 'x-user': 'a', 'X-User': 'b' }), [
        200,
        'alice'
      ])
      const removed = { 'x-user': 'a', connection: 'close, x-user' }
      t.same(await check({ components: field }, removed), [401, 'signature_base'], 'it would be removed')
    }
    const odd = { '"x-user";bs': ':YSwgYg==:', '"x-d";key="a"': '?1', '"x-d";sf': 'a, b=1' }
    t.same(await check({ components: { ...target, ...odd } }, { 'x-user': 'a, b', 'x-d': 'a,b=1' }), [200, 'alice'])
    for (const name of [
      '"@status"',
      '"@signature-params"',
      '"@unknown"',
      '"@method";req',
      '"x-user";tr',
      '"x-user";req',
      '"x-user";sf;bs',
      '"x-user";key="a"',
      '"x-user";sf',
      '"X-User"',
      'x-user',
      '"@path";name="a"'
    ]) {
      t.same((await check({ components: { ...target, [name]: '' } }, { 'x-user': '(' }))[0], 401, name)
    }
    const twice = signed({ components: { ...target, '"x-d";key="a";sf': '' } })
    t.same(await outcome({ ...host, 'x-d': 'a', ...twice }), [401, 'signature_base'])

    t.same(await outcome(host), [401, 'signature_missing'])
    const { signature, 'signature-input': input } = signed({})
    t.same(await outcome({ ...host, signature }), [401, 'signature_none'])
    t.same(await outcome({ ...host, 'signature-input': input }), [401, 'signature_malformed'])
    t.same(await outcome({ ...host, signature, 'signature-input': 's=(' }), [401, 'signature_malformed'])
    t.same(await outcome({ ...host, signature: 's=1', 'signature-input': input }), [401, 'signature_malformed'])
    t.same(await outcome({ ...host, signature, 'signature-input': input.replace('s=', 't=') }), [
      401,
      'signature_malformed'
    ])

    const two = signed({ label: 'proxy', keyId: 'unknown' })
    const both = {
      'signature-input': `${two['signature-input']}, ${input}`,
      signature: `${signature}, ${two.signature}`
    }
    t.same(await outcome({ ...host, ...both }), [200, 'alice'], 'the first valid one')
    const many = Array.from({ length: 4 }, (_, index) => `x${index}=();keyid="?"`).join(', ')
    const values = Array.from({ length: 4 }, (_, index) => `x${index}=:AA==:`).join(', ')
    const later = { 'signature-input': `${many}, ${input}`, signature: `${values}, ${signature}` }
    t.same(await outcome({ ...host, ...later }), [401, 'signature_key'], 'a fifth one is not tried')

    t.match((await seen({ ...host, ...signed({}) })).headers, { signature: undefined, 'signature-input': undefined })
    const refused = await ask('/', { headers: host })
    const challenge = 'Signature realm="jingwei", components="@method @authority @path @query"'
    t.equal(refused.headers['www-authenticate'], challenge)
    if (protocol !== 'HTTP/1.1') return
    const absolute = {
      '@method': 'GET',
      '@request-target': 'http://api.example/p?q',
      '@target-uri': 'http://api.example/p?q'
    }
    const lines = Object.entries(signed({ components: absolute })).map(([name, value]) => `${name}: ${value}\r\n`)
    const text = `GET http://api.example/p?q HTTP/1.1\r\nHost: api.example\r\n${lines.join('')}Connection: close\r\n\r\n`
    t.match(await raw(port, text), /^HTTP\/1.1 200 /)
  })
}

t.test('a trusted proxy says what the client has signed', async (t) => {
  const components = { '@method': 'GET', '@target-uri': 'https://api.example/' }
  const headers = { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'api.example', ...signed({ components }) }
  const trusting = await gatewayWith(t, { listen: { trustProxy: ['127.0.0.1'] } })
  t.same(await trusting.outcome(headers), [200, 'alice'])
  const { outcome } = await gatewayWith(t, {})
  t.same(await outcome(headers), [401, 'signature_wrong'], 'of others these headers are not believed')
})

t.test('times, parameters and tags', async (t) => {
  const messageSignature = { maxAge: '1m', clockSkew: '5s', tag: 'a', parameters: ['nonce'] }
  const { outcome } = await gatewayWith(t, { messageSignature })
  let nonce = 0
  const check = (parameters: string) =>
    outcome({ host: 'api.example', ...signed({ parameters: `;nonce="${nonce++}";tag="a"${parameters}` }) })
  t.same(await check(''), [200, 'alice'])
  t.same(await check(`;created=${time - 65}`), [200, 'alice'])
  t.same(await check(`;created=${time - 66}`), [401, 'signature_age'])
  t.same(await check(`;created=${time + 5}`), [200, 'alice'])
  t.same(await check(`;created=${time + 6}`), [401, 'signature_age'])
  t.same(await check(`;expires=${time - 5}`), [200, 'alice'])
  t.same(await check(`;expires=${time - 6}`), [401, 'signature_age'])
  t.same(await check(';expires="later"'), [401, 'signature_parameters'])
  t.same(await check(';created="now"'), [401, 'signature_parameters'])
  t.same(await check(`;created=${time}.5`), [401, 'signature_parameters'])
  t.same(await check(';alg="ecdsa-p256-sha256"'), [200, 'alice'])
  t.same(await check(';alg="rsa-v1_5-sha256"'), [401, 'signature_parameters'])
  t.same(await check(';tag="b"'), [401, 'signature_none'])
  const without = signed({ parameters: ';tag="a"' })
  t.same(await outcome({ host: 'api.example', ...without }), [401, 'signature_parameters'], 'without a nonce')
})

t.test('each signature is accepted once, if replayWindow says so', async (t) => {
  const { outcome } = await gatewayWith(t, { messageSignature: { replayWindow: { by: 'signature' }, maxAge: '10s' } })
  const components = { ...target, '@path': '/once' }
  const [first, second] = [signed({ components }), signed({ components })]
  t.not(first.signature, second.signature)
  t.same(await outcome({ host: 'api.example', ...first }, '/once'), [200, 'alice'])
  t.same(await outcome({ host: 'api.example', ...second }, '/once'), [401, 'signature_replayed'], 'of the same text')
  const ahead = signed({ components, parameters: `;created=${time + 30}` })
  t.same(await outcome({ host: 'api.example', ...ahead }, '/once'), [200, 'alice'])
  time += 70
  t.same(await outcome({ host: 'api.example', ...ahead }, '/once'), [401, 'signature_replayed'])
  const off = await gatewayWith(t, { messageSignature: { replayWindow: false } })
  const nonce = { host: 'api.example', ...signed({ parameters: ';nonce="x"' }) }
  t.same(await off.outcome(nonce), [200, 'alice'])
  t.same(await off.outcome(nonce), [200, 'alice'])
})

t.test('a consumer that floods leaves room in the replay window to others', async (t) => {
  const { ask, outcome, server } = await gatewayWith(t, {
    messageSignature: { replayWindow: { maxSize: '192b' }, maxAge: '10s', clockSkew: '1s' },
    edge: { rateLimit: { max: 1, window: '1h', by: 'consumer' } }
  })
  const request = (nonce: string, keyId = 'a 1', key = privateKey) => ({
    host: 'api.example',
    ...signed({ parameters: `;nonce="${nonce}"`, keyId, key })
  })
  t.same(await outcome(request('1')), [200, 'alice'])
  for (const nonce of ['2', '3', '4']) t.same(await outcome(request(nonce)), [429, 'rate_consumer'])
  const limited = await ask('/', { headers: request('5') })
  t.equal(limited.status, 429)
  t.equal(JSON.parse(limited.body.toString()).code, 'JW_SIGNATURES_LIMITED')
  t.match(String(limited.headers['retry-after']), /^1[0-4]$/)
  t.same(await outcome(request('1')), [401, 'signature_replayed'])
  t.same(await outcome(request('6', 'b', other.privateKey)), [200, 'bob'])
  t.match(
    await server.metrics.metrics(),
    /^jingwei_edge_replay_window_used_ratio\{concern="message-signature"\} 0\.625$/m
  )
  time += 14
  t.same(await outcome(request('5')), [429, 'rate_consumer'], 'after the window')
})

t.test('a route in shadow mode takes no place in the replay window of others', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const messageSignature = { replayWindow: { maxSize: '48b' } }
  const gateway = await startGateway(
    {
      services: { any: { instances: [service.url] } },
      consumers: own,
      routes: [
        {
          name: 'tried',
          match: { path: '/tried' },
          service: 'any',
          edge: { messageSignature: { ...messageSignature, mode: 'shadow' } }
        },
        { name: 'all', match: { path: '/' }, service: 'any', edge: { messageSignature } }
      ]
    },
    { before: (server) => void server.decorate(CLOCK, clock) }
  )
  t.teardown(gateway.close)
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  const statusOf = async (path: string, nonce: string) => {
    const components = { ...target, '@path': path }
    const headers = { host: 'api.example', ...signed({ components, parameters: `;nonce="${nonce}"` }) }
    return (await ask(path, { headers })).status
  }
  for (const nonce of ['a', 'b', 'c']) t.equal(await statusOf('/tried', nonce), 200)
  t.equal(await statusOf('/', 'a'), 200)
  t.equal(await statusOf('/', 'b'), 429)
})

t.test('bodies need a digest that is signed, unless contentDigest is false', async (t) => {
  const { outcome } = await gatewayWith(t, { messageSignature: { maxBodySize: '1kb' } })
  const post = { method: 'POST', body: 'abc' }
  const posted = { ...target, '@method': 'POST' }
  const digest = `sha-256=:${hash('sha256', 'abc', 'base64')}:`
  const check = (components: Record<string, string>, options: AskOptions = post, more: object = {}) =>
    outcome({ host: 'api.example', 'content-digest': digest, ...more, ...signed({ components }) }, '/', options)
  t.same(await check({ ...posted, 'content-digest': digest }), [200, 'alice'])
  t.same(await check(posted), [401, 'signature_digest'])
  t.same(await check({ ...posted, '"content-digest";key="sha-256"': digest.slice(8) }), [401, 'signature_digest'])
  t.same(await check({ ...posted, 'content-digest': digest }, { method: 'POST' }), [401, 'signature_digest'])
  t.same(await check(posted, { method: 'POST' }), [200, 'alice'], 'without a body')
  const large = { method: 'POST', body: 'x'.repeat(2000) }
  t.same(await check({ ...posted, 'content-digest': digest }, large), [413, 'JW_BODY_TOO_LARGE'])
  const off = await gatewayWith(t, { messageSignature: { contentDigest: false, hideCredentials: false } })
  const headers = signed({ components: posted })
  const seen = await off.seen({ host: 'api.example', ...headers }, '/', large)
  t.match(seen, { body: large.body, headers })
})

t.test('with other methods, and in shadow mode', async (t) => {
  const failures = { max: 2, window: '1h' }
  const { outcome, seen } = await gatewayWith(t, {
    edge: { keyAuth: {}, authentication: { require: 'any', failures } },
    consumers: [...own, { name: 'key', keyAuth: { hash: `sha256:${hash('sha256', 'k')}` } }]
  })
  const host = { host: 'api.example' }
  t.same(await outcome({ ...host, ...signed({}) }), [200, 'alice'])
  t.same(await outcome({ ...host, 'x-api-key': 'k' }), [200, 'key'])
  const unverified = await seen({ ...host, 'x-api-key': 'k', ...signed({ keyId: 'no' }) })
  t.match(unverified.headers, { signature: undefined, 'signature-input': undefined })
  for (let at = 0; at < 2; at++) t.same((await outcome({ ...host, ...signed({ keyId: 'no' }) }))[1], 'signature_key')
  t.same(await outcome({ ...host, ...signed({}) }), [429, 'auth_failures'])

  const shadow = await gatewayWith(t, { messageSignature: { mode: 'shadow' } })
  const wrong = signed({ keyId: 'no' })
  t.match(await shadow.seen({ ...host, ...wrong }, '/', { method: 'POST', body: 'abc' }), {
    body: 'abc',
    headers: wrong
  })
  await eventually(() => shadow.lines().length === 1)
  t.match(shadow.lines()[0], { shadow: [{ concern: 'message-signature', reason: 'signature_key' }] })
})

t.test(
  'in shadow mode a signature may cover the credentials of another method, which are removed afterwards',
  async (t) => {
    for (const authentication of [{}, { anonymous: 'guest' }]) {
      const gateway = await gatewayWith(t, {
        messageSignature: { mode: 'shadow' },
        edge: { keyAuth: { query: 'k' }, authentication },
        consumers: [...own, { name: 'key', keyAuth: { hash: `sha256:${hash('sha256', 'k')}` } }]
      })
      const components = { ...target, '@path': '/a', '@query': '?b=c&k=k' }
      const covered = { host: 'api.example', ...signed({ components }) }
      const found = await gateway.seen(covered, '/a?b=c&k=k')
      t.match(found, { url: '/a?b=c', headers: { signature: covered.signature } })
      await eventually(() => gateway.lines().length === 1)
      t.match(gateway.lines()[0], { consumer: 'key', shadow: undefined })
      t.equal((await gateway.seen({ ...covered, ...signed({}) }, '/a?b=c&k=k')).url, '/a?b=c', 'after a refusal, too')
      await eventually(() => gateway.lines().length === 2)
      t.match(gateway.lines()[1], { consumer: 'key', shadow: [{ reason: 'signature_components' }] })
    }
  }
)

t.test('a WebSocket handshake is signed', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const { port } = await gatewayWith(t, { services: { any: { instances: [service.url] } } })
  t.match(await raw(port, handshake('/ws')), /^HTTP\/1.1 401 /)
  const [host = ''] = /(?<=host: )\S+/i.exec(handshake('/ws')) ?? []
  const components = { '@method': 'GET', '@authority': host, '@path': '/ws', upgrade: 'websocket' }
  const headers = Object.entries(signed({ components })).map(([name, value]) => `${name}: ${value}`)
  const refused = await raw(port, handshake('/ws', headers))
  t.match(refused, /^HTTP\/1.1 401 /, 'Connection names Upgrade')
  const { upgrade: _upgrade, ...others } = components
  const accepted = Object.entries(signed({ components: others })).map(([name, value]) => `${name}: ${value}`)
  const { peer } = await open(port, '/ws', accepted)
  peer.socket.destroy()
  t.notMatch(service.requests[0]!.rawHeaders.join(), /signature/i)
})

t.test('keys are checked with the configuration', async (t) => {
  const small = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey
  const rsaKey = pem(generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey)
  t.equal(keyFault({ algorithm: 'rsa-pss-sha512', key: rsaKey }), null)
  t.match(keyFault({ algorithm: 'rsa-pss-sha512', key: pem(small) })?.fault, /2048 bits, found 1024/)
  t.match(
    keyFault({ algorithm: 'ecdsa-p384-sha384', key: pem(publicKey) })?.fault,
    /does not fit a key of type prime256v1/
  )
  t.match(keyFault({ algorithm: 'ed25519', key: rsaKey })?.fault, /does not fit a key of type rsa/)
  t.match(keyFault({ algorithm: 'ed25519', key: 'x' })?.fault, /PEM/)
  t.match(keyFault({ algorithm: 'ed25519' })?.fault, /needs a key/)
  t.match(keyFault({ algorithm: 'hmac-sha256' })?.fault, /needs a secret/)
  t.match(keyFault({ algorithm: 'hmac-sha256', key: rsaKey })?.fault, /needs a secret instead/)
  t.match(keyFault({ algorithm: 'ed25519', key: rsaKey, secret: 'x' })?.fault, /needs a key instead/)
  const secretKey = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  t.match(keyFault({ algorithm, key: secretKey } as never)?.fault, /found a private one/)
  const config = (messageSignature: object) => () =>
    configOf({ services: {}, routes: [], consumers: [{ name: 'a', messageSignature }] })
  t.throws(
    config([{ keyId: 'k', algorithm: 'ed25519', key: 'x' }]),
    /consumers\[0\]\.messageSignature\[0\]\.key: expected a public key/
  )
  t.throws(config({ keyId: 'k', algorithm: 'hmac-sha256', secret: 'c2hvcnQ=' }), /at least 16 bytes/)
})
