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
