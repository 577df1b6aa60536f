// Opens keep-alive connections, sends one request on each, and holds them: node idle-clients.ts URL COUNT [HEADER VALUE]…
// Says `open` once all have their answer; on SIGTERM, how many the server has closed meanwhile.
import type { Socket } from 'node:net'
import { connect } from 'node:net'

const [address, count, ...headers] = process.argv.slice(2) as [string, string, ...string[]]
const { hostname, port, pathname, host } = new URL(address)
const lines = [`GET ${pathname} HTTP/1.1`, `Host: ${host}`]
for (let i = 0; i < headers.length; i += 2) lines.push(`${headers[i]}: ${headers[i + 1]}`)
const request = `${lines.join('\r\n')}\r\n\r\n`

const sockets: Socket[] = []
let closed = 0

/** Clients of one address; a gateway may bound how many connections each has. */
const perAddress = 500

function open(index: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let answer = ''
    const localAddress = `127.1.1.${1 + Math.floor(index / perAddress)}`
    const socket = connect({ port: Number(port), host: hostname, localAddress }, () => socket.write(request))
    socket.on('data', (chunk) => {
      answer += chunk.toString('latin1')
      if (!answer.includes('{"hello":"world"}')) return
      if (answer.startsWith('HTTP/1.1 200 ')) resolve()
      else reject(new Error(answer))
    })
    socket.on('error', reject)
    socket.on('close', () => {
      closed++
      reject(new Error(`closed after: ${answer}`))
    })
    sockets.push(socket)
  })
}

// A few at a time: requests that wait for each other would cost memory of their own.
const lanes = Array.from({ length: 20 }, async (_, lane) => {
  for (let i = lane; i < Number(count); i += 20) await open(i)
})
await Promise.all(lanes)
process.on('SIGTERM', () => {
  process.stdout.write(`closed ${closed}\n`, () => process.exit())
})
process.stdout.write('open\n')
