/** The line in which attempts wait for their turn. */
import t from 'tap'
import type { Call } from '../../../plugins/mesh/core/call.ts'
import type { DispatchOptions } from '../../../plugins/mesh/core/types.ts'
import { WaitingLine } from '../../../plugins/mesh/core/waiting.ts'

function lineOf() {
  const at = { now: 0, left: 0 }
  const line = new WaitingLine(
    () => at.now,
    () => at.left++
  )
  const told: string[] = []
  const join = (path: string) => {
    const ends: (() => void)[] = []
    const call = { waitedMs: 0, whenOver: (end: () => void) => void ends.push(end) } as unknown as Call
    line.join(() => true, { path, method: 'GET', call } as DispatchOptions, { onResponseError: () => told.push(path) })
    return {
      call,
      over() {
        for (const end of ends) end()
      }
    }
  }
  const next = () => line.next()?.opts.path ?? null
  return { line, at, told, join, next }
}

t.test('first come, first served; the time in the line is noted', async (t) => {
  const { line, at, join, next } = lineOf()
  t.equal(next(), null)
  const { call } = join('a')
  at.now = 30
  join('b')
  t.equal(line.size, 2)
  t.equal(next(), 'a')
  t.equal(call.waitedMs, 30)
  join('c')
  t.strictSame([next(), next(), next()], ['b', 'c', null])
  t.equal(line.size, 0)
})

t.test('who leaves does so from anywhere in the line, once, and those above are told', async (t) => {
  for (const gone of ['a', 'b', 'c', 'd']) {
    const { line, at, join, next, told } = lineOf()
    const all = new Map(['a', 'b', 'c', 'd'].map((name) => [name, join(name)]))
    all.get(gone)!.over()
    all.get(gone)!.over()
    t.strictSame([line.size, at.left, told], [3, 1, [gone]])
    const rest = ['a', 'b', 'c', 'd'].filter((name) => name !== gone)
    t.strictSame([next(), next(), next(), next()], [...rest, null])
    for (const { over } of all.values()) over()
    t.strictSame([line.size, at.left, told], [0, 1, [gone]], 'who had their turn leave nothing')
  }
})

t.test('the line is usable after all have left', async (t) => {
  const { line, join, next } = lineOf()
  const both = [join('a'), join('b')]
  for (const { over } of both) over()
  t.equal(line.size, 0)
  join('c')
  t.strictSame([next(), next()], ['c', null])
})
