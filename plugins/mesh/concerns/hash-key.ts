import { hash32 } from '../balancing/hash.ts'
import { balanceOptions } from '../balancing/policy.ts'
import type { MeshConcern } from '../concern.ts'
import type { Layer } from '../core/layer.ts'
import { fieldReader } from '../core/request-fields.ts'
import { CookieHandler, mint } from '../core/sticky-cookie.ts'

/**
 * Computes the hash by which the balancer chooses, once per call, so that all attempts prefer the same instance. With
 * `cookieTtl` a caller without the cookie gets one and is hashed by it at once. Without a value the balancer chooses at
 * random.
 */
const hashKey: Layer = (_service, { balance }, { random }) => {
  const { policy, hashOn, cookieTtl } = balanceOptions(balance)
  if (hashOn === undefined || (policy !== 'ring-hash' && policy !== 'maglev')) return null
  const read = fieldReader(hashOn)
  const cookie = hashOn.startsWith('cookie:') ? hashOn.slice('cookie:'.length) : null
  const gives = cookieTtl !== undefined && cookie !== null
  const attributes = cookieTtl ? `; Max-Age=${Math.ceil(cookieTtl / 1000)}` : ''
  return (dispatch) => (opts, handler) => {
    let key = read(opts)
    let next = handler
    if (key === undefined && cookie !== null) {
      // A split that sticks to the same cookie may have created it already.
      const theirs = opts.minted?.name === cookie ? opts.minted : undefined
      if (theirs !== undefined) {
        key = theirs.key
        if (gives) theirs.attributes = attributes
      } else if (gives) {
        const minted = mint(cookie, attributes, opts.caller, random)
        key = minted.key
        next = new CookieHandler(handler, minted)
      }
    }
    if (key !== undefined) opts.call!.hash = hash32(key)
    return dispatch(opts, next)
  }
}

export default { name: 'hash', layer: hashKey } satisfies MeshConcern
