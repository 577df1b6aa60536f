/** Sources from a configuration, over two runs with one file. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { ServiceConfig } from '../../../config/schema.ts'
import type { ConsulOptions } from '../../../plugins/mesh/discovery/consul-options.ts'
import { createDiscovery } from '../../../plugins/mesh/discovery/index.ts'
import { eventually } from '../../helpers/eventually.ts'
import { hold, origin, respond, scripted } from '../../helpers/mesh/scripted-consul.ts'
import { recording, service, watch } from '../../helpers/mesh/sources.ts'

const web = (consul: Partial<ServiceConfig['consul']> = {}, rest: Partial<ServiceConfig> = {}) =>
  service('web', { consul: { service: 'web', passingOnly: true, ...consul }, ...rest })

t.test('only the same query is served from the file, and it contains no secret', async (t) => {
  const path = join(t.testdir(), 'snapshot')
  const { url, surroundings } = await scripted(t, [respond(5, [1, 2]), hold])
  const live = async (options: Partial<ConsulOptions>, config: ServiceConfig, isFresh = false) => {
    const consul = { url, wait: 60_000, maxStale: 1000, ...options }
    const discovery = createDiscovery({ consul, snapshot: { path, maxAge: 60_000 } }, surroundings)
    const source = discovery.source(config)
    if (isFresh) discovery.startWriting?.()
    const { until, origins } = watch(source)
    if (isFresh) await until([origin(1), origin(2)])
    const seen = { origins: origins(), restored: source.status().restored ?? false }
    await discovery.close()
    return seen
  }
  const token = 'b1gs3cret'
  t.match(await live({ token }, web(), true), { restored: false })
  const text = readFileSync(path, 'utf8')
  t.notMatch(text, token)
  t.notMatch(text, 'token')
  const both = { origins: [origin(1), origin(2)], restored: true }
  t.same(await live({ token }, web()), both)
  t.same(await live({ token: 'another' }, web()), both, 'the token is not part of the query')
  const none = { origins: null, restored: false }
  t.same(await live({ datacenter: 'dc2' }, web()), none)
  t.same(await live({ url: url.replace('127.0.0.1', 'localhost') }, web()), none)
  t.same(await live({}, web({ tags: ['v2'] })), none)
  t.same(await live({}, web({ passingOnly: false })), none)
  t.same(await live({}, web({ failover: ['dc2'] })), none)
  t.same(await live({}, web({}, { mesh: { ...web().mesh, mode: 'connect' } })), none)
  t.same(await live({}, web()), both)
})

t.test('instances from DNS are in the file too, a static list is not', async (t) => {
  const path = join(t.testdir(), 'snapshot')
  const dns = { host: '127.0.0.1', port: 81, srv: false, tls: false, minTtl: 0, maxTtl: 60_000 }
  const { surroundings } = recording()
  const discovery = createDiscovery({ snapshot: { path, maxAge: 60_000 } }, surroundings)
  discovery.startWriting?.()
  const named = discovery.source(service('named', { dns }))
  watch(discovery.source(service('listed', { instances: ['http://127.0.0.1:82'] })))
  await watch(named).until(['http://127.0.0.1:81'])
  await discovery.close()
  t.match(readFileSync(path, 'utf8'), '127.0.0.1:81')
  t.notMatch(readFileSync(path, 'utf8'), '127.0.0.1:82')

  // No DNS server listens on the port: the instances come from the file.
  const away = { ...dns, host: 'legacy.internal', server: '127.0.0.1:9' }
  const next = createDiscovery({ snapshot: { path, maxAge: 60_000 } }, surroundings)
  t.teardown(() => next.close())
  const again = watch(next.source(service('named', { dns })))
  t.same(again.sets.length, 1, 'the restored set is published at once')
  const other = next.source(service('named', { dns: away }))
  watch(other)
  await eventually(() => other.status().error !== null)
  t.equal(other.status().confirmedAt, null)
})
