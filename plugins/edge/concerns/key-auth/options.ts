/** `edge.keyAuth` and `consumers[].keyAuth`: their options and checks. */
import type { Static } from 'typebox'
import type { Checked, Credentials } from '../../../../config/concern.ts'
import { eachCredential } from '../../../../config/concern.ts'
import { declaredConsumers } from '../../../../config/consumers.ts'
import { isConnectionHeader } from '../../../../config/header-names.ts'
import { Either, HeaderName, orOff, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { tokenPattern } from '../../../http-syntax.ts'
import { Realm } from '../../authentication/options.ts'

export const KeyAuth = Type.Object(
  {
    header: orOff(HeaderName('Header with the key.'), { default: 'x-api-key' }),
    query: Type.Optional({ ...Text, description: 'Query parameter with the key.' }),
    cookie: Type.Optional(
      Type.String({
        pattern: `^${tokenPattern}$`,
        expected: 'the name of a cookie',
        description: 'Cookie with the key.'
      })
    ),
    realm: Realm,
    hideCredentials: Type.Boolean({
      default: true,
      description: 'Remove the key from the request to the service. Keys that were not verified are always removed.'
    })
  },
  {
    ...strict,
    description:
      'API keys of declared consumers (`consumers[].keyAuth`). A request with more than one key is refused, wherever the keys are.'
  }
)

export type KeyAuthOptions = Static<typeof KeyAuth>

const Key = Type.Object(
  {
    hash: Type.String({
      pattern: '^sha256:[0-9A-Fa-f]{64}$',
      expected: 'sha256: and 64 hexadecimal digits, as hash-key prints them',
      description: '`sha256:` and the SHA-256 of a random key, in hexadecimal, as the command `hash-key` prints it.'
    }),
    expires: Type.Optional(
      Type.String({
        pattern: '^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d(:\\d\\d(\\.\\d+)?)?(Z|[+-]\\d\\d:\\d\\d)$',
        expected: 'a time such as 2030-12-31T00:00:00Z',
        description: 'Time from which the key is refused.'
      })
    )
  },
  strict
)

/** A key in the configuration. */
export type StoredKey = Static<typeof Key>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    keyAuth?: KeyAuthOptions | false
  }
  interface ConsumerConfig {
    readonly keyAuth?: StoredKey | readonly StoredKey[]
  }
}

/** Returns the digest of a stored key, in lower case. */
export const digestOf = ({ hash }: StoredKey): string => hash.slice('sha256:'.length).toLowerCase()

const SomeKeys = Type.Array(Key, { minItems: 1 })

export const credentials: Credentials = {
  schema: Either({ type: 'array' }, SomeKeys, Key, { description: 'One API key, or several.' }),
  ids: (value) =>
    eachCredential(value as StoredKey | StoredKey[]).map(([key, below]) => [digestOf(key), `${below}/hash`]),
  check(value, at, report) {
    for (const [{ expires }, below] of eachCredential(value as StoredKey | StoredKey[])) {
      if (expires !== undefined && Number.isNaN(Date.parse(expires)))
        report.fault(`${at}${below}/expires`, 'no such time')
    }
  }
}

export function checkKeyAuth({ header, query, cookie }: KeyAuthOptions, at: string, checked: Checked): void {
  const { data, report } = checked
  if (!report.sound(at)) return
  if (header === false && query === undefined && cookie === undefined) {
    report.fault(at, 'has no place for the key: set header, query or cookie')
  } else if (header !== false && (isConnectionHeader(header) || /^(authorization|cookie)$/i.test(header))) {
    report.fault(`${at}/header`, `"${header}" has another meaning; choose another header, such as x-api-key`)
  }
  if (!report.sound('/consumers') || !Array.isArray(data.consumers)) return
  if (!declaredConsumers(data).some((consumer) => consumer.keyAuth !== undefined)) {
    report.warn(at, 'no consumer has a key, so all requests are refused; add consumers with keyAuth', 'key')
  }
}
