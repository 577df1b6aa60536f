/** The queue of waiting attempts. */
import t from 'tap'
import type { Call } from '../../../plugins/mesh/core/call.ts'
import type { DispatchOptions } from '../../../plugins/mesh/core/types.ts'
import { WaitQueue } from '../../../plugins/mesh/core/waiting.ts'

function queueOf() {
  const at = { now: 0, left: 0 }
  const queue = new WaitQueue(
    () => at.now,
    () => at.left++
  )
  const aborted: string[] = []
  const join = (path: string) => {
    const ends: (() => void)[] = []
    const call = { waitedMs: 0, whenOver: (end: () => void) => void ends.push(end) } as unknown as Call
    queue.join(() => true, { path, method: 'GET', call } as DispatchOptions, {
      onResponseError: () => aborted.push(path)
    })
    return {
      call,
      over() {
        for (const end of ends) end()
      }
    }
  }
  const next = () => queue.next()?.opts.path ?? null
  return { queue, at, aborted, join, next }
}

t.test('waiting attempts are served in order, and the time in the queue is recorded', async (t) => {
  const { queue, at, join, next } = queueOf()
  t.equal(next(), null)
  const { call } = join('a')
  at.now = 30
  join('b')
  t.equal(queue.size, 2)
  t.equal(next(), 'a')
  t.equal(call.waitedMs, 30)
  join('c')
  t.strictSame([next(), next(), next()], ['b', 'c', null])
  t.equal(queue.size, 0)
})

t.test('an abort removes an attempt from any position in the queue, and is reported once', async (t) => {
  for (const gone of ['a', 'b', 'c', 'd']) {
    const { queue, at, join, next, aborted } = queueOf()
    const all = new Map(['a', 'b', 'c', 'd'].map((name) => [name, join(name)]))
    all.get(gone)!.over()
    all.get(gone)!.over()
    t.strictSame([queue.size, at.left, aborted], [3, 1, [gone]])
    const rest = ['a', 'b', 'c', 'd'].filter((name) => name !== gone)
    t.strictSame([next(), next(), next(), next()], [...rest, null])
    for (const { over } of all.values()) over()
    t.strictSame([queue.size, at.left, aborted], [0, 1, [gone]], 'aborting dequeued attempts changes nothing')
  }
})

t.test('the queue is usable after all attempts were aborted', async (t) => {
  const { queue, join, next } = queueOf()
  const both = [join('a'), join('b')]
  for (const { over } of both) over()
  t.equal(queue.size, 0)
  join('c')
  t.strictSame([next(), next()], ['c', null])
})
