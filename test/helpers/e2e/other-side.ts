/**
 * A service and its clients in a process of their own, so that the CPU time of the test's process is the gateway's. Driven
 * by messages: `{ response }` sets the bytes of the response, `{ port, request, times }` sends a request.
 */
import type { AddressInfo } from 'node:net'
import net from 'node:net'

export type Order = { response: string } | { port: number; request: string; times: number }
/** The port of the service, or the status of the last response and the number of responses. */
export type Report = { port: number } | { status: string; count: number }

let response = ''
const tell = (report: Report) => process.send!(report)

const service = net.createServer((socket) => {
  let seen = ''
  socket.on('error', () => {})
  socket.on('data', (chunk: Buffer) => {
    seen += chunk.toString('latin1')
    for (let end = seen.indexOf('\r\n\r\n'); end >= 0; end = seen.indexOf('\r\n\r\n')) {
      seen = seen.slice(end + 4)
      socket.write(response, 'latin1')
    }
  })
})

/** Sends requests in sequence, on one connection as long as it stays open. */
function ask(port: number, request: string, times: number): void {
  let count = 0
  let status = ''
  let received = ''
  const socket = net.connect(port, '127.0.0.1', () => socket.write(request, 'latin1'))
  socket.on('error', () => {})
  socket.on('data', (chunk: Buffer) => {
    received += chunk.toString('latin1')
    const end = received.indexOf('\r\n\r\n')
    const length = Number(/\r\ncontent-length: (\d+)/i.exec(received.slice(0, end))?.[1] ?? 0)
    if (end < 0 || received.length < end + 4 + length) return
    status = received.slice(9, 12)
    received = ''
    if (++count < times) socket.write(request, 'latin1')
    else socket.end()
  })
  socket.on('close', () => tell({ status, count }))
}

process.on('message', (order: Order) => {
  if ('response' in order) response = order.response
  else ask(order.port, order.request, order.times)
})
process.on('disconnect', () => process.exit())
service.listen(0, '127.0.0.1', () => tell({ port: (service.address() as AddressInfo).port }))
