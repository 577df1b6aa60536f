/** `edge.mtlsAuth` and `consumers[].mtlsAuth`: their options and checks. */
import type { Static, TSchema } from 'typebox'
import type { Checked, Credentials } from '../../../../config/concern.ts'
import { declaredConsumers } from '../../../../config/consumers.ts'
import type { Report } from '../../../../config/faults.ts'
import { pointer } from '../../../../config/faults.ts'
import { Either, Mode, Names, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import type { EdgePolicy } from '../../../../config/schema.ts'
import { Realm } from '../../authentication/options.ts'
import { canShowCertificates } from '../../protocol/tls/client-rules.ts'
import type { Condition as Conditions } from './conditions.ts'
import { conditionFault } from './conditions.ts'
import type { Kind } from './names.ts'
import { canonical, kinds, writtenDn } from './names.ts'

const descriptions = {
  fingerprint: 'SHA-256 of the certificate, in hexadecimal, with or without colons.',
  uri: 'URI in the subjectAltName, such as a SPIFFE id.',
  dns: 'DNS name in the subjectAltName. A wildcard is compared as a text.',
  email: 'Email address in the subjectAltName.',
  subject: 'Whole subject: `CN=alice, O=Example`, from either end.',
  cn: 'Common name in the subject.',
  issuer: 'Whole subject of the authority that has signed the certificate.'
}

const properties = (of: (key: keyof typeof descriptions, description: string) => TSchema) =>
  Object.fromEntries(
    Object.entries(descriptions).map(([key, text]) => [key, Type.Optional(of(key as keyof typeof descriptions, text))])
  )

const OneOrMany = (description: string) =>
  Either({ type: 'array' }, Type.Array(Text, { minItems: 1 }), Text, { description })

const Condition = Type.Unsafe<Conditions>(
  Type.Object(
    properties((_key, description) => OneOrMany(description)),
    { ...strict, minProperties: 1 }
  )
)

export const MtlsAuth = Type.Object(
  {
    allow: Type.Optional(
      Either({ type: 'array' }, Type.Array(Condition, { minItems: 1 }), Type.Literal('any'), {
        expected: 'any, or a list of conditions',
        description:
          'Certificates that are accepted: those that fulfil one condition of the list, in all of its keys, or `any` verified certificate. A key has one or several values; `/^…$/` is a regular expression. Default: the certificates of declared consumers.'
      })
    ),
    consumer: Names(['subject', 'cn', 'uri', 'dns', 'email', 'fingerprint'], {
      default: 'subject',
      description: 'Name that becomes the id of the consumer, where a certificate of `allow` has no declared consumer.'
    }),
    realm: Realm,
    mode: Mode
  },
  {
    ...strict,
    description:
      'Client certificates as credentials (mTLS). The listener has to request them: `listen.tls.clientCertificate`.'
  }
)

export type MtlsAuthOptions = Static<typeof MtlsAuth>

/** Certificate of a consumer: a name of one kind, and optionally the issuer. */
export type Identity = Readonly<Partial<Record<Kind | 'issuer', string>>>

const Identity = Type.Unsafe<Identity>(
  Type.Object(
    properties((key, description) =>
      key === 'fingerprint'
        ? Type.String({
            pattern: '^(?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$',
            expected: 'the SHA-256 of a certificate: 64 hexadecimal digits, with or without colons',
            description
          })
        : { ...Text, description }
    ),
    strict
  )
)

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    mtlsAuth?: MtlsAuthOptions | false
  }
  interface ConsumerConfig {
    readonly mtlsAuth?: Identity | readonly Identity[]
  }
}

/** Returns the id of credentials in the registry. */
export const idOf = (kind: Kind, name: string, issuer: string | null): string =>
  JSON.stringify(issuer === null ? [kind, name] : [kind, name, issuer])

