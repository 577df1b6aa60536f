/** A configuration with `mesh: false`: its section `forward`, and keys that need the mesh. */
import t from 'tap'
import { ConfigError } from '../../config/load.ts'
import { loadConfig, parseConfig } from '../../plugins/config.ts'

const instances = ['http://127.0.0.1:9']
const routes = [{ name: 'one', match: { path: '/' }, service: 'one' }]
const base = { mesh: false, services: { one: { instances } }, routes }

const parse = (config: object) => parseConfig(JSON.stringify(config), `${import.meta.dirname}/gateway.yaml`, {})

/** Returns the faults of a configuration as `path: message`. */
function faultsOf(config: object): string[] {
  try {
    parse(config)
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.faults.map(({ path, message }) => `${path}: ${message}`)
  }
}

t.test('the settings of a service: its own, else those of the top level, key by key', async (t) => {
  const config = parse({
    ...base,
    forward: { timeout: '5s', sidecar: 'http://127.0.0.1:15001', tls: { serverName: 'a' } },
    services: { one: { instances, forward: { idleTimeout: false, tls: { serverName: 'b' } } }, two: {} },
    routes: [{ ...routes[0], forward: { timeout: '1s' } }]
  })
  const defaults = { connectTimeout: 2000, idleTimeout: 60_000, maxRequests: 1024, maxHeaderSize: 65_536 }
  const top = { ...defaults, timeout: 5000, sidecar: 'http://127.0.0.1:15001', tls: { serverName: 'a' } }
  t.strictSame(config.forward, top)
  t.strictSame(config.services.one!.forward, { ...top, idleTimeout: false, tls: { serverName: 'b' } })
  t.strictSame(config.services.two!.forward, top)
  t.equal(config.services.two!.consul, undefined)
  t.strictSame(config.routes[0]!.mesh, { timeout: 1000 }, 'the policy that crosses the seam')
  t.equal(config.routes[0]!.via, 'http-proxy')
  t.ok(config.routes[0]!.edge.websocket, 'the bridge forwards WebSockets')
})

t.test('keys that need the mesh are faults with the way out', async (t) => {
  const out = 'or remove "mesh: false"'
  const of = (service: object) => ({ ...base, services: { one: service } })
  const cases: [config: object, fault: string][] = [
    [
      { ...base, discovery: { consul: { url: 'http://127.0.0.1:8500' } } },
      `discovery: finding instances needs the mesh: set instances or sidecar of each service, ${out}`
    ],
    [
      of({ consul: {} }),
      `services.one.consul: finding instances by "consul" needs the mesh: set instances or sidecar instead, ${out}`
    ],
    [
      of({ dns: { host: 'a', port: 1 } }),
      `services.one.dns: finding instances by "dns" needs the mesh: set instances or sidecar instead, ${out}`
    ],
    [of({ instances, subsets: {} }), `services.one.subsets: subsets need the mesh: remove it, ${out}`],
    [
      of({ instances, mesh: { retry: false } }),
      `services.one.mesh: its concerns need the mesh: set timeouts under "forward", ${out}`
    ],
    [
      of({ instances: [{ url: instances[0], weight: 2 }] }),
      `services.one.instances[0].weight: weights need the mesh: all addresses get equal shares; remove it, ${out}`
    ],
    [
      { ...base, routes: [{ ...routes[0], mesh: { timeout: '1s' } }] },
      `routes[0].mesh: its concerns need the mesh: set timeouts under "forward", ${out}`
    ],
    [
      { ...base, routes: [{ name: 'one', match: { path: '/' }, split: [{ service: 'one', weight: 1 }] }] },
      `routes[0].split: a split needs the mesh: set service, ${out}`
    ],
    [
      { ...base, routes: [{ ...routes[0], stickOn: 'ip' }] },
      `routes[0].stickOn: stickOn needs the mesh: remove it, ${out}`
    ]
  ]
  for (const [config, fault] of cases) t.strictSame(faultsOf(config), [fault])
})

t.test('each service has one address', async (t) => {
  const of = (service: object, forward?: object) => ({
    ...base,
    ...(forward && { forward }),
    services: { one: service }
  })
  const none = 'services.one: has no address: set sidecar or instances, or forward.sidecar for all services'
  t.strictSame(faultsOf(of({})), [none])
  t.strictSame(faultsOf(of({}, { sidecar: 'http://127.0.0.1:15001' })), [])
  t.strictSame(faultsOf(of({ sidecar: 'http://127.0.0.1:9191' })), [])
  t.strictSame(faultsOf(of({ instances: [{ url: instances[0] }] })), [])
  t.strictSame(faultsOf(of({ sidecar: 'http://127.0.0.1:9191', instances })), [
    'services.one.instances: a service has one address without the mesh, but this one has sidecar and instances'
  ])
  t.match(faultsOf(of({ instanses: instances })), [/^services\.one\.instanses: unknown key; did you mean "instances"/])
  t.match(faultsOf(of({ instances, forwards: {} })), [/^services\.one\.forwards: unknown key; did you mean "forward"/])
})

