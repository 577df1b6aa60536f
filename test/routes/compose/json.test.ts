// JSON with numbers that a double would change.
import t from 'tap'
import { parseJson } from '../../../routes/compose/json.ts'

const fault = (why: string) => new Error(why)
const again = (text: string) => JSON.stringify(parseJson(text, fault))

t.test('numbers keep their digits, wherever they are', (t) => {
  const kept = [
    '12345678901234567', '-12345678901234567', '0.12345678901234567891', '1234567890.12345678', '-1234567890123E+400',
    '[1,9007199254740993,"9007199254740993",2]', '{"a":{"__proto__":9007199254740993}}', '"12345678901234567"',
    '{"12345678901234567":12345678901234567}', '["\\\\",12345678901234567,"\\"12345678901234567"]', '[[12345678901234567],{}]'
  ] // biome-ignore format: a list
  for (const text of kept) t.equal(again(text), text)
  t.equal(
    again('\ufeff[ 12345678901234567 , 1.50, 1e2, 1234567890123456 ]'),
    '[12345678901234567,1.5,100,1234567890123456]'
  )
  t.equal(again('{"a":12345678901234567,"a":1,"b":2,"b":12345678901234569}'), '{"a":1,"b":12345678901234569}')
  t.end()
})

t.test('malformed texts stay malformed', (t) => {
  const malformed = [
    '{12345678901234567:1}', '{12345678901234567 :1}', '[012345678901234567]', '[12345678901234567.]', '[1.2345678901234567.1]',
    '[+12345678901234567]', '[--12345678901234567]', '[12345678901234567-]', '[12345678901234567e]', '[nul12345678901234567]',
    '[1 12345678901234567]', '["a"12345678901234567]', '12345678901234567"', '[12345678901234567', '-', '[1234567890123e400,]', '.12345678901234567'
  ] // biome-ignore format: a list
  for (const text of malformed) t.throws(() => parseJson(text, fault), { message: 'malformed' }, text)
  t.throws(() => parseJson(`${'['.repeat(129)}12345678901234567`, fault), { message: 'more than 128 levels' })
  t.end()
})

t.test('one long number does not make the other values slower', (t) => {
  // Counts what a reviver would be called for, in place of a time.
  const { parse } = JSON
  const revivers: unknown[] = []
  JSON.parse = ((text: string, reviver?: (key: string, value: unknown) => unknown) => {
    revivers.push(reviver)
    return parse(text, reviver)
  }) as typeof parse
  t.teardown(() => {
    JSON.parse = parse
  })
  const text = `[${'1,'.repeat(1000)}12345678901234567]`
  t.equal(again(text), text)
  t.strictSame(revivers, [undefined])
  t.end()
})
