/** Calls that a gateway hands over to the sidecar that runs its mesh half: the sidecar reads the caller from a header. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Caller, SeamError } from '../../seam.ts'
import { callerHeader } from '../../seam-headers.ts'

export interface HandedOver extends Caller {
  /** False if the `Host` for the service is that of the instance. */
  readonly hasHost: boolean
  /** True if the gateway records the trace of the call. */
  readonly isTraced: boolean
}

/** Returns the caller of a call that has been handed over. `id`: of the request. */
export function handedOver(headers: IncomingHttpHeaders, id: string): HandedOver {
  const fields = new URLSearchParams(String(headers[callerHeader] ?? ''))
  const consumer = fields.get('consumer')
  const protocol = fields.get('protocol')
  return {
    id,
    ip: fields.get('ip') ?? '',
    consumer: consumer === null ? null : { id: consumer },
    trusted: fields.has('trusted'),
    ...(protocol !== null && { protocol }),
    hasHost: fields.has('host'),
    isTraced: fields.has('traced')
  }
}

/** Returns an error of the mesh as the gateway reads it. */
export function errorText(code: string, { retryAfterMs, reason }: SeamError): string {
  const fields = new URLSearchParams({ code })
  if (retryAfterMs !== undefined) fields.set('retryAfter', String(retryAfterMs))
  if (typeof reason === 'string') fields.set('reason', reason)
  return fields.toString()
}
