// slow: takes about 2 s
/** Instances from a watched file: formats, changes as programs make them, faults with their position. */
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'
import { createDiscovery } from '../../../plugins/mesh/discovery/index.ts'
import { createMesh } from '../../../plugins/mesh-api.ts'
import { eventually } from '../../helpers/eventually.ts'
import { recording, service, watch } from '../../helpers/mesh/sources.ts'

/** A folder, and the discovery of the services in one of its files. */
function setUp(t: Test, content: string | null, { name = 'instances.yaml', maxSize = 1_000_000 } = {}) {
  const folder = t.testdir({})
  const path = join(folder, name)
  if (content !== null) writeFileSync(path, content)
  const { surroundings, lines } = recording()
  const discovery = createDiscovery({ file: { path, interval: 20, maxSize } }, surroundings)
  t.teardown(() => discovery.close())
  const follow = (name: string, file = {}) => {
    const source = discovery.source(service(name, { file }))
    return { source, ...watch(source) }
  }
  /** Replaces the file at once, as programs do that care for their readers. */
  const replace = (text: string) => {
    writeFileSync(`${path}.new`, text)
    renameSync(`${path}.new`, path)
  }
  return { folder, path, follow, replace, lines, discovery }
}

t.test('own format: URLs and instances, by service, in YAML and JSON', async (t) => {
  const data = {
    orders: [
      'http://10.0.0.1:8080/',
      { url: 'https://10.0.0.2', weight: 3, tags: ['v2'], meta: { team: 'a' }, zone: 'z1' }
    ],
    users: []
  }
  const yaml =
    'orders:\n  - http://10.0.0.1:8080/\n  - { url: "https://10.0.0.2", weight: 3, tags: [v2], meta: { team: a }, zone: z1 }\nusers: []\n'
  for (const text of [JSON.stringify(data), JSON.stringify(data, null, 2), yaml]) {
    const { follow } = setUp(t, text)
    const orders = follow('orders')
    await orders.until(['http://10.0.0.1:8080', 'https://10.0.0.2'])
    t.strictSame(orders.sets[0], [
      { id: 'http://10.0.0.1:8080', origin: 'http://10.0.0.1:8080', weight: 1, tags: [], meta: {} },
      { id: 'https://10.0.0.2', origin: 'https://10.0.0.2', weight: 3, tags: ['v2'], meta: { team: 'a', zone: 'z1' } }
    ])
    t.match(orders.source.status(), { kind: 'file', confirmedAt: Number, error: null })
    const users = follow('users')
    await users.until([])
    const renamed = follow('checkout', { service: 'orders' })
    await renamed.until(['http://10.0.0.1:8080', 'https://10.0.0.2'])
  }
})

t.test("a service's own file is a list; groups are those of Prometheus", async (t) => {
  const groups = [
    { targets: ['10.0.0.1:80', '[::1]:81'], labels: { env: 'prod', __meta_x: 'y' } },
    { targets: ['b.test:443'], labels: { __scheme__: 'https' } },
    'http://c.test'
  ]
  const { follow, path } = setUp(t, JSON.stringify(groups), { name: 'own.json' })
  const own = follow('anything', { path })
  await own.until(['http://10.0.0.1', 'http://[::1]:81', 'https://b.test', 'http://c.test'])
  t.strictSame(
    own.sets[0]!.map(({ meta }) => meta),
    [{ env: 'prod' }, { env: 'prod' }, {}, {}]
  )
})

t.test('a file that is replaced, edited in place, deleted and written again', async (t) => {
  const { path, follow, replace, lines } = setUp(t, 'a: [http://a.test]\nb: [http://b.test]\n')
  const [a, b] = [follow('a'), follow('b')]
  await a.until(['http://a.test'])
  await b.until(['http://b.test'])
  replace('a: [http://a.test, http://a2.test]\nb: [http://b.test]\n')
  await a.until(['http://a.test', 'http://a2.test'])
  t.equal(b.sets.length, 1, 'the other service has no new set')
  writeFileSync(path, 'a: [http://a3.test]\nb: [http://b.test]\n')
  await a.until(['http://a3.test'])
  rmSync(path)
  await eventually(() => a.source.status().error !== null, 'an error')
  t.match(a.source.status().error, /ENOENT/)
  t.strictSame(a.origins(), ['http://a3.test'], 'the last instances stay in use')
  replace('a: [http://a3.test]\nb: []\n')
  await b.until([])
  await eventually(() => a.source.status().error === null, 'the error is over')
  t.equal(a.sets.length, 3)
  t.strictSame(
    lines.map(({ level }) => level),
    ['warn', 'info'],
    'one line for the file, not one for each service'
  )
})

