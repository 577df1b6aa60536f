// slow: takes about 8 s
import { generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ConfigError } from '../../config/load.ts'
import { parseConfig } from '../../plugins/config.ts'
import { selfSigned } from '../helpers/self-signed.ts'
import { badConfigs } from './bad-configs.ts'
import { badMesh } from './bad-mesh.ts'

const spki = { type: 'spki', format: 'pem' } as const
const pkcs8 = { type: 'pkcs8', format: 'pem' } as const
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048, publicKeyEncoding: spki, privateKeyEncoding: pkcs8 })
const weak = generateKeyPairSync('rsa', { modulusLength: 1024, publicKeyEncoding: spki, privateKeyEncoding: pkcs8 })
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256', publicKeyEncoding: spki, privateKeyEncoding: pkcs8 })
const [ownCertificate, ownKey] = Object.values(selfSigned(t)).map((path) => readFileSync(path, 'utf8'))
const dir = t.testdir({
  'own.crt': ownCertificate!,
  'own.key': ownKey!,
  'rsa.pem': rsa.publicKey,
  'private.pem': rsa.privateKey,
  'ec.pem': ec.publicKey,
  'weak.pem': weak.publicKey,
  'key.pem': 'no key',
  'plugin.ts': ''
})
const file = join(dir, 'gateway.yaml')

