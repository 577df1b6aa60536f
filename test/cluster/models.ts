// The four deployment models of config/models.md, side by side on loopback: one Consul, one Redis, the same services.
// As a command (`npm run models`) it prints what to try, and Ctrl-C stops all of it.
import { randomBytes } from 'node:crypto'
import { join, resolve } from 'node:path'
import type { Consul } from '../helpers/consul.ts'
import { startConsul } from '../helpers/consul.ts'
import { freePort, isListening, start, waitFor } from '../helpers/processes.ts'
import { startRedis } from '../helpers/redis.ts'
import { tool } from '../helpers/tools.ts'
import type { Member, Supervisor } from './member.ts'
import { endAll, member } from './member.ts'

const home = resolve(import.meta.dirname, '../..')
const example = (file: string) => join(home, 'config/examples', file)

export interface Model {
  readonly name: string
  /** Processes, in the order in which a request passes them. */
  readonly path: string
  /** Address of the orders for clients. */
  readonly url: string
  /** Admin port of the gateway. */
  readonly adminUrl: string
  readonly configuration: string
}

export interface Models {
  readonly all: readonly Model[]
  /** Orders of the merged gateway, as a service of the mesh reaches them through its own sidecar. */
  readonly throughMesh: string
  readonly consul: Consul
  stop(): Promise<void>
}

/** Starts the models. `onEvent` gets a line when a process ends unexpectedly. */
export async function startModels(onEvent: (line: string) => void = () => {}): Promise<Models> {
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
      JWT_SECRET: randomBytes(32).toString('base64url'),
      DRAIN_DELAY: '0s',
      JINGWEI_LOG_LEVEL: 'warn'
    }
    const orders = await freePort()
    const users = await freePort()
    const products = await freePort()
    for (const [name, port] of Object.entries({ orders, users, products })) {
      const args = [example('service.ts'), '--name', name, '--port', `${port}`]
      const launch = { name, args, env: shared, ready: /registered in Consul/ }
      await run(member(launch, `http://127.0.0.1:${port}`, supervisor))
    }

    /** Starts a gateway or a sidecar with a configuration of the examples; returns its ports. */
    const process = async (name: string, command: 'start' | 'sidecar' | 'bff', file: string, env: object) => {
      const [port, admin] = [await freePort(), await freePort()]
      const adminUrl = `http://127.0.0.1:${admin}`
      const programs = {
        start: [join(home, 'plugins/bin.ts'), '--config', example(file)],
        sidecar: [join(home, 'plugins/bin.ts'), 'sidecar', '--config', example(file)],
        // The entries of the package are those of the sources.
        bff: ['--conditions=checkout', example('bff/bff.ts'), example(file)]
      }
      const ready = async () => (await fetch(`${adminUrl}/health/ready`)).ok
      const variables = { ...shared, PORT: `${port}`, ADMIN_PORT: `${admin}`, ...env }
      await run(
        member({ name, args: programs[command], env: variables, ready }, `http://127.0.0.1:${port}`, supervisor)
      )
      return { url: `http://127.0.0.1:${port}`, adminUrl, configuration: `config/examples/${file}` }
    }

    // A sidecar beside `orders`, which the models 2 and 3 call by mTLS.
    const inbound = await freePort()
    await process('orders-sidecar', 'sidecar', 'models/orders-sidecar.yaml', {
      INBOUND_PORT: `${inbound}`,
      ORDERS: `http://127.0.0.1:${orders}`
    })
    await register(consul, {
      Name: 'orders-sidecar-proxy',
      Kind: 'connect-proxy',
      Port: inbound,
      Proxy: { DestinationServiceName: 'orders' }
    })

    const divided = await process('divided', 'start', 'cluster.yaml', {})

    const local = await freePort()
    await process('gateway-sidecar', 'sidecar', 'models/gateway-sidecar.yaml', { ORDERS_SIDECAR_PORT: `${local}` })
    const sidecar = await process('with-sidecar', 'start', 'edge-only.yaml', {
      ORDERS_SIDECAR: `http://127.0.0.1:${local}`,
      USERS_URL: `http://127.0.0.1:${users}`,
      USERS_URL_2: `http://127.0.0.1:${users}`
    })

    const meshPort = await freePort()
    const merged = await process('merged', 'start', 'in-mesh.yaml', { MESH_PORT: `${meshPort}` })
    await register(consul, { Name: 'jingwei', Port: meshPort, Connect: { Native: true } })
    // A service that calls the gateway has Consul's own sidecar.
    const upstream = await freePort()
    const { path, env } = await tool('consul')
    const listen = ['-service=web', `-upstream=jingwei:127.0.0.1:${upstream}`]
    const web = await start({
      command: path,
      args: ['connect', 'proxy', `-http-addr=${consul.url}`, ...listen],
      env,
      name: 'web-sidecar',
      ready: () => isListening(upstream)
    })
    stack.defer(() => web.stop())

    const ports = { ORDERS_PORT: `${orders}`, PRODUCTS_PORT: `${products}` }
    const first = await process('bff-1', 'bff', 'bff/decentralised.yaml', ports)
    const second = await process('bff-2', 'bff', 'bff/decentralised.yaml', ports)

    const throughMesh = `http://127.0.0.1:${upstream}/orders`
    await waitFor('the mesh has found the gateway', async () => (await fetch(throughMesh)).ok)
    const api =
      (path: string) =>
      ({ url }: { url: string }) => ({ url: `${url}${path}` })
    const all: Model[] = [
      { name: '1 divided', path: 'gateway (edge, mesh) → orders', ...divided, ...api('/api/orders')(divided) },
      {
        name: '2 with a sidecar',
        path: 'gateway (edge) → sidecar → mTLS → sidecar → orders',
        ...sidecar,
        ...api('/api/orders')(sidecar)
      },
      {
        name: '3 merged',
        path: 'gateway (edge, mesh) → mTLS → sidecar → orders',
        ...merged,
        ...api('/orders')(merged)
      },
      { name: '4 decentralised', path: 'BFF (edge, mesh) → orders', ...first, ...api('/api/orders')(first) },
      { name: '4 decentralised', path: 'BFF (edge, mesh) → orders', ...second, ...api('/api/orders')(second) }
    ]
    return {
      all,
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

function introduction({ all, throughMesh, consul }: Models): string {
  const [, sidecar, merged, bff] = all
  const models = all.map(
    ({ name, path, url, configuration }) => `  ${name.padEnd(18)} ${path}\n    curl ${url}   # ${configuration}`
  )
  return `The four deployment models are up; config/models.md explains them. Ctrl-C stops all of it.

${models.join('\n')}

try:
  curl ${throughMesh}
      # a service of the mesh calls the merged gateway through its sidecar
  curl -s ${merged!.adminUrl}/metrics | grep ^jingwei_edge_requests_total
      # its requests by direction: north-south and east-west
  curl ${sidecar!.adminUrl}/admin/routes
      # the gateway without a mesh
  curl ${bff!.url.replace('/api/orders', '/home/alice')}
      # a route of the BFF's own
  consul ${consul.url}/ui
`
}

if (import.meta.main) {
  let models: Models | undefined
  let interrupted = false
  const stop = async () => {
    if (interrupted) return
    interrupted = true
    console.log('\nstopping')
    await models?.stop()
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void stop())
  try {
    console.log('starting …')
    models = await startModels((line) => console.log(line))
    if (interrupted) await models.stop()
    else console.log(introduction(models))
  } catch (error) {
    if (!interrupted) {
      console.error((error as Error).message)
      process.exitCode = 1
    }
  }
}
