/** `edge.jwt`: its options. */
import type { Static } from 'typebox'
import {
  Count,
  Duration,
  DurationOrZero,
  Either,
  HeaderName,
  Mode,
  Names,
  oneOrMany,
  orOff,
  Period,
  Size,
  strict,
  Text,
  Url
} from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { tokenPattern } from '../../../http-syntax.ts'
import { KeepAuthorization, Realm } from '../../authentication/options.ts'
import { Claims, Scopes } from '../../claims.ts'

export const algorithms = [
  'HS256', 'HS384', 'HS512', 'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'
] as const // biome-ignore format: a table

/** The key of an issuer, and what is checked with it. */
const source = {
  secret: Type.Optional(Type.String({ minLength: 32, description: 'Shared secret for HS256/384/512.' })),
  publicKey: Type.Optional(Type.String({ description: 'Public key in PEM form, or the path of a file with one.' })),
  jwks: Type.Optional(Url('http', 'URL of the key set (RFC 7517).')),
  discovery: Type.Optional(
    Either({ const: true }, Type.Literal(true), Url('http', 'URL of the metadata.'), {
      description:
        'Find the key set by the metadata of the `issuer` (OpenID Connect Discovery, RFC 8414): `true` for those at ISSUER`/.well-known/openid-configuration`, or their URL. Metadata of another issuer are refused.'
    })
  ),
  audience: Type.Optional({
    ...oneOrMany,
    description: 'If set, a token must have the claim `aud` with at least one of these values.'
  }),
  algorithms: Type.Optional(
    Type.Array(Names(algorithms), {
      minItems: 1,
      description: 'Accepted signature algorithms. Default: all that the key can verify.'
    })
  )
}

const ForwardTo = HeaderName('Header that carries the claim to the service.')

const From = Type.Object(
  {
    header: orOff(HeaderName('Header with the token.'), {
      default: 'authorization',
      description: 'Header with the token: `Authorization` with the scheme `Bearer`, other headers with it or without.'
    }),
    query: Type.Optional({ ...Text, description: 'Query parameter with the token.' }),
    cookie: Type.Optional(
      Type.String({
        pattern: `^${tokenPattern}$`,
        expected: 'the name of a cookie',
        description: 'Cookie with the token.'
      })
    )
  },
  {
    ...strict,
    default: {},
    description: 'Places of the token. A request with more than one token is refused, wherever the tokens are.'
  }
)

export const Jwt = Type.Object(
  {
    ...source,
    jwksMaxAge: Duration('Age at which the key set is fetched again, in the background.', { default: '10m' }),
    jwksCooldown: DurationOrZero(
      'Shortest time between two fetches that tokens with unknown key ids cause; such tokens are refused meanwhile. A fetch that fails is retried every second.',
      { default: '30s' }
    ),
    issuer: Type.Optional(oneOrMany),
    issuers: Type.Optional(
      Type.Array(Type.Object({ issuer: { ...Text, description: '`iss` of the tokens.' }, ...source }, strict), {
        minItems: 1,
        description: 'Several issuers, each with its own key. The `iss` of a token selects the key that verifies it.'
      })
    ),
    requireExp: Type.Boolean({
      default: true,
      description: 'Refuse tokens without `exp`, which are valid for ever. If a token has it, it is always checked.'
    }),
    clockSkew: DurationOrZero('Tolerated difference between clocks when `exp`, `nbf` and `iat` are checked.', {
      default: '5s'
    }),
    from: From,
    optional: Type.Boolean({
      default: false,
      description:
        'Let requests without a token in, without a consumer. Requests with a wrong token are refused all the same.'
    }),
    scopes: Type.Optional(
      Scopes('Scopes that a token must have, all of them, in its claim `scope` or `scp`. Without them: 403.')
    ),
    claims: Type.Optional(
      Claims(
        'Claims that a token must have, by name or path, each with a value or a list of possible ones. As `acl.claims`. Without them: 403.'
      )
    ),
    acrValues: Type.Optional(
      Type.Array(Type.String({ pattern: '^[!#-[\\]-~]+$', expected: 'an acr, without blanks and quotes' }), {
        minItems: 1,
        description:
          'Authentication context classes of which the token must have one, in its claim `acr`. Without them: 401 with these values, so that the client can log the user in again (RFC 9470).'
      })
    ),
    maxAuthAge: Type.Optional(
      Period('Longest time since the user has logged in: the claim `auth_time` of the token. After it: 401 (RFC 9470).')
    ),
    boundTokens: Names(['check', 'require', 'ignore'], {
      default: 'check',
      description:
        'Tokens that are bound to a client certificate by `cnf.x5t#S256` (RFC 8705). `check`: they are accepted with this certificate only. `require`: other tokens are refused. `ignore`: they are accepted from anybody.'
    }),
    consumer: Type.String({
      minLength: 1,
      default: 'sub',
      description:
        'Claim with the name of the consumer, by its name or a path. `consumers[].jwt.sub` is compared with it.'
    }),
    hideCredentials: Type.Optional(
      Type.Boolean({
        description:
          'Remove the token from the request to the service. Default: only from other places than `Authorization`. Tokens that were not verified are always removed, also bearer tokens in `Authorization` if `from` has another header (`keepAuthorization`).'
      })
    ),
    keepAuthorization: KeepAuthorization,
    realm: Realm,
    mode: Mode,
    forward: Type.Optional(
      Type.Record(Type.String(), Either({ type: 'array' }, Type.Array(ForwardTo, { minItems: 1 }), ForwardTo), {
        description:
          'Claims sent to the service, as `claim: header`, or `claim: [header, header]`. `realm_access.roles` means the claim of that name or else `roles` within `realm_access`. Lists are joined by commas; texts with characters other than printable ASCII, or with a percent-encoding such as `%41`, are percent-encoded. Copies of these headers that clients send are removed, on every route that leads to the same service.'
      })
    ),
    rememberTokens: orOff(
      Count(
        'Number of verified tokens that are kept until they expire, at most 32 MB of them; these are not verified again.'
      ),
      { default: 20_000 }
    ),
    forwardClaims: Type.Optional(
      Type.Object(
        {
          header: HeaderName('The header.'),
          encoding: Names(['base64', 'base64url'], {
            default: 'base64',
            description:
              '`base64` has padding and is what APISIX sends in `X-Userinfo`; `base64url` has none, as in Envoy.'
          })
        },
        { ...strict, description: 'Header that carries all claims to the service, as JSON in base64.' }
      )
    ),
    maxTokenSize: Size('Longer tokens are refused without being parsed.', { default: '8kb' })
  },
  strict
)

export type JwtOptions = Static<typeof Jwt>

/** Options of one issuer: the key, and claims that are checked with it. */
export type TokenSource = Pick<
  JwtOptions,
  'secret' | 'publicKey' | 'jwks' | 'discovery' | 'issuer' | 'audience' | 'algorithms'
>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    jwt?: JwtOptions | false
  }
}
