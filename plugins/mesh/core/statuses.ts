/** Lists of statuses and ranges of them, such as `[429, 500-599]`. */

import type { Report } from '../../../config/faults.ts'
import { pointer } from '../../../config/faults.ts'
import { Either } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'

/** Schema of a list of statuses. */
export const Statuses = (description: string, byDefault: string[]) =>
  Type.Array(
    Either(
      { type: 'integer' },
      Type.Integer({ minimum: 100, maximum: 599 }),
      Type.String({ pattern: '^[1-5]\\d\\d-[1-5]\\d\\d$', expected: 'a range such as 200-299' })
    ),
    { minItems: 1, default: byDefault, description }
  )

type Statuses = readonly (number | string)[]

/** Reports ranges that end before they start. */
export function checkStatuses(statuses: Statuses, at: string, report: Report): void {
  for (const [index, item] of statuses.entries()) {
    const [low = '', high = ''] = String(item).split('-')
    if (high !== '' && low > high) report.fault(pointer(at, index), 'the end of the range is below its start')
  }
}

/** Returns a predicate for the statuses of a list. */
export function isOneOf(statuses: Statuses): (status: number) => boolean {
  const ranges = statuses.map((item): [low: number, high: number] => {
    const [low, high = low] = String(item).split('-').map(Number)
    return [low!, high!]
  })
  return (status) => ranges.some(([low, high]) => status >= low && status <= high)
}
