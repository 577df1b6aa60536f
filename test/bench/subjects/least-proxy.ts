// The least that a proxy on node:http can do: a bound for all others here. No gateway: it has no limits, timeouts or errors.
import { createServer } from 'node:http'
import type { Socket } from 'node:net'
import { connect } from 'node:net'

const origin = new URL(process.env.ORIGIN!)
const notPassed = new Set(['host', 'connection', 'keep-alive'])
const idle: Socket[] = []

/** Sends a request, and calls back with the response, which this takes to be one chunk. */
function ask(head: string, answer: (response: string) => void): void {
  const socket = idle.pop() ?? connect({ host: origin.hostname, port: Number(origin.port), noDelay: true })
  socket.setEncoding('latin1')
  socket.once('data', (response: string) => {
    idle.push(socket)
    answer(response)
  })
  socket.write(`${head}\r\n`, 'latin1')
}

const server = createServer(({ method, url, rawHeaders }, response) => {
  let head = `${method} ${url} HTTP/1.1\r\nhost: ${origin.host}\r\n`
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (!notPassed.has(rawHeaders[i]!.toLowerCase())) head += `${rawHeaders[i]}: ${rawHeaders[i + 1]}\r\n`
  }
  ask(head, (received) => {
    const end = received.indexOf('\r\n\r\n')
    const [status = '', ...lines] = received.slice(0, end).split('\r\n')
    const fields: string[] = []
    for (const line of lines) {
      const colon = line.indexOf(':')
      if (!notPassed.has(line.slice(0, colon).toLowerCase())) fields.push(line.slice(0, colon), line.slice(colon + 2))
    }
    response.writeHead(Number(status.slice(9, 12)), fields).end(received.slice(end + 4), 'latin1')
  })
})
server.listen(Number(process.env.PORT), '127.0.0.1')
