/** The key `services.NAME.mesh.credentials`. */
import type { Key } from '../../../../config/concern.ts'
import { orOff } from '../../../../config/schema/kit.ts'
import { checkCredentials } from './check.ts'
import type { CredentialsOptions } from './options.ts'
import { Credentials } from './options.ts'

export const credentialsKey: Key = {
  name: 'credentials',
  aliases: {
    'upstreamOauth|upstreamOauth2|clientCredentials|authClientCredentials|credentialInjector|oauth2ClientCredentials|upstreamAuth|serviceCredentials':
      'write credentials under services.NAME.mesh'
  },
  innerAliases: {
    'clientCredentials|oauth|oauth2ClientCredentials': 'write oauth2',
    'apiKey|key|generic': 'write header: { name, secret }',
    'overwrite|override': "the client's own header is always replaced",
    'oauth2.tokenUrl|oauth2.tokenEndpoint|oauth2.tokenUri': 'write url',
    'oauth2.scope': 'write scopes, a list',
    'oauth2.grantType': 'the grant is client_credentials',
    'oauth2.authMethod|oauth2.authStyle|oauth2.tokenEndpointAuthMethod': 'write clientAuth: basic or clientAuth: post',
    'oauth2.endpointParams|oauth2.tokenPostArgs|oauth2.params': 'write parameters',
    'oauth2.eagerlyExpire|oauth2.expiryLeeway': 'write refreshBefore',
    'oauth2.defaultTtl|oauth2.ttl': 'write maxAge',
    'oauth2.privateKey|oauth2.clientJwk': 'write privateKeyFile',
    'oauth2.username|oauth2.password': 'only the grant client_credentials is supported',
    'basic.user': 'write username',
    'header.value': 'write secret'
  },
  options: orOff(Credentials, {
    description:
      "Credentials by which the gateway authenticates at the service, in place of the client's: one of `oauth2`, `bearer`, `basic` and `header`."
  }),
  // Not of all services: a secret goes only where the file names it.
  levels: ['service'],
  otherServices: ({ oauth2 }: CredentialsOptions) => (oauth2?.service === undefined ? [] : [oauth2.service]),
  // A token endpoint is another program.
  isolate: (options: CredentialsOptions) => options.oauth2 === undefined && options,
  check: checkCredentials,
  complete({ oauth2, bearer, basic, header }: CredentialsOptions, absolute) {
    const files = <T extends object>(options: T | undefined, keys: readonly string[]) =>
      options && {
        ...options,
        ...Object.fromEntries(
          keys.flatMap((key) => {
            const path: unknown = Reflect.get(options, key)
            return typeof path === 'string' ? [[key, absolute(path)]] : []
          })
        )
      }
    return {
      ...(oauth2 && { oauth2: files(oauth2, ['ca', 'clientSecretFile', 'privateKeyFile']) }),
      ...(bearer && { bearer: files(bearer, ['tokenFile']) }),
      ...(basic && { basic: files(basic, ['passwordFile']) }),
      ...(header && { header: files(header, ['secretFile']) })
    }
  }
}
