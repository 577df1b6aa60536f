/** Checks the conditions of a route for values that no request can have. */
import { parseRange } from '../plugins/address-ranges.ts'
import { token } from '../plugins/http-syntax.ts'
import type { Checked } from './concern.ts'
import { expressionOf } from './expressions.ts'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import { forwardingHeaders } from './header-names.ts'
import { linearRegExp } from './linear-regexp.ts'
import type { ValueCondition } from './match-conditions.ts'
import { valueKinds } from './match-conditions.ts'
import type { Written } from './schema.ts'

type Route = Written['routes'][number]

const forwarding: ReadonlySet<string> = new Set(forwardingHeaders)

/** Matches values that a header, or a cookie, cannot have. */
const impossible = {
  headers: /^[ \t]|[ \t]$|[^\t\x20-\x7e\x80-\xff]/,
  cookies: /^[ \t"]|[ \t"]$|[;]|[^\t\x20-\x7e\x80-\xff]/,
  query: /[\ud800-\udfff]/u
}

export function checkConditions(at: string, { match }: Route, { report }: Checked): void {
  if (!report.usable(`${at}/match`)) return
  const { addresses = [] } = report.sound(`${at}/match/addresses`) ? match : {}
  addresses.forEach((range, index) => {
    try {
      parseRange(range)
    } catch (error) {
      report.fault(pointer(at, 'match', 'addresses', index), (error as Error).message)
    }
  })
  for (const kind of valueKinds) {
    const seen = new Map<string, string>()
    for (const [name, wanted] of Object.entries(report.usable(`${at}/match/${kind}`) ? (match[kind] ?? {}) : {})) {
      const place = pointer(at, 'match', kind, name)
      if (!report.sound(place)) continue
      const lower = name.toLowerCase()
      if (kind !== 'query' && !token.test(name)) report.fault(place, `"${name}" is not a name of ${kind}`, 'key')
      else if (kind === 'headers' && lower === 'host') {
        report.fault(place, 'write match.hosts: HTTP/2 has no Host header', 'key')
      } else if (kind === 'headers' && seen.has(lower)) {
        report.fault(place, `the same header as "${seen.get(lower)}"`, 'key')
      } else checkValue(place, kind, wanted, report)
      if (kind === 'headers' && forwarding.has(lower)) {
        report.warn(place, 'any client can send this header: routes are matched before the gateway removes it', 'key')
      }
      seen.set(lower, name)
    }
  }
}

function checkValue(place: string, kind: (typeof valueKinds)[number], wanted: ValueCondition, report: Report): void {
  if (typeof wanted === 'string') {
    const what = { headers: 'header', cookies: 'cookie', query: 'parameter' }[kind]
    if (impossible[kind].test(wanted)) report.fault(place, `no ${what} can have this value`)
    const expression = expressionOf(wanted) ?? (/^\^.*\$$/s.test(wanted) ? wanted : null)
    if (expression !== null) report.warn(place, `is compared as a text; write { regex: ${JSON.stringify(expression)} }`)
    return
  }
  const { regex, present } = wanted
  if (regex === undefined) return
  if (present !== undefined) {
    report.fault(`${place}/present`, 'no effect with "regex", which needs a value', 'key')
    return
  }
  try {
    linearRegExp(regex)
  } catch (error) {
    report.fault(`${place}/regex`, `invalid expression: ${(error as Error).message}`)
  }
}