t.test("Kubernetes swaps the link above a ConfigMap's file", async (t) => {
  const { folder, follow } = setUp(t, null)
  const write = (version: string, text: string) => {
    mkdirSync(join(folder, version))
    writeFileSync(join(folder, version, 'orders.yaml'), text)
    symlinkSync(version, join(folder, '..data_tmp'))
    renameSync(join(folder, '..data_tmp'), join(folder, '..data'))
  }
  write('..1', '[http://a.test]')
  symlinkSync('..data/orders.yaml', join(folder, 'orders.yaml'))
  const orders = follow('orders', { path: join(folder, 'orders.yaml') })
  await orders.until(['http://a.test'])
  write('..2', '[http://b.test]')
  rmSync(join(folder, '..1'), { recursive: true })
  await orders.until(['http://b.test'])
})

t.test('a file with a fault keeps the last instances; the message has line and column', async (t) => {
  const { path, follow, replace, lines } = setUp(t, 'a: [http://a.test]')
  const a = follow('a')
  await a.until(['http://a.test'])
  const cases: [text: string, fault: RegExp][] = [
    ['{ "a": ["http://b.te', /^FILE:1:\d+: /],
    [
      'a:\n  - http://b.test\n  - http://c.test/path\n',
      /^FILE:3:5: a\[1\]: an instance is scheme, host and port; this one has a path/
    ],
    ['a: [http://b.test/v1/..]', /^FILE:1:5: a\[0\]: an instance is scheme, host and port; this one has a path/],
    ['a:\n  - { url: http://b.test, wieght: 3 }', /^FILE:2:\d+: a\[0\]\.wieght: unknown key; did you mean "weight"\?/],
    [
      'a:\n  - { url: http://b.test, weight: -1 }',
      /^FILE:2:\d+: a\[0\]\.weight: expected an integer from 0 to 65535, found -1/
    ],
    ['a: [{ weight: 1 }, 3]', /^FILE:1:5: a\[0\]: missing key "url" \(and 1 more fault\)/],
    ['a: [{ targets: ["b.test:0"] }]', /^FILE:1:\d+: a\[0\]\.targets\[0\]: expected host and port/],
    ['a: http://b.test', /^FILE:1:4: a: expected a list of instances/],
    ['just text', /^FILE:1:1: expected a list of instances, or a mapping/],
    ['b: []', /FILE does not list the service a/],
    ['', /FILE is empty/],
    [`[${'http://a.test, '.repeat(10_001)}]`, /has 10001 instances; at most 10000/],
    [`a: [] # ${'x'.repeat(1_000_000)}`, /FILE is larger than discovery\.file\.maxSize/]
  ]
  for (const [text, fault] of cases) {
    replace(text)
    const isReported = () => {
      const message = a.source.status().error?.replaceAll(path, 'FILE')
      return message !== undefined && fault.test(message)
    }
    await eventually(isReported, `${fault}, found ${text.slice(0, 40)}`)
    t.strictSame(a.origins(), ['http://a.test'], text.slice(0, 30))
  }
  t.equal(a.sets.length, 1)
  replace('a: [http://c.test]')
  await a.until(['http://c.test'])
  t.equal(a.source.status().error, null)
  const warnings = lines.filter(({ level }) => level === 'warn')
  t.equal(warnings.length, 3, 'one line until the file is sound again; one for the service that it does not list')
  t.match(warnings[1]!.message, /does not list the service a; it keeps the instances last known/)
  t.match(warnings[0]!.message, /cannot be used; its services keep the instances last known: .*:1:\d+/)
})

t.test('a file that does not exist yet', async (t) => {
  const { follow, replace } = setUp(t, null)
  const a = follow('a')
  await eventually(() => a.source.status().error !== null, 'an error')
  t.match(a.source.status(), { confirmedAt: null, error: /ENOENT/ })
  t.strictSame(a.sets, [])
  replace('a: [http://a.test]')
  await a.until(['http://a.test'])
})

