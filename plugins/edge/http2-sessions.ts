import type { Server } from 'node:http'
import type { ServerHttp2Session, ServerHttp2Stream } from 'node:http2'

/** What GOAWAY has to reach its client, and the client to close. */
const goodbyeMs = 1000

/**
 * Ends HTTP/2 sessions on which no stream is open: those that have had none yet after the time for a request's head,
 * others after the keep-alive time; whatever else comes on them. A head that is not whole is no stream: Node's own timer
 * would let it, and with it the session, wait for ever.
 */
export function boundSessions(server: Server, { headers, keepAlive }: { headers: number; keepAlive: number }): void {
  server.on('session', (session: ServerHttp2Session) => {
    let open = 0
    let timer = setTimeout(goAway, headers)
    function goAway(): void {
      session.close()
      if (!session.destroyed) timer = setTimeout(() => session.destroy(), goodbyeMs)
    }
    session.on('stream', (stream: ServerHttp2Stream) => {
      open++
      clearTimeout(timer)
      stream.once('close', () => {
        open--
        if (open === 0 && !session.destroyed) timer = setTimeout(goAway, keepAlive)
      })
    })
    session.once('close', () => clearTimeout(timer))
  })
}
