/** Texts of `explain`: which limits a request counts for. The counters are not read. */
import { durationText } from '../../../../config/units.ts'
import { claimAt } from '../../claims.ts'
import type { Example } from '../../concern.ts'
import type { AnyLimit, By, RateLimitOptions } from './options.ts'
import { isCeiling, isOfCaller, limitsOf, sourcesOf } from './options.ts'

/** `options` are those of the route, or those of the consumer, which replace the route's limits after authentication. */
export function explainLimits(options: RateLimitOptions, example: Example): string | null {
  const own = example.consumer?.edge.rateLimit
  const limits = limitsOf(options)
  const inForce =
    options === own
      ? limits.map((limit) => ({ ...limit, by: 'consumer' }))
      : limits.filter(({ by }) => own === undefined || !isOfCaller(by))
  return inForce.length === 0 ? null : `allows ${inForce.map((limit) => limitText(limit, example)).join('; ')}`
}

function limitText(limit: AnyLimit, example: Example): string {
  const who = [...new Set(sourcesOf(limit.by).map((source) => sourceText(source, example)))].join(' and ')
  const mode = limit.mode === 'shadow' ? ' (shadow)' : ''
  if (isCeiling(limit)) return `${limit.maxConcurrent} in flight of ${who}${mode}`
  const { max, window, maxPerAddress } = limit
  const second = maxPerAddress === undefined ? '' : `, and ${maxPerAddress} of address ${example.ip}`
  return `${max} in ${durationText(window)} of ${who}${second}${mode}`
}

/** Returns the text about a source of a key, without values of headers and claims, which may be secrets. */
function sourceText(source: By & string, { ip, consumer, headers, user }: Example): string {
  if (source === 'ip') return `address ${ip}`
  if (source === 'route') return 'all clients'
  const [kind, ...rest] = source.split(':')
  const name = rest.join(':')
  if (kind === 'consumer')
    return consumer === null ? `address ${ip}, for lack of a consumer` : `consumer ${consumer.id}`
  const value = kind === 'header' ? headers[name.toLowerCase()] : claimAt(user, name)
  // Every request has a host.
  const isHost = kind === 'header' && name.toLowerCase() === 'host'
  const isThere = isHost || (value !== undefined && value !== null && value !== '')
  return isThere ? `one value of ${kind} ${name}` : `address ${ip}, for lack of ${kind} ${name}`
}