t.test('one service ends; the others follow the file, and the last one ends the watch', async (t) => {
  const { follow, replace } = setUp(t, 'a: [http://a.test]\nb: [http://b.test]')
  const [a, b] = [follow('a'), follow('b')]
  await a.until(['http://a.test'])
  await a.source.close()
  replace('a: [http://a2.test]\nb: [http://b2.test]')
  await b.until(['http://b2.test'])
  t.equal(a.sets.length, 1)
  await b.source.close()
  replace('a: [http://a3.test]\nb: [http://b3.test]')
  const again = follow('b')
  await again.until(['http://b3.test'])
})

t.test('a large file does not block the event loop', async (t) => {
  const text = JSON.stringify(
    Object.fromEntries(
      Array.from({ length: 500 }, (_, i) => [
        `s${i}`,
        Array.from({ length: 40 }, (_, j) => `http://10.0.${j}.1:${i + 1}`)
      ])
    )
  )
  const { follow } = setUp(t, text)
  const s7 = follow('s7')
  await eventually(() => s7.sets.length > 0, 'instances')
  t.equal(s7.sets[0]!.length, 40)
})

t.test('the configuration: faults, warnings, the default', async (t) => {
  const folder = t.testdir({ 'instances.json': '{}' })
  const file = join(folder, 'gateway.yaml')
  const parse = (text: string) => {
    const warnings: string[] = []
    const config = parseConfig(text, file, {}, ({ path, message }) => void warnings.push(`${path}: ${message}`))
    return { config, warnings }
  }
  const both =
    'discovery: { file: { path: ./instances.json } }\nservices: { orders: {}, users: { file: { service: u } } }'
  const { config, warnings } = parse(both)
  t.strictSame(warnings, [])
  t.match(config.discovery.file, { path: join(folder, 'instances.json'), interval: 1000 })
  t.strictSame(config.services.orders!.file, {})
  const missing = parse('services: { orders: { file: { path: ./no.json } } }')
  t.equal(missing.config.services.orders!.file!.path, join(folder, 'no.json'))
  t.match(missing.warnings, [/^services\.orders\.file\.path: no such file yet: .*no\.json/])
  t.throws(
    () => parse('services: { orders: { file: {} } }'),
    /services\.orders\.file: needs a path, or discovery\.file\.path/
  )
  const consul = 'consul: { url: http://127.0.0.1:8500 }'
  const two = `discovery: { file: { path: ./instances.json }, ${consul} }\nservices: { orders: {} }`
  t.throws(
    () => parse(two),
    /services\.orders: has no source of instances, and 2 registries could find it; set consul: \{\} or file: \{\}, or discovery\.default/
  )
  const chosen = parse(two.replace('consul:', 'default: file, consul:')).config
  t.strictSame(Object.keys(chosen.services.orders!).sort(), ['file', 'mesh', 'name'])
  t.throws(
    () => parse(two.replace('consul:', 'default: fiel, consul:')),
    /discovery\.default: expected one of consul, file.*; did you mean "file"\?/
  )
  t.throws(
    () => parse('discovery: { default: consul, file: { path: ./instances.json } }'),
    /discovery\.default: needs discovery\.consul/
  )
  const connect = `discovery: { file: { path: ./instances.json }, ${consul}, default: file }\nmesh: { mode: connect, identity: { service: g } }\nservices: { orders: {} }`
  t.throws(() => parse(connect), /services\.orders: mode: connect finds instances in Consul.*or consul: \{\}/)
})

t.test('calls reach the instances of a file, and those after a change', async (t) => {
  const servers = ['one', 'two'].map((name) => createServer((_request, response) => void response.end(name)))
  const urls = await Promise.all(
    servers.map(async (server) => {
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      t.teardown(() => server.close())
      return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    })
  )
  const folder = t.testdir({ 'orders.yaml': `[${urls[0]}]` })
  const path = join(folder, 'orders.yaml')
  const mesh = createMesh({
    discovery: { file: { interval: 20 } },
    services: { orders: { file: { path } } }
  })
  t.teardown(() => mesh.destroy())
  await mesh.ready()
  const call = async () => (await mesh.request({ origin: 'http://orders.mesh', path: '/', method: 'GET' })).body.text()
  t.equal(await call(), 'one')
  writeFileSync(path, `[${urls[1]}]`)
  await eventually(async () => (await call()) === 'two', 'the other instance')
})
