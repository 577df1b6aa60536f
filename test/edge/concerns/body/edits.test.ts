/** The operations of `edge.body` on JSON texts: their results, and the bytes that stay. */
import t from 'tap'
import type { BodyRule } from '../../../../plugins/edge/concerns/body/options.ts'
import { compileRule, edited } from '../../../../plugins/edge/concerns/body/rules.ts'
import type { Scope } from '../../../../plugins/edge/templates/values.ts'

const types = ['application/json']
const scope = {
  request: { user: { sub: 'u1', roles: ['a', 'b'], none: null } },
  isUncounted: null,
  response: null
} as unknown as Scope

/** Returns the result of rules, or the fault. */
function change(text: string | Buffer, ...rules: Omit<BodyRule, 'types'>[]): string {
  const steps = rules.map((rule) => compileRule({ types, ...rule }))
  try {
    return edited(Buffer.from(text), steps, scope, 1024 * 1024).toString()
  } catch (error) {
    return `fault: ${(error as Error).message}`
  }
}

const cases: readonly (readonly [name: string, before: string, rule: Omit<BodyRule, 'types'>, after: string])[] = [
  ['remove keeps the spelling of all other values', ' {"a": 1.0, "b" : [1e400, -0 , 12345678901234567890], "c":"\\u00e9\\/"}\n', { remove: ['/a'] }, ' {"b" : [1e400, -0 , 12345678901234567890], "c":"\\u00e9\\/"}\n'],
  ['remove the first and the last member', '{ "a": 1, "b":2,  "c":3 }', { remove: ['/a', '/c'] }, '{ "b":2 }'],
  ['remove all members', '{ "a": 1 }', { remove: ['/a'] }, '{}'],
  ['remove items by the indexes that they have before', '{"x":[0,1,2,3]}', { remove: ['/x/0', '/x/2'] }, '{"x":[1,3]}'],
  ['remove in all items', '[{"a":1,"b":2},{"a":3},5]', { remove: ['/*/a'] }, '[{"b":2},{},5]'],
  ['remove all items', '{"x":[1,2]}', { remove: ['/x/*'] }, '{"x":[]}'],
  ['remove a name that is written with escapes', '{"\\u0061dm\\u0069n":1,"b":2}', { remove: ['/admin'] }, '{"b":2}'],
  ['remove by a pointer with escapes', '{"a/b":1,"m~n":2,"":3}', { remove: ['/a~1b', '/m~0n', '/'] }, '{}'],
  ['remove nothing', '{"a":1}', { remove: ['/b', '/a/b/c', '/0', '/*/x'] }, '{"a":1}'],
  ['remove __proto__', '{"__proto__":{"x":1},"constructor":{"prototype":2}}', { remove: ['/__proto__', '/constructor/prototype', '/toString'] }, '{"constructor":{}}'],
  ['only', '{"id":1.50,"secret":2,"user":{"name":"x","mail":"y"}}', { only: ['/id', '/user/name'] }, '{"id":1.50,"user":{"name":"x"}}'],
  ['only drops objects of which nothing stays', '{"a":{"b":{"c":1}},"d":5}', { only: ['/a/b/x', '/d'] }, '{"d":5}'],
  ['only drops values that have no members', '{"user":"root","id":1}', { only: ['/user/name', '/id'] }, '{"id":1}'],
  ['only in items, which keep their places', '{"items":[{"id":1,"s":2},{"s":3},4,[5]],"n":3}', { only: ['/items/*/id'] }, '{"items":[{"id":1},{},[]]}'],
  ['only of a list', '[{"id":1,"s":2}]', { only: ['/id'] }, '[]'],
  ['only of a text', '"secret"', { only: ['/id'] }, 'null'],
  ['only with a pointer within another', '{"a":{"b":1,"c":2}}', { only: ['/a', '/a/b'] }, '{"a":{"b":1,"c":2}}'],
  ['rename', '{"a":1,"b":{"c":2.0}}', { rename: { '/a': '/x', '/b/c': '/y/z' } }, '{"b":{},"x":1,"y":{"z":2.0}}'],
  ['rename replaces', '{"a":1,"b":2}', { rename: { '/a': '/b' } }, '{"b":1}'],
  ['rename swaps', '{"a":1,"b":2}', { rename: { '/a': '/b', '/b': '/a' } }, '{"b":1,"a":2}'],
  ['rename in all items', '{"i":[{"s":2.0},{"t":3},4]}', { rename: { '/i/*/s': '/i/*/u/v' } }, '{"i":[{"u":{"v":2.0}},{"t":3},4]}'],
  ['rename wraps', ' [1.0] ', { rename: { '': '/items' } }, '{"items":[1.0]}'],
  ['rename unwraps', '{"data":{"x": 1.0},"b":2}', { rename: { '/data': '' } }, '{"x": 1.0}'],
  ['only and rename take an object out of the body', '{"data":{"x":{"a":1.0}},"b":2}', { only: ['/data/x/*'], rename: { '/data/x': '' } }, '{"a":1.0}'],
  ['only and rename, for a value that is no object', '{"data":{"x":5},"b":2}', { only: ['/data/x/*'], rename: { '/data/x': '' } }, '{}'],
  ['only and rename, for a missing value', '{"b":2}', { only: ['/data/x/*'], rename: { '/data/x': '' } }, '{}'],
  ['rename a missing value', '{"b":2}', { rename: { '/data': '', '/c': '/b' } }, '{"b":2}'],
  ['set replaces and adds', '{"a" : 1,"b":2}', { set: { '/a': 'x', '/c/d': [1, { e: null }], '/b': false } }, '{"a" : "x","b":false,"c":{"d":[1,{"e":null}]}}'],
  ['set replaces a parent that has no members', '{"user":"root"}', { set: { '/user/id': 7 } }, '{"user":{"id":7}}'],
  ['set replaces a list by an object', '{"user":[1]}', { set: { '/user/id': 7 } }, '{"user":{"id":7}}'],
  ['set in all items', '{"i":[{"a":1},{},5]}', { set: { '/i/*/a': 2 } }, '{"i":[{"a":2},{"a":2},{"a":2}]}'],
  ['set in items that are not there', '{}', { set: { '/i/*/a': 2 } }, '{}'],
  ['set an item, and one at the end', '[1,2]', { set: { '/0': 9, '/2': 3, '/7': 0 } }, '[9,2,3]'],
  ['set the whole body', '{"a":1}', { set: { '': { b: 2 } } }, '{"b":2}'],
  ['set within a value that was set', '{}', { set: { '/a': { b: {} }, '/a/b/c': 1 } }, '{"a":{"b":{"c":1}}}'],
  ['set values in several places, and change one', '[{},{}]', { set: { '/*/a': { b: 1 }, '/0/a/b': 2 } }, '[{"a":{"b":2}},{"a":{"b":1}}]'],
  ['set a name with quotes', '{}', { set: { '/a"\\': 1 } }, '{"a\\"\\\\":1}'],
  ['set a value of a claim with its type', '{}', { set: { '/r': '{claims/roles}', '/s': 'x-{claims/sub}' } }, '{"r":["a","b"],"s":"x-u1"}'],
  ['set a missing value removes that of the sender', '{"r":"admin","s":1}', { set: { '/r': '{claims/other}', '/s': { t: '{claims/none}' } } }, '{}'],
  ['set a missing value with a text for it', '{}', { set: { '/r': '{claims/other|guest}', '/t': '{{x}}' } }, '{"r":"guest","t":"{x}"}'],
  ['add', '{"a":null}', { add: { '/a': 1, '/b': 2, '/a/c': 3, '/d': '{claims/other}' } }, '{"a":null,"b":2}'],
  ['the order of operations', '{"a":1,"b":2,"c":3,"d":4}', { add: { '/e': 5, '/x': 6 }, set: { '/x': 9 }, rename: { '/b': '/x' }, remove: ['/c'], only: ['/b', '/c'] }, '{"x":9,"e":5}'],
  ['two equal names elsewhere', '{"a":1,"a":2,"b":{"c":1,"c":2}}', { remove: ['/x'] }, '{"a":1,"a":2,"b":{"c":1,"c":2}}'],
  ['two equal names in a rule', '{"a":1,"\\u0061":2}', { remove: ['/a'] }, 'fault: duplicate'],
  ['two equal names that are kept', '{"a":1,"a":2}', { only: ['/a'] }, 'fault: duplicate'],
  ['a byte order mark', '\ufeff{"a":1,"b":2}', { remove: ['/a'] }, '{"b":2}']
] // biome-ignore format: a table

