/** Decides whether a stored response may be sent for a request (RFC 9111, 4.2 and 5.2.1; RFC 5861). */
import type { Asked } from './asked.ts'
import { secondsOf } from './directives.ts'
import type { StoredHead, StoredResponse } from './stored.ts'
import { ageNow, varyValues } from './stored.ts'

/**
 * `fresh`: may be sent. `stale`: expired, but the request or an option allows it. `refresh`: as `stale`, while a new one is
 * fetched. `expired`, `asked`: the service has to confirm it, because it has expired or because of the request.
 */
export type Usability = 'fresh' | 'stale' | 'refresh' | 'expired' | 'asked'

export function usability(stored: StoredHead, { directives }: Asked, now: number): Usability {
  const age = ageNow(stored, now)
  const left = stored.lifetime - age
  if (directives.has('no-cache')) return 'asked'
  const maxAge = secondsOf(directives, 'max-age')
  if (maxAge !== undefined && age >= (maxAge + 1) * 1000) return 'asked'
  const minFresh = secondsOf(directives, 'min-fresh')
  if (minFresh !== undefined && left < minFresh * 1000) return left > 0 ? 'asked' : 'expired'
  if (stored.noCache) return 'expired'
  if (left > 0) return maxAge === 0 ? 'asked' : 'fresh'
  if (stored.mustRevalidate) return 'expired'
  if (directives.has('max-stale')) {
    const most =
      directives.get('max-stale') === null ? Number.POSITIVE_INFINITY : secondsOf(directives, 'max-stale')! * 1000
    if (-left <= most) return 'stale'
  }
  if (maxAge === undefined && -left < stored.whileRevalidate) return 'refresh'
  return 'expired'
}

/** Returns whether a response may be sent because the service has failed. */
export function isUsableOnError(stored: StoredHead, { directives }: Asked, now: number): boolean {
  if (stored.mustRevalidate || stored.noCache || directives.has('no-cache')) return false
  const asked = secondsOf(directives, 'stale-if-error')
  const most = asked === undefined ? stored.ifError : Math.min(stored.ifError, asked * 1000)
  return ageNow(stored, now) - stored.lifetime < most
}

/** Returns the newest of the stored responses that fits a request; null if none does. */
function choose(variants: readonly StoredResponse[], asked: Asked, onlyPublic: boolean): StoredResponse | null {
  const known = new Map<string, string>()
  /** Most variants have the same names, so that one digest is enough. */
  const valuesOf = ({ varyNames }: StoredHead): string => {
    const names = varyNames.join()
    const values = known.get(names) ?? varyValues(varyNames, asked.headers)
    known.set(names, values)
    return values
  }
  return variants.findLast((each) => (each.isPublic || !onlyPublic) && each.varyValues === valuesOf(each)) ?? null
}

/**
 * Returns the newest stored response that may be sent to the caller of a request. `ofAll` are the responses of the public
 * key, `own` those of the caller's own key, which may be the same.
 */
export function pick(
  asked: Asked,
  ofAll: readonly StoredResponse[],
  own: readonly StoredResponse[]
): StoredResponse | null {
  const isShared = asked.publicKey === asked.ownKey
  const shared = choose(ofAll, asked, asked.isPersonal || !isShared)
  if (isShared || asked.isPersonal) return shared
  const chosen = choose(own, asked, false)
  return chosen !== null && (shared === null || chosen.storedAt >= shared.storedAt) ? chosen : shared
}

/** Returns whether a response that another request has caused may be sent for a request. */
export function fits(stored: StoredResponse, asked: Asked): boolean {
  const of = (key: string) => (stored.key === key ? [stored] : [])
  return pick(asked, of(asked.publicKey), of(asked.ownKey)) !== null
}
