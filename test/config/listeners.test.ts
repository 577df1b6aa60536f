/** `listen` as a list. */
import t from 'tap'
import { directionOf } from '../../config/direction.ts'
import { ConfigError } from '../../config/load.ts'
import { parseConfig } from '../../plugins/config.ts'

const file = `${import.meta.dirname}/gateway.yaml`
const parse = (listen: unknown, more: object = {}) =>
  parseConfig(JSON.stringify({ listen, admin: false, services: {}, routes: [], ...more }), file, {})

function faults(listen: unknown, more: object = {}): string[] {
  try {
    parse(listen, more)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.faults.map(({ path, message }) => `${path}: ${message}`)
  }
  return []
}

t.test('a mapping, a list of one and no `listen` give one listener', async (t) => {
  for (const config of [parse({ port: 1 }), parse([{ port: 1 }])]) {
    t.equal(config.listeners.length, 1)
    t.equal(config.listen, config.listeners[0])
    t.match(config.listen, { name: 'default', host: '0.0.0.0', port: 1, trustProxy: [] })
  }
  const { listen, listeners } = parseConfig('services: {}', file, {})
  t.match(listen, { name: 'default', port: 8080 })
  t.equal(listeners.length, 1)
})

t.test('settings of the whole gateway come from the first listener that sets them', async (t) => {
  const { listeners, listen } = parse([
    { name: 'a', port: 1, limits: { url: '1kb' } },
    { name: 'b', path: './b.sock', unknownHost: 421, drain: { delay: '1s' } },
    { name: 'c', port: 2, unknownHost: 421, paths: { case: 'ignore' } }
  ])
  t.equal(listen.name, 'a')
  t.equal(listeners[1]!.path, `${import.meta.dirname}/b.sock`)
  for (const { unknownHost, drain, paths } of listeners) {
    t.same({ unknownHost, delay: drain.delay, case: paths.case }, { unknownHost: 421, delay: 1000, case: 'ignore' })
  }
  t.same(
    listeners.map(({ limits }) => limits.url),
    [1024, 8192, 8192]
  )
})

t.test('faults in listen are reported', async (t) => {
  const local = { host: '127.0.0.1' }
  t.same(faults([]), ['listen: expected a list with at least one item or a mapping, found an empty list'])
  t.match(faults(5), [/^listen: expected .* found/])
  t.same(faults([{ port: 1 }, { port: 2 }]), [
    'listen[1].name: duplicate listener name "default"; listen[0] has it, too'
  ])
  t.same(
    faults([
      { name: 'a', port: 1 },
      { name: 'b', port: 1, ...local }
    ]),
    ['listen[1].port: listen[0].port is 1, too, and 127.0.0.1 overlaps 0.0.0.0']
  )
  t.same(faults([{ name: 'a' }, { name: 'b', port: 9 }], { admin: { port: 9 } }), [
    'admin.port: listen[1].port is 9, too, and 127.0.0.1 overlaps 0.0.0.0'
  ])
  t.same(
    faults([
      { name: 'a', unknownHost: 404 },
      { name: 'b', port: 1, unknownHost: 421 }
    ]),
    ['listen[1].unknownHost: contradicts listen[0].unknownHost: it applies to all listeners; set it once']
  )
  t.same(faults({ path: 'a.sock', port: 1 }), [
    'listen.port: a listener has an address or a Unix socket ("path"), not both'
  ])
  t.same(
    faults([
      { name: 'a', path: 'a.sock' },
      { name: 'b', path: './a.sock' }
    ]),
    ['listen[1].path: listen[0] has the same path']
  )
  t.match(faults({ path: `${'a'.repeat(110)}.sock` }), [/^listen\.path: longer than 103 bytes/])
  t.same(faults({ socketMode: '0600' }), ['listen.socketMode: no effect without "path", the path of a Unix socket'])
  t.same(faults({ trustProxy: ['unix'] }), [
    'listen.trustProxy[0]: "unix" is only for a listener on a Unix socket ("path")'
  ])
  t.same(faults([{ name: 'a' }, { name: 'b', port: 1, trustProxy: ['0.0.0.0/0'] }]), [
    'listen[1].trustProxy[0]: 0.0.0.0/0 trusts every client; list only the proxies in front of the gateway'
  ])
  t.same(faults([{ name: 'a' }, { name: 'b', port: 1, http2: true }]), [
    'listen[1].http2: HTTP/2 is negotiated during the TLS handshake, so it needs listen[1].tls'
  ])
  t.match(faults([{ name: 'a' }, { name: 'b', prot: 1 }]), [/^listen\[1\]\.prot: unknown key; did you mean "port"/])
  t.same(faults({ redirect: 'https' }), [
    'listen.redirect: no listener with a port uses TLS; set the port of the redirect: { to: https, port: 443 }'
  ])
  t.match(faults({ redirect: 'http' }), [/^listen\.redirect: expected one of https or a mapping/])
  t.same(faults({ redirect: { port: 443, status: 302 } }), [
    'listen.redirect.status: expected one of 301, 308, found 302'
  ])
  t.match(faults([null, { name: 'b', port: 'x' }]), [
    /^listen\[0\]: expected a mapping/,
    /^listen\[1\]\.port: expected/
  ])
})

