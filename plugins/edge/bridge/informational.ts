import type { ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import type { FastifyRequest } from 'fastify'

/** Frames that may be queued for an HTTP/2 client before 1xx responses are dropped. */
const queuedFrames = 128

/**
 * Passes on an informational response (1xx). It is dropped if it cannot be written, or if the client does not read: a
 * service may send any number of them. It is never sent to HTTP/1.0 clients (RFC 9110, 15.2).
 */
export function writeInformational(
  request: FastifyRequest,
  raw: ServerResponse,
  status: number,
  fields: readonly (readonly [name: string, value: string | string[]])[]
): void {
  if (request.raw.httpVersion === '1.0') return
  try {
    if ('stream' in raw) {
      const { stream } = raw as unknown as { stream: ServerHttp2Stream }
      if ((stream.session?.state.outboundQueueSize ?? 0) > queuedFrames) return
      stream.additionalHeaders({ ':status': status, ...Object.fromEntries(fields) })
    } else if (raw.writableLength > raw.writableHighWaterMark) {
      return
    } else if (typeof raw.writeInformation === 'function') {
      raw.writeInformation(
        status,
        fields.flatMap(([name, value]) => [value].flat().flatMap((item) => [name, item]))
      )
    } else if (status === 103) {
      // Node before 26.2 can write no other 1xx.
      raw.writeEarlyHints(Object.fromEntries(fields))
    }
  } catch (err) {
    request.log.debug({ err }, 'informational response dropped')
  }
}
