// slow: takes about 3 s
// The documentation agrees with the code: keys, links, examples, metrics, error codes.
import { existsSync, globSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Metric } from 'prom-client'
import t from 'tap'
import { loadConfig, loadWithoutPlugins, parseConfig } from '../plugins/config.ts'
import { concerns } from '../plugins/edge/index.ts'
import { seamReasons } from '../plugins/edge/outcome.ts'
import { reasons as refusals } from '../plugins/edge/protocol/refusals.ts'
import { targetReasons } from '../plugins/edge/protocol/request-target.ts'
import { errorTable } from '../plugins/error-table.ts'
import { banner } from '../plugins/operations/banner.ts'
import { readme as configReadme, keyOf, keys, meaning, rows, unusedNotes, updated } from './docs/config-reference.ts'
import { folder, listen, service } from './helpers/plugins.ts'

const home = join(import.meta.dirname, '..')
const ours = (file: string) => !/(^|\/)(node_modules|\.\w+|dist)\//.test(file)
const pages = globSync('**/*.md', { cwd: home, exclude: (file) => file === 'node_modules' }).filter(ours)
const text = (page: string) => readFileSync(join(home, page), 'utf8')
const sources = ['app.ts', ...globSync('{config,plugins,routes}/**/*.ts', { cwd: home })].filter(ours)
/** The texts of a page's blocks in a language. */
const blocks = (page: string, language: string) =>
  [...text(page).matchAll(/^```(\w*)\n(.*?)^```$/gms)].filter(([, of]) => of === language).map(([, , block]) => block!)
/** The anchors that GitHub makes of a page's headings. */
const anchors = (page: string) =>
  [...text(page).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}_ -]/gu, '')
      .replaceAll(' ', '-')
  )

t.test('every folder has a README.md, which these tests read', async (t) => {
  const wanted = ['', 'config', 'plugins', 'plugins/edge', 'plugins/mesh', 'plugins/operations', 'routes', 'test']
  const operations = ['admin-port', 'logs', 'metrics', 'reload', 'signals', 'tracing'].map(
    (page) => `plugins/operations/${page}.md`
  )
  const others = ['config/deploy.md', 'plugins/features.md', 'plugins/glossary.md', ...operations]
  t.strictSame(
    [...wanted.map((folder) => join(folder, 'README.md')), ...others].filter((page) => !pages.includes(page)),
    []
  )
})

t.test('the tables of config/README.md are generated from the schema', async (t) => {
  const page = readFileSync(configReadme, 'utf8')
  t.equal(page, updated(page), 'run `npm run docs`')
  t.ok(rows().length > 100)
  t.strictSame(
    rows()
      .filter((row) => meaning(row) === '')
      .map(keyOf),
    [],
    'every key is explained'
  )
  t.strictSame(unusedNotes(), [], 'every explanation belongs to a key')
  const documented = keys().flatMap(({ path }) => path.replaceAll('<name>', 'NAME').split(/[.[\]]+/))
  t.strictSame(
    [...new Set(documented)].filter((key) => key !== '' && !new RegExp(`\\b${key}\\b`).test(page)),
    []
  )
})

t.test('the table of the mesh has each feature with its key, and each key exists', async (t) => {
  const known = new Set(rows().map((row) => keyOf(row)))
  const page = text('plugins/mesh/README.md')
  const table = page.slice(page.indexOf('| feature | key |'), page.indexOf('## An example'))
  const documented = [...table.matchAll(/`((?:mesh|routes\[\]|services\.NAME|discovery)[.\w[\]]*)`/g)].map(
    ([, key]) => key!
  )
  t.ok(documented.length > 30)
  t.strictSame(
    documented.filter((key) => !known.has(key)),
    []
  )
  const concerns = [...known].filter((key) => /^mesh\.\w+$/.test(key))
  t.strictSame(
    concerns.filter((concern) => !documented.some((key) => key === concern || key.startsWith(`${concern}.`))),
    []
  )
})

