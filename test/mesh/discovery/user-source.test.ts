// slow: takes about 3 s
/** Sources of users: what they publish is checked, and what they do wrong stays theirs. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import type { MeshSettings } from '../../../plugins/mesh-api.ts'
import { ConfigError, createMesh } from '../../../plugins/mesh-api.ts'
import type { UserDiscoverySource } from '../../../plugins/plugin-api.ts'
import { discoverySource, Type } from '../../../plugins/plugin-api.ts'
import { eventually } from '../../helpers/eventually.ts'
import { recording } from '../../helpers/mesh/sources.ts'

async function startService(t: Test, name: string): Promise<string> {
  const server = createServer((_request, response) => void response.end(name))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

type Watch = ReturnType<ReturnType<UserDiscoverySource['create']>['source']>['watch']

/** A mesh with the service `odd`, whose source is given, and `sound`, which has a list. */
async function setUp(t: Test, watch: Watch, more: Partial<UserDiscoverySource> = {}) {
  const sound = await startService(t, 'sound')
  const { surroundings, lines } = recording()
  const source = discoverySource({
    name: 'odd',
    service: Type.Object({ job: Type.Optional(Type.String()) }),
    every: 5,
    emptyGrace: 0,
    ...(more as object),
    create: () => ({ source: () => ({ watch }) })
  })
  const settings = { services: { odd: { odd: {} }, sound: { instances: [sound] } } } as MeshSettings
  const mesh = createMesh(settings, { sources: [source as UserDiscoverySource], log: surroundings.log })
  t.teardown(() => mesh.destroy())
  const call = async (service: string) =>
    (await mesh.request({ origin: `http://${service}.mesh`, path: '/', method: 'GET' })).body.text()
  const status = () => mesh.service('odd').status()
  return { mesh, call, status, lines }
}

const forever = () => new Promise<void>(() => {})

t.test('instances of a source with options; what is shared is closed once', async (t) => {
  const url = await startService(t, 'one')
  const seen: unknown[] = []
  const source = discoverySource({
    name: 'etcd',
    options: Type.Object({ prefix: Type.String({ default: '/services' }) }, { additionalProperties: false }),
    service: Type.Object({ key: Type.Optional(Type.String()) }, { additionalProperties: false }),
    needsOptions: true,
    findsByName: () => true,
    completeService: (service, name) => ({ ...(service as object), key: (service as { key?: string }).key ?? name }),
    create(options) {
      seen.push(options?.prefix)
      return {
        source: ({ name, options }) => ({
          async watch({ publish, signal }) {
            seen.push([name, options])
            publish([{ url, weight: 2, tags: ['v1'], meta: { a: 'b' }, zone: 'z' }])
            await new Promise((resolve) => signal.addEventListener('abort', resolve))
            seen.push('ended')
          }
        }),
        close: () => void seen.push('closed')
      }
    }
  })
  const settings = { discovery: { etcd: {} }, services: { orders: {}, users: { etcd: { key: 'u' } } } } as MeshSettings
  const mesh = createMesh(settings, { sources: [source as UserDiscoverySource] })
  await mesh.ready()
  t.equal(await (await mesh.request({ origin: 'http://orders.mesh', path: '/', method: 'GET' })).body.text(), 'one')
  t.match(mesh.service('orders').status(), {
    source: { kind: 'etcd', error: null },
    instances: [{ origin: url, weight: 2 }]
  })
  t.match(mesh.service('orders').instances, [{ tags: ['v1'], meta: { a: 'b', zone: 'z' } }])
  await mesh.close()
  t.strictSame(seen, ['/services', ['orders', { key: 'orders' }], ['users', { key: 'u' }], 'ended', 'ended', 'closed'])
})

