/** `services.NAME.mesh.credentials`: the credentials by which the gateway authenticates at a service. */
import type { Static } from 'typebox'
import { Duration, HeaderName, Name, Names, strict, Url } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

const secret = (description: string) => Type.Optional(Type.String({ minLength: 1, description }))
const file = (what: string) =>
  Type.Optional(Type.String({ minLength: 1, description: `File with ${what}, which is read again when it changes.` }))

const OAuth2 = Type.Object(
  {
    url: Type.Optional(Url('http', 'URL of the token endpoint.')),
    service: Type.Optional({
      ...Name,
      description: 'Service with the token endpoint, instead of `url`. Calls go through the mesh.'
    }),
    path: Type.Optional(
      Type.String({
        pattern: '^/[!-"$-~]*$',
        expected: 'a path that starts with /',
        description: 'With `service`: path of the endpoint. Default: `/token`.'
      })
    ),
    ca: Type.Optional(
      Type.String({ description: "With `url`: PEM file of the trusted authorities. Default: Node's." })
    ),
    clientId: Type.String({ minLength: 1, description: 'Name of the gateway at the token endpoint.' }),
    clientSecret: secret('Its secret.'),
    clientSecretFile: Type.Optional(
      Type.String({ minLength: 1, description: 'File with its secret, which is read for each token.' })
    ),
    clientAuth: Type.Optional(
      Names(['basic', 'post'], {
        expected: 'basic (client_secret_basic) or post (client_secret_post)',
        description: 'The secret is sent in `Authorization` (`basic`, the default), or in the body (`post`).'
      })
    ),
    privateKeyFile: Type.Optional(
      Type.String({
        minLength: 1,
        description: 'PEM file of a private key that signs the request, instead of a secret (private_key_jwt).'
      })
    ),
    keyId: Type.Optional(
      Type.String({
        minLength: 1,
        description: 'With `privateKeyFile`: name of the key (`kid`), if the server wants it.'
      })
    ),
    issuer: Type.Optional(
      Type.String({
        minLength: 1,
        description: 'With `privateKeyFile`: `aud` of the signed request, the issuer of the server. Default: `url`.'
      })
    ),
    algorithm: Type.Optional(
      Names(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512'], {
        description:
          'With `privateKeyFile`: algorithm of the signature. Default: RS256, or ES256, ES384 or ES512 by the curve.'
      })
    ),
    scopes: Type.Optional(
      Type.Array(
        Type.String({ pattern: '^[!#-\\[\\]-~]+$', expected: 'a scope without blanks, quotes and backslashes' }),
        { minItems: 1, description: 'Scopes that the token shall have.' }
      )
    ),
    audience: Type.Optional(Type.String({ minLength: 1, description: 'Audience that the token shall have.' })),
    parameters: Type.Optional(
      Type.Record(Type.String(), Type.String(), { description: 'More parameters of the request, such as `resource`.' })
    ),
    timeout: Duration('Longest time for a request of a token.', { default: '5s' }),
    refreshBefore: Duration(
      'Time before its expiry from which on a token is replaced. Calls use it meanwhile. At most half of its lifetime.',
      { default: '30s' }
    ),
    maxAge: Duration('Longest time for which a token is used; less if `expires_in` says so.', { default: '1h' })
  },
  { ...strict, description: 'A token of an OAuth 2.0 server, by the grant client_credentials.' }
)

export const Credentials = Type.Object(
  {
    oauth2: Type.Optional(OAuth2),
    bearer: Type.Optional(
      Type.Object(
        { token: secret('The token.'), tokenFile: file('the token') },
        { ...strict, description: 'A bearer token that does not change, or is renewed in a file.' }
      )
    ),
    basic: Type.Optional(
      Type.Object(
        {
          username: Type.String({
            pattern: '^[^:\\x00-\\x1f\\x7f]*$',
            expected: 'a name without colons',
            description: 'User.'
          }),
          password: secret('Password.'),
          passwordFile: file('the password')
        },
        { ...strict, description: 'User and password.' }
      )
    ),
    header: Type.Optional(
      Type.Object(
        {
          name: HeaderName('Header, such as `x-api-key`.'),
          secret: secret('Its value.'),
          secretFile: file('its value')
        },
        { ...strict, description: 'A secret in a header of any name.' }
      )
    )
  },
  strict
)

export type OAuth2Options = Static<typeof OAuth2>
export type CredentialsOptions = Static<typeof Credentials>

declare module '../../../../config/schema.ts' {
  interface MeshPolicy {
    credentials?: CredentialsOptions | false
  }
}
