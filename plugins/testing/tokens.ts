/** Tokens for the routes of a gateway under test. */
import type { Key } from '../../config/concern.ts'
import { didYouMean } from '../../config/nearest.ts'
import type { Config } from '../../config/schema.ts'
import type { TestClock } from './clock.ts'

export interface TokenOptions {
  /** Name of the route for which the token is. Default: the first route with a concern that accepts tokens. */
  readonly route?: string
  /** Seconds until it expires, on the gateway's clock. Default: 3600. */
  readonly expiresIn?: number
}

/** Returns a token that a route accepts. `claims` replace the claims that the concern sets, and the subject `test`. */
export function tokenFor(
  { routes }: Pick<Config, 'routes'>,
  edgeKeys: readonly Key[],
  clock: TestClock,
  claims: Readonly<Record<string, unknown>>,
  { route: name, expiresIn = 3600 }: TokenOptions
): string {
  const issuers = edgeKeys.filter(({ token }) => token !== undefined)
  const candidates = routes.flatMap((route) => {
    const key = issuers.find((each) => Reflect.get(route.edge, each.name))
    return key === undefined ? [] : [{ name: route.name, key, options: Reflect.get(route.edge, key.name) as unknown }]
  })
  const found = name === undefined ? candidates[0] : candidates.find((each) => each.name === name)
  if (found === undefined) {
    const concerns = issuers.map((key) => `edge.${key.name}`).join(' or ') || 'a concern that accepts tokens'
    const [first, ...more] = candidates.map((each) => each.name)
    if (first === undefined) {
      throw new TypeError(
        `no route has ${concerns}: set it for a route or for all, by "override" if only the test needs it`
      )
    }
    if (!routes.some((route) => route.name === name)) {
      throw new TypeError(
        `no route is named "${name}"${didYouMean(
          String(name),
          routes.map((route) => route.name)
        )}`
      )
    }
    throw new TypeError(`route ${name} has no ${concerns}; those that have: ${[first, ...more].join(', ')}`)
  }
  return found.key.token!(found.options, { claims: { sub: 'test', ...claims }, issuedAt: clock.date(), expiresIn })
}
