/** Checks the responses of services before any byte of them is sent. */
import { isUtf8 } from 'node:buffer'
import type { Readable } from 'node:stream'
import createError from '@fastify/error'
import type { ValidateFunction } from 'ajv'
import type { FastifyReply, FastifyRequest, onSendHookHandler } from 'fastify'
import { discard } from '../../bridge/service-body.ts'
import { decoded } from '../../protocol/content-coding.ts'
import { mediaTypeOf, ruleFor } from '../../protocol/media-types.ts'
import { BodiesBusy, readBody } from '../../protocol/read-body.ts'
import { bodyFrom } from '../../protocol/request-body.ts'
import { NotStrictJson, parseStrictJson } from '../../strict-json.ts'
import { bounded } from './operation.ts'
import type { ValidationOptions } from './options.ts'
import { Refusal } from './refusals.ts'
import { detailOf, distinct, maskedPointer } from './violations.ts'

/** Functions by media range; null for bodies that are not checked. */
export type ResponseRule = readonly (readonly [range: string, validate: ValidateFunction | null])[]

/** Rules by status: `200`, `2XX`, `DEFAULT`. */
export interface ResponseRules {
  readonly rules: ReadonlyMap<string, ResponseRule>
  readonly names: ReadonlySet<string>
}

const InvalidResponse = createError(
  'JW_RESPONSE_INVALID',
  'The response of the service does not match its description',
  502
)

/** Result of a check, as the metric names it. */
export type Result = 'valid' | 'invalid' | 'unchecked'

/** A response that does not match. The texts have no part of the response, but for names that schemas define. */
class Mismatch extends Error {
  readonly pointer: string | undefined

  constructor(detail: string, pointer?: string) {
    super(detail)
    this.pointer = pointer
  }
}

/** Deepest nesting of a response. */
const maxDepth = 100

type Done = (error: Error | null, payload?: unknown) => void

/**
 * Returns the `onSend` hook for a route. `rulesOf` returns the rules for a request; null if there are none. A JSON body is
 * held in memory until it has been checked, up to `maxResponse`.
 */
export function responseHook(
  { maxResponse }: Pick<ValidationOptions, 'maxResponse'>,
  isEnforced: boolean,
  rulesOf: (request: FastifyRequest) => ResponseRules | null,
  count: (result: Result) => void
): onSendHookHandler {
  const end = (request: FastifyRequest, error: unknown, done: Done, payload: unknown): void => {
    if (!(error instanceof Mismatch)) {
      done(error as Error)
      return
    }
    count('invalid')
    const { message: detail, pointer } = error
    const consequence = isEnforced ? 'the client gets a 502' : 'it is passed on'
    request.log.warn(
      {
        route: request.routeOptions.config.route?.name,
        detail,
        ...(pointer !== undefined && { pointer })
      },
      `the response of the service does not match the OpenAPI document: ${consequence}`
    )
    if (isEnforced) done(new InvalidResponse())
    else done(null, payload)
  }
  return (request, reply, payload, done: Done) => {
    const found = isOfService(request, payload) ? rulesOf(request) : null
    if (found === null) {
      done(null, payload)
      return
    }
    const body = payload as Readable
    let validate: ValidateFunction | null
    try {
      validate = functionFor(found, request, reply)
    } catch (error) {
      end(request, error, done, payload)
      return
    }
    if (validate === null) {
      count('unchecked')
      done(null, payload)
      return
    }
    /** Ends the check of a response for which there is no memory. */
    const busy = (error: Error, rest: () => unknown): void => {
      count('unchecked')
      if (!isEnforced) {
        done(null, rest())
        return
      }
      request.refusalReason = 'validation_busy'
      discard(body)
      done(error)
    }
    const hold = request.server.bodyMemory.holdFor(request, reply)
    const take = (size: number) => hold.take(size)
    readBody(
      body,
      maxResponse,
      (error, bytes, chunks) => {
        const rest = () => bodyFrom(chunks, body)
        if (error instanceof BodiesBusy) busy(error, rest)
        else if (error !== null) done(error)
        else if (bytes === null) {
          end(request, new Mismatch(`the body is larger than ${maxResponse} bytes`), done, rest())
        } else {
          decoded(bytes, reply.getHeader('content-encoding'), maxResponse, (fault, plain) => {
            if (plain !== null && plain !== bytes && !take(plain.length)) {
              busy(new BodiesBusy(), () => bytes)
              return
            }
            try {
              if (plain === null) throw new Mismatch(fault)
              check(plain, validate, found.names)
            } catch (cause) {
              end(request, cause, done, bytes)
              return
            }
            count('valid')
            done(null, bytes)
          })
        }
      },
      take
    )
  }
}

const isOfService = ({ exchange }: FastifyRequest, payload: unknown): boolean =>
  Boolean(exchange) && typeof (payload as { pipe?: unknown } | null)?.pipe === 'function'

/** Returns the function for the body of a response; null if the body is not checked. */
function functionFor(
  { rules }: ResponseRules,
  { method }: FastifyRequest,
  reply: FastifyReply
): ValidateFunction | null {
  const { statusCode: status } = reply
  // Parts of a body, and responses to conditional requests, which are about another response.
  if (status === 206 || status === 304 || rules.size === 0) return null
  const rule = rules.get(String(status)) ?? rules.get(`${Math.floor(status / 100)}XX`) ?? rules.get('DEFAULT')
  if (rule === undefined) throw new Mismatch(`the document does not have the status ${status}`)
  if (rule.length === 0 || method === 'HEAD' || status === 204) return null
  const type = mediaTypeOf(reply.getHeader('content-type') as string | undefined)
  const validate = type === null ? undefined : ruleFor(rule, type.essence)
  if (validate === undefined) throw new Mismatch(`the document does not have the media type for the status ${status}`)
  if (validate !== null && !type!.isUtf8) throw new Mismatch('the charset is not UTF-8')
  return validate
}

function check(bytes: Buffer, validate: ValidateFunction, names: ReadonlySet<string>): void {
  if (!isUtf8(bytes)) throw new Mismatch('the body is not UTF-8')
  try {
    const { value } = parseStrictJson(bytes.toString(), maxDepth)
    if (bounded(bytes.length, () => validate(value) as boolean)) return
    const [error] = distinct(validate.errors)
    validate.errors = null
    throw new Mismatch(
      error === undefined ? 'is not valid' : detailOf(error),
      error && maskedPointer(error.instancePath, value, names)
    )
  } catch (error) {
    if (error instanceof NotStrictJson)
      throw new Mismatch(`the body is not JSON that all parsers read alike (${error.fault})`)
    if (error instanceof Refusal) throw new Mismatch('the body takes too much work to check')
    throw error
  }
}
