/** Fields of HTTP that decide about storing: Cache-Control (RFC 9111, 5.2), dates, lists of names. */
import type { IncomingHttpHeaders } from 'node:http'
import { listItems } from '../../../http-syntax.ts'

/** Most directives or names that are parsed; more than any legitimate message has. */
const most = 64
/** Largest number of seconds (RFC 9111, 1.2.2). */
const mostSeconds = 2 ** 31

export type Directives = ReadonlyMap<string, string | null>

const none: Directives = new Map()
/** Directives in place of a field that cannot be parsed: its message is not stored. */
const unparsable: Directives = new Map([['no-store', null]])

/** Parses Cache-Control. Of a directive that is repeated, the first one counts; names are in lower case. */
export function directivesOf(value: string | readonly string[] | undefined): Directives {
  if (value === undefined) return none
  const items = listItems(String(value), most)
  if (items === null) return unparsable
  const directives = new Map<string, string | null>()
  for (const item of items) {
    const equals = item.indexOf('=')
    const name = (equals < 0 ? item : item.slice(0, equals)).toLowerCase()
    if (!directives.has(name)) directives.set(name, equals < 0 ? null : unquoted(item.slice(equals + 1)))
  }
  return directives
}

const unquoted = (text: string): string => (/^"[^"\\]*"$/.test(text) ? text.slice(1, -1) : text)

/** Returns the seconds of a directive; undefined if it is absent, 0 if it is no number: such a response is stale. */
export function secondsOf(directives: Directives, name: string): number | undefined {
  const value = directives.get(name)
  if (value === undefined) return undefined
  return value !== null && /^\d+$/.test(value) ? Math.min(Number(value), mostSeconds) : 0
}

/** Returns the names in a list field such as `Vary`, in lower case; null if they cannot be parsed. */
export function namesOf(value: string | readonly string[] | undefined): readonly string[] | null {
  if (value === undefined) return []
  const items = listItems(String(value).toLowerCase(), most)
  return items === null ? null : [...new Set(items)]
}

/** Returns `Age` in seconds; the largest for any text but one number: then the response may be of any age. */
export function ageOf({ age }: IncomingHttpHeaders): number {
  if (age === undefined) return 0
  return /^\d+$/.test(String(age)) ? Math.min(Number(age), mostSeconds) : mostSeconds
}

const months = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']
const time = '(\\d{2}):(\\d{2}):(\\d{2})'
const forms = [
  new RegExp(`^[a-z]{3}, (\\d{2}) ([a-z]{3}) (\\d{4}) ${time} gmt$`, 'i'),
  new RegExp(`^[a-z]{6,9}, (\\d{2})-([a-z]{3})-(\\d{2}) ${time} gmt$`, 'i'),
  new RegExp(`^[a-z]{3} ([a-z]{3}) ([ \\d]\\d) ${time} (\\d{4})$`, 'i')
] as const

/** Parses an HTTP date in its three forms (RFC 9110, 5.6.7) to milliseconds since 1970; null for any other text. */
export function dateOf(value: string | readonly string[] | undefined): number | null {
  if (typeof value !== 'string') return null
  const [imf, rfc850, asctime] = forms
  let match = imf.exec(value)
  if (match !== null) return utc(match[3]!, match[2]!, match[1]!, match.slice(4))
  match = rfc850.exec(value)
  if (match !== null) return utc(fullYear(match[3]!), match[2]!, match[1]!, match.slice(4))
  match = asctime.exec(value)
  return match === null ? null : utc(match[6]!, match[1]!, match[2]!.trim(), match.slice(3, 6))
}

/** A year of two digits that is more than 50 years ahead belongs to the past century. */
function fullYear(digits: string): string {
  const now = new Date().getUTCFullYear()
  const year = now - (now % 100) + Number(digits)
  return String(year > now + 50 ? year - 100 : year)
}

function utc(year: string, name: string, day: string, [hours, minutes, seconds]: readonly string[]): number | null {
  const month = months.indexOf(name.toLowerCase())
  if (month < 0 || Number(hours) > 23 || Number(minutes) > 59 || Number(seconds) > 60) return null
  return Date.UTC(Number(year), month, Number(day), Number(hours), Number(minutes), Number(seconds))
}
