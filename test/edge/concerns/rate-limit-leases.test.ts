import { AsyncLocalStorage } from 'node:async_hooks'
import t from 'tap'
import { Leases } from '../../../plugins/edge/concerns/rate-limit/leases.ts'

const key = 'ip:192.0.2.1'
const lease = (left: number) => ({ left, until: 1000, remaining: 0, resetAt: 1000 })

/** A request of one unit that asks `ask` for units where it finds no lease. */
function request(leases: Leases, ask: (units: number, end: (given: number) => void) => void, done: () => void) {
  const attempt = (mayWait: boolean): void => {
    if (leases.take(key, 1, 0) !== null) {
      done()
      return
    }
    if (mayWait && leases.wait(key, attempt)) return
    const wanted = leases.wanted(key, 1)
    ask(wanted, (given) => {
      if (given > 1) leases.add(key, lease(given - 1), 0)
      done()
      if (wanted > 1) leases.answered(key)
    })
  }
  attempt(true)
}

t.test('requests that wait are served by one further question, and keep their order and async context', async (t) => {
  const leases = new Leases(5)
  const context = new AsyncLocalStorage<number>()
  const asked: { units: number; end: (given: number) => void }[] = []
  const order: (number | undefined)[] = []
  for (let i = 0; i < 100; i++) {
    context.run(i, () =>
      request(
        leases,
        (units, end) => void asked.push({ units, end }),
        () => void order.push(context.getStore())
      )
    )
  }
  t.equal(asked.length, 1)
  context.run(-1, () => asked[0]!.end(5))
  t.same(order, [-1, 1, 2, 3, 4], 'the first one is called by the answer')
  t.same(
    asked.map(({ units }) => units),
    [5, 95]
  )
  context.run(-1, () => asked[1]!.end(95))
  t.same(
    order.slice(6),
    Array.from({ length: 94 }, (_, i) => i + 6)
  )
  t.equal(leases.take(key, 1, 0), null, 'nothing is left')
})

t.test('after an answer without a lease, no request waits again', async (t) => {
  const leases = new Leases(5)
  const asked: ((given: number) => void)[] = []
  let done = 0
  for (let i = 0; i < 100; i++)
    request(
      leases,
      (_units, end) => void asked.push(end),
      () => void done++
    )
  asked.shift()!(1)
  t.equal(asked.length, 99)
  for (const end of asked) end(1)
  t.equal(done, 100)
})

t.test(
  'without Redis, many requests that wait end without deep recursion, and more than 10,000 do not wait',
  async (t) => {
    const leases = new Leases(5)
    const asked: ((given: number) => void)[] = []
    let isDown = false
    let done = 0
    for (let i = 0; i < 10_003; i++) {
      request(
        leases,
        (_units, end) => {
          if (isDown) end(0)
          else asked.push(end)
        },
        () => void done++
      )
    }
    t.equal(asked.length, 3, 'one for a lease, and two for themselves')
    isDown = true
    asked[0]!(0)
    t.equal(done, 10_001)
    t.equal(
      leases.wait(key, () => {}),
      false,
      'nothing is being asked for'
    )
  }
)

t.test('units for requests that another limit has refused do not become more than a lease', async (t) => {
  const leases = new Leases(5)
  t.equal(leases.wanted(key, 1), 5)
  for (let i = 0; i < 20; i++) leases.wait(key, () => {})
  leases.add(key, lease(20), 0)
  leases.answered(key)
  for (let i = 0; i < 3; i++) leases.giveBack(key, 1)
  let left = 0
  while (leases.take(key, 1, 0) !== null) left++
  t.equal(left, 5)
})
