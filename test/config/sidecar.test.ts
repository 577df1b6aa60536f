/** `sidecar:` in a file: its faults, and the listeners, routes and services that it becomes. */
import t from 'tap'
import { ConfigError } from '../../config/faults.ts'
import { parseConfig } from '../../plugins/config.ts'
import { authority, folderFor } from '../helpers/certificates.ts'

const file = '/etc/jingwei/sidecar.yaml'
const services =
  "services: { orders: { instances: ['http://127.0.0.1:9101'] }, users: { instances: ['http://127.0.0.1:9102'] } }\n"

const load = (text: string) => parseConfig(services + text, file, {})

/** Returns `path: message` of each fault. */
function faultsOf(text: string, before = services): string[] {
  try {
    parseConfig(before + text, file, {})
  } catch (error) {
    if (error instanceof ConfigError) return error.faults.map(({ path, message }) => `${path}: ${message}`)
    throw error
  }
  return []
}

function warningsOf(text: string): string[] {
  const found: string[] = []
  parseConfig(services + text, file, {}, ({ path, message }) => void found.push(`${path}: ${message}`))
  return found
}

t.test('a listener for one service, one that selects by Host, one on a Unix socket, and one inbound', async (t) => {
  const config = load(`
mesh: { timeout: 3s, mode: direct }
sidecar:
  outbound:
    - { port: 9191, service: orders }
    - { port: 9000 }
    - { path: orders.sock, service: orders }
    - { name: people, host: "::1", port: 9192, service: users }
  inbound: { host: 127.0.0.1, port: 8443, url: "http://127.0.0.1:3000", mesh: { healthCheck: { path: /health } } }
`)
  t.equal(config.isSidecar, true)
  t.strictSame(
    config.listeners.map(({ name, host, port, path }) => [name, host, port, path]),
    [
      ['outbound-orders', '127.0.0.1', 9191, undefined],
      ['outbound', '127.0.0.1', 9000, undefined],
      ['outbound-orders-2', '127.0.0.1', undefined, '/etc/jingwei/orders.sock'],
      ['people', '::1', 9192, undefined],
      ['inbound', '127.0.0.1', 8443, undefined]
    ]
  )
  t.strictSame(
    config.routes.map(({ name, service, match }) => [name, service, match.listeners, match.hosts]),
    [
      ['outbound-orders', 'orders', ['outbound-orders'], undefined],
      ['outbound/orders', 'orders', ['outbound'], ['orders', 'orders.mesh']],
      ['outbound/users', 'users', ['outbound'], ['users', 'users.mesh']],
      ['outbound-orders-2', 'orders', ['outbound-orders-2'], undefined],
      ['people', 'users', ['people'], undefined],
      ['inbound', 'local', ['inbound'], undefined]
    ]
  )
  t.ok(config.routes.every(({ isTransparent }) => isTransparent))
  t.match(config.services, { orders: { mesh: { timeout: 3000 } }, local: { instances: ['http://127.0.0.1:3000'] } })
  const { local } = config.services
  t.match(local!.mesh, { timeout: 60_000, mode: 'direct', healthCheck: { path: '/health' } }, 'not the top-level mesh')
  t.ok(Object.isFrozen(local!.mesh))
  for (const { limits } of config.listeners)
    t.same(limits.perClient, { connections: false, requests: false, websockets: false })
})

t.test('the local service is called directly, whatever the mode of the mesh', async (t) => {
  const config = parseConfig(
    `
discovery: { consul: { url: "http://127.0.0.1:8500" } }
mesh: { mode: connect, identity: { service: billing }, retry: false }
services: { orders: {} }
sidecar: { inbound: { host: 127.0.0.1, port: 8443, url: "http://127.0.0.1:3000" } }
`,
    file,
    {}
  )
  t.match(config.services.local, { mesh: { mode: 'direct' } })
  t.ok(config.services.local!.mesh.retry, 'the default')
  t.equal(config.services.orders!.mesh.retry, false)
})

t.test('keys of a gateway are faults that say what a sidecar has instead', async (t) => {
  const faults = faultsOf(`
listen: { port: 8080 }
edge: { cors: false }
routes: [{ name: one, match: { path: / }, service: orders }]
redis: { url: "redis://127.0.0.1" }
consumers: []
plugins: [{ path: ./missing.ts }]
sidecar: { outbound: [{ port: 9191, service: orders }] }
`)
  t.equal(faults.length, 6)
  for (const key of ['listen', 'edge', 'routes', 'redis', 'consumers', 'plugins']) {
    const fault = faults.find((each) => each.startsWith(`${key}: `))
    t.match(
      fault,
      /a sidecar .*remove it, or remove "sidecar" to run a gateway, or set sidecar.gateway|sidecar has no edge/,
      key
    )
  }
})

