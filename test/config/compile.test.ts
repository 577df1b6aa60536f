import t from 'tap'
import { schemaFault } from '../../config/compile.ts'

t.test('one schema of a plugin has no effect on the next one', async (t) => {
  const $id = 'https://example.com/options'
  t.equal(schemaFault({ $id, type: 'object' }), null)
  t.equal(schemaFault({ $id, type: 'string' }), null, 'another plugin, the same $id')
  t.match(schemaFault({ $id, type: 'nothing' }), /type/)
  t.match(schemaFault({ $id: 5 }), /id/)
  t.equal(schemaFault({ $id, type: 'number' }), null, 'after one with a fault')
})
