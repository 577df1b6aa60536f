/** Events older than the window do not count, also after pauses. */
import t from 'tap'
import { RollingWindow } from '../../../plugins/mesh/concerns/circuit-breaker/rolling-window.ts'

const counts = ({ total, failed, slow }: RollingWindow) => [total, failed, slow]

t.test('counts expire a bucket at a time', async (t) => {
  const window = new RollingWindow(1000)
  for (let at = 0; at < 1000; at += 100) window.add(at, true, at >= 500)
  t.strictSame(counts(window), [10, 10, 5])
  window.add(1000, false, false)
  t.strictSame(counts(window), [10, 9, 5], 'the bucket of 0 to 99 was reused')
  window.advance(1350)
  t.strictSame(counts(window), [7, 6, 5])
  window.advance(1899)
  t.strictSame(counts(window), [2, 1, 1])
})

t.test('a pause of one window or more empties the window', async (t) => {
  for (const pause of [1000, 1001, 12_345, 1e9]) {
    const window = new RollingWindow(1000)
    window.add(950, true, true)
    window.advance(950 + pause)
    t.strictSame(counts(window), [0, 0, 0], `${pause} ms`)
    window.add(950 + pause, true, false)
    t.strictSame(counts(window), [1, 1, 0])
  }
})

t.test('the window works on a clock that starts late', async (t) => {
  const window = new RollingWindow(1000)
  window.add(86_400_000, true, false)
  window.add(86_400_999, true, false)
  t.strictSame(counts(window), [2, 2, 0])
})

t.test('the counts equal those of a list of all events', async (t) => {
  let seed = 7
  const random = () => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
    return seed / 2_147_483_648
  }
  const window = new RollingWindow(1000)
  const added: [bucket: number, failed: boolean, slow: boolean][] = []
  let now = 0
  for (let i = 0; i < 2000; i++) {
    now += Math.floor(random() * (random() < 0.02 ? 3000 : 60))
    const [failed, slow] = [random() < 0.5, random() < 0.3]
    window.add(now, failed, slow)
    const newest = Math.floor(now / 100)
    added.push([newest, failed, slow])
    const live = added.filter(([bucket]) => bucket > newest - 10)
    const expected = [live.length, live.filter(([, f]) => f).length, live.filter(([, , s]) => s).length]
    if (counts(window).join() !== expected.join()) t.strictSame(counts(window), expected, `counts at ${now} ms`)
  }
  window.clear()
  t.strictSame(counts(window), [0, 0, 0])
})
