/** Settings of a mesh without a gateway: what a file with the same content would give, and the same faults. */
import { CORE_SCHEMA, load } from 'js-yaml'
import t from 'tap'
import { Report } from '../../config/faults.ts'
import { Loader } from '../../config/load.ts'
import { meshSchema } from '../../config/mesh-schema.ts'
import { withDefaults } from '../../config/settings.ts'
import { meshKeys } from '../../plugins/mesh/chain.ts'
import type { MeshSettings } from '../../plugins/mesh-api.ts'
import { ConfigError, createMesh } from '../../plugins/mesh-api.ts'
import { badMesh } from './bad-mesh.ts'

const files = new Loader({ edge: [], mesh: meshKeys })

/** Uses each kind of value: quantities, alternatives, lists, names. */
const full: MeshSettings = {
  discovery: { consul: { url: 'http://127.0.0.1:8500', maxStale: '1m' } },
  mesh: {
    balance: { policy: 'maglev', hashOn: 'header:x-user', slowStart: '30s' },
    timeout: '3s',
    attemptTimeout: '1s',
    idleTimeout: '10s',
    retry: { attempts: 3, on: ['connect-failure', '5xx', 'retriable-header:x-again'], maxBody: 0, budget: '10%' },
    outlierDetection: {},
    circuitBreaker: { maxRequests: 10, errorRatio: '50%', perInstance: { maxConnections: 3 } },
    healthCheck: { path: '/health', statuses: ['200-299', 404] },
    fallback: [{ stale: { maxAge: '5m' } }, { status: 200, body: '[]' }],
    hedge: false,
    tls: { minVersion: 'TLSv1.3' }
  } as MeshSettings['mesh'] & object,
  services: {
    orders: { subsets: { next: { tags: ['v2'] } }, mesh: { hedge: { percentile: 95 }, timeout: '2s' } },
    users: { instances: ['http://127.0.0.1:1', { url: 'http://127.0.0.1:2', weight: 3 }] },
    legacy: { dns: { host: 'legacy.internal', port: 80 } }
  }
}

t.test('defaults and units are those of a file', async (t) => {
  const report = new Report('settings')
  const before = structuredClone(full)
  const loaded = withDefaults(meshSchema(meshKeys), full, '', report) as MeshSettings
  t.strictSame(report.faults, [])
  t.strictSame(full, before, 'what is given is not changed')
  const file = files.parse(JSON.stringify(full), 'gateway.yaml', {})
  t.strictSame(loaded.mesh, file.mesh)
  t.strictSame(loaded.discovery, file.discovery)
  t.strictSame(loaded.services.users?.instances, file.services.users?.instances)
})

t.test('a quantity may be a number', async (t) => {
  const services = { orders: { instances: ['http://127.0.0.1:1'] } }
  const timeoutOf = (timeout: number | string) => {
    const report = new Report('settings')
    return (withDefaults(meshSchema(meshKeys), { mesh: { timeout }, services }, '', report) as MeshSettings).mesh
      ?.timeout
  }
  t.equal(timeoutOf(1500), timeoutOf('1.5s'))
})

/** Faults as their paths. */
function pathsOf(run: () => unknown): string[] {
  try {
    run()
  } catch (error) {
    if (error instanceof ConfigError) return error.faults.map(({ path }) => path).sort()
    throw error
  }
  return []
}

t.test('faults are those of a file', async (t) => {
  let compared = 0
  for (const { name, yaml } of badMesh) {
    const settings = load(yaml, { schema: CORE_SCHEMA }) as MeshSettings
    if (Object.keys(settings).some((key) => key !== 'mesh' && key !== 'services' && key !== 'discovery')) continue
    compared++
    const inFile = pathsOf(() => files.parse(yaml, 'gateway.yaml', {}))
    t.ok(inFile.length > 0, name)
    t.strictSame(
      pathsOf(() => createMesh({ ...settings, services: settings.services ?? {} })),
      inFile,
      name
    )
  }
  t.ok(compared > 30, `${compared} compared`)
})

t.test('each fault is reported with the path of its key', async (t) => {
  const settings = {
    mesh: { timeout: 'soon', retry: { atempts: 1 } },
    services: { orders: {}, users: { instances: ['ftp://users'] } }
  } as unknown as MeshSettings
  t.throws(() => createMesh(settings), {
    message: [
      'createMesh: mesh.timeout: expected a duration such as 250ms, 15s or 5m',
      'createMesh: mesh.retry.atempts: unknown key; did you mean "attempts"?',
      'createMesh: services.users.instances[0]: expected a URL that starts with http:// or https://',
      'createMesh: services.orders: has no source of instances; set instances or dns, or discovery.consul to find it in Consul',
      '4 faults in createMesh; nothing was started'
    ].join('\n')
  })
})
