/** `edge.authentication`: its options. */
import type { Static } from 'typebox'
import { Count, Duration, defaultsOf, HeaderName, Names, orOff, strict } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'

/** `realm` of a challenge. */
export const Realm = Type.String({
  pattern: '^[ !#-\\[\\]-~]+$',
  expected: 'printable ASCII without quotes and backslashes',
  default: 'jingwei',
  description: '`realm` in `WWW-Authenticate`.'
})

/** Way in which the gateway authenticates at a server for tokens. */
export const ClientAuth = (description: string) =>
  Names(['basic', 'post'], {
    default: 'basic',
    expected: 'basic (client_secret_basic) or post (client_secret_post)',
    description
  })

/** Option of methods that verify tokens in other places than `Authorization`. */
export const KeepAuthorization = Type.Boolean({
  default: false,
  description:
    'Pass on a bearer token in `Authorization` that this method does not verify, for a service that checks it itself. Default: it is removed, since a service behind a gateway may trust the bearer tokens that it gets.'
})

const Failures = Type.Object(
  {
    max: Count('Failed attempts in the window.', { default: 100 }),
    window: Duration('Length of the window.', { default: '1m' })
  },
  {
    ...strict,
    description:
      'Limit of failed attempts by `keyAuth`, `hmacAuth`, `messageSignature`, `basicAuth`, `jwt`, `introspection` and `authorizer` for one client address (IPv6: a /64 network). Above it, these credentials from the address get 429 until the window ends, valid ones, too. Of `jwt`, only wrong signatures count, and tokens that were verified before are accepted.'
  }
)

const Forwarded = (property: string) => Type.Optional(HeaderName(`Header with the consumer's ${property}.`))

const Forward = Type.Object(
  { id: Forwarded('id'), groups: Forwarded('groups'), tags: Forwarded('tags') },
  {
    ...strict,
    description:
      'Headers by which the service learns the consumer, whoever has authenticated it. Lists are joined by commas. Copies of these headers that clients send are removed, on every route that leads to the same service.'
  }
)

export const Authentication = Type.Object(
  {
    require: Names(['all', 'any'], {
      default: 'all',
      description:
        'With several of `mtlsAuth`, `keyAuth`, `hmacAuth`, `messageSignature`, `basicAuth`, `jwt`, `introspection`, `authorizer` and `oidc` on a route: `all` must accept the request, or `any` of them, tried in this order.'
    }),
    anonymous: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          'Consumer of requests without credentials, which are let in. Requests with wrong credentials are refused all the same.'
      })
    ),
    failures: orOff(Failures, { default: {} }),
    forward: Type.Optional(Forward)
  },
  { ...strict, description: 'Rules for the methods of authentication of a route, and what the service learns.' }
)

export type AuthenticationOptions = Static<typeof Authentication>

/** Options of a route without `authentication`. */
export const defaults: AuthenticationOptions = { require: 'all', failures: defaultsOf(Failures) }

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    authentication?: AuthenticationOptions | false
  }
}
