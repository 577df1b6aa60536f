import type { Checked } from '../../../config/concern.ts'
import { perRequestHeaders } from '../../../config/declared.ts'
import { pointer } from '../../../config/faults.ts'
import { canonicalName, isGatewayHeader } from '../../../config/header-names.ts'
import { didYouMean } from '../../../config/nearest.ts'
import type { AuthServerOptions } from './auth-server.ts'

type Given = Partial<Pick<AuthServerOptions, 'url' | 'service' | 'path'>>

/** Returns the name of a server, without the query of its URL, which may have secrets. */
export function serverText({ url, service, path = '/' }: Given): string {
  if (url === undefined) return `${service}${path}`
  const { origin, pathname } = new URL(url)
  return origin + pathname
}

/** Checks the server of a concern: either a URL without credentials, or a service with a path. */
export function checkAuthServer({ url, service, path }: Given, at: string, { data, report }: Checked): void {
  if (url === undefined && service === undefined) {
    if (!report.unknownKeyIn(at)) report.fault(at, 'needs url or service')
    return
  }
  if (url !== undefined && service !== undefined) {
    report.fault(`${at}/service`, 'set either url or service', 'key')
    return
  }
  if (url !== undefined && path !== undefined) {
    report.fault(`${at}/path`, 'belongs to service; write the path in url', 'key')
  }
  if (url !== undefined && report.sound(`${at}/url`)) {
    const { username, password } = new URL(url)
    if (username !== '' || password !== '')
      report.fault(`${at}/url`, 'credentials in this URL are not sent; remove them')
  }
  if (service === undefined || !report.sound(`${at}/service`) || !report.usable('/services')) return
  if (!Object.hasOwn(data.services, service)) {
    report.fault(`${at}/service`, `unknown service "${service}"${didYouMean(service, Object.keys(data.services))}`)
  }
}

/** Reports headers for the service that the gateway sets itself, or that occur twice. The keys are those of the place. */
export function checkServiceHeaders(
  headers: readonly (readonly [key: string | number, header: string])[],
  at: string,
  { data, keys, report }: Checked
): void {
  const sound = keys.edge.filter(({ name }) => report.sound(`/edge/${name}`))
  const taken = new Set(perRequestHeaders(sound, data.edge).map(canonicalName))
  const seen = new Set<string>()
  for (const [key, header] of headers) {
    const place = pointer(at, key)
    if (!report.usable(place)) continue
    const name = canonicalName(header)
    if (isGatewayHeader(header) || taken.has(name)) report.fault(place, `"${header}" is set by the gateway itself`)
    else if (seen.has(name)) report.fault(place, `"${header}" is listed twice`)
    seen.add(name)
  }
}
