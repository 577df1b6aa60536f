/** `edge.introspection`: its options. */
import type { Static } from 'typebox'
import {
  Count,
  Duration,
  DurationOrZero,
  HeaderName,
  Name,
  oneOrMany,
  Size,
  strict,
  Url
} from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { ClientAuth, Realm } from '../../authentication/options.ts'
import { Scopes } from '../../claims.ts'
import { subjectOrText } from '../../consumers/issuers.ts'

export const Introspection = Type.Object(
  {
    url: Type.Optional(Url('http', 'URL of the introspection endpoint.')),
    service: Type.Optional({
      ...Name,
      description: 'Service with the endpoint, instead of `url`. Calls go through the mesh.'
    }),
    path: Type.Optional(
      Type.String({
        pattern: '^/[!-"$-~]*$',
        expected: 'a path that starts with /',
        description: 'With `service`: path of the endpoint. Default: `/`.'
      })
    ),
    clientId: Type.String({ minLength: 1, description: 'Name by which the gateway authenticates at the endpoint.' }),
    clientSecret: Type.String({ minLength: 1, description: 'Its secret.' }),
    clientAuth: ClientAuth('The credentials are sent in `Authorization` (`basic`), or in the body (`post`).'),
    issuer: Type.Optional({ ...oneOrMany, description: 'Accepted `iss`, or a list of them.' }),
    audience: Type.Optional({ ...oneOrMany, description: 'Accepted `aud`, or a list of them.' }),
    scopes: Type.Optional(Scopes('Scopes that a token must have, all of them. Without them: 403.')),
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
    timeout: Duration('Longest time of a call to the endpoint.', { default: '2s' }),
    clockSkew: DurationOrZero('Tolerated difference between clocks when `exp` and `nbf` are checked.', {
      default: '5s'
    }),
    maxAge: DurationOrZero(
      'Time for which an active token is not checked again, at most until its `exp`. A revoked token is accepted for as long.',
      { default: '60s' }
    ),
    inactiveMaxAge: DurationOrZero('Time for which an inactive token is not checked again.', { default: '5s' }),
    cacheSize: Size('Memory for active tokens, in each process; a quarter more for inactive ones.', {
      default: '16mb'
    }),
    maxConcurrent: Count('Most calls in flight, in each process. Requests that need more get 503.', { default: 100 }),
    realm: Realm,
    maxTokenSize: Size('Longer tokens are refused without a call.', { default: '8kb' })
  },
  { ...strict, description: 'Authenticates by bearer tokens that an OAuth 2.0 server checks (RFC 7662).' }
)

export type IntrospectionOptions = Static<typeof Introspection>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    introspection?: IntrospectionOptions | false
  }
  interface ConsumerConfig {
    readonly introspection?: Static<typeof Subject>
  }
}

/** `consumers[].introspection`. */
export const Subject = subjectOrText(
  'Value of the claim that `edge.introspection.consumer` names.',
  'Issuer of the tokens (`edge.introspection.issuer`). Necessary if the routes have several endpoints or issuers.'
)
