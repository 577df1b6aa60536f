/** Errors of the gateway, in the documents of portals. */

/** Failures of every call to a service. */
export const ofServices: Readonly<Record<number, string>> = {
  502: 'The service responded with an error of the protocol, or could not be reached.',
  503: 'No instance of the service is available, or the gateway is overloaded.',
  504: 'The service did not respond in time.'
}

const text = { type: 'string' }

/** Formats of the gateway's errors. */
export const errorFormats = {
  json: {
    type: 'application/json',
    name: 'gateway.Error',
    schema: {
      type: 'object',
      required: ['statusCode', 'error', 'message'],
      properties: { statusCode: { type: 'integer' }, code: text, error: text, message: text, requestId: text }
    }
  },
  problem: {
    type: 'application/problem+json',
    name: 'gateway.Problem',
    schema: {
      type: 'object',
      required: ['type', 'title', 'status'],
      properties: {
        type: text,
        title: text,
        status: { type: 'integer' },
        detail: text,
        instance: text,
        code: text,
        requestId: text,
        errors: {
          type: 'array',
          items: { type: 'object', properties: { pointer: text, parameter: text, in: text, detail: text } }
        }
      }
    }
  }
} as const

export type Format = keyof typeof errorFormats

/** Errors of one status. */
export interface GatewayError {
  readonly texts: Set<string>
  readonly formats: Set<Format>
}

/** Statuses whose responses have `Retry-After`. */
export const hasRetryAfter: ReadonlySet<string> = new Set(['429', '503'])
