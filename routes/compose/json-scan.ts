/** Scans JSON text before it is parsed. */

interface Span {
  readonly start: number
  readonly end: number
}

/** Fewest characters of a number whose digits a double may change. */
const fewestChars = 16

const grammar = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/

const quote = 0x22
const backslash = 0x5c

/**
 * Finds the numbers whose digits a double would change. Returns null if the text has more levels of lists and objects than
 * `deepest`. Malformed numbers are not among them: `JSON.parse` reports these.
 */
export function longNumbers(text: string, deepest: number): Span[] | null {
  const found: Span[] = []
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === quote) at = endOfString(text, at)
    else if (code === 0x5b || code === 0x7b) {
      depth++
      if (depth > deepest) return null
    } else if (code === 0x5d || code === 0x7d) depth--
    else if (code === 0x2d || (code >= 0x30 && code <= 0x39)) {
      const end = endOfNumber(text, at)
      if (isLong(text, at, end)) found.push({ start: at, end })
      at = end - 1
    }
  }
  return found
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

/** Returns the index after the characters that a number may consist of. */
function endOfNumber(text: string, start: number): number {
  let at = start + 1
  for (; at < text.length; at++) {
    const code = text.charCodeAt(at)
    const isPart =
      (code >= 0x30 && code <= 0x39) ||
      code === 0x2e ||
      code === 0x2b ||
      code === 0x2d ||
      code === 0x65 ||
      code === 0x45
    if (!isPart) break
  }
  return at
}

/** Returns whether a number has to be kept as it is written. */
function isLong(text: string, start: number, end: number): boolean {
  if (end - start < fewestChars) return false
  const source = text.slice(start, end)
  return String(Number(source)) !== source && grammar.test(source) && !isMemberName(text, end)
}

/** Returns whether a colon follows: then the text is malformed, which a string in place of the number would hide. */
function isMemberName(text: string, end: number): boolean {
  let at = end
  while (' \t\r\n'.includes(text.charAt(at)) && at < text.length) at++
  return text.charAt(at) === ':'
}
