import t from 'tap'
import { headerPairs, withHeaders } from '../../plugins/with-headers.ts'

const shapes = {
  none: undefined,
  null: null,
  'a flat list': ['A', '1', 'b', '2'],
  'an object': { A: '1', b: '2' },
  'a map': new Map([['A', '1'], ['b', '2']])
} // biome-ignore format: a table

t.test('headers are set in whatever shape there are some', async (t) => {
  for (const [shape, headers] of Object.entries(shapes)) {
    const options = Object.freeze({ path: '/', headers: headers as never })
    const changed = withHeaders(options, { a: '3', 'x-new': '4' })
    const kept = headers === undefined || headers === null ? [] : ['b', '2']
    t.same(changed, { path: '/', headers: [...kept, 'a', '3', 'x-new', '4'] }, shape)
  }
})

t.test('several values of a name stay several lines', async (t) => {
  t.same(headerPairs({ a: ['1', '2'], b: '3', c: undefined }), ['a', '1', 'a', '2', 'b', '3'])
})
