/**
 * Reading of the path of a request target. Routes are matched on decoded segments; the bytes that go to the service
 * stay the client's.
 */
import { isUtf8 } from 'node:buffer'

/** Treatment of spellings that differ in one respect: refused where it matters, matched alike, or told apart. */
export type Reading = 'guard' | 'ignore' | 'distinct'

/** Respects in which common servers take different spellings for one path. */
export interface PathReadings {
  readonly case: Reading
  readonly trailingSlash: Reading
  readonly trailingDot: Reading
}

/** A path as routes see it. */
export interface ReadPath {
  /** Decoded; without empty segments and without path parameters. */
  readonly segments: readonly string[]
  readonly trailingSlash: boolean
  /** The segments as servers read them that take `;` for itself, or for a slash what is only like one. Mostly none. */
  readonly others: readonly (readonly string[])[]
  /** True if some of its octets are no UTF-8. They are read as Latin-1. */
  readonly latin1: boolean
  /** Its text, if the client wrote it as it is read and no folding changes it; without the slash at the end. */
  readonly plain: string | null
}

/** Stands for an encoded slash within a segment. `%00`, which reads the same, is refused. */
export const ENCODED_SLASH = '\0'

/** Characters that are read as something else than they are, or may be folded. */
const unusual = /[^!-~]|[%;#A-Z]|\/\/|\.(?:\/|$)/

/** Reads the path of an origin-form target; null for other forms and for escapes that are none. */
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

/** Most paths. Taken apart only where that is needed: a route is often found by its beginning. */
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

/** Encoded slashes, and characters that a server with a smaller character set converts to `/` or `\\` (best fit). */
const likeSlash = /[\0\u2044\u2215\uff0f\uff3c]/

const malformedEscape = /%(?![\da-f]{2})/i
const beyondAscii = /[^\0-\x7f]/
const isNotEmpty = (segment: string) => segment !== ''

function withoutParameters(segment: string): string {
  const at = segment.indexOf(';')
  return at === -1 ? segment : segment.slice(0, at)
}

/** The sequences that UTF-8 allows, among octets as characters (RFC 3629, 4). */
const utf8Sequence =
  /[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}/g

function decode(path: string): { text: string; latin1: boolean } {
  const bytes = octetsOf(path)
  if (isUtf8(bytes)) return { text: bytes.toString(), latin1: false }
  return { text: bytes.toString('latin1').replace(utf8Sequence, characterOf), latin1: true }
}

/** The octets that a path with well-formed escapes stands for, an encoded slash apart. */
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

/** The value of `0` to `9`, `A` to `F` and `a` to `f`. */
function hexDigit(code: number): number {
  return code < 58 ? code - 48 : (code | 32) - 87
}

function characterOf(sequence: string): string {
  let point = sequence.charCodeAt(0) & (0x7f >> sequence.length)
  for (let at = 1; at < sequence.length; at++) point = (point << 6) | (sequence.charCodeAt(at) & 0x3f)
  return String.fromCodePoint(point)
}

/** Respects that are folded away. */
export interface Folding {
  readonly case: boolean
  readonly dot: boolean
}

/** Everything that a folding may change: all but lower-case letters, digits and marks without a dot at the end. */
const mayFold = /[^!-@[-`{-~a-z]|\.$/

/** The same text for all spellings of a segment that a server may take for one. */
export function fold(segment: string, { case: ignoresCase, dot }: Folding): string {
  if (!mayFold.test(segment)) return segment
  let text = segment
  if (ignoresCase) {
    // Some characters beyond ASCII become letters of ASCII where a server compares or converts: the Kelvin sign, full
    // width, and the dotted capital I (Java's `equalsIgnoreCase`), of whose lower case JavaScript keeps the dot apart.
    if (beyondAscii.test(text)) text = text.normalize('NFKC').toUpperCase().replaceAll('\u0130', 'I')
    text = text.toLowerCase()
  }
  return dot ? trimmed(text) : text
}

/**
 * Windows and IIS drop dots and blanks at the end of a name; Spring (`trimTokens`) and .NET trim blanks at both ends, to
 * Java all control characters of ASCII, to .NET also U+0085 and U+00A0. Loops, since `[. ]+$` is quadratic.
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

/** Returns the prefix under which the gateway is registered in a Fastify instance, without a slash at its end. */
export function mountPoint({ prefix }: { readonly prefix: string }): string {
  return prefix.endsWith('/') ? prefix.slice(0, -1) : prefix
}
