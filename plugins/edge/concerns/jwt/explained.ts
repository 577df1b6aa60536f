import { requestOf, withoutCredentials } from '../../authentication/explained.ts'
import type { Example } from '../../concern.ts'
import { authUntil, lackOf } from './callers.ts'
import type { JwtOptions } from './options.ts'
import { Places } from './places.ts'

/** Returns the text of `explain` about an example: about its claims, else about its token, which is not verified. */
export function explainToken(options: JwtOptions, example: Example): string | null {
  const { user, date, consumer } = example
  if (user !== null && user !== undefined) {
    const lack = lackOf(user, options) ?? (date > authUntil(user, options) ? 'jwt_auth_age' : null)
    return lack === null ? 'accepts the claims' : `refuses: ${lack}`
  }
  const places = new Places(options)
  const request = requestOf(example)
  const found = places.find(request)
  if (found === null) {
    if (options.optional) return consumer === null ? 'lets in requests without a token' : null
    const isOther = places.carrier !== undefined && request.headers.authorization !== undefined
    return withoutCredentials(example, isOther ? 'jwt_scheme' : 'jwt_missing')
  }
  if (typeof found !== 'string') return `does not accept: ${found.reason}`
  return found.length > options.maxTokenSize
    ? 'does not accept: jwt_too_large'
    : 'finds a token, which is not verified here: --claims stands for its claims'
}