t.test('the keys to which settings of other gateways are mapped exist', async (t) => {
  const known = new Set(rows().map((row) => keyOf(row)))
  const keys = /`((?:edge|mesh|listen|discovery|routes\[\]|services\.NAME|consumers\[\])\.[\w.[\]]+)`/g
  const ours = text('config/from-other-gateways.md').replaceAll(/^\| .*? \| (.*) \|$/gm, '$1')
  const mapped = [...ours.matchAll(keys)].map(([, key]) => key!)
  t.ok(mapped.length > 200)
  t.strictSame(
    mapped.filter((key) => !known.has(key)),
    []
  )
})

t.test('links of the pages lead to files and headings that exist', async (t) => {
  let links = 0
  let sections = 0
  for (const page of pages) {
    for (const [, target, section] of text(page).matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)/g)) {
      links++
      const file = target === '' ? page : join(dirname(page), target!)
      t.ok(existsSync(join(home, file)), `${page}: ${target}`)
      if (section === undefined) continue
      sections++
      t.ok(anchors(file).includes(section), `${page}: ${target}#${section}`)
    }
  }
  t.ok(links > 50 && sections > 10)
})

/** Environment variables of the pages. */
const secrets = {
  OIDC_SECRET: 'secret',
  COOKIE_SECRET: 'a secret that is long enough for it',
  BILLING_SECRET: 'secret',
  LEGACY_PASSWORD: 'secret',
  MAPS_KEY: 'secret'
}

t.test('complete configurations in the pages are valid', async (t) => {
  let found = 0
  for (const page of pages) {
    for (const block of blocks(page, 'yaml')) {
      const whole = /^services:/m.test(block) && /^routes:/m.test(block)
      if (!block.startsWith('# complete') && !whole) continue
      found++
      t.doesNotThrow(
        () => parseConfig(block, join(home, 'config/page.yaml'), secrets),
        `${page}: ${block.slice(0, 60)}`
      )
    }
  }
  t.ok(found >= 4)
})

t.test('the plugins in the guide run', async (t) => {
  const guide = blocks('plugins/README.md', 'ts').filter((block) => block.startsWith('// plugin'))
  t.ok(guide.length >= 6)
  const files = guide.map((block, index) => [
    `plugin-${index}.ts`,
    block
      .replaceAll("'../plugins/", `'${home}/plugins/`)
      .replaceAll("'prom-client'", `'${import.meta.resolve('prom-client')}'`)
  ])
  const root = await folder(t, Object.fromEntries(files) as Record<string, string>)
  const origin = await service(t, (_request, response) => response.end('ok'))
  const written = {
    listen: { host: '127.0.0.1', port: 0 },
    admin: { port: 0 },
    services: { orders: { instances: [origin] } },
    routes: [{ name: 'orders', match: { path: '/orders' }, service: 'orders', config: { audit: true } }],
    plugins: guide.map((_, index) => ({ path: `./plugin-${index}.ts` }))
  }
  writeFileSync(join(root, 'gateway.yaml'), JSON.stringify(written))
  const { url, server } = await listen(t, await loadConfig(join(root, 'gateway.yaml'), {}))
  const response = await fetch(`${url}/orders`)
  t.equal(await response.text(), 'ok')
  t.equal(response.headers.get('x-audited'), 'unknown')
  const metrics = await server.metrics.metrics()
  t.match(metrics, /^audit_total 1$/m)
  t.match(metrics, /^seen_total\{status="200"\} 1$/m)
  t.ok(server.mesh.describe('orders').includes('first-byte'))
})

t.test('npm start prints the lines that the pages show', async (t) => {
  const config = loadWithoutPlugins(join(home, 'config/gateway.yaml'), {})
  const edges = [{ name: 'default', url: 'http://127.0.0.1:8080', canBeTried: true }]
  const shown = banner(config, edges, 'http://127.0.0.1:8081', 'npm -s start --', concerns)
  const [block = ''] = blocks('README.md', '').filter((candidate) => candidate.startsWith('jingwei '))
  const asTold = shown.replace(home, '/srv/jingwei').replace(config.hash, '5f2a90c4de71b836')
  t.ok(block.length > 100 && asTold.startsWith(block), shown)
  t.match(shown, /WARNING: the JWT secret of users is PUBLIC/)
  const own = loadWithoutPlugins(join(home, 'config/gateway.yaml'), { JWT_SECRET: 'x'.repeat(32) })
  t.notMatch(banner(own, edges, null, 'npm -s start --', concerns), 'WARNING')
})

