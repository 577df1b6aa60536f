import t from 'tap'
import undici from 'undici'
import { buildConnector, Dispatcher, errors } from '../../../plugins/mesh/core/undici.ts'
import { Mesh } from '../../../plugins/mesh/mesh.ts'

t.test('the parts of undici that the mesh loads are those of the package', async (t) => {
  t.equal(errors, undici.errors)
  t.equal(buildConnector, undici.buildConnector)
  t.equal(Dispatcher, undici.Dispatcher)
  t.ok(Mesh.prototype instanceof undici.Dispatcher)
  for (const name of ['request', 'stream', 'pipeline', 'connect', 'upgrade'] as const) {
    t.type(Mesh.prototype[name], 'function', name)
  }
})
