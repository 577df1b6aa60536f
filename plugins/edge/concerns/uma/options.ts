/** `edge.uma`: its options and their check. */
import type { Static } from 'typebox'
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { Count, Duration, DurationOrZero, Name, Size, strict, Text, Url } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { checkAuthServer } from '../../bridge/check-auth-server.ts'

export const Uma = Type.Object(
  {
    url: Type.Optional(Url('http', 'Token endpoint: `https://HOST/realms/NAME/protocol/openid-connect/token`.')),
    service: Type.Optional({ ...Name, description: 'Service with the endpoint, instead of `url`.' }),
    path: Type.Optional(
      Type.String({
        pattern: '^/[!-"$-~]*$',
        expected: 'a path that starts with /',
        description: 'With `service`: its path.'
      })
    ),
    audience: Type.String({
      minLength: 1,
      description: 'Client id of the resource server, whose permissions are asked for.'
    }),
    permissions: Type.Array(Text, {
      minItems: 1,
      maxItems: 10,
      description:
        'Permissions as `resource#scope`, `resource` or `#scope`; all are needed. Each takes a call. `{path}` as the resource stands for the path of the request, for which Keycloak finds the resource by its URIs; `{method}` as the scope stands for the method.'
    }),
    maxAge: DurationOrZero(
      'Time for which a permission that was granted is used again without a call, at most until the `exp` of the token. A revoked permission is accepted for as long. Refusals are not kept.',
      { default: '0s' }
    ),
    cacheSize: Size('With `maxAge`: memory of the permissions that were granted.', { default: '4mb' }),
    timeout: Duration('Longest time of a call.', { default: '2s' }),
    maxConcurrent: Count('Most calls in flight, in each process. Requests that need more get 503.', { default: 100 })
  },
  { ...strict, description: "Asks Keycloak whether the caller's bearer token grants permissions." }
)

export type UmaOptions = Static<typeof Uma>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    uma?: UmaOptions | false
  }
}

export function checkUma(options: UmaOptions, at: string, checked: Checked): void {
  checkAuthServer(options, at, checked)
  if (!checked.report.sound(`${at}/permissions`)) return
  for (const [index, permission] of options.permissions.entries()) {
    const odd = permission.match(/\{[^{}]*\}/g)?.find((each) => each !== '{path}' && each !== '{method}')
    if (odd === undefined) continue
    checked.report.warn(
      pointer(at, 'permissions', index),
      `${odd} is sent as it is: only {path} and {method} are replaced`
    )
  }
}
