/** `mode: sidecar`: all calls go to the local listener. */
import t from 'tap'
import { service } from '../../helpers/mesh/mesh.ts'
import { refused, upstream } from '../../helpers/mesh/servers.ts'
import { startMesh } from '../../helpers/mesh/start-mesh.ts'
import { call } from './support.ts'

t.test('mode sidecar needs no instances, Consul or DNS', async (t) => {
  const sidecar = await upstream(t, 'the sidecar')
  const gone = await refused()
  const dns = { host: 'nowhere.invalid', port: 1, srv: false, tls: false, minTtl: 1000, maxTtl: 1000 }
  for (const where of [{ instances: [gone] }, { consul: { passingOnly: true } }, { dns }]) {
    const { instances: _none, ...config } = service('orders', [gone], { mode: 'sidecar' })
    const mesh = startMesh({ services: { orders: { ...config, ...where, sidecar: sidecar.url } } })
    t.teardown(() => mesh.destroy())
    await mesh.ready()
    t.match(mesh.status()[0]!.instances, [{ origin: sidecar.url }])
    t.equal(mesh.status()[0]!.instances.length, 1)
    t.match(mesh.status()[0]!.concerns.transport, { mode: 'sidecar' })
    t.equal(await call(mesh), 'the sidecar')
  }
})

t.test('without a listener the mesh does not start', async (t) => {
  const config = service('orders', ['http://127.0.0.1:1'], { mode: 'sidecar' })
  t.throws(() => startMesh({ services: { orders: config } }), /service orders: mode sidecar needs/)
})
