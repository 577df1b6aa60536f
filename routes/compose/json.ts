/** Parses JSON within bounds, without a loss of digits. */

/** Most levels of lists and objects in a body: `JSON.stringify` would exceed the stack with some thousands. */
const deepest = 128

/** Functions that TypeScript does not know yet: numbers as they are written. */
const { rawJSON, isRawJSON } = JSON as unknown as {
  rawJSON: (text: string) => object
  isRawJSON: (value: unknown) => value is { readonly rawJSON: string }
}

/** Returns the text of a number that is kept as it is written; undefined for other values. */
export const textOfNumber = (value: unknown): string | undefined => (isRawJSON(value) ? value.rawJSON : undefined)

/** Keeps a number that a double would round: with other digits, an id would name something else. */
function exactNumber(_key: string, value: unknown, { source }: { source?: string } = {}): unknown {
  return typeof value === 'number' && source !== undefined && String(value) !== source ? rawJSON(source) : value
}

/** Parses JSON of bounded depth. `fault` makes the error. */
export function parseJson(text: string, fault: (why: string) => Error): unknown {
  if (isTooDeep(text)) throw fault(`more than ${deepest} levels`)
  try {
    // RFC 8259, 8.1: a byte order mark may be ignored.
    const plain = text.charCodeAt(0) === 0xfeff ? text.slice(1) : text
    return /\d{16}/.test(plain) ? JSON.parse(plain, exactNumber) : JSON.parse(plain)
  } catch {
    throw fault('malformed')
  }
}

const quote = 0x22
const backslash = 0x5c

function isTooDeep(text: string): boolean {
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === quote) at = endOfString(text, at)
    else if (code === 0x5b || code === 0x7b) {
      depth++
      if (depth > deepest) return true
    } else if (code === 0x5d || code === 0x7d) depth--
  }
  return false
}

/** Returns the index of the quote that ends a string. */
function endOfString(text: string, start: number): number {
  for (let at = text.indexOf('"', start + 1); at !== -1; at = text.indexOf('"', at + 1)) {
    let escapes = 0
    while (text.charCodeAt(at - 1 - escapes) === backslash) escapes++
    if (escapes % 2 === 0) return at
  }
  return text.length
}
