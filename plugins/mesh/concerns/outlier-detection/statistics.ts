/** Pure functions that find outliers in the counts of one interval. */

export interface Counted {
  readonly successes: number
  readonly failures: number
}

export interface Outlier<C> {
  readonly host: C
  /** Text for the log. */
  readonly detail: string
}

interface Sample<C> {
  host: C
  rate: number
}

/** Tolerance, so that rounding makes no outliers among equal rates. */
const epsilon = 1e-9

/** Returns hosts whose success rate is below mean - factor × standard deviation, the worst first. */
export function bySuccessRate<C extends Counted>(
  hosts: readonly C[],
  { minHosts, minRequests, stdevFactor }: { minHosts: number; minRequests: number; stdevFactor: number }
): Outlier<C>[] {
  const samples = sampled(hosts, minHosts, minRequests)
  const mean = samples.reduce((sum, { rate }) => sum + rate, 0) / samples.length
  const variance = samples.reduce((sum, { rate }) => sum + (rate - mean) ** 2, 0) / samples.length
  const threshold = mean - stdevFactor * Math.sqrt(variance)
  return samples
    .filter(({ rate }) => rate < threshold - epsilon)
    .map(({ host, rate }) => ({
      host,
      detail: `${percent(rate)} of ${countOf(host)} attempts succeeded, below ${percent(threshold)}`
    }))
}

/** Returns hosts whose share of failures reaches the threshold, the worst first. */
export function byFailurePercentage<C extends Counted>(
  hosts: readonly C[],
  { minHosts, minRequests, threshold }: { minHosts: number; minRequests: number; threshold: number }
): Outlier<C>[] {
  return sampled(hosts, minHosts, minRequests)
    .filter(({ rate }) => 1 - rate >= threshold - epsilon)
    .map(({ host, rate }) => ({ host, detail: `${percent(1 - rate)} of ${countOf(host)} attempts failed` }))
}

/** Returns hosts with at least `minRequests`, the worst first; none if they are fewer than `minHosts`. */
function sampled<C extends Counted>(hosts: readonly C[], minHosts: number, minRequests: number): Sample<C>[] {
  const samples = hosts
    .filter(({ successes, failures }) => successes + failures >= minRequests)
    .map((host) => ({ host, rate: host.successes / (host.successes + host.failures) }))
  return samples.length < minHosts ? [] : samples.sort((a, b) => a.rate - b.rate)
}

const countOf = ({ successes, failures }: Counted) => successes + failures

const percent = (share: number) => `${Number((100 * share).toFixed(1))} %`
