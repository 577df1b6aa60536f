/**
 * The example as processes of this machine: a load balancer, two services, and in front of these either model: two central
 * gateways with two plain BFFs, or two BFFs with the gateway in them.
 */
import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { serve } from '../services.ts'

export type Model = 'central' | 'decentralised'

export interface DeploymentOptions {
  /** Redis, for the limits that all instances share. */
  readonly redisUrl: string
  /** The program HAProxy. Default: `haproxy`. */
  readonly haproxy?: string
  /** Command and arguments that start a gateway; `--config FILE` follows. Default: that of the package `jingwei`. */
  readonly gateway?: readonly [string, ...string[]]
  /** Options of Node for the BFFs. Default: those of this process. */
  readonly nodeOptions?: readonly string[]
  /** Variables of all processes. */
  readonly env?: Readonly<Record<string, string>>
  readonly log?: (line: string) => void
}

const startMs = 30_000
const endMs = 60_000
const home = import.meta.dirname
const ownGateway = [process.execPath, fileURLToPath(import.meta.resolve('jingwei'))] as const

async function freePort(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return `${port}`
}

const hasExited = ({ pid, exitCode, signalCode }: ChildProcess) =>
  pid === undefined || exitCode !== null || signalCode !== null

export class Deployment {
  readonly #options: DeploymentOptions
  readonly #env: Record<string, string> = {}
  readonly #processes = new Map<string, ChildProcess>()
  readonly #closers: (() => void)[] = []

  private constructor(options: DeploymentOptions) {
    this.#options = options
  }

  /** Starts services, load balancer, and a model. */
  static async start(model: Model, options: DeploymentOptions): Promise<Deployment> {
    const deployment = new Deployment(options)
    try {
      await deployment.#start(model)
    } catch (error) {
      await deployment.stop()
      throw error
    }
    return deployment
  }

  /** Address for clients. */
  get url(): string {
    return `http://127.0.0.1:${this.#env.EDGE_PORT}`
  }

  /** The load balancer's page. */
  get statusUrl(): string {
    return `http://127.0.0.1:${this.#env.STATUS_PORT}`
  }

  async #start(model: Model): Promise<void> {
    const names = ['EDGE_PORT', 'STATUS_PORT', 'ORDERS_PORT', 'PRODUCTS_PORT', 'BFF_1', 'BFF_2']
    for (const instance of ['CENTRAL_1', 'CENTRAL_2', 'DECENTRALISED_1', 'DECENTRALISED_2']) {
      names.push(instance, `${instance}_ADMIN`)
    }
    for (const name of names) this.#env[name] = await freePort()
    Object.assign(this.#env, { REDIS_URL: this.#options.redisUrl, DRAIN_DELAY: '3s', ...this.#options.env })
    for (const service of ['orders', 'products']) {
      const server = await serve(service, Number(this.#env[`${service.toUpperCase()}_PORT`]))
      this.#closers.push(() => server.close().closeAllConnections())
    }
    await this.#startModel(model)
    this.#spawn('haproxy', this.#options.haproxy ?? 'haproxy', ['-db', '-f', `${home}/haproxy.cfg`])
    await this.#inRotation(model)
  }

  /** Starts the other model, waits until it gets requests, and ends the one that got them. */
  async migrate(to: Model): Promise<void> {
    const from: Model = to === 'central' ? 'decentralised' : 'central'
    await this.#startModel(to)
    await this.#inRotation(to)
    this.#log(`${to}: in rotation`)
    // The gateways drain first: their readiness fails, the load balancer notices, and requests in flight end.
    await this.#end([`${from}-1`, `${from}-2`])
    await this.#end(['bff-1', 'bff-2'].filter(() => from === 'central'))
    this.#log(`${from}: ended`)
  }

  async #startModel(model: Model): Promise<void> {
    const { gateway = ownGateway, nodeOptions = process.execArgv } = this.#options
    const node = (file: string) => [...nodeOptions, `${home}/${file}`]
    if (model === 'central') {
      for (const number of [1, 2]) {
        const env = { PORT: this.#env[`BFF_${number}`]! }
        this.#spawn(`bff-${number}`, process.execPath, node('plain-bff.ts'), env)
        const url = `http://127.0.0.1:${env.PORT}/`
        await this.#until(`bff-${number}`, url, async () => (await fetch(url)).ok)
      }
    }
    for (const number of [1, 2]) {
      const instance = `${model.toUpperCase()}_${number}`
      const env = { PORT: this.#env[instance]!, ADMIN_PORT: this.#env[`${instance}_ADMIN`]! }
      const [command, args] =
        model === 'central'
          ? [gateway[0], [...gateway.slice(1), '--config', `${home}/central.yaml`]]
          : [process.execPath, node('bff.ts')]
      this.#spawn(`${model}-${number}`, command, args, env)
      const url = `http://127.0.0.1:${env.ADMIN_PORT}/health/ready`
      await this.#until(`${model}-${number}`, url, async () => (await fetch(url)).ok)
    }
    this.#log(`${model}: started`)
  }

  #spawn(name: string, command: string, args: readonly string[], env: Record<string, string> = {}): void {
    const stdio = ['ignore', 'ignore', 'inherit'] as const
    const child = spawn(command, args, { env: { ...process.env, ...this.#env, ...env }, stdio: [...stdio] })
    // Without a listener, a command that does not exist would end this process; the wait for the process reports it.
    child.on('error', (error) => this.#log(`${name}: ${error.message}`))
    this.#processes.set(name, child)
  }

  /** Ends processes by SIGTERM. Throws if one does not exit with 0 within 60 s. */
  async #end(names: readonly string[]): Promise<void> {
    const end = async (name: string) => {
      const child = this.#processes.get(name)!
      this.#processes.delete(name)
      const exited = once(child, 'exit', { signal: AbortSignal.timeout(endMs) })
      child.kill('SIGTERM')
      const [code, signal] = await exited
      if (code !== 0) throw new Error(`${name} exited with ${code ?? signal}`)
    }
    await Promise.all(names.map(end))
  }

  /** Waits until the load balancer sends requests to both servers of a model. */
  async #inRotation(model: Model): Promise<void> {
    await this.#until('haproxy', `${model}: in rotation`, async () => {
      const csv = await (await fetch(`${this.statusUrl}/;csv`)).text()
      const rows = csv.split('\n').filter((row) => row.startsWith(`servers,${model}-`))
      return rows.length === 2 && rows.every((row) => row.includes(',UP,'))
    })
  }

  /** Ends everything that was started. */
  async stop(): Promise<void> {
    const children = [...this.#processes.values()].filter((child) => !hasExited(child))
    this.#processes.clear()
    await Promise.all(
      children.map(async (child) => {
        const exited = once(child, 'exit')
        child.kill('SIGTERM')
        const force = setTimeout(() => child.kill('SIGKILL'), 8000)
        await exited
        clearTimeout(force)
      })
    )
    for (const close of this.#closers.splice(0)) close()
  }

  /** Waits until the check of a process succeeds. Throws if the process exits, and after 30 s. */
  async #until(name: string, what: string, check: () => Promise<boolean>): Promise<void> {
    const deadline = performance.now() + startMs
    while (!(await check().catch(() => false))) {
      if (hasExited(this.#processes.get(name)!)) throw new Error(`${name} has exited; its stderr has the reason`)
      if (performance.now() > deadline) throw new Error(`${what}: not within ${startMs / 1000} s`)
      await sleep(50)
    }
  }

  #log(line: string): void {
    this.#options.log?.(line)
  }
}
