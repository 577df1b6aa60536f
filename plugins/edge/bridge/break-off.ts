import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import { constants } from 'node:http2'
import createError from '@fastify/error'

/** Ends the exchange with a service whose response has content where there is none. */
export const Surplus = createError('JW_SURPLUS_BODY', 'The service sent a body with a status that allows none', 502)

/** Ends a response so that no client takes it for whole. */
export function breakOff(request: IncomingMessage, response: ServerResponse): void {
  const { socket } = request
  if ('stream' in response) (response.stream as ServerHttp2Stream).close(constants.NGHTTP2_INTERNAL_ERROR)
  // To HTTP/1.0 a closed connection is the end of the body; only a reset is not.
  else if (request.httpVersion === '1.0' && !('encrypted' in socket)) socket.resetAndDestroy()
  else response.destroy()
}
