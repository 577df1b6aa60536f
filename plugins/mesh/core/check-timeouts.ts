/** Checks of `timeout` and `attemptTimeout` against each other, over the levels at which they can be set. */
import type { Checked, Keys } from '../../../config/concern.ts'
import type { Report } from '../../../config/faults.ts'
import { pointer } from '../../../config/faults.ts'
import type { MeshPolicy } from '../../../config/schema.ts'
import { writtenTargets } from '../../../config/targets.ts'

/** Keys that are set at one level. */
type Policy = Partial<MeshPolicy> | undefined

/** Checks both keys at every level at which a file sets one of them. */
export function* checkTimeouts(checked: Checked): Iterable<void> {
  const { data, report } = checked
  checkLevel(['/mesh'], [data.mesh], checked)
  if (!report.usable('/services') || typeof data.services !== 'object') return
  for (const [name, service] of Object.entries(data.services)) {
    yield
    const at = pointer('/services', name)
    if (report.usable(at)) checkLevel([`${at}/mesh`, '/mesh'], [service.mesh, data.mesh], checked)
  }
  if (!report.usable('/routes')) return
  for (const [index, route] of data.routes.entries()) {
    yield
    const at = pointer('/routes', index)
    if (!report.usable(at)) continue
    for (const { at: place, services, mesh } of writtenTargets(at, route, report)) {
      const isCall = place !== at
      const own = isCall ? [`${place}/mesh`, `${at}/mesh`] : [`${at}/mesh`]
      for (const name of services) {
        const service = Object.hasOwn(data.services, name) ? data.services[name] : undefined
        const levels = [...own, pointer('/services', name, 'mesh'), '/mesh']
        checkLevel(levels, [mesh, ...(isCall ? [route.mesh] : []), service?.mesh, data.mesh], checked)
      }
    }
  }
}

/** Checks one level. `levels` begins with it, the most specific; the last one has the defaults. */
function checkLevel(levels: readonly string[], policies: readonly Policy[], { report, keys }: Checked): void {
  const [level] = levels
  if (policies[0] === undefined) return
  if (report.at(`${level}/attemptTimeout`) !== undefined) checkAttempt(levels, policies, report)
  else if (report.at(`${level}/timeout`) !== undefined) checkCall(levels, policies, report, keys)
}

/** Reports an `attemptTimeout` without effect, because the timeout of the whole call is not longer. */
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
    report.warn(at, `${long} has no effect: the default of mesh.timeout ends the whole call after ${whole / 1000}s`)
  } else if (attempt > whole) {
    const short = report.at(against)!.text ?? ''
    report.fault(at, `${long} is longer than the timeout of the whole call, ${short}, which ends the attempt earlier`)
  } else if (attempt === whole) {
    report.warn(at, `${long} has no effect: it equals the timeout of the whole call, which is its default`)
  }
}

/** Warns of a `timeout` longer than the `attemptTimeout` of a level above, if no retry could use the rest of it. */
function checkCall(levels: readonly string[], policies: readonly Policy[], report: Report, { mesh }: Keys): void {
  const at = `${levels[0]}/timeout`
  const above = levels.findIndex((level) => report.at(`${level}/attemptTimeout`) !== undefined)
  const against = `${levels[above]}/attemptTimeout`
  const [attempt, whole] = [policies[above]?.attemptTimeout, policies[0]?.timeout]
  if (attempt === undefined || whole === undefined || attempt >= whole) return
  if (!levels.every((level) => report.sound(level)) || repeats(policies, mesh)) return
  const [long, short] = [report.at(at)?.text ?? '', report.at(against)?.text ?? '']
  const where = report.pathOf(against)
  report.warn(at, `${long} is never reached: ${where} ends the one attempt after ${short}; set attemptTimeout here too`)
}

/** Returns whether another attempt follows one that timed out. */
function repeats(policies: readonly Policy[], keys: Keys['mesh']): boolean {
  return keys.some(({ name, repeatsTimeouts }) => {
    const options: unknown = policies
      .map((policy) => policy && Reflect.get(policy, name))
      .find((each) => each !== undefined)
    return Boolean(options) && repeatsTimeouts?.(options) === true
  })
}
