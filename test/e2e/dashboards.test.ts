import { globSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { METHODS } from 'node:http'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'
import { join } from 'node:path'
import { load } from 'js-yaml'
import type { Test } from 'tap'
import t from 'tap'
import { request } from 'undici'
import { build } from '../../app.ts'
import { loadWithoutPlugins, parseConfig } from '../../plugins/config.ts'
import type { Cluster } from '../cluster/cluster.ts'
import { startCluster } from '../cluster/cluster.ts'
import { authority, folderFor } from '../helpers/certificates.ts'
import type { Everything } from '../helpers/e2e/every-concern.ts'
import { effects, everyConcern } from '../helpers/e2e/every-concern.ts'
import { inProcess } from '../helpers/e2e/gateway.ts'
import { refused, upstream } from '../helpers/mesh/servers.ts'
import { freePort, waitFor } from '../helpers/processes.ts'
import type { Prometheus } from '../helpers/prometheus.ts'
import { promtool, startPrometheus } from '../helpers/prometheus.ts'

const home = join(import.meta.dirname, '../..')

interface Panel {
  title: string
  type: string
  targets?: { expr: string }[]
}
interface Dashboard {
  panels: Panel[]
  templating: { list: { name: string; type: string; definition?: string }[] }
}
interface Rule {
  alert: string
  expr: string
}

/** Alerts whose condition this test causes, apart from its duration. */
const met = new Set([
  'InstancesUnavailable', 'Panic', 'CircuitOpen', 'RouteCircuitOpen', 'CredentialsUnavailable', 'Overflows', 'RetryBudgetExhausted', 'FallbacksServed',
  'CertificateExpires', 'CertificateExpiresSoon', 'CertificateReloadFails', 'KeySetUnavailable', 'AuthServerFails', 'ConcernFails',
  'OpenIdProviderDown', 'LoginsFail'
]) // biome-ignore format: a list

/** Limit of series in a panel's query, so that the legend stays readable. */
const most = 12

/** Values that a dashboard's variables must have. */
const among: Record<string, string[]> = {
  instance: ['gateway-1', 'gateway-2', 'gateway-3', 'gateway-5'],
  route: ['orders', 'users', '(none)'],
  direction: ['north-south'],
  service: ['breaking', 'orders', 'users']
}

t.test('every query of a dashboard or an alert has a result', { timeout: 110_000 }, async (t) => {
  const cluster = await startCluster({ prometheus: false })
  t.teardown(cluster.stop)
  const everything = await everyConcern(t, cluster.consul)
  const issuer = authority(folderFor(t), 'edge')
  const { certFile: cert, keyFile: key } = issuer.issue('localhost')
  const edge = { accessLog: { file: '/dev/null' } }
  // No collector is there.
  const tracing = { otlp: { http: { endpoint: 'http://127.0.0.1:1/v1/traces' } } }
  const withTls = await inProcess(t, { services: {}, listen: { tls: { cert, key } }, edge, tracing })
  const withoutMesh = await forwarder(t, { forwarded: cluster.services[0]!.url, refused: await refused() })
  const nodes = [...cluster.gateways, everything, withTls, withoutMesh].map(({ adminUrl }) => adminUrl)
  const prometheus = await prometheusOver(t, nodes)
  await causeEverything(cluster, everything, withoutMesh, prometheus)

  const files = globSync('config/grafana/dashboards/*.json', { cwd: home })
  t.ok(files.length > 0)
  for (const file of files) {
    const dashboard = JSON.parse(await readFile(join(home, file), 'utf8')) as Dashboard
    for (const { title, targets = [] } of dashboard.panels.filter(({ type }) => type !== 'row')) {
      t.ok(targets.length > 0, `${title} has a query`)
      for (const { expr } of targets) {
        const series = await notEmpty(t, prometheus, `${title}: ${expr}`, substitute(expr))
        t.ok(series <= most, `${title} has ${series} series`)
      }
    }
    for (const { name, definition } of dashboard.templating.list.filter(({ type }) => type === 'query')) {
      const [, selector, label] = /^label_values\((.*), (\w+)\)$/.exec(definition!)!
      const values = new Set((await prometheus.query(selector!)).map(({ metric }) => metric[label!]))
      for (const value of among[name]!) t.ok(values.has(value), `variable ${name} has ${value}`, { values })
    }
  }

  const { groups } = load(await readFile(join(home, 'config/prometheus/alerts.yml'), 'utf8')) as {
    groups: { rules: Rule[] }[]
  }
  const rules = groups.flatMap(({ rules }) => rules)
  const alerts = new Set(rules.map(({ alert }) => alert))
  t.ok(met.isSubsetOf(alerts), 'all of these alerts exist', { alerts })
  for (const { alert, expr } of rules) {
    if (met.has(alert)) await notEmpty(t, prometheus, `alert ${alert} would fire`, expr)
    // The series under comparison exists even while nothing is wrong; with the comparison it would be empty.
    else await notEmpty(t, prometheus, `alert ${alert}`, /^([\s\S]*?)\s*(?:==|>|<)\s*[\d.]+\s*$/.exec(expr)![1]!)
    for (const [selector] of expr.matchAll(/\b(?:jingwei|nodejs|process)_\w+(?:\{[^}]*\})?|\bup\{[^}]*\}/g)) {
      await notEmpty(t, prometheus, `alert ${alert}: ${selector}`, selector)
    }
  }
})

