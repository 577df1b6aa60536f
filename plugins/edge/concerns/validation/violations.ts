/** Errors of ajv as violations for a client, without any value or name that the request has chosen. */
import type { ErrorObject } from 'ajv'
import { pointer as below, segmentsOf } from '../../../../config/faults.ts'

/** Longest text that tells what is wrong; it may have a pattern or a list of the schema. */
const longestDetail = 200

/** Errors of keywords whose branches have reported errors as well. */
const summaries = new Set(['if', 'jingweiStep', 'jingweiRef'])

/** Returns the distinct errors. */
export const distinct = (errors: readonly ErrorObject[] | null | undefined): ErrorObject[] => {
  const found = new Map<string, ErrorObject>()
  for (const error of errors ?? []) {
    if (summaries.has(error.keyword)) continue
    const key = `${error.instancePath} ${error.keyword} ${detailOf(error)}`
    if (!found.has(key)) found.set(key, error)
  }
  return [...found.values()]
}

export function detailOf({ keyword, message = 'is not valid' }: ErrorObject): string {
  const text = keyword === 'false schema' ? 'is not allowed here' : message
  return text.length > longestDetail ? `${text.slice(0, longestDetail)}…` : text
}

/** Returns a pointer in which names that no schema defines are `*`. */
export function maskedPointer(pointer: string, value: unknown, names: ReadonlySet<string>): string {
  let at = ''
  let holder: unknown = value
  for (const segment of segmentsOf(pointer)) {
    at = below(at, Array.isArray(holder) || names.has(segment) ? segment : '*')
    holder = typeof holder === 'object' && holder !== null ? Reflect.get(holder, segment) : undefined
  }
  return at
}
