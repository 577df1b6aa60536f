/**
 * Consumers of tokens and logins. A subject is unique only within its issuer (RFC 7519, 4.1.2; OpenID Connect Core, 2). If the
 * routes accept several issuers, the issuer is part of the name, so that groups, limits, hashes, splits and shared responses
 * do not mix up consumers.
 */
import type { Static } from 'typebox'
import type { Checked } from '../../../config/concern.ts'
import { declaredConsumers } from '../../../config/consumers.ts'
import { pointer } from '../../../config/faults.ts'
import { didYouMean } from '../../../config/nearest.ts'
import { Either, strict, Text } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import type { Config } from '../../../config/schema.ts'
import type { Consumer } from './consumer.ts'
import { consumerOf } from './consumer.ts'
import type { ConsumerRegistry } from './registry.ts'

/** Schema of the subject of a declared consumer, with its issuer. */
export const subjectSchema = (sub: string, issuer: string) =>
  Type.Object(
    { sub: { ...Text, description: sub }, issuer: Type.Optional({ ...Text, description: issuer }) },
    { ...strict, description: 'Subject and issuer of the consumer.' }
  )

/** The same, or the subject alone. */
export const subjectOrText = (sub: string, issuer: string) =>
  Either({ type: 'string' }, Text, subjectSchema(sub, issuer), {
    description: `${sub} A mapping has it in \`sub\`, and its \`issuer\`.`
  })

/** Value of `consumers[].jwt`, `oidc` or `introspection`. */
type Declared = string | Static<ReturnType<typeof subjectSchema>>

/** Concerns whose consumers are subjects of issuers. */
export type Issuing = 'jwt' | 'oidc' | 'introspection'

interface TokenKey {
  readonly issuer?: string | readonly string[] | undefined
  readonly secret?: string | undefined
  readonly publicKey?: string | undefined
  readonly jwks?: string | undefined
}

/** The options of these concerns that tell their issuers; each concern has a type of its own for all of its options. */
interface IssuingOptions {
  readonly jwt: TokenKey & { readonly issuers?: readonly TokenKey[] | undefined }
  readonly oidc: { readonly issuer: string }
  readonly introspection: {
    readonly issuer?: string | readonly string[] | undefined
    readonly url?: string | undefined
    readonly service?: string | undefined
    readonly path?: string | undefined
  }
}

/** The issuers that options accept. Without a configured issuer, this is the key or the endpoint: keep it secret. */
const issuersFor: { [K in Issuing]: (options: IssuingOptions[K]) => readonly string[] } = {
  jwt: (options) =>
    (options.issuers ?? [options]).flatMap(({ issuer, secret, publicKey, jwks }) =>
      issuer === undefined ? [`key ${secret ?? publicKey ?? jwks}`] : issuer
    ),
  oidc: ({ issuer }) => [issuer],
  introspection: ({ issuer, url, service, path = '/' }) => [issuer ?? `endpoint ${url ?? `${service} ${path}`}`].flat()
}

const allIssuing = Object.keys(issuersFor) as Issuing[]

/** The options of these concerns that are in force on a route. */
export type Policy = { readonly [K in Issuing]?: IssuingOptions[K] | false | undefined }

/** Returns the issuers that a route accepts by a concern. */
export function issuersOf(kind: Issuing, policy: Policy): readonly string[] {
  const options = policy[kind]
  return options ? issuersFor[kind](options as never) : []
}

/** Rules by which subjects are named. */
export interface Naming {
  /** True if the subject alone does not identify a declared consumer. */
  readonly needsIssuer: boolean
  /** True if ids of undeclared consumers include the issuer. */
  readonly hasIssuer: boolean
}

/** Returns how a concern names the subjects of these routes. */
export function namingOf(kind: Issuing, routes: readonly Policy[]): Naming {
  const needsIssuer = new Set(routes.flatMap((policy) => issuersOf(kind, policy))).size > 1
  // An endpoint without an issuer is most often that of the other tokens, so it counts beside other endpoints only.
  const all = routes.flatMap((policy) => [
    ...issuersOf('jwt', policy),
    ...issuersOf('oidc', policy),
    ...(policy.introspection && policy.introspection.issuer !== undefined ? issuersOf('introspection', policy) : [])
  ])
  return { needsIssuer, hasIssuer: needsIssuer || new Set(all).size > 1 }
}

const known = new WeakMap<object, Partial<Record<Issuing, Naming>>>()

/** The same for the routes of a configuration, once for all of them. */
export function namingIn(kind: Issuing, { routes }: Pick<Config, 'routes'>): Naming {
  const namings = known.get(routes) ?? {}
  known.set(routes, namings)
  namings[kind] ??= namingOf(
    kind,
    routes.map(({ edge }: { edge: object }): Policy => edge)
  )
  return namings[kind]
}

/** Returns `ISSUER|SUB`; the first `|` ends the issuer. */
export const qualifiedName = (issuer: string, sub: string): string => `${issuer.replaceAll('|', '%7C')}|${sub}`

