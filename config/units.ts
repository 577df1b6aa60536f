/** The units that people write in the configuration, read as the numbers that the code counts in. */

const DURATIONS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const SIZES: Readonly<Record<string, number>> = { b: 1, kb: 1024, mb: 1024 ** 2, gb: 1024 ** 3 }

function parse(text: string, shape: RegExp, units: Readonly<Record<string, number>>): number | null {
  const [, digits, unit] = shape.exec(text) ?? []
  if (digits === undefined || unit === undefined) return null
  // Rounded, since 1.1 * 1000 is not 1100 in floating point.
  const value = Math.round(Number(digits) * (units[unit.toLowerCase()] ?? Number.NaN))
  return Number.isSafeInteger(value) ? value : null
}

/** The longest that a timer of Node can wait; it fires at once when asked for more. */
const LONGEST_MS = 2 ** 31 - 1

/** Milliseconds. Case matters, as M would read as either minutes or months. */
export function parseDuration(text: string): number | null {
  const ms = parse(text, /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/, DURATIONS)
  return ms !== null && ms <= LONGEST_MS ? ms : null
}

/** A duration for which 0 would mean nothing good. */
function parsePositiveDuration(text: string): number | null {
  return parseDuration(text) || null
}

/** Bytes; 1kb is 1024 of them. */
export function parseSize(text: string): number | null {
  return parse(text, /^(\d+(?:\.\d+)?)(b|kb|mb|gb)$/i, SIZES)
}

/** A size for which 0 would refuse everything. */
function parsePositiveSize(text: string): number | null {
  return parseSize(text) || null
}

/** A fraction of 1. */
export function parsePercent(text: string): number | null {
  const digits = /^(\d+(?:\.\d+)?)%$/.exec(text)?.[1]
  if (digits === undefined) return null
  const value = Number(digits) / 100
  return Number.isFinite(value) ? value : null
}

/** A fraction of 1, and no more than all of it. */
function parseShare(text: string): number | null {
  const value = parsePercent(text)
  return value !== null && value <= 1 ? value : null
}

export const units = {
  duration: {
    parse: parsePositiveDuration,
    expected: 'a duration such as 250ms, 15s or 5m',
    pattern: '^\\d+(\\.\\d+)?(ms|s|m|h|d)$'
  },
  'duration or 0': {
    parse: parseDuration,
    expected: 'a duration such as 0s, 15s or 5m',
    pattern: '^\\d+(\\.\\d+)?(ms|s|m|h|d)$'
  },
  size: {
    parse: parsePositiveSize,
    expected: 'a size such as 512b, 16kb or 10mb',
    pattern: '^\\d+(\\.\\d+)?([bB]|[kKmMgG][bB])$'
  },
  'size or 0': {
    parse: parseSize,
    expected: 'a size such as 512b, 16kb or 10mb',
    pattern: '^\\d+(\\.\\d+)?([bB]|[kKmMgG][bB])$'
  },
  share: { parse: parseShare, expected: 'a percentage from 0% to 100%', pattern: '^\\d+(\\.\\d+)?%$' },
  percent: { parse: parsePercent, expected: 'a percentage such as 20%', pattern: '^\\d+(\\.\\d+)?%$' }
} as const

export type Unit = keyof typeof units
