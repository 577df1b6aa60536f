import type { SeamError, SeamErrorCode, SeamReason } from '../seam.ts'

/** Codes of errors that calls without the mesh have themselves. Errors of connections have the codes of Node and undici. */
const messages = {
  JW_NO_SERVICE: 'no such service',
  JW_CALL_TIMEOUT: 'the service did not respond within the timeout',
  JW_RESPONSE_TIMEOUT: 'the response took longer than its timeout',
  JW_OVERLOADED: 'concurrency limit reached',
  JW_UPSTREAM_MALFORMED: 'the response is not valid HTTP/1.1',
  JW_BAD_UPGRADE: 'the service switched protocols without being asked',
  JW_MESH_CLOSED: 'the gateway is closing'
} as const satisfies Partial<Record<SeamErrorCode, string>>

export class ForwardError extends Error implements SeamError {
  override readonly name = 'ForwardError'
  readonly code: keyof typeof messages
  readonly reason: SeamReason | undefined

  constructor(code: keyof typeof messages, service: string, { reason, cause }: Details = {}) {
    super(`${service}: ${(reason && reasons[reason]) ?? messages[code]}`, cause && { cause })
    this.code = code
    this.reason = reason
  }
}

interface Details {
  readonly reason?: SeamReason
  readonly cause?: Error
}

const reasons: Partial<Record<SeamReason, string>> = {
  continue_unasked: 'the service sent 100 Continue, which no request asked for and which undici refuses'
}

/**
 * Returns the error that a caller gets for one of undici. For responses that its parser refuses, undici has the code of a
 * closed connection, and only the message tells them apart.
 */
export function callError(error: Error, service: string): Error {
  if ((error as { code?: unknown }).code !== 'UND_ERR_SOCKET') return error
  if (error.message === 'bad upgrade') return new ForwardError('JW_BAD_UPGRADE', service, { cause: error })
  if (error.message !== 'bad response') return error
  return new ForwardError('JW_UPSTREAM_MALFORMED', service, { reason: 'continue_unasked', cause: error })
}
