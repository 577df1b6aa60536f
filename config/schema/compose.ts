/** Schema of `routes[].compose`: a response that the gateway makes from the responses of several calls. */
import type { Static, TSchema } from 'typebox'
import { token } from '../../plugins/http-syntax.ts'
import type { MeshPolicy } from '../schema.ts'
import { Duration, Name, Names, Size, strict } from './kit.ts'
import Type from './type.ts'

const PointerTo = (description?: string) =>
  Type.String({
    pattern: '^[^/].*$|^(/[^/]+)+$',
    expected: 'a member or a JSON pointer such as /address/city',
    ...(description !== undefined && { description })
  })
const Pointer = PointerTo()
const Pointers = (description: string) => Type.Array(Pointer, { minItems: 1, maxItems: 256, description })
const Templates = Type.String({ expected: 'a text, which may have references such as {params.id}' })

const Edit = Type.Object(
  {
    move: Type.Optional(
      PointerTo(
        'Moves a value to `to`, which this step needs. Both are equal up to the last `*`: `/items/*/a`, `/items/*/b`.'
      )
    ),
    delete: Type.Optional(PointerTo('Removes a value.')),
    append: Type.Optional(
      PointerTo('Moves the items of a list to the end of the list at `to`, which this step needs.')
    ),
    flatten: Type.Optional(
      PointerTo(
        'Joins all lists that it matches into one at `to`. Without `to`, each list stays in its place, and only lists within it are joined.'
      )
    ),
    to: Type.Optional(PointerTo('Place of the result of `move`, `append` and `flatten`.'))
  },
  strict
)

/** Keys that change the shape of a value, in the order in which they apply. */
const reshaping = {
  pick: Type.Optional(Pointers('Members to keep; all others are dropped. In a pointer, `*` stands for all items.')),
  drop: Type.Optional(Pointers('Members to drop.')),
  rename: Type.Optional(
    Type.Unsafe<Record<string, string>>({
      type: 'object',
      patternProperties: { '^.+$': Pointer },
      minProperties: 1,
      maxProperties: 256,
      description: 'Members to rename or to move: `{ id: userId, /address/zip: postcode }`.'
    })
  ),
  edit: Type.Optional(
    Type.Array(Edit, {
      minItems: 1,
      maxItems: 64,
      description:
        'Steps, one after the other, each with one of `move`, `delete`, `append` and `flatten`. A step that matches nothing is skipped.'
    })
  )
}

const callKeys = {
  service: Type.String({ description: 'One of `services`.' }),
  method: Names(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'QUERY'], {
    default: 'GET',
    description: 'Method of the call.'
  }),
  path: Type.String({
    pattern: '^/',
    expected: 'a path that starts with /',
    description: 'Path of the call, a template. Values are percent-encoded; each stays within its segment.'
  }),
  query: Type.Optional(
    Type.Unsafe<Record<string, string>>({
      type: 'object',
      patternProperties: { '^.+$': Templates },
      maxProperties: 64,
      description: 'Query parameters: templates. A parameter whose value is missing is omitted; a list repeats it.'
    })
  ),
  headers: Type.Optional(
    Type.Unsafe<Record<string, string>>({
      type: 'object',
      expectedKey: 'a header name',
      patternProperties: { [token.source]: Templates },
      ...strict,
      maxProperties: 64,
      description: "Request headers: templates. The client's own headers are not sent, except by a template."
    })
  ),
  body: Type.Optional(
    Type.Unknown({
      description:
        'JSON body. A text that is one reference becomes its value, with its type; in other texts, values are inserted.'
    })
  ),
  as: Names(['json', 'text'], {
    default: 'json',
    description: 'text: the body of the response is a string, whatever its type.'
  }),
  required: Type.Boolean({
    default: true,
    description: 'false: if the call fails, the response is sent without this part, marked as incomplete.'
  }),
  default: Type.Optional(
    Type.Unknown({ description: 'Value in place of a part that is missing. With `required: false`.' })
  ),
  timeout: Type.Optional(
    Duration('The whole response of this call must arrive within this time. Default: `compose.timeout`.')
  ),
  maxSize: Size('Largest response body of this call.', { default: '1mb' }),
  passStatus: Type.Optional(
    Type.Array(Type.Integer({ minimum: 400, maximum: 499 }), {
      minItems: 1,
      description:
        'Statuses of a required call that become the status of the response, such as 404. With other statuses than 2xx it is 502.'
    })
  ),
  target: Type.Optional(
    Type.String({ pattern: '^(/[^/]*)+$', expected: 'a JSON pointer', description: 'Part of the body to take.' })
  ),
  ...reshaping,
  group: Type.Optional(
    Type.String({ minLength: 1, description: 'Key of the response under which the value is put. Lists need one.' })
  ),
  at: Type.Optional(
    Type.String({
      pattern: '^(/[^/]+)+$',
      expected: 'a JSON pointer',
      description: 'Place in the response, instead of `group`. With neither, the members are merged at the top.'
    })
  ),
  include: Type.Boolean({ default: true, description: 'false: the value is only for references of other calls.' })
}

