/**
 * Changes headers: those that the service gets, and those that the client gets. Runs after authentication and its rules, so that
 * templates see the caller, and after all `onRequest` hooks, in which plugins may set the consumer.
 *
 * Responses of services stay on their path: the rules change the header section when it arrives. An `onSend` hook does the same
 * for errors and other responses of the gateway, and for those of plugins.
 */
import type { FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import { isComposed } from '../../../../config/targets.ts'
import { dropHeaders } from '../../../for-plugins.ts'
import { edgeRouteOf, isHidden } from '../../attach.ts'
import { markRawForm } from '../../bridge/body-encoder.ts'
import type { HeaderFilter } from '../../bridge/upstream-headers.ts'
import { decorateUpstreamHeaders } from '../../bridge/upstream-headers.ts'
import { edgeConcern } from '../../concern.ts'
import type { RouteHooks } from '../../route-hooks.ts'
import type { FieldTest } from '../../templates/client-fields.ts'
import { trustedByServices, uncountedFields } from '../../templates/client-fields.ts'
import { isIdentity, isOfClient, sourcesIn, usesFact } from '../../templates/source.ts'
import { checkHeaders, checkRoutes } from './check.ts'
import type { HeaderRules, HeadersOptions } from './options.ts'
import { entriesOf, HeadersOrOff, valued } from './options.ts'
import { requestRules } from './request.ts'
import type { Before } from './response.ts'
import { responseRules, restore } from './response.ts'

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    headers?: HeadersOptions | false
  }
}

const needs = (['request', 'response'] as const).flatMap((option) =>
  (['claims', 'consumer'] as const).map((fact) => ({ fact, option, value: usesFact(valued, fact) }))
)

/** A request whose response the rules have changed. */
const CHANGED = Symbol('changed')
type Changed = { [CHANGED]: Before | null }

type Done = (error: Error | null, payload?: unknown) => void

export default edgeConcern({
  name: 'headers',
  options: HeadersOrOff,
  noShadow: 'it refuses no request',
  protects: false,
  needs,
  aliases: {
    'requestHeaders|requestTransformer|addRequestHeader|setRequestHeader|removeRequestHeader|proxySetHeader':
      'write headers: { request: … }',
    'responseHeaders|responseTransformer|responseRewrite|addResponseHeader|setResponseHeader|removeResponseHeader|addHeader':
      'write headers: { response: … }',
    headerModifier: 'write headers: { request: …, response: … }'
  },
  innerAliases: {
    'replace|requestHeadersToSet|responseHeadersToSet': 'write "set"',
    'requestHeadersToAdd|responseHeadersToAdd': 'write "append"',
    'delete|requestHeadersToRemove|responseHeadersToRemove': 'write "remove"',
    'customRequestHeaders|inputHeaders': 'write headers: { request: { set: … } }',
    customResponseHeaders: 'write headers: { response: { set: … } }',
    'allow|allowed|whitelist': 'write "only"'
  },
  check: checkHeaders,
  checkAll: checkRoutes,
  explain: ({ request, response }) =>
    [explained('to the service', request), explained('to the client', response)].filter(Boolean).join('; '),
  async plugin(fastify, { config }) {
    decorateUpstreamHeaders(fastify)
    fastify.decorateRequest(CHANGED, null)
    const risky: (() => void)[] = []
    // Deferred until the headers that all routes drop are known.
    fastify.addHook('onReady', async () => {
      for (const check of risky.splice(0)) check()
    })
    return ({ request, response }, route) => {
      if (request !== undefined) {
        const trusted = identityHeaders(request)
        dropHeaders(route, trusted)
        const chosen = ofClients(request)
        if (chosen.length > 0) risky.push(() => refuseForgery(route, chosen, trustedByServices(fastify, route)()))
      }
      return hooksOf(route, request, response, uncountedFields(fastify, route, config))
    }
  }
})

