/**
 * Explains how the gateway would handle a request: route, edge concerns in their order, service, chain of the mesh, possible
 * instances. Sends nothing, counts nothing and takes no random decisions.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyInstance, HTTPMethods, RouteOptions } from 'fastify'
import { identifiesConsumers, lacksBridge } from '../../config/check-facts.ts'
import { directionOf, directionsOf } from '../../config/direction.ts'
import { hostKey } from '../../config/host-name.ts'
import type { PathPattern } from '../../config/path-pattern.ts'
import { routeSettings, settingsText } from '../../config/route-config.ts'
import type { Config, RouteConfig } from '../../config/schema.ts'
import { callsOf } from '../../config/targets.ts'
import { markListener } from '../listener-of.ts'
import { hooksText } from './plugin-record.ts'

export interface ExplainQuery {
  readonly method: string
  /** Path and query, as a client would send them. */
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  /** Address and consumer name of the caller, for balancing and matching by them. */
  readonly ip?: string
  readonly consumer?: string
  /** Claims of the token. */
  readonly claims?: unknown
  /** Name of the listener; default: the first one. */
  readonly listener?: string
}

/** Headers by which the probe gets the request target, and the name of the listener. */
const [targetHeader, listenerHeader] = ['x-jingwei-probed-target', 'x-jingwei-probed-listener'] as const

/** Header with the answer of the probe: the response to HEAD has no body. */
const answerHeader = 'x-jingwei-probe-answer'

/** Returns the target of a request to the probe, and marks its listener. `inject` resolves dot segments of a URL. */
export function probedTarget(request: { headers: IncomingHttpHeaders }): string {
  markListener(request, String(request.headers[listenerHeader]))
  return String(request.headers[targetHeader])
}

/** Path prefix whose routes are served by a redirecting listener, too. */
const challenges = '/.well-known/acme-challenge'

const isChallenge = (path: string | undefined) => path?.startsWith(challenges) === true

type RouteConstraint = NonNullable<RouteOptions['constraints']>

export interface Probing {
  /** A server that routes like the gateway and responds with the name of the route, or with the index of a plugin's route. */
  readonly probe: FastifyInstance
  /** The patterns of routes, of which the probe responds with an index. */
  readonly patterns: readonly PathPattern[]
}

interface Explainer extends Probing {
  /** The gateway, whose mesh explains the call. */
  readonly gateway: FastifyInstance
  readonly config: Config
  readonly targetPath: (
    route: RouteConfig,
    pattern: PathPattern,
    paths: Config['listen']['paths']
  ) => ((target: string) => string) | null
  /** Returns what the gateway itself responds to a request; null for routes with services. */
  readonly directlyFrom: (
    route: RouteConfig,
    pattern: PathPattern,
    asked: {
      readonly method: string
      readonly path: string
      readonly host: string
      readonly listen: Config['listen']
    }
  ) => string | null
}

export type Explained = Awaited<ReturnType<typeof explain>>

/** Returns the text about a consumer that is not in the list; null if there is no list. */
function undeclaredText({ key, isKnown, size }: FastifyInstance['consumers']): string | null {
  const taken = 'explained as a caller without groups and options of its own'
  if (key !== null && !isKnown) {
    return `the list in Consul (${key}) is not known here; ${taken}. /admin/explain of a running gateway knows the list`
  }
  return size === 0 ? null : `is not declared; ${taken}`
}

/** The answer of the probe: a route, by its name or index, or an error. */
interface Found {
  readonly route?: string
  readonly pattern?: number
  readonly own?: number
  readonly statusCode?: number
  readonly code?: string
  readonly message?: string
}

