/**
 * JSON that all parsers read alike. Two keys of the same name are refused: parsers differ in which one counts, so a service
 * could read another value than the one that was checked.
 */

export type JsonObject = Readonly<Record<string, unknown>>

/** Deepest nesting of a request. JSON.stringify and parsers of services are recursive. */
export const maxNesting = 100

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** A text that is not JSON, or that parsers could read in different ways. */
export class NotStrictJson extends Error {
  readonly fault: 'malformed' | 'duplicate' | 'nesting'

  constructor(fault: NotStrictJson['fault']) {
    super(fault)
    this.fault = fault
  }
}

/** Parses JSON. `values` is the number of its values. Throws `NotStrictJson`. */
export function parseStrictJson(
  text: string,
  maxDepth = maxNesting
): { readonly value: unknown; readonly values: number } {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new NotStrictJson('malformed')
  }
  const { members, values } = count(value, maxDepth)
  if (members !== countColons(text)) throw new NotStrictJson('duplicate')
  return { value, values }
}

/** Returns the number of members of all objects, and that of all values. */
function count(value: unknown, maxDepth: number): { members: number; values: number } {
  let members = 0
  let values = 0
  let level: unknown[] = [value]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > maxDepth) throw new NotStrictJson('nesting')
    values += level.length
    const next: unknown[] = []
    for (const each of level) {
      if (typeof each !== 'object' || each === null) continue
      const inner: unknown[] = Array.isArray(each) ? each : Object.values(each)
      if (!Array.isArray(each)) members += inner.length
      for (const one of inner) next.push(one)
    }
    level = next
  }
  return { members, values }
}

/** Returns the number of colons outside strings: that of the members in valid JSON, repeated ones included. */
function countColons(text: string): number {
  let count = 0
  let isInString = false
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i)
    if (char === 34) isInString = !isInString
    else if (!isInString) count += char === 58 ? 1 : 0
    else if (char === 92) i++
  }
  return count
}

/** Parses valid JSON for a copy of it in which other members change. Numbers keep their text, which JavaScript may not hold. */
export function parseForCopy(text: string): unknown {
  return JSON.parse(text, keepNumber)
}

interface RawJson {
  rawJSON(text: string): unknown
}

function keepNumber(_key: string, value: unknown, context?: { readonly source?: string }): unknown {
  const source = context?.source
  if (typeof value !== 'number' || source === undefined || String(value) === source) return value
  return (JSON as unknown as RawJson).rawJSON(source)
}
