/** The checks of `edge.forwardAuth`. */
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { isConnectionHeader } from '../../../../config/header-names.ts'
import { checkAuthServer, checkServiceHeaders } from '../../bridge/check-auth-server.ts'
import { isShadow } from '../../shadow.ts'
import type { ForwardAuthOptions } from './options.ts'

export function checkForwardAuth(options: ForwardAuthOptions, at: string, checked: Checked): void {
  const { report } = checked
  checkAuthServer(options, at, checked)
  if (report.usable(`${at}/responseHeaders`)) {
    checkServiceHeaders([...options.responseHeaders.entries()], `${at}/responseHeaders`, checked)
  }
  for (const key of ['requestHeaders', 'clientHeaders', 'refusalHeaders', 'consumer'] as const) {
    const place = `${at}/${key}`
    if (!report.usable(place)) continue
    const isList = Array.isArray(options[key])
    for (const [index, name] of [options[key] ?? []].flat().entries()) {
      if (isConnectionHeader(name)) {
        report.fault(
          isList ? pointer(place, index) : place,
          `"${name}" belongs to the connection and is never passed on`
        )
      }
    }
  }
  if (!report.sound(at)) return
  for (const key of isShadow(options) ? (['responseHeaders', 'clientHeaders', 'consumer'] as const) : []) {
    if ((options[key] ?? '').length === 0) continue
    report.warn(`${at}/${key}`, 'not set with mode: shadow, in which no request waits for the decision', 'key')
  }
  if (!options.forwardBody && report.at(`${at}/maxBodySize`) !== undefined) {
    report.warn(`${at}/maxBodySize`, 'has no effect without forwardBody: true', 'key')
  }
  const { cache, format, forwardBody, requestHeaders } = options
  if (forwardBody && format === 'opa') report.fault(`${at}/forwardBody`, 'has an effect only with format: http', 'key')
  if (cache === undefined) return
  if (forwardBody) report.fault(`${at}/forwardBody`, 'not with a cache: the decision may depend on the body', 'key')
  if (requestHeaders !== undefined) {
    const what = 'not with a cache, which sends the headers of cache.key: write header:NAME there'
    report.fault(`${at}/requestHeaders`, what, 'key')
  }
  cache.key.forEach((field, index) => {
    if (format === 'http' && (field === 'consumer' || field === 'claims')) {
      const what = `only OPA gets the ${field}; a header that "jwt.forward" sets can be named as header:NAME`
      report.fault(pointer(`${at}/cache/key`, index), what)
    }
  })
}
