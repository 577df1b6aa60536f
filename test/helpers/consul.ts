// A real Consul on loopback: one server, ready when it is returned.
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Running } from './processes.ts'
import { freePort, freePorts, runToEnd, start, waitFor } from './processes.ts'
import { tool } from './tools.ts'

export interface ConsulPorts {
  http: number
  dns: number
  server: number
  serfLan: number
}

export interface ConsulOptions {
  /** Ports of an agent that ran before, to replace it. */
  ports?: ConsulPorts
  /** Data folder, which outlives the process; by default data are in memory. */
  dataDir?: string
  /** Denies by default; `masterToken` may do everything. */
  acl?: boolean
  /** With `acl`: the token of one that ran before on the same data. */
  masterToken?: string
  dnsConfig?: object
  /** More of Consul's own configuration. */
  config?: object
}

export interface ServiceRegistration {
  id?: string
  name: string
  port: number
  address?: string
  tags?: string[]
  meta?: Record<string, string>
  weights?: { passing: number; warning: number }
  /** In Consul's format, such as `{ TTL: '10m', Status: 'passing' }`; its id is `service:<id>` unless given. */
  check?: object
}

export interface ConsulAnswer {
  status: number
  headers: Headers
  /** Parsed if it is JSON. */
  body: unknown
}

export interface Consul {
  url: string
  httpPort: number
  dnsPort: number
  ports: ConsulPorts
  dataDir?: string
  nodeName: string
  masterToken?: string
  /** Resolves when the catalog has the instance. */
  register(service: ServiceRegistration): Promise<void>
  /** Resolves when the catalog no longer lists the instance. */
  deregister(id: string): Promise<void>
  /** Sets a TTL check. */
  setCheck(checkId: string, status: 'passing' | 'warning' | 'critical', output?: string): Promise<void>
  /** Creates a token with the given rules (HCL). */
  createToken(rules: string): Promise<string>
  api(method: string, path: string, body?: unknown, token?: string): Promise<ConsulAnswer>
  /** Kills the process, as a crash would; resolves when it has ended. Its data stay. */
  kill(signal?: NodeJS.Signals): Promise<void>
  /** Sends a signal without waiting, such as SIGSTOP and SIGCONT. */
  signal(signal: NodeJS.Signals): void
  output(): string
  stop(): Promise<void>
}

export async function startConsul(options: ConsulOptions = {}): Promise<Consul> {
  let wanted = options
  // A free port may be taken before Consul binds it; a former port of its own, for a while.
  for (let tries = options.ports ? 20 : 3; ; tries--) {
    try {
      return await startOnce(wanted)
    } catch (error) {
      const taken = /:(\d+): bind: address already in use/.exec((error as Error).message)?.[1]
      if (tries === 1 || taken === undefined) throw error
      if (wanted.ports === undefined) continue
      if (Number(taken) === wanted.ports.dns) wanted = { ...wanted, ports: { ...wanted.ports, dns: await freePort() } }
      else await sleep(1000)
    }
  }
}

