/**
 * JSON that all parsers read alike. Two keys of the same name are refused: parsers differ in which one counts, so a service
 * could run another query than the one that was checked.
 */
import { Refusal } from './refusals.ts'

export type JsonObject = Readonly<Record<string, unknown>>

/** Deepest nesting of a request. JSON.stringify and parsers of services are recursive. */
const maxNesting = 100

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Parses JSON; throws a refusal that names `what`. */
export function parseStrict(text: string, what: string): unknown {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new Refusal('graphql_body', `${what} is not JSON`)
  }
  if (countMembers(value, what) !== countColons(text)) {
    throw new Refusal('graphql_duplicate_key', `${what} has two keys of the same name in one object`)
  }
  return value
}

/** Returns the number of members of all objects. */
function countMembers(value: unknown, what: string): number {
  let count = 0
  let level: unknown[] = [value]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > maxNesting) throw new Refusal('graphql_nesting', `${what} is nested deeper than ${maxNesting} levels`)
    const next: unknown[] = []
    for (const each of level) {
      if (typeof each !== 'object' || each === null) continue
      const inner: unknown[] = Array.isArray(each) ? each : Object.values(each)
      if (!Array.isArray(each)) count += inner.length
      for (const one of inner) next.push(one)
    }
    level = next
  }
  return count
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
