/**
 * A Eureka server for tests, faithful to Netflix' REST operations: registration, heartbeats, leases, states, the registry and its
 * changes with hashes, XML unless JSON is accepted, and, on demand, its failures.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import type { ServerOptions } from 'node:https'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { gzipSync } from 'node:zlib'
import type { Test } from 'tap'

type Action = 'ADDED' | 'MODIFIED' | 'DELETED'

export interface Registration {
  readonly instanceId: string
  readonly hostName: string
  readonly app: string
  readonly ipAddr: string
  readonly status: string
  readonly port: { readonly $: number; readonly '@enabled': string }
  readonly securePort: { readonly $: number; readonly '@enabled': string }
  readonly vipAddress?: string
  readonly secureVipAddress?: string
  readonly metadata?: Readonly<Record<string, string>>
  readonly dataCenterInfo: { readonly '@class': string; readonly name: string; readonly metadata?: object }
}

interface Lease {
  instance: Registration
  renewed: number
}

/** Returns a registration as Spring's client sends it. */
export function registration(app: string, port: number, more: Partial<Registration> = {}): Registration {
  return {
    instanceId: `127.0.0.1:${app}:${port}`,
    hostName: '127.0.0.1',
    app: app.toUpperCase(),
    ipAddr: '127.0.0.1',
    status: 'UP',
    port: { $: port, '@enabled': 'true' },
    securePort: { $: 443, '@enabled': 'false' },
    vipAddress: app,
    secureVipAddress: app,
    metadata: { 'management.port': String(port) },
    dataCenterInfo: { '@class': 'com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo', name: 'MyOwn' },
    ...more
  }
}

export interface EurekaServerOptions {
  /** User and password, `user:password`. */
  readonly credentials?: string
  /** Lists of one item are that item, as of servers that convert XML. */
  readonly singles?: boolean
  readonly gzip?: boolean
  readonly etags?: boolean
  /** Listens for TLS. */
  readonly tls?: ServerOptions
}

/** Way in which the server fails; `hang` never responds, `stall` stops within a body. */
export type Failure = 'hang' | 'stall' | 'xml' | 'garbage' | 'reset' | number

export class EurekaServer {
  readonly #options: EurekaServerOptions
  readonly #server: Server
  #leases = new Map<string, Map<string, Lease>>()
  #changes: { readonly instance: Registration; readonly action: Action }[] = []
  #port = 0
  /** Paths of the requests of clients of the registry, in their order. */
  readonly asked: string[] = []
  readonly statuses: number[] = []
  failure: Failure | null = null
  /** False: the server refuses queries for changes, as with `disableDelta`. */
  hasChanges = true
  /** A change is lost, as if its retention had ended. */
  losesChanges = false

  constructor(options: EurekaServerOptions = {}) {
    this.#options = options
    const handle = (request: IncomingMessage, response: ServerResponse) => void this.#handle(request, response)
    this.#server = options.tls === undefined ? createServer(handle) : https.createServer(options.tls, handle)
  }

  /** Listens on a free port, and again on the same one after `stop`. */
  async listen(t?: Test): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(this.#port, '127.0.0.1', resolve))
    this.#port = (this.#server.address() as AddressInfo).port
    t?.teardown(() => this.stop())
    return this
  }

  /** Stops the server, which forgets its registry. */
  async stop(): Promise<void> {
    this.#leases.clear()
    this.#changes = []
    const closed = new Promise<unknown>((resolve) => this.#server.close(resolve))
    this.#server.closeAllConnections()
    await closed
  }

  get url(): string {
    return `${this.#options.tls === undefined ? 'http' : 'https'}://127.0.0.1:${this.#port}/eureka`
  }

  register(instance: Registration): void {
    const app = this.#leases.get(instance.app) ?? new Map<string, Lease>()
    this.#leases.set(instance.app, app)
    app.set(instance.instanceId, { instance, renewed: performance.now() })
    this.#note(instance, 'ADDED')
  }

  setStatus(instance: Registration, status: string): void {
    const lease = this.#leases.get(instance.app)!.get(instance.instanceId)!
    lease.instance = { ...lease.instance, status }
    this.#note(lease.instance, 'MODIFIED')
  }

  cancel({ app, instanceId }: Registration): boolean {
    const lease = this.#leases.get(app)?.get(instanceId)
    if (lease === undefined) return false
    this.#leases.get(app)!.delete(instanceId)
    if (this.#leases.get(app)!.size === 0) this.#leases.delete(app)
    this.#note(lease.instance, 'DELETED')
    return true
  }

  renew(app: string, instanceId: string): boolean {
    const lease = this.#leases.get(app)?.get(instanceId)
    if (lease !== undefined) lease.renewed = performance.now()
    return lease !== undefined
  }

  /** Evicts the instances whose last heartbeat was before this time, on the clock of `performance`. */
  evict(since: number): void {
    const all = [...this.#leases.values()].flatMap((app) => [...app.values()])
    for (const { instance, renewed } of all) if (renewed < since) this.cancel(instance)
  }

  /** Forgets the changes that clients have not fetched, as after their retention. */
  dropChanges(): void {
    this.#changes = []
  }

  #note(instance: Registration, action: Action): void {
    if (!this.losesChanges) this.#changes.push({ instance, action })
  }

  get #hash(): string {
    const counts: Record<string, number> = {}
    for (const app of this.#leases.values()) {
      for (const { instance } of app.values()) counts[instance.status] = (counts[instance.status] ?? 0) + 1
    }
    return Object.keys(counts)
      .sort()
      .map((status) => `${status}_${counts[status]}_`)
      .join('')
  }

  #listOf(items: readonly object[]): unknown {
    return this.#options.singles && items.length < 2 ? items[0] : items
  }

