/** The fields of an access line, and its JSON. */
import { isHostile, jsonValue, logName, timestamp } from '../../log-line.ts'

/** A member without a value is omitted. */
export interface AccessFields {
  requestId: string | undefined
  method: string | undefined
  path: string | undefined
  /** Null if no route matches. */
  route: string | null | undefined
  status: number | undefined
  durationMs: number | undefined
  ttfbMs: number | undefined
  upstreamMs: number | undefined
  ip: string | undefined
  agent: string | undefined
  consumer: string | undefined
  service: string | undefined
  /** Null if no instance was tried. */
  instance: string | null | undefined
  attempts: number | undefined
  answeredBy: string | undefined
  fallback: string | null | undefined
  calls: readonly object[] | undefined
  bytesSent: number | undefined
  error: string | undefined
  reason: string | undefined
  cause: string | undefined
  shadow: readonly object[] | undefined
  listener: string | undefined
  direction: string | undefined
  /** Server name of a refused TLS handshake. */
  serverName: string | undefined
  traceId: string | undefined
  /** The gateway's span, if the trace is recorded. */
  spanId: string | undefined
  requestHeaders: Readonly<Record<string, string>> | undefined
  responseHeaders: Readonly<Record<string, string>> | undefined
}

/** A line without any field. */
export const noFields: AccessFields = {
  requestId: undefined, method: undefined, path: undefined, route: undefined, status: undefined, durationMs: undefined,
  ttfbMs: undefined, upstreamMs: undefined, ip: undefined, agent: undefined, consumer: undefined, service: undefined,
  instance: undefined, attempts: undefined, answeredBy: undefined, fallback: undefined, calls: undefined, bytesSent: undefined,
  error: undefined, reason: undefined, cause: undefined, shadow: undefined, listener: undefined, direction: undefined,
  serverName: undefined, traceId: undefined, spanId: undefined, requestHeaders: undefined, responseHeaders: undefined
} // biome-ignore format: a list

/** Names of the fields. */
export const fieldNames = Object.keys(noFields) as (keyof AccessFields)[]

/**
 * Returns the JSON line of these fields, with the bytes of pino's line. One call of JSON.stringify costs less than joining the
 * members in JavaScript, whose parts have to be copied once more.
 */
export function jsonLine(fields: Partial<AccessFields>): string {
  const { path, agent, consumer, requestHeaders, responseHeaders } = fields
  // A client chooses these; a search in the whole line would take 0.2 µs.
  const isSafe =
    !(isHostile(path) || isHostile(agent) || isHostile(consumer)) &&
    requestHeaders === undefined &&
    responseHeaders === undefined
  const members = (isSafe ? JSON.stringify(fields) : jsonValue(fields)).slice(1, -1)
  return `{"level":"info"${timestamp()},"name":"${logName}"${members === '' ? '' : `,${members}`},"msg":"request"}\n`
}
