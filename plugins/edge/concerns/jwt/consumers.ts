/**
 * Names of consumers. A `sub` is unique only within its issuer (RFC 7519, 4.1.2). If the routes accept tokens of several
 * issuers, the issuer is part of the name, so that limits, hashes, splits and shared responses do not mix up consumers.
 */
import type { Static } from 'typebox'
import type { Credentials } from '../../../../config/concern.ts'
import { strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import type { Consumer } from '../../consumers/consumer.ts'
import { consumerOf } from '../../consumers/consumer.ts'
import type { ConsumerRegistry } from '../../consumers/registry.ts'
import type { JwtOptions } from './options.ts'
import { sourcesOf } from './sources.ts'

const Subject = Type.Object(
  {
    sub: { ...Text, description: 'The `sub` of the consumer’s tokens, or the claim that `edge.jwt.consumer` names.' },
    issuer: Type.Optional({
      ...Text,
      description: 'Their `iss`. Necessary if the routes accept tokens of several issuers.'
    })
  },
  { ...strict, description: 'The tokens of the consumer.' }
)

export type Subject = Static<typeof Subject>

declare module '../../../../config/schema.ts' {
  interface ConsumerConfig {
    readonly jwt?: Subject
  }
}

/** `consumers[].jwt`: the tokens of a declared consumer. */
export const credentials: Credentials = {
  schema: Subject,
  ids(value) {
    const { sub, issuer } = value as Subject
    return [[issuer === undefined ? sub : qualifiedName(issuer, sub), '/sub']]
  }
}

/** Returns the issuers whose tokens these options accept. Without a configured issuer, this is the key: keep it secret. */
export function issuersOf(options: JwtOptions): readonly string[] {
  return sourcesOf(options).flatMap(({ issuer, secret, publicKey, jwks }) =>
    issuer === undefined ? [`key ${secret ?? publicKey ?? jwks}`] : issuer
  )
}

/** Returns whether a consumer's name includes its issuer; `jwts` are the options in force on the routes. */
export function namesIncludeIssuer(jwts: readonly JwtOptions[]): boolean {
  return new Set(jwts.flatMap(issuersOf)).size > 1
}

/** Returns `ISSUER|SUB`; the first `|` ends the issuer. */
export function qualifiedName(issuer: string, sub: string): string {
  return `${issuer.replaceAll('|', '%7C')}|${sub}`
}

/** The subject of a token, for one route. */
export interface TokenSubject {
  /** Its name as an undeclared consumer: `SUB`, or `ISSUER|SUB` if routes accept tokens of several issuers. */
  readonly name: string
  /** `ISSUER|SUB`; without a configured issuer, a name of the key instead. */
  readonly qualified: string
  /** True if the issuer of the token was verified. */
  readonly hasIssuer: boolean
}

/**
 * Returns the consumer of a token. A declared consumer is found by `consumers[].jwt` only, never by its name: otherwise an
 * issuer could hand out the name as a subject, and with it the consumer's groups.
 */
export function consumerFor({ name, qualified, hasIssuer }: TokenSubject, consumers: ConsumerRegistry): Consumer {
  const found = consumers.find('jwt', name) ?? (hasIssuer ? consumers.find('jwt', qualified) : undefined)
  return found?.consumer ?? consumerOf({ id: consumers.named(name) === undefined ? name : qualified })
}
