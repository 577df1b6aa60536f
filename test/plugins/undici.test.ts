import t from 'tap'
import undici from 'undici'
import { Mesh } from '../../plugins/mesh/mesh.ts'
import { agentClass, buildConnector, Dispatcher, errors } from '../../plugins/undici.ts'

t.test('the parts of undici that calls need are those of the package', async (t) => {
  t.equal(errors, undici.errors)
  t.equal(buildConnector, undici.buildConnector)
  t.equal(Dispatcher, undici.Dispatcher)
  t.equal(agentClass(), undici.Agent)
  t.ok(Mesh.prototype instanceof undici.Dispatcher)
  for (const name of ['request', 'stream', 'pipeline', 'connect', 'upgrade'] as const) {
    t.type(Mesh.prototype[name], 'function', name)
  }
})
