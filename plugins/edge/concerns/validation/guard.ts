/** Checks the requests of one route. */
import type { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { readWhole, unchangedBody } from '../../bridge/whole-request.ts'
import type { RecordRefusal } from '../../concern-refusals.ts'
import { isEncoded } from '../../protocol/content-coding.ts'
import { mediaTypeOf, typeFields } from '../../protocol/media-types.ts'
import { hasBody } from '../../protocol/request-body.ts'
import type { Operation } from './operation.ts'
import { checkBody, checkPlaces, contentRule } from './operation.ts'
import type { ValidationOptions } from './options.ts'
import { keepRefusal, Refusal } from './refusals.ts'
import type { ResponseRules } from './responses.ts'
import type { In, Texts } from './values.ts'
import { cookieTexts, headerTexts, queryTexts, searchOf } from './values.ts'

type Limits = Pick<ValidationOptions, 'maxBody' | 'maxDepth' | 'maxErrors'>

type Done = (error?: Error | null, payload?: Readable) => void

/** Rules for a request, and the parameters of its path if the rules know them. */
export interface Found {
  readonly operation: Operation
  readonly path: Texts | null
  /** Rules for the response. */
  readonly responses?: ResponseRules
}

/** Returns whether a request is a CORS preflight without a body, which describes another request. */
const isPreflight = ({ raw, method }: FastifyRequest): boolean =>
  method === 'OPTIONS' && raw.headers['access-control-request-method'] !== undefined && !hasBody(raw)

export class Guard {
  /** Returns the rules for a request; null if it is passed on without a check. Throws a refusal. */
  readonly #operationFor: (request: FastifyRequest) => Found | null
  readonly #pathTexts: (request: FastifyRequest) => Texts
  readonly #options: Limits
  /** True if bodies that the document does not have are refused. */
  readonly #refusesUnread: boolean
  readonly #count: (reason: string) => void
  readonly #responses = new WeakMap<FastifyRequest, ResponseRules>()
  readonly #shadow: RecordRefusal | null

  constructor(
    operationFor: (request: FastifyRequest) => Found | null,
    pathTexts: (request: FastifyRequest) => Texts,
    options: Limits & Pick<ValidationOptions, 'openapi' | 'unread'>,
    count: (reason: string) => void,
    shadow: RecordRefusal | null
  ) {
    this.#operationFor = operationFor
    this.#pathTexts = pathTexts
    this.#options = options
    this.#refusesUnread = options.openapi !== undefined && options.unread === 'refuse'
    this.#count = count
    this.#shadow = shadow
  }

  /** Returns the rules for the response to a request that was checked. */
  responseRules(request: FastifyRequest): ResponseRules | null {
    return this.#responses.get(request) ?? null
  }

  check(request: FastifyRequest, reply: FastifyReply, payload: Readable, done: Done): void {
    if (isPreflight(request)) {
      done(null, payload)
      return
    }
    try {
      const found = this.#operationFor(request)
      if (found === null) {
        done(null, payload)
        return
      }
      if (found.responses !== undefined) this.#responses.set(request, found.responses)
      const { operation, path } = found
      const texts = (where: In): Texts => {
        if (where === 'query') return queryTexts(searchOf(request.raw.url!))
        if (where === 'header') return headerTexts(request)
        return where === 'cookie' ? cookieTexts(request) : (path ?? this.#pathTexts(request))
      }
      checkPlaces(operation, texts, this.#options)
      if (operation.body === null) {
        if (this.#refusesUnread && hasBody(request.raw)) {
          throw new Refusal('validation_type', 'The document has no body for this operation')
        }
        done(null, payload)
      } else this.#checkBody(operation, request, reply, payload, done)
    } catch (error) {
      this.#refuse(error, request, reply, done, () => payload)
    }
  }

  #checkBody(operation: Operation, request: FastifyRequest, reply: FastifyReply, payload: Readable, done: Done): void {
    const { raw, method } = request
    const body = operation.body!
    if (!hasBody(raw)) {
      if (body.isRequired(method)) throw new Refusal('validation_body_missing', 'The request must have a body')
      done(null, payload)
      return
    }
    const fields = typeFields(raw)
    const type = mediaTypeOf(fields.length === 1 ? fields[0] : undefined)
    const rule = contentRule(body, type)
    if (rule === null) {
      done(null, payload)
      return
    }
    if (isEncoded(request)) {
      throw new Refusal('validation_coding', 'The body must have no content coding', [], {
        'accept-encoding': 'identity'
      })
    }
    const { maxBody } = this.#options
    const reading = { maxSize: maxBody, isShadow: this.#shadow !== null }
    const refuse = (error: unknown, rest: () => Readable) => this.#refuse(error, request, reply, done, rest)
    readWhole(request, reply, payload, reading, done, {
      refused(why, rest) {
        const refusal =
          why === 'size'
            ? new Refusal('validation_body_size', `The body is larger than ${maxBody} bytes`)
            : new Refusal('validation_busy', 'Too many bodies are in memory')
        refuse(refusal, rest)
      },
      whole: (bytes) => {
        try {
          // An empty chunked body.
          if (bytes.length > 0) checkBody(bytes, type!.essence, rule, operation, this.#options)
          else if (body.isRequired(method)) throw new Refusal('validation_body_missing', 'The request must have a body')
        } catch (cause) {
          refuse(cause, () => unchangedBody(raw, bytes))
          return
        }
        done(null, unchangedBody(raw, bytes))
      }
    })
  }

  #refuse(error: unknown, request: FastifyRequest, reply: FastifyReply, done: Done, body: () => Readable): void {
    if (reply.sent) return
    const refusal = error instanceof Refusal ? error : null
    if (refusal !== null) this.#count(refusal.reason)
    if (this.#shadow !== null) {
      // Without an error: the hook has read the body, and hands it on.
      if (refusal === null) request.log.error({ err: error }, 'a concern in shadow mode failed: the request goes on')
      this.#shadow(request, refusal?.code ?? 'JW_INTERNAL', refusal?.reason)
      done(null, body())
    } else if (refusal === null) done(error as Error)
    else {
      request.refusalReason = refusal.reason
      keepRefusal(request, refusal)
      reply.headers(refusal.fields)
      done(refusal.error)
    }
  }
}
