// slow: takes about 2 s
/** Instances from Eureka: the registry and its changes, states, addresses, failures of servers. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { loadWithoutPlugins, parseConfig } from '../../../plugins/config.ts'
import { Applications } from '../../../plugins/mesh/discovery/eureka/applications.ts'
import { createDiscovery } from '../../../plugins/mesh/discovery/index.ts'
import { createMesh } from '../../../plugins/mesh-api.ts'
import { authority, folderFor } from '../../helpers/certificates.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { EurekaServerOptions, Failure, Registration } from '../../helpers/mesh/eureka-server.ts'
import { EurekaServer, registration } from '../../helpers/mesh/eureka-server.ts'
import { recording, service, watch } from '../../helpers/mesh/sources.ts'

type Options = Partial<NonNullable<Parameters<typeof createDiscovery>[0]['eureka']>>

function discover(t: Test, urls: readonly string[], options: Options = {}) {
  const { surroundings, lines, counts } = recording()
  const eureka = {
    urls: [...urls],
    fetch: 'registry' as const,
    deltas: true,
    interval: 20,
    timeout: 2000,
    maxSize: 1_000_000,
    emptyGrace: 60_000,
    address: 'hostname' as const,
    ...options
  }
  const discovery = createDiscovery({ eureka }, surroundings)
  t.teardown(() => discovery.close())
  const follow = (name: string, own: object = {}) => {
    const source = discovery.source(service(name, { eureka: { app: name, secure: false, ...own } }))
    return { source, ...watch(source) }
  }
  return { follow, lines, counts, discovery }
}

async function setUp(t: Test, options: Options = {}, ofServer: EurekaServerOptions = {}) {
  const server = await new EurekaServer(ofServer).listen(t)
  return { server, ...discover(t, [server.url], options) }
}

const origin = (port: number) => `http://127.0.0.1:${port}`

/** A registry whose entries count how often their virtual address is read. */
function counted(apps: number, each: number) {
  let reads = 0
  const application = Array.from({ length: apps }, (_, app) => ({
    name: `APP${app}`,
    instance: Array.from({ length: each }, (_, index) => {
      const { vipAddress, ...rest } = registration(`app${app}`, 1000 + index)
      return {
        ...rest,
        get vipAddress() {
          reads++
          return vipAddress
        }
      }
    })
  }))
  return { applications: new Applications({ applications: { application } }), reads: () => reads }
}

const byVip = (vip: string, secure = false) => ({ vip, secure, address: 'hostname' as const })

t.test('the registry is searched once for all virtual addresses, and not again without a change', (t) => {
  const { applications, reads } = counted(100, 10)
  t.equal(reads(), 0, 'and not at all without one')
  const all = Array.from({ length: 100 }, (_, app) => byVip(`app${app}`))
  const lists = all.map((wanted) => applications.instancesOf(wanted))
  t.ok(lists.every(({ length }) => length === 10))
  t.ok(reads() <= 1000, `${reads()} reads`)
  const delta = (application: unknown[]) => ({ applications: { apps__hashcode: 'UP_1000_', application } })
  t.ok(applications.apply(delta([])))
  t.ok(all.every((wanted, index) => applications.instancesOf(wanted) === lists[index]))
  const before = reads()
  const changed = { ...registration('app0', 1000, { vipAddress: 'app1' }), actionType: 'MODIFIED' }
  t.ok(applications.apply(delta([{ name: 'APP0', instance: [changed] }])))
  t.strictSame(
    [0, 1, 2].map((index) => applications.instancesOf(all[index]!).length),
    [9, 11, 10]
  )
  t.ok(reads() - before < 10, 'only the entry that changed')
  t.end()
})

t.test('virtual addresses follow changes', (t) => {
  const applications = new Applications({ applications: { application: [] } })
  const count = (vip: string, secure?: boolean) => applications.instancesOf(byVip(vip, secure)).length
  const apply = (actionType: string, more: Partial<Registration>) => {
    const instance = { ...registration('a', 1, more), actionType }
    applications.apply({ applications: { application: { name: 'A', instance } } })
    return applications.hash
  }
  t.equal(count('x'), 0)
  t.equal(apply('ADDED', { vipAddress: 'x, y,,', secureVipAddress: 'z' }), 'UP_1_')
  t.strictSame([count('x'), count('y'), count('z'), count('z', true), count('x', true)], [1, 1, 0, 1, 1])
  t.equal(apply('MODIFIED', { status: 'DOWN', vipAddress: 'y' }), 'DOWN_1_')
  t.strictSame([count('x'), count('y')], [0, 0])
  t.equal(apply('MODIFIED', { vipAddress: 'y', secureVipAddress: 'y' }), 'UP_1_')
  t.strictSame([count('x'), count('y'), count('y', true)], [0, 1, 1], 'an instance with both is one')
  t.equal(apply('DELETED', { vipAddress: 'other' }), '')
  t.strictSame([count('y'), count('y', true)], [0, 0])
  t.end()
})

