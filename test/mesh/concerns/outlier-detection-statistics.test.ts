import t from 'tap'
import type { Counted } from '../../../plugins/mesh/concerns/outlier-detection/statistics.ts'
import { byFailurePercentage, bySuccessRate } from '../../../plugins/mesh/concerns/outlier-detection/statistics.ts'

interface Named extends Counted {
  name: string
}
/** A hundred requests each, this many of them successes. */
const hosts = (...successes: number[]): Named[] =>
  successes.map((count, index) => ({ name: 'abcdefghij'[index]!, successes: count, failures: 100 - count }))
const names = (outliers: { host: Named }[]) => outliers.map(({ host }) => host.name).join('')

t.test('the success rate threshold is mean - factor × standard deviation', async (t) => {
  const options = { minHosts: 5, minRequests: 100, stdevFactor: 1.9 }
  t.equal(names(bySuccessRate(hosts(100, 100, 100, 100, 100), options)), '', 'equals')
  // Mean 80, standard deviation 40, threshold 4.
  t.equal(names(bySuccessRate(hosts(100, 100, 0, 100, 100), options)), 'c')
  t.match(bySuccessRate(hosts(100, 100, 0, 100, 100), options)[0]!.detail, /^0 % of 100 attempts succeeded, below 4 %$/)
  // Mean 0.95, deviation about 0.0316, threshold 0.89: 0.90 stays, 0.88 would not.
  t.equal(names(bySuccessRate(hosts(97, 97, 97, 97, 97, 90), options)), 'f')
  t.equal(names(bySuccessRate(hosts(98, 96, 94, 92, 90), options)), '', 'a wide spread has no outlier')
  t.equal(
    names(bySuccessRate(hosts(100, 100, 0, 100, 100), { ...options, stdevFactor: 2 })),
    '',
    'a rate exactly at the threshold is not ejected'
  )
  t.equal(
    names(bySuccessRate(hosts(100, 10, 100, 100, 0, 100, 100, 100, 100, 100), { ...options, stdevFactor: 1 })),
    'eb'
  )
})

t.test('rounding makes no outlier of equal rates', async (t) => {
  const misjudged = Array.from({ length: 101 }, (_, successes) => successes).filter((successes) => {
    const equals = hosts(...Array.from({ length: 7 }, () => successes))
    return bySuccessRate(equals, { minHosts: 1, minRequests: 1, stdevFactor: 0 }).length > 0
  })
  t.strictSame(misjudged, [])
})

t.test('failure percentages above the threshold are outliers', async (t) => {
  const options = { minHosts: 5, minRequests: 50, threshold: 0.85 }
  t.equal(
    names(byFailurePercentage(hosts(100, 15, 16, 0, 100), options)),
    'db',
    'from the threshold on, the worst first'
  )
  t.equal(
    names(byFailurePercentage(hosts(0, 0, 0, 0, 0), options)),
    'abcde',
    'the failure percentage does not depend on other instances'
  )
  t.match(byFailurePercentage(hosts(100, 15, 100, 100, 100), options)[0]!.detail, /^85 % /)
})

t.test('neither ejects with few requests or few instances', async (t) => {
  const rate = { minHosts: 5, minRequests: 100, stdevFactor: 1 }
  const share = { minHosts: 5, minRequests: 100, threshold: 0.5 }
  t.equal(names(bySuccessRate(hosts(100, 0, 100, 100), rate)), '')
  t.equal(names(byFailurePercentage(hosts(100, 0, 100, 100), share)), '')
  const few: Named = { name: 'few', successes: 0, failures: 99 }
  t.equal(
    names(bySuccessRate([...hosts(100, 100, 100, 100), few], rate)),
    '',
    'an instance with few requests does not count'
  )
  t.equal(names(byFailurePercentage([...hosts(100, 100, 100, 100), few], share)), '')
  t.equal(
    names(byFailurePercentage([...hosts(100, 100, 100, 100, 100), few], share)),
    '',
    'an instance with few requests is not ejected'
  )
  t.equal(names(bySuccessRate([], { ...rate, minHosts: 1 })), '')
})
