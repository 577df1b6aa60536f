import type { Static } from 'typebox'
import { Either, Names, orOff, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { Claims, Scopes } from '../../claims.ts'

const list = (description: string) => Type.Optional(Type.Array(Text, { minItems: 1, description }))

const PathText = (more: object = {}) => Type.String({ pattern: '^/', expected: 'a path that starts with /', ...more })

const Path = Either(
  { type: 'string' },
  PathText(),
  Type.Object({ exact: PathText({ description: 'This path only.' }) }, strict)
)

const FieldValue = Either({ type: 'boolean' }, Type.Boolean(), Either({ type: 'array' }, Type.Array(Text), Text), {
  expected: 'true, false, a value, a list of values or an expression "/^…$/"'
})

export const days = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const

const Hour = (text: string, description: string) =>
  Type.String({
    pattern: '^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$',
    expected: 'a time such as 08:30',
    default: text,
    description
  })

const Time = Type.Object(
  {
    days: Type.Optional(Type.Array(Names(days), { minItems: 1, description: 'Days of the week. Default: all.' })),
    from: Hour('00:00', 'First minute.'),
    to: Hour('24:00', 'End. Before `from`: on the next day, and `days` are those on which the time begins.'),
    zone: Type.String({ minLength: 1, default: 'UTC', description: 'Time zone, such as `Europe/Berlin`.' })
  },
  { ...strict, description: 'Days and time of day.' }
)

const Rule = Type.Object(
  {
    name: Type.Optional(Type.String({ minLength: 1, description: 'Name, for `explain`.' })),
    action: Names(['allow', 'deny'], { description: 'Decision, if all conditions of the rule hold.' }),
    paths: Type.Optional(
      Type.Array(Path, {
        minItems: 1,
        description:
          'Paths as clients request them: `/a` and all below, `/a/:id` (one segment), `/a/*` (all below), or `{ exact: /a }`. A trailing slash makes no difference.'
      })
    ),
    methods: Type.Optional(
      Type.Array(Type.String({ pattern: '^[A-Z][A-Z-]*$', expected: 'a method in capitals' }), {
        minItems: 1,
        description: 'Methods. GET includes HEAD.'
      })
    ),
    headers: Type.Optional(
      Type.Record(Type.String(), FieldValue, {
        minProperties: 1,
        description:
          'Request headers, each with a value, a list of values, a regular expression `/^…$/`, `true` (present) or `false` (absent). Of a repeated header, one value is enough to deny, and all are needed to allow.'
      })
    ),
    consumers: list('Names of consumers; `"*"`: any consumer.'),
    groups: list('Groups of consumers.'),
    scopes: Type.Optional(Scopes('Scopes of the token, all of them.')),
    claims: Type.Optional(Claims('Claims of the token, as in `edge.acl.claims`.')),
    addresses: list('Addresses and CIDR ranges of clients, and `unix`, as in `edge.ipFilter.allow`.'),
    time: Type.Optional(Time)
  },
  strict
)

const Authorization = Type.Object(
  {
    rules: Type.Array(Rule, {
      minItems: 1,
      description: 'Rules in order. The first one whose conditions all hold decides.'
    }),
    default: Names(['deny', 'allow'], { default: 'deny', description: 'Decision for requests that no rule fits.' })
  },
  { ...strict, description: 'Ordered rules that allow or deny requests.' }
)

export const AuthorizationOrOff = orOff(Authorization)
export type AuthorizationOptions = Static<typeof Authorization>
export type RuleOptions = AuthorizationOptions['rules'][number]
export type RulePath = Static<typeof Path>
export type FieldValue = Static<typeof FieldValue>
export type TimeOptions = Static<typeof Time>
