import t from 'tap'
import { createDiscovery } from '../../../plugins/mesh/discovery/index.ts'
import { recording, service, watch } from '../../helpers/mesh/sources.ts'

t.test(
  'static: published once, synchronously; an address that is listed twice is one instance with both shares',
  async (t) => {
    const discovery = createDiscovery({}, recording().surroundings)
    const instances = ['http://127.0.0.1:9101/', { url: 'https://b.test:8443', weight: 3 }, 'http://127.0.0.1:9101']
    const source = discovery.source(service('products', { instances }))
    const { sets } = watch(source)
    t.same(sets, [
      [
        { id: 'http://127.0.0.1:9101', origin: 'http://127.0.0.1:9101', weight: 2, tags: [], meta: {} },
        { id: 'https://b.test:8443', origin: 'https://b.test:8443', weight: 3, tags: [], meta: {} }
      ]
    ])
    t.match(source.status(), { kind: 'static', confirmedAt: Number, error: null })
    await source.close()
    await discovery.close()
  }
)

t.test('the kind of source follows the configuration', async (t) => {
  const consul = { url: 'http://127.0.0.1:9', wait: 1000, maxStale: 1000 }
  const discovery = createDiscovery({ consul }, recording().surroundings)
  const dns = { host: 'legacy.test', srv: false, tls: false, server: '127.0.0.1:9', minTtl: 1000, maxTtl: 1000 }
  t.equal(discovery.source(service('a', { instances: ['http://127.0.0.1:1'] })).status().kind, 'static')
  t.equal(discovery.source(service('b', { dns })).status().kind, 'dns')
  t.equal(discovery.source(service('c')).status().kind, 'consul')
  await discovery.close()
  t.throws(() => createDiscovery({}, recording().surroundings).source(service('d')), /service d/)
})
