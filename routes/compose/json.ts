/** Parses JSON within bounds, without a loss of digits. */
import { randomUUID } from 'node:crypto'
import { longNumbers } from './json-scan.ts'
import { setOwn } from './members.ts'
import { rawNumber } from './raw-number.ts'

/** Begins the strings that stand for numbers while a text is parsed. Random, so that no text contains one of its own. */
const prefix = `${randomUUID()} `

/** Most levels of lists and objects in a body: `JSON.stringify` would exceed the stack with some thousands. */
const deepest = 128

/**
 * Parses JSON of bounded depth. `fault` makes the error. A number that a double would round is kept as it is written: with
 * other digits, an id would name something else. A reviver would do the same, but makes `JSON.parse` 30 times slower.
 */
export function parseJson(text: string, fault: (why: string) => Error): unknown {
  // RFC 8259, 8.1: a byte order mark may be ignored.
  const plain = text.charCodeAt(0) === 0xfeff ? text.slice(1) : text
  const numbers = longNumbers(plain, deepest)
  if (numbers === null) throw fault(`more than ${deepest} levels`)
  try {
    if (numbers.length === 0) return JSON.parse(plain)
    const pieces: string[] = []
    let end = 0
    for (const [index, number] of numbers.entries()) {
      pieces.push(plain.slice(end, number.start), `"${prefix}${index}"`)
      end = number.end
    }
    pieces.push(plain.slice(end))
    return restored(JSON.parse(pieces.join('')), (index) =>
      rawNumber(plain.slice(numbers[index]!.start, numbers[index]!.end))
    )
  } catch {
    throw fault('malformed')
  }
}

/** Puts the numbers back to their places. */
function restored(value: unknown, numberOf: (index: number) => object): unknown {
  if (typeof value === 'string') return value.startsWith(prefix) ? numberOf(Number(value.slice(prefix.length))) : value
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) {
    for (let at = 0; at < value.length; at++) {
      const item: unknown = value[at]
      const whole = restored(item, numberOf)
      if (whole !== item) value[at] = whole
    }
    return value
  }
  for (const name of Object.keys(value)) {
    const member: unknown = Reflect.get(value, name)
    const whole = restored(member, numberOf)
    if (whole !== member) setOwn(value, name, whole)
  }
  return value
}
