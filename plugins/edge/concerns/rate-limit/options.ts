/** `edge.rateLimit`: its options and their checks. */
import type { Static } from 'typebox'
import Type from 'typebox'
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { canonicalName } from '../../../../config/header-names.ts'
import { Count, Duration, Names, strict } from '../../../../config/schema/kit.ts'
import { pluginName } from '../../../../config/schema/plugin.ts'
import type { Written, WrittenRoute } from '../../../../config/schema.ts'

export const RateLimit = Type.Object(
  {
    max: Type.Integer({ minimum: 1, description: 'Requests per window.' }),
    window: Duration('Length of the window.'),
    by: Type.Unsafe<'ip' | 'consumer' | `header:${string}`>({
      type: 'string',
      pattern: "^(ip|consumer|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+)$",
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

/** Counting by consumer needs something that says who the consumer is. */
export function checkConsumers({ data, report, keys }: Checked): void {
  if (!report.usable('/routes')) return
  const providers = keys.edge.filter(({ provides }) => provides?.includes('consumer')).map(({ name }) => name)
  data.routes.forEach((route, index) => {
    const at = pointer('/routes', index, 'edge')
    if (!report.usable(at) || report.unknownKeyIn(at)) return
    const names = ['rateLimit', ...providers]
    if (!names.every((name) => report.sound(`${at}/${name}`) && report.sound(`/edge/${name}`))) return
    const [own, top] = [route.edge?.rateLimit, data.edge?.rateLimit]
    const limit = own ?? top
    if (limit === undefined || limit === false || limit.by !== 'consumer') return
    const policy = { ...data.edge, ...route.edge }
    if (providers.some((name) => Reflect.get(policy, name))) return
    if (!report.sound('/plugins') || !report.sound(pointer('/routes', index, 'plugins'))) return
    if (data.plugins.some((plugin) => plugin.provides?.includes('consumer') && runsOn(plugin, route))) return
    const from = own === undefined ? ' (inherited)' : ''
    const what = `consumer${from}: without ${providers.join(' or ')} the route doesn't know its consumers`
    report.fault(`${at}/rateLimit/by`, `${what}; a plugin that sets them says so by provides: [consumer]`)
  })
}

/** Returns whether a plugin's hooks run on a route. */
function runsOn(plugin: Written['plugins'][number], { plugins }: WrittenRoute): boolean {
  if (plugin.prefix !== undefined) return false
  return plugin.scope === 'all' || plugins?.includes(pluginName(plugin)) === true
}
