/** Settings of a mesh without a gateway: the same defaults and the same faults as a file with the same content. */
import { CORE_SCHEMA, load } from 'js-yaml'
import t from 'tap'
import { Report } from '../../config/faults.ts'
import { Loader } from '../../config/load.ts'
import { meshSchema } from '../../config/mesh-schema.ts'
import { withDefaults } from '../../config/settings.ts'
import { meshKeys } from '../../plugins/mesh/chain.ts'
import { sources } from '../../plugins/mesh/discovery/sources.ts'
import type { MeshSettings } from '../../plugins/mesh-api.ts'
import { ConfigError, createMesh } from '../../plugins/mesh-api.ts'
import { badMesh } from './bad-mesh.ts'

const keys = { edge: [], mesh: meshKeys, sources }
const files = new Loader(keys)

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

t.test('createMesh uses the defaults and units of a file', async (t) => {
  const report = new Report('settings')
  const before = structuredClone(full)
  const loaded = withDefaults(meshSchema(keys), full, '', report) as MeshSettings
  t.strictSame(report.faults, [])
  t.strictSame(full, before, 'the settings object is not changed')
  const file = files.parse(JSON.stringify(full), 'gateway.yaml', {})
  t.strictSame(loaded.mesh, file.mesh)
  t.strictSame(loaded.discovery, file.discovery)
  t.strictSame(loaded.services.users?.instances, file.services.users?.instances)
})

t.test('a duration may be a number of milliseconds', async (t) => {
  const services = { orders: { instances: ['http://127.0.0.1:1'] } }
  const timeoutOf = (timeout: number | string) => {
    const report = new Report('settings')
    return (withDefaults(meshSchema(keys), { mesh: { timeout }, services }, '', report) as MeshSettings).mesh?.timeout
  }
  t.equal(timeoutOf(1500), timeoutOf('1.5s'))
})

/** Faults as their paths and messages. Without the advice, which only a file gets. */
function faultsOf(run: () => unknown): string[] {
  try {
    run()
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.faults.map(({ path, message }) => `${path}: ${message.replace(/; .*/, '')}`).sort()
  }
  return []
}

const instances = ['http://127.0.0.1:1']

t.test('createMesh reports the faults of a file', async (t) => {
  let compared = 0
  for (const { name, yaml } of badMesh) {
    const settings = load(yaml, { schema: CORE_SCHEMA }) as MeshSettings
    if (Object.keys(settings).some((key) => key !== 'mesh' && key !== 'services' && key !== 'discovery')) continue
    compared++
    const inFile = faultsOf(() => files.parse(yaml, 'gateway.yaml', {}))
    t.ok(inFile.length > 0, name)
    t.strictSame(
      faultsOf(() => createMesh({ ...settings, services: settings.services ?? {} })),
      inFile,
      name
    )
  }
  t.ok(compared > 30, `${compared} compared`)
})

t.test('createMesh names all allowed values, like a file', async (t) => {
  const mesh = (values: object) => ({ mesh: values, services: { a: { instances } } })
  const wrong: Record<string, object> = {
    'services.a.instances: expected a list with at least one item, found an empty list': {
      services: { a: { instances: [] } }
    },
    'mesh.fallback: expected false or a list with at least one item, found an empty list': mesh({ fallback: [] }),
    'mesh.retry: expected false or a mapping, found nothing': mesh({ retry: null }),
    'mesh.retry.on[0]: expected an integer from 400 to 599 or retriable-header:NAME or one of connect-failure, refused-stream, reset, gateway-error, 5xx, found "nope"':
      mesh({ retry: { on: ['nope'] } }),
    'mesh.retry.maxBody: expected a size such as 512b, 16kb or 10mb, found "much"': mesh({
      retry: { maxBody: 'much' }
    }),
    'services.a.dns.host: expected a string, found an empty string': {
      services: { a: { dns: { host: '', port: 80 } } }
    }
  }
  for (const [fault, settings] of Object.entries(wrong)) {
    t.strictSame(
      faultsOf(() => createMesh(settings as MeshSettings)),
      [fault]
    )
    t.strictSame(
      faultsOf(() => files.parse(JSON.stringify(settings), 'gateway.yaml', {})),
      [fault],
      'in a file'
    )
  }
})

t.test('values that JSON and YAML cannot express are reported', async (t) => {
  const url = 'expected a URL that starts with http:// or https:// or a mapping, found nothing'
  const wrong: [unknown, string][] = [
    [{ services: { a: { instances: [...instances, undefined] } } }, `services.a.instances[1]: ${url}`],
    [{ services: { a: { instances: new Array(1) } } }, `services.a.instances[0]: ${url}`],
    [{ services: { a: { instances: [{ url: undefined }] } } }, 'services.a.instances[0]: missing key "url"'],
    [{ services: { a: null } }, 'services.a: expected a mapping, found nothing'],
    [{ services: null }, 'services: expected a mapping, found nothing'],
    [undefined, ': expected a mapping, found nothing'],
    [
      { mesh: { timeout: Number.NaN }, services: {} },
      'mesh.timeout: expected a duration such as 250ms, 15s or 5m, found NaN'
    ],
    [
      { mesh: { retry: { attempts: 2n } }, services: {} },
      'mesh.retry.attempts: expected an integer from 1 to 10, found a bigint'
    ],
    [{ mesh: { retry: { methods: () => [] } }, services: {} }, 'mesh.retry.methods: expected a list, found a function']
  ]
  for (const [settings, fault] of wrong) {
    t.strictSame(
      faultsOf(() => createMesh(settings as MeshSettings)),
      [fault]
    )
  }
})

t.test('the message has the path of each fault', async (t) => {
  const settings = {
    mesh: { timeout: 'soon', retry: { atempts: 1 } },
    services: { orders: {}, users: { instances: ['ftp://users'] } }
  } as unknown as MeshSettings
  t.throws(() => createMesh(settings), {
    message: [
      'createMesh: mesh.timeout: expected a duration such as 250ms, 15s or 5m, found "soon"',
      'createMesh: mesh.retry.atempts: unknown key; did you mean "attempts"?',
      'createMesh: services.users.instances[0]: expected a URL that starts with http:// or https:// or a mapping, found "ftp://users"',
      'createMesh: services.orders: has no source of instances; set instances, dns or file, or a registry that finds it by its name: discovery.consul, discovery.file or discovery.eureka',
      '4 faults in createMesh; nothing was started'
    ].join('\n')
  })
})
