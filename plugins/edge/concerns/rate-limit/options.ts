/** `edge.rateLimit`: its options and their checks. */
import type { Static } from 'typebox'
import type { Checked } from '../../../../config/concern.ts'
import { canonicalName } from '../../../../config/header-names.ts'
import { Count, Duration, Names, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { tokenPattern } from '../../../http-syntax.ts'

export const RateLimit = Type.Object(
  {
    max: Type.Integer({ minimum: 1, description: 'Requests per window.' }),
    window: Duration('Length of the window.'),
    by: Type.Unsafe<'ip' | 'consumer' | `header:${string}`>({
      type: 'string',
      pattern: `^(ip|consumer|header:${tokenPattern})$`,
      expected: 'ip, consumer or header:NAME',
      default: 'ip',
      description:
        'Whose requests are counted together: ip | consumer | header:NAME. Those without a consumer, or without the header, count by address.'
    }),
    maxPerAddress: Type.Optional(
      Count(
        'With `by: header:NAME`: requests per window of one client address, whatever the header says. Without, a client that changes the header has no limit.'
      )
    ),
    store: Names(['memory', 'redis'], { default: 'memory', description: 'redis: one limit for the whole cluster.' })
  },
  strict
)

export type RateLimitOptions = Static<typeof RateLimit>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    rateLimit?: RateLimitOptions | false
  }
}

export function checkRateLimit(
  { by, maxPerAddress, store }: RateLimitOptions,
  at: string,
  { data, report }: Checked
): void {
  if (!report.sound(at)) return
  const byHeader = by !== 'ip' && by !== 'consumer'
  if (byHeader && maxPerAddress === undefined) {
    const what = `a client that changes this header with each request has no limit; set maxPerAddress beside it`
    report.warn(`${at}/by`, what)
  } else if (!byHeader && maxPerAddress !== undefined) {
    report.fault(`${at}/maxPerAddress`, `only a limit by: header:NAME needs it; this one is by: ${by}`, 'key')
  }
  if (byHeader && canonicalName(by.slice('header:'.length)) === 'cookie') {
    report.fault(`${at}/by`, 'a cookie header holds all cookies in any order: no two need be the same for one client')
  }
  if (store === 'redis' && data.redis === undefined) {
    report.fault(`${at}/store`, "redis is asked for, but the top level's redis is not set")
  }
}
