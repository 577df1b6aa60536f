/** Changes the bodies of requests, before the service or a plugin's route gets them. */
import type { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest, preParsingHookHandler } from 'fastify'
import { readWhole, replacedBody, unchangedBody } from '../../bridge/whole-request.ts'
import type { RecordRefusal } from '../../concern-refusals.ts'
import { isEncoded } from '../../protocol/content-coding.ts'
import { mediaTypeOf, typeFields } from '../../protocol/media-types.ts'
import { hasBody } from '../../protocol/request-body.ts'
import type { FieldTest } from '../../templates/client-fields.ts'
import type { Kind } from './refusals.ts'
import { reasons, refusalOf } from './refusals.ts'
import type { Step } from './rules.ts'
import { edited } from './rules.ts'
import { Unfit } from './scan.ts'

/** Counts a body by its result. */
export type Count = (result: 'changed' | 'unchanged' | 'refused') => void

/** Dependencies of the hooks of a route. */
export interface Deps {
  readonly steps: readonly Step[]
  readonly maxSize: number
  readonly shadow: RecordRefusal | null
  readonly count: Count
}

type Done = (error?: Error | null, payload?: Readable) => void

export function requestHook(deps: Deps, isUncounted: FieldTest): preParsingHookHandler {
  const { steps, maxSize, shadow, count } = deps
  const refuse = (kind: Exclude<Kind, 'part'>, request: FastifyRequest, done: Done, body: () => Readable): void => {
    const error = refusalOf(kind, maxSize)
    count('refused')
    if (shadow !== null) {
      shadow(request, error.code, reasons[kind])
      done(null, body())
      return
    }
    request.refusalReason = reasons[kind]
    done(error)
  }
  return (request: FastifyRequest, reply: FastifyReply, payload, done: Done) => {
    const body = payload as Readable
    const { raw } = request
    if (!hasBody(raw)) {
      done(null, body)
      return
    }
    const fields = typeFields(raw)
    const types = fields.length === 0 ? [null] : fields.map(mediaTypeOf)
    // Services read a malformed type in different ways, some of them as JSON.
    const isMalformed = fields.some((field, index) => field.trim() !== '' && types[index] === null)
    const fitting = steps.filter(({ hasType }) => types.some((type) => hasType(type?.essence ?? '')))
    if (fitting.length === 0 && !isMalformed) {
      done(null, body)
      return
    }
    const isUnclear = types.length > 1 || types[0]?.isUtf8 === false || (isMalformed && fitting.length < steps.length)
    if (isEncoded(request) || isUnclear) {
      if (shadow === null) reply.header('accept-encoding', 'identity')
      refuse('coding', request, done, () => body)
      return
    }
    readWhole(request, reply, body, { maxSize, isShadow: shadow !== null }, done, {
      refused: (why, rest) => refuse(why, request, done, rest),
      whole(bytes, take) {
        let result: Buffer
        try {
          // An empty chunked body has nothing to change.
          const scope = { request, isUncounted, response: null }
          result = bytes.length === 0 ? bytes : edited(bytes, fitting, scope, maxSize)
        } catch (cause) {
          if (cause instanceof Unfit) refuse(cause.fault, request, done, () => unchangedBody(raw, bytes))
          else done(cause as Error)
          return
        }
        if (result.length > bytes.length && !take(result.length - bytes.length)) {
          refuse('busy', request, done, () => unchangedBody(raw, bytes))
          return
        }
        count(result === bytes ? 'unchanged' : 'changed')
        done(null, result === bytes ? unchangedBody(raw, bytes) : replacedBody(request, result))
      }
    })
  }
}