/** Returns the id of a declared subject among the credentials of its concern. */
export function idOf(value: unknown): string {
  const { sub, issuer } = partsOf(value)
  return issuer === undefined ? sub : qualifiedName(issuer, sub)
}

const partsOf = (value: unknown): Exclude<Declared, string> =>
  typeof value === 'string' ? { sub: value } : (value as Exclude<Declared, string>)

/** The subject of a token or a login. */
export interface Subject {
  readonly sub: string
  /** `ISSUER|SUB`; without a configured issuer, a name of the key or the endpoint instead. */
  readonly qualified: string
  /** True if the issuer was verified. */
  readonly isVerified: boolean
}

/**
 * Returns the consumer of a subject. A declared consumer is found by its subject only, never by its name: otherwise an issuer
 * could hand out the name as a subject, and with it the consumer's groups.
 */
export function consumerFor(
  kind: Issuing,
  { sub, qualified, isVerified }: Subject,
  naming: Naming,
  consumers: ConsumerRegistry
): Consumer {
  const bare = consumers.find(kind, naming.needsIssuer ? qualified : sub)
  // A subject `ISSUER|SUB` is not that of the other issuer.
  const isOwn = bare !== undefined && (naming.needsIssuer || partsOf(bare.value).issuer === undefined)
  const found = isOwn ? bare : isVerified ? consumers.find(kind, qualified) : undefined
  if (found !== undefined) return found.consumer
  return consumerOf({ id: naming.hasIssuer || consumers.named(sub) !== undefined ? qualified : sub })
}

/** Returns the options that are in force on the routes, by their index; those with faults are left out. */
function policiesOf({ data, report }: Checked): Policy[] {
  return data.routes.map((_, index) => {
    const at = pointer('/routes', index, 'edge')
    if (!report.usable(at)) return {}
    const sound = allIssuing.filter((kind) => report.sound(`${at}/${kind}`) && report.sound(`/edge/${kind}`))
    const own: object = data.routes[index]?.edge ?? {}
    return Object.fromEntries(sound.map((kind) => [kind, Reflect.get(own, kind) ?? Reflect.get(data.edge, kind)]))
  })
}

/** Warns of declared consumers whose issuer no route accepts, such as one with a trailing slash more: they are never found. */
function warnOfIssuers(kind: Issuing, policies: readonly Policy[], { data, report }: Checked): void {
  const { consumers, plugins } = data
  const accepted = new Set(policies.flatMap((policy) => issuersOf(kind, policy)))
  if (accepted.size === 0 || !Array.isArray(consumers) || plugins.length > 0 || !report.sound('')) return
  const shown = [...accepted].filter((issuer) => !/^(?:key|endpoint) /.test(issuer))
  consumers.forEach((consumer: object, index) => {
    const value: unknown = Reflect.get(consumer, kind)
    const { issuer } = value === undefined ? {} : partsOf(value)
    if (issuer === undefined || accepted.has(issuer)) return
    const what = `no route accepts the issuer "${issuer}" by ${kind}, so nobody is this consumer`
    report.warn(pointer('/consumers', index, kind, 'issuer'), `${what}${didYouMean(issuer, shown)}`)
  })
}

/** Reports declared consumers whose subject is that of several callers, and names in splits that no caller has. */
export function checkSubjects(kind: Issuing, checked: Checked): void {
  const { data, report } = checked
  if (!report.usable('/edge') || !report.usable('/routes') || !report.usable('/consumers')) return
  const policies = policiesOf(checked)
  const { needsIssuer, hasIssuer } = namingOf(kind, policies)
  const declared = declaredConsumers(data)
  warnOfIssuers(kind, policies, checked)
  if (needsIssuer) {
    for (const [index, consumer] of declared.entries()) {
      const value: unknown = Reflect.get(Object(consumer), kind)
      const isList = Array.isArray(data.consumers)
      const place = pointer('/consumers', index)
      const at = isList ? pointer(place, kind) : '/consumers/file'
      if (value === undefined || (isList && !report.usable(place)) || !report.sound(at)) continue
      const { sub, issuer } = partsOf(value)
      if (issuer !== undefined || sub.includes('|')) continue
      const whose = isList ? '' : `${kind} of consumer "${consumer.name}": `
      const advice = typeof value === 'string' ? 'write { sub, issuer }' : 'add the issuer'
      report.fault(at, `${whose}tokens of several issuers are accepted; ${advice}`)
    }
  }
  if (!hasIssuer) return
  const names = new Set(declared.map(({ name }) => name))
  data.routes.forEach(({ split }, index) => {
    const at = pointer('/routes', index, 'split')
    const [issuer] = report.sound(at) ? issuersOf(kind, policies[index]!) : []
    if (issuer === undefined) return
    split?.forEach(({ match }, share) => {
      match?.consumers?.forEach((name, place) => {
        if (name.includes('|') || names.has(name)) return
        const shown = /^(?:key|endpoint) /.test(issuer) ? 'ISSUER' : issuer
        const text = `tokens of several issuers are accepted, so consumers are named ISSUER|SUB: "${shown}|${name}"`
        report.fault(pointer(at, share, 'match', 'consumers', place), text)
      })
    })
  })
}
