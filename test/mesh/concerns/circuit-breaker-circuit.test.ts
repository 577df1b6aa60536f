/** The breaker's states, with a clock and random numbers of the test. */
import t from 'tap'
import type { CircuitOptions } from '../../../plugins/mesh/concerns/circuit-breaker/circuit.ts'
import { Circuit } from '../../../plugins/mesh/concerns/circuit-breaker/circuit.ts'

const defaults: CircuitOptions = {
  errorRatio: 0.5,
  slowRatio: 1,
  consecutiveSuccesses: 1,
  minRequests: 10,
  window: 10_000,
  openFor: 5_000,
  rampFor: 10_000
}

function circuitOf(options: Partial<CircuitOptions> = {}) {
  const at = { now: 1_000_000, dice: 0.5 }
  const changes: string[] = []
  const circuit = new Circuit(
    { ...defaults, ...options },
    () => at.now,
    () => at.dice,
    (to, reason) => changes.push(`${to}: ${reason}`)
  )
  const pass = (failed = false, slow = false) => {
    const ticket = circuit.admit()
    if (ticket >= 0) circuit.settle(ticket, failed, slow)
    return ticket >= 0
  }
  const times = (count: number, failed = false, slow = false) => {
    for (let i = 0; i < count; i++) pass(failed, slow)
  }
  /** Opens the circuit, and waits until it is half-open. */
  const trip = () => {
    times(options.minRequests ?? defaults.minRequests, true)
    at.now += options.openFor ?? defaults.openFor
  }
  return { circuit, at, changes, pass, times, trip }
}

t.test('closed: opens at the ratio, not before, and only with enough responses', async (t) => {
  const few = circuitOf()
  few.times(9, true)
  t.equal(few.circuit.state, 'closed', 'nine failures are below the minimum volume')
  few.times(1)
  t.equal(few.circuit.state, 'open', 'the tenth response reaches the minimum volume, even a successful one')
  t.strictSame(few.changes, ['open: 9 of 10 calls failed in the last 10 s (errorRatio 50%)'])

  const half = circuitOf()
  half.times(51)
  half.times(50, true)
  t.equal(half.circuit.state, 'closed', '50 failures of 101 calls')
  half.times(1, true)
  t.equal(half.circuit.state, 'open', '51 failures of 102 calls')

  const tenth = circuitOf({ errorRatio: 0.1, minRequests: 30 })
  tenth.times(27)
  tenth.times(3, true)
  t.equal(tenth.circuit.state, 'open', 'the ratio is reached exactly')
})

t.test('closed: responses older than the window do not count', async (t) => {
  const { circuit, at, times } = circuitOf()
  times(9, true)
  at.now += 10_000
  times(9, true)
  t.equal(circuit.state, 'closed')
  at.now += 5_000
  times(1, true)
  t.equal(circuit.state, 'open')
})

t.test('slow responses open the circuit, too, successful or not', async (t) => {
  const all = circuitOf()
  all.times(9, false, true)
  all.times(1)
  t.equal(all.circuit.state, 'closed', 'a ratio of 90 % is below 100 %')
  const slow = circuitOf({ slowRatio: 0.8 })
  slow.times(2)
  slow.times(8, false, true)
  t.strictSame(slow.changes, ['open: 8 of 10 calls were slow in the last 10 s (slowRatio 80%)'])
})

t.test('a ratio that is off never opens the circuit', async (t) => {
  const onlySlow = circuitOf({ errorRatio: false })
  onlySlow.times(50, true)
  t.equal(onlySlow.circuit.state, 'closed')
  onlySlow.at.now += 20_000
  onlySlow.times(10, true, true)
  t.equal(onlySlow.circuit.state, 'open')
  const onlyErrors = circuitOf({ slowRatio: false })
  onlyErrors.times(50, false, true)
  t.equal(onlyErrors.circuit.state, 'closed')
})

t.test('open: refuses with the remaining time, and becomes half-open by the clock alone', async (t) => {
  const { circuit, at, pass, trip, changes } = circuitOf()
  trip()
  at.now -= 1
  t.notOk(pass())
  t.equal(circuit.retryInMs, 1)
  t.equal(circuit.state, 'open')
  at.now += 1
  t.equal(circuit.state, 'half-open', 'the clock alone makes the circuit half-open')
  t.equal(circuit.retryInMs, 0)
  t.strictSame(changes.slice(1), ['half-open: it was open for long enough'])
})

t.test('half-open: one probe at a time until one succeeds', async (t) => {
  const { circuit, at, pass, trip } = circuitOf()
  trip()
  at.dice = 0
  const probe = circuit.admit()
  t.ok(probe >= 0)
  at.now += 4_999
  t.notOk(pass(), 'while the probe is in flight, at any random number')
  circuit.settle(probe, false, false)
  t.equal(circuit.status().admitted, 0, 'the ramp begins with the successful response')
  at.now += 2_500
  t.equal(circuit.status().admitted, 0.25)
})

