import { hash32 } from '../balancing/hash.ts'
import { balanceOptions } from '../balancing/options.ts'
import { CookieHandler, mintKey } from '../handlers/sticky-cookie.ts'
import type { Layer } from '../layer.ts'
import { factReader } from '../request-facts.ts'

/**
 * Takes the hash by which the balancer chooses, once a call, so that all attempts begin at the same instance. A caller
 * without the cookie may be given one, by which it is hashed at once. Without a value the balancer chooses at random.
 */
export const hashKey: Layer = (_service, { balance }, { random }) => {
  const { policy, hashOn, cookieTtl } = balanceOptions(balance)
  if (hashOn === undefined || (policy !== 'ring-hash' && policy !== 'maglev')) return null
  const read = factReader(hashOn)
  const mint = cookieTtl !== undefined && hashOn.startsWith('cookie:')
  const name = hashOn.slice('cookie:'.length)
  const attributes = `; Path=/; HttpOnly; SameSite=Lax${cookieTtl ? `; Max-Age=${Math.ceil(cookieTtl / 1000)}` : ''}`
  return (dispatch) => (opts, handler) => {
    let key = read(opts)
    let next = handler
    if (key === undefined && mint) {
      key = mintKey(random)
      next = new CookieHandler(handler, `${name}=${key}${attributes}`)
    }
    if (key !== undefined) opts.call!.hash = hash32(key)
    return dispatch(opts, next)
  }
}
