/** `edge.oidc`: its options. */
import type { Static } from 'typebox'
import {
  Count,
  Duration,
  HeaderName,
  Mode,
  Names,
  orOff,
  Period,
  Size,
  strict,
  Text,
  Url
} from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { ClientAuth, KeepAuthorization, Realm } from '../../authentication/options.ts'
import { Scopes } from '../../claims.ts'
import { subjectOrText } from '../../consumers/issuers.ts'

const path = { pattern: '^(/[A-Za-z0-9._~-]+)+$', expected: 'a path such as /oidc/callback' }

const Session = Type.Object(
  {
    secrets: Type.Array(Type.String({ minLength: 32 }), {
      minItems: 1,
      description:
        'Secrets of at least 32 characters (`openssl rand -base64 32`), the same on all nodes. The first one encrypts, all of them decrypt: put a new one before the old one, and remove the old one after `lifetime`.'
    }),
    store: Names(['cookie', 'redis'], {
      default: 'cookie',
      description:
        '`cookie`: the encrypted session is in the cookie. `redis`: the cookie has a random id, and Redis the encrypted session. Only there a logout ends copies of the cookie, and nodes share refreshed tokens.'
    }),
    cookie: Type.Optional(
      Type.String({
        pattern: "^[A-Za-z0-9!#$%&'*+^_`|~-]{1,64}$",
        expected: 'a cookie name of at most 64 characters, without dots',
        description:
          'Name of the cookie, without the prefix `__Host-` that is added. Default: `jw-` and a digest of the issuer and client id.'
      })
    ),
    secure: Type.Boolean({
      default: true,
      description: 'false: cookies without `__Host-` and `Secure`, for a login over plain HTTP. For tests only.'
    }),
    idleTimeout: {
      ...Period('Time without a request after which a session ends. It is prolonged once a tenth of it has passed.'),
      default: '1h'
    },
    lifetime: { ...Period('Longest time of a session, after which the user logs in again.'), default: '12h' },
    loginTimeout: Duration('Longest time between the redirect to the provider and the return from it.', {
      default: '10m'
    }),
    maxSize: Size(
      'Largest session in cookies of 3800 bytes each. A login with more fails: use `store: redis`. The header section of a request must hold it (`listen.limits.headers`).',
      { default: '8kb' }
    ),
    timeout: Duration('With `store: redis`: longest wait for Redis; then 503.', { default: '500ms' })
  },
  { ...strict, description: 'The sessions of users.' }
)

const Refresh = Type.Object(
  {
    before: Duration(
      'Time before the expiry of the access token from which it is refreshed, but not before half of its lifetime.',
      { default: '30s' }
    ),
    onFailure: Names(['end', 'keep'], {
      default: 'end',
      description:
        'Once the access token has expired: `end` ends the session if the provider refuses the refresh, and responds with 503 while the provider is unavailable; `keep` goes on with the session, without an access token.'
    })
  },
  { ...strict, description: 'Refresh of tokens, if the provider issues refresh tokens. `false`: never.' }
)

const Logout = Type.Object(
  {
    path: Type.String({ ...path, default: '/oidc/logout', description: 'Path that ends the session (GET or POST).' }),
    provider: Type.Boolean({
      default: true,
      description: 'Also log out at the provider, if its metadata have an `end_session_endpoint` (RP-initiated logout).'
    }),
    backchannelPath: Type.Optional(
      Type.String({
        ...path,
        description:
          'With `session.store: redis`: path at which the provider reports that a user has logged out (OpenID Connect Back-Channel Logout). Register it there as `backchannel_logout_uri`.'
      })
    ),
    redirect: Type.Optional(
      Type.String({
        pattern: '^(/(?![/\\\\])|https?://)[!-~]*$',
        expected: 'a path or a URL',
        description:
          'Path or URL to which the browser goes then. With the logout at the provider, this is the `post_logout_redirect_uri`, which must be registered there. The route of the path needs `edge: { oidc: false }`: else a new login begins.'
      })
    )
  },
  { ...strict, description: 'Logout. `false`: no path for it.' }
)

export const Oidc = Type.Object(
  {
    issuer: Url(
      'http',
      'Issuer of the OpenID provider. Its metadata are fetched from `/.well-known/openid-configuration` below it.'
    ),
    clientId: Type.String({ minLength: 1, description: 'Id of the gateway at the provider.' }),
    clientSecret: Type.Optional(
      Type.String({ minLength: 1, description: 'Its secret. Without one: a public client.' })
    ),
    clientAuth: ClientAuth('The secret is sent in `Authorization` (`basic`), or in the body (`post`).'),
    scopes: { ...Scopes('Requested scopes; `openid` is always one of them.'), default: ['openid'] },
    authorizationParams: Type.Optional(
      Type.Record(Type.String(), Text, {
        description: 'Further parameters of the authorization request, such as `prompt`, `acr_values` or `audience`.'
      })
    ),
    callbackPath: Type.String({
      ...path,
      default: '/oidc/callback',
      description:
        'Path to which the provider returns, on each host of the route. Register `https://HOST/oidc/callback` there.'
    }),
    loginPath: Type.Optional(
      Type.String({
        ...path,
        description:
          'Path that begins a login, with `?return_to=/PATH`; for pages that call the route by fetch, and for routes with `anonymous`.'
      })
    ),
    logout: orOff(Logout, { default: {} }),
    realm: Realm,
    session: Session,
    refresh: orOff(Refresh, { default: {} }),
    userinfo: Type.Boolean({
      default: false,
      description: 'Fetch the claims of the userinfo endpoint at each login, too.'
    }),
    consumer: Type.String({
      minLength: 1,
      default: 'sub',
      description: 'Claim with the name of the consumer, by its name or a path.'
    }),
    forward: Type.Optional(
      Type.Record(Type.String(), HeaderName('Header that carries the claim to the service.'), {
        description: 'Claims sent to the service, as `claim: header`. As `jwt.forward`.'
      })
    ),
    forwardAccessToken: Type.Boolean({
      default: false,
      description: 'Send the access token to the service as `Authorization: Bearer`.'
    }),
    keepAuthorization: KeepAuthorization,
    mode: Mode,
    tls: Type.Optional(
      Type.Object(
        {
          ca: Type.Optional(
            Type.String({
              description:
                'PEM file with the authorities that sign the certificate of the provider, instead of those that Node.js trusts.'
            })
          )
        },
        { ...strict, description: 'TLS toward the provider.' }
      )
    ),
    timeout: Duration('Longest time of a call to the provider.', { default: '5s' }),
    maxConcurrent: Count('Most calls to the provider in flight, in each process. Logins that need more get 503.', {
      default: 100
    })
  },
  {
    ...strict,
    description:
      'Login of users in browsers by OpenID Connect (authorization code with PKCE), with sessions. Page loads without a session are redirected to the provider; other requests get 401.'
  }
)

export type OidcOptions = Static<typeof Oidc>
export type SessionOptions = OidcOptions['session']

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    oidc?: OidcOptions | false
  }
  interface ConsumerConfig {
    readonly oidc?: Static<typeof Subject>
  }
}

/** `consumers[].oidc`. */
export const Subject = subjectOrText(
  'Value of the claim that `edge.oidc.consumer` names.',
  'Issuer of the provider. Necessary if the routes have several providers.'
)