/** Starts a gateway without the mesh, with a route to each service. */
async function forwarder(t: Test, services: Record<string, string>) {
  const written = {
    mesh: false,
    admin: { host: '127.0.0.1', port: 0 },
    services: Object.fromEntries(Object.entries(services).map(([name, url]) => [name, { instances: [url] }])),
    routes: Object.keys(services).map((service) => ({ name: service, match: { path: `/${service}` }, service }))
  }
  const server = build(parseConfig(JSON.stringify(written)), { logger: false })
  t.teardown(() => server.close())
  const url = await server.listen({ host: '127.0.0.1', port: 0 })
  return { url, adminUrl: await server.admin!.listen({ host: '127.0.0.1', port: 0 }) }
}

/** Starts Prometheus with the real configuration and rules; only the scrape interval and the targets differ. */
async function prometheusOver(t: Test, adminUrls: string[]): Promise<Prometheus> {
  const source = (name: string) => readFile(join(home, 'config/prometheus', name), 'utf8')
  const targets = adminUrls.map((url, index) => ({
    targets: [new URL(url).host],
    labels: { instance: `gateway-${index + 1}` }
  }))
  const folder = t.testdir({
    'prometheus.yml': (await source('prometheus.yml')).replace(/scrape_interval: .*/, 'scrape_interval: 500ms'),
    'alerts.yml': await source('alerts.yml'),
    'targets.yml': JSON.stringify(targets)
  })
  const prometheus = await startPrometheus({ configFile: join(folder, 'prometheus.yml') })
  t.teardown(prometheus.stop)
  return prometheus
}

function substitute(expr: string): string {
  return expr.replaceAll(/\$(instance|service|route|direction)/g, '.*').replaceAll('$__rate_interval', '1m')
}

/** Asserts that a query's result has a number: it is not empty, nor only NaN as of 0 / 0. Returns the number of series. */
async function notEmpty(t: Test, prometheus: Prometheus, name: string, query: string) {
  const samples = await prometheus.query(query)
  t.ok(
    samples.some(({ value }) => Number.isFinite(Number(value[1]))),
    name,
    { query, samples }
  )
  return samples.length
}

t.test('with a healthy cluster, the error panel shows each route at 0', async (t) => {
  const file = join(home, 'config/grafana/dashboards/jingwei.json')
  const { panels } = JSON.parse(await readFile(file, 'utf8')) as Dashboard
  const [target] = panels.find(({ title }) => title === 'Error ratio')!.targets!
  const requests = (route: string, status: number) => ({
    series: `jingwei_edge_requests_total{instance="gateway-1",route="${route}",method="GET",status="${status}",direction="north-south"}`,
    values: '0+10x20'
  })
  const ratios = (users: number) => [
    { labels: '{route="orders"}', value: 0 },
    { labels: '{route="users"}', value: users }
  ]
  const test = (users: number, series: object[]) => ({
    interval: '5s',
    input_series: series,
    promql_expr_test: [{ expr: substitute(target!.expr), eval_time: '1m', exp_samples: ratios(users) }]
  })
  const healthy = [requests('orders', 200), requests('users', 404)]
  const tests = { tests: [test(0, healthy), test(0.5, [...healthy, requests('users', 503)])] }
  const folder = t.testdir({ 'tests.json': JSON.stringify(tests) })
  const ran = await promtool(['test', 'rules', join(folder, 'tests.json')])
  t.equal(ran.code, 0, ran.stdout + ran.stderr)
})

