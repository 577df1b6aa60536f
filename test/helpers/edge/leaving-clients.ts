// A thousand WebSocket clients that leave within milliseconds of their request or of their 101. Sends the number of those
// that got one to the process that forked it.
import { once } from 'node:events'
import net from 'node:net'
import { handshake } from './websocket.ts'

const [port, how] = process.argv.slice(2) as [string, 'end' | 'destroy' | 'resetAndDestroy']
let opened = 0

async function visit(waits: boolean): Promise<void> {
  const socket = net.connect(Number(port), '127.0.0.1').on('error', () => {})
  const leave = () => setTimeout(() => socket[how](), Math.random() * 10)
  socket.once('data', () => {
    opened++
    if (waits) leave()
  })
  socket.write(handshake('/ws'))
  if (!waits) leave()
  socket.resume()
  await once(socket, 'close')
}

for (let round = 0; round < 20; round++) {
  await Promise.all(Array.from({ length: 50 }, (_, index) => visit(index % 2 === 0)))
}
process.send!(opened, () => process.disconnect!())
