import type { Static } from 'typebox'
import { Either, HeaderName, orOff, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

const Values = (description: string) =>
  Type.Optional(
    Type.Record(Type.String(), Either({ type: 'array' }, Type.Array(Text, { minItems: 1 }), Text), {
      minProperties: 1,
      description
    })
  )

const List = (description: string) =>
  Type.Optional(Type.Array(HeaderName('Name of a header.'), { minItems: 1, description }))

const operations = {
  remove: List('Headers to remove, in every spelling that services read alike, such as `x_user` for `x-user`.'),
  rename: Type.Optional(
    Type.Record(Type.String(), HeaderName('New name of the header.'), {
      minProperties: 1,
      description: 'Old name: new name. A header that has the new name is replaced.'
    })
  ),
  set: Values('Name: value, or a list of values. Replaces the header. Values are templates.'),
  add: Values('As `set`, but only if the header is absent.'),
  append: Values('As `set`, but adds to the values that the header has.')
}

const Request = Type.Object(
  {
    only: List(
      'Headers of the client that reach the service; others are removed, except those that describe the body or belong to a WebSocket handshake.'
    ),
    ...operations
  },
  {
    ...strict,
    minProperties: 1,
    description: 'Changes headers for the service. In this order: `only`, `remove`, `rename`, `set`, `add`, `append`.'
  }
)

const Response = Type.Object(
  {
    only: List(
      "Headers of the service that reach the client; others are removed, except those that describe the body. The gateway's own headers stay."
    ),
    ...operations
  },
  {
    ...strict,
    minProperties: 1,
    description:
      'Changes headers for the client, also those of error responses and other responses of the gateway. In the same order.'
  }
)

const Headers = Type.Object(
  { request: Type.Optional(Request), response: Type.Optional(Response) },
  { ...strict, description: 'Changes headers of requests to services, and of responses to clients.' }
)

export const HeadersOrOff = orOff(Headers)

export type HeadersOptions = Static<typeof Headers>

/** The operations of one direction. */
export type HeaderRules = Static<typeof Request>

/** Operations with values. */
export const valued = ['set', 'add', 'append'] as const

/** Returns the names and values of an operation. */
export const entriesOf = (values: HeaderRules['set']): (readonly [name: string, values: readonly string[]])[] =>
  Object.entries(values ?? {}).map(([name, value]) => [name, [value].flat()])