/** Causes each outcome that a panel shows, over several scrapes, since a rate needs at least two. */
async function causeEverything(
  { url, consul, redis }: Cluster,
  everything: Everything,
  { url: forwarding }: { url: string },
  prometheus: Prometheus
): Promise<void> {
  const get = async (path: string) => {
    const { statusCode, body } = await request(`${url}${path}`)
    await body.dump()
    return statusCode
  }
  await waitFor('all gateways are scraped', async () => (await prometheus.query('up == 1')).length === 5, 30_000)
  // An unreachable instance without active checks: attempts fail, retries go elsewhere.
  await consul.register({ id: 'nobody', name: 'orders', port: await freePort() })
  const until = Date.now() + 4000
  let paused = false
  while (Date.now() < until) {
    if (!paused && until - Date.now() < 2000) {
      redis.pause() // each gateway then limits on its own
      paused = true
    }
    await Promise.all([
      get('/api/orders'),
      get('/api/orders?status=500'),
      get('/api/orders?status=503'),
      // Redis is not asked again about a limit that it has refused, so this begins with the pause.
      paused ? get('/api/products') : null,
      get('/api/users'),
      get('/no/such/route'),
      request(`${forwarding}/forwarded`).then(({ body }) => body.dump()),
      request(`${forwarding}/refused`).then(({ body }) => body.dump())
    ])
  }
  redis.resume()
  await waitFor('Prometheus has scraped it', async () => {
    const seen = await prometheus.query('rate(jingwei_edge_rate_limit_fallbacks_total[1m]) > 0')
    const failed = await prometheus.query('rate(jingwei_mesh_attempts_total{outcome="connect-failure"}[1m]) > 0')
    return seen.length > 0 && failed.length > 0
  })
  let missing = effects
  const allSeen = async () => {
    await everything.act()
    const found = await Promise.all(missing.map((effect) => prometheus.query(`(${effect}) > 0`)))
    missing = missing.filter((_effect, index) => found[index]!.length === 0)
    return missing.length === 0
  }
  await waitFor('every concern has acted', allSeen, 30_000).catch((error: Error) => {
    throw new Error(`${error.message}; Prometheus has not seen ${missing.join(', ')}`)
  })
}

async function gateway(t: Test) {
  const folder = t.testdir({})
  const file = join(folder, 'gateway.yaml')
  const { url: alive } = await upstream(t, 'alive')
  const dead = [await refused(), await refused()]
  await writeFile(
    file,
    `
listen: { host: 127.0.0.1, port: 0 }
admin: { host: 127.0.0.1, port: 0 }
redis: { url: "redis://127.0.0.1:${await freePort()}" }
services:
  orders: { instances: ["http://127.0.0.1:${await freePort()}"] }
  shadow: { instances: ["${alive}"], mesh: { circuitBreaker: { mode: shadow }, limit: { mode: shadow, rate: 5 } } }
  protected:
    instances: ["${alive}", "${dead.join('", "')}"]
    mesh:
      balance: { policy: ring-hash, hashOn: header:x-user }
      outlierDetection: { consecutiveGatewayFailures: 1, baseEjection: 1h, maxEjection: 1h }
      circuitBreaker: { maxConnections: 4, maxPendingRequests: 4, minRequests: 5 }
      adaptiveConcurrency: {}
      limit: { rate: 200, queue: 10 }
      retry: { attempts: 1, on: [connect-failure] }
      hedge: { after: 5ms }
      collapse: true
      fallback: [{ status: 200 }] # whatever becomes of a call, its status is the same
      mirror: { service: shadow }
      fault: { delay: { for: 1ms, percent: 10% }, abort: { status: 200, percent: 10% }, header: true }
routes:
  - { name: protected, match: { path: /protected }, service: protected }
  - { name: orders, match: { path: /api/orders }, service: orders, edge: { accessLog: false } }
  - name: guarded
    match: { path: /guarded, methods: [GET, POST] }
    service: orders
    edge: { jwt: { secret: "0123456789abcdef0123456789abcdef" }, cors: { origin: "*" } }
  - name: limited
    match: { path: /limited/:id, hosts: ["*.example.com"] }
    service: orders
    edge: { rateLimit: { max: 1, window: 1m, store: redis } }
`
  )
  const config = loadWithoutPlugins(file)
  const server = build(config, { logger: false })
  await server.ready()
  await server.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => server.close())
  const { port } = server.server.address() as AddressInfo
  return { port, metrics: () => server.metrics.metrics(), series: async () => seriesOf(await server.metrics.metrics()) }
}

