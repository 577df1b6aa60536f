import t from 'tap'
import type { Piece } from '../../config/regex-cost.ts'
import { costFault } from '../../config/regex-cost.ts'

const expression = (source: string): Piece[] => [{ kind: 'expression', source }]
const any = (but = ''): Piece => ({ kind: 'any', but })
const text = (fixed: string): Piece => ({ kind: 'text', text: fixed })

t.test('expressions whose repetitions match different characters are accepted', async (t) => {
  for (const source of [
    '[a-z]*',
    '[a-z]+[0-9]+',
    '[0-9]{4}-[0-9]{2}-[0-9]{2}',
    '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}',
    '[a-z]+-[a-z]+-[a-z]+',
    '(a|b|c)*',
    '[a-z]+(jpg|png)',
    'v[0-9]+.[0-9]{1,3}',
    '[^-]+-.*',
    '(ab)*(cd)*',
    'x{2,5}'
  ]) {
    t.equal(costFault(expression(source)), null, source)
  }
  t.equal(costFault([any(), text('-'), any('-'), text('-'), any('-')]), null)
  t.equal(costFault([text('v'), any(), text('.'), any('.')]), null)
})

t.test('expressions that can match a text in many ways are refused', async (t) => {
  for (const source of [
    '[a-z]*[a-z]*!',
    '[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*!',
    '[a-z]+x*[a-m]+!',
    '.*a.*b',
    '[0-9]+0[0-9]+',
    '(a|a)*b',
    '(a|ab|b)*c',
    '[a-z]{1,100}[a-z]{1,100}!',
    '([a-z]{1,3})*!'
  ]) {
    t.match(costFault(expression(source)), /can match the same characters/, source)
  }
  t.match(
    costFault([...expression('[a-z]*'), any()]),
    /same characters/,
    'two parameters that match the same characters'
  )
  t.match(costFault([any(), text('-'), ...expression('[a-z-]*')]), /same characters/)
})

t.test('an expression that is too long to analyse is refused', async (t) => {
  t.match(costFault(expression('[a-z]'.repeat(400))), /too long/)
})