t.test('settings of a source are validated', async (t) => {
  const source = discoverySource({
    name: 'etcd',
    options: Type.Object({ prefix: Type.String() }, { additionalProperties: false }),
    service: Type.Object({ key: Type.String() }, { additionalProperties: false }),
    needsOptions: true,
    checkService: (service, at, { report }) => {
      if ((service as { key: string }).key === 'bad') report.fault(`${at}/key`, 'is bad')
    },
    create: () => ({ source: () => ({ watch: forever }) })
  }) as UserDiscoverySource
  const faults = (settings: object) => {
    try {
      void createMesh(settings as MeshSettings, { sources: [source] }).destroy()
      return ''
    } catch (error) {
      if (error instanceof ConfigError) return error.message
      throw error
    }
  }
  t.match(
    faults({ services: { a: { etcd: { key: 'k' } } } }),
    'services.a.etcd: needs discovery.etcd, which is not set'
  )
  const discovery = { etcd: { prefix: '/' } }
  t.match(
    faults({ discovery, services: { a: { etcd: { kye: 'k' } } } }),
    'services.a.etcd.kye: unknown key; did you mean "key"?'
  )
  t.match(faults({ discovery, services: { a: { etcd: { key: 'bad' } } } }), 'services.a.etcd.key: is bad')
  t.match(faults({ discovery: { etcd: {} }, services: {} }), 'discovery.etcd: missing key "prefix"')
  t.match(
    faults({ discovery, services: { a: { etcd: { key: 'k' }, instances: ['http://a'] } } }),
    /services\.a\.etcd: a service has one source of instances, but this one has instances and etcd/
  )
})

t.test('faults of a definition are named', async (t) => {
  const sound = { name: 'etcd', service: {}, create: () => ({ source: () => ({ watch: forever }) }) }
  const fault = (definition: object) => {
    try {
      void createMesh({ services: {} }, { sources: [definition as UserDiscoverySource] }).destroy()
      return null
    } catch (error) {
      return (error as Error).message
    }
  }
  t.equal(fault(sound), null)
  t.match(fault({}), /it is no source of instances/)
  t.match(fault({ ...sound, name: undefined }), /has no "name"/)
  t.match(fault({ ...sound, name: 'a-b' }), /needs a name like etcd/)
  t.match(fault({ ...sound, name: 'snapshot' }), /the name is that of another key/)
  t.match(fault({ ...sound, name: 'sidecar' }), /the name is that of another key/)
  t.match(fault({ ...sound, name: 'consul' }), /its name is already in use/)
  t.match(fault({ ...sound, service: null }), /has no "service"/)
  t.match(fault({ ...sound, create: 3 }), /"create" of its source of instances "etcd" is not a function/)
  t.match(fault({ ...sound, chekc: 3 }), /unknown key "chekc"; did you mean "check"\?/)
  const { create, ...uncreated } = sound
  t.match(fault({ ...uncreated, creat: create }), /unknown key "creat"; did you mean "create"\?/)
  t.match(fault(uncreated), /"create" of its source of instances "etcd" is not a function/)
  t.match(fault({ ...sound, every: '5s' }), /"every" of .* is not a number of milliseconds/)
})

t.test('errors at the start are errors of createMesh', async (t) => {
  const fault = (create: unknown) => {
    try {
      const source = { name: 'odd', service: {}, create } as UserDiscoverySource
      void createMesh({ services: { a: { odd: {} } } } as MeshSettings, { sources: [source] }).destroy()
      return null
    } catch (error) {
      return (error as Error).message
    }
  }
  const fail = () => {
    throw new Error('no luck')
  }
  t.equal(fault(fail), 'source of instances odd: create failed: no luck')
  t.match(
    fault(() => 3),
    /create returned no object with a function "source"/
  )
  t.equal(
    fault(() => ({ source: fail })),
    'source of instances odd: source of service a failed: no luck'
  )
  t.match(
    fault(() => ({ source: () => null })),
    /source returned no object with a function "watch"/
  )
})

