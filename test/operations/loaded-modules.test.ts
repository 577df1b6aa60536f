// slow: starts a command for each case
// Packages that a command loads. Each costs memory and start time, whether or not the configuration needs it.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { runToEnd, start } from '../helpers/processes.ts'

const root = join(import.meta.dirname, '../..')
const folder = mkdtempSync(join(tmpdir(), 'jingwei-loaded-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))

/** Records what a process loads, of packages and of Node. */
const recorder = `
import { registerHooks } from 'node:module'
import { writeFileSync } from 'node:fs'
const urls = []
registerHooks({ load: (url, context, next) => { urls.push(url); return next(url, context) } })
process.on('exit', () => writeFileSync(process.env.LOADED, JSON.stringify([...urls, ...process.moduleLoadList])))
`

const base = `
listen: { host: 127.0.0.1, port: 0, drain: { delay: 0s, timeout: 1s } }
admin: { host: 127.0.0.1, port: 0 }
services: { one: { instances: [http://127.0.0.1:9] } }
`
const minimal = `${base}routes: [{ name: one, match: { path: / }, service: one }]\n`

/** Packages of every gateway. */
const always = [
  '@fastify/ajv-compiler', '@fastify/cors', '@fastify/error', '@fastify/fast-json-stringify-compiler', '@fastify/forwarded',
  '@fastify/merge-json-schemas', '@fastify/proxy-addr', '@fastify/rate-limit', '@lukeed/ms', '@opentelemetry/api',
  '@pinojs/redact', 'abstract-logging', 'ajv', 'ajv-formats', 'atomic-sleep', 'avvio', 'bintrees', 'dequal', 'fast-decode-uri-component',
  'fast-deep-equal', 'fast-json-stringify', 'fast-querystring', 'fast-uri', 'fastify', 'fastify-plugin', 'fastq', 'find-my-way',
  'ip-address', 'ipaddr.js', 'js-yaml', 'json-schema-ref-resolver', 'json-schema-traverse', 'on-exit-leak-free', 'pino',
  'pino-std-serializers', 'process-warning', 'prom-client', 'quick-format-unescaped', 'ret', 'reusify', 'rfdc', 'safe-regex2',
  'safe-stable-stringify', 'secure-json-parse', 'semver', 'sonic-boom', 'tdigest', 'thread-stream', 'toad-cache', 'undici'
] // biome-ignore format: a list

interface Loaded {
  readonly packages: readonly string[]
  readonly urls: readonly string[]
}

let runs = 0

/** Files for a process that records what it loads. */
function recorded(config: string) {
  const name = String(runs++)
  const at = (extension: string) => join(folder, `${name}.${extension}`)
  writeFileSync(at('yaml'), config)
  writeFileSync(at('mjs'), recorder)
  const env = { ...process.env, LOADED: at('json'), NODE_COMPILE_CACHE: '' }
  return {
    env,
    file: at('yaml'),
    command: ['--import', at('mjs'), join(root, 'app.ts')],
    loaded: () => read(at('json'))
  }
}

function read(file: string): Loaded {
  const urls = JSON.parse(readFileSync(file, 'utf8')) as string[]
  const names = urls.flatMap((url) => /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(url)?.[1] ?? [])
  return { urls, packages: [...new Set(names)].sort() }
}

async function check(config: string): Promise<Loaded> {
  const { command, env, file, loaded } = recorded(config)
  const { code, stderr } = await runToEnd('node', [...command, 'check', file], { env })
  if (code !== 0) throw new Error(stderr)
  return loaded()
}

t.test('check of a small configuration loads no package that it does not use', async (t) => {
  const { packages, urls } = await check(minimal)
  t.strictSame(packages, always)
  t.notOk(
    urls.some((url) => url.endsWith('/undici/index.js')),
    'the mesh takes parts of undici'
  )
  t.notOk(urls.includes('NativeModule internal/deps/undici/undici'), 'the undici of Node is not loaded')
})

t.test('a gateway with static instances loads no more to start', async (t) => {
  const { command, env, file, loaded } = recorded(minimal)
  const gateway = await start({ command: 'node', args: [...command, '-c', file], env, ready: /jingwei is up/ })
  await gateway.stop()
  // The logger of a command that logs nothing.
  const expected = always.filter((name) => name !== 'abstract-logging')
  t.strictSame(loaded().packages, expected)
})

t.test('the code of composed routes is loaded by the first of them', async (t) => {
  const isComposing = (url: string) => url.includes('/routes/compose/')
  t.notOk((await check(minimal)).urls.some(isComposing))
  const route = 'match: { path: /c, methods: [GET] }, compose: { calls: { a: { service: one, path: / } } }'
  t.ok(
    (
      await check(
        `${minimal}  - { name: two, ${route} }\n`.replace(
          'routes: [{ name: one, match: { path: / }, service: one }]',
          'routes:'
        )
      )
    ).urls.some(isComposing)
  )
})

t.test(
  'the code of logins is loaded by the first route with a login, and its packages by the first login',
  async (t) => {
    const ofLogins = (url: string) => url.includes('/concerns/oidc/route.ts')
    t.notOk((await check(minimal)).urls.some(ofLogins))
    const oidc =
      'oidc: { issuer: http://127.0.0.1:9, clientId: a, session: { secrets: [a secret that is long enough for this] } }'
    const { urls, packages } = await check(minimal.replace('service: one }', `service: one, edge: { ${oidc} } }`))
    t.ok(urls.some(ofLogins))
    t.strictSame(packages, always)
  }
)

t.test('packages are loaded by the keys that need them', async (t) => {
  const withEdge = (edge: string) =>
    `${base}redis: { url: redis://127.0.0.1:9 }\nroutes: [{ name: one, match: { path: / }, service: one, edge: { ${edge} } }]\n`
  const jwt = await check(withEdge('jwt: { secret: a-secret-that-is-long-enough-for-this }'))
  t.ok(jwt.packages.includes('@fastify/jwt'))
  const redis = await check(withEdge('rateLimit: { max: 1, window: 1s, store: redis }'))
  t.ok(redis.packages.includes('ioredis'))
  const proxy = await check(`${base}routes: [{ name: one, match: { path: / }, service: one, via: http-proxy }]\n`)
  t.ok(proxy.packages.includes('@fastify/http-proxy'))
})

t.test('without the mesh, none of its modules is loaded', async (t) => {
  const config = `mesh: false\n${minimal}`
  const inMesh = (url: string) => url.startsWith('file:') && /\/plugins\/mesh[/-]/.test(url)
  t.ok((await check(minimal)).urls.some(inMesh), 'they are known by their folder')
  t.strictSame((await check(config)).urls.filter(inMesh), [], 'check')
  const bridged = await check(config.replace('service: one }', 'service: one, via: bridge }'))
  t.strictSame(bridged.packages, always, 'a route of the bridge needs no further package')
  const { command, env, file, loaded } = recorded(config)
  const gateway = await start({ command: 'node', args: [...command, '-c', file], env, ready: /jingwei is up/ })
  const [, edge, admin] = /^ {2}edge {5}(\S+)\n {2}metrics {2}(\S+)\/metrics$/m.exec(gateway.output()) ?? []
  t.equal((await fetch(`${edge}/`)).status, 502, 'nothing listens at the address')
  for (const page of ['metrics', 'health/ready', 'admin/services', 'admin/routes', 'admin/explain?path=/']) {
    t.equal((await fetch(`${admin}/${page}`)).status, 200, page)
  }
  await gateway.stop()
  t.strictSame(loaded().urls.filter(inMesh), [], 'start')
})
