/**
 * Parses the path of a request target for routing. Routes match decoded segments; the service gets the client's bytes.
 */
import { isUtf8 } from 'node:buffer'

/** Treatment of spellings that differ in one respect: refused if ambiguous, matched alike, or distinguished. */
export type Reading = 'guard' | 'ignore' | 'distinct'

/** Respects in which common servers read different spellings as the same path. */
export interface PathReadings {
  readonly case: Reading
  readonly trailingSlash: Reading
  readonly trailingDot: Reading
}

/** A path as routes match it. */
export interface ReadPath {
  /** Decoded segments, without empty ones and without path parameters. */
  readonly segments: readonly string[]
  readonly trailingSlash: boolean
  /** Segments in the readings of other servers: those that take `;` literally, or treat similar characters as slashes. Mostly none. */
  readonly others: readonly (readonly string[])[]
  /** True if some octets are not UTF-8; they are read as Latin-1. */
  readonly latin1: boolean
  /** The path without a trailing slash, if it needs no decoding or folding; null otherwise. */
  readonly plain: string | null
}

/** Represents an encoded slash within a segment. `%00`, which has the same representation, is refused. */
export const ENCODED_SLASH = '\0'

/** Matches characters that need decoding or may be folded. */
const unusual = /[^!-~]|[%;#A-Z]|\/\/|\.(?:\/|$)/

/** Parses the path of an origin-form target; null for other forms and for malformed escapes. */
export function readPath(target: string): ReadPath | null {
  if (target.charCodeAt(0) !== SLASH) return null
  const query = target.indexOf('?')
  let path = query === -1 ? target : target.slice(0, query)
  if (!unusual.test(path)) return new PlainPath(path)
  const fragment = path.indexOf('#')
  if (fragment !== -1) path = path.slice(0, fragment)
  let latin1 = false
  if (path.includes('%')) {
    if (malformedEscape.test(path)) return null
    const decoded = decode(path)
    path = decoded.text
    latin1 = decoded.latin1
  }
  const trailingSlash = path.length > 1 && path.charCodeAt(path.length - 1) === SLASH
  const all = path.split('/').filter(isNotEmpty)
  const hasParameters = path.includes(';')
  const segments = hasParameters ? all.map(withoutParameters).filter(isNotEmpty) : all
  const others = hasParameters ? [all] : []
  if (likeSlash.test(path)) others.push(segments.flatMap((segment) => segment.split(likeSlash)).filter(isNotEmpty))
  return { segments, trailingSlash, others, latin1, plain: null }
}

const SLASH = 47
const PERCENT = 37
const none: readonly (readonly string[])[] = []

/** The usual kind of path. It is split lazily, since a route is often found by the first segments. */
class PlainPath implements ReadPath {
  readonly plain: string
  readonly trailingSlash: boolean
  readonly others = none
  readonly latin1 = false

  constructor(path: string) {
    this.trailingSlash = path.length > 1 && path.charCodeAt(path.length - 1) === SLASH
    this.plain = this.trailingSlash || path.length === 1 ? path.slice(0, -1) : path
  }

  get segments(): readonly string[] {
    return this.plain === '' ? [] : this.plain.slice(1).split('/')
  }
}

/** Matches encoded slashes, and characters that servers with a smaller character set convert to `/` or `\\` (best fit). */
const likeSlash = /[\0\u2044\u2215\uff0f\uff3c]/

const malformedEscape = /%(?![\da-f]{2})/i
const beyondAscii = /[^\0-\x7f]/
const isNotEmpty = (segment: string) => segment !== ''

function withoutParameters(segment: string): string {
  const at = segment.indexOf(';')
  return at === -1 ? segment : segment.slice(0, at)
}

/** Matches valid UTF-8 sequences in a text of octets (RFC 3629, 4). */
const utf8Sequence =
  /[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}/g

function decode(path: string): { text: string; latin1: boolean } {
  const bytes = octetsOf(path)
  if (isUtf8(bytes)) return { text: bytes.toString(), latin1: false }
  return { text: bytes.toString('latin1').replace(utf8Sequence, characterOf), latin1: true }
}

/** Decodes a path with well-formed escapes into octets; encoded slashes become `ENCODED_SLASH`. */
function octetsOf(path: string): Buffer {
  const bytes = Buffer.allocUnsafe(path.length)
  let length = 0
  for (let at = 0; at < path.length; at++) {
    let code = path.charCodeAt(at)
    if (code === PERCENT) {
      code = (hexDigit(path.charCodeAt(at + 1)) << 4) | hexDigit(path.charCodeAt(at + 2))
      if (code === SLASH) code = ENCODED_SLASH.charCodeAt(0)
      at += 2
    }
    bytes[length++] = code
  }
  return bytes.subarray(0, length)
}

/** Returns the value of a hexadecimal digit. */
function hexDigit(code: number): number {
  return code < 58 ? code - 48 : (code | 32) - 87
}

function characterOf(sequence: string): string {
  let point = sequence.charCodeAt(0) & (0x7f >> sequence.length)
  for (let at = 1; at < sequence.length; at++) point = (point << 6) | (sequence.charCodeAt(at) & 0x3f)
  return String.fromCodePoint(point)
}

/** Respects in which differences are removed by folding. */
export interface Folding {
  readonly case: boolean
  readonly dot: boolean
}

/** Matches texts that folding may change: all except lower-case letters, digits and punctuation without a trailing dot. */
const mayFold = /[^!-@[-`{-~a-z]|\.$/

/** Returns one text for all spellings of a segment that some server reads as the same. */
export function fold(segment: string, { case: ignoresCase, dot }: Folding): string {
  if (!mayFold.test(segment)) return segment
  let text = segment
  if (ignoresCase) {
    // Servers map some non-ASCII characters to ASCII letters when they compare or convert: the Kelvin sign, full-width
    // letters, and the dotted capital I (Java's `equalsIgnoreCase`), whose lower case in JavaScript is two characters.
    if (beyondAscii.test(text)) text = text.normalize('NFKC').toUpperCase().replaceAll('\u0130', 'I')
    text = text.toLowerCase()
  }
  return dot ? trimmed(text) : text
}

/**
 * Removes what common servers trim from a segment: Windows and IIS drop trailing dots and spaces; Spring (`trimTokens`) and
 * .NET trim blanks at both ends, in Java all ASCII control characters, in .NET also U+0085 and U+00A0. Uses loops, since the
 * expression `[. ]+$` is quadratic.
 */
function trimmed(text: string): string {
  let end = text.length
  while (end > 0 && (isBlank(text.charCodeAt(end - 1)) || text.charCodeAt(end - 1) === DOT)) end--
  if (end === 0) return text
  let start = 0
  while (isBlank(text.charCodeAt(start))) start++
  return text.slice(start, end)
}

const DOT = 46
const isBlank = (code: number) => code <= 32 || (code >= 0x7f && code <= 0xa0)

/** Returns the prefix under which the gateway is registered in a Fastify instance, without a trailing slash. */
export function mountPoint({ prefix }: { readonly prefix: string }): string {
  return prefix.endsWith('/') ? prefix.slice(0, -1) : prefix
}
