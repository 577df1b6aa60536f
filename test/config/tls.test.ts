/** Faults and warnings of `listen.tls`: files, keys, names, client certificates. */
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { Fault } from '../../config/load.ts'
import { ConfigError } from '../../config/load.ts'
import { parseConfig } from '../../plugins/config.ts'
import { authority, folderFor } from '../helpers/certificates.ts'

const dir = folderFor(t)
const ca = authority(dir, 'ca')
const one = ca.issue('one', { san: 'DNS:one.example,DNS:*.one.example' })
const two = ca.issue('two', { san: 'DNS:two.example' })
const expired = ca.issue('expired', { san: 'DNS:old.example', days: -1 })
const nameless = ca.issue('nameless')
const path = (name: string) => join(dir, name)

mkdirSync(path('empty'))
mkdirSync(path('mixed'))
copyFileSync(one.certFile, path('mixed/good.crt'))
copyFileSync(one.keyFile, path('mixed/good.key'))
copyFileSync(two.certFile, path('mixed/bad.crt'))
copyFileSync(one.keyFile, path('mixed/bad.key'))
mkdirSync(path('bad'))
copyFileSync(path('mixed/bad.crt'), path('bad/bad.crt'))
copyFileSync(path('mixed/bad.key'), path('bad/bad.key'))
writeFileSync(path('half.pem'), one.cert.slice(0, 200))
writeFileSync(path('nonsense.pem'), one.cert.replace(/[A-Za-z]{20}/, 'AAAAAAAAAAAAAAAAAAAA'))
writeFileSync(path('chain.pem'), `${ca.cert}${one.cert}`)
writeFileSync(path('empty.pem'), '')
const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' })
openssl('ec', '-in', one.keyFile, '-aes128', '-passout', 'pass:secret', '-out', path('encrypted.key'))
openssl('genpkey', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024', '-out', path('weak.key'))
openssl('genpkey', '-algorithm', 'X25519', '-out', path('x25519.key'))

/** Returns the faults and warnings of `listen: { tls: … }`. */
function report(tls: string, more = ''): { faults: string[]; warnings: string[] } {
  const warnings: string[] = []
  const text = ({ line, column, path, message }: Fault) => `${line}:${column}: ${path}: ${message}`
  try {
    parseConfig(
      `listen: { tls: ${tls} }${more}`,
      path('gateway.yaml'),
      {},
      (warning) => void warnings.push(text(warning))
    )
    return { faults: [], warnings }
  } catch (error) {
    if (error instanceof ConfigError) return { faults: error.faults.map(text), warnings }
    throw error
  }
}

const pair = ({ certFile, keyFile }: typeof one) => `cert: ${certFile}, key: ${keyFile}`
const faults: [name: string, tls: string, expected: (string | RegExp)[]][] = [
  ['an empty mapping', '{}', [/listen\.tls: needs a certificate: cert and key, certificates, or folders$/]],
  ['a certificate without its key', `{ cert: ${one.certFile} }`, [/listen\.tls: missing key "key"$/]],
  ['a key without its certificate', `{ key: ${one.keyFile} }`, [/listen\.tls: missing key "cert"$/]],
  ['the key of another certificate', `{ cert: ${one.certFile}, key: ${two.keyFile} }`, [`listen.tls.key: ${two.keyFile} is not the key of the certificate`]],
  ['a truncated certificate', `{ cert: half.pem, key: ${one.keyFile} }`, [`listen.tls.cert: ${path('half.pem')} ends in the middle of a certificate`]],
  ['a malformed certificate', `{ cert: nonsense.pem, key: ${one.keyFile} }`, [/listen\.tls\.cert: .*nonsense\.pem contains a malformed certificate/]],
  ['an empty file', `{ cert: empty.pem, key: ${one.keyFile} }`, [/listen\.tls\.cert: .*empty\.pem contains no certificate$/]],
  ['another certificate first', `{ cert: chain.pem, key: ${one.keyFile} }`, [/listen\.tls\.key: .* is the key of another certificate of the chain: the certificate of this key must come first$/]],
  ['an encrypted key', `{ cert: ${one.certFile}, key: encrypted.key }`, [/listen\.tls\.key: .*encrypted\.key is encrypted: remove its passphrase$/]],
  ['a weak key', `{ cert: ${one.certFile}, key: weak.key }`, [/listen\.tls\.key: .*weak\.key is an RSA key of 1024 bits; at least 2048 are needed$/]],
  ['a key that cannot sign', `{ cert: ${one.certFile}, key: x25519.key }`, [/is a key of type x25519; TLS needs one of RSA, EC or Ed25519$/]],
  ['a missing key file in the list', `{ certificates: [{ ${pair(one)} }, { cert: ${one.certFile}, key: none.key }] }`, [/listen\.tls\.certificates\[1\]\.key: no such file/]],
  ['a certificate for a key', `{ certificates: [{ cert: ${one.keyFile}, key: ${one.keyFile} }] }`, [/listen\.tls\.certificates\[0\]\.cert: expected a certificate, found a private key/]],
  ['a missing folder', '{ folders: [nowhere] }', [/listen\.tls\.folders\[0\]: cannot be read: .*ENOENT/]],
  ['an empty folder and nothing else', '{ folders: [empty] }', [/listen\.tls: no certificate can be used: all handshakes would fail$/]],
  ['a folder without a usable certificate', '{ folders: [bad] }', [/listen\.tls: no certificate can be used/]],
  ['an unknown default', `{ certificates: [{ ${pair(one)} }], default: two.example }`, [/listen\.tls\.default: no certificate has the name two\.example$/]],
  ['default beside cert and key', `{ ${pair(one)}, default: one.example }`, [/listen\.tls\.default: cannot be set together with cert and key/]],
  ['minVersion newer than maxVersion', `{ ${pair(one)}, minVersion: TLSv1.3, maxVersion: TLSv1.2 }`, [/listen\.tls\.minVersion: is newer than maxVersion, which is TLSv1\.2$/]],
  ['a minVersion that is too old', `{ ${pair(one)}, minVersion: TLSv1.1 }`, [/listen\.tls\.minVersion: .*TLSv1\.2/]],
  ['a misspelt cipher', `{ ${pair(one)}, ciphers: [ECDHE-RSA-AES128-GCM-SHA265] }`, [/listen\.tls\.ciphers\[0\]: unknown cipher suite; did you mean "ECDHE-RSA-AES128-GCM-SHA256"\?$/]],
  ['ciphers of TLS 1.3 only, for TLS 1.2', `{ ${pair(one)}, ciphers: [TLS_AES_128_GCM_SHA256], maxVersion: TLSv1.2 }`, [/all of these are for TLS 1\.3/]],
  ['ca and clientCertificate.ca', `{ ${pair(one)}, ca: ${ca.file}, clientCertificate: { ca: ${ca.file} } }`, [/listen\.tls\.ca: is short for clientCertificate.ca; set only one of the two$/]],
  ['clientCertificate without a ca', `{ ${pair(one)}, clientCertificate: {} }`, [/listen\.tls\.clientCertificate: mode: require needs a ca/]],
  ['clientCertificate of a host without a ca', `{ ${pair(one)}, hosts: [{ names: [a], clientCertificate: { mode: request } }] }`, [/listen\.tls\.hosts\[0\]\.clientCertificate: mode: request needs a ca/]],
  ['a ca file without a certificate', `{ ${pair(one)}, clientCertificate: { ca: empty.pem } }`, [/listen\.tls\.clientCertificate\.ca: .*empty\.pem contains no certificate$/]],
  ['a duplicate host', `{ ${pair(one)}, ca: ${ca.file}, hosts: [{ names: [A.example, a.example.], clientCertificate: {} }] }`, [/listen\.tls\.hosts\[0\]\.names\[1\]: duplicate host a\.example\.; it is also in listen\.tls\.hosts\[0\]\.names\[0\]$/]],
  ['a malformed host', `{ ${pair(one)}, ca: ${ca.file}, hosts: [{ names: ["a b"], clientCertificate: {} }] }`, [/listen\.tls\.hosts\[0\]\.names\[0\]: is neither a host name nor a wildcard such as \*\.example\.com$/]]
] // biome-ignore format: a table

for (const [name, tls, expected] of faults) {
  t.test(`fault: ${name}`, async (t) => {
    const { faults } = report(tls)
    t.match(
      faults,
      expected.map((each) => (typeof each === 'string' ? new RegExp(each.replaceAll('.', '\\.')) : each))
    )
    t.equal(faults.length, expected.length, faults.join('\n'))
    t.notMatch(faults.join(), /PRIVATE KEY-----\n/)
  })
}

const warnings: [name: string, tls: string, expected: RegExp[]][] = [
  ['none', `{ certificates: [{ ${pair(one)} }, { ${pair(two)} }], default: x.one.example }`, []],
  ['an expired certificate', `{ certificates: [{ ${pair(expired)} }] }`, [/listen\.tls\.certificates\[0\]\.cert: .*: the certificate expired at \d{4}-/]],
  ['a certificate without names', `{ ${pair(nameless)} }`, [/listen\.tls\.cert: .*: the certificate has no names/]],
  ['an empty folder', `{ ${pair(one)}, folders: [empty] }`, [/listen\.tls\.folders\[0\]: found no certificate with its key in /]],
  ['a certificate in a folder with the wrong key', '{ folders: [mixed] }', [/listen\.tls\.folders\[0\]: .*bad\.key is not the key of the certificate; the certificate is not served$/]],
  ['default without effect beside strict', `{ certificates: [{ ${pair(one)} }], default: one.example, strict: true }`, [/listen\.tls\.default: no effect/]],
  ['a ca without effect with mode: none', `{ ${pair(one)}, clientCertificate: { mode: none, ca: ${ca.file} } }`, [/listen\.tls\.clientCertificate\.ca: no effect/]]
] // biome-ignore format: a table

for (const [name, tls, expected] of warnings) {
  t.test(`warning: ${name}`, async (t) => {
    const { faults, warnings } = report(tls)
    t.strictSame(faults, [])
    t.match(warnings, expected)
    t.equal(warnings.length, expected.length, warnings.join('\n'))
  })
}

const routesFor = (...hosts: (string | null)[]) =>
  `\nservices: { any: { instances: ["http://127.0.0.1:1"] } }\nroutes: [${hosts
    .map(
      (host, index) =>
        `{ name: r${index}, match: { path: /${host === null ? '' : `, hosts: ["${host}"]`} }, service: any }`
    )
    .join(', ')}]`
const ruled = (names: string, more = '') =>
  `{ ${pair(one)}, ca: ${ca.file}, hosts: [{ names: [${names}], clientCertificate: {} }]${more} }`

/** `one` has the names one.example and *.one.example. */
const hosts: [name: string, tls: string, routes: string, faults: RegExp[], warnings: RegExp[]][] = [
  ['of a certificate', ruled('one.example, a.one.example, "*.one.example"'), routesFor(null), [], []],
  ['of a route', ruled('admin.example, b.c.example, "*.example"'), routesFor(null, 'admin.example', '*.c.example'), [], []],
  ['misspelt, of a certificate', ruled('oen.example'), routesFor(null), [], [/listen\.tls\.hosts\[0\]\.names\[0\]: no certificate and no route has the name oen\.example, so this rule has no effect; did you mean "one\.example"\?$/]],
  ['misspelt, of a route', ruled('admn.shop.test'), routesFor(null, 'admin.shop.test'), [], [/names\[0\]: no certificate and no route has the name admn\.shop\.test, .*; did you mean "admin\.shop\.test"\?$/]],
  ['misspelt, below the wildcard of a certificate', ruled('admn.one.example'), routesFor('admin.one.example'), [], [/names\[0\]: no route has the name admn\.one\.example, .*; did you mean "admin\.one\.example"\?$/]],
  ['a misspelt wildcard', ruled('"*.oen.example"'), routesFor(null), [], [/names\[0\]: no certificate and no route has the name \*\.oen\.example, .*; did you mean "\*\.one\.example"\?$/]],
  ['below a wildcard, by more than a label', ruled('a.b.one.example'), routesFor(null), [], [/no certificate and no route has the name a\.b\.one\.example/]],
  ['misspelt, where another has rules', ruled('one.example, oen.example'), routesFor(null), [], [/names\[1\]: .* so this rule has no effect(; did you mean "\*\.one\.example"\?)?$/]],
  ['strict: misspelt', ruled('admn.one.test', ', strict: true'), routesFor(null, 'admin.one.test'), [/listen\.tls\.hosts\[0\]\.names\[0\]: no certificate has the name admn\.one\.test, so with strict: true all handshakes for it fail; did you mean "admin\.one\.test"\?$/], []],
  ['strict: of a route, without a certificate', ruled('admin.one.test', ', strict: true'), routesFor('admin.one.test'), [/no certificate has the name admin\.one\.test, so with strict: true/], []],
  ['strict: a certificate may come into a folder', ruled('admin.one.test', ', strict: true, folders: [mixed]'), routesFor('admin.one.test'), [], [/no certificate has the name admin\.one\.test, so with strict: true/, /bad\.key is not the key/]]
] // biome-ignore format: a table

for (const [name, tls, routes, faulty, warned] of hosts) {
  t.test(`hosts with rules: ${name}`, async (t) => {
    const { faults, warnings } = report(tls, routes)
    t.match(faults, faulty)
    t.equal(faults.length, faulty.length, faults.join('\n'))
    t.match(warnings, warned)
    t.equal(warnings.length, warned.length, warnings.join('\n'))
  })
}
