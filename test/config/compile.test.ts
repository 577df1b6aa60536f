import t from 'tap'
import { compile, schemaFault } from '../../config/compile.ts'
import { Report } from '../../config/faults.ts'
import { Either, strict } from '../../config/schema/kit.ts'
import Type from '../../config/schema/type.ts'
import { Validator } from '../../config/validate.ts'
import { atOnce } from '../../plugins/time-slices.ts'

t.test('one schema of a plugin has no effect on the next one', async (t) => {
  const $id = 'https://example.com/options'
  t.equal(schemaFault({ $id, type: 'object' }), null)
  t.equal(schemaFault({ $id, type: 'string' }), null, 'another plugin, the same $id')
  t.match(schemaFault({ $id, type: 'nothing' }), /type/)
  t.match(schemaFault({ $id: 5 }), /id/)
  t.equal(schemaFault({ $id, type: 'number' }), null, 'after one with a fault')
})

/** Returns the faults of a value, by the schema of a mapping `edge` with the options of concern `sign`. */
function faultsOf(options: object, value: unknown): string[] {
  const report = new Report('gateway.yaml')
  const edge = { type: 'object', properties: { sign: options } }
  const root = compile({ type: 'object', properties: { edge } })
  atOnce(new Validator(root, { edge: [], mesh: [] }).validate({ edge: { sign: value } }, report))
  return report.faults.map(({ path, message }) => `${path}: ${message}`)
}

t.test('references in the options of a plugin are relative to their schema', async (t) => {
  const options = {
    type: 'object',
    properties: {
      keys: { type: 'object', properties: { first: { $ref: '#/definitions/key' } } },
      inner: {
        type: 'object',
        properties: { keys: { type: 'object', properties: { a: { $ref: '#/definitions/key' } } } }
      }
    },
    definitions: { key: { type: 'string', minLength: 2 } }
  }
  t.strictSame(faultsOf(options, { keys: { first: 'ab' }, inner: { keys: { a: 'ab' } } }), [])
  t.strictSame(faultsOf(options, { keys: { first: 'a' }, inner: { keys: { a: 5 } } }).sort(), [
    'edge.sign.inner.keys.a: expected a string of at least 2 characters, found 5; put it in quotes',
    'edge.sign.keys.first: expected a string of at least 2 characters, found 1'
  ])
})

t.test('each of two alternatives that share a schema is named with its own other one', async (t) => {
  const mapping = Type.Object({ a: Type.Integer() }, strict)
  const either = (off: boolean) => Either({ const: off }, Type.Literal(off), mapping)
  const options = Type.Object({ x: either(false), y: either(true) })
  t.strictSame(faultsOf(options, { x: 'no', y: 'no' }).sort(), [
    'edge.sign.x: expected false or a mapping, found a string',
    'edge.sign.y: expected true or a mapping, found a string'
  ])
})