t.test('operations', async (t) => {
  for (const [name, before, rule, after] of cases) t.equal(change(before, rule), after, name)
  t.equal(
    change('{"a":{"b":1}}', { only: ['/a'] }, { rename: { '/a': '' } }, { rename: { '': '/g' } }),
    '{"g":{"b":1}}'
  )
})

t.test('a body without a change is the same bytes', async (t) => {
  const bytes = Buffer.from(' {"a":1} ')
  t.equal(edited(bytes, [compileRule({ types, remove: ['/b'] })], scope, 1000), bytes)
})

t.test('the grammar is that of RFC 8259', async (t) => {
  const bad = ['', ' ', '{', '{"a":1,}', '[1,]', '[,1]', '01', '1.', '+1', 'nul', 'nulls', '"\t"', '"\\x"', '"\\u12g4"', '{"a" 1}', '1 2', '-', '.5', '1e', "{'a':1}", '[', '"', '{"a":1}x', '"\\', '"\\u00', '{a:1}', '\ufeff\ufeff1', '[1}', '{"a"}', '/**/1', 'NaN'] // biome-ignore format: a list
  for (const text of bad) t.equal(change(text, { remove: ['/a'] }), 'fault: malformed', JSON.stringify(text))
  for (const text of ['0', '-0.0e+1', '""', '[]', ' { } ', '"\\ud800"', '[ ]'])
    t.equal(change(text, { remove: ['/a'] }), text)
  t.equal(change(Buffer.from([0x22, 0xff, 0x22]), { remove: ['/a'] }), 'fault: malformed', 'no UTF-8')
  t.equal(change('{"a":1}'.replaceAll('', '\0').slice(0, 14), { remove: ['/a'] }), 'fault: malformed', 'UTF-16')
})

