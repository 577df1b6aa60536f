// A whole gateway on real sockets with plugins in it, and services for it to call.
import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { RequestListener } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { build } from '../../app.ts'
import type { Config } from '../../config/schema.ts'
import { loadConfig, parseConfig } from '../../plugins/config.ts'
import { start } from './processes.ts'

export interface Gateway {
  url: string
  server: FastifyInstance
}

export async function listen(t: Test, config: Config): Promise<Gateway> {
  const server = build(config, { logger: false })
  t.teardown(() => server.close())
  const url = await server.listen({ host: '127.0.0.1', port: 0 })
  return { url, server }
}

/** Starts a service with this listener; returns its origin. */
export async function service(t: Test, listener: RequestListener): Promise<string> {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => new Promise((resolve) => server.close(resolve).closeAllConnections()))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** A folder with the named files, and a configuration in it with the given plugins and one route to a service. */
export async function folder(t: Test, files: Record<string, string>): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'jingwei-plugins-'))
  t.teardown(() => rm(root, { recursive: true, force: true }))
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, name)), { recursive: true })
    await writeFile(join(root, name), text)
  }
  return root
}

export function configIn(root: string, origin: string, plugins: object[]): Config {
  const text = JSON.stringify({
    listen: { host: '127.0.0.1', port: 0 },
    admin: { port: 0 },
    services: { orders: { instances: [origin] } },
    routes: [{ name: 'orders', match: { path: '/orders' }, service: 'orders', config: { greeting: 'hello' } }],
    plugins
  })
  return parseConfig(text, join(root, 'gateway.yaml'))
}

export type Line = Record<string, unknown>

/** A gateway in a process of its own, with the `gateway.yaml` of a folder, and the lines that it has logged so far. */
export async function gatewayProcess(t: Test, root: string) {
  const log = join(root, 'log')
  const app = join(import.meta.dirname, '../../app.ts')
  const running = await start({
    command: 'sh',
    args: ['-c', 'exec "$@" >"$0"', log, process.execPath, app, '-c', join(root, 'gateway.yaml')],
    env: { ...process.env, NODE_OPTIONS: '' },
    name: 'the gateway',
    ready: /admin +http/
  })
  t.teardown(() => running.stop())
  const lines = () => {
    const written = readFileSync(log, 'utf8').split('\n')
    return written.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as Line)
  }
  return { running, lines }
}

/** Returns the message of the fault that stops the start of a configuration file; empty if it starts. */
export async function startFault(t: Test, file: string): Promise<string> {
  try {
    const gateway = build(await loadConfig(file, {}), { logger: false })
    t.teardown(() => gateway.close())
    await gateway.ready()
    return ''
  } catch (error) {
    return (error as Error).message.replaceAll(file, 'gateway.yaml')
  }
}