  #applications(instances: readonly object[]): object {
    const byApp = Map.groupBy(instances as readonly Registration[], ({ app }) => app)
    const application = [...byApp].map(([name, all]) => ({ name, instance: this.#listOf(all) }))
    return {
      applications: { versions__delta: '1', apps__hashcode: this.#hash, application: this.#listOf(application) }
    }
  }

  get #instances(): Registration[] {
    return [...this.#leases.values()].flatMap((app) => [...app.values()].map(({ instance }) => instance))
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [, root, resource = '', ...rest] = request.url!.split('/').map(decodeURIComponent)
    const respond = (status: number, body?: object, headers: Record<string, string> = {}) => {
      this.statuses.push(status)
      this.#send(request, response, status, body, headers)
    }
    const { credentials } = this.#options
    const given = Buffer.from(request.headers.authorization?.replace('Basic ', '') ?? '', 'base64').toString()
    let text = ''
    for await (const chunk of request) text += chunk
    if (request.method === 'GET') this.asked.push(request.url!.replace('/eureka', ''))
    if (credentials !== undefined && given !== credentials) return respond(401)
    if (root !== 'eureka') return respond(404)
    if (this.failure !== null && request.method === 'GET') return this.#failNow(response)
    const [app, instanceId, what] = rest
    if (request.method === 'POST' && resource === 'apps') {
      this.register((JSON.parse(text) as { instance: Registration }).instance)
      return respond(204)
    }
    if (request.method === 'PUT' && what === undefined) return respond(this.renew(app!, instanceId!) ? 200 : 404)
    const found = this.#instances.find((each) => each.app === app && each.instanceId === instanceId)
    if (request.method === 'DELETE') return respond(found !== undefined && this.cancel(found) ? 200 : 404)
    if (request.method !== 'GET') return respond(405)
    const all = this.#instances
    if (resource === 'apps' && app === undefined)
      return respond(200, this.#applications(all), { etag: `"${this.#hash}"` })
    if (resource === 'apps' && app === 'delta') {
      if (!this.hasChanges) return respond(403)
      return respond(
        200,
        this.#applications(this.#changes.map(({ instance, action }) => ({ ...instance, actionType: action })))
      )
    }
    if (resource === 'apps') {
      const own = all.filter((each) => each.app === app)
      return own.length === 0 ? respond(404) : respond(200, { application: { name: app, instance: this.#listOf(own) } })
    }
    const key = resource === 'vips' ? 'vipAddress' : 'secureVipAddress'
    const ofVip = all.filter((each) => each[key]?.split(',').includes(app!))
    return ofVip.length === 0 ? respond(404) : respond(200, this.#applications(ofVip))
  }

  #send(
    request: IncomingMessage,
    response: ServerResponse,
    status: number,
    body: object | undefined,
    more: Record<string, string>
  ): void {
    const { gzip, etags } = this.#options
    if (body === undefined) return void response.writeHead(status).end()
    // Jersey's default.
    if (!/json/.test(String(request.headers.accept))) {
      return void response.writeHead(200, { 'content-type': 'application/xml' }).end('<applications/>')
    }
    if (etags && more.etag !== undefined && request.headers['if-none-match'] === more.etag) {
      this.statuses[this.statuses.length - 1] = 304
      return void response.writeHead(304).end()
    }
    const bytes = Buffer.from(JSON.stringify(body))
    const headers = {
      'content-type': 'application/json',
      ...(etags && more),
      ...(gzip && { 'content-encoding': 'gzip' })
    }
    response.writeHead(status, headers).end(gzip ? gzipSync(bytes) : bytes)
  }

  #failNow(response: ServerResponse): void {
    const { failure } = this
    if (failure === 'hang') return
    if (failure === 'reset') return void response.destroy()
    if (failure === 'stall') {
      response.writeHead(200, { 'content-type': 'application/json' })
      return void response.write('{"applications":')
    }
    if (typeof failure === 'number') return void response.writeHead(failure).end()
    const type = failure === 'xml' ? 'application/xml' : 'application/json'
    response.writeHead(200, { 'content-type': type }).end(failure === 'xml' ? '<applications/>' : '{"applications": {')
  }
}
