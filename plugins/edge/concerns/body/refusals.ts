/** The refusals of `edge.body`: bodies of requests and of responses that cannot be changed. */
import createError from '@fastify/error'
import { BodiesBusy } from '../../protocol/read-body.ts'
import type { Fault } from './scan.ts'

const Invalid = createError('JW_BODY_INVALID', 'The body is not JSON that can be changed: %s', 400)
const MediaType = createError(
  'JW_BODY_CODING',
  'The body must have one media type, the charset UTF-8, and no content coding',
  415
)
const TooLarge = createError('JW_BODY_TOO_LARGE', 'The body is larger than %d bytes', 413)
const Response = createError(
  'JW_RESPONSE_UNCHANGEABLE',
  'The response of the service cannot be changed as configured',
  502
)

/** Reasons by fault. A closed list, documented in plugins/edge/access-log/README.md. */
export const reasons = {
  malformed: 'body_json',
  duplicate: 'body_duplicate_key',
  nesting: 'body_nesting',
  members: 'body_members',
  size: 'body_size',
  coding: 'body_coding',
  part: 'body_part',
  busy: 'body_busy'
} as const satisfies Record<Fault | 'coding' | 'part' | 'busy', string>

export type Kind = keyof typeof reasons

export const bodyReasons = Object.values(reasons)

const texts: Readonly<Record<Kind, string>> = {
  malformed: 'it is malformed',
  duplicate: 'a member that a rule names is there twice',
  nesting: 'it is nested too deeply',
  members: 'it has too many members',
  size: 'it is too large',
  coding: 'its content coding or charset cannot be read',
  part: 'it is a part of a body',
  busy: 'too many bodies are in memory'
}

export function refusalOf(kind: Exclude<Kind, 'part'>, maxSize: number): Error & { code: string } {
  if (kind === 'size') return new TooLarge(maxSize)
  if (kind === 'busy') return new BodiesBusy()
  return kind === 'coding' ? new MediaType() : new Invalid(texts[kind])
}

export const responseRefusal = (): Error & { code: string } => new Response()

/** Returns a fault as a text for the log. */
export const textOf = (kind: Kind): string => texts[kind]
