/** `edge.authorizer` and `consumers[].authorizer`: their options and checks. */
import type { Static } from 'typebox'
import { checkFile } from '../../../../config/checked.ts'
import type { Checked } from '../../../../config/concern.ts'
import { Duration, HeaderName, Mode, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { checkServiceHeaders } from '../../bridge/check-auth-server.ts'

export const AuthorizerSchema = Type.Object(
  {
    module: Type.String({
      minLength: 1,
      description:
        "Module whose default export is the function, relative to the configuration file's folder. A changed file is loaded again when the configuration is."
    }),
    options: Type.Optional(
      Type.Record(Type.String(), Type.Unknown(), { description: 'Options for the function, `context.options`.' })
    ),
    timeout: Duration('A function that has not decided within this time fails: the client gets 503.', {
      default: '5s'
    }),
    headers: Type.Array(HeaderName('Name of a header.'), {
      default: [],
      description:
        'Headers that the function may set for the service. Copies that clients send are removed, on every route that leads to the same service.'
    }),
    hideHeaders: Type.Array(HeaderName('Name of a header.'), {
      default: [],
      description:
        'Headers with the credentials that the function reads: they are removed from the request to the service.'
    }),
    challenge: Type.String({
      pattern: '^[!-~](?:[ -~]*[!-~])?$',
      expected: 'a value of WWW-Authenticate, in printable ASCII',
      default: 'Token realm="jingwei"',
      description: '`WWW-Authenticate` of 401.'
    }),
    mode: Mode
  },
  { ...strict, description: 'Authenticates by a function of your own.' }
)

export type AuthorizerOptions = Static<typeof AuthorizerSchema>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    authorizer?: AuthorizerOptions | false
  }
  interface ConsumerConfig {
    readonly authorizer?: string
  }
}

/** `consumers[].authorizer`. */
export const Caller = { ...Text, description: 'Name that the function of `edge.authorizer` returns for the consumer.' }

export function checkAuthorizer({ module, headers }: AuthorizerOptions, at: string, checked: Checked): void {
  checkFile(`${at}/module`, module, checked)
  if (checked.report.usable(`${at}/headers`)) {
    checkServiceHeaders([...headers.entries()], `${at}/headers`, checked)
  }
}
