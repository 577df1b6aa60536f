// slow: starts several processes
/** The command `sidecar`: its faults, what it loads, its admin port, reloads. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { request } from 'undici'
import { eventually } from '../helpers/eventually.ts'
import { raw, startService } from '../helpers/gateway.ts'
import { runToEnd } from '../helpers/processes.ts'
import { sidecarText, startSidecar, startSidecarFile } from '../helpers/sidecar.ts'

t.setTimeout(120_000)

const root = join(import.meta.dirname, '../..')
const bin = join(root, 'plugins/bin.ts')
const folder = mkdtempSync(join(tmpdir(), 'jingwei-sidecar-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))

const services = { orders: { instances: ['http://127.0.0.1:9'] } }
const jingwei = (...args: string[]) => runToEnd('node', [bin, ...args], { cwd: folder })

function written(name: string, text: string): string {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}

const ask = (port: number, target = '/') =>
  raw(port, `GET ${target} HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n`)

t.test('the commands, on a file with sidecar and on one without', async (t) => {
  const sidecar = written('sidecar.yaml', sidecarText({ services, outbound: [{ service: 'orders' }, {}] }))
  const gateway = written('gateway.yaml', JSON.stringify({ services, routes: [] }))
  const wrong = await jingwei('sidecar', gateway)
  t.equal(wrong.code, 1)
  t.match(wrong.stderr, `${gateway}: has no "sidecar"; start a gateway by: `)
  const none = await jingwei('sidecar', 'none.yaml')
  t.equal(none.code, 1)
  t.match(none.stderr, /none\.yaml: no such file/)
  t.match((await jingwei('check', sidecar)).stdout, `${sidecar}: ok, 2 listeners\n`)
  const { stdout } = await jingwei('routes', sidecar)
  t.match(stdout, /^outbound-orders +any \/ on outbound-orders .* orders /m)
  t.match(stdout, /^outbound\/orders +any orders,orders\.mesh \/ on outbound /m)
  const explained = await jingwei('explain', sidecar, 'GET', '/x', '-H', 'host: orders.mesh', '--listener', 'outbound')
  t.match(explained.stdout, /route +outbound\/orders[\s\S]*instances 1 from static/)
  const both = written('both.yaml', sidecarText({ services, outbound: [{}] }).replace('{', '{ "edge": {}, '))
  t.match((await jingwei('check', both)).stderr, /both\.yaml:1:3: edge: a sidecar has no edge; remove it/)
  const schema = JSON.parse((await jingwei('schema')).stdout) as { properties: Record<string, object> }
  t.ok('sidecar' in schema.properties && 'routes' in schema.properties)
  const own = JSON.parse((await jingwei('schema', sidecar)).stdout) as { properties: Record<string, object> }
  t.ok('sidecar' in own.properties && !('routes' in own.properties))
})

t.test('without FILE, it reads sidecar.yaml; start runs it, too', async (t) => {
  const file = written('sidecar.yaml', sidecarText({ services, outbound: [{ service: 'orders' }] }))
  for (const command of [['sidecar'], ['start', file]]) {
    const { start } = await import('../helpers/processes.ts')
    const running = await start({ command: 'node', args: [bin, ...command], cwd: folder, ready: /is up as a sidecar/ })
    await running.stop()
    t.match(await running.exited, { code: 0 })
  }
})

t.test('the example', async (t) => {
  const { url, close } = await startService((request, response) => void response.end(`got ${request.headers.host}`))
  t.teardown(close)
  const none = { ADMIN_PORT: '0', ORDERS_PORT: '0', ANY_PORT: '0', INBOUND_PORT: '0' }
  const env = { ...none, ORDERS: url, USERS: url, BILLING: url }
  const { ports } = await startSidecarFile(t, join(root, 'config/examples/sidecar.yaml'), env)
  t.strictSame(Object.keys(ports), ['outbound-orders', 'outbound', 'inbound'])
  for (const port of Object.values(ports)) t.match(await ask(port), /^HTTP\/1\.1 200 [\s\S]*got orders$/)
  const curl = await runToEnd('curl', ['-s', '-x', `http://127.0.0.1:${ports.outbound}`, 'http://users.mesh/x'], {})
  t.equal(curl.stdout, 'got users.mesh')
})

/** Records what a process loads. */
const recorder = `
import { registerHooks } from 'node:module'
import { writeFileSync } from 'node:fs'
const urls = []
registerHooks({ load: (url, context, next) => { urls.push(url); return next(url, context) } })
process.on('exit', () => writeFileSync(process.env.LOADED, JSON.stringify(urls)))
`

