import t from 'tap'
import { RetryBudget } from '../../../plugins/mesh/core/repeating/retry-budget.ts'

/** Returns the number of retries that are allowed at once. */
function drain(budget: RetryBudget, share: number, nowMs: number): number {
  let taken = 0
  while (budget.take(share, nowMs)) taken++
  return taken
}

t.test('a quiet service may retry ten times a second', async (t) => {
  const budget = new RetryBudget()
  t.equal(drain(budget, 0.2, 0), 100)
  t.equal(drain(budget, 0.2, 9_999), 0)
  t.equal(drain(budget, 0.2, 10_000), 0, 'spent retries count until the window ends')
  t.equal(drain(budget, 0.2, 12_000), 20, 'spent retries leave the window')
  t.equal(drain(budget, 0.2, 15_000), 30)
  t.equal(drain(budget, 0.2, 60_000), 100)
})

t.test('a service may also retry a share of its calls', async (t) => {
  const budget = new RetryBudget()
  for (let i = 0; i < 1000; i++) budget.call(i)
  t.equal(drain(budget, 0.2, 1000), 300)
  for (let i = 0; i < 50; i++) budget.call(1001)
  t.equal(drain(budget, 0.2, 1002), 10)
  t.equal(drain(budget, 0.5, 1003), 315, 'the budget depends on the share of the caller')
})

t.test('calls before the window do not count', async (t) => {
  const budget = new RetryBudget()
  for (let i = 0; i < 1000; i++) budget.call(0)
  t.equal(drain(budget, 0.2, 15_000), 200, 'calls leave the window gradually')
  const other = new RetryBudget()
  for (let i = 0; i < 1000; i++) other.call(0)
  t.equal(drain(other, 0.2, 20_000), 100)
})