t.test('random texts: what is accepted is what JSON.parse accepts', async (t) => {
  const tokens = [
    '{',
    '}',
    '[',
    ']',
    '"',
    ':',
    ',',
    '1',
    '0',
    '-',
    '.',
    'e',
    'true',
    'null',
    ' ',
    '\\',
    'u0061',
    'a',
    '\n',
    'é',
    '"a":'
  ]
  let accepted = 0
  for (let round = 0; round < 60_000; round++) {
    let text = ''
    for (let left = 1 + Math.floor(Math.random() * 8); left > 0; left--)
      text += tokens[Math.floor(Math.random() * tokens.length)]
    let isJson = true
    try {
      JSON.parse(text)
      accepted++
    } catch {
      isJson = false
    }
    const result = change(text, { remove: ['/zz'] })
    if (isJson !== (result === text)) return t.fail(`${JSON.stringify(text)} became ${result}`)
  }
  t.ok(accepted > 100)
})

t.test('random documents: operations have the result that they have on values', async (t) => {
  const any = (depth: number): unknown => {
    const kind = Math.floor(Math.random() * (depth > 3 ? 3 : 5))
    if (kind === 0) return Math.floor(Math.random() * 100)
    if (kind === 1) return 'text "é\n'
    if (kind === 2) return null
    if (kind === 3) return Array.from({ length: Math.floor(Math.random() * 4) }, () => any(depth + 1))
    return Object.fromEntries(
      ['a', 'b', 'c\n', 'd"'].filter(() => Math.random() < 0.7).map((name) => [name, any(depth + 1)])
    )
  }
  for (let round = 0; round < 3000; round++) {
    const value = { a: any(0), b: any(0), 'c\n': any(0) }
    const space = Math.random() < 0.5 ? 2 : 0
    const text = JSON.stringify(value, null, space)
    const removed = JSON.parse(change(text, { remove: ['/a/b', '/b/*/a', '/c\n/0'] })) as typeof value
    const expected = JSON.parse(text) as Record<string, Record<string, unknown> | null>
    const drop = (holder: unknown, name: string) => {
      if (Array.isArray(holder)) {
        if (name === '0') holder.splice(0, 1)
      } else if (typeof holder === 'object' && holder !== null) Reflect.deleteProperty(holder, name)
    }
    drop(expected.a, 'b')
    const { b } = expected
    if (typeof b === 'object' && b !== null) for (const each of Object.values(b)) drop(each, 'a')
    drop(expected['c\n'], '0')
    if (JSON.stringify(removed) !== JSON.stringify(expected)) return t.same(removed, expected, text)
  }
  t.pass()
})

t.test('nesting, members and the size of the result are bounded', async (t) => {
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)
  t.equal(change(nested(100), { remove: ['/x'] }), nested(100))
  t.equal(change(nested(101), { remove: ['/x'] }), 'fault: nesting')
  t.equal(change(nested(500_000), { remove: ['/x'] }), 'fault: nesting')
  t.equal(change(`[${'0,'.repeat(260_000)}0]`, { remove: ['/*/x'] }), 'fault: members')
  t.equal(change(`[${'{},'.repeat(1000)}{}]`, { set: { '/*/x': 'y'.repeat(8000) } }), 'fault: size')
})
