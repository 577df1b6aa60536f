/** `routes`: what a route matches and where it leads. */
import { METHODS } from 'node:http'
import Type from 'typebox'
import { viaHttpProxy } from './http-proxy.ts'
import { Either, HashOn, Name, Names, strict } from './kit.ts'

const startsWithSlash = { pattern: '^/', expected: 'a path that starts with /' }
const PathText = Type.String({
  ...startsWithSlash,
  description:
    'A prefix of whole segments (`/users`), or a pattern for the whole path: `/users/:id`, `/users/:id(^[0-9]+$)`, `/files/*` (all below). routes/README.md says which route wins.'
})

export const Match = Type.Object(
  {
    path: Either({ type: 'string' }, PathText, Type.Object({ exact: Type.String(startsWithSlash) }, strict)),
    methods: Type.Optional(
      Type.Array(Names(METHODS.filter((method) => method !== 'CONNECT')), {
        minItems: 1,
        description: 'GET brings HEAD. Default: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS.'
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
            '`*.example.com` is every name below it, at any depth, and not `example.com`. Case, the port that a client names, and a last dot do not matter. Without: all hosts.'
        }
      )
    ),
    headers: Type.Optional(Type.Record(Type.String(), Type.String(), { minProperties: 1 })),
    listeners: Type.Optional(
      Type.Array(Type.String(), {
        minItems: 1,
        description: 'Names of listeners (`listen[].name`). On others the route is not there. Without: all listeners.'
      })
    )
  },
  strict
)

/** All that is given must fit. */
const SplitMatch = Type.Object(
  {
    headers: Type.Optional(Type.Record(Type.String(), Type.String(), { minProperties: 1 })),
    cookies: Type.Optional(Type.Record(Type.String(), Type.String(), { minProperties: 1 })),
    consumers: Type.Optional(
      Type.Array(Type.String(), {
        minItems: 1,
        description:
          'Any of these consumers: the `sub` of their tokens; `ISSUER|SUB` where the routes accept several issuers.'
      })
    )
  },
  { ...strict, minProperties: 1, description: 'Calls that go here whatever the weights: a canary for some.' }
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
  { minItems: 1, description: 'Shares of the traffic; the first `match` that fits goes before the weights.' }
)

export const Route = Type.Object(
  {
    name: Name,
    match: Match,
    service: Type.Optional(Type.String({ description: 'One of `services`.' })),
    split: Type.Optional(Split),
    stickOn: Type.Optional(HashOn),
    path: Type.Optional(
      Type.Object(
        {
          strip: Type.Optional(
            Type.String({ ...startsWithSlash, description: 'Prefix taken off before the service sees it.' })
          ),
          rewrite: Type.Optional(
            Type.Object(
              { prefix: Type.String({ ...startsWithSlash, description: 'Put in place of the matched prefix.' }) },
              strict
            )
          ),
          encodedSlash: Type.Optional(
            Names(['refuse', 'pass'], {
              default: 'refuse',
              description: 'pass: `%2F` goes on to the service, which must tell it from `/`.'
            })
          ),
          parameters: Type.Optional(
            Names(['refuse', 'pass'], {
              default: 'refuse',
              description: 'pass: path parameters (`/users;v=1/7`) go on to the service. They are not matched.'
            })
          )
        },
        strict
      )
    ),
    ...viaHttpProxy,
    plugins: Type.Optional(
      Type.Array(Type.String(), {
        description:
          'Names of plugins with `scope: routes` whose hooks run on this route. They run in the order of `plugins`.'
      })
    )
  },
  strict
)
