/** The refusals of `edge.validation`: reasons, codes, and responses in the format of RFC 9457. */
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { STATUS_CODES } from '../../../node-http.ts'
import { keepProblem, problemOf } from '../../error-bodies.ts'
import { isObject } from '../../strict-json.ts'

const Invalid = createError('JW_REQUEST_INVALID', '%s', 400)
const UnknownPath = createError('JW_REQUEST_UNDOCUMENTED', '%s', 404)
const UnknownMethod = createError('JW_METHOD_UNDOCUMENTED', '%s', 405)
const MediaType = createError('JW_REQUEST_TYPE', '%s', 415)
const TooLarge = createError('JW_BODY_TOO_LARGE', '%s', 413)
const Busy = createError('JW_BODY_BUSY', '%s', 503)

/** Errors by reason. */
export const refusals = {
  validation_path: Invalid,
  validation_query: Invalid,
  validation_header: Invalid,
  validation_cookie: Invalid,
  validation_body: Invalid,
  validation_body_missing: Invalid,
  validation_json: Invalid,
  validation_duplicate_key: Invalid,
  validation_nesting: Invalid,
  validation_cost: Invalid,
  validation_unknown_path: UnknownPath,
  validation_unknown_method: UnknownMethod,
  validation_type: MediaType,
  validation_coding: MediaType,
  validation_body_size: TooLarge,
  validation_busy: Busy
} as const

export type Reason = keyof typeof refusals

/** The closed list of words that the access log and the metric have, documented in plugins/edge/access-log/README.md. */
export const validationReasons = Object.keys(refusals)

/** One error of a request, without its values. */
export type Violation =
  | { readonly pointer: string; readonly detail: string }
  | { readonly parameter: string; readonly in: string; readonly pointer?: string; readonly detail: string }

/** A refused request. */
export class Refusal extends Error {
  readonly reason: Reason
  readonly violations: readonly Violation[]
  /** Fields of the response. */
  readonly fields: Readonly<Record<string, string>>

  constructor(
    reason: Reason,
    message: string,
    violations: readonly Violation[] = [],
    fields: Readonly<Record<string, string>> = {}
  ) {
    super(message)
    this.reason = reason
    this.violations = violations
    this.fields = fields
  }

  get error() {
    return new refusals[this.reason](this.message)
  }

  get code(): string {
    return this.error.code
  }
}

/** Stores the refusal of a request until its response is made. */
export function keepRefusal(request: FastifyRequest, { code, message, violations }: Refusal): void {
  keepProblem(request, code, {
    type: `urn:jingwei:error:${code}`,
    detail: message,
    instance: `urn:jingwei:request:${encodeURIComponent(request.id)}`,
    ...(violations.length > 0 && { errors: violations })
  })
}

/** `preSerialization` hook that changes the body of the response to a refusal to the format of RFC 9457. */
export function asProblem(
  request: FastifyRequest,
  reply: FastifyReply,
  payload: unknown,
  done: (error: Error | null, payload: unknown) => void
): void {
  const { statusCode: status } = reply
  const isOfTable = isObject(payload) && payload.statusCode === status && payload.requestId === request.id
  const members = isOfTable ? problemOf(request, payload.code as string | undefined) : null
  if (!isOfTable || members === null) {
    done(null, payload)
    return
  }
  const { code, requestId } = payload
  const { type, ...others } = members
  reply.header('content-type', 'application/problem+json')
  done(null, { type, title: STATUS_CODES[status], status, code, requestId, ...others })
}