t.test('rubbish is refused by name, and the last known instances stay in use', async (t) => {
  const url = await startService(t, 'odd')
  const sparse: unknown[] = []
  sparse.length = 5
  const thrower = { get url() { throw new Error('a getter') } } // biome-ignore format: short
  const rubbish: [unknown, RegExp][] = [
    [undefined, /published no list/],
    [{ length: 3 }, /published no list/],
    [new Array(1_000_000).fill(url), /published 1000000 instances; at most 10000/],
    [[null], /no usable instance: instances\[0\]: expected an url/],
    [sparse, /instances\[0\]: expected an url/],
    [[thrower], /instances\[0\]: reading it failed: a getter/],
    [['ftp://a'], /expected an url/],
    [['http://a:99999'], /expected an url/],
    [['http://a:0'], /the port of its url is 0/],
    [['http://u:p@a'], /expected an url/],
    [['http://a/path'], /expected an url/],
    [['http://a/..'], /expected an url/],
    [['http://a\\path'], /expected an url/],
    [[`http://${'a'.repeat(100_000)}`], /expected an url/],
    [[{ url, weight: -1 }], /weight/],
    [[{ url, weight: '1' }], /weight/],
    [[{ url, tags: 'v1' }], /tags/],
    [[{ url, meta: { a: 1 } }], /meta/],
    [[{ url, meta: Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`k${i}`, 'v'])) }], /meta/],
    [[{ url, id: '' }], /id/],
    [[{ url, zone: 3 }], /zone/]
  ]
  let step = -1
  let next = () => {}
  const { call, status, mesh, lines } = await setUp(t, async ({ publish }) => {
    for (;;) {
      publish((step < 0 ? [url] : rubbish[step]![0]) as string[])
      await new Promise<void>((resolve) => {
        next = resolve
      })
    }
  })
  await mesh.ready()
  t.equal(await call('odd'), 'odd')
  for (const [index, [, fault]] of rubbish.entries()) {
    step = index
    next()
    await eventually(() => fault.test(String(status().source.error)), `${index}: ${fault}`, 5000)
    t.equal(await call('odd'), 'odd', String(fault))
  }
  t.equal(lines.filter(({ level }) => level === 'warn').length, 1, 'one line in the log')
  t.equal(await call('sound'), 'sound')
})

t.test('unusable instances are left out, duplicates are one', async (t) => {
  const url = await startService(t, 'odd')
  const { call, status, mesh, lines } = await setUp(t, async ({ publish }) => {
    publish([url, { url, weight: 3, tags: ['a'] }, { url: `${url}/`, id: 'x' }, 'ftp://a', { url: 3 } as never])
    await forever()
  })
  await mesh.ready()
  t.equal(await call('odd'), 'odd')
  t.match(mesh.service('odd').instances, [{ origin: url, weight: 3, tags: ['a'] }])
  t.equal(status().instances.length, 1)
  const warnings = lines.filter(({ level }) => level === 'warn')
  t.match(warnings, [
    { message: /publishes unusable instances, which are ignored: instances\[3\]/, fields: { ignored: 2 } }
  ])
})

t.test('a source that throws, rejects, ends, hangs, or publishes late', async (t) => {
  const url = await startService(t, 'odd')
  const late: ((instances: string[]) => void)[] = []
  let runs = 0
  const { call, status, mesh } = await setUp(
    t,
    ({ publish }) => {
      late.push(publish)
      runs++
      if (runs === 1) throw new Error('at once')
      if (runs === 2) return Promise.reject(undefined)
      if (runs === 3) return undefined
      if (runs === 4) return forever()
      publish([url])
      return forever()
    },
    { timeout: 50 }
  )
  t.equal(await call('sound'), 'sound')
  await mesh.ready()
  t.equal(await call('odd'), 'odd')
  t.equal(runs, 5)
  for (const publish of late.slice(0, 4)) publish(['http://127.0.0.1:9'])
  await sleep(10)
  t.equal(status().instances.length, 1)
  t.equal(await call('odd'), 'odd')
  await mesh.close()
  late[4]!(['http://127.0.0.1:9'])
})

t.test('a flood of sets, and a thenable that never settles', async (t) => {
  const url = await startService(t, 'odd')
  const { call, mesh } = await setUp(t, ({ publish, signal }) => {
    let count = 0
    const flood = () => {
      for (let i = 0; i < 200; i++)
        publish([url, `http://127.0.0.1:${(count++ % 60_000) + 1}`].slice(0, 1 + (count % 2)))
      if (!signal.aborted && count < 5000) setImmediate(flood)
      else publish([url])
    }
    flood()
    // biome-ignore lint/suspicious/noThenProperty: on purpose
    return { then() {} } as unknown as Promise<void>
  })
  await mesh.ready()
  await eventually(async () => (await call('odd').catch(() => '')) === 'odd')
  t.equal(await call('sound'), 'sound')
})

t.test('close is bounded: errors and promises that never settle do not keep a mesh open', async (t) => {
  const { surroundings, lines } = recording()
  const source = {
    name: 'odd',
    service: {},
    create: () => ({ source: () => ({ watch: forever }), close: () => Promise.reject(new Error('cannot close')) })
  } as UserDiscoverySource
  const settings = { services: { a: { odd: {} } } } as MeshSettings
  const mesh = createMesh(settings, { sources: [source], log: surroundings.log })
  await mesh.close()
  t.match(lines.at(-1), { level: 'warn', message: /close failed/, fields: { err: { message: 'cannot close' } } })
})
