// A whole gateway, in this process or in one of its own, and a client of its admin port.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Test } from 'tap'
import { Agent, request } from 'undici'
import { build } from '../../../app.ts'
import { parseConfig } from '../../../plugins/config.ts'
import type { Running } from '../processes.ts'
import { start, waitFor } from '../processes.ts'
import type { Wanted } from './config.ts'
import { yamlOf } from './config.ts'

export interface ReceivedResponse {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
  /** Name of the instance that responded; empty if none did. */
  instance: string
}

export interface ServiceHealth {
  source: string
  instances: number
  discoveryAgeMs: number | null
  error: string | null
}

export interface Health {
  code: number
  status: string
  waitingFor?: string[]
  services: Record<string, ServiceHealth>
}

interface SeenService {
  name: string
  instances: { id: string; origin: string; weight: number; active: number }[]
}

export interface Client {
  url: string
  adminUrl: string
  send(path: string, options?: { method?: 'GET' | 'POST'; body?: string }): Promise<ReceivedResponse>
  /** Sends `count` requests, one after another. Returns their number per instance, or per status other than 200. */
  spread(path: string, count: number): Promise<Record<string, number>>
  health(): Promise<Health>
  /** Ports of a service's instances in the snapshot now in use. */
  ports(service: string): Promise<number[]>
  services(): Promise<SeenService[]>
  /** Resolves when the snapshot has exactly these ports. */
  until(service: string, ports: number[], timeout?: number): Promise<void>
  /** Value of a service's series of a metric. */
  metric(name: string, service: string): Promise<number | null>
  /** Closes the client's connections. */
  hangUp(): Promise<void>
}

export function clientOf(url: string, adminUrl: string): Client {
  const agent = new Agent({ connections: 64, keepAliveTimeout: 30_000 })
  const get = async (path: string) => {
    const { statusCode, body } = await request(`${adminUrl}${path}`, { dispatcher: agent })
    return { code: statusCode, text: await body.text() }
  }
  const services: Client['services'] = async () => JSON.parse((await get('/admin/services')).text)
  const client: Client = {
    url,
    adminUrl,
    async send(path, { method = 'GET', body: sent } = {}) {
      const options = { dispatcher: agent, method, ...(sent !== undefined && { body: sent }) }
      const { statusCode, headers, body } = await request(`${url}${path}`, options)
      const text = await body.text()
      return { status: statusCode, headers, text, instance: String(headers['x-instance'] ?? '') }
    },
    async spread(path, count) {
      const seen: Record<string, number> = {}
      for (let sent = 0; sent < count; sent++) {
        const { status, instance } = await client.send(path)
        const key = status === 200 ? instance : String(status)
        seen[key] = (seen[key] ?? 0) + 1
      }
      return seen
    },
    async health() {
      const { code, text } = await get('/health/ready')
      return { code, ...JSON.parse(text) }
    },
    services,
    async ports(name) {
      const found = (await services()).find((service) => service.name === name)
      return (found?.instances ?? []).map(({ origin }) => Number(new URL(origin).port)).sort((a, b) => a - b)
    },
    async until(service, ports, timeout) {
      const wanted = String([...ports].sort((a, b) => a - b))
      await waitFor(`${service} has ${wanted}`, async () => String(await client.ports(service)) === wanted, timeout)
    },
    async metric(name, service) {
      const { text } = await get('/metrics')
      const line = text.split('\n').find((line) => line.startsWith(`${name}{`) && line.includes(`"${service}"`))
      return line === undefined ? null : Number(line.split(' ').at(-1))
    },
    hangUp: () => agent.destroy()
  }
  return client
}

/** Starts a gateway in this process, without log, on free ports; closes it when the test ends. */
export async function inProcess(t: Test, wanted: Wanted): Promise<Client & { close(): Promise<void> }> {
  const server = build(parseConfig(yamlOf(wanted), join(tmpdir(), 'gateway.yaml')), { logger: false })
  await server.listen({ host: '127.0.0.1', port: 0 })
  await server.admin!.listen({ host: '127.0.0.1', port: 0 })
  const urlOf = ({ port }: AddressInfo) => `http://127.0.0.1:${port}`
  const client = clientOf(
    urlOf(server.server.address() as AddressInfo),
    urlOf(server.admin!.server.address() as AddressInfo)
  )
  const close = async () => {
    await client.hangUp()
    await server.close()
  }
  t.teardown(close)
  await waitFor('the gateway is ready', async () => (await client.health()).code === 200)
  return { ...client, close }
}

export const appFile = resolve(import.meta.dirname, '../../../app.ts')

export interface GatewayProcess extends Client {
  running: Running
  /** The log so far. */
  log(): { level: string; msg: string; [field: string]: unknown }[]
}

/** Starts `node app.ts -c FILE` with this limit of descriptors; ends the process when the test ends. */
export async function asProcess(t: Test, wanted: Wanted, descriptors?: number): Promise<GatewayProcess> {
  const args = [appFile, '-c', await configFile(t, yamlOf(wanted))]
  const limited = ['-c', `ulimit -n ${descriptors}; exec "$0" "$@"`, process.execPath, ...args]
  const running = await start({
    command: descriptors === undefined ? process.execPath : 'sh',
    args: descriptors === undefined ? args : limited,
    name: 'gateway',
    ready: /health +http\S+/
  })
  t.teardown(running.stop)
  const [, url] = /edge +(http\S+)/.exec(running.output())!
  const [, adminUrl] = /health +(http:\/\/[^/]+)/.exec(running.output())!
  const client = clientOf(url!, adminUrl!)
  t.teardown(client.hangUp)
  const log: GatewayProcess['log'] = () =>
    running
      .output()
      .split('\n')
      .filter((line) => line.startsWith('{') && line.endsWith('}'))
      .map((line) => JSON.parse(line))
  return { ...client, running, log }
}

export async function configFile(t: Test, yaml: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'jingwei-e2e-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const file = join(folder, 'gateway.yaml')
  await writeFile(file, yaml)
  return file
}
