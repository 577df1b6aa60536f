/** Selection of the requests that are logged. */
import type { FilterOptions } from './options.ts'

/** Facts by which requests are selected. */
interface Facts {
  readonly status: number
  readonly durationMs: number
  readonly attempts: number
}

type Test = (facts: Facts) => boolean

/** Compiles filters to one test; null if all requests are logged. */
export function compileFilters(options: FilterOptions | undefined): Test | null {
  if (options === undefined) return null
  const { statusCodes, minDuration, retryAttempts, sample } = options
  const selected = statusCodes === undefined ? null : statusTable(statusCodes)
  return ({ status, durationMs, attempts }) =>
    (selected !== null && selected[status] === 1) ||
    (minDuration !== undefined && durationMs >= minDuration) ||
    (retryAttempts === true && attempts > 1) ||
    (sample !== undefined && Math.random() < sample)
}

/** Returns a table with 1 for each selected status. */
function statusTable(codes: readonly (string | number)[]): Uint8Array {
  const table = new Uint8Array(600)
  for (const code of codes) {
    const [first, last] = rangeOf(String(code))
    table.fill(1, first, last + 1)
  }
  return table
}

function rangeOf(code: string): readonly [first: number, last: number] {
  if (code.endsWith('xx')) return [Number(code[0]) * 100, Number(code[0]) * 100 + 99]
  const [first, last = first] = code.split('-').map(Number)
  return [first!, last!]
}

/** Returns the filters in words, for `explain`. */
export function explainFilters({ statusCodes, minDuration, retryAttempts, sample }: FilterOptions): string {
  const parts = [
    statusCodes && `status ${statusCodes.join(', ')}`,
    minDuration !== undefined && `from ${minDuration} ms on`,
    retryAttempts && 'with repeated attempts',
    sample !== undefined && `${sample * 100} % of the others`
  ]
  return parts.filter(Boolean).join('; ')
}