async function startOnce(options: ConsulOptions): Promise<Consul> {
  const { path, env } = await tool('consul')
  const ports = options.ports ?? (await choosePorts())
  const nodeName = 'node1'
  const masterToken = options.acl ? (options.masterToken ?? randomUUID()) : undefined
  const folder = await mkdtemp(join(tmpdir(), 'jingwei-consul-'))
  const configFile = join(folder, 'consul.json')
  const config = agentConfig(options, ports, nodeName, await versionOf(path), masterToken)
  await writeFile(configFile, JSON.stringify(config))
  const url = `http://127.0.0.1:${ports.http}`
  const api: Consul['api'] = (method, route, body, token = masterToken) => call(url, method, route, body, token)
  const clean = () => rm(folder, { recursive: true, force: true })

  let running: Running
  try {
    running = await start({
      command: path,
      args: ['agent', ...(options.dataDir ? [] : ['-dev']), `-config-file=${configFile}`],
      env,
      name: 'consul',
      timeout: 30_000,
      ready: async () => {
        const leader = await api('GET', '/v1/status/leader')
        if (typeof leader.body !== 'string' || leader.body === '') return false
        const health = await api('GET', `/v1/health/node/${nodeName}`)
        const checks = health.body as { CheckID: string; Status: string }[]
        return checks.some((check) => check.CheckID === 'serfHealth' && check.Status === 'passing')
      }
    })
  } catch (error) {
    await clean()
    throw error
  }

  const expectOk = async (...args: Parameters<Consul['api']>) => {
    const response = await api(...args)
    if (response.status !== 200) throw new Error(`Consul: ${args[0]} ${args[1]}: ${response.status} ${response.body}`)
    return response.body
  }
  const inCatalog = async (id: string) => {
    const node = (await expectOk('GET', `/v1/catalog/node/${nodeName}`)) as { Services: Record<string, unknown> }
    return Object.hasOwn(node.Services, id)
  }
  return {
    url,
    httpPort: ports.http,
    dnsPort: ports.dns,
    ports,
    nodeName,
    ...(options.dataDir === undefined ? {} : { dataDir: options.dataDir }),
    ...(masterToken === undefined ? {} : { masterToken }),
    api,
    async register(service) {
      const { id = service.name, weights } = service
      await expectOk('PUT', '/v1/agent/service/register', {
        ID: id,
        Name: service.name,
        Port: service.port,
        Address: service.address ?? '127.0.0.1',
        Tags: service.tags,
        Meta: service.meta,
        Weights: weights && { Passing: weights.passing, Warning: weights.warning },
        Check: service.check
      })
      await waitFor(`Consul's catalog has ${id}`, () => inCatalog(id))
    },
    async deregister(id) {
      await expectOk('PUT', `/v1/agent/service/deregister/${encodeURIComponent(id)}`)
      await waitFor(`Consul's catalog has forgotten ${id}`, async () => !(await inCatalog(id)))
    },
    async setCheck(checkId, status, output = '') {
      const body = { Status: status, Output: output }
      await expectOk('PUT', `/v1/agent/check/update/${encodeURIComponent(checkId)}`, body)
    },
    async createToken(rules) {
      const name = `policy-${randomUUID()}`
      await expectOk('PUT', '/v1/acl/policy', { Name: name, Rules: rules })
      const token = (await expectOk('PUT', '/v1/acl/token', { Policies: [{ Name: name }] })) as { SecretID: string }
      return token.SecretID
    },
    async kill(signal = 'SIGKILL') {
      running.kill(signal)
      await running.exited
      await clean()
    },
    signal: running.kill,
    output: running.output,
    async stop() {
      running.kill('SIGCONT')
      await running.stop()
      await clean()
    }
  }
}

async function choosePorts(): Promise<ConsulPorts> {
  const [http, dns, server, serfLan] = (await freePorts(4)) as [number, number, number, number]
  return { http, dns, server, serfLan }
}

function agentConfig(
  options: ConsulOptions,
  ports: ConsulPorts,
  nodeName: string,
  version: number,
  masterToken?: string
): object {
  // Newer releases renamed the master token and open one port more.
  const tokens = { [version >= 1.11 ? 'initial_management' : 'master']: masterToken, agent: masterToken }
  return {
    node_name: nodeName,
    server: true,
    bind_addr: '127.0.0.1',
    client_addr: '127.0.0.1',
    // -dev elects itself; a server with a data folder needs -bootstrap-expect
    ...(options.dataDir === undefined ? {} : { data_dir: options.dataDir, bootstrap_expect: 1 }),
    ports: {
      http: ports.http,
      dns: ports.dns,
      server: ports.server,
      serf_lan: ports.serfLan,
      serf_wan: -1,
      grpc: -1,
      ...(version >= 1.14 ? { grpc_tls: -1 } : {})
    },
    performance: { raft_multiplier: 1 },
    connect: { enabled: true },
    disable_update_check: true,
    leave_on_terminate: false,
    skip_leave_on_interrupt: true,
    log_level: 'WARN',
    ...(masterToken === undefined ? {} : { acl: { enabled: true, default_policy: 'deny', tokens } }),
    ...(options.dnsConfig === undefined ? {} : { dns_config: options.dnsConfig }),
    ...options.config
  }
}

let version: Promise<number> | undefined

/** Returns 1.08 for Consul v1.8.7, so that releases compare as numbers. */
function versionOf(path: string): Promise<number> {
  version ??= runToEnd(path, ['version']).then(({ stdout }) => {
    const [, major, minor] = /v?(\d+)\.(\d+)/.exec(stdout) ?? ['', '1', '8']
    return Number(major) + Number(minor) / 100
  })
  return version
}

async function call(url: string, method: string, path: string, body?: unknown, token?: string): Promise<ConsulAnswer> {
  const response = await fetch(`${url}${path}`, {
    method,
    headers: token ? { 'x-consul-token': token } : {},
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    signal: AbortSignal.timeout(30_000)
  })
  const text = await response.text()
  const json = response.headers.get('content-type')?.includes('json')
  return { status: response.status, headers: response.headers, body: json && text ? JSON.parse(text) : text }
}
