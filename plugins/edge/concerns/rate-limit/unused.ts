/** Warnings of settings of limits that have no effect. */
import type { Checked } from '../../../../config/concern.ts'
import type { AnyLimit, RateLimitOptions } from './options.ts'
import { isCeiling, limitsOf, sourcesOf } from './options.ts'

/** Warns of settings of one limit. */
export function checkUnused(limit: AnyLimit, at: string, { data, report }: Checked): void {
  const sources = sourcesOf(limit.by)
  const warn = (key: string, what: string) => report.warn(`${at}/${key}`, what, 'key')
  if (sources.length > 1 && sources.includes('route')) {
    report.warn(`${at}/by`, 'all requests have "route" in common; remove it from the list')
  } else if (new Set(sources).size < sources.length) {
    report.warn(`${at}/by`, 'a source is listed twice')
  }
  if (at.startsWith('/consumers/') && limit.by !== 'consumer' && report.at(`${at}/by`) !== undefined) {
    warn('by', 'has no effect here: all requests of the consumer are counted together')
  }
  const hasAddress = !isCeiling(limit) && limit.maxPerAddress !== undefined
  if (limit.ipv6Prefix !== undefined && sources.includes('route') && sources.length === 1 && !hasAddress) {
    warn('ipv6Prefix', 'has no effect with by: route, which counts all addresses together')
  }
  if (limit.share === true && report.usable('/edge') && data.edge.gatewayNodes === 1) {
    warn('share', 'has no effect with edge.gatewayNodes: 1')
  }
  if (isCeiling(limit)) return
  const { lease, cost = 1, headers, mode } = limit
  if (lease !== undefined && lease <= cost) warn('lease', `has no effect: each request takes ${cost}`)
  if (headers !== undefined && mode === 'shadow') {
    warn('headers', 'has no effect with mode: shadow, in which responses do not show the limit')
  }
}

/** Warns of limits of a list that never refuse, because another one of the list allows less in a longer time. */
export function checkWindows(limits: readonly AnyLimit[], at: string, { report }: Checked): void {
  const counted = limits.flatMap((limit, index) => {
    const isSound = report.sound(`${at}/${index}`)
    return isSound && !isCeiling(limit) && limit.algorithm !== 'token-bucket' ? [{ limit, index }] : []
  })
  for (const { limit, index } of counted) {
    // Two windows of the other limit may meet within one of this limit.
    const stricter = counted.find(
      ({ limit: other }) =>
        other.mode !== 'shadow' &&
        other.window > limit.window &&
        2 * other.max <= limit.max &&
        other.cost === limit.cost &&
        other.costHeader === limit.costHeader &&
        JSON.stringify([other.by, other.ipv6Prefix, other.share]) ===
          JSON.stringify([limit.by, limit.ipv6Prefix, limit.share])
    )
    if (stricter === undefined) continue
    const { max } = stricter.limit
    const what = `never refuses: number ${stricter.index + 1} of the list allows at most ${max} in a longer window`
    report.warn(`${at}/${index}/max`, what)
  }
}

/** Returns whether a limit may be divided by the number of nodes. */
const isDivided = (limit: AnyLimit): boolean =>
  limit.share === true || (!isCeiling(limit) && limit.store === 'redis' && (limit.onFailure ?? 'share') === 'share')

/** Warns of `edge.gatewayNodes` if no limit is divided by it. `limits` are those of the gateway and of routes. */
export function checkNodes(limits: readonly unknown[], { data, report }: Checked): void {
  if (!report.usable('/edge') || data.edge.gatewayNodes === undefined || !report.sound('/edge/gatewayNodes')) return
  const { consumers } = data
  // Limits of consumers in a file or in Consul are not known here, nor those of plugins' own routes.
  if (!report.sound('/consumers') || !Array.isArray(consumers) || data.plugins.length > 0) return
  const all = [...limits, ...consumers.map(({ edge }) => edge?.rateLimit)]
  if (all.some((options) => options && limitsOf(options as RateLimitOptions).some(isDivided))) return
  const what = 'has no effect: no rateLimit has share: true, nor store: redis with onFailure: share'
  report.warn('/edge/gatewayNodes', what, 'key')
}