const Addition = Type.Object(
  {
    when: Names(['always', 'complete', 'incomplete'], {
      default: 'always',
      description: 'incomplete: only if a part is missing.'
    }),
    value: Type.Unsafe<Record<string, unknown>>({ type: 'object', description: 'The members.' })
  },
  strict
)

const Composed = Type.Object(
  {
    ...reshaping,
    add: Type.Optional(
      Type.Array(Addition, { minItems: 1, maxItems: 16, description: 'Fixed members, which replace those of parts.' })
    ),
    status: Type.Integer({ minimum: 200, maximum: 299, default: 200, description: 'Status of the response.' }),
    statusOf: Type.Optional(
      Type.String({ description: 'Name of a required call whose status is that of the response, instead of `status`.' })
    ),
    headers: Type.Optional(
      Type.Unsafe<Record<string, string>>({
        type: 'object',
        expectedKey: 'a header name',
        patternProperties: { [token.source]: Templates },
        ...strict,
        maxProperties: 64,
        description: 'Response headers: templates, such as `{calls.order.headers.location}`. No others pass.'
      })
    )
  },
  {
    ...strict,
    default: {},
    description: 'The response: changes of the merged object, status and headers.'
  }
)

const own = {
  timeout: Duration('All calls must end within this time.', { default: '15s' }),
  maxSize: Size('Largest sum of the bodies of all calls.', { default: '4mb' }),
  maxBody: Size('Largest request body, if a template uses it.', { default: '1mb' }),
  response: Composed
}

/** Returns the schema; `more` are the keys of a call that concerns define. */
export const composeOf = <T extends Record<string, TSchema>>(more: T) =>
  Type.Object(
    {
      ...own,
      calls: Type.Record(Name, Type.Object({ ...callKeys, ...more }, strict), {
        ...strict,
        minProperties: 1,
        maxProperties: 32,
        description:
          'Calls by name. A call whose templates refer to another call waits for it; all others run at the same time.'
      })
    },
    {
      ...strict,
      description: 'Makes the response from several calls, instead of `service`. See routes/compose.md.'
    }
  )

const Compose = composeOf({})
type Composition = Static<typeof Compose>
type Call = Composition['calls'][string]
/** A call, with the settings of the mesh that it overrides. */
export interface CallConfig extends Call {
  readonly mesh?: Partial<MeshPolicy>
}
export interface ComposeConfig extends Omit<Composition, 'calls'> {
  readonly calls: Readonly<Record<string, CallConfig>>
}
export type Reshaping = Pick<Call, 'pick' | 'drop' | 'rename' | 'edit'>
export type EditStep = Static<typeof Edit>

declare module '../schema.ts' {
  interface RouteConfig {
    /** As the file has it; the policies of its calls are in `targets`. */
    readonly compose?: ComposeConfig
  }
  interface WrittenRoute {
    compose?: ComposeConfig
  }
}