t.test('the pages have the variables of the example configuration with their defaults', async (t) => {
  const documented = [...text('config/deploy.md').matchAll(/^\| (`\w*PORT\w*`(?:, `\w+`)*) \| ([\d, ]+) \|/gm)].flatMap(
    ([, names, values]) => {
      const ports = values!.split(', ')
      return [...names!.matchAll(/\w+/g)].map(([name], index) => [name, ports[index]])
    }
  )
  const written = text('config/gateway.yaml').matchAll(/\$\{(\w*PORT\w*):-(\d+)\}/g)
  t.strictSame(new Map(documented as [string, string][]), new Map([...written].map(([, name, port]) => [name!, port!])))
})

const withIdentity = [
  'jingwei_edge_callers_refused_total{listener,reason}',
  'jingwei_edge_certificate_expiry_timestamp_seconds{listener,certificate}',
  'jingwei_edge_certificate_not_before_timestamp_seconds{listener,certificate}',
  'jingwei_edge_certificate_reloads_total{listener,outcome}',
  'jingwei_edge_certificates_unusable{listener}',
  'jingwei_mesh_certificate_expiry_timestamp_seconds{service}',
  'jingwei_mesh_certificate_not_before_timestamp_seconds{service}',
  'jingwei_mesh_certificate_reloads_total{service,outcome}',
  'jingwei_mesh_intention_denials_total{service}'
]

