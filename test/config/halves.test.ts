/** `sidecar.gateway`: one file for the two halves of a gateway, and `listen[].enabled`. */
import type { Test } from 'tap'
import t from 'tap'
import { ConfigError } from '../../config/faults.ts'
import type { Half } from '../../config/form.ts'
import type { Config } from '../../config/schema.ts'
import { loadConfig, loadSidecar, parseConfig } from '../../plugins/config.ts'

const text = (sections: object = {}) =>
  JSON.stringify({
    listen: { port: 18080 },
    mesh: { mode: 'sidecar', timeout: '3s', retry: { attempts: 4 } },
    services: {
      orders: { instances: ['http://127.0.0.1:9101'], mesh: { timeout: '7s', idleTimeout: '2m' } },
      next: { instances: ['http://127.0.0.1:9102'] },
      plain: { instances: ['http://127.0.0.1:9103'], mesh: { mode: 'direct' } }
    },
    routes: [
      { name: 'orders', match: { path: '/orders' }, service: 'orders', mesh: { timeout: '1s', retry: false } },
      { name: 'canary', match: { path: '/canary' }, split: [{ service: 'plain', weight: 1 }, { service: 'next' }] },
      { name: 'plain', match: { path: '/plain' }, service: 'plain', mesh: { timeout: '2s' } },
      {
        name: 'both',
        match: { path: '/both', methods: ['GET'] },
        compose: { calls: { a: { service: 'orders', path: '/' }, b: { service: 'plain', path: '/' } } }
      }
    ],
    sidecar: { gateway: { port: 9191 } },
    ...sections
  })

function faultsOf(source: string): string[] {
  try {
    parseConfig(source, 'gateway.yaml', {})
  } catch (error) {
    if (error instanceof ConfigError) return error.faults.map(({ path, message }) => `${path}: ${message}`)
    throw error
  }
  return []
}

async function half(t: Test, which: Half, source: string): Promise<Config> {
  const dir = t.testdir({ 'gateway.yaml': source })
  return (which === 'gateway' ? loadConfig : loadSidecar)(`${dir}/gateway.yaml`, {})
}

t.test('the gateway hands over what has mode sidecar, with no policy of its own', async (t) => {
  const config = await half(t, 'gateway', text())
  t.notOk(config.isSidecar)
  t.notOk('sidecar' in config)
  t.notOk('handedOver' in config)
  t.equal(config.listen.port, 18080)
  const { orders, next, plain } = config.services
  t.match(orders, { sidecar: 'http://127.0.0.1:9191', mesh: { mode: 'sidecar', handOver: 'service/orders' } })
  t.notOk('instances' in orders!)
  // Twice the longest timeout and 1 s; the longest pause and 1 s.
  t.match(next, { mesh: { timeout: 15_000, idleTimeout: 121_000, retry: false } })
  t.match(plain, { instances: ['http://127.0.0.1:9103'], mesh: { mode: 'direct', retry: { attempts: 4 } } })
  const mesh = Object.fromEntries(config.routes.map((route) => [route.name, route.mesh]))
  t.strictSame(mesh.orders, { handOver: 'route/orders' })
  t.strictSame(mesh.canary, { handOver: 'route/canary' })
  t.strictSame(mesh.plain, { timeout: 2000 })
  t.equal(config.routes[1]!.service, 'next', 'a service that is handed over')
  t.strictSame(
    config.routes[3]!.targets.map(({ mesh }) => mesh),
    [{ handOver: 'route/both/a' }, {}]
  )
  t.equal(config.routes[0]!.targets[0]!.mesh, config.routes[0]!.mesh, 'one object, by which the mesh finds the chain')
})

