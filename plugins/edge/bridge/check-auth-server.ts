import type { Checked } from '../../../config/concern.ts'
import { didYouMean } from '../../../config/nearest.ts'
import type { AuthServerOptions } from './auth-server.ts'

type Given = Partial<Pick<AuthServerOptions, 'url' | 'service' | 'path'>>

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
