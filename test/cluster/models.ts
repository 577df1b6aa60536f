// The four deployment models of config/models.md, side by side on loopback: one configuration, one Consul, one Redis, the
// same services. As a command (`npm run models`) it prints what to try, and Ctrl-C stops all of it.
import { join, resolve } from 'node:path'
import type { Consul } from '../helpers/consul.ts'
import { startConsul } from '../helpers/consul.ts'
import { freePort, isListening, start, waitFor } from '../helpers/processes.ts'
import { startRedis } from '../helpers/redis.ts'
import { tool } from '../helpers/tools.ts'
import { runCommand } from './command.ts'
import type { Member, Supervisor } from './member.ts'
import { endAll, exampleService, member } from './member.ts'

const home = resolve(import.meta.dirname, '../..')
const example = (file: string) => join(home, 'config/examples', file)

/** The one configuration of all models. */
export const configuration = example('models/gateway.yaml')

/** Ports of the services that all models call. */
interface Services {
  readonly orders: number
  readonly 'orders-next': number
  readonly products: number
}

export interface Model {
  readonly name: string
  /** Processes, in the order in which a request passes them. */
  readonly path: string
  /** Address for clients. */
  readonly url: string
  /** Admin port of the gateway. */
  readonly adminUrl: string
  /** Environment variables and command by which it was started, with those that choose the model alone. */
  readonly started: string
}

export interface Models {
  readonly all: readonly Model[]
  /** Admin port of the sidecar in the second model. */
  readonly sidecarAdminUrl: string
  /** The merged gateway, as a service of the mesh reaches it through its own sidecar. */
  readonly throughMesh: string
  readonly consul: Consul
  stop(): Promise<void>
}

/**
 * Starts the models. `onEvent` gets a line when a process ends unexpectedly. `running`: ports of services that run already,
 * in place of the example services.
 */
