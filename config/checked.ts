/** What the checks of the configuration's parts have in common. */
import type { Written } from './complete.ts'
import type { Report } from './faults.ts'

/** What every check is given. */
export interface Checked {
  readonly data: Written
  readonly report: Report
  /** Absolute, from what is relative to the configuration's folder. */
  readonly absolute: (path: string) => string
}

type Timeouts = { readonly timeout?: number; readonly attemptTimeout?: number } | undefined

/**
 * An attempt's time that is written at the first of these levels, against the call's that is written nearest.
 * A call that is made shorter than the attempts of the level above is no slip: it just ends them sooner.
 */
export function checkTimeouts(levels: readonly string[], policies: readonly Timeouts[], report: Report): void {
  const at = `${levels[0]}/attemptTimeout`
  const nearest = levels.findIndex((level) => report.at(`${level}/timeout`) !== undefined)
  const [attempt, whole] = [policies[0]?.attemptTimeout, policies[nearest]?.timeout]
  if (report.at(at) === undefined || attempt === undefined || whole === undefined) return
  const against = `${levels[nearest]}/timeout`
  if (attempt <= whole || !report.sound(at) || !report.sound(against)) return
  const [long, short] = [report.at(at)?.text ?? '', report.at(against)?.text ?? '']
  report.fault(
    at,
    `${long} is longer than the timeout of the whole call, ${short}: the attempt could never take so long`
  )
}
