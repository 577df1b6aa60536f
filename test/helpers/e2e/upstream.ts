// An instance of a service: sends its name (without one, its address) in `x-instance`, waits for `?delay=` milliseconds before it responds
// and `?stream=` within it, reports the request that it got.
// Run as a program it is a process of its own, to be killed: node upstream.ts NAME
import type { Server } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import type { Running } from '../processes.ts'
import { start } from '../processes.ts'

export interface Upstream {
  name: string
  port: number
  /** Requests so far. */
  hits(): number
  /** Stops listening; requests in flight complete. */
  stop(): Promise<void>
}

function serve(name: string, onHit: () => void): Server {
  return createServer(async (request, response) => {
    onHit()
    let body = ''
    for await (const chunk of request) body += String(chunk)
    const { searchParams } = new URL(request.url!, 'http://any')
    const delay = Number(searchParams.get('delay') ?? 0)
    if (delay > 0) await sleep(delay, undefined, { ref: false })
    const instance = name || `${request.socket.localAddress}`
    response.setHeader('x-instance', instance)
    const stream = Number(searchParams.get('stream') ?? 0)
    if (stream > 0) {
      response.write('start')
      await sleep(stream, undefined, { ref: false })
      response.end('end of stream')
      return
    }
    response.end(JSON.stringify({ instance, method: request.method, path: request.url, body }))
  })
}

const listening = (server: Server, port: number, host: string) =>
  new Promise<number>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => resolve((server.address() as AddressInfo).port))
  })

/** Runs in this process; stopped when the test ends. */
export async function upstream(t: Test, name: string, { host = '127.0.0.1', port = 0 } = {}): Promise<Upstream> {
  let hits = 0
  const server = serve(name, () => hits++)
  const taken = await listening(server, port, host)
  const stop = () => new Promise<void>((resolve) => void server.close(() => resolve()))
  t.teardown(() => {
    server.closeAllConnections()
    return stop()
  })
  return { name, port: taken, hits: () => hits, stop }
}

/** Runs in a process of its own; killed when the test ends. */
export async function upstreamProcess(t: Test, name: string): Promise<{ name: string; port: number } & Running> {
  const ready = /listening (\d+)/
  const running = await start({ command: process.execPath, args: [import.meta.filename, name], ready })
  t.teardown(() => running.kill('SIGKILL'))
  return { ...running, name, port: Number(ready.exec(running.output())![1]) }
}

if (import.meta.main) {
  const server = serve(process.argv[2] ?? '', () => {})
  console.log(`listening ${await listening(server, 0, '127.0.0.1')}`)
  process.once('SIGTERM', () => server.close(() => process.exit(0)))
}
