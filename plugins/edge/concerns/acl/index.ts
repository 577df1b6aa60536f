/**
 * Allows or refuses requests by the groups and the name of the consumer, and by scopes, roles and claims of its token. Runs
 * after all `onRequest` hooks, so that every kind of authentication has set the consumer.
 */
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { orOff, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { edgeRouteOf } from '../../attach.ts'
import { CredentialsMissing } from '../../authentication/refused.ts'
import { bearerChallenge, Claims, claimsOf, hasClaim, realmOf, Scopes, scopesOf } from '../../claims.ts'
import type { Example } from '../../concern.ts'
import { edgeConcern } from '../../concern.ts'
import { warnOfUnknown } from '../../consumers/unknown.ts'

const Names = (description: string) => Type.Optional(Type.Array(Text, { minItems: 1, description }))

const Acl = Type.Object(
  {
    allow: Names('Groups: the consumer must be in one of them, or in `allowConsumers`.'),
    deny: Names('Groups whose consumers are refused, even if `allow` has them.'),
    allowConsumers: Names('Names of consumers, besides the groups of `allow`.'),
    denyConsumers: Names('Names of consumers, besides the groups of `deny`.'),
    scopes: Type.Optional(Scopes('Scopes that the token must have, all of them: in its claim `scope` or `scp`.')),
    roles: Names('Roles of which the token must have one, in its claim `rolesClaim`.'),
    rolesClaim: Type.String({
      minLength: 1,
      default: 'roles',
      description: 'Claim with the roles, by its name or a path: `realm_access.roles`.'
    }),
    claims: Type.Optional(
      Claims(
        'Claims that the token must have, by name or path, each with a value or a list of possible ones. A claim that is a list must have one of them. Types count: `true` is not `"true"`.'
      )
    )
  },
  {
    ...strict,
    description: 'Refuses requests by the consumer, or by the claims of its token. All conditions must hold.'
  }
)

type Options = Static<typeof Acl>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    acl?: Options | false
  }
}

const Denied = createError('JW_ACCESS_DENIED', 'The caller may not use this route', 403)
const Insufficient = createError('JW_INSUFFICIENT_SCOPE', 'The token does not allow this request', 403)

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const aclReasons = [
  'acl_no_consumer',
  'acl_denied',
  'acl_not_allowed',
  'acl_no_token',
  'acl_scope',
  'acl_role',
  'acl_claim'
] as const

type Reason = (typeof aclReasons)[number]

const isSet = (value: unknown) => value !== undefined

export default edgeConcern({
  name: 'acl',
  options: orOff(Acl),
  apiFacts: () => ({ responses: { 403: 'The caller is not allowed.' } }),
  aliases: {
    consumerRestriction: 'write acl: { allowConsumers: […] } or acl: { allow: [GROUP] }',
    acls: 'write groups: [NAME]'
  },
  innerAliases: {
    'whitelist|groups': 'write allow',
    blacklist: 'write deny',
    hideGroupsHeader: 'remove it: the service gets the groups only in a header that authentication.forward.groups names'
  },
  needs: [
    ...['scopes', 'roles', 'claims'].map((option) => ({ fact: 'claims', option, value: isSet }) as const),
    { fact: 'consumer' }
  ],
  forConsumers: { phases: ['preParsing'] },
  check,
  explain(options, example) {
    const reason = judgeOf(options)(example)
    // Examples are not authenticated: their keys and passwords are not read.
    const advice = reason === 'acl_no_consumer' ? ' (credentials are not read: add --consumer NAME)' : ''
    return reason === null ? 'allows' : `refuses: ${reason}${advice}`
  },
  async plugin() {
    return (options, route) => {
      const judge = judgeOf(options)
      const realm = realmOf(edgeRouteOf(route.config)!.edge)
      return {
        preParsing(request, reply, payload, done) {
          const reason = judge({ consumer: request.consumer, user: claimsOf(request) })
          if (reason === null) return done(null, payload)
          request.refusalReason = reason
          done(refusal(reason, options, realm, request, reply))
        }
      }
    }
  }
})

type Caller = Pick<Example, 'consumer' | 'user'>

/** Returns the function that returns why a caller is refused, or null. */
function judgeOf(options: Options): (caller: Caller) => Reason | null {
  const { scopes = [], roles, rolesClaim } = options
  const setOf = (names: readonly string[] = []) => new Set(names)
  const [groups, denied, names, deniedNames] = [
    setOf(options.allow),
    setOf(options.deny),
    setOf(options.allowConsumers),
    setOf(options.denyConsumers)
  ]
  const needsAllowed = groups.size + names.size > 0
  const needsConsumer = needsAllowed || denied.size + deniedNames.size > 0
  const claims = Object.entries(options.claims ?? {})
  const needsToken = scopes.length > 0 || roles !== undefined || claims.length > 0
  return ({ consumer, user }) => {
    if (needsConsumer) {
      if (consumer === null) return 'acl_no_consumer'
      const isIn = (set: ReadonlySet<string>) => consumer.groups.some((group) => set.has(group))
      if (isIn(denied) || deniedNames.has(consumer.id)) return 'acl_denied'
      if (needsAllowed && !isIn(groups) && !names.has(consumer.id)) return 'acl_not_allowed'
    }
    if (!needsToken) return null
    if (typeof user !== 'object' || user === null) return 'acl_no_token'
    const held = scopesOf(user)
    if (!scopes.every((scope) => held.has(scope))) return 'acl_scope'
    if (roles !== undefined && !hasClaim(user, rolesClaim, roles)) return 'acl_role'
    return claims.every(([path, wanted]) => hasClaim(user, path, wanted)) ? null : 'acl_claim'
  }
}

function refusal(
  reason: Reason,
  { scopes }: Options,
  realm: string,
  { consumer }: FastifyRequest,
  reply: FastifyReply
): Error {
  if (reason === 'acl_no_token' && consumer === null) {
    reply.header('www-authenticate', bearerChallenge(realm, false))
    return new CredentialsMissing()
  }
  if (reason !== 'acl_scope' && reason !== 'acl_role' && reason !== 'acl_claim') return new Denied()
  reply.header('www-authenticate', bearerChallenge(realm, true, reason === 'acl_scope' ? scopes : []))
  return new Insufficient()
}

function check(options: Options, at: string, checked: Checked): void {
  const { report } = checked
  if (!report.sound(at)) return
  const { allow, deny, allowConsumers, denyConsumers } = options
  warnOfUnknown({ allow, deny }, 'group', at, checked)
  warnOfUnknown({ allowConsumers, denyConsumers }, 'consumer', at, checked)
  const { mode: _mode, rolesClaim: _claim, ...conditions } = options as Options & { mode?: unknown }
  if (Object.keys(conditions).length === 0) report.fault(at, 'has no condition, such as "allow" or "scopes"')
  if (options.roles === undefined && report.at(`${at}/rolesClaim`) !== undefined) {
    report.warn(`${at}/rolesClaim`, 'has no effect without "roles"', 'key')
  }
  for (const [allow, deny] of [
    ['allow', 'deny'],
    ['allowConsumers', 'denyConsumers']
  ] as const) {
    options[allow]?.forEach((name, index) => {
      if (options[deny]?.includes(name)) {
        report.fault(pointer(at, allow, index), `"${name}" is also in "${deny}", which wins`)
      }
    })
  }
}
