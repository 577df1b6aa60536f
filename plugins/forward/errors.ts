import type { SeamError, SeamErrorCode, SeamReason } from '../seam.ts'

/** Codes of errors that calls without the mesh have themselves. Errors of connections have the codes of Node and undici. */
const messages = {
  JW_NO_SERVICE: 'no such service',
  JW_CALL_TIMEOUT: 'the service did not respond within the timeout',
  JW_RESPONSE_TIMEOUT: 'the response took longer than its timeout',
  JW_OVERLOADED: 'concurrency limit reached',
  JW_MESH_CLOSED: 'the gateway is closing'
} as const satisfies Partial<Record<SeamErrorCode, string>>

export class ForwardError extends Error implements SeamError {
  override readonly name = 'ForwardError'
  readonly code: keyof typeof messages
  readonly reason: SeamReason | undefined

  constructor(code: keyof typeof messages, service: string, reason?: SeamReason) {
    super(`${service}: ${messages[code]}`)
    this.code = code
    this.reason = reason
  }
}
