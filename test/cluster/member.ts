// A Node process of a cluster, which may be stopped or crash, and can be restarted.
import { join, resolve } from 'node:path'
import type { Running } from '../helpers/processes.ts'
import { start } from '../helpers/processes.ts'

export interface Member {
  name: string
  url: string
  pid(): number
  output(): string
  /** Sends a signal, and resolves with the exit code and signal of the process. */
  end(signal: NodeJS.Signals): Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  start(): Promise<void>
}

export interface Supervisor {
  /** True once the whole cluster stops. */
  stopping: boolean
  /** True to restart a member that exited unexpectedly. */
  restart: boolean
  onEvent: (line: string) => void
}

interface Launch {
  name: string
  args: string[]
  env: Record<string, string>
  ready: RegExp | (() => Promise<boolean>)
}

const restartAfter = 2000

export function member({ name, args, env, ready }: Launch, url: string, supervisor: Supervisor): Member {
  let running: Running | undefined
  let wanted = false // true once end() was called
  const begin = async () => {
    wanted = false
    const started = await start({ command: process.execPath, args, env: { ...process.env, ...env }, name, ready })
    running = started
    void started.exited.then(({ code, signal }) => {
      if (wanted || supervisor.stopping) return
      const lines = code === 0 || signal !== null ? '' : `:\n${started.output().split('\n').slice(-10).join('\n')}`
      supervisor.onEvent(`${name} (pid ${started.pid}) has ended with ${signal ?? code}${lines}`)
      if (supervisor.restart) setTimeout(() => void again(), restartAfter)
    })
  }
  const again = async () => {
    if (supervisor.stopping) return
    await begin().then(
      () => supervisor.onEvent(`${name} is back (pid ${running?.pid})`),
      (error: Error) => supervisor.stopping || supervisor.onEvent(error.message)
    )
    if (supervisor.stopping) running?.kill('SIGKILL')
  }
  return {
    name,
    url,
    pid: () => running?.pid ?? 0,
    output: () => running?.output() ?? '',
    async end(signal) {
      wanted = true
      if (running === undefined) return { code: null, signal: null }
      running.kill(signal)
      return running.exited
    },
    start: begin
  }
}

/** Ends all members at the same time: by SIGTERM, and after 8 s by SIGKILL. */
export async function endAll(members: readonly Member[]): Promise<void> {
  await Promise.all(
    members.map(async (member) => {
      const force = setTimeout(() => void member.end('SIGKILL'), 8000)
      await member.end('SIGTERM')
      clearTimeout(force)
    })
  )
}

/** An example service, which registers itself in Consul. */
export function exampleService(name: string, port: number, consulUrl: string, supervisor: Supervisor): Member {
  const program = join(resolve(import.meta.dirname, '../..'), 'config/examples/service.ts')
  const launch = {
    name: `${name} on port ${port}`,
    args: [program, '--name', name, '--port', `${port}`],
    env: { CONSUL_URL: consulUrl },
    ready: /registered in Consul/
  }
  return member(launch, `http://127.0.0.1:${port}`, supervisor)
}