t.test('one query for the registry, then one for its changes, for all services', async (t) => {
  const { server, follow } = await setUp(t)
  const [a, b, other] = [registration('orders', 1), registration('orders', 2), registration('users', 3)]
  server.register(a)
  server.register(other)
  const [orders, users] = [follow('orders'), follow('users')]
  await orders.until([origin(1)])
  await users.until([origin(3)])
  server.register(b)
  await orders.until([origin(1), origin(2)])
  server.setStatus(a, 'OUT_OF_SERVICE')
  await orders.until([origin(2)])
  server.setStatus(a, 'UP')
  await orders.until([origin(1), origin(2)])
  server.cancel(b)
  await orders.until([origin(1)])
  t.equal(users.sets.length, 1, 'the other service has no new set')
  t.strictSame([...new Set(server.asked)], ['/apps', '/apps/delta'])
  t.equal(server.asked.filter((path) => path === '/apps').length, 1)
  t.match(orders.source.status(), { kind: 'eureka', confirmedAt: Number, error: null })
})

t.test('a registration over HTTP, heartbeats, and the end of a lease', async (t) => {
  const { server, follow } = await setUp(t)
  const send = async (method: string, path: string, body?: object) => {
    const headers = { 'content-type': 'application/json' }
    const response = await fetch(`${server.url}${path}`, {
      method,
      headers,
      ...(body && { body: JSON.stringify(body) })
    })
    await response.body?.cancel()
    return response.status
  }
  t.equal(await send('POST', '/apps/ORDERS', { instance: registration('orders', 1) }), 204)
  t.equal(await send('POST', '/apps/ORDERS', { instance: registration('orders', 2) }), 204)
  const orders = follow('orders')
  await orders.until([origin(1), origin(2)])
  const renewedAfter = performance.now()
  t.equal(await send('PUT', '/apps/ORDERS/127.0.0.1:orders:2'), 200)
  t.equal(await send('PUT', '/apps/ORDERS/127.0.0.1:orders:9'), 404)
  server.evict(renewedAfter)
  await orders.until([origin(2)])
})

t.test('a change that is missed: the hash differs, so the whole registry is fetched', async (t) => {
  const { server, follow } = await setUp(t)
  server.register(registration('orders', 1))
  const orders = follow('orders')
  await orders.until([origin(1)])
  server.losesChanges = true
  server.register(registration('orders', 2))
  await orders.until([origin(1), origin(2)])
  t.equal(server.asked.filter((path) => path === '/apps').length, 2)
  server.losesChanges = false
  server.dropChanges()
  server.register(registration('orders', 3))
  await orders.until([origin(1), origin(2), origin(3)])
  t.equal(server.asked.filter((path) => path === '/apps').length, 2)
})

t.test('without changes: by the option, and with servers that offer none', async (t) => {
  for (const isOption of [true, false]) {
    const { server, follow } = await setUp(t, { deltas: !isOption })
    server.hasChanges = false
    server.register(registration('orders', 1))
    const orders = follow('orders')
    await orders.until([origin(1)])
    server.register(registration('orders', 2))
    await orders.until([origin(1), origin(2)])
    await eventually(() => server.asked.length > 6)
    t.equal(server.asked.filter((path) => path === '/apps/delta').length, isOption ? 0 : 1)
  }
})

t.test('a conditional query for the registry', async (t) => {
  const { server, follow } = await setUp(t, { deltas: false }, { etags: true })
  server.register(registration('orders', 1))
  const orders = follow('orders')
  await orders.until([origin(1)])
  await eventually(() => server.statuses.includes(304))
  const before = orders.source.status().confirmedAt!
  await eventually(() => orders.source.status().confirmedAt! > before, 'confirmed by the response without a change')
  server.register(registration('orders', 2))
  await orders.until([origin(1), origin(2)])
})

t.test('lists of one item that are the item, and compressed responses', async (t) => {
  const { server, follow } = await setUp(t, {}, { singles: true, gzip: true })
  const first = registration('orders', 1)
  server.register(first)
  const orders = follow('orders')
  await orders.until([origin(1)])
  server.register(registration('orders', 2))
  server.register(registration('users', 3))
  await orders.until([origin(1), origin(2)])
  server.cancel(first)
  await orders.until([origin(2)])
})

