/** JSON of log lines: the members that begin each line, and strings that cannot break a line or control a terminal. */
import { symbols } from 'pino'

/** `name` of all lines. */
export const logName = 'jingwei'

let stampedMs = 0
let stamp = ''

/** Returns the time as a JSON member in ISO 8601; formatted at most once per millisecond. */
export function timestamp(): string {
  const now = Date.now()
  if (now !== stampedMs) {
    stampedMs = now
    stamp = `,"time":"${new Date(now).toISOString()}"`
  }
  return stamp
}

/**
 * Characters that JSON.stringify does not escape, and that terminals and viewers may obey: DEL, the control characters above
 * ASCII (0x9b begins an ANSI sequence), line separators, and characters that are invisible or change the direction of a text.
 */
const unescaped = /[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/
const eachUnescaped = new RegExp(unescaped, 'g')

const escapeOf = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`

/** Returns a value in JSON that no terminal obeys. A value that JSON does not have is null. */
export const jsonValue = (value: unknown): string => (JSON.stringify(value) ?? 'null').replace(eachUnescaped, escapeOf)

/** Returns whether `jsonValue` escapes characters of a text that JSON.stringify does not. */
export const isHostile = (text: string | undefined): boolean => text !== undefined && unescaped.test(text)

/** Returns the function that writes lines to the destination of a logger; null if it is a logger of another kind. */
export function lineWriterOf(log: object): ((line: string) => void) | null {
  const stream: unknown = Reflect.get(log, symbols.streamSym)
  if (typeof stream !== 'object' || stream === null || !('batch' in stream)) return null
  const { batch } = stream
  return typeof batch === 'function' ? (line) => void batch.call(stream, line) : null
}
