/**
 * Changes JSON bodies: those that services get, and those that clients get. Only the bytes of changed values differ. Bodies on
 * routes without rules for their direction stay streams.
 */
import type { FastifyRequest, onErrorHookHandler, preParsingHookHandler } from 'fastify'
import { edgeRouteOf } from '../../attach.ts'
import { decorateUpstreamHeaders } from '../../bridge/upstream-headers.ts'
import { takeWhole } from '../../bridge/whole-request.ts'
import { askForWhole } from '../../bridge/whole-response.ts'
import { edgeConcern } from '../../concern.ts'
import { uncountedFields } from '../../templates/client-fields.ts'
import { checkBody, checkRoutes, needs } from './check.ts'
import type { BodyOptions, BodyRule } from './options.ts'
import { BodyOrOff, rulesOf } from './options.ts'
import type { Deps } from './request.ts'
import { requestHook } from './request.ts'
import { responseHook } from './response.ts'
import { compileRule } from './rules.ts'

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    body?: BodyOptions | false
  }
}

/** Requests on routes of plugins whose response is that of an error, which the rules do not change. */
const failed = new WeakSet<FastifyRequest>()

const markFailed: onErrorHookHandler = (request, _reply, _error, done) => {
  failed.add(request)
  done()
}

/** Returns whether the response is one that the rules are for: of a service, or of a plugin's route. */
const isMeant = (request: FastifyRequest, isBridged: boolean): boolean => {
  const { exchange } = request
  return isBridged ? exchange?.hasResponded === true && !exchange.isReplaced : !failed.has(request)
}

export default edgeConcern({
  name: 'body',
  options: BodyOrOff,
  protects: false,
  needs,
  aliases: {
    'bodyTransformer|bodyTransform|transformBody|requestBody|modifyRequestBody': 'write body: { request: … }',
    'responseBody|modifyResponseBody|transformResponse': 'write body: { response: … }'
  },
  innerAliases: {
    'replace|override': 'write "set"',
    'delete|deny': 'write "remove"',
    'allow|allowed|whitelist|pick': 'write "only"',
    'mapping|move': 'write "rename"',
    'contentTypes|contentType|mediaTypes': 'write "types"',
    'status|ifStatus|codes': 'write "statuses"',
    'maxBody|maxBodySize|limit': 'write "maxSize"'
  },
  check: (options, at, checked) => checkBody(options as BodyOptions, at, checked),
  checkAll: checkRoutes,
  explain: (options) => {
    const { request, response } = options as BodyOptions
    return [...explained('requests', request), ...explained('responses', response)].join('; ')
  },
  async plugin(fastify, { config, meter }) {
    decorateUpstreamHeaders(fastify)
    const bodies = meter.counter({
      name: 'jingwei_edge_changed_bodies_total',
      help: 'Bodies to which rules of edge.body applied, by direction and result: changed, unchanged, refused.',
      labelNames: ['route', 'direction', 'result']
    })
    return (given, route, shadow) => {
      const { request, response, maxSize } = given as BodyOptions
      const { name } = edgeRouteOf(route.config)!
      if (route.config?.preflightFor !== undefined) return null
      const isBridged = route.config?.route?.isBridged === true
      const depsFor = (rules: BodyRule | readonly BodyRule[], direction: string): Deps => ({
        steps: rulesOf(rules).map(([rule]) => compileRule(rule)),
        maxSize,
        shadow,
        count: (result) => bodies.labels(name, direction, result).inc()
      })
      const readRequest =
        request === undefined ? [] : [requestHook(depsFor(request, 'request'), uncountedFields(fastify, route, config))]
      if (response === undefined) return { preParsing: readRequest, ...(isBridged && { preValidation: takeWhole }) }
      // After the methods of authentication, whose signatures may cover the fields that it removes.
      const ask: preParsingHookHandler = (asked, _reply, payload, done) => {
        askForWhole(asked, isBridged)
        done(null, payload)
      }
      return {
        preParsing: [ask, ...readRequest],
        ...(request !== undefined && isBridged && { preValidation: takeWhole }),
        // On bridged routes, an error withdraws the response of the service.
        ...(!isBridged && { onError: markFailed }),
        onSend: responseHook(depsFor(response, 'response'), (asked) => isMeant(asked, isBridged))
      }
    }
  }
})

const verbs = { only: 'keeps only', remove: 'removes', rename: 'renames', set: 'sets', add: 'adds if absent' } as const

/** Returns what rules do, for `explain`. */
function explained(of: string, rules: BodyRule | readonly BodyRule[] | undefined): string[] {
  return rulesOf(rules).map(([rule]) => {
    const which = rule.statuses === undefined ? '' : ` with ${rule.statuses.join(', ')}`
    const parts = Object.entries(verbs).flatMap(([operation, verb]) => {
      const names = namesOf(Reflect.get(rule, operation), operation === 'rename')
      return names.length === 0 ? [] : [`${verb} ${names.join(', ')}`]
    })
    return `bodies of ${of}${which}: ${parts.join(', ')}`
  })
}

function namesOf(given: unknown, isRename: boolean): readonly string[] {
  if (Array.isArray(given)) return given as string[]
  const entries = Object.entries(Object(given) as Record<string, unknown>)
  return entries.map(([name, value]) => (isRename ? `${name || '(all)'} to ${value || '(all)'}` : name || '(all)'))
}
