/** Values of text lines. They are printable ASCII, so no value can end a line, forge a column or control a terminal. */

/** Longest value, in characters; a longer one is cut. */
const longest = 8192

/** Returns a function that escapes what is not printable ASCII, `"`, `\` and the given characters, as `\xHH` for each byte. */
export function escaperFor(delimiters: string): (text: string) => string {
  const special = `"\\\\${delimiters.replace(/[\\\]^-]/g, '\\$&')}`
  const unsafe = new RegExp(`[^ -~]|[${special}]`)
  const each = new RegExp(unsafe, 'gu')
  return (text) => {
    const kept = text.length > longest ? text.slice(0, longest) : text
    return unsafe.test(kept) ? kept.replace(each, escapeOf) : kept
  }
}

/**
 * Returns a character as `\xHH` for each of its bytes. Node reads each byte of a header as a character up to U+00FF, which is
 * this byte again. Other characters are those of UTF-8; half a surrogate pair is U+FFFD there.
 */
function escapeOf(character: string): string {
  const bytes = character <= '\u00ff' ? [character.charCodeAt(0)] : [...Buffer.from(character)]
  return bytes.map((byte) => `\\x${byte.toString(16).toUpperCase().padStart(2, '0')}`).join('')
}

/** Characters that end a value which begins after another character. */
const closers: Readonly<Record<string, string>> = { '[': ']', '(': ')', '{': '}', '<': '>', "'": "'", '|': '|' }

/**
 * Returns the characters that a value must not have, besides those that are always escaped, so that its end can be found: the
 * one that follows it, and spaces unless the value is in quotes or brackets.
 */
export function delimitersOf(before: string, after: string, isQuoted: boolean): string {
  const next = /^[!-/:-@[-`{-~]/.exec(after)?.[0] ?? ''
  const isEnclosed = isQuoted || (next !== '' && closers[before.at(-1) ?? ''] === next)
  return isEnclosed && !after.startsWith(' ') ? next : ` ${next}`
}
