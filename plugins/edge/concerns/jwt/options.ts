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
    publicKey: Type.Optional(Type.String({ description: 'Public key in PEM form, or the path of a file with one.' })),
    jwks: Type.Optional(Url('http', 'URL of the key set (RFC 7517).')),
    jwksMaxAge: Duration('Age at which the key set is fetched again, in the background.', { default: '10m' }),
    jwksCooldown: DurationOrZero(
      'Shortest time between two fetches that tokens with unknown key ids cause; such tokens are refused meanwhile. A fetch that fails is retried every second.',
      { default: '30s' }
    ),
    issuer: Type.Optional(oneOrMany),
    audience: Type.Optional(oneOrMany),
    algorithms: Type.Optional(
      Type.Array(Names(algorithms), {
        minItems: 1,
        description: 'Accepted signature algorithms. Default: all that the key can verify.'
      })
    ),
    clockSkew: DurationOrZero('Tolerated difference between clocks when `exp`, `nbf` and `iat` are checked.', {
      default: '5s'
    }),
    forward: Type.Optional(
      Type.Record(Type.String(), HeaderName('Header that carries the claim to the service.'), {
        description:
          'Claims sent to the service, as `claim: header`. `realm_access.roles` means the claim of that name or else `roles` within `realm_access`. Lists are joined by commas; characters other than printable ASCII are percent-encoded. Copies of these headers that clients send are removed, on every route that leads to the same service.'
      })
    ),
    rememberTokens: orOff(
      Count(
        'Number of verified tokens that are kept until they expire, at most 32 MB of them; these are not verified again.'
      ),
      { default: 20_000 }
    ),
    maxTokenSize: Size('Longer tokens are refused without being parsed.', { default: '8kb' })
  },
  strict
)

export type JwtOptions = Static<typeof Jwt>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    jwt?: JwtOptions | false
  }
}
