/** `edge.jwt`: its options. */
import type { Static } from 'typebox'
import {
  Count,
  Duration,
  DurationOrZero,
  HeaderName,
  Names,
  oneOrMany,
  orOff,
  Size,
  strict,
  Url
} from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

export const algorithms = [
  'HS256', 'HS384', 'HS512', 'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'
] as const // biome-ignore format: a table

export const Jwt = Type.Object(
  {
    secret: Type.Optional(Type.String({ minLength: 32, description: 'Shared secret for HS256/384/512.' })),
    publicKey: Type.Optional(Type.String({ description: 'PEM public key, or the path of a file with one.' })),
    jwks: Type.Optional(Url('http', 'Where the key set (RFC 7517) is published.')),
    jwksMaxAge: Duration('How long a fetched key set is used before it is fetched again.', { default: '10m' }),
    jwksCooldown: DurationOrZero(
      'The key set is fetched at most this often for key ids that it lacks; tokens with other ids are refused meanwhile. While it cannot be fetched, it is tried every second.',
      { default: '30s' }
    ),
    issuer: Type.Optional(oneOrMany),
    audience: Type.Optional(oneOrMany),
    algorithms: Type.Optional(
      Type.Array(Names(algorithms), { minItems: 1, description: 'Default: those of the key.' })
    ),
    clockSkew: DurationOrZero('Tolerated difference of clocks for exp, nbf and iat.', { default: '5s' }),
    forward: Type.Optional(
      Type.Record(Type.String(), HeaderName('Header that carries the claim to the service.'), {
        description:
          'claim: header. `realm_access.roles` is a claim of that name, or `roles` within `realm_access`. A list is joined by commas; other characters than printable ASCII are percent-encoded. Copies of these headers that a client sends are dropped, on every route that leads to the same service.'
      })
    ),
    rememberTokens: orOff(
      Count('Verified tokens that are remembered until they expire, at most 32 MB of them; they need no verification.'),
      { default: 20_000 }
    ),
    maxTokenSize: Size('A longer token is refused unread.', { default: '8kb' })
  },
  strict
)

export type JwtOptions = Static<typeof Jwt>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    jwt?: JwtOptions | false
  }
}
