import t from 'tap'
import { compile, schemaFault } from '../../config/compile.ts'
import { Report } from '../../config/faults.ts'
import { pluginConcerns } from '../../config/plugin-concerns.ts'
import { Either, strict } from '../../config/schema/kit.ts'
import Type from '../../config/schema/type.ts'
import { Validator } from '../../config/validate.ts'
import { atOnce } from '../../plugins/time-slices.ts'

t.test('schemas of two plugins may have the same $id', async (t) => {
  const $id = 'https://example.com/options'
  t.equal(schemaFault({ $id, type: 'object' }), null)
  t.equal(schemaFault({ $id, type: 'string' }), null, 'another schema with the same $id')
  t.match(schemaFault({ $id, type: 'nothing' }), /type/)
  t.match(schemaFault({ $id: 5 }), /id/)
  t.equal(schemaFault({ $id, type: 'number' }), null, 'the same $id after a faulty schema')
})

/** Returns the faults of a value, by the schema of a mapping `edge` with the options of concern `sign`. */
function faultsOf(options: object, value: unknown): string[] {
  const report = new Report('gateway.yaml')
  const edge = { type: 'object', properties: { sign: options } }
  const root = compile({ type: 'object', properties: { edge } })
  atOnce(new Validator(root, { edge: [], mesh: [], sources: [] }).validate({ edge: { sign: value } }, report))
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

t.test('references in the options of a concern are resolved in the schema of the file', async (t) => {
  const $defs = { limit: { type: 'object', properties: { n: { type: 'integer' } } } }
  const n = { n: { type: 'integer' } }
  const schemas: Record<string, object> = {
    'a definition': { type: 'object', properties: { x: { $ref: '#/$defs/limit' } }, $defs },
    'as a whole': {
      $ref: '#/$defs/outer',
      $defs: { ...$defs, outer: { type: 'object', properties: { x: { $ref: '#/$defs/limit' } } } }
    },
    'an alternative': {
      anyOf: [{ $ref: '#/$defs/outer' }],
      $defs: { outer: { type: 'object', properties: { x: { type: 'object', properties: n } } } }
    },
    'to itself': { type: 'object', properties: { x: { $ref: '#' }, ...n } },
    'with an $id': {
      $id: 'https://example.com/own',
      type: 'object',
      properties: { x: { $ref: '#/$defs/limit' } },
      $defs
    }
  }
  for (const [name, options] of Object.entries(schemas)) {
    for (const more of [{}, { default: { x: { n: 1 } } }]) {
      const report = new Report('gateway.yaml')
      const concern = { name: 'sign', options, plugin: async () => () => null, ...more }
      const module = {
        concern,
        instanceSource: null,
        routeConfig: undefined,
        hasChanged: false,
        source: { path: '/sign.ts' }
      }
      const { edge } = pluginConcerns([module], report, { edge: [], mesh: [], sources: [] })
      t.strictSame(report.faults, [], name)
      t.strictSame(faultsOf(edge[0]!.options, { x: { n: 1 } }), [], name)
      t.strictSame(faultsOf(edge[0]!.options, false), [], name)
      t.match(faultsOf(edge[0]!.options, { x: { n: 'a' } }), ['edge.sign.x.n: expected an integer, found "a"'], name)
    }
  }
})

t.test('two alternatives that share a schema are named separately', async (t) => {
  const mapping = Type.Object({ a: Type.Integer() }, strict)
  const either = (off: boolean) => Either({ const: off }, Type.Literal(off), mapping)
  const options = Type.Object({ x: either(false), y: either(true) })
  t.strictSame(faultsOf(options, { x: 'no', y: 'no' }).sort(), [
    'edge.sign.x: expected false or a mapping, found a string',
    'edge.sign.y: expected true or a mapping, found a string'
  ])
})