t.test('the sidecar takes the header sections that the gateway takes, and the fields that it adds', async (t) => {
  const kb = 1024
  const limits = async (...each: object[]) => {
    const listen = each.map((limits, index) => ({ name: `l${index}`, port: 18080 + index, limits }))
    return (await half(t, 'sidecar', text({ listen }))).listen.limits
  }
  t.match(await limits({}), { headers: 64 * kb, url: 64 * kb, connections: 10_000 })
  t.match(await limits({ headers: '200kb' }, { url: '150kb' }), { headers: 248 * kb, url: 198 * kb })
})

t.test('the sidecar has a route for each call, with its policy', async (t) => {
  const config = await half(t, 'sidecar', text({ sidecar: { gateway: { port: 9191 }, admin: { port: 9192 } } }))
  t.equal(config.isSidecar, true)
  t.strictSame(
    config.listeners.map(({ name, host, port }) => [name, host, port]),
    [['gateway', '127.0.0.1', 9191]]
  )
  t.match(config.admin, { port: 9192 })
  t.strictSame(config.plugins, [])
  t.match(config.services.orders, { instances: ['http://127.0.0.1:9101'], mesh: { mode: 'direct', timeout: 7000 } })
  t.strictSame(
    config.routes.map(({ name, match, mesh }) => [name, match.headers, mesh]),
    [
      ['orders', { 'x-jingwei-call': 'route/orders' }, { timeout: 1000, retry: false }],
      [
        'canary',
        { 'x-jingwei-call': 'route/canary' },
        {
          split: [
            { service: 'plain', weight: 1 },
            { service: 'next', weight: 0 }
          ]
        }
      ],
      ['plain', { 'x-jingwei-call': 'route/plain' }, { timeout: 2000 }],
      ['both/a', { 'x-jingwei-call': 'route/both/a' }, {}],
      ['both/b', { 'x-jingwei-call': 'route/both/b' }, {}],
      ['service/orders', { 'x-jingwei-call': 'service/orders' }, {}],
      ['service/next', { 'x-jingwei-call': 'service/next' }, {}],
      ['service/plain', { 'x-jingwei-call': 'service/plain' }, {}]
    ]
  )
})

t.test('with another mode the gateway calls services itself', async (t) => {
  const config = await half(t, 'gateway', text({ mesh: { mode: 'direct' } }))
  t.match(config.services.orders, { instances: ['http://127.0.0.1:9101'], mesh: { mode: 'direct' } })
  t.notOk('sidecar' in config)
  t.notOk(config.routes.some(({ mesh }) => mesh.handOver !== undefined))
})

t.test('services may share their settings by an alias', async (t) => {
  const services = `
    a: { instances: ["http://h"], mesh: &own { mode: sidecar } }
    b: { instances: ["http://h"], mesh: *own }`
  const config = await half(t, 'gateway', `services: ${services}\nsidecar: { gateway: { port: 9191 } }`)
  t.strictSame(
    Object.values(config.services).map(({ sidecar }) => sidecar),
    ['http://127.0.0.1:9191', 'http://127.0.0.1:9191']
  )
})

t.test('a listener for the gateway that other hosts reach is a warning', async (t) => {
  const warnings: string[] = []
  const source = text({ sidecar: { gateway: { host: '0.0.0.0', port: 9191 } } })
  parseConfig(source, 'gateway.yaml', {}, ({ path, message }) => warnings.push(`${path}: ${message}`))
  t.match(warnings, [/^sidecar\.gateway\.host: every host that can connect may call all services/])
})