export async function startModels(onEvent: (line: string) => void = () => {}, running?: Services): Promise<Models> {
  const stack = new AsyncDisposableStack()
  const supervisor: Supervisor = { stopping: false, restart: false, onEvent }
  const run = async (started: Member): Promise<void> => {
    stack.defer(() => endAll([started]))
    await started.start()
  }
  try {
    const consul = stack.adopt(await startConsul(), (consul) => consul.stop())
    const redis = stack.adopt(await startRedis(), (redis) => redis.stop())
    const shared = {
      CONSUL_URL: consul.url,
      REDIS_URL: redis.url,
      REDIS_TIMEOUT: '1s',
      DRAIN_DELAY: '0s',
      JINGWEI_LOG_LEVEL: 'warn'
    }
    const services = running ?? {
      orders: await freePort(),
      'orders-next': await freePort(),
      products: await freePort()
    }
    for (const [Name, port] of Object.entries(services)) {
      if (running === undefined) await run(exampleService(Name, port, consul.url, supervisor))
      else await register(consul, { Name, Port: port })
    }

    /** Starts a process of the product; returns its addresses. */
    const process = async (name: string, args: string[], env: Record<string, string>, admins = 'ADMIN_PORT') => {
      const [port, admin] = [await freePort(), await freePort()]
      const adminUrl = `http://127.0.0.1:${admin}`
      const ready = async () => (await fetch(`${adminUrl}/health/ready`)).ok
      const variables = { ...shared, PORT: `${port}`, [admins]: `${admin}`, ...env }
      const url = `http://127.0.0.1:${port}`
      await run(member({ name, args, env: variables, ready }, url, supervisor))
      return { url, adminUrl }
    }
    const jingwei = (command: string, file: string) => [join(home, 'plugins/bin.ts'), command, '--config', file]

    // A sidecar beside the services, which the models 2 and 3 call by mTLS.
    const inbound = { orders: await freePort(), 'orders-next': await freePort(), products: await freePort() }
    await process('services-sidecar', jingwei('sidecar', example('models/services-sidecar.yaml')), {
      ORDERS_INBOUND: `${inbound.orders}`,
      ORDERS_URL: `http://127.0.0.1:${services.orders}`,
      ORDERS_NEXT_INBOUND: `${inbound['orders-next']}`,
      ORDERS_NEXT_URL: `http://127.0.0.1:${services['orders-next']}`,
      PRODUCTS_INBOUND: `${inbound.products}`,
      PRODUCTS_URL: `http://127.0.0.1:${services.products}`
    })
    for (const [name, Port] of Object.entries(inbound)) {
      await register(consul, {
        Name: `${name}-sidecar-proxy`,
        Kind: 'connect-proxy',
        Port,
        Proxy: { DestinationServiceName: name }
      })
    }

    const divided = await process('divided', jingwei('start', configuration), {})

    const handOver = { MESH_MODE: 'sidecar', SIDECAR_PORT: `${await freePort()}` }
    const half = await process('gateway-sidecar', jingwei('sidecar', configuration), handOver, 'SIDECAR_ADMIN_PORT')
    const sidecar = await process('with-sidecar', jingwei('start', configuration), handOver)

    const meshPort = await freePort()
    const inMesh = { MESH_MODE: 'connect', IN_MESH: 'true', MESH_PORT: `${meshPort}` }
    const merged = await process('merged', jingwei('start', configuration), inMesh)
    await register(consul, { Name: 'gateway', Port: meshPort, Connect: { Native: true } })
    // A service that calls the gateway has Consul's own sidecar.
    const upstream = await freePort()
    const { path, env } = await tool('consul')
    const listen = ['-service=web', `-upstream=gateway:127.0.0.1:${upstream}`]
    const web = await start({
      command: path,
      args: ['connect', 'proxy', `-http-addr=${consul.url}`, ...listen],
      env,
      name: 'web-sidecar',
      ready: () => isListening(upstream)
    })
    stack.defer(() => web.stop())

    // The entries of the package are those of the sources.
    const bff = ['--conditions=checkout', example('bff/bff.ts'), configuration]
    const first = await process('bff-1', bff, {})
    const second = await process('bff-2', bff, {})

    const throughMesh = `http://127.0.0.1:${upstream}`
    await waitFor('the mesh has found the gateway', async () => (await fetch(`${throughMesh}/api/orders`)).ok)
    const direct = 'jingwei start'
    const inBff = { path: 'BFF (edge, mesh) → orders', started: 'node config/examples/bff/bff.ts' }
    const all: Model[] = [
      { name: '1 divided', path: 'gateway (edge, mesh) → orders', started: direct, ...divided },
      {
        name: '2 with a sidecar',
        path: 'gateway (edge) → sidecar (mesh) → mTLS → sidecar → orders',
        started: `MESH_MODE=sidecar ${direct}, MESH_MODE=sidecar jingwei sidecar`,
        ...sidecar
      },
      {
        name: '3 merged',
        path: 'gateway (edge, mesh) → mTLS → sidecar → orders',
        started: `MESH_MODE=connect IN_MESH=true ${direct}`,
        ...merged
      },
      { name: '4 decentralised', ...inBff, ...first },
      { name: '4 decentralised', ...inBff, ...second }
    ]
    return {
      all,
      sidecarAdminUrl: half.adminUrl,
      throughMesh,
      consul,
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

async function register(consul: Consul, service: object): Promise<void> {
  const body = { Address: '127.0.0.1', Check: { TTL: '24h', Status: 'passing' }, ...service }
  const { status } = await consul.api('PUT', '/v1/agent/service/register', body)
  if (status !== 200) throw new Error(`Consul does not register ${JSON.stringify(service)}: ${status}`)
}

function introduction({ all, throughMesh, sidecarAdminUrl, consul }: Models): string {
  const [, , merged, bff] = all
  const models = all.map(
    ({ name, path, url, started }) => `  ${name.padEnd(18)} ${path}\n    curl ${url}/api/orders   # ${started}`
  )
  return `The four deployment models are up, all from config/examples/models/gateway.yaml; config/models.md explains them.
Ctrl-C stops all of it.

${models.join('\n')}

try, in any model:
  curl '${merged!.url}/api/impatient?delay=2000'
      # the route's own timeout: 504
  for i in $(seq 8); do curl -s ${merged!.url}/api/canary | grep -o '"service":"[a-z-]*"'; done
      # a split: one call in four goes to orders-next
  curl ${merged!.url}/api/shop
      # a response composed of two services

and:
  curl ${throughMesh}/api/orders
      # a service of the mesh calls the merged gateway through its sidecar
  curl -s ${merged!.adminUrl}/metrics | grep ^jingwei_edge_requests_total
      # its requests by direction: north-south and east-west
  curl -s ${sidecarAdminUrl}/metrics | grep ^jingwei_edge_requests_total
      # the calls that the gateway of the second model has handed over to its sidecar
  curl ${bff!.url}/home/alice
      # a route of the BFF's own
  consul ${consul.url}/ui
`
}

if (import.meta.main) await runCommand(() => startModels((line) => console.log(line)), introduction)
