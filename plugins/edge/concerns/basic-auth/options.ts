/** `edge.basicAuth` and `consumers[].basicAuth`: their options and checks. */
import type { Static } from 'typebox'
import type { Checked, Credentials } from '../../../../config/concern.ts'
import { declaredConsumers } from '../../../../config/consumers.ts'
import { strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { Realm } from '../../authentication/options.ts'
import { hashFault, hashPattern } from './hashes.ts'

export const BasicAuth = Type.Object(
  {
    realm: Realm,
    hideCredentials: Type.Boolean({
      default: true,
      description:
        'Remove `Authorization` from the request to the service. Credentials that were not verified are always removed.'
    })
  },
  { ...strict, description: 'User names and passwords (RFC 7617) of declared consumers (`consumers[].basicAuth`).' }
)

export type BasicAuthOptions = Static<typeof BasicAuth>

const Login = Type.Object(
  {
    username: Type.String({
      pattern: '^[^\\u0000-\\u001f\\u007f:]{1,256}$',
      expected: 'a user name without colons',
      description: 'User name, unique among all consumers.'
    }),
    hash: Type.String({
      pattern: hashPattern,
      expected: 'a hash of argon2id or scrypt, as hash-password prints it, or of bcrypt',
      description:
        'Hash of the password by argon2id or scrypt, as the command `hash-password` prints it, or by bcrypt (`$2y$`, `$2b$` or `$2a$`), as `htpasswd -B` does.'
    })
  },
  { ...strict, description: 'User name and password of the consumer.' }
)

export type Login = Static<typeof Login>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    basicAuth?: BasicAuthOptions | false
  }
  interface ConsumerConfig {
    readonly basicAuth?: Login
  }
}

export const credentials: Credentials = {
  schema: Login,
  ids: (value) => [[(value as Login).username.normalize('NFC'), '/username']],
  check(value, at, report) {
    const fault = hashFault((value as Login).hash)
    if (fault !== null) report.fault(`${at}/hash`, fault)
  }
}

export function checkBasicAuth(_options: BasicAuthOptions, at: string, { data, report }: Checked): void {
  if (!report.sound('/consumers') || !Array.isArray(data.consumers)) return
  if (!declaredConsumers(data).some((consumer) => consumer.basicAuth !== undefined)) {
    report.warn(at, 'no consumer has a password, so all requests are refused; add consumers with basicAuth', 'key')
  }
}