t.test('only instances that are up and have a usable address', async (t) => {
  const { server, follow } = await setUp(t)
  const off = { $: 80, '@enabled': 'false' }
  const add = (port: number, more: Partial<Registration>) => server.register(registration('orders', port, more))
  for (const [index, status] of ['STARTING', 'DOWN', 'OUT_OF_SERVICE', 'UNKNOWN'].entries()) add(10 + index, { status })
  add(1, { port: off, securePort: { $: 8443, '@enabled': 'true' } })
  add(2, { securePort: { $: 8444, '@enabled': 'true' } })
  add(3, { port: off })
  add(4, { port: { $: 99_999, '@enabled': 'true' } })
  add(5, { port: 'x' as never })
  add(6, { hostName: 'a/../b' })
  add(7, { hostName: '::1', metadata: { zone: 'z1', weight: '5', '@class': 'x', n: 3 as never } })
  add(8, {
    hostName: 'h.test',
    ipAddr: '10.0.0.8',
    dataCenterInfo: { '@class': 'c', name: 'Amazon', metadata: { 'availability-zone': 'us-1a' } }
  })
  server.register({ app: 'ORDERS', instanceId: 'bare', status: 'UP' } as Registration)
  const orders = follow('orders')
  const secure = follow('secure', { app: 'Orders', secure: true })
  await orders.until(['https://127.0.0.1:8443', origin(2), 'http://[::1]:7', 'http://h.test:8'])
  await secure.until(['https://127.0.0.1:8443', 'https://127.0.0.1:8444', 'http://[::1]:7', 'http://h.test:8'])
  const [, , third, fourth] = orders.sets[0]!
  t.match(third, { id: '127.0.0.1:orders:7', weight: 5, meta: { zone: 'z1', weight: '5' } })
  t.strictSame(Object.keys(third!.meta).sort(), ['weight', 'zone'])
  t.equal(fourth!.meta.zone, 'us-1a')
  const byIp = discover(t, [server.url], { address: 'ip' }).follow('orders')
  await eventually(() => byIp.origins()?.includes('http://10.0.0.8:8') === true)
})

t.test('instances of a virtual address', async (t) => {
  for (const fetch of ['registry', 'app'] as const) {
    const { server, follow } = await setUp(t, { fetch })
    server.register(registration('orders', 1, { vipAddress: 'shop.test,orders' }))
    server.register(registration('users', 2, { vipAddress: 'shop.test' }))
    server.register(registration('users', 3, { vipAddress: 'other' }))
    const shop = follow('shop', { app: undefined, vip: 'shop.test' })
    await shop.until([origin(1), origin(2)])
  }
})

t.test('a query for each service', async (t) => {
  const { server, follow } = await setUp(t, { fetch: 'app', emptyGrace: 0 }, { singles: true })
  const one = registration('orders', 1)
  server.register(one)
  const orders = follow('orders')
  await orders.until([origin(1)])
  server.register(registration('orders', 2))
  await orders.until([origin(1), origin(2)])
  t.strictSame([...new Set(server.asked)], ['/apps/ORDERS'])
  server.cancel(one)
  await orders.until([origin(2)])
  server.evict(Number.POSITIVE_INFINITY)
  await orders.until([])
})

t.test('an empty list must last while instances are in use', async (t) => {
  const { server, follow } = await setUp(t, { emptyGrace: 300 })
  server.register(registration('orders', 1))
  server.register(registration('users', 2))
  const [orders, users] = [follow('orders'), follow('users')]
  await orders.until([origin(1)])
  await users.until([origin(2)])
  // A restarted server knows nothing until its clients register again.
  await server.stop()
  await server.listen()
  await eventually(() => /lists no instance/.test(String(orders.source.status().error)), 'the empty list is noticed')
  t.strictSame(orders.origins(), [origin(1)])
  server.register(registration('orders', 1))
  await eventually(() => orders.source.status().error === null, 'orders is back')
  t.equal(orders.sets.length, 1)
  await users.until([])
})

