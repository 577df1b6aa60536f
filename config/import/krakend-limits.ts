/** Limits of KrakenD, whose rates may be fractions. */
import { duration } from './draft.ts'
import { goMs } from './durations.ts'
import type { Convert } from './krakend-scope.ts'
import { oneOrAll } from './patterns.ts'
import type { Settings } from './yaml-text.ts'

/** Returns a rate as a whole number: fewer than one in a second are some in a minute. */
export function rateOf(rate: number, every = '1s'): { rate: number; per: string } {
  const ms = goMs(every)
  const isSlow = rate < 1 && ms !== undefined
  const longer = isSlow && Math.round(rate * 60) < 1 ? 3600 : 60
  if (isSlow) return { rate: Math.max(1, Math.round(rate * longer)), per: duration(ms * longer) }
  return { rate: Math.max(1, Math.round(rate)), per: ms === undefined ? every : duration(ms) }
}

export const limiter: Convert = (config, edge, draft, route) => {
  const every = config.text('every')
  const strategy = config.text('strategy') ?? 'ip'
  const key = config.text('key')
  const limits: Settings[] = []
  const add = (rate: string, capacity: string, more: Settings) => {
    const max = config.number(rate)
    const burst = config.number(capacity)
    if (max === undefined || max === 0) return
    limits.push({
      algorithm: 'token-bucket',
      max: rateOf(max, every).rate,
      window: rateOf(max, every).per,
      ...(burst !== undefined && { burst }),
      ...more
    })
  }
  add('max_rate', 'capacity', { by: 'route' })
  add('client_max_rate', 'client_capacity', strategy === 'header' ? { by: `header:${key?.toLowerCase()}` } : {})
  if (strategy !== 'ip' && strategy !== 'header')
    draft.note(route, `${config.where}.strategy ${strategy}: not converted; it counts by address`)
  if (limits.length > 0) edge.rateLimit = oneOrAll(limits)
}
