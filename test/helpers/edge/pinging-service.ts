// A WebSocket service that pings each client until its connection is closed. Sends its URL to the process that forked it.
import { opcodes, startWebSocketService } from './websocket.ts'

const { url } = await startWebSocketService({
  onPeer: (peer) => {
    const pings = setInterval(() => peer.send(opcodes.ping), 50)
    peer.socket.once('close', () => clearInterval(pings))
  }
})
process.send!(url)
process.once('disconnect', () => process.exit())