t.test('half-open: a failed probe opens the circuit for the same time again', async (t) => {
  for (const slow of [false, true]) {
    const { circuit, at, pass, trip, changes } = circuitOf()
    trip()
    t.ok(pass(!slow, slow))
    t.equal(circuit.state, 'open')
    t.match(
      changes.at(-1),
      slow
        ? /^open: 1 of 1 calls were slow since it was half-open/
        : /^open: 1 of 1 calls failed since it was half-open/
    )
    t.equal(circuit.retryInMs, 5_000)
    at.now += 4_999
    t.notOk(pass())
    at.now += 1
    t.ok(pass())
  }
})

t.test('half-open: a probe without a result, or without a response in time, admits the next', async (t) => {
  const { circuit, at, pass, trip } = circuitOf()
  trip()
  circuit.forget(circuit.admit())
  const lost = circuit.admit()
  t.ok(lost >= 0, 'another probe passes once its caller has left')
  at.now += 4_999
  t.notOk(pass())
  at.now += 1
  t.ok(pass(), 'another probe passes after one without a response')
  t.equal(circuit.state, 'half-open')
})

t.test('half-open: the share of calls that pass grows linearly', async (t) => {
  const { circuit, at, trip, pass, changes } = circuitOf()
  trip()
  pass()
  const underWay = circuit.admit()
  t.ok(underWay >= 0, 'at least one call passes')
  for (const [elapsed, dice, passes] of [
    [100, 0.01, false],
    [100, 0.0099, true],
    [5_000, 0.5, false],
    [5_000, 0.4999, true],
    [9_900, 0.99, false],
    [9_900, 0.98, true]
  ] as const) {
    const { circuit, at, trip, pass } = circuitOf()
    trip()
    pass()
    const other = circuit.admit()
    at.now += elapsed
    at.dice = dice
    // The first probe has been in flight for too long to block others: another probe replaces it.
    if (elapsed >= 5_000) t.ok(circuit.admit() >= 0)
    t.equal(circuit.admit() >= 0, passes, `${dice} after ${elapsed} ms`)
    circuit.settle(other, false, false)
  }
  at.now += 10_000
  at.dice = 0.9999
  t.equal(circuit.state, 'closed')
  t.equal(changes.at(-1), 'closed: all calls succeeded while their share grew')
  t.ok(pass())
})

t.test('the ramp, with uniform random numbers: half of the calls pass', async (t) => {
  const { circuit, at, trip, pass } = circuitOf({ rampFor: 20_000 })
  trip()
  pass()
  const held: number[] = [circuit.admit()]
  let passed = 0
  for (let i = 0; i < 20_000; i++) {
    at.dice = (i * 0.618_033_988_75) % 1
    const ticket = circuit.admit()
    if (ticket >= 0) held.push(ticket)
    if (ticket >= 0) passed++
    at.now++
  }
  t.ok(Math.abs(passed - 10_000) < 50, `${passed} of 20,000`)
  for (const ticket of held) circuit.settle(ticket, false, false)
  t.equal(circuit.state, 'closed')
})

t.test('the ramp: failures at the ratio open the circuit again, a single one does not', async (t) => {
  const { circuit, trip, pass, changes } = circuitOf()
  trip()
  pass()
  pass()
  pass(true)
  t.equal(circuit.state, 'half-open', '1 failure of 3 calls')
  pass(true)
  t.equal(circuit.state, 'open', '2 failures of 4 calls')
  t.equal(changes.at(-1), 'open: 2 of 4 calls failed since it was half-open (errorRatio 50%)')

  const strict = circuitOf({ errorRatio: 0.1, minRequests: 20 })
  strict.trip()
  strict.pass()
  strict.pass(true)
  t.equal(strict.circuit.state, 'half-open', 'two responses are too few for a ratio of a tenth')
  strict.times(7)
  strict.pass(true)
  t.equal(strict.circuit.state, 'open', 'ten responses are enough')
})

t.test('after closing, the window is empty', async (t) => {
  const { circuit, at, trip, pass, times } = circuitOf({ window: 60_000 })
  trip()
  pass()
  at.now += 10_000
  times(9, true)
  t.equal(circuit.state, 'closed')
  t.equal(circuit.status().requests, 9)
})

