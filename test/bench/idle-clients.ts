// Opens keep-alive connections, sends one request on each, and holds them: node idle-clients.ts URL COUNT [HEADER VALUE]…
// Prints `open` once all have their response, and on SIGTERM the number of connections that the server has closed.
import type { Socket } from 'node:net'
import { connect } from 'node:net'

const [address, count, ...headers] = process.argv.slice(2) as [string, string, ...string[]]
const { hostname, port, pathname, host } = new URL(address)
const lines = [`GET ${pathname} HTTP/1.1`, `Host: ${host}`]
for (let i = 0; i < headers.length; i += 2) lines.push(`${headers[i]}: ${headers[i + 1]}`)
const request = `${lines.join('\r\n')}\r\n\r\n`

const sockets: Socket[] = []
let closed = 0

/** Number of connections from one address, since a gateway may limit the connections of a client. */
const perAddress = 500

function open(index: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let response = ''
    const localAddress = `127.1.1.${1 + Math.floor(index / perAddress)}`
    const socket = connect({ port: Number(port), host: hostname, localAddress }, () => socket.write(request))
    socket.on('data', (chunk) => {
      response += chunk.toString('latin1')
      if (!response.includes('{"hello":"world"}')) return
      if (response.startsWith('HTTP/1.1 200 ')) resolve()
      else reject(new Error(response))
    })
    socket.on('error', reject)
    socket.on('close', () => {
      closed++
      reject(new Error(`closed after: ${response}`))
    })
    sockets.push(socket)
  })
}

// Twenty requests at a time, since waiting requests would use memory.
const lanes = Array.from({ length: 20 }, async (_, lane) => {
  for (let i = lane; i < Number(count); i += 20) await open(i)
})
await Promise.all(lanes)
process.on('SIGTERM', () => {
  process.stdout.write(`closed ${closed}\n`, () => process.exit())
})
process.stdout.write('open\n')
