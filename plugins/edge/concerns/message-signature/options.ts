/** `edge.messageSignature` and `consumers[].messageSignature`: their options and checks. */
import type { Static } from 'typebox'
import type { Checked, Credentials } from '../../../../config/concern.ts'
import { eachCredential } from '../../../../config/concern.ts'
import { declaredConsumers } from '../../../../config/consumers.ts'
import { pointer } from '../../../../config/faults.ts'
import { Duration, Either, Mode, Names, orOff, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { tokenPattern } from '../../../http-syntax.ts'
import { Realm } from '../../authentication/options.ts'
import { MaxBodySize, ReplaySize } from '../../authentication/signature-options.ts'
import { keyFault, signatureAlgorithms } from './keys.ts'

export const MessageSignature = Type.Object(
  {
    components: Type.Array(
      Type.String({
        pattern: `^(@method|@target-uri|@authority|@scheme|@request-target|@path|@query|${tokenPattern})$`,
        expected: 'a header name, or a derived component of a request such as @method'
      }),
      {
        default: ['@method', '@authority', '@path', '@query'],
        description:
          'Components that a signature must cover. `@target-uri` also covers `@authority`, `@scheme`, `@path` and `@query`; `@request-target` the last two. Without a query, `@query` is not needed.'
      }
    ),
    contentDigest: Type.Boolean({
      default: true,
      description:
        'Requests with a body need `Content-Digest` (RFC 9530), which the signature must cover. The service gets the request once the whole body was read and compared.'
    }),
    maxBodySize: MaxBodySize,
    parameters: Type.Array(Names(['expires', 'nonce', 'alg', 'tag']), {
      default: [],
      description: 'Parameters that a signature must have, besides `created` and `keyid`.'
    }),
    tag: Type.Optional(
      Type.String({
        pattern: '^[ -~]{1,256}$',
        expected: 'printable ASCII',
        description: '`tag` of the signatures that are meant for the gateway. Others are ignored.'
      })
    ),
    maxAge: Duration('Time after `created` for which a signature is accepted.', { default: '5m' }),
    clockSkew: Duration("Largest difference between a signer's clock and that of the gateway.", { default: '30s' }),
    replayWindow: orOff(
      Type.Object(
        {
          by: Names(['nonce', 'signature'], {
            default: 'nonce',
            description:
              '`nonce`: a signature with a nonce is accepted once; others as often as they come. `signature`: each signature is accepted once, so that equal requests within a second need a nonce.'
          }),
          maxSize: ReplaySize
        },
        strict
      ),
      {
        default: {},
        description: 'Signatures that are not accepted again. Each process remembers those that it has accepted.'
      }
    ),
    realm: Realm,
    hideCredentials: Type.Boolean({
      default: true,
      description:
        'Remove `Signature` and `Signature-Input` from the request to the service. If nothing in them was verified, they are always removed.'
    }),
    mode: Mode
  },
  {
    ...strict,
    description:
      'HTTP Message Signatures (RFC 9421) by keys of declared consumers (`consumers[].messageSignature`), with Content-Digest (RFC 9530).'
  }
)

export type MessageSignatureOptions = Static<typeof MessageSignature>

const Key = Type.Object(
  {
    keyId: Type.String({
      pattern: '^[ -~]{1,256}$',
      expected: 'printable ASCII',
      description: '`keyid` of signatures by this key, unique among all consumers.'
    }),
    algorithm: Names(signatureAlgorithms, {
      description: 'Algorithm of the key. A signature with another `alg` is refused.'
    }),
    key: Type.Optional(Type.String({ minLength: 1, description: 'Public key, or certificate, in PEM form.' })),
    secret: Type.Optional(
      Type.String({
        pattern: '^[A-Za-z0-9+/]{22,}={0,2}$',
        expected: 'at least 16 bytes in base64',
        description: 'With `hmac-sha256`: the shared secret, in base64.'
      })
    )
  },
  strict
)

/** A key in the configuration. */
export type StoredKey = Static<typeof Key>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    messageSignature?: MessageSignatureOptions | false
  }
  interface ConsumerConfig {
    readonly messageSignature?: StoredKey | readonly StoredKey[]
  }
}

export const credentials: Credentials = {
  schema: Either({ type: 'array' }, Type.Array(Key, { minItems: 1 }), Key, {
    description: 'Key by which the consumer signs requests, or several.'
  }),
  ids: (value) =>
    eachCredential(value as StoredKey | StoredKey[]).map(([{ keyId }, below]) => [keyId, `${below}/keyId`]),
  check(value, at, report) {
    for (const [stored, below] of eachCredential(value as StoredKey | StoredKey[])) {
      const found = keyFault(stored)
      if (found !== null) report.fault(pointer(`${at}${below}`, ...found.at), found.fault)
    }
  }
}

export function checkMessageSignature(options: MessageSignatureOptions, at: string, { data, report }: Checked): void {
  if (!report.sound(at)) return
  if (!options.components.some((name) => /^@(target-uri|request-target|path)$/.test(name))) {
    report.warn(`${at}/components`, 'without @path or @target-uri, a signature can be used for other paths')
  }
  if (!report.sound('/consumers') || !Array.isArray(data.consumers)) return
  if (!declaredConsumers(data).some((consumer) => consumer.messageSignature !== undefined)) {
    const cure = 'add consumers with messageSignature'
    report.warn(at, `no consumer has a key for signatures, so all requests are refused; ${cure}`, 'key')
  }
}
