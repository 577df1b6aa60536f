/** Chunks of bodies that are read as a whole: their number depends on the bytes, not on how a sender divides them. */
import t from 'tap'
import { ChunkList } from '../../plugins/chunk-list.ts'

/** Returns a list of chunks of these sizes, and all their bytes. */
function listOf(sizes: readonly number[]): { list: ChunkList; bytes: Buffer } {
  const list = new ChunkList()
  const chunks = sizes.map((size, i) => Buffer.alloc(size, i % 251))
  for (const chunk of chunks) list.add(chunk)
  return { list, bytes: Buffer.concat(chunks) }
}

t.test('single bytes are joined', async (t) => {
  const { list, bytes } = listOf(Array.from({ length: 1_000_000 }, () => 1))
  t.equal(list.size, 1_000_000)
  t.ok(list.join().equals(bytes))
  t.ok(list.chunks.length < 1_000_000 / (64 * 1024) + 128, `${list.chunks.length} chunks`)
})

t.test('large chunks are kept as they are', async (t) => {
  const { list, bytes } = listOf(Array.from({ length: 300 }, () => 16 * 1024))
  t.equal(list.chunks.length, 300)
  t.ok(list.join().equals(bytes))
})

t.test('chunks of all sizes keep their order', async (t) => {
  const sizes = Array.from({ length: 5000 }, (_, i) => (i * 7919) % (i % 100 === 0 ? 70_000 : 900))
  const { list, bytes } = listOf(sizes)
  t.equal(list.size, bytes.length)
  t.ok(list.join().equals(bytes))
  list.clear()
  t.equal(list.size, 0)
  list.add(Buffer.from('again'))
  t.equal(list.join().toString(), 'again')
})
