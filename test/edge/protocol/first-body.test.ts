/** Reads bodies of clients that have left already, before or after the request was complete. */
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import http from 'node:http'
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { readFirst } from '../../../plugins/edge/protocol/first-body.ts'
import { isCutOff } from '../../../plugins/edge/protocol/request-body.ts'
import { connect } from '../../helpers/gateway.ts'

/** Sends a part of a body, or all of it, and leaves. Returns the request as the server has it afterwards. */
type Leave = (t: Test, isWhole: boolean) => Promise<IncomingMessage>

const leave: Readonly<Record<string, Leave>> = {
  async 'HTTP/1.1'(t, isWhole) {
    const server = http.createServer().listen(0, '127.0.0.1')
    t.teardown(() => server.close())
    await once(server, 'listening')
    const requested = once(server, 'request')
    const client = connect(
      (server.address() as AddressInfo).port,
      'POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na'
    )
    if (isWhole) client.socket.write('b')
    const [request, response] = (await requested) as [IncomingMessage, ServerResponse]
    if (isWhole) await once(request.resume(), 'end')
    client.socket.destroy()
    await once(response, 'close')
    return request
  },
  async 'HTTP/2'(t, isWhole) {
    const server = http2.createServer().listen(0, '127.0.0.1')
    t.teardown(() => server.close())
    await once(server, 'listening')
    const session = http2.connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    t.teardown(() => session.destroy())
    const requested = once(server, 'request')
    const stream = session.request({ ':method': 'POST' }).on('error', () => {})
    stream.write('a')
    if (isWhole) stream.end('b')
    const [request, response] = (await requested) as [http2.Http2ServerRequest, http2.Http2ServerResponse]
    if (isWhole) await once(request.resume(), 'end')
    const closed = once(response.stream, 'close')
    stream.close(http2.constants.NGHTTP2_CANCEL)
    await closed
    return request as unknown as IncomingMessage
  }
}

for (const [protocol, left] of Object.entries(leave)) {
  t.test(`the body of a client that has left already is not waited for, over ${protocol}`, async (t) => {
    const request = await left(t, false)
    t.ok(isCutOff(request))
    await t.rejects(
      readFirst(request, 100, () => true),
      { message: 'the client disconnected within the request body' }
    )
  })

  t.test(`a client that leaves after its request has not cut it off, over ${protocol}`, async (t) => {
    t.equal(isCutOff(await left(t, true)), protocol === 'HTTP/2', 'a stream that is reset is always cut off')
  })
}
