// An edge cluster on loopback, as docker-compose.yml describes it and from the same configuration files: HAProxy in
// front of two gateways, Consul, Redis, Prometheus, and example services that register themselves.
// As a command (`npm run cluster`) it prints what to try, and Ctrl-C stops all of it; with `--free-ports` it leaves the
// usual ports alone.
import { randomBytes } from 'node:crypto'
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Consul } from '../helpers/consul.ts'
import { startConsul } from '../helpers/consul.ts'
import { startHaproxy } from '../helpers/haproxy.ts'
import { freePort, isListening, waitFor } from '../helpers/processes.ts'
import type { Prometheus } from '../helpers/prometheus.ts'
import { startPrometheus } from '../helpers/prometheus.ts'
import type { Redis } from '../helpers/redis.ts'
import { startRedis } from '../helpers/redis.ts'
import { runCommand } from './command.ts'
import type { Member, Supervisor } from './member.ts'
import { endAll, exampleService, member } from './member.ts'

const home = resolve(import.meta.dirname, '../..')
export const gatewayConfig = join(home, 'config/examples/cluster.yaml')
/** The JWT secret of all clusters of this process. */
export const jwtSecret = process.env.JWT_SECRET ?? randomBytes(32).toString('base64url')

export interface ClusterOptions {
  /** Takes the usual ports if they are free. Otherwise, any free ports. */
  usualPorts?: boolean
  prometheus?: { scrapeInterval?: string } | false
  /** Restarts a gateway or service that exited unexpectedly, like a container's restart policy. */
  restart?: boolean
  /** Called with events of the members. */
  onEvent?: (line: string) => void
}

export interface Gateway extends Member {
  adminUrl: string
}

export interface Cluster {
  /** The edge: HAProxy's address for clients. */
  url: string
  /** HAProxy's page. */
  statusUrl: string
  consul: Consul
  redis: Redis
  prometheus: Prometheus | null
  gateways: [Gateway, Gateway]
  services: Member[]
  /** Names of the gateways that HAProxy sends requests to. */
  inRotation(): Promise<string[]>
  stop(): Promise<void>
}

export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  const { onEvent = () => {} } = options
  const stack = new AsyncDisposableStack()
  const supervisor = { stopping: false, restart: options.restart ?? false, onEvent }
  const port = portChooser(options.usualPorts ?? false)
  try {
    const consul = stack.adopt(
      await startConsul({
        ports: { http: await port(8500), dns: await port(8600), server: await port(8300), serfLan: await port(8301) }
      }),
      (consul) => consul.stop()
    )
    const redis = stack.adopt(await startRedis({ port: await port(6379) }), (redis) => redis.stop())

    const instances = ['orders', 'orders', 'products', 'users']
    const ports = await Promise.all(instances.map((_name, index) => port(9101 + index)))
    const services = instances.map((name, index) => exampleService(name, ports[index]!, consul.url, supervisor))
    stack.defer(() => endAll(services))
    await Promise.all(services.map((member) => member.start()))

    const nodes = [1, 2].map(async (number) => ({
      number,
      port: await port(8000 + number),
      admin: await port(9000 + number)
    }))
    const [first, second] = (await Promise.all(nodes)) as [NodePorts, NodePorts]
    const gateways: [Gateway, Gateway] = [
      gateway(first, consul.url, redis.url, supervisor),
      gateway(second, consul.url, redis.url, supervisor)
    ]
    stack.defer(() => endAll(gateways))
    await Promise.all(gateways.map((member) => member.start()))

    const edge = await port(8080)
    const status = await port(8404)
    const haproxy = await startHaproxy({ ...haproxyOptions(edge, status, [first, second]), ports: [edge, status] })
    stack.defer(haproxy.stop)
    const statusUrl = `http://127.0.0.1:${status}`
    const inRotation = () => nodesUp(statusUrl)
    await waitFor('HAProxy has found both gateways', async () => (await inRotation()).length === 2)

    const prometheus =
      options.prometheus === false
        ? null
        : await prometheusFor([first, second], await port(9090), options.prometheus, stack)
    watch(
      { consul: consul.httpPort, redis: redis.port, haproxy: edge, ...(prometheus && { prometheus: prometheus.port }) },
      onEvent,
      stack
    )
    return {
      url: `http://127.0.0.1:${edge}`,
      statusUrl,
      consul,
      redis,
      prometheus,
      gateways,
      services,
      inRotation,
      async stop() {
        supervisor.stopping = true
        await stack.disposeAsync() // in reverse order
      }
    }
  } catch (error) {
    supervisor.stopping = true
    await stack.disposeAsync()
    throw error
  }
}

interface NodePorts {
  number: number
  port: number
  admin: number
}

function gateway(ports: NodePorts, consulUrl: string, redisUrl: string, supervisor: Supervisor): Gateway {
  const adminUrl = `http://127.0.0.1:${ports.admin}`
  const launch = {
    name: `gateway-${ports.number}`,
    args: [join(home, 'app.ts'), '-c', gatewayConfig],
    env: {
      PORT: `${ports.port}`,
      ADMIN_PORT: `${ports.admin}`,
      CONSUL_URL: consulUrl,
      REDIS_URL: redisUrl,
      JWT_SECRET: jwtSecret,
      DRAIN_DELAY: '2s',
      JINGWEI_LOG_LEVEL: process.env.JINGWEI_LOG_LEVEL ?? 'warn'
    },
    ready: async () => (await fetch(`${adminUrl}/health/ready`)).ok
  }
  return { ...member(launch, `http://127.0.0.1:${ports.port}`, supervisor), adminUrl }
}

