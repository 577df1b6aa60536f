import type { Server } from 'node:http'
import type { ServerHttp2Session, ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'

/** Time for the client to receive GOAWAY and close the connection. */
const goAwayMs = 1000

/**
 * Ends HTTP/2 sessions without an open stream, whatever other frames arrive: new sessions after `timeouts.headers`, others
 * after `timeouts.keepAlive`. An incomplete header section does not open a stream, so Node's own timer would let the session
 * wait for ever.
 */
export function boundSessions(
  server: Server,
  timeouts: () => { readonly headers: number; readonly keepAlive: number },
  boundStream: (stream: ServerHttp2Stream, socket: Socket) => void
): void {
  // Node emits `session` right after the connection event, and a session does not expose its socket.
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
      // Without this, close() would wait for a client that does not read or close.
      timer = setTimeout(() => socket.destroy(), goAwayMs)
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