t.test('faults', async (t) => {
  const one = (text: string, expected: string) => t.strictSame(faultsOf(text), [expected], text)
  const outbound = (entry: string) => `sidecar: { outbound: [${entry}] }`
  one('sidecar: {}', 'sidecar: needs listeners: outbound, for calls of the local service, or inbound, for calls to it')
  one('sidecar: null', 'sidecar: expected a mapping, found nothing; write {} to leave it empty')
  one('sidecar: { outbond: [] }', 'sidecar.outbond: unknown key; did you mean "outbound"?')
  one(outbound('{ service: orders }'), 'sidecar.outbound[0]: missing key "port", or "path" for a Unix socket')
  one(
    outbound('{ port: 1, service: order }'),
    'sidecar.outbound[0].service: unknown service "order"; did you mean "orders"?'
  )
  one(
    outbound('{ port: 1, path: /x }'),
    'sidecar.outbound[0].port: a listener has an address or a Unix socket ("path"), not both'
  )
  one(
    outbound('{ port: 9191 }, { port: 9191, service: users }'),
    'sidecar.outbound[1].port: sidecar.outbound[0].port is 9191, too, and 127.0.0.1 overlaps 127.0.0.1'
  )
  one(
    outbound('{ name: a, port: 1 }, { name: a, port: 2 }'),
    'sidecar.outbound[1].name: duplicate listener name "a"; sidecar.outbound[0] has it, too'
  )
  one(outbound('{ port: 8081 }'), 'admin.port: sidecar.outbound[0].port is 8081, too, and 127.0.0.1 overlaps 127.0.0.1')
  one(
    outbound('{ port: 9101 }'),
    'services.orders.instances[0]: this sidecar itself listens there, by sidecar.outbound[0]'
  )
  const inbound = (entry: string) => `sidecar: { inbound: { host: 127.0.0.1, ${entry} } }`
  one(inbound('port: 1'), 'sidecar.inbound: missing key "url"')
  one(
    inbound('port: 1, url: "http://127.0.0.1:1"'),
    'sidecar.inbound.url: this sidecar itself listens there, by sidecar.inbound'
  )
  one(
    inbound('port: 1, url: "http://127.0.0.1:2/api"'),
    'sidecar.inbound.url: the local service is scheme, host and port, without credentials, path and query'
  )
  one(
    inbound('port: 1, url: "http://127.0.0.1:2", mesh: { mode: connect }'),
    'sidecar.inbound.mesh.mode: the local service is called directly, at url'
  )
  one(
    inbound('port: 1, url: "http://127.0.0.1:2", http2: true'),
    'sidecar.inbound.http2: HTTP/2 is negotiated during the TLS handshake, so it needs sidecar.inbound.tls'
  )
  one(
    inbound('port: 1, url: "http://127.0.0.1:2", mesh: { timout: 3s }'),
    'sidecar.inbound.mesh.timout: unknown key; did you mean "timeout"?'
  )
  t.strictSame(
    faultsOf(
      inbound('port: 1, url: "http://127.0.0.1:2"'),
      "services: { local: { instances: ['http://127.0.0.1:9'] } }\n"
    ),
    ['services.local: "local" is the name of the local service of sidecar.inbound']
  )
})

t.test('addresses at which the sidecar itself listens', async (t) => {
  const loops = (host: string, url: string) =>
    faultsOf(`sidecar: { inbound: { host: "${host}", port: 24242, url: "${url}" } }`)
  const fault = 'sidecar.inbound.url: this sidecar itself listens there, by sidecar.inbound'
  const same = ['127.0.0.1', '127.1.0.1', 'localhost', 'LOCALHOST.', '0.0.0.0', '[::]', '[::1]', '[::ffff:127.0.0.1]']
  for (const host of ['127.0.0.1', '::1', 'localhost', '0.0.0.0', '::', '', '::ffff:127.0.0.1']) {
    for (const url of same) t.strictSame(loops(host, `http://${url}:24242`), [fault], `${url} at ${host}`)
  }
  t.strictSame(loops('10.1.2.3', 'http://10.1.2.3:24242'), [fault])
  t.strictSame(loops('fd00::1', 'http://[FD00:0::1]:24242'), [fault])
  t.strictSame(loops('10.1.2.3', 'http://127.0.0.1:24242'), [], 'the service has the same port at another address')
  t.strictSame(loops('127.0.0.1', 'http://10.1.2.3:24242'), [])
  t.strictSame(
    faultsOf('sidecar: { inbound: { port: 80, url: "http://localhost" } }'),
    [fault],
    'the port of the scheme'
  )
  t.strictSame(
    faultsOf(
      'sidecar: { outbound: [{ port: 9101 }] }',
      "mesh: { mode: sidecar }\nservices: { orders: { sidecar: 'http://[::ffff:127.0.0.1]:9101' } }\n"
    ),
    ['services.orders.sidecar: this sidecar itself listens there, by sidecar.outbound[0]']
  )
})

t.test('an inbound listener in Consul Connect', async (t) => {
  const text = (more: string) =>
    `${more}\nsidecar: { inbound: { port: 8443, url: "http://127.0.0.1:3000", connect: { service: billing } } }`
  t.strictSame(faultsOf(text('')), ['sidecar.inbound.connect: needs discovery.consul'])
  const consul = 'discovery: { consul: { url: "http://127.0.0.1:8500" } }'
  t.match(load(text(consul)).listen, { connect: { service: 'billing', whenUnknown: 'deny' }, direction: 'east-west' })
  t.strictSame(warningsOf(text(consul)), [])
})

t.test('an inbound listener that checks no caller is a warning', async (t) => {
  const folder = folderFor(t)
  const ca = authority(folder, 'mesh')
  const { certFile, keyFile } = ca.issue('billing', { san: 'DNS:billing' })
  const inbound = (more: string) =>
    warningsOf(`sidecar: { inbound: { port: 8443, url: "http://127.0.0.1:3000"${more} } }`)
  t.strictSame(inbound(''), [
    'sidecar.inbound: every process that can connect may call the local service: set connect, or tls'
  ])
  t.strictSame(inbound(', host: 127.0.0.1'), [])
  t.strictSame(inbound(`, tls: { cert: ${certFile}, key: ${keyFile} }`), [
    'sidecar.inbound.tls: callers need no certificate: set clientCertificate: { mode: require, ca: FILE }'
  ])
  t.strictSame(
    inbound(`, tls: { cert: ${certFile}, key: ${keyFile}, clientCertificate: { mode: require, ca: ${ca.file} } }`),
    []
  )
})
