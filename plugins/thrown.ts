/** Values that other people's code throws or returns, of any type. */

export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown))
}

export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
}

/**
 * Returns whether an error with a status of 5xx was made to be a response, so that its message is meant for the client:
 * it has `expose: true`, or it is of a class of http-errors or @fastify/error and no 500. Others, also with a status, may
 * be of a library that takes over the status of a server it has called, and tell what the client must not learn.
 */
export function isMadeToRespond(error: Error): boolean {
  const { statusCode, expose } = error as { statusCode?: unknown; expose?: unknown }
  if (typeof statusCode !== 'number' || statusCode < 500 || statusCode > 599) return false
  if (expose === true) return true
  // Of an error that http-errors was given to wrap, `expose` is a property of its own.
  const isOfHttpErrors = typeof expose === 'boolean' && !Object.hasOwn(error, 'expose')
  return statusCode > 500 && (isOfHttpErrors || error.name === 'FastifyError')
}
