import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { markLastResponse } from './last-response.ts'
import { refusalBody, reportRefusal } from './refusals.ts'

/**
 * Handles `Expect` (RFC 9110, 10.1.1). Node would send `100 Continue` at once; here it is sent when the body is first read.
 * If the request gets its response before that, the client gets only the final status, and the connection is closed: it is
 * unknown whether the client still sends the body. A server's own listeners stay in charge.
 */
export function handleExpect(server: Server): void {
  if (server.listenerCount('checkContinue') === 0) server.on('checkContinue', continueWhenRead)
  if (server.listenerCount('checkExpectation') === 0) server.on('checkExpectation', refuse)
}

function continueWhenRead(this: Server, request: IncomingMessage, response: ServerResponse): void {
  let isSent = false
  const { _read: read } = request
  const sendContinue = () => {
    request._read = read
    request.off('resume', sendContinue)
    if (isSent || response.headersSent) return
    response.writeContinue()
    isSent = true
  }
  request._read = (size) => {
    sendContinue()
    request._read(size)
  }
  // Reading a body that has arrived as a whole does not call `_read`.
  request.once('resume', sendContinue)
  // Node sets `Connection: close` itself, but later requests may have been parsed by then.
  response.once('prefinish', () => {
    if (!isSent) markLastResponse(request)
  })
  this.emit('request', request, response)
}

function refuse(this: Server, request: IncomingMessage, response: ServerResponse): void {
  const http1 = request.httpVersionMajor === 1
  response.writeHead(417, {
    'content-type': 'application/json; charset=utf-8',
    ...(http1 && { connection: 'close' })
  })
  response.end(refusalBody(417, 'The only supported expectation is 100-continue'))
  markLastResponse(request)
  reportRefusal(this, { reason: 'expectation', status: 417, ip: request.socket.remoteAddress })
}