t.test('responses to calls from before the opening do not count', async (t) => {
  const { circuit, at, times, pass } = circuitOf()
  const late = [circuit.admit(), circuit.admit(), circuit.admit()]
  times(10, true)
  t.equal(circuit.state, 'open')
  circuit.settle(late[0]!, false, false)
  at.now += 5_000
  const probe = circuit.admit()
  circuit.settle(late[1]!, true, false)
  circuit.forget(late[2]!)
  t.equal(circuit.state, 'half-open', 'a failure of an old call does not count as the probe')
  t.notOk(pass(), 'an old call does not admit another probe')
  circuit.settle(probe, false, false)
  t.equal(circuit.status().requests, 1)
})

t.test('status', async (t) => {
  const { circuit, at, times, trip } = circuitOf({ minRequests: 100 })
  t.strictSame(circuit.status(), {
    state: 'closed', requests: 0, errorRatio: 0, slowRatio: 0, failuresInRow: 0, admitted: 1, inFlight: 0, retryInMs: 0
  }) // biome-ignore format: a table
  times(6)
  times(2, true)
  times(2, true, true)
  t.match(circuit.status(), { requests: 10, errorRatio: 0.4, slowRatio: 0.2 })
  at.now += 10_000
  t.match(circuit.status(), { requests: 0, errorRatio: 0 })
  trip()
  at.now -= 2_000
  t.match(circuit.status(), { state: 'open', admitted: 0, retryInMs: 2_000 })
})

const inRow = { consecutiveFailures: 3, errorRatio: false, slowRatio: false, rampFor: 0 } as const

t.test(
  'failures in a row open the circuit, however long they take, and a success between them starts anew',
  async (t) => {
    const { circuit, at, times, changes } = circuitOf(inRow)
    times(2, true)
    times(1)
    times(2, true)
    at.now += 3_600_000
    t.equal(circuit.state, 'closed')
    t.equal(circuit.status().failuresInRow, 2)
    times(1, true, true)
    t.equal(circuit.state, 'open')
    t.strictSame(changes, ['open: 3 calls in a row failed (consecutiveFailures 3)'])
  }
)

t.test('failures in a row with ratios: whichever is reached first', async (t) => {
  const row = circuitOf({ consecutiveFailures: 3 })
  row.times(3, true)
  t.match(row.changes, [/3 calls in a row/])
  const ratio = circuitOf({ consecutiveFailures: 3 })
  for (let i = 0; i < 5; i++) {
    ratio.times(1)
    ratio.times(1, true)
  }
  t.match(ratio.changes, [/errorRatio/])
})

t.test('half-open after failures in a row: one failed probe opens it, enough good ones close it', async (t) => {
  const { circuit, at, times, pass, changes } = circuitOf({ ...inRow, consecutiveSuccesses: 3 })
  times(3, true)
  at.now += 5_000
  times(2)
  t.equal(circuit.state, 'half-open', 'two of three')
  pass(true)
  t.equal(circuit.state, 'open')
  t.equal(changes.at(-1), 'open: a probe failed')
  at.now += 5_000
  const probe = circuit.admit()
  t.notOk(pass(), 'one probe at a time')
  circuit.settle(probe, false, false)
  times(2)
  t.equal(circuit.state, 'closed')
  t.equal(changes.at(-1), 'closed: enough probes succeeded')
  times(2, true)
  t.equal(circuit.state, 'closed', 'failures count from the beginning')
  times(1, true)
  t.equal(circuit.state, 'open')
})

t.test('consecutiveSuccesses with ratios: a failed probe opens the circuit whatever the ratio', async (t) => {
  const { circuit, trip, pass } = circuitOf({ consecutiveSuccesses: 5 })
  trip()
  for (let i = 0; i < 4; i++) pass()
  t.match(circuit.status(), { state: 'half-open', admitted: 0 })
  pass(true)
  t.equal(circuit.state, 'open')
})

t.test('on the ramp, fewer failures in a row than the limit do not open the circuit', async (t) => {
  const { circuit, at, times } = circuitOf({ ...inRow, rampFor: 10_000 })
  times(3, true)
  at.now += 5_000
  times(1)
  times(2, true)
  t.equal(circuit.state, 'half-open')
  times(1, true)
  t.equal(circuit.state, 'open')
})

t.test('openFor doubles up to maxOpenFor until the circuit has closed', async (t) => {
  const { circuit, at, times, pass } = circuitOf({ ...inRow, openFor: 2_000, maxOpenFor: 7_000 })
  times(3, true)
  for (const openFor of [2_000, 4_000, 7_000, 7_000]) {
    t.equal(circuit.retryInMs, openFor)
    at.now += openFor - 1
    t.notOk(pass(), 'still open')
    at.now++
    t.ok(pass(true), 'a probe')
  }
  at.now += 7_000
  pass()
  t.equal(circuit.state, 'closed')
  times(3, true)
  t.equal(circuit.retryInMs, 2_000)
})