export async function explain(
  { probe, patterns, gateway, config, targetPath, directlyFrom }: Explainer,
  query: ExplainQuery
) {
  const { method, path, headers, ip = '127.0.0.1', consumer, claims = null } = query
  const { listeners } = config
  const { listener = config.listen.name } = query
  const listen = listeners.find(({ name }) => name === listener)
  const direction = listen && directionsOf(listeners).includes('east-west') && { direction: directionOf(listen) }
  const registry = gateway.hasDecorator('consumers') ? gateway.consumers : null
  const declared = consumer === undefined ? undefined : registry?.named(consumer)
  const undeclared = consumer !== undefined && declared === undefined && registry && undeclaredText(registry)
  const request = {
    method,
    path,
    ...(listeners.length > 1 && { listener }),
    ...direction,
    ...(undeclared && { consumer: `${consumer}: ${undeclared}` })
  }
  if (listen === undefined) {
    const message = `no listener is named "${listener}": there are ${listeners.map(({ name }) => name).join(', ')}`
    return { request, route: null, refused: { status: 404, code: null, message }, own: null }
  }
  const match = { listeners: [listener], ...(headers.host !== undefined && { hosts: [hostKey(headers.host)] }) }
  // The probe gets no body.
  const { 'content-length': _length, 'transfer-encoding': _coding, ...ofRequest } = headers
  const probed = { ...ofRequest, [targetHeader]: path, [listenerHeader]: listener }
  const answer = await probe.inject({ method: method as 'GET', url: '/', headers: probed, remoteAddress: ip })
  const found = JSON.parse(decodeURIComponent(String(answer.headers[answerHeader] ?? '{}'))) as Found
  const own = gateway.pluginRecord.ownRoutes()[found.own ?? -1]
  const route = config.routes.find(({ name }) => name === found.route)
  const pattern = patterns[found.pattern ?? -1]
  const isInOrder = ![400, 414].includes(answer.statusCode)
  if (listen.redirect !== undefined && isInOrder && !isChallenge(own?.path ?? pattern?.text)) {
    const status = listen.redirect === 'https' || !['GET', 'HEAD'].includes(method) ? 308 : listen.redirect.status
    const message = `requests that come to the listener ${listener} are redirected to https, if a route or a certificate names their host`
    return { request, route: null, refused: { status, code: null, message }, own: null }
  }
  const named = consumer === undefined ? null : { groups: [], tags: [], edge: {}, id: consumer }
  const keys = gateway.edgeOrder.concerns.flatMap((concern) => concern.keys)
  const isIdentified = route === undefined || identifiesConsumers(keys, route.edge, config, route)
  if (declared !== undefined && !isIdentified && Object.keys(declared.edge).length > 0) {
    const idle = 'nothing on this route identifies it, so its own options do not apply'
    Object.assign(request, { consumer: `${consumer}: ${idle}` })
  }
  const isIdle = (name: string) =>
    !isIdentified || (lacksBridge(config, route) && keys.some((key) => key.name === name && key.needsBridge))
  const seen = declared && {
    ...declared,
    edge: Object.fromEntries(Object.entries(declared.edge).filter(([name]) => !isIdle(name)))
  }
  const caller = { ip, consumer: seen ?? named, trusted: false }
  const { paths } = config.listen
  const sent = { method, target: path, headers, ip, paths }
  const consumers = registry?.isKnown === true ? registry : undefined
  const example = { ...sent, consumer: caller.consumer, user: claims, consumers, date: Date.now(), gateway }
  if (own !== undefined) {
    const { plugin, path: matched, plugins } = own
    const shown = { edge: own.edge, match }
    const decisions = gateway.edgeOrder.explain(shown, { ...example, route: matched })
    const edge = gateway.edgeOrder.namesOn(shown)
    return { request, route: null, refused: null, own: { plugin, path: matched }, edge, decisions, plugins }
  }
  if (route === undefined || pattern === undefined) {
    const { statusCode = answer.statusCode, code = null, message = '' } = found
    return { request, route: null, refused: { status: statusCode, code, message }, own: null }
  }
  let target = path
  let direct: string | null = null
  try {
    direct = directlyFrom(route, pattern, { method, path, host: headers.host ?? '', listen })
    target = targetPath(route, pattern, paths)?.(path) ?? path
  } catch (error) {
    const { statusCode = 500, code = null, message } = error as Error & { statusCode?: number; code?: string }
    return { request, route: null, refused: { status: statusCode, code, message }, own: null }
  }
  const about = { route: { name: route.name, config: {} }, method: method as 'GET', path: target, headers, caller }
  return {
    request,
    route: route.name,
    refused: null,
    own: null,
    edge: gateway.edgeOrder.namesOn({ edge: route.edge, match }),
    decisions: gateway.edgeOrder.explain({ edge: route.edge, match }, { ...example, route: route.name }),
    plugins: gateway.pluginRecord.hooksOf(route.name),
    config: routeSettings(route, config.plugins),
    via: route.via ?? null,
    /** With `via: http-proxy`: the prefix that replaces the matched path. */
    rewritePrefix: route.httpProxy?.rewritePrefix ?? null,
    responsePath: gateway.responsePath(route.name),
    target,
    /** Response of the gateway itself; null for a route with services. */
    direct,
    calls: callsOf(route),
    mesh: route.targets.flatMap((target) => gateway.mesh.explain(target.service, target.mesh, about))
  }
}

/** Lets the configured routes of the probe respond with their names and the indexes of their patterns, which it returns. */
export function probePatterns(probe: FastifyInstance): readonly PathPattern[] {
  const patterns: PathPattern[] = []
  probe.addHook('onSend', (_request, reply, payload, done) => {
    reply.header(answerHeader, encodeURIComponent(String(payload)))
    done(null, payload)
  })
  probe.addHook('onRoute', (options) => {
    const { route, matchedPath } = options.config ?? {}
    if (route === undefined || matchedPath === undefined) return
    const pattern = patterns.push(matchedPath) - 1
    options.handler = async () => ({ route: route.name, pattern })
  })
  return patterns
}