t.test('failures of the only server: the last instances stay, one line for all services', async (t) => {
  const failures: [Failure, RegExp][] = [
    ['hang', /no response within 0\.2 s/],
    ['stall', /no response within 0\.2 s/],
    ['reset', /socket hang up|ECONNRESET/],
    ['xml', /responded with application\/xml instead of JSON/],
    ['garbage', /is no valid JSON/],
    [500, /responded with 500/],
    [503, /responded with 503/]
  ]
  const { server, follow, lines, counts } = await setUp(t, { timeout: 200 })
  server.register(registration('orders', 1))
  const [orders, users] = [follow('orders'), follow('users')]
  await orders.until([origin(1)])
  await users.until([])
  for (const [failure, message] of failures) {
    server.failure = failure
    await eventually(() => message.test(String(orders.source.status().error)), String(failure))
    t.match(orders.source.status().error, server.url)
    t.strictSame(orders.origins(), [origin(1)], String(failure))
  }
  const warnings = lines.filter(({ level }) => level === 'warn')
  t.equal(warnings.length, 1)
  t.match(warnings[0], {
    message: 'Eureka unavailable; services keep the instances last known',
    fields: { urls: [server.url] }
  })
  server.failure = null
  server.register(registration('orders', 2))
  await orders.until([origin(1), origin(2)])
  t.equal(orders.source.status().error, null)
  t.equal(lines.at(-1)!.message, 'Eureka available again')
  const { 'jingwei_mesh_discovery_errors_total{orders}': failed = 0 } = counts
  t.ok(failed >= failures.length - 1, JSON.stringify(counts))
})

t.test('several servers: the next one is used if one fails', async (t) => {
  const [first, second] = [await new EurekaServer().listen(t), await new EurekaServer().listen(t)]
  for (const server of [first, second]) server.register(registration('orders', 1))
  const { follow, lines } = discover(t, [first.url, second.url])
  const orders = follow('orders')
  await orders.until([origin(1)])
  t.equal(second.asked.length, 0)
  await first.stop()
  second.register(registration('orders', 2))
  await orders.until([origin(1), origin(2)])
  t.equal(orders.source.status().error, null)
  t.strictSame(lines, [], 'nothing is unavailable')
  await second.stop()
  await eventually(() => orders.source.status().error !== null)
  t.match(orders.source.status().error, new RegExp(`${second.url}: .*ECONNREFUSED.*; ${first.url}: .*ECONNREFUSED`))
  await first.listen()
  first.register(registration('orders', 3))
  await orders.until([origin(3)])
})

t.test('user and password: in the URL or in options, never in a message', async (t) => {
  const server = await new EurekaServer({ credentials: 'jingwei:s3cret/x' }).listen(t)
  server.register(registration('orders', 1))
  const inUrl = server.url.replace('http://', 'http://jingwei:s3cret%2Fx@')
  await discover(t, [inUrl])
    .follow('orders')
    .until([origin(1)])
  await discover(t, [server.url], { username: 'jingwei', password: 's3cret/x' })
    .follow('orders')
    .until([origin(1)])
  const wrong = discover(t, [inUrl.replace('s3cret', 'wr0ng')])
  const orders = wrong.follow('orders')
  await eventually(() => orders.source.status().error !== null)
  t.match(orders.source.status().error, /refuses user and password \(401\)/)
  const shown = JSON.stringify([
    orders.source.status(),
    wrong.lines,
    wrong.lines.map(({ fields }) => String((fields as { err?: Error }).err?.stack))
  ])
  t.notMatch(shown, /wr0ng|s3cret/)
})

t.test('responses that are too large, also once they are decompressed', async (t) => {
  for (const gzip of [false, true]) {
    const { server, follow } = await setUp(t, { maxSize: 20_000 }, { gzip })
    for (let port = 1; port <= 100; port++) server.register(registration('orders', port))
    const orders = follow('orders')
    await eventually(() => orders.source.status().error !== null)
    t.match(orders.source.status().error, /larger than discovery\.eureka\.maxSize \(20000 bytes\)/)
    t.strictSame(orders.sets, [])
  }
})

t.test('no server at the start, and the end of a service during a query', async (t) => {
  const server = await new EurekaServer().listen()
  await server.stop()
  const { follow, lines, discovery } = discover(t, [server.url])
  const orders = follow('orders')
  await eventually(() => lines.length > 0)
  t.match(lines[0]!.message, /Eureka unavailable; services without known instances respond with 503/)
  await server.listen(t)
  server.register(registration('orders', 1))
  await orders.until([origin(1)])
  server.failure = 'hang'
  const { length } = server.asked
  await eventually(() => server.asked.length > length, 'a query that hangs')
  await orders.source.close()
  await discovery.close()
})

