/** The key of services with a fixed list of instances. It needs no mesh. */
import type { SourceKey } from './concern.ts'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import { Instances } from './schema/service.ts'
import type { ServiceOptions, ServiceSources } from './schema.ts'

type Listed = NonNullable<ServiceSources['instances']>

export const instancesKey = {
  name: 'instances',
  service: Instances,
  checkService(listed, at, { report }) {
    const places = (listed as Listed).map((instance, index) => {
      const place = pointer(at, index)
      return typeof instance === 'string' ? { place, url: instance } : { place: `${place}/url`, url: instance?.url }
    })
    for (const { place, url } of places) checkOrigin(place, url, report, { mayHavePath: true })
    const [first, ...others] = places.filter(({ place, url }) => url !== undefined && report.sound(place))
    if (first === undefined) return
    const path = pathOf(first.url)
    for (const { place, url } of others) {
      if (pathOf(url) === path) continue
      const paths = [path, pathOf(url)].map((each) => each ?? 'no path').join(' and ')
      report.fault(place, `all instances of a service have the same path, but these have ${paths}`)
    }
  },
  backends(listed) {
    const urls = (listed as Listed).map((instance) => (typeof instance === 'string' ? instance : instance.url))
    return urls.map((url) => `at ${new URL(url).host}`)
  }
} satisfies SourceKey

/** Returns the path of a URL as it is written: a URL resolves dot segments and backslashes, and escapes characters. */
const writtenPath = (url: string): string => /^[a-z]+:[/\\]*[^/\\?#]*([^?#]*)/i.exec(url)?.[1] ?? ''

/** Rule for the path of an instance and for `basePath`. */
const plainPath = 'no empty segments, no dot segments and no characters that URLs escape'

/** Returns the path of an instance's URL, without a slash at its end; undefined if it has none. */
function pathOf(url: string): string | undefined {
  const { pathname } = new URL(url)
  return (pathname.endsWith('/') ? pathname.slice(0, -1) : pathname) || undefined
}

/** Returns the path of the instances, which all of them have. */
function pathOfAll([first]: Listed): string | undefined {
  return first && pathOf(typeof first === 'string' ? first : first.url)
}

/** Returns the base path of a service; undefined if it has none. */
export function basePathOf({ basePath, instances = [] }: ServiceOptions): string | undefined {
  return basePath ?? pathOfAll(instances)
}

/** Checks a `basePath`: as written, it must be the path that a URL has. */
export function checkBasePath(at: string, { basePath, instances = [] }: ServiceOptions, report: Report): void {
  if (basePath === undefined || !report.usable(at)) return
  const normal = pathOf(`http://host${basePath}`)
  const isPlain = normal === basePath && !basePath.includes('//')
  if (!isPlain) {
    const advice = normal === undefined || normal.includes('//') ? '' : `; write ${normal}`
    report.fault(at, `a base path has ${plainPath}${advice}`)
  } else if (pathOfAll(instances) !== undefined) {
    report.fault(at, 'the instances have a path, too: remove one of the two', 'key')
  }
}

/** Checks that a URL has no more than scheme, host and port, and maybe a path. */
export function checkOrigin(
  at: string,
  text: string | undefined,
  report: Report,
  { what = 'an instance', mayHavePath = false } = {}
): void {
  if (text === undefined || !report.usable(at)) return
  const url = new URL(text)
  const path = writtenPath(text) || '/'
  const extra = [
    ...(url.username !== '' || url.password !== '' ? ['credentials'] : []),
    ...(path !== '/' && !mayHavePath ? ['a path'] : []),
    ...(url.search !== '' || text.includes('?') ? ['a query'] : []),
    ...(text.includes('#') ? ['a fragment'] : [])
  ]
  if (extra.length === 0) {
    if (path === url.pathname && !path.includes('//')) return
    const advice = url.pathname.includes('//') ? '' : `; write ${url.origin}${url.pathname}`
    report.fault(at, `the path of ${what} has ${plainPath}${advice}`)
    return
  }
  const advice = extra.includes('a path') ? '; to add a path prefix, set basePath of the service' : ''
  report.fault(at, `${what} is scheme, host and port; this one has ${extra.join(' and ')}${advice}`)
}
