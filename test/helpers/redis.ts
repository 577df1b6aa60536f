// A real Redis on loopback, with or without persistence.
import { once } from 'node:events'
import { connect } from 'node:net'
import { freePort, start } from './processes.ts'
import { tool } from './tools.ts'

export interface Redis {
  url: string
  port: number
  /** Suspends Redis: connections stay open and get no reply. */
  pause(): void
  resume(): void
  stop(): Promise<void>
}

/** Starts Redis. `dir`: folder for its data, which outlive it; every write is on the disk before its reply. */
export async function startRedis(options: { port?: number; dir?: string } = {}): Promise<Redis> {
  const { path, env } = await tool('redis-server')
  const port = options.port ?? (await freePort())
  const data = options.dir === undefined ? ['no'] : ['yes', '--appendfsync', 'always', '--dir', options.dir]
  const args = ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--daemonize', 'no', '--appendonly', ...data]
  const running = await start({
    command: path,
    args,
    env,
    name: 'redis-server',
    ready: async () => (await ask(port, 'PING')) === '+PONG'
  })
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    pause: () => running.kill('SIGSTOP'),
    resume: () => running.kill('SIGCONT'),
    async stop() {
      running.kill('SIGCONT') // a suspended process would not handle SIGTERM
      await running.stop()
    }
  }
}

/** Returns the first line of the reply to an inline command. */
export async function ask(port: number, command: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  try {
    socket.setTimeout(2000, () => socket.destroy(new Error('Redis does not respond')))
    socket.write(`${command}\r\n`)
    const [data] = (await once(socket, 'data')) as [Buffer]
    return data.toString().split('\r\n')[0]!
  } finally {
    socket.destroy()
  }
}
