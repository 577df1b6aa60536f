/** The token bucket of a service. */
import t from 'tap'
import { TokenBucket } from '../../../plugins/mesh/core/token-bucket.ts'

t.test('a bucket has a burst, then one token per interval, and at most a burst after a pause', async (t) => {
  let now = 5_000
  const bucket = new TokenBucket(3, 100, () => now)
  for (let i = 0; i < 3; i++) {
    t.equal(bucket.waitMs(), 0)
    bucket.take()
  }
  t.equal(bucket.waitMs(), 100)
  now += 40
  t.equal(bucket.waitMs(), 60)
  now += 60
  t.equal(bucket.waitMs(), 0)
  bucket.take()
  now += 60_000
  t.equal(bucket.tokens, 3)
})

t.test('debt is repaid at the same rate', async (t) => {
  let now = 0
  const bucket = new TokenBucket(1, 10, () => now)
  for (let i = 0; i < 5; i++) bucket.take()
  t.equal(bucket.tokens, -4)
  t.equal(bucket.waitMs(), 50)
  t.equal(bucket.waitMs(4), 10, 'for the first of the four')
  now += 45
  t.equal(bucket.waitMs(4), 0)
  t.equal(bucket.waitMs(1), 0, 'all four tokens have come, the burst does not cap them')
  bucket.giveBack()
  t.equal(bucket.waitMs(), 0)
  now += 1_000
  t.equal(bucket.tokens, 1)
})

t.test('over a long time, the rate is exact for any pattern of calls', async (t) => {
  let now = 0
  const bucket = new TokenBucket(1, 1000 / 7, () => now)
  let taken = 0
  while (now < 60_000) {
    if (bucket.waitMs() === 0) {
      bucket.take()
      taken++
    }
    now += 0.1 + bucket.waitMs()
  }
  t.ok(taken > 417 && taken <= 421, `${taken} of 420`)
})

t.test('reservations take a burst, then one token per interval, and time refills tokens', async (t) => {
  let now = 0
  const bucket = new TokenBucket(2, 1000, () => now)
  t.same([bucket.reserve(), bucket.reserve(), bucket.reserve()], [0, 0, 1000])
  now = 1000
  t.equal(bucket.reserve(), 1000)
  now = 10_000
  t.same(
    [bucket.reserve(), bucket.reserve(), bucket.reserve()],
    [0, 0, 1000],
    'idle time never saves up more than the burst'
  )
})
