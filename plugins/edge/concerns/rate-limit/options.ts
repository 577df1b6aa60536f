/** `edge.rateLimit`: its options and their checks. */
import type { Static } from 'typebox'
import type { Checked } from '../../../../config/concern.ts'
import { canonicalName } from '../../../../config/header-names.ts'
import { Count, Duration, Names, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { tokenPattern } from '../../../http-syntax.ts'

export const RateLimit = Type.Object(
  {
    max: Type.Integer({ minimum: 1, description: 'Requests allowed per window.' }),
    window: Duration('Length of the window.'),
    by: Type.Unsafe<'ip' | 'consumer' | `header:${string}`>({
      type: 'string',
      pattern: `^(ip|consumer|header:${tokenPattern})$`,
      expected: 'ip, consumer or header:NAME',
      default: 'ip',
      description:
        'Requests that are counted together: those of one client address (`ip`), one `consumer`, or one value of a header (`header:NAME`). Requests without a consumer, or without the header, are counted by address.'
    }),
    maxPerAddress: Type.Optional(
      Count(
        'With `by: header:NAME`: requests allowed per window for one client address, whatever the value of the header. Without it, a client that changes the header has no limit.'
      )
    ),
    store: Names(['memory', 'redis'], {
      default: 'memory',
      description: '`memory`: each node counts on its own. `redis`: one count for the whole cluster.'
    })
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
    const what = 'a client that changes this header with each request has no limit; set maxPerAddress as well'
    report.warn(`${at}/by`, what)
  } else if (!byHeader && maxPerAddress !== undefined) {
    report.fault(`${at}/maxPerAddress`, `has an effect only with by: header:NAME; this limit is by: ${by}`, 'key')
  }
  if (byHeader && canonicalName(by.slice('header:'.length)) === 'cookie') {
    report.fault(
      `${at}/by`,
      'the Cookie header holds all cookies in any order, so one client may send many values; choose another header'
    )
  }
  if (store === 'redis' && data.redis === undefined) {
    report.fault(`${at}/store`, 'needs the top-level "redis", which is not set')
  }
}
