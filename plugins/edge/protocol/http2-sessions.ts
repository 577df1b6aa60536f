import type { Server } from 'node:http'
import type { ServerHttp2Session, ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'

/** Time for GOAWAY to reach its client, and for the client to close. */
const goodbyeMs = 1000

/**
 * Ends HTTP/2 sessions on which no stream is open: those that have had none yet after the time for a request's head,
 * others after the keep-alive time; whatever else comes on them. A head that is not whole is no stream: Node's own timer
 * would let it, and with it the session, wait for ever.
 */
export function boundSessions(
  server: Server,
  timeouts: () => { readonly headers: number; readonly keepAlive: number },
  boundStream: (stream: ServerHttp2Stream, socket: Socket) => void
): void {
  // A session is told of as its connection is, and does not give it out.
  let latest: Socket
  const remember = (socket: Socket) => {
    latest = socket
  }
  server.prependListener('connection', remember).prependListener('secureConnection', remember)
  server.on('session', (session: ServerHttp2Session) => {
    const socket = latest
    let open = 0
    let timer = setTimeout(goAway, timeouts().headers)
    function goAway(): void {
      session.close()
      // By itself it would wait for a client that reads no more, or does not close.
      timer = setTimeout(() => socket.destroy(), goodbyeMs)
    }
    session.on('stream', (stream: ServerHttp2Stream) => {
      open++
      clearTimeout(timer)
      boundStream(stream, socket)
      stream.once('close', () => {
        open--
        if (open === 0 && !socket.destroyed) timer = setTimeout(goAway, session.closed ? 0 : timeouts().keepAlive)
      })
    })
    socket.once('close', () => clearTimeout(timer))
  })
}