t.test('the address of a sidecar has no path, and is not that of the gateway', async (t) => {
  const advice = 'to add a path prefix, set basePath of the service'
  const origin = 'the address of a sidecar is scheme, host and port; this one has'
  const of = (service: object, more: object = {}) => faultsOf({ ...base, ...more, services: { one: service } })
  t.strictSame(of({ sidecar: 'http://127.0.0.1:9191/api' }), [`services.one.sidecar: ${origin} a path; ${advice}`])
  t.strictSame(of({ sidecar: 'http://u:p@127.0.0.1:9191' }), [`services.one.sidecar: ${origin} credentials`])
  const forward = { sidecar: 'http://127.0.0.1:9191/?a' }
  t.strictSame(of({}, { forward }), [`forward.sidecar: ${origin} a query`])
  const listen = { host: '127.0.0.1', port: 18290 }
  const own = 'this gateway itself listens there, by listen'
  const local = 'http://localhost:18290'
  t.strictSame(of({ sidecar: local }, { listen }), [`services.one.sidecar: ${own}`])
  t.strictSame(of({ instances: [{ url: local }] }, { listen }), [`services.one.instances[0].url: ${own}`])
  t.strictSame(of({}, { listen, forward: { sidecar: local } }), [`forward.sidecar: ${own}`])
  t.strictSame(of({ instances: [local] }, { listen, mesh: {} }), [`services.one.instances[0]: ${own}`], 'with the mesh')
  t.strictSame(of({ instances: [local] }, { listen: [{ port: 1 }, { ...listen, name: 'b' }] }), [
    `services.one.instances[0]: ${own}[1]`
  ])
  t.strictSame(of({ instances: [local] }, { listen: { ...listen, host: '10.1.2.3' } }), [])
  t.strictSame(of({ instances: ['http://127.0.0.1:8080'] }), [], 'an embedded gateway has no listener')
})

t.test('faults of `forward`', async (t) => {
  const of = (forward: object, more: object = {}) => faultsOf({ ...base, forward, ...more })
  t.strictSame(of({ timeout: '5' }), ['forward.timeout: expected a duration such as 250ms, 15s or 5m, found "5"'])
  t.match(of({ retry: {} }), [/^forward\.retry: unknown key/])
  t.match(of({ tls: { cert: 'gone.pem' } }), [/^forward\.tls: a client certificate needs both cert and key/])
  t.match(of({ tls: { ca: 'gone.pem' } }), [/^forward\.tls\.ca: no such file/])
  t.match(of({ host: 'a b' }), [/^forward\.host: expected a host name such as orders\.internal/])
  t.match(of({}, { routes: [{ ...routes[0], forward: { connectTimeout: '1s' } }] }), [
    /^routes\[0\]\.forward\.connectTimeout: unknown key/
  ])
})

t.test('a path is changed by one key', async (t) => {
  const with_ = (more: object) => faultsOf({ ...base, routes: [{ ...routes[0], match: { path: '/a' }, ...more }] })
  t.strictSame(with_({ path: { strip: '/a' } }), [])
  t.strictSame(with_({ httpProxy: { rewritePrefix: '/b' } }), [], 'via is implied')
  t.strictSame(with_({ path: { strip: '/a' }, httpProxy: { rewritePrefix: '/b' } }), [
    'routes[0].path.strip: a path is changed once: set either it or httpProxy.rewritePrefix'
  ])
})

t.test('via: bridge, with the mesh and without it', async (t) => {
  const bridged = { ...base, routes: [{ ...routes[0], via: 'bridge' }] }
  t.equal(parse(bridged).routes[0]!.via, undefined)
  const { mesh: _false, ...withMesh } = bridged
  t.equal(parse(withMesh).routes[0]!.via, undefined)
  t.ok(parse(withMesh).routes[0]!.edge.websocket)
  t.strictSame(faultsOf({ ...base, routes: [{ ...routes[0], via: 'bridge', httpProxy: {} }] }), [
    'routes[0].httpProxy: no effect without via: http-proxy'
  ])
})

t.test('with the mesh, `forward` is a fault', async (t) => {
  const message = 'no effect with the mesh: set the timeouts under "mesh", or set "mesh: false"'
  const { mesh: _false, ...withMesh } = base
  t.strictSame(faultsOf({ ...withMesh, forward: {} }), [`forward: ${message}`])
  t.strictSame(faultsOf({ ...withMesh, services: { one: { instances, forward: {} } } }), [
    `services.one.forward: ${message}`
  ])
  t.strictSame(faultsOf({ ...withMesh, routes: [{ ...routes[0], forward: {} }] }), [`routes[0].forward: ${message}`])
  const found = 'mesh: expected a mapping, or false for an edge without the mesh, found'
  t.strictSame(faultsOf({ ...withMesh, mesh: true }), [`${found} true`])
  t.strictSame(faultsOf({ ...withMesh, mesh: 'false' }), [`${found} a string`])
  t.strictSame(faultsOf({ ...withMesh, services: { one: { sidecar: 'http://127.0.0.1:9191' } } }), [
    'services.one.sidecar: no effect without mesh.mode: sidecar, or "mesh: false" for an edge without the mesh, whose calls go to the sidecar'
  ])
})

t.test('the mesh concern of a plugin is a fault', async (t) => {
  const folder = t.testdir({
    'concern.ts': "export default { name: 'mine', options: { type: 'object' }, layer: () => null }",
    'gateway.yaml': JSON.stringify({ ...base, plugins: [{ path: './concern.ts' }] })
  })
  const message = 'plugins[0]: its concern needs the mesh: remove the plugin, or remove "mesh: false"'
  await t.rejects(loadConfig(`${folder}/gateway.yaml`, {}), {
    message: new RegExp(message.replaceAll(/[[\]]/g, '\\$&'))
  })
})