t.test('it loads no concern of the edge, and none of their packages', async (t) => {
  const LOADED = join(folder, 'loaded.json')
  const file = written('loaded.yaml', sidecarText({ services, outbound: [{}], inbound: { url: 'http://127.0.0.1:9' } }))
  const sidecar = await startSidecarFile(t, file, { LOADED, NODE_COMPILE_CACHE: '' }, [
    '--import',
    written('loaded.mjs', recorder)
  ])
  await sidecar.running.stop()
  const urls = JSON.parse(readFileSync(LOADED, 'utf8')) as string[]
  const has = (part: string) => urls.filter((url) => url.includes(part))
  t.ok(has('/plugins/edge/bridge/forward.ts').length > 0 && has('/plugins/mesh/mesh.ts').length > 0)
  t.strictSame(has('/plugins/edge/concerns/'), [])
  t.strictSame(has('/plugins/edge/index.ts'), [])
  for (const name of ['@fastify/cors', '@fastify/rate-limit', '@fastify/jwt', 'ioredis', '@fastify/http-proxy']) {
    t.strictSame(has(`/node_modules/${name}/`), [], name)
  }
})

t.test('metrics, readiness and the admin API have the names of a gateway', async (t) => {
  const { url, close } = await startService((_request, response) => void response.end('ok'))
  t.teardown(close)
  const orders = { instances: [url] }
  const { adminUrl, ports } = await startSidecar(t, {
    services: { orders },
    outbound: [{ service: 'orders' }, {}],
    inbound: { url }
  })
  const page = async (path: string) => (await request(`${adminUrl}${path}`)).body
  t.match(await ask(ports['outbound-orders']!), /^HTTP\/1\.1 200 /)
  t.match(await ask(ports.outbound!), /^HTTP\/1\.1 200 /)
  t.match(await ask(ports.inbound!), /^HTTP\/1\.1 200 /)
  const metrics = await (await page('/metrics')).text()
  for (const series of [
    'jingwei_edge_requests_total{route="outbound-orders",method="GET",status="200",direction="east-west"} 1',
    'jingwei_edge_requests_total{route="outbound/orders",method="GET",status="200",direction="east-west"} 1',
    'jingwei_edge_requests_total{route="inbound",method="GET",status="200",direction="east-west"} 1'
  ]) {
    t.match(metrics, series)
  }
  t.match(metrics, /^jingwei_mesh_attempts_total\{[^}]*service="orders"[^}]*\} 2$/m)
  t.match(metrics, /^jingwei_mesh_attempts_total\{[^}]*service="local"[^}]*\} 1$/m)
  t.match(await (await page('/health/ready')).json(), { status: 'ready', services: { orders: {}, local: {} } })
  t.match(await (await page('/admin/routes')).json(), [
    { name: 'outbound-orders', service: 'orders', responsePath: 'raw' },
    { name: 'outbound/orders' },
    { name: 'inbound', service: 'local' }
  ])
  t.match(await (await page('/admin/services/orders')).json(), { instances: [{ origin: url }] })
  const query = 'path=/x&listener=outbound&header=host:orders'
  t.match(await (await page(`/admin/explain?${query}`)).json(), { route: 'outbound/orders' })
})

t.test('no access line, unless sidecar.accessLog is true', async (t) => {
  for (const accessLog of [undefined, true]) {
    const { running, ports } = await startSidecar(t, {
      services,
      outbound: [{ service: 'orders' }],
      ...(accessLog && { sidecar: { accessLog } })
    })
    t.match(await ask(ports['outbound-orders']!, '/logged'), /^HTTP\/1\.1 502 /)
    await running.stop()
    t.equal(running.output().includes('"path":"/logged"'), accessLog === true)
  }
})

t.test('a reload changes services and policies while calls go on; a listener needs a restart', async (t) => {
  const [one, two] = await Promise.all(
    ['one', 'two'].map(async (name) => {
      const { url, close } = await startService((_request, response) => void response.end(name))
      t.teardown(close)
      return url
    })
  )
  const sections = (url: string, more: object[] = []) => ({
    services: { orders: { instances: [url] } },
    outbound: [{ service: 'orders' }, ...more]
  })
  const { file, ports, adminUrl, running } = await startSidecar(t, sections(one!))
  const port = ports['outbound-orders']!
  t.match(await ask(port), /\r\n\r\none$/)
  writeFileSync(file, sidecarText(sections(two!)))
  running.kill('SIGHUP')
  await eventually(async () => /\r\n\r\ntwo$/.test(await ask(port)))

  const reload = async (text: string) => {
    writeFileSync(file, text)
    const { statusCode, body } = await request(`${adminUrl}/admin/reload`, { method: 'POST' })
    return { statusCode, text: await body.text() }
  }
  const added = await reload(sidecarText(sections(two!, [{}])))
  t.equal(added.statusCode, 422)
  t.match(added.text, /sidecar\.outbound\[1\][\s\S]*takes effect only after a restart/)
  const removed = await reload(sidecarText({ services, outbound: [{ name: 'another' }] }))
  t.equal(removed.statusCode, 422)
  const gateway = await reload(JSON.stringify({ services, routes: [] }))
  t.equal(gateway.statusCode, 422)
  t.match(gateway.text, /takes effect only after a restart/)
  t.match(await ask(port), /\r\n\r\ntwo$/)
})
