/** The form of an error in log lines: always an object, also of what is thrown and is no error. */
import { asError } from '../thrown.ts'

export interface LoggedError {
  readonly type: string
  /** Includes the messages of the causes. */
  readonly message: string
  readonly stack: string
  /** Own fields such as `code`: numbers, booleans and short texts. Objects may hold credentials, or a whole response. */
  readonly [field: string]: string | number | boolean
}

const mostCauses = 5
const longestText = 200

/** Names that cannot be fields, as the line has them from elsewhere, and one that undici gives to bytes of a response. */
const leftOut = new Set(['type', 'message', 'stack', 'name', 'data'])

export function loggedError(thrown: unknown): LoggedError {
  const error = asError(thrown)
  const chain = causesOf(error)
  const fields: Record<string, string | number | boolean> = {}
  for (const [name, value] of Object.entries(error)) if (!leftOut.has(name) && isPlain(value)) fields[name] = value
  return {
    type: error.constructor?.name || error.name,
    message: chain.map(textOf).join(': '),
    stack: chain.map(({ stack, message }) => stack ?? message).join('\ncaused by: '),
    ...fields
  }
}

function causesOf(error: Error): readonly Error[] {
  const chain = [error]
  for (let { cause } = error; cause instanceof Error && chain.length <= mostCauses; { cause } = cause) chain.push(cause)
  return chain
}

/** A refused connection to a name with several addresses is an AggregateError without a message. */
function textOf(error: Error & { code?: unknown }): string {
  return error.message || (typeof error.code === 'string' ? error.code : error.name)
}

function isPlain(value: unknown): value is string | number | boolean {
  return typeof value === 'string'
    ? value.length <= longestText
    : typeof value === 'number' || typeof value === 'boolean'
}
