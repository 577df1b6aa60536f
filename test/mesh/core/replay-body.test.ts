/** Ownership of the chunks of a replayable body. */
import t from 'tap'
import { ReplayBody, ReplayPool } from '../../../plugins/mesh/core/repeating/replay-body.ts'

/** A body that transfers its chunks. */
function body(most = 1000) {
  const source = {
    transfers: true,
    async *[Symbol.asyncIterator]() {
      for (let n = 0; n < 10; n++) yield Buffer.from(`chunk ${n}`)
    }
  }
  return new ReplayBody(source, most, new ReplayPool())
}

t.test('chunks may be freed once no attempt can send them again', async (t) => {
  const kept = body()
  const reader = kept[Symbol.asyncIterator]()
  await reader.next()
  t.equal(kept.transfers, false)
  kept.seal()
  t.equal(kept.transfers, true)
  const large = body(10)
  const only = large[Symbol.asyncIterator]()
  await only.next()
  t.equal(large.transfers, false)
  await only.next()
  t.equal(large.transfers, true, 'chunks beyond the limit can be freed')
})

t.test('chunks are not freed while an earlier attempt may still be sending them', async (t) => {
  const kept = body()
  await kept[Symbol.asyncIterator]().next()
  await kept[Symbol.asyncIterator]().next()
  kept.seal()
  t.equal(kept.transfers, false)
})