function seriesOf(text: string): Set<string> {
  const lines = text.split('\n').filter((line) => line.startsWith('jingwei_'))
  return new Set(lines.map((line) => line.slice(0, line.lastIndexOf(' '))))
}

/** Sends raw, pipelined requests, since clients refuse to send some of these. Resolves with the statuses. */
function sendRaw(port: number, headerSections: string[]): Promise<number[]> {
  return new Promise((resolve, reject) => {
    let text = ''
    const statuses = () => [...text.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => Number(status))
    const socket = connect(port, '127.0.0.1', () => socket.write(headerSections.join('')))
    socket.setTimeout(30_000, () => socket.destroy(new Error(`no response to ${headerSections}`)))
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      if (statuses().length === headerSections.length) socket.destroy()
    })
    socket.on('error', reject)
    socket.on('close', () => resolve(statuses()))
  })
}

const headerSection = (method: string, path: string, host = 'a.example.com', user = 'a') =>
  `${method} ${path} HTTP/1.1\r\nhost: ${host}\r\nx-user: ${user}\r\ncontent-length: 0\r\n\r\n`

t.test('promtool accepts the metrics without a warning', async (t) => {
  const { port, metrics } = await gateway(t)
  await sendRaw(port, [
    headerSection('GET', '/api/orders'),
    headerSection('GET', '/protected'),
    headerSection('GET', '/guarded'),
    headerSection('GET', '/limited/1'),
    headerSection('GET', '/')
  ])
  const text = await metrics()
  for (const name of ['edge_requests_total', 'mesh_attempts_total', 'mesh_retries_total', 'edge_redis_up']) {
    t.match(text, `jingwei_${name}`)
  }
  t.match(await promtool(['check', 'metrics'], text), { code: 0, stdout: '', stderr: '' })
})

t.test('whatever clients send, there are no more series than the configuration allows', async (t) => {
  const { port, metrics, series } = await gateway(t)
  const configured = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']
  const methods = METHODS.filter((method) => method !== 'CONNECT') // a tunnel would end the pipeline
  const paths = ['/api/orders', '/guarded', '/limited/1', '/none', '/protected']
  // Each outcome of each route once; QUERY without a content type is refused before it is routed.
  for (const method of [...configured, 'QUERY', 'NONSENSE']) {
    for (const path of paths) await sendRaw(port, [headerSection(method, path), headerSection(method, path)])
  }
  const random = () => Math.random().toString(36).slice(2)
  // Repeat until the dead instance is ejected.
  while (!/ejections_active\{service="protected"\} [1-9]/.test(await metrics())) {
    await sendRaw(port, [headerSection('GET', '/protected', 'a.example.com', random())])
  }
  const before = await series()
  t.ok(before.size > 30)

  const statuses = new Map<number, number>()
  for (let batch = 0; batch < 100; batch++) {
    const headerSections = Array.from({ length: 30 }, (_, index) => {
      const method = methods[(batch * 30 + index) % methods.length]!
      const path = `${paths[Math.floor(Math.random() * paths.length)]!.replace('1', '')}/${random()}?${random()}=1`
      return headerSection(method, path.replace('//', '/'), `${random()}.example.com`, random())
    })
    const received = await sendRaw(port, headerSections)
    received.push(...(await sendRaw(port, [headerSection(random().toUpperCase(), `/${random()}`)]))) // no method at all
    for (const status of received) statuses.set(status, (statuses.get(status) ?? 0) + 1)
  }
  t.comment([...statuses].map(([status, count]) => `${status}: ${count}`).join(', '))
  const sent = [...statuses.values()].reduce((sum, count) => sum + count, 0)
  t.ok(sent > 2500, `${sent} responses`)
  t.same(
    [...(await series())].filter((name) => !before.has(name)),
    []
  )
})
