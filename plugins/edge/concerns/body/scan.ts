/** Scans JSON as bytes (RFC 8259), and finds where its values end, without making values of them. */

/** Why a body cannot be changed. */
export type Fault = 'malformed' | 'duplicate' | 'nesting' | 'members' | 'size'

export class Unfit extends Error {
  readonly fault: Fault

  constructor(fault: Fault) {
    super(fault)
    this.fault = fault
  }
}

/** Deepest nesting of lists and objects. */
const maxNesting = 100

const quote = 0x22
const backslash = 0x5c

/** Returns the index of the first byte that is no whitespace. */
export function skipSpace(bytes: Uint8Array, at: number): number {
  for (let index = at; ; index++) {
    const byte = bytes[index]
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return index
  }
}

/** Size from which the ends of lists and objects are stored. Smaller ones are scanned once more when they are taken apart. */
const large = 4096

/** Ends of large lists and objects by their starts, while bytes are checked. Scanning is synchronous. */
let ends: Map<number, number> = new Map()

/** Throws unless the bytes are one JSON value. Returns its range, and the ends of large values within it by their starts. */
export function checkJson(bytes: Uint8Array): {
  readonly start: number
  readonly end: number
  readonly ends: ReadonlyMap<number, number>
} {
  const found = new Map<number, number>()
  ends = found
  const start = skipSpace(bytes, 0)
  const end = endOfValue(bytes, start, 0)
  ends = new Map()
  if (skipSpace(bytes, end) !== bytes.length) throw new Unfit('malformed')
  return { start, end, ends: found }
}

/** Returns the index after the value that begins at `at`. */
export function endOfValue(bytes: Uint8Array, at: number, depth: number): number {
  const byte = bytes[at]
  if (byte === quote) return endOfString(bytes, at)
  if (byte === 0x7b || byte === 0x5b) {
    if (depth >= maxNesting) throw new Unfit('nesting')
    const end = byte === 0x7b ? endOfObject(bytes, at, depth + 1) : endOfList(bytes, at, depth + 1)
    if (end - at >= large) ends.set(at, end)
    return end
  }
  if (byte === 0x74) return endOfWord(bytes, at, 'true')
  if (byte === 0x66) return endOfWord(bytes, at, 'false')
  return byte === 0x6e ? endOfWord(bytes, at, 'null') : endOfNumber(bytes, at)
}

function endOfObject(bytes: Uint8Array, start: number, depth: number): number {
  let at = skipSpace(bytes, start + 1)
  if (bytes[at] === 0x7d) return at + 1
  for (;;) {
    at = endOfValue(bytes, valueAfterName(bytes, endOfString(bytes, at)), depth)
    at = skipSpace(bytes, at)
    if (bytes[at] === 0x7d) return at + 1
    at = skipSpace(bytes, afterComma(bytes, at))
  }
}

function endOfList(bytes: Uint8Array, start: number, depth: number): number {
  let at = skipSpace(bytes, start + 1)
  if (bytes[at] === 0x5d) return at + 1
  for (;;) {
    at = skipSpace(bytes, endOfValue(bytes, at, depth))
    if (bytes[at] === 0x5d) return at + 1
    at = skipSpace(bytes, afterComma(bytes, at))
  }
}

export function afterComma(bytes: Uint8Array, at: number): number {
  if (bytes[at] !== 0x2c) throw new Unfit('malformed')
  return at + 1
}

/** Returns the index of the value of a member whose name ends before `end`. */
export function valueAfterName(bytes: Uint8Array, end: number): number {
  const at = skipSpace(bytes, end)
  if (bytes[at] !== 0x3a) throw new Unfit('malformed')
  return skipSpace(bytes, at + 1)
}

/** Returns the index after a string. */
export function endOfString(bytes: Uint8Array, start: number): number {
  if (bytes[start] !== quote) throw new Unfit('malformed')
  for (let at = start + 1; ; at++) {
    const byte = bytes[at]
    if (byte === quote) return at + 1
    if (byte === backslash) at = endOfEscape(bytes, at)
    else if (byte === undefined || byte < 0x20) throw new Unfit('malformed')
  }
}

/** Bytes after a backslash: `"`, `\`, `/`, b, f, n, r, t. */
const escapes: ReadonlySet<number | undefined> = new Set([0x22, 0x5c, 0x2f, 0x62, 0x66, 0x6e, 0x72, 0x74])

/** Returns the index of the last byte of an escape sequence. */
function endOfEscape(bytes: Uint8Array, at: number): number {
  const byte = bytes[at + 1]
  if (escapes.has(byte)) return at + 1
  if (byte !== 0x75) throw new Unfit('malformed')
  for (let index = at + 2; index < at + 6; index++) {
    const digit = bytes[index]
    const isHex = digit !== undefined && (isDigit(digit) || ((digit | 0x20) >= 0x61 && (digit | 0x20) <= 0x66))
    if (!isHex) throw new Unfit('malformed')
  }
  return at + 5
}

function endOfWord(bytes: Uint8Array, start: number, word: string): number {
  for (let index = 0; index < word.length; index++) {
    if (bytes[start + index] !== word.charCodeAt(index)) throw new Unfit('malformed')
  }
  return start + word.length
}

const isDigit = (byte: number | undefined): boolean => byte !== undefined && byte >= 0x30 && byte <= 0x39

/** Returns the index after one digit or more. */
function endOfDigits(bytes: Uint8Array, start: number): number {
  let at = start
  while (isDigit(bytes[at])) at++
  if (at === start) throw new Unfit('malformed')
  return at
}

function endOfNumber(bytes: Uint8Array, start: number): number {
  let at = bytes[start] === 0x2d ? start + 1 : start
  at = bytes[at] === 0x30 ? at + 1 : endOfDigits(bytes, at)
  if (bytes[at] === 0x2e) at = endOfDigits(bytes, at + 1)
  if (bytes[at] === 0x65 || bytes[at] === 0x45) {
    const sign = bytes[at + 1]
    at = endOfDigits(bytes, sign === 0x2b || sign === 0x2d ? at + 2 : at + 1)
  }
  return at
}