t.test('faults', async (t) => {
  const one = (sections: object, expected: string) => t.strictSame(faultsOf(text(sections)), [expected], expected)
  const services = (orders: object) => ({
    services: { orders, next: { instances: ['http://h'] }, plain: { instances: ['http://h'] } }
  })
  one({ sidecar: { gateway: {} } }, 'sidecar.gateway: missing key "port"')
  one(
    { sidecar: { gateway: { port: 1 }, mode: 'sidecar' } },
    'sidecar.mode: expected one of direct, connect, found "sidecar"'
  )
  one(
    { sidecar: { gateway: { port: 1 }, outbound: [{ port: 2 }] } },
    'sidecar.outbound: with sidecar.gateway, this sidecar serves the gateway of this file alone: write a file with another sidecar'
  )
  one(
    { sidecar: { gateway: { port: 18080 } } },
    'sidecar.gateway.port: listen.port is 18080, too, and 127.0.0.1 overlaps 0.0.0.0'
  )
  one(
    { sidecar: { gateway: { port: 8081 } } },
    'sidecar.gateway.port: admin.port is 8081, too, and 127.0.0.1 overlaps 127.0.0.1'
  )
  one(
    { sidecar: { gateway: { port: 9191 }, admin: { port: 9191 } } },
    'sidecar.admin.port: sidecar.gateway.port is 9191, too, and 127.0.0.1 overlaps 127.0.0.1'
  )
  one(
    services({ instances: ['http://localhost:9191'] }),
    'services.orders.instances[0]: this sidecar itself listens there, by sidecar.gateway'
  )
  one(
    services({ instances: ['http://h'], sidecar: 'http://127.0.0.1:15001' }),
    'services.orders.sidecar: the service is called at sidecar.gateway; remove it, or set another mesh.mode for this service'
  )
  one(
    services({}),
    'services.orders: has no source of instances; set instances, dns or file, or a registry that finds it by its name: discovery.consul, discovery.file or discovery.eureka'
  )
  t.match(faultsOf(text({ sidecar: { gateway: { port: 1 }, mode: 'connect' } })), [/mesh.mode: needs discovery.consul/])
  t.equal(
    faultsOf(text({ mesh: false })).at(-1),
    'sidecar: it runs the mesh half of the gateway, which "mesh: false" leaves out: set mesh: { mode: sidecar }'
  )
})

t.test('plugins of the mesh half are faults, others are not', async (t) => {
  const concern = "export default { name: 'mine', options: { type: 'object' }, layer: () => null }"
  const dir = t.testdir({
    'edge.mjs': 'export default async function () {}',
    'mesh.mjs': concern,
    'gateway.yaml': text({ plugins: [{ path: './edge.mjs' }] }),
    'mesh.yaml': text({ plugins: [{ path: './mesh.mjs' }] })
  })
  t.equal((await loadConfig(`${dir}/gateway.yaml`, {})).plugins.length, 1)
  t.equal((await loadSidecar(`${dir}/gateway.yaml`, {})).plugins.length, 0)
  await t.rejects(loadConfig(`${dir}/mesh.yaml`, {}), { message: /plugins\[0\]: it belongs to the mesh half/ })
})

t.test('a listener that is off is checked, but left out', async (t) => {
  const load = (listen: object) => parseConfig(JSON.stringify({ listen }), 'gateway.yaml', {})
  const on = { name: 'on', port: 18080 }
  const off = { name: 'off', enabled: false, port: 18080 }
  for (const listen of [
    [off, on],
    [on, off]
  ]) {
    const config = load(listen)
    t.strictSame(
      config.listeners.map(({ name }) => name),
      ['on']
    )
    t.equal(config.listen, config.listeners[0])
  }
  t.strictSame(faultsOf(JSON.stringify({ listen: off })), [
    'listen: no listener is on: set enabled: true for one of them'
  ])
  t.strictSame(faultsOf(JSON.stringify({ listen: [on, { ...off, name: 'on' }] })), [
    'listen[1].name: duplicate listener name "on"; listen[0] has it, too'
  ])
  const route = { name: 'r', match: { path: '/', listeners: ['off'] }, service: 's' }
  const config = parseConfig(
    JSON.stringify({ listen: [on, off], services: { s: { instances: ['http://h'] } }, routes: [route] }),
    'gateway.yaml',
    {}
  )
  t.strictSame(config.routes[0]!.match.listeners, ['off'], 'a route may name it')
})