function idsOf(identity: Identity): string[] {
  const kind = kinds.find((each) => identity[each] !== undefined)
  if (kind === undefined) return []
  const names = kind === 'subject' ? writtenDn(identity[kind]!) : [canonical(kind, identity[kind]!)]
  const issuers = identity.issuer === undefined ? [null] : writtenDn(identity.issuer)
  return names.flatMap((name) => issuers.map((issuer) => idOf(kind, name, issuer)))
}

const entriesOf = (value: unknown): [below: string, identity: Identity][] =>
  Array.isArray(value) ? value.map((each, index) => [`/${index}`, each]) : [['', value as Identity]]

export const credentials: Credentials = {
  schema: Either({ type: 'array' }, Type.Array(Identity, { minItems: 1 }), Identity, {
    description: 'One certificate, or several: each has one key besides `issuer`.'
  }),
  ids: (value) => entriesOf(value).flatMap(([below, identity]) => idsOf(identity).map((id) => [id, below] as const)),
  check(value, at, report) {
    for (const [below, identity] of entriesOf(value)) {
      const own = kinds.filter((kind) => identity[kind] !== undefined)
      if (own.length !== 1) report.fault(at + below, `set exactly one of ${kinds.join(', ')}`)
      checkNames(identity, at + below, report)
    }
  }
}

function checkNames(identity: Identity, at: string, report: Report): void {
  for (const [key, text] of Object.entries(identity)) {
    if (!/^\/.*\/$/s.test(text)) continue
    const what = 'a consumer has one name; an expression can only stand in edge.mtlsAuth.allow'
    report.fault(pointer(at, key), what)
    return
  }
  for (const key of ['subject', 'issuer'] as const) {
    const text = identity[key]
    if (text !== undefined && writtenDn(text).length === 0) report.fault(`${at}/${key}`, notDn)
  }
}

const notDn = 'expected a name such as CN=alice, O=Example; a comma within a value is written \\,'

export function checkMtlsAuth({ allow }: MtlsAuthOptions, at: string, { data, report }: Checked): void {
  if (!report.sound(at)) return
  if (Array.isArray(allow)) {
    for (const [index, condition] of allow.entries()) {
      for (const [key, values] of Object.entries(condition)) {
        const place = pointer(at, 'allow', index, key)
        for (const [item, text] of [values].flat().entries()) {
          const fault = conditionFault(key as Kind | 'issuer', text)
          if (fault !== null) report.fault(Array.isArray(values) ? pointer(place, item) : place, fault)
        }
      }
    }
  } else if (allow === undefined && report.sound('/consumers') && Array.isArray(data.consumers)) {
    if (declaredConsumers(data).some(({ mtlsAuth }) => mtlsAuth !== undefined)) return
    const advice = 'add consumers with mtlsAuth, or allow'
    report.warn(at, `no consumer has a certificate, so all requests are refused; ${advice}`, 'key')
  }
}

/** Reports routes on which no listener can get a client certificate. */
export function checkRoutes({ data, report }: Checked): void {
  if (!report.usable('/routes') || !report.usable('/edge') || !report.sound('/listen')) return
  const listeners = data.listeners.filter(({ enabled }) => enabled)
  const reported = new Set<string>()
  data.routes.forEach((route, index) => {
    const at = pointer('/routes', index, 'edge')
    if (!report.usable(at) || !report.sound(pointer('/routes', index, 'match'))) return
    const policy: EdgePolicy = { ...data.edge, ...route.edge }
    if (!policy.mtlsAuth || canShowCertificates(route, listeners)) return
    const place = route.edge?.mtlsAuth === undefined ? '/edge/mtlsAuth' : `${at}/mtlsAuth`
    if (reported.has(place) || !report.sound(place)) return
    reported.add(place)
    const what = `no listener requests client certificates for route ${route.name}, so all of its requests are refused`
    report.fault(place, `${what}; set clientCertificate: { mode: request, ca: FILE } under listen.tls`, 'key')
  })
}
