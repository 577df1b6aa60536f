/** Configuration levels, views of the admin port, TLS, sidecars, the snapshot file; a check that every key is tested. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'
import { authority, folderFor } from '../../helpers/certificates.ts'
import { startRawService } from '../../helpers/gateway.ts'
import { scripted } from '../../helpers/mesh/scripted-consul.ts'
import { gatewayOf, instances } from './support.ts'

t.test('a concern comes from the nearest level, whole; false switches it off', async (t) => {
  const [a] = await instances(t, 'a')
  const world = await gatewayOf(
    t,
    `
mesh:
  retry: { attempts: 5, on: [503], budget: 100%, backoff: { base: 0s } }
  fallback: [{ on: [503], status: 203, body: global }]
  limit: { rate: 1000 }
services:
  global: { instances: [${a!.url}] }
  own:
    instances: [${a!.url}]
    mesh: { retry: { on: [503], backoff: { base: 0s } }, fallback: [{ on: [503], status: 203, body: own }], limit: false }
routes:
  - { name: global, match: { path: /global }, service: global }
  - { name: own, match: { path: /own }, service: own }
  - { name: route, match: { path: /route }, service: own, mesh: { fallback: [{ on: [503], status: 203, body: route }] } }
  - { name: none, match: { path: /none }, service: own, mesh: { fallback: false, retry: false } }
`
  )
  const attempts = async (path: string) => {
    const before = a!.seen.length
    const { status, body } = await world.send(`${path}?status=503`)
    return [status, status === 203 ? body : '', a!.seen.length - before]
  }
  t.strictSame(await attempts('/global'), [203, 'global', 6])
  t.strictSame(await attempts('/own'), [203, 'own', 3], 'two attempts, the default, not five from the top level')
  t.strictSame(await attempts('/route'), [203, 'route', 3])
  t.strictSame(await attempts('/none'), [503, '', 1])
  const routes = (await world.admin.inject('/admin/routes')).json<{ name: string; mesh: string[] }[]>()
  for (const { name, mesh } of routes) {
    t.strictSame(mesh, await world.chain(`/${name}`), 'the admin port and explain agree')
    t.equal(mesh.includes('rate-limit'), name === 'global')
    t.equal(mesh.includes('fallback'), name !== 'none')
  }
  t.equal((await world.admin.inject('/admin/services/own')).json<{ name: string }>().name, 'own')
  t.equal((await world.admin.inject('/admin/services/nobody')).statusCode, 404)
  t.match(await world.explain('/nowhere/else'), { route: null, refused: { status: 404, code: 'JW_NO_ROUTE' } })
})

t.test('tls: ca, client certificate, serverName, san, minVersion; connectTimeout', async (t) => {
  const folder = folderFor(t)
  const ca = authority(folder, 'ca')
  const client = ca.issue('gateway')
  const { cert, key } = ca.issue('orders', { san: 'DNS:orders.internal,URI:spiffe://example/orders' })
  const options = {
    cert,
    key,
    ca: ca.cert,
    requestCert: true,
    rejectUnauthorized: true,
    maxVersion: 'TLSv1.2' as const
  }
  const server = https.createServer(options, (_request, response) => response.end('secret'))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const silent = await startRawService(() => {})
  t.teardown(silent.close)
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const pair = `cert: ${client.certFile}, key: ${client.keyFile}`
  const world = await gatewayOf(
    t,
    `
mesh: { retry: false, tls: { ca: ${ca.file}, ${pair}, serverName: orders.internal } }
services:
  named: { instances: [${url}] }
  san: { instances: [${url}], mesh: { tls: { ca: ${ca.file}, ${pair}, san: ["spiffe://example/orders"] } } }
  wrong: { instances: [${url}], mesh: { tls: { ca: ${ca.file}, ${pair}, san: ["spiffe://example/users"] } } }
  modern: { instances: [${url}], mesh: { tls: { ca: ${ca.file}, ${pair}, serverName: orders.internal, minVersion: TLSv1.3 } } }
  anonymous: { instances: [${url}], mesh: { tls: { ca: ${ca.file}, serverName: orders.internal } } }
  public: { instances: [${url}], mesh: { tls: false } }
  silent: { instances: ["${silent.url.replace('http', 'https')}"], mesh: { connectTimeout: 200ms } }
routes:
${['named', 'san', 'wrong', 'modern', 'anonymous', 'public', 'silent'].map((name) => `  - { name: ${name}, match: { path: /${name} }, service: ${name} }`).join('\n')}
`
  )
  t.match(await world.send('/named'), { status: 200, body: 'secret' })
  t.match(await world.send('/san'), { status: 200, body: 'secret' })
  t.match(await world.send('/wrong'), {
    status: 502,
    headers: { 'proxy-status': 'jingwei; error=tls_certificate_error' }
  })
  for (const name of ['modern', 'anonymous', 'public']) t.equal((await world.send(`/${name}`)).status, 502, name)
  t.match(await world.send('/silent'), { status: 504, code: 'JW_UPSTREAM_CONNECT_TIMEOUT' })
  t.match((await world.service('named')).concerns, { transport: Object })
  await world.idle()
})

t.test('mode: sidecar for all, direct for one', async (t) => {
  const [sidecar, orders] = await instances(t, 'sidecar', 'orders')
  const world = await gatewayOf(
    t,
    `
mesh: { mode: sidecar }
services:
  orders: { instances: [${orders!.url}], sidecar: ${sidecar!.url} }
  legacy: { instances: [${orders!.url}], mesh: { mode: direct } }
routes:
  - { name: orders, match: { path: /orders }, service: orders }
  - { name: legacy, match: { path: /legacy }, service: legacy }
`
  )
  t.equal((await world.send('/orders')).instance, 'sidecar')
  t.equal((await world.send('/legacy')).instance, 'orders')
})

t.test('subsets by tag and meta, in a split and for a route; discovery.snapshot after a restart', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'jingwei-features-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const [v1, v2, canary] = await instances(t, 'v1', 'v2', 'canary')
  const entry = (each: typeof v1, tags: string[], version: string) => ({
    Node: { Node: 'n1', Address: '127.0.0.1' },
    Service: { ID: each!.name, Port: Number(new URL(each!.url).port), Tags: tags, Meta: { version } },
    Checks: []
  })
  const entries = [entry(v1, ['stable'], '1'), entry(v2, ['stable', 'eu'], '2'), entry(canary, ['canary'], '2')]
  let gone = false
  const consul = await scripted(t, [
    (response, { url = '' }) => {
      if (gone) response.destroy()
      if (gone || /index=[1-9]/.test(url)) return
      const index = { 'x-consul-index': '7', 'x-consul-knownleader': 'true', 'x-consul-lastcontact': '0' }
      response.writeHead(200, { ...index, 'content-type': 'application/json' })
      response.end(JSON.stringify(entries))
    }
  ])
  const yaml = `
discovery: { consul: { url: "${consul.url}" }, snapshot: { path: ${folder}/snapshot.json, maxAge: 1h } }
mesh: { balance: round-robin }
services:
  orders:
    subsets:
      stable: { tags: [stable] }
      both: { tags: [stable], meta: { version: "2" } }
      canary: { tags: [canary] }
      nobody: { meta: { version: "3" } }
routes:
  - { name: all, match: { path: /all }, service: orders }
  - { name: stable, match: { path: /stable }, service: orders, mesh: { subset: stable } }
  - { name: both, match: { path: /both }, service: orders, mesh: { subset: both } }
  - { name: nobody, match: { path: /nobody }, service: orders, mesh: { subset: nobody } }
  - name: split
    match: { path: /split }
    split:
      - { service: orders, subset: stable, weight: 1 }
      - { service: orders, subset: canary, match: { headers: { x-canary: "1" } } }
`
  const check = async (world: Awaited<ReturnType<typeof gatewayOf>>) => {
    await world.until('jingwei_mesh_instances{service="orders",state="available"}', 3)
    t.strictSame(await world.spread(6, '/all'), { v1: 2, v2: 2, canary: 2 })
    t.strictSame(await world.spread(4, '/stable'), { v1: 2, v2: 2 })
    t.strictSame(await world.spread(2, '/both'), { v2: 2 })
    t.match(await world.send('/nobody'), { status: 503, code: 'JW_NO_INSTANCE' })
    t.strictSame(await world.spread(4, '/split'), { v1: 2, v2: 2 })
    t.strictSame(await world.spread(2, '/split', () => ['x-canary: 1']), { canary: 2 })
    t.strictSame(
      (await world.explain('/split', '&header=x-canary:1')).mesh.map(({ subset }) => subset),
      ['canary']
    )
  }
  const world = await gatewayOf(t, yaml)
  await check(world)
  while (!(await readdir(folder)).includes('snapshot.json')) await new Promise((resolve) => setTimeout(resolve, 20))

  gone = true
  const restarted = await gatewayOf(t, yaml)
  await check(restarted)
  t.equal(await restarted.metric('jingwei_mesh_discovery_restored{service="orders"}'), 1)
  await restarted.until('jingwei_mesh_discovery_up{service="orders"}', 0)
})

t.test('every key of the mesh is set by some test here', async (t) => {
  const files = (await readdir(import.meta.dirname)).filter((name) => name.endsWith('.test.ts'))
  const tests = (await Promise.all(files.map((name) => readFile(join(import.meta.dirname, name), 'utf8')))).join('')
  const reference = await readFile(join(import.meta.dirname, '../../../config/README.md'), 'utf8')
  const keys = [...reference.matchAll(/^\| `(?:mesh|services\.NAME\.subsets|routes\[\]\.split)[^`]*\.(\w+)` \|/gm)]
  t.ok(keys.length > 100)
  // These are tested elsewhere, with a real Consul: consul-connect, consul-scale, health/instead-of-consul.
  const elsewhere = new Set(['identity', 'intentions', 'insteadOfConsul', 'locality', 'localThreshold'])
  const untried = keys
    .map(([, key]) => key!)
    .filter((key) => !elsewhere.has(key) && !new RegExp(`\\b${key}:`).test(tests))
  t.strictSame([...new Set(untried)], [])
})

t.test('an invalid mesh configuration is refused before anything starts', (t) => {
  const faults = (mesh: string, route = '') => {
    const services = 'services: { a: { instances: ["http://h"] }, b: { instances: ["http://h"] } }'
    const yaml = `mesh: { ${mesh} }\n${services}\nroutes: [{ name: r, match: { path: / }, service: a, mesh: { ${route} } }]`
    try {
      parseConfig(yaml, '/gateway.yaml', {})
      return ''
    } catch (error) {
      return JSON.stringify((error as { faults?: unknown }).faults)
    }
  }
  t.match(faults('', 'circuitBreaker: { maxConnections: 1 }'), /caps are those of a service/)
  t.match(faults('', 'balance: random'), /unknown key; it can only be set for services/)
  t.match(faults('', 'hegde: { after: 1s }'), /did you mean \\"hedge\\"/)
  t.match(faults('retry: { on: [4xx] }'), /did you mean \\"5xx\\"/)
  t.match(faults('fallback: [{ status: 200, headers: { "a b": c } }]'), /not a valid header name/)
  t.match(faults('fallback: [{ service: c }]'), /unknown service/)
  t.match(faults('circuitBreaker: true'), /expected false or a mapping/)
  t.equal(faults('circuitBreaker: {}', 'retry: false'), '')
  t.end()
})
