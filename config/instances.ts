/** The key of services with a fixed list of instances. It needs no mesh. */
import type { SourceKey } from './concern.ts'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import { Instances } from './schema/service.ts'
import type { ServiceSources } from './schema.ts'

type Listed = NonNullable<ServiceSources['instances']>

export const instancesKey = {
  name: 'instances',
  service: Instances,
  checkService(listed, at, { report }) {
    for (const [index, instance] of (listed as Listed).entries()) {
      const place = pointer(at, index)
      if (typeof instance === 'string') checkOrigin(place, instance, report)
      else checkOrigin(`${place}/url`, instance?.url, report)
    }
  },
  backends(listed) {
    const urls = (listed as Listed).map((instance) => (typeof instance === 'string' ? instance : instance.url))
    return urls.map((url) => `at ${new URL(url).host}`)
  }
} satisfies SourceKey

/** Checks that a URL has no more than scheme, host and port. */
export function checkOrigin(at: string, text: string | undefined, report: Report, what = 'an instance'): void {
  if (text === undefined || !report.usable(at)) return
  const url = new URL(text)
  const extra = [
    ...(url.username !== '' || url.password !== '' ? ['credentials'] : []),
    ...(url.pathname !== '/' ? ['a path'] : []),
    ...(url.search !== '' || text.includes('?') ? ['a query'] : []),
    ...(text.includes('#') ? ['a fragment'] : [])
  ]
  if (extra.length === 0) return
  const advice = extra.includes('a path') ? '; to add a path prefix, set path.rewrite of the route' : ''
  report.fault(at, `${what} is scheme, host and port; this one has ${extra.join(' and ')}${advice}`)
}
