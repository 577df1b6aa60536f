// Child processes and ports for tests. Every child ends with its parent, and only ever by its own handle.

import type { ChildProcess } from 'node:child_process'
import { spawn, spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { connect, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

export interface StartOptions {
  command: string
  args?: string[]
  env?: NodeJS.ProcessEnv
  cwd?: string
  /** Name in error messages. */
  name?: string
  /** Text in its output, or a function that is polled until it returns true (a throw counts as false). */
  ready: RegExp | ((output: string) => boolean | Promise<boolean>)
  /** Milliseconds until the start counts as failed. */
  timeout?: number
}

export interface Running {
  pid: number
  /** The last of its stdout and stderr. */
  output(): string
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  /** Sends a signal, does not wait. */
  kill(signal: NodeJS.Signals): void
  /** SIGTERM, after three seconds SIGKILL; resolves when it has ended. */
  stop(): Promise<void>
}

const keptOutput = 64 * 1024
const children = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL')
})

// A parent that is killed runs no exit handler; on Linux the kernel then ends the child.
const withParent = ['setpriv', '--pdeathsig', 'KILL', '--']
const hasSetpriv = spawnSync(withParent[0]!, [...withParent.slice(1), 'true'], { timeout: 5000 }).status === 0

export async function start(options: StartOptions): Promise<Running> {
  const { command, args = [], name = command, ready, timeout = 20_000 } = options
  const line = [...(hasSetpriv ? withParent : []), command, ...args]
  const child = spawn(line[0]!, line.slice(1), {
    cwd: options.cwd,
    env: options.env,
    stdio: ['ignore', 'pipe', 'pipe']
  })
  children.add(child)
  let output = ''
  let ended: Error | undefined
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-keptOutput)
    })
  }
  const exited: Running['exited'] = new Promise((resolve) => {
    child.once('error', (error) => {
      ended = error
      children.delete(child)
      resolve({ code: null, signal: null })
    })
    child.once('close', (code, signal) => {
      ended ??= new Error(`ended with ${signal ?? code}`)
      children.delete(child)
      resolve({ code, signal })
    })
  })
  const running: Running = {
    pid: child.pid ?? 0,
    output: () => output,
    exited,
    kill: (signal) => void child.kill(signal),
    async stop() {
      if (ended) return
      child.kill('SIGTERM')
      const force = setTimeout(() => child.kill('SIGKILL'), 3000)
      await exited
      clearTimeout(force)
    }
  }
  const isReady = ready instanceof RegExp ? (text: string) => ready.test(text) : ready
  const deadline = Date.now() + timeout
  for (;;) {
    if (ended) throw new Error(`${name} ${ended.message} before it was ready:\n${output}`)
    if (await Promise.try(isReady, output).catch(() => false)) {
      // Another process may have responded on a port that the child failed to bind.
      if (!ended) return running
      continue
    }
    if (Date.now() > deadline) {
      await running.stop()
      throw new Error(`${name} was not ready after ${timeout} ms:\n${output}`)
    }
    await sleep(25)
  }
}

/** Runs a command to its end, with a time limit; a failure is a result, not an error. */
export async function runToEnd(
  command: string,
  args: string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv; stdin?: string; timeout?: number } = {}
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const { cwd, env, timeout = 30_000 } = options
  const child = spawn(command, args, { cwd, env, timeout, killSignal: 'SIGKILL' })
  const text = { stdout: '', stderr: '' }
  child.stdout.on('data', (chunk: Buffer) => {
    text.stdout += chunk.toString()
  })
  child.stderr.on('data', (chunk: Buffer) => {
    text.stderr += chunk.toString()
  })
  child.stdin.on('error', () => {}) // the child may end without reading
  child.stdin.end(options.stdin ?? '')
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  return { code, ...text }
}

/** Polls until the result is true; a throw counts as false. */
export async function waitFor(
  what: string,
  question: () => boolean | Promise<boolean>,
  timeout = 10_000
): Promise<void> {
  const deadline = Date.now() + timeout
  while (!(await Promise.try(question).catch(() => false))) {
    if (Date.now() > deadline) throw new Error(`${what}: not after ${timeout} ms`)
    await sleep(20)
  }
}

export function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    const settle = (open: boolean) => {
      socket.destroy()
      resolve(open)
    }
    socket.once('connect', () => settle(true))
    socket.once('error', () => settle(false))
  })
}

export async function freePort(): Promise<number> {
  return (await freePorts(1))[0]!
}

/** Ports on 127.0.0.1, free for TCP and UDP, below those that the system hands out to outgoing connections. */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>()
  for (let tries = 0; ports.size < count; tries++) {
    if (tries > 1000) throw new Error(`found no ${count} free ports`)
    const port = 12_000 + Math.floor(Math.random() * 20_000)
    if (!handedOut.has(port) && (await isFree(port))) ports.add(port)
  }
  for (const port of ports) handedOut.add(port)
  return [...ports]
}

const handedOut = new Set<number>()

async function isFree(port: number): Promise<boolean> {
  const tcp = await new Promise<boolean>((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)))
  })
  if (!tcp) return false
  return new Promise((resolve) => {
    const socket = createSocket('udp4')
    socket.once('error', () => {
      socket.close()
      resolve(false)
    })
    socket.bind({ port, address: '127.0.0.1', exclusive: true }, () => socket.close(() => resolve(true)))
  })
}
