import { setImmediate as nextIteration } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'
import { Mesh } from '../../plugins/mesh/mesh.ts'
import { Stores } from '../../plugins/stores.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

t.test('a service that cannot be closed is named in the log', async (t) => {
  const lines: object[] = []
  const log = { info() {}, warn() {}, error: (fields: object, msg: string) => void lines.push({ ...fields, msg }) }
  const claims = new Stores().open(log)
  const config = parseConfig('services: { orders: { instances: [http://127.0.0.1:1] } }', 'gateway.yaml', {})
  const mesh = await Mesh.create(config, { log, claims })
  const service = mesh.service('orders')
  const close = service.close.bind(service)
  const err = new Error('stuck')
  service.close = async (graceMs) => {
    await close(graceMs)
    throw err
  }
  await mesh.shutdown()
  await claims.release()
  const kind = 'jingwei.service orders'
  t.strictSame(lines, [
    { err, kind, msg: 'disposing of the state "jingwei.service orders" failed; its resources may stay open' }
  ])
})

t.test('services that are kept over a reload hold no reference to the former mesh', async (t) => {
  const log = { info() {}, warn() {}, error() {} }
  const stores = new Stores()
  const config = parseConfig('services: { a: { instances: [http://127.0.0.1:1] } }', 'gateway.yaml', {})
  const start = async () => {
    const claims = stores.open(log)
    const mesh = await Mesh.create(config, { log, claims })
    await mesh.startInSlices()
    const retire = async () => {
      await mesh.shutdown()
      await claims.release()
    }
    return { service: mesh.service('a'), mesh: new WeakRef(mesh), retire }
  }
  const first = await start()
  const second = await start()
  t.equal(second.service, first.service)
  await first.retire()
  Reflect.deleteProperty(first, 'retire')
  for (let i = 0; i < 10 && first.mesh.deref() !== undefined; i++) {
    // The target that a WeakRef has returned is kept until the end of the iteration.
    await nextIteration()
    collect()
  }
  t.equal(first.mesh.deref(), undefined)
  await second.retire()
})
