/** Checks the section for spans. */
import { token } from '../plugins/http-syntax.ts'
import { checkPem } from './checked.ts'
import type { Absolute } from './complete-services.ts'
import { files } from './complete-services.ts'
import type { Checked } from './concern.ts'
import { isSecretField } from './credentials.ts'
import { pointer } from './faults.ts'
import type { TracingOptions } from './schema/tracing.ts'

/** Fields of an export that are not the user's. */
const ofExport =
  /^(?:host|content-type|content-length|transfer-encoding|connection|keep-alive|upgrade|expect|te|trailer)$/i

/** A value of a header field (RFC 9110, 5.5). */
const value = /^[\t\x20-\x7e\x80-\xff]*$/

export function checkTracing(checked: Checked): void {
  const { data, report } = checked
  const { tracing } = data
  if (tracing === undefined || !report.usable('/tracing')) return
  if (report.usable('/tracing/otlp/http')) checkHttp(tracing.otlp.http, checked)
  // A sidecar's section lacks the key.
  for (const [index, name] of (tracing.capturedRequestHeaders ?? []).entries()) {
    const at = pointer('/tracing/capturedRequestHeaders', index)
    if (report.usable(at) && isSecretField(name))
      report.fault(at, `the name of ${name} suggests a secret, which must not be in traces`)
  }
}

function checkHttp({ endpoint, headers = {}, tls }: TracingOptions['otlp']['http'], checked: Checked): void {
  const { report } = checked
  const at = '/tracing/otlp/http'
  for (const kind of ['ca', 'cert', 'key'] as const) checkPem(`${at}/tls`, kind, tls?.[kind], checked)
  if (report.usable(`${at}/endpoint`)) {
    const { username, password, hash, protocol } = new URL(endpoint)
    if (username !== '' || password !== '')
      report.fault(`${at}/endpoint`, 'write credentials under headers, as Authorization')
    else if (hash !== '') report.fault(`${at}/endpoint`, 'a fragment is not sent')
    if (tls !== undefined && protocol !== 'https:') report.fault(`${at}/tls`, 'needs an endpoint with https', 'key')
  }
  if (tls !== undefined && report.usable(`${at}/tls`) && (tls.cert === undefined) !== (tls.key === undefined))
    report.fault(`${at}/tls`, 'cert and key need each other')
  if (!report.usable(`${at}/headers`)) return
  const seen = new Set<string>()
  for (const [name, text] of Object.entries(headers)) {
    const place = pointer(at, 'headers', name)
    if (!token.test(name)) report.fault(place, 'expected the name of a header', 'key')
    else if (ofExport.test(name)) report.fault(place, 'the gateway itself sets it', 'key')
    else if (seen.has(name.toLowerCase())) report.fault(place, 'the header is set twice', 'key')
    else if (!value.test(text)) report.fault(place, 'the value has characters that a header cannot have')
    seen.add(name.toLowerCase())
  }
}

/** Returns the options with absolute paths of files. */
export function completeTracing(tracing: TracingOptions, absolute: Absolute): TracingOptions {
  const { http } = tracing.otlp
  if (http.tls === undefined) return tracing
  return { ...tracing, otlp: { http: { ...http, tls: files(http.tls, ['ca', 'cert', 'key'], absolute) } } }
}
