import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import { constants } from 'node:http2'
import createError from '@fastify/error'

/** Error for a service that sends a body with a status that allows none. */
export const SurplusBody = createError('JW_SURPLUS_BODY', 'The service sent a body with a status that allows none', 502)

/** Resets the connection (HTTP/2: the stream), so that the client does not take the response for complete. */
export function abortResponse(request: IncomingMessage, response: ServerResponse): void {
  const { socket } = request
  if ('stream' in response) (response.stream as ServerHttp2Stream).close(constants.NGHTTP2_INTERNAL_ERROR)
  // In HTTP/1.0 a closed connection ends the body, so only a reset shows that it is incomplete.
  else if (request.httpVersion === '1.0' && !('encrypted' in socket)) socket.resetAndDestroy()
  else response.destroy()
}
