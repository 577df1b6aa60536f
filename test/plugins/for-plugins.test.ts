import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import t from 'tap'
import type { UserMeshConcern } from '../../plugins/for-plugins.ts'
import { headerPairs, mapLines, withHeaders } from '../../plugins/for-plugins.ts'
import { startMesh } from '../helpers/mesh/start-mesh.ts'

const shapes = {
  none: undefined,
  null: null,
  'a flat list': ['A', '1', 'b', '2'],
  'an object': { A: '1', b: '2' },
  'a map': new Map([['A', '1'], ['b', '2']])
} // biome-ignore format: a table

t.test('withHeaders sets headers in every shape of headers', async (t) => {
  for (const [shape, headers] of Object.entries(shapes)) {
    const options = Object.freeze({ path: '/', headers: headers as never })
    const changed = withHeaders(options, { a: '3', 'x-new': '4' })
    const kept = headers === undefined || headers === null ? [] : ['b', '2']
    t.same(changed, { path: '/', headers: [...kept, 'a', '3', 'x-new', '4'] }, shape)
  }
})

t.test('headerPairs keeps several values of a name as several lines', async (t) => {
  t.same(headerPairs({ a: ['1', '2'], b: '3', c: undefined }), ['a', '1', 'a', '2', 'b', '3'])
})

t.test('arrays become several headers and undefined none, in every shape', async (t) => {
  const headers = { 'X-A': ['1', '2'], 'X-N': undefined, 'x-length': 7 }
  const entries = Object.entries(headers)
  const all = { 'a flat list': entries.flat(1), 'an object': headers, 'a map': new Map<string, unknown>(entries) }
  for (const [shape, headers] of Object.entries(all)) {
    t.same(headerPairs(headers as never), ['X-A', '1', 'X-A', '2', 'x-length', '7'], shape)
    t.same(withHeaders({ headers: headers as never }, { 'x-length': null }).headers, ['X-A', '1', 'X-A', '2'], shape)
  }
})

t.test('null removes a header', async (t) => {
  t.same(withHeaders({ headers: { Range: 'bytes=0-', a: '1' } }, { range: null, b: '2' }).headers, ['a', '1', 'b', '2'])
})

const linesOf = async (chunks: (string | Buffer)[], change: (line: string) => string) => {
  const source = Readable.from(chunks.map((chunk) => Buffer.from(chunk)))
  return text(mapLines(source, change) as Readable)
}

t.test('mapLines maps lines wherever chunks end, even within a character', async (t) => {
  const whole = Buffer.from('é1\n\n  \né2')
  for (let at = 0; at <= whole.length; at++) {
    const chunks = [whole.subarray(0, at), whole.subarray(at)]
    t.equal(await linesOf(chunks, (line) => `<${line}>`), '<é1>\n\n  \n<é2>', String(at))
  }
  t.equal(await linesOf(['a\n'], (line) => line + line), 'aa\n')
  t.equal(mapLines('no stream', String), 'no stream')
})

t.test('mapLines fails if the function throws, and at a line that is too long', async (t) => {
  const fails = () => {
    throw new Error('no luck')
  }
  await t.rejects(linesOf(['a\n'], fails), { message: 'no luck' })
  await t.rejects(linesOf(['a'], fails), { message: 'no luck' })
  await t.rejects(linesOf(['x'.repeat(2_000_000)], String), { message: 'a line is too long' })
})

t.test('destroying the mapped lines destroys their source', async (t) => {
  const source = new Readable({ read() {} })
  const lines = mapLines(source, String) as Readable
  lines.on('error', () => {}).destroy()
  await new Promise((resolve) => source.once('close', resolve))
  t.ok(source.destroyed)
})

/** A concern of a user's as TypeScript checks it. */
const posts = {
  name: 'posts',
  options: { type: 'boolean', description: 'Sends a POST again.' },
  order: { after: 'replay' },
  layer: () => (dispatch) => (opts, handler) => dispatch(withHeaders(opts, { 'x-posts': '1' }), handler),
  repeats: () => ({ maxBody: 1024, mayRepeat: ({ method }) => method === 'POST' })
} satisfies UserMeshConcern

t.test('the mesh takes a concern of the type UserMeshConcern', async (t) => {
  const mesh = startMesh({ services: {} }).add(posts, posts.order)
  t.teardown(() => mesh.destroy())
  t.throws(() => mesh.add({ ...posts, name: 'early' }, { before: 'replay' }), /early sends requests again/)
})