function faultsOf(text: string, env: NodeJS.ProcessEnv = {}): ConfigError {
  try {
    parseConfig(text, file, env)
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
  return new ConfigError(file, [])
}

for (const { name, yaml, faults } of [...badConfigs, ...badMesh]) {
  t.test(name, async (t) => {
    const error = faultsOf(yaml, { WORD: 'hunter2' })
    const reported = error.faults.map((f) => `${f.line}:${f.column}: ${f.path}${f.path && ': '}${f.message}`)
    t.strictSame(
      reported,
      faults.map((fault) => (typeof fault === 'string' ? fault : fault(dir)))
    )
    const sum = `${reported.length} ${reported.length === 1 ? 'fault' : 'faults'} in ${file}; nothing was started`
    t.equal(error.message, [...reported.map((fault) => `${file}:${fault}`), sum].join('\n'))
    t.notMatch(error.message, /hunter2/, 'secrets and values of the environment are masked')
  })
}

t.test('a long value of the environment is masked, too', async (t) => {
  const yaml = `edge: { validation: { body: { content: { application/json: { type: "\${WORD}" } } } } }`
  const { faults } = faultsOf(yaml, { WORD: 'hunter2'.repeat(50) })
  t.equal(faults.length, 1)
  t.match(faults[0]!.message, /found "\$\{WORD\}"$/)
})

const routesOn = (count: number) => {
  const routes = Array.from(
    { length: count },
    (_, i) => `  - { name: r${i}, service: a, match: { path: /x, headers: { v: '${i}' } } }`
  )
  return ['services: { a: { instances: [http://h] } }', 'routes:', ...routes].join('\n')
}

t.test('100 routes on one path have no faults', async (t) => {
  t.strictSame(faultsOf(routesOn(100)).faults, [])
})

t.test('a fault in an aliased section is reported once, at its position', async (t) => {
  const yaml = [
    'services:',
    '  a: { instances: [http://h], mesh: &m { timeot: 1s } }',
    '  b: { instances: [http://h], mesh: *m }'
  ].join('\n')
  t.strictSame(
    faultsOf(yaml).faults.map(({ line, column, message }) => `${line}:${column}: ${message}`),
    ['2:42: unknown key; did you mean "timeout"?']
  )
})

t.test('aliases that expand exponentially are refused', async (t) => {
  const lines = ['plugins:', '  - package: fastify', '    options:', '      a0: &a0 [x, x, x, x, x, x, x, x, x, x]']
  for (let i = 1; i < 9; i++)
    lines.push(
      `      a${i}: &a${i} [${Array(10)
        .fill(`*a${i - 1}`)
        .join(', ')}]`
    )
  t.match(faultsOf(lines.join('\n')).message, /aliases expand to more than 1\d{5} values/)
  const merged = [
    'a0: &a0 {}',
    ...Array.from({ length: 8 }, (_, i) => `a${i + 1}: &a${i + 1} { <<: [${Array(10).fill(`*a${i}`).join(', ')}] }`)
  ]
  t.match(faultsOf(merged.join('\n')).message, /aliases expand to more than 1\d{5} values/)
})

t.test('merges that expand exponentially are refused, also empty ones', async (t) => {
  for (const nothing of ['{}', '{ a: 1 }', '[]', '[{}]']) {
    const lines = ['plugins:', '  - package: fastify', '    options:', `      a0: &a0 ${nothing}`]
    for (let i = 1; i < 30; i++) lines.push(`      a${i}: &a${i} { <<: [*a${i - 1}, *a${i - 1}, *a${i - 1}] }`)
    t.match(
      faultsOf(lines.join('\n')).message,
      /expand to more than 1\d{5} values|only mappings can be merged/,
      nothing
    )
  }
})

t.test('the position of a fault below nested merges is found', async (t) => {
  const lines = ['a0: &a0 { b: 1 }']
  for (let i = 1; i < 30; i++) lines.push(`a${i}: &a${i} { <<: [*a${i - 1}, *a${i - 1}, *a${i - 1}], c: \${UNSET} }`)
  t.match(faultsOf(lines.slice(0, 5).join('\n')).message, /4:.*a3.c: environment variable UNSET is not set/)
  t.match(faultsOf(lines.join('\n')).message, /expand to more than 1\d{5} values/)
})

t.test('thousands of faults are reported', async (t) => {
  const services = Array.from({ length: 5000 }, (_, i) => `  a${i}: { instances: [h], mesh: { timeout: 1 } }`)
  t.equal(faultsOf(['services:', ...services].join('\n')).faults.length, 10_000)
})

t.test('any value at any place is a fault or a configuration, never a crash', async (t) => {
  const good = {
    listen: {
      port: 80,
      tls: { cert: 'own.crt', key: 'own.key', certificates: [{ cert: 'own.crt', key: 'own.key' }] },
      http2: true,
      timeouts: { headers: '1s' }
    },
    admin: { port: 81 },
    discovery: { consul: { url: 'http://h', tls: { ca: 'rsa.pem' } } },
    redis: { url: 'redis://h' },
    edge: {
      jwt: { publicKey: 'rsa.pem', algorithms: ['RS256'] },
      cors: { origin: ['https://x'] },
      rateLimit: { max: 1, window: '1s' }
    },
    mesh: { timeout: '2s', attemptTimeout: '1s', retry: { on: [503], backoff: { base: '1ms' } } },
    services: {
      a: { instances: ['http://h', { url: 'http://h' }], mesh: { attemptTimeout: '1s' } },
      b: { dns: { host: 'h', port: 1 } },
      c: { consul: { service: 'c' } }
    },
    routes: [
      {
        name: 'one',
        match: { path: '/one', hosts: ['h'], headers: { a: 'b' } },
        service: 'a',
        path: { strip: '/one' },
        edge: { cors: false, rateLimit: { max: 1, window: '1s', by: 'consumer' } },
        mesh: { timeout: '1s' }
      },
      {
        name: 'two',
        match: { path: { exact: '/two' }, methods: ['GET'] },
        split: [
          { service: 'a', weight: 1 },
          { service: 'b', weight: 1 }
        ]
      }
    ],
    plugins: [{ path: 'plugin.ts', options: { a: 1 } }]
  }
  t.strictSame(faultsOf(JSON.stringify(good)).faults, [], 'the unchanged configuration has no faults')
  const strange = [null, true, false, 0, 1.5, '', 'text', [], [null], [[]], {}, { x: null }, { x: { y: [1] } }]
  let faulty = 0
  const replaceEach = (node: unknown) => {
    if (typeof node !== 'object' || node === null) return
    for (const [key, kept] of Object.entries(node)) {
      for (const value of strange) {
        Reflect.set(node, key, value)
        if (faultsOf(JSON.stringify(good)).faults.length > 0) faulty++
      }
      Reflect.set(node, key, kept)
      replaceEach(kept)
    }
  }
  t.doesNotThrow(() => replaceEach(good))
  t.ok(faulty > 500, `${faulty} configurations have faults`)
})