t.test('the admin port has the metrics and paths that the pages name', async (t) => {
  const origin = await service(t, (_request, response) => response.end('ok'))
  const config = parseConfig(
    JSON.stringify({
      listen: { port: 0 },
      admin: { port: 0 },
      redis: { url: 'redis://127.0.0.1:9' },
      tracing: { otlp: { http: { endpoint: 'http://127.0.0.1:9' } }, sampleRate: 0 },
      metricsPush: { url: 'http://127.0.0.1:9/write' },
      consumers: [{ name: 'alice' }],
      services: {
        orders: { instances: [origin] },
        shadow: {
          instances: [origin],
          mesh: { credentials: { oauth2: { url: origin, clientId: 'a', clientSecret: 'b' } } }
        }
      },
      edge: {
        ipFilter: { deny: ['192.0.2.1'], mode: 'shadow' },
        accessLog: { file: '/dev/null' },
        gatewayNodes: 2,
        metrics: { consumers: 1 },
        rateLimit: { max: 10, window: '1m', store: 'redis' }
      },
      mesh: {
        healthCheck: { path: '/' },
        outlierDetection: { mode: 'shadow' },
        circuitBreaker: {},
        adaptiveConcurrency: {},
        limit: { rate: 100 },
        hedge: { after: '1s' },
        collapse: true,
        fallback: [{ status: 200 }],
        fault: { delay: { for: '1ms', percent: '0%' } }
      },
      routes: [
        {
          name: 'orders',
          match: { path: '/orders' },
          service: 'orders',
          mesh: { mirror: { service: 'shadow' }, circuitBreaker: {} },
          edge: { cache: {} }
        },
        {
          name: 'composed',
          match: { path: '/composed', methods: ['GET'] },
          compose: { calls: { one: { service: 'orders', path: '/', group: 'one', required: false } } }
        },
        {
          name: 'tokens',
          match: { path: '/tokens' },
          service: 'orders',
          edge: {
            authentication: { require: 'any' },
            jwt: { jwks: `${origin}/jwks.json` },
            forwardAuth: { url: origin },
            introspection: { url: origin, clientId: 'a', clientSecret: 'b' },
            compression: {},
            decompression: {},
            body: { request: { remove: ['/a'] } },
            uma: { url: origin, audience: 'a', permissions: ['a'] },
            cache: { store: 'redis' },
            oidc: { issuer: origin, clientId: 'a', session: { secrets: ['a secret that is long enough, for tests'] } }
          }
        }
      ]
    }),
    join(home, 'config/page.yaml')
  )
  const { url, server } = await listen(t, config)
  t.equal(await (await fetch(`${url}/orders`)).text(), 'ok')
  const metrics = server.metrics.getMetricsAsArray() as unknown as (Metric & { name: string; labelNames: string[] })[]
  const exposed = metrics.filter(({ name }) => name.startsWith('jingwei_'))
  const asWritten = exposed.map(({ name, labelNames }) => name + (labelNames.length > 0 ? `{${labelNames}}` : ''))
  // These need `mesh: false`.
  asWritten.push('jingwei_forward_calls_total{service,outcome}', 'jingwei_forward_call_duration_seconds{service}')
  // These need certificates, or Consul.
  asWritten.push(...withIdentity)
  const listed = [...text('plugins/operations/metrics.md').matchAll(/`(jingwei_\w+(?:\{[\w,]+\})?)` (?=\|)/g)].map(
    ([, name]) => name!
  )
  t.strictSame(listed.toSorted(), asWritten.toSorted())
  const names = new Set(asWritten.map((name) => name.replace(/\{.*/, '')))
  for (const page of pages) {
    const named = text(page).match(/jingwei_(?:edge|mesh|tracing)_\w*[a-z]\b/g) ?? []
    t.strictSame(
      named.filter((name) => !names.has(name)),
      [],
      page
    )
  }
  const paths = new Set(text('plugins/operations/admin-port.md').match(/(?<=`)\/(?:metrics|health|admin)[\w/]*(?=`)/g))
  t.ok(paths.size >= 5)
  for (const path of paths) {
    const [method, status] = path === '/admin/reload' ? (['POST', 501] as const) : (['GET', 200] as const)
    const { statusCode } = await server.admin!.inject({ method, url: path.replace('NAME', 'orders') })
    t.equal(statusCode, status, path)
  }
})

t.test('every error code is documented with its status', async (t) => {
  const status = new Map([['JW_INTERNAL', 500]])
  const used = new Set<string>()
  for (const file of sources) {
    const source = text(file)
    for (const [, code] of source.matchAll(/\b(JW_[A-Z]+(?:_[A-Z]+)*)\b/g)) used.add(code!)
    for (const [, code, number] of source.matchAll(/createError\(\s*'(JW_\w+)',[^)]*?,\s*(\d{3})\s*\)/g)) {
      status.set(code!, Number(number))
    }
    for (const [, code, number] of source.matchAll(/new Gone\('(JW_\w+)', (\d{3}),/g)) status.set(code!, Number(number))
  }
  for (const [code, [number]] of Object.entries(errorTable)) if (code.startsWith('JW_')) status.set(code, number)
  const page = text('plugins/edge/errors.md')
  const documented = new Map(
    [...page.matchAll(/^\| `(JW_\w+)` \| (\d{3}) \|/gm)].map(([, code, n]) => [code!, Number(n)])
  )
  t.ok(used.size >= 20)
  t.strictSame([...documented.keys()].toSorted(), [...used].toSorted())
  for (const [code, number] of documented) t.equal(number, status.get(code), code)
  t.strictSame([...documented.values()], [...documented.values()].toSorted(), 'the error codes are ordered by status')
})

/** The reasons of all concerns: what their files export as `…Reason` or `…Reasons`. */
async function reasonsOfConcerns(): Promise<string[]> {
  const files = sources.filter(
    (file) => /^export const \w+Reasons? =/m.test(text(file)) && file.includes('edge/concerns/')
  )
  const modules = await Promise.all(files.map(async (file) => (await import(join(home, file))) as object))
  const exported = modules.flatMap((module) => Object.entries(module)).filter(([name]) => /Reasons?$/.test(name))
  return exported.flatMap(([, reasons]) => reasons as string | string[])
}

t.test('each reason in the access line is unique and documented', async (t) => {
  const all: string[] = [...(await reasonsOfConcerns()), ...targetReasons, ...Object.keys(seamReasons)]
  t.equal(new Set(all).size, all.length)
  for (const reason of all) t.match(reason, /^[a-z][a-z0-9]*(_[a-z0-9]+)*$/)
  const page = text('plugins/edge/access-log/README.md')
  const section = page.slice(page.indexOf('## Reasons'))
  const documented = [...section.matchAll(/^\| `(\w+)` \|/gm)].map(([, reason]) => reason)
  t.strictSame(documented.sort(), all.sort())
  for (const reason of refusals) t.ok(section.includes(`\`${reason}\``), reason)
})
