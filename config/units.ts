/** Parsers for values with units in the configuration. */

const DURATIONS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const SIZES: Readonly<Record<string, number>> = { b: 1, kb: 1024, mb: 1024 ** 2, gb: 1024 ** 3 }

function parse(text: string, shape: RegExp, units: Readonly<Record<string, number>>): number | null {
  const [, digits, unit] = shape.exec(text) ?? []
  if (digits === undefined || unit === undefined) return null
  // Rounded, since 1.1 * 1000 is not 1100 in floating point.
  const value = Math.round(Number(digits) * (units[unit.toLowerCase()] ?? Number.NaN))
  return Number.isSafeInteger(value) ? value : null
}

/** Returns a value with the largest unit of which it is a multiple. */
function inUnits(value: number, units: Readonly<Record<string, number>>): string {
  const fitting = Object.entries(units).findLast(([, size]) => value % size === 0) ?? ['', 1]
  return `${value / fitting[1]}${fitting[0]}`
}

/** Returns milliseconds as the configuration writes a duration. */
export const durationText = (ms: number): string => inUnits(ms, DURATIONS)

/** Returns bytes as the configuration writes a size. */
export const sizeText = (bytes: number): string => inUnits(bytes, SIZES)

/** Maximum delay of a Node timer; a longer one would fire at once. */
const LONGEST_MS = 2 ** 31 - 1

/** Parses a duration to milliseconds. Units are lower case: `M` could mean minutes or months. */
export function parseDuration(text: string): number | null {
  const ms = parse(text, /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/, DURATIONS)
  return ms !== null && ms <= LONGEST_MS ? ms : null
}

/** Parses a duration that no timer waits for, and that may be months. */
const parsePeriod = (text: string): number | null => parse(text, /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/, DURATIONS) || null

/** Parses a duration that must not be 0. */
function parsePositiveDuration(text: string): number | null {
  return parseDuration(text) || null
}

/** Parses a size to bytes; 1kb is 1024 bytes. */
export function parseSize(text: string): number | null {
  return parse(text, /^(\d+(?:\.\d+)?)(b|kb|mb|gb)$/i, SIZES)
}

/** Parses a size that must not be 0. */
function parsePositiveSize(text: string): number | null {
  return parseSize(text) || null
}

/** Parses a percentage to a fraction of 1. */
export function parsePercent(text: string): number | null {
  const digits = /^(\d+(?:\.\d+)?)%$/.exec(text)?.[1]
  if (digits === undefined) return null
  const value = Number(digits) / 100
  return Number.isFinite(value) ? value : null
}

/** Parses a percentage of at most 100% to a fraction of 1. */
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
  period: {
    parse: parsePeriod,
    expected: 'a duration such as 1s, 1h or 30d',
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
