/** Thresholds, pauses and the end of a check, with check results set by the test. */
import type { Test } from 'tap'
import t from 'tap'
import { InstanceCheck } from '../../../plugins/mesh/health/instance-check.ts'
import { checkOptions, instanceOf } from '../../helpers/mesh/health.ts'

function checkOf(t: Test, healthCheck: object, { vouched = true, random = 0.5 } = {}) {
  const clock = { now: 1000 }
  const { endpoint, health, flips } = instanceOf('a', () => clock.now)
  const proofs: number[] = []
  health.whenProven((begunMs) => proofs.push(begunMs))
  const outcomes: string[] = []
  const due: InstanceCheck[] = []
  const waiting: ((failure: string | null) => void)[] = []
  const calledOff: number[] = []
  const probe = (done: (failure: string | null) => void) => {
    waiting.push(done)
    return () => void calledOff.push(clock.now)
  }
  const check = new InstanceCheck(endpoint, probe, {
    options: checkOptions(healthCheck),
    vouched,
    now: () => clock.now,
    random: () => random,
    count: (outcome) => outcomes.push(outcome),
    due: (check) => due.push(check)
  })
  t.teardown(() => check.end())
  const finish = (...failures: (string | null)[]) => {
    for (const failure of failures) {
      check.run(() => {})
      waiting.pop()!(failure)
    }
  }
  return { check, clock, health, flips, proofs, outcomes, due, waiting, calledOff, finish }
}

const bad = 'GET /health responded with 500'

t.test(
  'an instance is unavailable after unhealthyThreshold failures, and available after healthyThreshold successes',
  async (t) => {
    const { finish, health, flips, outcomes } = checkOf(t, { unhealthyThreshold: 3, healthyThreshold: 2 })
    finish(bad, bad, null, bad, bad)
    t.strictSame(flips, [])
    finish(bad)
    t.strictSame(flips, [`out: health-check: ${bad}`])
    finish('connection refused')
    t.strictSame(health.obstacles, { 'health-check': 'connection refused' }, 'the newest reason is shown')
    finish(null, bad, null)
    t.equal(flips.length, 1, 'an opposite result resets the count')
    finish(null)
    t.strictSame(flips.slice(1), ['in: health-check: passed 2 checks in a row'])
    finish(bad, bad)
    t.equal(flips.length, 2)
    finish(bad)
    t.equal(flips.length, 3)
    t.equal(outcomes.filter((outcome) => outcome === 'failure').length, 10)
    t.equal(outcomes.filter((outcome) => outcome === 'success').length, 4)
  }
)

t.test('without a registry that checks the instance, the first check decides', async (t) => {
  const { finish, flips } = checkOf(t, { unhealthyThreshold: 3, healthyThreshold: 2 }, { vouched: false })
  finish(bad)
  t.strictSame(flips, [`out: health-check: ${bad}`])
  finish(null, null)
  t.equal(flips.length, 2)
  finish(bad, bad)
  t.equal(flips.length, 2, 'only the first check decides alone')

  const good = checkOf(t, { unhealthyThreshold: 3 }, { vouched: false })
  good.finish(null, bad, bad)
  t.strictSame(good.flips, [])
})

t.test('a success is reported as a proof, unless the instance is still unavailable', async (t) => {
  const { finish, proofs, clock, check, waiting } = checkOf(t, { unhealthyThreshold: 1, healthyThreshold: 2 })
  finish(null)
  t.strictSame(proofs, [1000])
  finish(bad, null)
  t.strictSame(proofs, [1000])
  clock.now = 2000
  check.run(() => {})
  clock.now = 2500
  waiting.pop()!(null)
  t.strictSame(proofs, [1000, 2000], 'with the time at which the check began')
})

t.test('the status shows the last check', async (t) => {
  const { finish, check, clock } = checkOf(t, {})
  t.strictSame(check.status(), { outcome: null })
  finish(bad, bad)
  clock.now += 1500
  t.strictSame(check.status(), {
    outcome: 'failure', reason: bad, agoMs: 1500, consecutiveSuccesses: 0, consecutiveFailures: 2
  }) // biome-ignore format: one line
  finish(null)
  t.strictSame(check.status(), { outcome: 'success', agoMs: 0, consecutiveSuccesses: 1, consecutiveFailures: 0 })
})

t.test('pauses between checks have the interval and the jitter', async (t) => {
  const { setTimeout: real } = globalThis
  t.teardown(() => Object.assign(globalThis, { setTimeout: real }))
  const pauses: number[] = []
  const timer = { unref: () => timer }
  Object.assign(globalThis, {
    setTimeout: (_run: () => void, ms: number) => {
      pauses.push(Math.round(ms))
      return timer
    }
  })
  for (const random of [0, 0.5, 0.75, 0.9999999]) {
    checkOf(t, { interval: '10s', jitter: '20%' }, { random }).finish(null)
  }
  t.strictSame(pauses, [8000, 10_000, 11_000, 12_000])
})

t.test('close() cancels a check in flight, and no check follows', async (t) => {
  const { check, waiting, calledOff, outcomes, due } = checkOf(t, { interval: '1ms' })
  let done = 0
  check.run(() => done++)
  check.end()
  t.equal(calledOff.length, 1)
  t.equal(done, 1)
  check.end()
  t.equal(done, 1)
  t.equal(waiting.length, 1)
  t.strictSame(outcomes, [])

  const proven = checkOf(t, { interval: '1ms', jitter: '0%' })
  proven.health.whenProven(() => proven.check.end())
  proven.finish(null)

  const idle = checkOf(t, { interval: '1ms', jitter: '0%' })
  idle.finish(null)
  idle.check.end()
  await new Promise((resolve) => setTimeout(resolve, 20))
  t.strictSame([...due, ...proven.due, ...idle.due], [])
})
