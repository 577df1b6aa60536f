/**
 * Ordered rules that allow or deny requests. Runs after all `onRequest` hooks, so that every kind of authentication has set
 * the consumer, and before the body is read.
 */
import createError from '@fastify/error'
import type { FastifyRequest } from 'fastify'
import { mountPoint, readPath } from '../../../../config/path-reading.ts'
import { parseAddress } from '../../../address-ranges.ts'
import { edgeRouteOf } from '../../attach.ts'
import { bearerChallenge, claimsOf, realmOf } from '../../claims.ts'
import { edgeConcern } from '../../concern.ts'
import { addressReader } from '../../protocol/address-list.ts'
import { checkAuthorization } from './check.ts'
import type { AuthorizationOptions } from './options.ts'
import { AuthorizationOrOff } from './options.ts'
import type { Decision } from './rules.ts'
import { Rules } from './rules.ts'

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    authorization?: AuthorizationOptions | false
  }
}

const Denied = createError('JW_REQUEST_DENIED', 'This request is not allowed', 403)
const Insufficient = createError('JW_INSUFFICIENT_SCOPE', 'The token does not allow this request', 403)
const Ambiguous = createError('JW_PATH_UNDECIDED', 'Services may read the path in ways that are not all allowed', 400)

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const authorizationReasons = ['rule_denied', 'rule_default', 'rule_scope', 'rule_path'] as const

/** Returns whether rules are about the caller. They may be malformed: facts are checked beside the schema. */
const usingAny =
  (names: readonly string[]) =>
  (rules: unknown): boolean =>
    Array.isArray(rules) && rules.some((rule) => names.some((name) => Object.hasOwn(Object(rule), name)))

export default edgeConcern({
  name: 'authorization',
  options: AuthorizationOrOff,
  apiFacts: () => ({ responses: { 403: 'The request is not allowed.' } }),
  aliases: {
    'botDetection|botDetector|uaRestriction|refererRestriction': 'write edge.authorization with rules[].headers'
  },
  needs: [
    { fact: 'claims', option: 'rules', value: usingAny(['scopes', 'claims']) },
    { fact: 'consumer', option: 'rules', value: usingAny(['consumers', 'groups']) }
  ],
  forConsumers: { phases: ['preParsing'] },
  check: checkAuthorization,
  explain(options, { method, target, headers, ip, paths, consumer, user, date }) {
    const decision = new Rules(options, paths).decide({
      method,
      path: () => readPath(target),
      rawHeaders: Object.entries(headers).flat(),
      consumer,
      user,
      address: () => parseAddress(ip),
      date: () => date
    })
    // Examples are not authenticated: their keys and passwords are not read.
    const isUnnamed = consumer === null && decision.action === 'deny' && decision.scopes === null
    const isByName = isUnnamed && options.rules.some((rule) => rule.consumers ?? rule.groups)
    return `${explained(decision, options)}${isByName ? ' (credentials are not read: add --consumer NAME)' : ''}`
  },
  async plugin(fastify, { config, clock }) {
    const addressOf = addressReader(config)
    const prefix = mountPoint(fastify).length
    return (options, route) => {
      const rules = new Rules(options, config.listen.paths)
      const realm = realmOf(edgeRouteOf(route.config)!.edge)
      const decide = (request: FastifyRequest): Decision => {
        const { raw, method, consumer } = request
        return rules.decide({
          method,
          path: () => readPath(prefix === 0 ? raw.url! : raw.url!.slice(prefix)),
          rawHeaders: raw.rawHeaders,
          consumer,
          user: claimsOf(request),
          address: () => addressOf(request),
          date: clock.date
        })
      }
      return {
        preParsing(request, reply, payload, done) {
          const { action, rule, scopes } = decide(request)
          if (action === 'allow') return done(null, payload)
          if (action === 'ambiguous') {
            request.refusalReason = 'rule_path'
            return done(new Ambiguous())
          }
          // A caller without a token is not told to get another one.
          if (scopes !== null && Object(claimsOf(request)) === claimsOf(request)) {
            request.refusalReason = 'rule_scope'
            reply.header('www-authenticate', bearerChallenge(realm, true, scopes))
            return done(new Insufficient())
          }
          request.refusalReason = rule === null ? 'rule_default' : 'rule_denied'
          done(new Denied())
        }
      }
    }
  }
})

function explained({ action, rule, scopes }: Decision, { rules }: AuthorizationOptions): string {
  if (action === 'ambiguous') return 'refuses: services may read the path in ways that are not all allowed'
  const name = rule === null ? undefined : rules[rule]!.name
  const by = rule === null ? 'the default' : `rules[${rule}]${name === undefined ? '' : ` (${name})`}`
  const lacking = scopes === null ? '' : `, for lack of the scopes ${scopes.join(' ')}`
  return `${by} ${action === 'allow' ? 'allows' : 'denies'}${lacking}`
}
