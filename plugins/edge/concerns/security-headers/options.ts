/** Options of `edge.securityHeaders`: the names and defaults of helmet, except for `contentSecurityPolicy`. */
import type { Static } from 'typebox'
import { defaultsOf, Either, Names, orOff, Period, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

const Value = (description: string) =>
  orOff(Type.String({ pattern: '^[!-~]([ -~]*[!-~])?$', expected: 'printable ASCII' }), { description })

const Choice = <T extends string>(values: readonly T[], value: T | false, description: string) =>
  orOff(Names(values), { default: value, description })

const Hsts = Type.Object(
  {
    maxAge: Type.Optional(Period('Time for which browsers use HTTPS only. Default: 365d.')),
    includeSubDomains: Type.Boolean({ default: true, description: 'Also for all hosts below this one.' }),
    preload: Type.Boolean({
      default: false,
      description: 'Allows the list of hosts that browsers have built in. Removal from it takes months.'
    })
  },
  strict
)

const Mapping = Type.Object(
  {
    override: Type.Boolean({
      default: false,
      description: "true: replaces the service's own headers of these names. false: the service's own win."
    }),
    strictTransportSecurity: Type.Optional(
      orOff(Hsts, { description: '`Strict-Transport-Security`, over HTTPS only. Default: `{}`.' })
    ),
    xFrameOptions: Choice(
      ['SAMEORIGIN', 'DENY'],
      'SAMEORIGIN',
      '`X-Frame-Options`: which pages may show the response in a frame.'
    ),
    xContentTypeOptions: Choice(['nosniff'], 'nosniff', '`X-Content-Type-Options`.'),
    referrerPolicy: Choice(
      [
        'no-referrer',
        'no-referrer-when-downgrade',
        'origin',
        'origin-when-cross-origin',
        'same-origin',
        'strict-origin',
        'strict-origin-when-cross-origin',
        'unsafe-url'
      ],
      'no-referrer',
      '`Referrer-Policy`.'
    ),
    contentSecurityPolicy: Type.Optional(
      Value('`Content-Security-Policy`. Off by default: a policy depends on the pages.')
    ),
    contentSecurityPolicyReportOnly: Type.Optional(Value('`Content-Security-Policy-Report-Only`.')),
    permissionsPolicy: Type.Optional(Value('`Permissions-Policy`, such as `camera=(), microphone=()`.')),
    crossOriginOpenerPolicy: Choice(
      ['same-origin', 'same-origin-allow-popups', 'noopener-allow-popups', 'unsafe-none'],
      'same-origin',
      '`Cross-Origin-Opener-Policy`.'
    ),
    crossOriginResourcePolicy: Choice(
      ['same-origin', 'same-site', 'cross-origin'],
      'same-origin',
      '`Cross-Origin-Resource-Policy`. `cross-origin` for images and scripts that pages of other sites use.'
    ),
    crossOriginEmbedderPolicy: Choice(
      ['require-corp', 'credentialless', 'unsafe-none'],
      false,
      '`Cross-Origin-Embedder-Policy`.'
    ),
    originAgentCluster: Type.Boolean({ default: true, description: '`Origin-Agent-Cluster: ?1`.' }),
    xDnsPrefetchControl: Choice(['off', 'on'], 'off', '`X-DNS-Prefetch-Control`.'),
    xDownloadOptions: Choice(['noopen'], 'noopen', '`X-Download-Options`.'),
    xPermittedCrossDomainPolicies: Choice(
      ['none', 'master-only', 'by-content-type', 'all'],
      'none',
      '`X-Permitted-Cross-Domain-Policies`.'
    ),
    xXssProtection: Type.Boolean({
      default: true,
      description: '`X-XSS-Protection: 0`: switches off a filter of old browsers that could be abused.'
    }),
    hidePoweredBy: Type.Boolean({ default: true, description: 'Removes `X-Powered-By` of the service.' })
  },
  strict
)

export const SecurityHeadersOrOff = orOff(Either({ const: true }, Type.Literal(true), Mapping), {
  description:
    'Headers by which browsers protect users, on all responses of the route. `true`, or a mapping for other values; `false` for one leaves it out.'
})

export type SecurityHeadersOptions = Static<typeof Mapping>

/** The options that `true` stands for. */
export const byDefault: SecurityHeadersOptions = defaultsOf(Mapping)

const oneYear = 365 * 24 * 3600

/** Returns the headers; that of HSTS apart from the others. */
export function headersOf(options: SecurityHeadersOptions): {
  readonly always: readonly (readonly [name: string, value: string])[]
  readonly hsts: string | null
} {
  const given: readonly (readonly [name: string, value: string | false | undefined])[] = [
    ['x-frame-options', options.xFrameOptions],
    ['x-content-type-options', options.xContentTypeOptions],
    ['referrer-policy', options.referrerPolicy],
    ['content-security-policy', options.contentSecurityPolicy],
    ['content-security-policy-report-only', options.contentSecurityPolicyReportOnly],
    ['permissions-policy', options.permissionsPolicy],
    ['cross-origin-opener-policy', options.crossOriginOpenerPolicy],
    ['cross-origin-resource-policy', options.crossOriginResourcePolicy],
    ['cross-origin-embedder-policy', options.crossOriginEmbedderPolicy],
    ['origin-agent-cluster', options.originAgentCluster && '?1'],
    ['x-dns-prefetch-control', options.xDnsPrefetchControl],
    ['x-download-options', options.xDownloadOptions],
    ['x-permitted-cross-domain-policies', options.xPermittedCrossDomainPolicies],
    ['x-xss-protection', options.xXssProtection && '0']
  ]
  const always = given.flatMap(([name, value]) => (value ? [[name, value] as const] : []))
  const { strictTransportSecurity: hsts } = options
  if (hsts === false) return { always, hsts: null }
  const { maxAge, includeSubDomains = true, preload = false } = hsts ?? {}
  const seconds = maxAge === undefined ? oneYear : Math.floor(maxAge / 1000)
  const text = `max-age=${seconds}${includeSubDomains ? '; includeSubDomains' : ''}${preload ? '; preload' : ''}`
  return { always, hsts: text }
}
