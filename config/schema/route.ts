/** Schema of `routes`: matching, service, path and options of a route. */
import { METHODS } from '../../plugins/node-http.ts'
import { directKeys } from './direct.ts'
import { viaHttpProxy } from './http-proxy.ts'
import { Either, HashOn, Name, Names, strict } from './kit.ts'
import Type from './type.ts'

const startsWithSlash = { pattern: '^/', expected: 'a path that starts with /' }
const OnePath = Either(
  { type: 'string' },
  Type.String(startsWithSlash),
  Type.Object({ exact: Type.String(startsWithSlash) }, strict)
)

/** A condition for one header, parameter or cookie. */
const ValueCondition = Either(
  { type: 'string' },
  Type.String(),
  Type.Object(
    {
      regex: Type.Optional(
        Type.String({ description: 'Regular expression for the whole value, `^…$`. Its cost is linear.' })
      ),
      present: Type.Optional(Type.Boolean({ description: 'true: with any value, also an empty one. false: absent.' }))
    },
    { ...strict, minProperties: 1 }
  ),
  { expected: 'a value in quotes, { regex: ^…$ } or { present: true }' }
)

const valueConditions = (description: string) =>
  Type.Optional(Type.Record(Type.String(), ValueCondition, { minProperties: 1, description }))

export const Match = Type.Object(
  {
    path: Either({ type: 'array' }, Type.Array(OnePath, { minItems: 1 }), OnePath, {
      expected:
        'a path that starts with /, such as /users or /users/:id(^[0-9]+$), { exact: /path }, or a list of these',
      description:
        'A prefix that ends at a segment boundary (`/users` also matches `/users/7`), a pattern (`/users/:id`, `/users/:id(^[0-9]+$)`, `/files/*`, `/api/v*`), `{ exact: /path }`, or a list of these. See routes/README.md.'
    }),
    methods: Type.Optional(
      Type.Array(Names(METHODS.filter((method) => method !== 'CONNECT')), {
        minItems: 1,
        description: 'GET includes HEAD. Default: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS.'
      })
    ),
    hosts: Type.Optional(
      Type.Array(
        Type.String({
          pattern: '^(\\*\\.)?[^\\s*:/?#@%]+$|^\\[[0-9A-Fa-f:.]+\\]$',
          expected: 'a host name such as api.example.com or *.example.com, or an IPv6 address in brackets'
        }),
        {
          minItems: 1,
          description:
            '`*.example.com` matches every name below `example.com`, at any depth, but not `example.com` itself. Case, port and a trailing dot are ignored. Default: all hosts.'
        }
      )
    ),
    headers: valueConditions('Conditions for request headers. Names are matched in any case, values exactly.'),
    query: valueConditions('Conditions for query parameters, decoded.'),
    cookies: valueConditions('Conditions for cookies.'),
    addresses: Type.Optional(
      Type.Array(Type.String(), {
        minItems: 1,
        description: 'Addresses and ranges (CIDR) of clients; behind `listen.trustProxy`, of the forwarded address.'
      })
    ),
    listeners: Type.Optional(
      Type.Array(Type.String(), {
        minItems: 1,
        description: 'Names of the listeners (`listen[].name`) on which the route exists. Default: all listeners.'
      })
    )
  },
  strict
)

/** The match of a group; the path may be that of the routes. */
export const GroupMatch = Type.Object({ ...Match.properties, path: Type.Optional(Match.properties.path) }, strict)

export const Priority = Type.Integer({
  minimum: -1000,
  maximum: 1000,
  description: 'Routes with a higher priority are tried first, whatever their hosts and paths.'
})

/** Conditions of a share. All that are set must match. */
const SplitMatch = Type.Object(
  {
    headers: Type.Optional(Type.Record(Type.String(), Type.String(), { minProperties: 1 })),
    cookies: Type.Optional(Type.Record(Type.String(), Type.String(), { minProperties: 1 })),
    consumers: Type.Optional(
      Type.Array(Type.String(), {
        minItems: 1,
        description:
          'One of these consumers: the `sub` of their tokens, or `ISSUER|SUB` if the route accepts several issuers.'
      })
    )
  },
  {
    ...strict,
    minProperties: 1,
    description: 'Calls that go to this share regardless of the weights, such as those of canary testers.'
  }
)

export const Split = Type.Array(
  Type.Object(
    {
      service: Type.String(),
      subset: Type.Optional(Type.String({ description: "One of that service's `subsets`." })),
      weight: Type.Integer({ minimum: 0, maximum: 65535, default: 0 }),
      match: Type.Optional(SplitMatch)
    },
    strict
  ),
  {
    minItems: 1,
    description:
      'Distribution of the calls over several services. The first share whose `match` fits is chosen; calls that fit none are distributed by weight.'
  }
)

export const Route = Type.Object(
  {
    name: Name,
    match: Match,
    group: Type.Optional(Type.String({ description: 'One of `groups`, whose settings the route shares.' })),
    priority: { ...Priority, default: 0 },
    service: Type.Optional(Type.String({ description: 'One of `services`.' })),
    split: Type.Optional(Split),
    stickOn: Type.Optional(HashOn),
    path: Type.Optional(
      Type.Object(
        {
          strip: Type.Optional(
            Either({ const: true }, Type.Literal(true), Type.String(startsWithSlash), {
              expected: 'true or a path that starts with /',
              description:
                'Prefix that is removed from the path before the call: the first segments of each path of `match`, with their parameters (`/t/:tenant`). true: all that precedes the rest of the path.'
            })
          ),
          rewrite: Type.Optional(
            Type.Object(
              {
                prefix: Type.Optional(
                  Type.String({ ...startsWithSlash, description: 'Path that replaces the matched prefix.' })
                ),
                path: Type.Optional(
                  Type.String({
                    ...startsWithSlash,
                    description:
                      'Path that replaces the whole path, with parameters of `match.path`: `/v2/user/:id`, `/v2/*` with the rest of the path.'
                  })
                ),
                regex: Type.Optional(
                  Type.String({
                    description:
                      'Regular expression for the whole path, `^…$`. Paths that do not match stay as they are.'
                  })
                ),
                to: Type.Optional(
                  Type.String({
                    ...startsWithSlash,
                    description: 'Path that replaces one that `regex` matches, with its groups: `/v2/$1`.'
                  })
                )
              },
              { ...strict, minProperties: 1 }
            )
          ),
          encodedSlash: Type.Optional(
            Names(['refuse', 'pass'], {
              default: 'refuse',
              description:
                'Treatment of `%2F` in the path. refuse: 400. pass: forwarded; the service must distinguish it from `/`.'
            })
          ),
          parameters: Type.Optional(
            Names(['refuse', 'pass'], {
              default: 'refuse',
              description:
                'Treatment of path parameters (`/users;v=1/7`). refuse: 400. pass: forwarded; matching ignores them.'
            })
          )
        },
        strict
      )
    ),
    ...directKeys,
    ...viaHttpProxy,
    plugins: Type.Optional(
      Type.Array(Type.String(), {
        description:
          'Names of plugins with `scope: routes` whose hooks run on this route, in the order of the top-level `plugins`.'
      })
    )
  },
  strict
)