t.test('the configuration', async (t) => {
  const folder = t.testdir({})
  const parse = (text: string) => parseConfig(text, join(folder, 'gateway.yaml'), {})
  const eureka = 'discovery: { eureka: { urls: ["http://a:8761/eureka"] } }'
  const { services, discovery, backends } = parse(`${eureka}\nservices: { orders: {}, users: { eureka: { vip: u } } }`)
  t.strictSame(backends, { orders: ['eureka orders'], users: ['eureka u'] })
  t.strictSame(services.orders!.eureka, { secure: false, app: 'orders' })
  t.strictSame(services.users!.eureka, { vip: 'u', secure: false })
  t.match(discovery.eureka, { interval: 30_000, timeout: 10_000, emptyGrace: 60_000, fetch: 'registry', deltas: true })
  t.throws(
    () => parse('services: { orders: { eureka: {} } }'),
    /services\.orders\.eureka: needs discovery\.eureka, which is not set/
  )
  t.throws(
    () => parse(`${eureka}\nservices: { orders: { eureka: { app: a, vip: b } } }`),
    /services\.orders\.eureka\.vip: set either app or vip, not both/
  )
  const faultOf = (text: string) => {
    try {
      return parse(text) && ''
    } catch (error) {
      return (error as Error).message
    }
  }
  const withPassword = faultOf(eureka.replace(' } }', ', password: s3cret } }'))
  t.match(withPassword, /discovery\.eureka\.password: needs a username/)
  t.notMatch(withPassword, /s3cret/)
  t.throws(() => parse(eureka.replace(' } }', ', tls: { ca: no.pem } } }')), /discovery\.eureka\.tls\.ca: no such file/)
  const withoutHttp = faultOf('discovery: { eureka: { urls: ["ftp://u:p4ss@a"] } }')
  t.match(withoutHttp, /discovery\.eureka\.urls\[0\]: expected a URL that starts with http/)
  t.notMatch(withoutHttp, /p4ss/)
})

t.test('TLS: the certificate of the server is verified, and that of the client is presented', async (t) => {
  const folder = folderFor(t)
  const [ours, other] = [authority(folder, 'ours'), authority(folder, 'other')]
  const ofServer = ours.issue('server', { san: 'IP:127.0.0.1' })
  const ofClient = ours.issue('client')
  const tls = { cert: ofServer.cert, key: ofServer.key, ca: ours.cert, requestCert: true, rejectUnauthorized: true }
  const server = await new EurekaServer({ tls }).listen(t)
  server.register(registration('orders', 1))
  const files = { ca: ours.file, cert: ofClient.certFile, key: ofClient.keyFile }
  await discover(t, [server.url], { tls: files })
    .follow('orders')
    .until([origin(1)])

  const failure = async (given: Options['tls']) => {
    const { follow } = discover(t, [server.url], given && { tls: given })
    const { source } = follow('orders')
    await eventually(() => source.status().error !== null)
    return source.status().error ?? ''
  }
  t.match(await failure({ ...files, ca: other.file }), /self-signed|unable to (verify|get)/, 'of another authority')
  t.match(await failure(undefined), /self-signed|unable to (verify|get)/, 'of none that Node knows')
  t.match(await failure({ ca: ours.file }), /certificate required|socket|ECONNRESET|closed/i, 'without its own')
})

t.test('the example is sound', async (t) => {
  const warnings: unknown[] = []
  const file = join(import.meta.dirname, '../../../config/examples/eureka.yaml')
  const { services } = loadWithoutPlugins(file, {}, (warning) => void warnings.push(warning))
  t.strictSame(warnings, [])
  t.strictSame(services.users!.eureka, { app: 'user-service', secure: false })
  const discovery = createDiscovery({}, recording().surroundings)
  t.teardown(() => discovery.close())
  await watch(discovery.source(services.legacy!)).until(['http://127.0.0.1:9301', 'http://127.0.0.1:9302'])
})

t.test('calls reach the instances that Eureka lists', async (t) => {
  const backend = createServer((_request, response) => void response.end('one'))
  await new Promise<void>((resolve) => backend.listen(0, '127.0.0.1', resolve))
  t.teardown(() => backend.close())
  const server = await new EurekaServer().listen(t)
  server.register(registration('orders', (backend.address() as AddressInfo).port))
  const mesh = createMesh({ discovery: { eureka: { urls: [server.url] } }, services: { orders: {} } })
  t.teardown(() => mesh.destroy())
  await mesh.ready()
  const { body } = await mesh.request({ origin: 'http://orders.mesh', path: '/', method: 'GET' })
  t.equal(await body.text(), 'one')
  t.equal(mesh.status()[0]!.source.kind, 'eureka')
})
