// A gateway in its own process, whose configuration changes while it runs.
import { createHash } from 'node:crypto'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { Agent, request } from 'undici'
import { appFile } from '../../helpers/e2e/gateway.ts'
import type { Running } from '../../helpers/processes.ts'
import { freePorts, start, waitFor } from '../../helpers/processes.ts'
import type { Seen } from './probe.ts'

/** Configuration without the ports of the gateway, which stay the same over all reloads. */
export type Changing = Record<string, unknown> & { listen?: object; plugins?: object[] }

export interface TextResponse {
  status: number
  text: string
}

export interface ReloadingGateway {
  url: string
  file: string
  admin: string
  running(): Running
  /** Puts a configuration into the file by a rename, and returns its hash. */
  write(config: Changing | string): string
  /** Removes the file. */
  remove(): void
  /** Writes a configuration and applies it; throws unless it is in force afterwards. */
  reload(config: Changing): Promise<void>
  /** `POST /admin/reload`. */
  post(): Promise<TextResponse>
  /** Sends a GET on a keep-alive connection. */
  get(path: string): Promise<TextResponse>
  getAdmin(path: string): Promise<TextResponse>
  /** Returns the value of a metric: the series whose labels contain this text. */
  metric(name: string, labels?: string): Promise<number | null>
  /** The hash of the configuration in force. */
  hash(): Promise<string>
  probe(): Promise<Seen>
  log(): { level: string; msg: string; [field: string]: unknown }[]
  /** Stops the process and starts another one, in place of a reload. */
  restart(): Promise<void>
}

/** Client options with which only the gateway closes idle connections. */
export const lasting = { keepAliveTimeout: 600_000, keepAliveMaxTimeout: 600_000 }

const probeFile = join(import.meta.dirname, 'probe.ts')

export async function startReloading(t: Test, first: Changing): Promise<ReloadingGateway> {
  const folder = mkdtempSync(join(tmpdir(), 'jingwei-reload-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const file = join(folder, 'gateway.yaml')
  const [port, adminPort] = (await freePorts(2)) as [number, number]
  const write = (config: Changing | string) => {
    const text = typeof config === 'string' ? config : JSON.stringify(complete(config, port, adminPort))
    writeFileSync(`${file}.new`, text)
    renameSync(`${file}.new`, file)
    return createHash('sha256').update(text).digest('hex').slice(0, 16)
  }
  write(first)
  const launch = async () => {
    const args = ['--expose-gc', appFile, '-c', file]
    const ready = /health +http\S+/
    const running = await start({ command: process.execPath, args, name: 'gateway', ready, timeout: 60_000 })
    t.teardown(running.stop)
    return running
  }
  let running = await launch()
  const [, url] = /edge +(http\S+)/.exec(running.output())!
  const [, admin] = /health +(http:\/\/[^/]+)/.exec(running.output())!
  const agent = new Agent({ connections: 4, connect: { rejectUnauthorized: false }, bodyTimeout: 30_000, ...lasting })
  t.teardown(() => agent.destroy())
  const ask = async (to: string, method: 'GET' | 'POST'): Promise<TextResponse> => {
    const { statusCode, body } = await request(to, { dispatcher: agent, method })
    return { status: statusCode, text: await body.text() }
  }
  const gateway: ReloadingGateway = {
    url: url!,
    file,
    admin: admin!,
    write,
    remove: () => rmSync(file),
    running: () => running,
    async reload(config) {
      const hash = write(config)
      const { status, text } = await gateway.post()
      if (status !== 200) throw new Error(`reload: ${status} ${text}`)
      const inForce = await gateway.hash()
      if (inForce !== hash) throw new Error(`reload: ${inForce} is in force, not ${hash}`)
    },
    post: () => ask(`${admin}/admin/reload`, 'POST'),
    get: (path) => ask(`${url}${path}`, 'GET'),
    getAdmin: (path) => ask(`${admin}${path}`, 'GET'),
    async metric(name, labels = '') {
      const { text } = await gateway.getAdmin('/metrics')
      const line = text.split('\n').find((line) => /^[^ {]+/.exec(line)?.[0] === name && line.includes(labels))
      return line === undefined ? null : Number(line.split(' ').at(-1))
    },
    async hash() {
      const { text } = await gateway.getAdmin('/admin')
      return (JSON.parse(text) as { config: { hash: string } }).config.hash
    },
    async probe() {
      const { status, text } = await gateway.get('/probe')
      if (status !== 200) throw new Error(`probe: ${status} ${text}`)
      return JSON.parse(text) as Seen
    },
    log: () =>
      running
        .output()
        .split('\n')
        .filter((line) => line.startsWith('{') && line.endsWith('}'))
        .map((line) => JSON.parse(line)),
    async restart() {
      await running.stop()
      running = await launch()
    }
  }
  await waitFor('the gateway is ready', async () => (await gateway.getAdmin('/health/ready')).status === 200)
  return gateway
}

function complete({ listen, plugins = [], ...config }: Changing, port: number, adminPort: number): object {
  return {
    listen: { host: '127.0.0.1', port, drain: { delay: '0s', timeout: '5s' }, ...listen },
    admin: { host: '127.0.0.1', port: adminPort },
    edge: { accessLog: false, bodyLimit: false },
    ...config,
    plugins: [{ path: probeFile }, ...plugins]
  }
}
