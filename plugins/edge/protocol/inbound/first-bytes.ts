import type { TLSSocket } from 'node:tls'

/** Start of an HTTP/2 connection (RFC 9113, 3.4). No HTTP/1.1 request has this method. */
const preface = 'PRI '

/**
 * Calls back once the first bytes of a connection show its protocol, and sets `alpnProtocol` to it, by which Node's HTTP/2
 * server chooses its parser. The bytes are put back. ALPN cannot be trusted here: Consul's own proxy always negotiates `h2`,
 * whatever its client speaks, and other sidecars negotiate nothing. A connection that is silent for `limitMs` is closed.
 */
export function whenProtocolIsKnown(socket: TLSSocket, limitMs: number, then: () => void): void {
  const end = () => {
    clearTimeout(timer)
    socket.off('readable', read).off('error', ignore).off('close', end)
  }
  let seen = Buffer.alloc(0)
  const read = () => {
    const chunk: Buffer | null = socket.read()
    if (chunk === null) return
    // Not put back before the end: that would emit `readable` at once, without end.
    seen = Buffer.concat([seen, chunk])
    const start = seen.toString('latin1', 0, preface.length)
    if (start.length < preface.length && preface.startsWith(start)) return
    end()
    socket.unshift(seen)
    socket.alpnProtocol = start === preface ? 'h2' : 'http/1.1'
    then()
  }
  const ignore = () => {}
  const timer = setTimeout(() => socket.destroy(), limitMs)
  socket.on('readable', read).on('error', ignore).once('close', end)
}