t.test('connect: services of the mesh as callers', async (t) => {
  const discovery = { consul: { url: 'http://127.0.0.1:8500' } }
  const connect = { service: 'jingwei' }
  const { listeners } = parse([{ port: 1 }, { name: 'mesh', port: 2, connect, http2: true }], { discovery })
  t.match(listeners[1], { connect: { service: 'jingwei', whenUnknown: 'deny' }, http2: true })
  t.same(listeners.map(directionOf), ['north-south', 'east-west'])
  const named = parse(
    [
      { port: 1, direction: 'east-west' },
      { name: 'mesh', port: 2, connect, direction: 'north-south' }
    ],
    {
      discovery
    }
  )
  t.same(named.listeners.map(directionOf), ['east-west', 'north-south'])
  t.same(faults({ connect, port: 2 }), ['listen.connect: needs discovery.consul'])
  t.same(faults({ connect: {}, port: 2, http2: true }, { discovery }), ['listen.connect: missing key "service"'])
  t.same(faults({ port: 2, direction: 'up' }), ['listen.direction: expected one of north-south, east-west, found "up"'])
  t.same(faults({ connect, path: './mesh.sock' }, { discovery }), [
    'listen.connect: other services cannot reach a Unix socket ("path")'
  ])
  t.same(faults({ connect, port: 2, trustHeaders: ['x-forwarded-client-cert'] }, { discovery }), [
    'listen.trustHeaders[0]: the gateway sets this header itself from the certificate of the caller'
  ])
  t.same(faults({ connect, port: 2 }, { mesh: false }), [
    'listen.connect: its certificate and callers need the mesh: use "tls", or remove "mesh: false"'
  ])
  t.same(faults({ connect, port: 2, redirect: 'https' }, { discovery }), [
    'listen.redirect: this listener uses TLS, so its requests are https already',
    'listen.redirect: no listener with a port uses TLS; set the port of the redirect: { to: https, port: 443 }'
  ])
})

t.test('a limit by consumer on routes that services reach through the mesh', async (t) => {
  const discovery = { consul: { url: 'http://127.0.0.1:8500' } }
  const listen = [{ port: 1 }, { name: 'mesh', port: 2, connect: { service: 'jingwei' } }]
  const routes = (listeners?: string[]) => [
    {
      name: 'all',
      match: { path: '/', ...(listeners && { listeners }) },
      service: 'any',
      edge: { rateLimit: { max: 1, window: '1s', by: 'consumer' } }
    }
  ]
  const services = { any: { instances: ['http://127.0.0.1:9'] } }
  t.same(faults(listen, { discovery, services, routes: routes() }), [])
  t.same(faults(listen, { discovery, services, routes: routes(['mesh']) }), [])
  t.match(faults(listen, { discovery, services, routes: routes(['default']) }), [/consumer: nothing on this route/])
})
