// slow: takes about 10 s
// Services that send very slowly, without a pause: the idle timeout never aborts them.
import { once } from 'node:events'
import http2 from 'node:http2'
import net from 'node:net'
import type { Duplex } from 'node:stream'
import tls from 'node:tls'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { gatewayBefore, startRawService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const { cert, key } = selfSigned(t)
const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n'

/** Beginnings of responses, and the byte that is repeated endlessly. */
const drips: readonly (readonly [what: string, begin: string, drip: string])[] = [
  ['data', chunked, '1\r\nx\r\n'],
  ['a body with a length', 'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nok', 'x'],
  ['a body up to the end of the connection', 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok', 'x'],
  ['a chunk extension', `${chunked}2;a=`, 'x'],
  ['a trailer section', `${chunked}0\r\nx-sum: `, '7']
]

for (const protocol of ['HTTP/1.1', 'TLS', 'HTTP/2'] as const) {
  const listen = protocol === 'HTTP/1.1' ? {} : { tls: { cert, key }, http2: protocol === 'HTTP/2' }
  for (const [what, begin, drip] of drips) {
    t.test(`${protocol}: ${what} that arrives a byte at a time is aborted after mesh.responseTimeout`, async (t) => {
      let open = 0
      const service = await startRawService((socket) => {
        open++
        let timer: NodeJS.Timeout | undefined
        socket.once('close', () => {
          open--
          clearInterval(timer)
        })
        socket.on('data', (chunk: Buffer) => {
          if (chunk.includes('/whole')) {
            socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole')
            return
          }
          socket.write(begin)
          timer = setInterval(() => socket.write(drip), 20)
        })
      })
      t.teardown(service.close)
      const { port, log } = await gatewayBefore(
        t,
        service.url,
        { listen, mesh: { retry: false, idleTimeout: '200ms', responseTimeout: '600ms' } },
        { log: true }
      )
      const whole = await received(port, protocol, '/whole')
      t.match(whole.text, /whole/)
      const { text } = await received(port, protocol, '/drip')
      t.match(text, /ok/)
      t.notMatch(text, /\r\n0\r\n\r\n$/, 'the client sees that the response is incomplete')
      await eventually(() => log.some(({ error }) => error === 'JW_RESPONSE_TIMEOUT'))
      // The connection of the complete response may still be idle.
      await eventually(() => open <= 1)
    })
  }
}

/** Returns all bytes before the end of the response or its connection. */
async function received(port: number, protocol: string, path: string): Promise<{ text: string }> {
  let text = ''
  const collect = (stream: Duplex) => {
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
    })
    stream.on('error', () => {})
    return new Promise((resolve) => stream.once('close', resolve))
  }
  if (protocol === 'HTTP/2') {
    const session = http2.connect(`https://localhost:${port}`, { rejectUnauthorized: false })
    session.on('error', () => {})
    await once(session, 'connect')
    await collect(session.request({ ':path': path }))
    session.destroy()
  } else {
    const socket =
      protocol === 'TLS'
        ? tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false })
        : net.connect(port, '127.0.0.1')
    const closed = collect(socket)
    socket.write(`GET ${path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`)
    await closed
  }
  return { text }
}
