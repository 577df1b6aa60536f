/** Errors of composed routes. Those of the error table (plugins/edge/errors.ts) get their status and message there. */
import createError from '@fastify/error'

/** A value of the request cannot be used in a call. */
export const BadInput = createError('JW_COMPOSE_INPUT', 'The request has no usable value for %s: %s', 400)
export const BodyNotJson = createError('JW_COMPOSE_BODY', 'The request body is not JSON: %s', 400)
export const WrongType = createError('JW_COMPOSE_TYPE', 'The request body must have the type application/json', 415)
export const BodyTooLarge = createError('JW_BODY_TOO_LARGE', 'The body is larger than %d bytes', 413)

/** A response lacks a value, or has another shape than the composed response needs. */
export const WrongShape = createError('JW_UPSTREAM_SHAPE', 'call %s: %s', 502)
export const NotJson = createError('JW_UPSTREAM_NOT_JSON', 'call %s: %s', 502)
export const TooLarge = createError(
  'JW_UPSTREAM_BODY_TOO_LARGE',
  'call %s: the responses are larger than %d bytes',
  502
)
export const WrongStatus = createError('JW_UPSTREAM_STATUS', 'call %s: %s responded with status %d', 502)
export const Late = createError('JW_CALL_TIMEOUT', 'call %s: no response within %d ms', 504)
export const Broken = createError('JW_UPSTREAM_RESET', 'call %s: the response broke off', 502)

const PassedStatus = createError('JW_COMPOSE_STATUS', 'A service responded with status %d', 404)

/** Returns the error for a status that is passed on (`passStatus`): without the body of the service. */
export function passedStatus(status: number): Error {
  return Object.assign(new PassedStatus(status), { statusCode: status })
}