/** Returns the headers that say who the caller is: clients' copies must not reach the service by any route. */
const identityHeaders = ({ set }: HeaderRules): string[] =>
  entriesOf(set).flatMap(([name, texts]) => (texts.flatMap(sourcesIn).some(isIdentity) ? [name] : []))

/** Returns the headers whose value a client may choose. A renamed header is no longer removed from requests on other routes. */
const ofClients = (rules: HeaderRules): string[] => [
  ...Object.entries(rules.rename ?? {}).flat(),
  ...valued.flatMap((operation) =>
    entriesOf(rules[operation]).flatMap(([name, texts]) => {
      const sources = texts.flatMap(sourcesIn)
      return sources.some(isOfClient) && !sources.some(isIdentity) ? [name] : []
    })
  )
]

/** Throws if a client could send, by these rules, a header that a service trusts. */
function refuseForgery({ config }: RouteOptions, names: readonly string[], isDropped: HeaderFilter | null): void {
  const forged = names.find((name) => isDropped?.(name.toLowerCase()))
  if (forged === undefined) return
  const what = `services trust "${forged}", which a concern or a plugin sets, and by these rules clients could send it`
  throw new Error(`route ${edgeRouteOf(config)?.name}: edge.headers.request: ${what}; choose another name`)
}

function hooksOf(
  { config }: RouteOptions,
  request: HeaderRules | undefined,
  response: HeaderRules | undefined,
  isUncounted: FieldTest
): RouteHooks {
  const route = edgeRouteOf(config)!
  const isBridged = config?.route?.isBridged === true
  // A composed route gets several responses; its own one passes the `onSend` hook.
  const hasParts = config?.route !== undefined && isComposed(config.route)
  const toService = request === undefined ? null : requestRules(request, isBridged)
  const toClient = response === undefined ? null : responseRules(response)

  const preParsing = (given: FastifyRequest, reply: FastifyReply, payload: unknown, done: Done): void => {
    toService?.(given, isUncounted)
    if (toClient !== null && !hasParts) {
      const { onServiceResponse } = given
      given.onServiceResponse = (headers, status) => {
        const before: Before = new Map()
        ;(given as unknown as Changed)[CHANGED] = before
        // Before other concerns, which leave out their own fields if the service has them.
        const kept = toClient.kept(headers)
        if (kept !== headers) given.serviceHeaders ??= headers
        const passed = onServiceResponse?.(kept, status) ?? kept
        return toClient.changed(given, reply, { passed, original: headers }, status, before)
      }
    }
    done(null, payload)
  }

  const onSend = markRawForm((given: FastifyRequest, reply: FastifyReply, payload: unknown, done: Done): void => {
    if (given.exchange?.hasResponded !== true && !isHidden(route, given)) {
      const changed = given as unknown as Changed
      // An error replaces a response that the rules have changed.
      if (changed[CHANGED] !== null) restore(reply, changed[CHANGED])
      changed[CHANGED] = new Map()
      toClient!.changed(given, reply, { passed: {}, original: {} }, reply.statusCode, changed[CHANGED])
    }
    done(null, payload)
  })
  return { preParsing, ...(toClient !== null && { onSend }) } as RouteHooks
}

/** Returns what rules do, for `explain`. */
function explained(where: string, rules: HeaderRules | undefined): string | null {
  if (rules === undefined) return null
  const { only, remove, rename, ...others } = rules
  const parts = [
    only && `passes only ${only.join(', ')}`,
    remove && `removes ${remove.join(', ')}`,
    rename &&
      `renames ${Object.entries(rename)
        .map((names) => names.join(' to '))
        .join(', ')}`,
    ...valued.map(
      (operation) => others[operation] && `${verbs[operation]} ${Object.keys(others[operation]).join(', ')}`
    )
  ]
  return `${where}: ${parts.filter(Boolean).join(', ')}`
}

const verbs = { set: 'sets', add: 'adds if absent', append: 'appends to' } as const
