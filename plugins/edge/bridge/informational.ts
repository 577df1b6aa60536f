import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import type { FastifyRequest } from 'fastify'
import { endToEnd, withoutLength } from '../protocol/headers.ts'

/** Frames that may wait for an HTTP/2 client before hints are left out. */
const mostQueued = 128

/**
 * Passes on a 1xx. Only hints, so one that cannot be passed on is left out, and so are those of a client that does not
 * read: a service may have no end of them. RFC 9110, 15.2: never to HTTP/1.0.
 */
export function writeInformational(
  request: FastifyRequest,
  raw: ServerResponse,
  status: number,
  headers: IncomingHttpHeaders
): void {
  if (request.raw.httpVersion === '1.0') return
  const passed = endToEnd(withoutLength(headers), 'stream' in raw)
  try {
    if ('stream' in raw) {
      const { stream } = raw as unknown as { stream: ServerHttp2Stream }
      if ((stream.session?.state.outboundQueueSize ?? 0) > mostQueued) return
      stream.additionalHeaders({ ':status': status, ...Object.fromEntries(passed) })
    } else if (raw.writableLength > raw.writableHighWaterMark) {
      return
    } else if (typeof raw.writeInformation === 'function') {
      raw.writeInformation(
        status,
        passed.flatMap(([name, value]) => [value].flat().flatMap((item) => [name, item]))
      )
    } else if (status === 103) {
      // Node before 26.2 knows no others.
      raw.writeEarlyHints(Object.fromEntries(passed))
    }
  } catch (err) {
    request.log.debug({ err }, 'informational response dropped')
  }
}
