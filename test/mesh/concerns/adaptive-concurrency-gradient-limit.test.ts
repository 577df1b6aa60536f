/** The adaptive limit, which follows latency, window by window. */
import t from 'tap'
import type { GradientOptions } from '../../../plugins/mesh/concerns/adaptive-concurrency/gradient-limit.ts'
import { GradientLimit } from '../../../plugins/mesh/concerns/adaptive-concurrency/gradient-limit.ts'

const defaults: GradientOptions = { initialLimit: 20, minLimit: 5, maxLimit: 1000, tolerance: 1.5, window: 1000 }

function limitOf(options: Partial<GradientOptions> = {}) {
  const gradient = new GradientLimit({ ...defaults, ...options })
  let now = 0
  /** A window of 20 responses; the last one ends it. */
  const window = (latencyMs: number, inFlight = gradient.limit, responses = 20) => {
    for (let i = 0; i < responses; i++) gradient.sample(now + (i === responses - 1 ? 1000 : 0), latencyMs, inFlight)
    now += 1000
    return gradient.limit
  }
  return { gradient, window }
}

t.test('even latency: the limit grows by a fifth of its square root', async (t) => {
  const { gradient, window } = limitOf()
  t.equal(gradient.limit, 20)
  t.equal(window(10), Math.floor(20 + 0.2 * Math.sqrt(20)))
  t.strictSame([gradient.shortMs, gradient.longMs], [10, 10])
  for (let i = 0; i < 500; i++) window(10)
  t.equal(gradient.limit, 1000, 'the limit grows up to the maximum')
})

t.test('within the tolerance the limit grows, beyond it shrinks by the ratio', async (t) => {
  const { gradient, window } = limitOf({ initialLimit: 100 })
  for (let i = 0; i < 100; i++) window(10, 1)
  t.equal(gradient.limit, 100, 'while less than half of the limit is used, latency is ignored')
  const long = gradient.longMs!
  t.equal(long, 10)
  t.equal(window(14), 102, '0.8 × 100 + 0.2 × (100 + 10)')
  const before = 102
  const limit = window(20)
  const mean = gradient.longMs!
  const gradientOf = (1.5 * mean) / 20
  t.ok(gradientOf < 0.8)
  t.ok(Math.abs(limit - (0.8 * before + 0.2 * (before * gradientOf + Math.sqrt(before)))) <= 1, `${limit}`)
})

t.test('at any latency, it shrinks by at most a tenth per window, and not below the minimum', async (t) => {
  const { gradient, window } = limitOf({ initialLimit: 100 })
  for (let i = 0; i < 100; i++) window(1, 1)
  t.equal(window(100_000), 92, '0.8 × 100 + 0.2 × (50 + 10)')
  for (let i = 0; i < 30; i++) window(1000 * 2 ** i)
  t.ok(gradient.limit >= 5 && gradient.limit < 15, `${gradient.limit}`)
})

t.test('the long-term mean: arithmetic at first, slow afterwards, fast down from far above', async (t) => {
  const { gradient, window } = limitOf()
  window(10)
  window(30)
  t.equal(gradient.longMs, 20)
  for (let i = 0; i < 600; i++) window(10)
  const settled = gradient.longMs!
  t.ok(settled > 10 && settled < 11.5, `${settled}`)
  window(settled * 10)
  t.ok(gradient.longMs! < settled * 1.05, 'one bad window changes the mean little')
  const slow = limitOf()
  for (let i = 0; i < 600; i++) slow.window(1000)
  slow.window(100)
  t.ok(slow.gradient.longMs! < 1000 * 0.96, 'the mean falls by 5 % a window while it is twice the latency')
})

t.test('a window with few responses is extended', async (t) => {
  const { gradient, window } = limitOf()
  window(10, 20, 9)
  t.equal(gradient.shortMs, null)
  window(10, 20, 1)
  t.equal(gradient.shortMs, 10)
})

t.test('a latency of zero is no overload', async (t) => {
  const { window } = limitOf()
  for (let i = 0; i < 10; i++) window(0)
  t.ok(window(0) > 20)
})

t.test('a service that serves ten at a time: the limit converges to it', async (t) => {
  // Little's law: 10 workers of 10 ms each; further calls wait.
  const { gradient, window } = limitOf({ initialLimit: 200 })
  for (let i = 0; i < 20; i++) window(10, 1)
  for (let i = 0; i < 60; i++) window(10 * Math.max(1, gradient.limit / 10))
  t.ok(gradient.limit >= 10 && gradient.limit <= 40, `${gradient.limit}`)
})
