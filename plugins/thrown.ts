/** Functions for values of any type that foreign code throws, returns or passes. */

export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown))
}

/** Describes a value of a wrong type for a message, without its text, which may be a secret. */
export function kindOf(value: unknown): string {
  if (value === '') return 'an empty text'
  if (typeof value === 'string') return 'a text'
  if (value === undefined || value === null) return String(value)
  if (typeof value !== 'object') return `a ${typeof value}`
  if (Array.isArray(value)) return 'a list'
  if (isThenable(value)) return 'a promise'
  if (value instanceof URL) return 'a URL'
  const keys = Object.keys(value).join(', ')
  return keys === '' ? 'an empty object' : `an object with the keys ${keys}`
}

export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
}

/**
 * Returns whether an error with a 5xx status was made to be a response, so that its message is meant for the client: it has
 * `expose: true`, or a class of http-errors or @fastify/error and a status other than 500. Other errors with a status may
 * come from a library that copies the status of a server it called, and may contain details that clients must not see.
 */
export function isMadeToRespond(error: Error): boolean {
  const { statusCode, expose } = error as { statusCode?: unknown; expose?: unknown }
  if (typeof statusCode !== 'number' || statusCode < 500 || statusCode > 599) return false
  if (expose === true) return true
  // If http-errors wrapped an existing error, `expose` is an own property; on its own classes it is inherited.
  const isOfHttpErrors = typeof expose === 'boolean' && !Object.hasOwn(error, 'expose')
  return statusCode > 500 && (isOfHttpErrors || error.name === 'FastifyError')
}