function haproxyOptions(edge: number, status: number, [first, second]: [NodePorts, NodePorts]) {
  return {
    configFile: join(home, 'config/haproxy/haproxy.cfg'),
    env: {
      EDGE_BIND: `127.0.0.1:${edge}`,
      STATUS_BIND: `127.0.0.1:${status}`,
      GATEWAY_1: `127.0.0.1:${first.port}`,
      GATEWAY_1_ADMIN: `${first.admin}`,
      GATEWAY_2: `127.0.0.1:${second.port}`,
      GATEWAY_2_ADMIN: `${second.admin}`
    }
  }
}

async function nodesUp(statusUrl: string): Promise<string[]> {
  const csv = await (await fetch(`${statusUrl}/;csv`)).text()
  const [fields, ...rows] = csv
    .trim()
    .split('\n')
    .map((line) => line.split(','))
  const status = fields!.indexOf('status')
  return rows
    .filter(
      ([backend, name, ...rest]) => backend === 'gateways' && name !== 'BACKEND' && rest[status - 2]!.startsWith('UP')
    )
    .map(([, name]) => name!)
}

/** Starts Prometheus with the rules and the scrape configuration of config/prometheus, but with the targets of this cluster. */
async function prometheusFor(
  nodes: NodePorts[],
  port: number,
  { scrapeInterval }: { scrapeInterval?: string } = {},
  stack: AsyncDisposableStack
): Promise<Prometheus> {
  const folder = await mkdtemp(join(tmpdir(), 'jingwei-cluster-'))
  stack.defer(() => rm(folder, { recursive: true, force: true }))
  const source = join(home, 'config/prometheus')
  const configFile = join(folder, 'prometheus.yml')
  const config = await readFile(join(source, 'prometheus.yml'), 'utf8')
  await writeFile(
    configFile,
    config.replace(/scrape_interval: .*/, (line) => (scrapeInterval ? `scrape_interval: ${scrapeInterval}` : line))
  )
  await copyFile(join(source, 'alerts.yml'), join(folder, 'alerts.yml'))
  const targets = nodes.map(({ number, admin }) => ({
    targets: [`127.0.0.1:${admin}`],
    labels: { instance: `gateway-${number}` }
  }))
  await writeFile(join(folder, 'targets.yml'), JSON.stringify(targets))
  return stack.adopt(await startPrometheus({ configFile, port }), (prometheus) => prometheus.stop())
}

/** Reports a member that no longer accepts connections. */
function watch(ports: Record<string, number>, onEvent: (line: string) => void, stack: AsyncDisposableStack): void {
  const gone = new Set<string>()
  const timer = setInterval(async () => {
    for (const [name, port] of Object.entries(ports)) {
      const open = await isListening(port)
      if (open === !gone.has(name) || !watching) continue
      if (open) gone.delete(name)
      else gone.add(name)
      onEvent(open ? `${name} is back` : `${name} no longer listens on port ${port}`)
    }
  }, 2000)
  let watching = true
  stack.defer(() => {
    watching = false
    clearInterval(timer)
  })
}

function portChooser(usual: boolean): (wanted: number) => Promise<number> {
  return async (wanted) => (usual && !(await isListening(wanted)) ? wanted : freePort())
}

function introduction(cluster: Cluster): string {
  const { url, gateways, services, consul, redis, prometheus, statusUrl } = cluster
  const [first, second] = gateways
  const token = `JWT_SECRET=${jwtSecret} npm -s start -- token users -c config/examples/cluster.yaml`
  return `The cluster is up. Ctrl-C stops all of it.

  edge        ${url}   HAProxy, in front of two gateways
${gateways.map((node) => `  ${node.name}   ${node.url}   pid ${node.pid()}, admin port ${node.adminUrl}/health/ready`).join('\n')}
${services.map((member) => `  service     ${member.url}   pid ${member.pid()}, ${member.name}`).join('\n')}
  haproxy     ${statusUrl}/   which gateways get requests
  consul      ${consul.url}/ui
  redis       ${redis.url}
  prometheus  ${prometheus?.url}/alerts

try:
  curl ${url}/api/orders
      # again and again: \`via\` names the gateway, \`port\` the instance
  for i in $(seq 25); do curl -s -o /dev/null -w '%{http_code} ' ${url}/api/products; done
      # 20 in 10 s on both gateways together, then 429
  curl -i ${url}/api/users -H "Authorization: Bearer $(${token})"
  curl -i '${url}/api/orders?status=503'
      # each gateway tries the other instance too: see jingwei_mesh_retries_total
  kill -9 ${first.pid()}
      # ${first.name} dies; requests go on, and it starts again
  kill ${second.pid()}
      # ${second.name} drains, and starts again
  kill ${services[0]!.pid()}
      # an instance leaves Consul, and comes back

`
}

if (import.meta.main) {
  const options = {
    usualPorts: !process.argv.includes('--free-ports'),
    restart: true,
    onEvent: (line: string) => console.log(line)
  }
  await runCommand(() => startCluster(options), introduction)
}
