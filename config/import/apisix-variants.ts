/** Plugins of APISIX with conditions, each of which is a route of its own. */

import { limitCount } from './apisix-limits.ts'
import { addConditions } from './apisix-match.ts'
import type { ApisixContext, Convert } from './apisix-scope.ts'
import type { Foreign } from './foreign.ts'
import { respondWith } from './headers.ts'
import type { Settings } from './yaml-text.ts'

/** Returns a copy of a route with further conditions. */
function copyOf(route: Settings, vars: unknown, { draft }: ApisixContext): Settings {
  const match = { ...(route.match as Settings) }
  const copy: Settings = { ...route, name: draft.name('route', `${String(route.name)}-when`), match }
  addConditions(match, vars, (text) => draft.undecided(copy, text))
  return copy
}

/** Adds routes before the one that is converted. Of those that fit, the first rule's wins, as the last route does here. */
function addVariants(context: ApisixContext, variants: (route: Settings) => Settings[]): void {
  const before = context.variants
  context.variants = (route) => [...(before?.(route) ?? []), ...variants(route).reverse()]
}

const sharesOf = (rule: Foreign, own: string, { services }: ApisixContext): Settings[] =>
  rule.maps('weighted_upstreams').map((each) => {
    const upstream = each.map('upstream') ?? services.byId(each.text('upstream_id') ?? '')
    const name = upstream === undefined ? own : services.of(upstream, upstream.text('name') ?? `${own}-split`)
    return { service: name, weight: each.number('weight') ?? 1 }
  })

function setShares(route: Settings, shares: readonly Settings[]): void {
  const live = shares.filter(({ weight }) => weight !== 0)
  delete route.service
  delete route.split
  if (live.length === 1) route.service = live[0]!.service
  else route.split = live
}

const trafficSplit: Convert = (config, { route }, context) => {
  const rules = config.maps('rules')
  if (route?.service === undefined) {
    for (const rule of rules) rule.skip(...rule.keys)
    return context.draft.note(route, 'traffic-split: write split at the routes')
  }
  const own = String(route.service)
  const conditional: { vars: unknown; shares: Settings[] }[] = []
  for (const rule of rules) {
    const shares = sharesOf(rule, own, context)
    const alternatives = rule.maps('match').map((each) => each.value('vars'))
    if (shares.length === 0) continue
    if (alternatives.length > 0) conditional.push(...alternatives.map((vars) => ({ vars, shares })))
    else {
      // Rules after one without conditions are never reached.
      setShares(route, shares)
      break
    }
  }
  for (const rule of rules) rule.skip(...rule.keys)
  addVariants(context, (found) =>
    conditional.map(({ vars, shares }) => {
      const copy = copyOf(found, vars, context)
      setShares(copy, shares)
      return copy
    })
  )
}

const workflow: Convert = (config, place, context) => {
  const { route } = place
  const rules = config.maps('rules').map((rule) => {
    const given = rule.value('actions')
    const [action]: unknown[] = Array.isArray(given) ? given : []
    const [kind, value]: unknown[] = Array.isArray(action) ? action : []
    const options = typeof value === 'object' && value !== null ? { ...value } : {}
    rule.skip('actions')
    return { vars: rule.value('case'), kind: String(kind), options: options as Settings, rule }
  })
  const isKnown = rules.every(({ kind }) => kind === 'return' || kind === 'limit-count')
  if (route === null || rules.length === 0 || !isKnown || rules.some(({ vars }) => vars === undefined))
    return context.draft.undecided(
      route,
      'workflow: not converted; write routes with match, and response or edge.rateLimit'
    )
  addVariants(context, (found) =>
    rules.map(({ vars, kind, options, rule }) => {
      const copy = copyOf(found, vars, context)
      if (kind === 'return') respondWith(copy, 'response', { status: Number(options.code ?? 403) })
      else {
        const edge = (copy.edge ?? {}) as Settings
        const limit = limitCount(options, rule.where, copy, context.draft)
        copy.edge = { ...edge, rateLimit: edge.rateLimit === undefined ? limit : [edge.rateLimit, limit].flat() }
      }
      return copy
    })
  )
}

export const variants: Readonly<Record<string, Convert>> = { 'traffic-split': trafficSplit, workflow }
