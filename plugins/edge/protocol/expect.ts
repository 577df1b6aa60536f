import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { markLastResponse } from './last-response.ts'
import { refusalBody, tellRefused } from './refusals.ts'

/**
 * `Expect` (RFC 9110, 10.1.1). Node would ask for the body before anyone has looked at the request; here it is asked
 * for by whoever begins to read it. What is answered before that gets its final status alone, and the connection is
 * closed: whether a body still comes, nobody can know. A server that has listeners of its own keeps them.
 */
export function meetExpectations(server: Server): void {
  if (server.listenerCount('checkContinue') === 0) server.on('checkContinue', askWhenRead)
  if (server.listenerCount('checkExpectation') === 0) server.on('checkExpectation', refuse)
}

function askWhenRead(this: Server, request: IncomingMessage, response: ServerResponse): void {
  let asked = false
  const { _read: read } = request
  const ask = () => {
    request._read = read
    request.off('resume', ask)
    if (asked || response.headersSent) return
    response.writeContinue()
    asked = true
  }
  request._read = (size) => {
    ask()
    request._read(size)
  }
  // A body that came at once is here as a whole: reading it needs no `_read`.
  request.once('resume', ask)
  // Node's own doing is `Connection: close`, and more requests may be here by then.
  response.once('prefinish', () => {
    if (!asked) markLastResponse(request)
  })
  this.emit('request', request, response)
}

function refuse(this: Server, request: IncomingMessage, response: ServerResponse): void {
  const http1 = request.httpVersionMajor === 1
  response.writeHead(417, {
    'content-type': 'application/json; charset=utf-8',
    ...(http1 && { connection: 'close' })
  })
  response.end(refusalBody(417, 'No other expectation than 100-continue is known'))
  markLastResponse(request)
  tellRefused(this, { reason: 'expectation', status: 417, ip: request.socket.remoteAddress })
}