/** Adds the routes of a gateway's plugins to the probe; each responds with its index. */
export async function probeOwnRoutes(probe: FastifyInstance, gateway: FastifyInstance): Promise<void> {
  const mount = gateway.prefix.length > 1 ? gateway.prefix.length : 0
  for (const [own, { path, methods, constraints }] of gateway.pluginRecord.ownRoutes().entries()) {
    for (const method of methods) {
      if (!probe.supportedMethods.includes(method)) probe.addHttpMethod(method, { hasBody: true })
    }
    // Other constraints need strategies that the probe does not have.
    const { host, version } = constraints as RouteConstraint
    probe.route({
      url: path.slice(mount) || '/',
      method: [...methods] as HTTPMethods[],
      constraints: { ...(host !== undefined && { host }), ...(version !== undefined && { version }) },
      exposeHeadRoute: false,
      handler: async () => ({ own })
    })
  }
}

const decisionLines = (decisions: readonly (readonly [name: string, text: string])[]) =>
  decisions.map(([name, text]) => `    ${name.padEnd(13)} ${text}`)

/** Formats the explanation as text for the command line. */
export function explainText(explained: Explained): string {
  const { request, refused, own } = explained
  const on = [
    ...('listener' in request ? [` on ${request.listener}`] : []),
    ...('direction' in request ? [` (${request.direction})`] : [])
  ]
  const lines = [`${request.method} ${request.path}${on.join('')}`]
  if ('consumer' in request) lines.push(`  consumer  ${request.consumer}`)
  if (refused !== null) {
    lines.push(`  refused   ${refused.status} ${refused.code ?? ''} ${refused.message}`.trimEnd())
    return `${lines.join('\n')}\n`
  }
  if (own !== null) {
    lines.push(`  route     ${own.path} of plugin ${own.plugin}`)
    lines.push(`  edge      ${explained.edge.join(' → ')}`, ...decisionLines(explained.decisions))
    lines.push(`  plugins   ${hooksText(explained.plugins)}`)
    return `${lines.join('\n')}\n`
  }
  lines.push(`  route     ${explained.route}`)
  lines.push(`  edge      ${explained.edge.join(' → ') || '–'}`, ...decisionLines(explained.decisions))
  if (explained.plugins.length > 0) lines.push(`  plugins   ${hooksText(explained.plugins)}`)
  if (explained.config.length > 0) lines.push(`  config    ${settingsText(explained.config)}`)
  const { via, rewritePrefix, target } = explained
  if (via !== null) lines.push(`  via       ${via}`)
  const { calls } = explained
  for (const { call, method, service, path, after, required } of calls ?? []) {
    const order = after.length === 0 ? '' : `, after ${after.join(' and ')}`
    lines.push(`  call      ${call}: ${method} ${service} ${path}${order}${required ? '' : ', optional'}`)
  }
  const { direct } = explained
  if (direct !== null) lines.push(`  responds  ${direct}`)
  else if (calls === null)
    lines.push(`  forwards  ${rewritePrefix === null ? target : `${rewritePrefix} and the rest of the path`}`)
  lines.push(`  response  ${explained.responsePath}`)
  for (const { service, subset, share, chain, decisions, basePath, hashed, status } of explained.mesh) {
    const of = share === null ? '' : share.matched ? ', matched' : `, weight ${share.weight}`
    lines.push(`  service   ${service}${subset === null ? '' : `, subset ${subset}`}${of}`)
    if (basePath !== null) lines.push(`    base path ${basePath}`)
    lines.push(`    mesh      ${chain.join(' → ')}`)
    lines.push(...decisions.map(([name, text]) => `      ${name.padEnd(15)} ${text}`))
    const { kind, error } = status.source
    const { length } = status.instances
    const panic = status.panic ? ', panic: all are used' : ''
    lines.push(`    instances ${length} from ${kind}${error === null ? '' : ` (${error})`}${panic}`)
    for (const { id, origin, weight, active, available, obstacles, concerns } of status.instances) {
      const health = available
        ? 'available'
        : Object.entries(obstacles)
            .map(([name, why]) => `${name}: ${why}`)
            .join('; ')
      const state = Object.keys(concerns).length === 0 ? '' : `  ${JSON.stringify(concerns)}`
      const chosen = id === hashed ? '  ← by hash' : ''
      lines.push(`      ${origin}  weight ${weight}  active ${active}  ${health}${state}${chosen}`)
    }
  }
  return `${lines.join('\n')}\n`
}
