/** `timeout` and `attemptTimeout` against each other, over the levels at which they can be written. */
import type { Report } from './faults.ts'
import type { MeshPolicy } from './schema.ts'

/** Keys that are written at one level. */
type Policy = Partial<MeshPolicy> | undefined

/** The most specific level comes first; the last one holds the defaults. */
export function checkTimeouts(levels: readonly string[], policies: readonly Policy[], report: Report): void {
  const [level] = levels
  if (policies[0] === undefined) return
  if (report.at(`${level}/attemptTimeout`) !== undefined) checkAttempt(levels, policies, report)
  else if (report.at(`${level}/timeout`) !== undefined) checkCall(levels, policies, report)
}

/** An `attemptTimeout` that the whole call's timeout makes useless. */
function checkAttempt(levels: readonly string[], policies: readonly Policy[], report: Report): void {
  const at = `${levels[0]}/attemptTimeout`
  const written = levels.findIndex((level) => report.at(`${level}/timeout`) !== undefined)
  const against = `${levels[written] ?? levels.at(-1)}/timeout`
  const attempt = policies[0]?.attemptTimeout
  const whole = (written < 0 ? policies.at(-1) : policies[written])?.timeout
  if (attempt === undefined || whole === undefined || !report.sound(at) || !report.sound(against)) return
  const long = report.at(at)!.text ?? ''
  if (written < 0) {
    if (attempt < whole) return
    report.warn(at, `${long} has no effect: mesh.timeout, unset, ends the whole call after ${whole / 1000}s`)
  } else if (attempt > whole) {
    const short = report.at(against)!.text ?? ''
    report.fault(
      at,
      `${long} is longer than the timeout of the whole call, ${short}: the attempt could never take so long`
    )
  } else if (attempt === whole) {
    report.warn(at, `${long} has no effect: it is the timeout of the whole call, which it follows when unset`)
  }
}

/** A `timeout` that is made longer than the attempts of a level above, where nothing could use the rest of it. */
function checkCall(levels: readonly string[], policies: readonly Policy[], report: Report): void {
  const at = `${levels[0]}/timeout`
  const above = levels.findIndex((level) => report.at(`${level}/attemptTimeout`) !== undefined)
  const against = `${levels[above]}/attemptTimeout`
  const [attempt, whole] = [policies[above]?.attemptTimeout, policies[0]?.timeout]
  if (attempt === undefined || whole === undefined || attempt >= whole) return
  if (!levels.every((level) => report.sound(level)) || repeats(policies)) return
  const [long, short] = [report.at(at)?.text ?? '', report.at(against)?.text ?? '']
  const where = report.pathOf(against)
  report.warn(at, `${long} is never reached: ${where} ends the one attempt after ${short}; set attemptTimeout here too`)
}

/** Returns whether another attempt follows one that timed out. */
function repeats(policies: readonly Policy[]): boolean {
  const retry = policies.find((policy) => policy?.retry !== undefined)?.retry
  const hedge = policies.find((policy) => policy?.hedge !== undefined)?.hedge
  return Boolean(hedge) || (retry ? retry.on.some((item) => item === 'gateway-error' || item === '5xx') : false)
}
