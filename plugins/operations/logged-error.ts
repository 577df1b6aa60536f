/** Serializer for errors in log lines: always an object, also for thrown values that are not errors. */
import { asError } from '../thrown.ts'

interface LoggedError {
  readonly type: string
  /** The message, followed by those of the causes. */
  readonly message: string
  readonly stack: string
  /** Own properties such as `code`: numbers, booleans and short texts. Objects are left out, as they may hold credentials. */
  readonly [field: string]: string | number | boolean
}

const mostCauses = 5
const longestText = 200

/** Properties that are not copied: those set from elsewhere, and undici's `data`, which has bytes of a response. */
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
