/** `edge.hmacAuth` and `consumers[].hmacAuth`: their options and checks. */
import type { Static } from 'typebox'
import type { Checked, Credentials } from '../../../../config/concern.ts'
import { eachCredential } from '../../../../config/concern.ts'
import { declaredConsumers } from '../../../../config/consumers.ts'
import { Duration, Either, Mode, Names, orOff, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { tokenPattern } from '../../../http-syntax.ts'
import { Realm } from '../../authentication/options.ts'
import { MaxBodySize, ReplaySize } from '../../authentication/signature-options.ts'

const algorithms = ['hmac-sha1', 'hmac-sha256', 'hmac-sha384', 'hmac-sha512'] as const

export const HmacAuth = Type.Object(
  {
    algorithms: Type.Array(Names(algorithms), {
      minItems: 1,
      default: algorithms.slice(1),
      description: 'Algorithms that are accepted.'
    }),
    clockSkew: Duration('Largest difference between the date of a request and the clock of the gateway.', {
      default: '5m'
    }),
    enforceHeaders: Type.Array(
      Type.String({ pattern: `^(@request-target|${tokenPattern})$`, expected: 'a header name or @request-target' }),
      {
        default: ['request-line'],
        description:
          'Names that a signature must cover, besides the date and, with `validateRequestBody`, the digest. `@request-target` also satisfies `request-line`.'
      }
    ),
    validateRequestBody: Type.Boolean({
      default: false,
      description:
        'Compare the body with `Digest` or `Content-Digest`, which the signature must cover. The service gets the request once the whole body was read.'
    }),
    maxBodySize: MaxBodySize,
    replayWindow: orOff(Type.Object({ maxSize: ReplaySize }, strict), {
      default: false,
      description:
        'Accept each signature once. Two equal requests within a second have the same signature, since dates are whole seconds. Each process remembers the signatures that it has accepted.'
    }),
    realm: Realm,
    hideCredentials: Type.Boolean({
      default: true,
      description:
        'Remove `Authorization` from the request to the service. Signatures that were not verified are always removed.'
    }),
    mode: Mode
  },
  {
    ...strict,
    description:
      'Requests that consumers sign with a shared secret (`consumers[].hmacAuth`), as with hmac-auth of Kong.'
  }
)

export type HmacAuthOptions = Static<typeof HmacAuth>

const Secret = Type.Object(
  {
    username: Type.String({
      pattern: '^[^\\u0000-\\u001f\\u007f"]{1,256}$',
      expected: 'a user name without quotes',
      description: '`username` of `Authorization`, unique among all consumers.'
    }),
    secret: { ...Text, description: 'The shared secret; best from an environment variable.' }
  },
  strict
)

/** A shared secret in the configuration. */
export type StoredSecret = Static<typeof Secret>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    hmacAuth?: HmacAuthOptions | false
  }
  interface ConsumerConfig {
    readonly hmacAuth?: StoredSecret | readonly StoredSecret[]
  }
}

export const credentials: Credentials = {
  schema: Either({ type: 'array' }, Type.Array(Secret, { minItems: 1 }), Secret, {
    description: 'User name and shared secret of the consumer for signed requests, or several.'
  }),
  ids: (value) =>
    eachCredential(value as StoredSecret | StoredSecret[]).map(([{ username }, below]) => [
      username,
      `${below}/username`
    ])
}

export function checkHmacAuth(_options: HmacAuthOptions, at: string, { data, report }: Checked): void {
  if (!report.sound('/consumers') || !Array.isArray(data.consumers)) return
  if (!declaredConsumers(data).some((consumer) => consumer.hmacAuth !== undefined)) {
    report.warn(at, 'no consumer has a shared secret, so all requests are refused; add consumers with hmacAuth', 'key')
  }
}
