/** `edge.body`: its options. */
import type { Static, TSchema } from 'typebox'
import { Either, Names, orOff, Size, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { rangePattern } from '../../protocol/media-types.ts'

const Pointer = Type.String({
  pattern: '^(?:/(?:[^~/]|~[01])*)+$',
  expected: 'a JSON pointer such as /user/name'
})

/** A pointer that may be that of the whole body. */
const PointerOrWhole = Type.String({
  pattern: '^(?:/(?:[^~/]|~[01])*)*$',
  expected: 'a JSON pointer such as /user/name, or "" for the whole body'
})

const List = (description: string) => Type.Optional(Type.Array(Pointer, { minItems: 1, description }))
const Values = (description: string) =>
  Type.Optional(Type.Record(Type.String(), Type.Unknown(), { minProperties: 1, description }))

const rules = {
  types: Type.Array(
    Type.String({ pattern: rangePattern, expected: 'a media range such as application/json or application/*+json' }),
    {
      minItems: 1,
      default: ['application/json', 'application/*+json'],
      description:
        'Media types of bodies that are changed. Others pass unchanged. `*/*`: any body, which must then be JSON.'
    }
  ),
  only: List('Pointers of the values that stay; all others are removed. `*` stands for all members or items.'),
  remove: List('Pointers of values to remove.'),
  rename: Type.Optional(
    Type.Record(Type.String(), PointerOrWhole, {
      minProperties: 1,
      description: 'Old pointer: new pointer. Moves a value; one that is at the new pointer is replaced.'
    })
  ),
  set: Values('Pointer: value. Replaces the value, or adds it. Texts in values are templates.'),
  add: Values('As `set`, but only if there is no value at the pointer.')
}

const order = 'In this order: `only`, `remove`, `rename`, `set`, `add`.'

const RequestRule = Type.Object(rules, {
  ...strict,
  description: `Changes JSON bodies of requests. ${order}`
})

const ResponseRule = Type.Object(
  {
    statuses: Type.Optional(
      Type.Array(
        Either({ type: 'string' }, Names(['2xx', '3xx', '4xx', '5xx']), Type.Integer({ minimum: 200, maximum: 599 }), {
          expected: 'a status of 200 to 599, or 2xx, 3xx, 4xx, 5xx'
        }),
        { minItems: 1, description: 'Statuses of responses that are changed. Default: all.' }
      )
    ),
    ...rules
  },
  { ...strict, description: `Changes JSON bodies of responses. ${order}` }
)

const oneOrSteps = <T extends TSchema>(rule: T, description: string) =>
  Type.Optional(Either({ type: 'array' }, Type.Array(rule, { minItems: 1, maxItems: 32 }), rule, { description }))

const Body = Type.Object(
  {
    request: oneOrSteps(
      RequestRule,
      'Rules for bodies of requests, or a list of rules, each of which changes the result of the one before.'
    ),
    response: oneOrSteps(
      ResponseRule,
      'Rules for bodies of responses, or a list of rules, each of which changes the result of the one before.'
    ),
    maxSize: Size('Largest body that is changed, at most 16mb. Larger ones of requests get 413, of responses 502.', {
      default: '1mb'
    })
  },
  { ...strict, description: 'Changes JSON bodies of requests to services, and of responses to clients.' }
)

export const BodyOrOff = orOff(Body)

/** The rules of one direction. `statuses` is that of responses. */
export type BodyRule = Static<typeof ResponseRule>

export interface BodyOptions {
  readonly request?: Static<typeof RequestRule> | Static<typeof RequestRule>[]
  readonly response?: BodyRule | BodyRule[]
  readonly maxSize: number
}

export const directions = ['request', 'response'] as const

/** Largest `maxSize`: a body is changed in one go, which takes some 15 ms per megabyte. */
export const largestSize = 16 * 1024 * 1024

/** Returns the rules of a direction, each with its place below it. */
export const rulesOf = (given: BodyRule | readonly BodyRule[] | undefined): (readonly [BodyRule, below: string])[] =>
  given === undefined
    ? []
    : Array.isArray(given)
      ? given.map((rule: BodyRule, index) => [rule, `/${index}`] as const)
      : [[given as BodyRule, '']]

/** Operations with values. */
export const valued = ['set', 'add'] as const

/** Returns all texts within a value, which are templates. */
export function textsIn(value: unknown): string[] {
  if (typeof value === 'string') return [value]
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(textsIn) : []
}
