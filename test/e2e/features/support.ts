// A gateway made of YAML text as a user would write it, instances that behave as a request specifies, and views from
// outside: responses, metrics, the admin port.
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import type { Client, ParsedResponse } from '../../helpers/gateway.ts'
import { connect, get, startGateway, startService } from '../../helpers/gateway.ts'

export interface Instance {
  readonly url: string
  readonly name: string
  /** Requests, in their order. */
  readonly seen: { method: string; url: string; headers: IncomingMessage['headers']; body: Buffer }[]
  /** Responses of requests with `?hold`; the test ends them. */
  readonly held: ServerResponse[]
  /** Number of responses whose connection was closed before they were complete. */
  aborted: number
  /** Replaces the usual response; returns true if it sends one. */
  respond: (request: IncomingMessage, response: ServerResponse, body: Buffer) => boolean
  close(): Promise<void>
}

/**
 * Starts an instance that sends its name in `x-instance` and echoes the request. `?status=503&at=a` sets the status if
 * `at` is its name or is missing; likewise `?delay=MS`, `?hold` and `?reset`. `?a.status=503` is the same for instance `a`.
 */
export async function instance(t: Test, name: string): Promise<Instance> {
  const { url, close } = await startService(async (request, response) => {
    response.on('close', () => {
      if (!response.writableFinished) self.aborted++
    })
    const chunks: Buffer[] = []
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer)
    } catch {
      return
    }
    const body = Buffer.concat(chunks)
    const { method = '', url = '', headers } = request
    self.seen.push({ method, url, headers, body })
    if (!self.respond(request, response, body)) await respondAsRequested(self, request, response)
  })
  const self: Instance = { url, name, seen: [], held: [], aborted: 0, respond: () => false, close }
  t.teardown(close)
  return self
}

async function respondAsRequested(
  self: Instance,
  { url = '', headers, method }: IncomingMessage,
  response: ServerResponse
) {
  const { searchParams } = new URL(url, 'http://any')
  const isMeant = (searchParams.get('at') ?? self.name) === self.name
  const of = (name: string) => searchParams.get(`${self.name}.${name}`) ?? (isMeant ? searchParams.get(name) : null)
  if (of('reset') !== null) return void response.destroy()
  await sleep(Number(of('delay') ?? 0), undefined, { ref: false })
  response.statusCode = Number(of('status') ?? 200)
  response.setHeader('x-instance', self.name)
  for (const header of searchParams.getAll('header')) {
    const [name = '', value = ''] = header.split(':')
    response.appendHeader(name, value)
  }
  if (of('hold') !== null) return void self.held.push(response)
  const text = JSON.stringify({ instance: self.name, method, url, headers })
  response.setHeader('content-length', Buffer.byteLength(text))
  response.end(text)
}

export async function instances(t: Test, ...names: string[]): Promise<Instance[]> {
  return Promise.all(names.map((name) => instance(t, name)))
}

/** As in `instances: [...]`. */
export const urls = (some: readonly Instance[]) => `[${some.map(({ url }) => url).join(', ')}]`

export interface ServiceView {
  name: string
  active: number
  panic: boolean
  concerns: Record<string, Record<string, unknown>>
  instances: {
    origin: string
    weight: number
    active: number
    available: boolean
    obstacles: Record<string, string>
    concerns: Record<string, Record<string, unknown>>
  }[]
}

export interface Explained {
  route: string | null
  edge: string[]
  target: string
  mesh: { service: string; subset: string | null; share: object | null; chain: string[]; hashed: string | null }[]
}

export type ServiceResponse = ParsedResponse & { instance: string; code: string | null }

export interface World {
  port: number
  admin: { inject: (path: string) => Promise<{ body: string; json: <T>() => T; statusCode: number }> }
  log: Record<string, unknown>[]
  send(target: string, headers?: string[], method?: string): Promise<ServiceResponse>
  /** Sends a request and returns its client, which may disconnect. */
  begin(target: string, headerSection?: string): Client
  /** Sends `count` requests in sequence. Returns the number of 200s by instance, and of other responses by status. */
  spread(count: number, target: string, headers?: (index: number) => string[]): Promise<Record<string, number>>
  /** The value of a series, named as it is on `/metrics`; null where there is none. */
  metric(series: string): Promise<number | null>
  service(name: string): Promise<ServiceView>
  explain(path: string, more?: string): Promise<Explained>
  /** The names of the mesh concerns that a call of this path would pass, in order. */
  chain(path: string): Promise<string[]>
  /** Resolves when nothing is in flight, as the admin port sees it. */
  idle(): Promise<void>
  /** Resolves when a metric has this value. */
  until(series: string, value: number): Promise<void>
}

export const headerSection = (target: string, headers: string[] = [], method = 'GET') =>
  `${[`${method} ${target} HTTP/1.1`, 'Host: h', ...headers, 'Connection: close'].join('\r\n')}\r\n\r\n`

/** Starts a gateway with this configuration and an admin port; the test's end closes it. */
export async function gatewayOf(t: Test, yaml: string): Promise<World> {
  const admin = /^admin:/m.test(yaml) ? '' : 'admin: { port: 0 }\n'
  const gateway = await startGateway(`${admin}${yaml}`, { log: true })
  t.teardown(() => gateway.close())
  const { port, log } = gateway
  const inject: World['admin']['inject'] = (path) => gateway.server.admin!.inject(path) as never
  const services = async () => (await inject('/admin/services')).json<ServiceView[]>()
  const metric: World['metric'] = async (series) => {
    const lines = (await inject('/metrics')).body.split('\n')
    const line = lines.find((line) => line.startsWith(`${series} `))
    return line === undefined ? null : Number(line.slice(series.length + 1))
  }
  const explain: World['explain'] = async (path, more = '') => {
    return (await inject(`/admin/explain?path=${encodeURIComponent(path)}${more}`)).json()
  }
  const world: World = {
    port,
    admin: { inject },
    log,
    async send(target, headers, method) {
      const response = await get(port, target, headers, method)
      let code: string | null = null
      try {
        code = (JSON.parse(response.body) as { code?: string }).code ?? null
      } catch {}
      return { ...response, instance: response.headers['x-instance'] ?? '', code }
    },
    begin: (target, text = headerSection(target)) => connect(port, text),
    async spread(count, target, headers) {
      const tally: Record<string, number> = {}
      for (let index = 0; index < count; index++) {
        const { status, instance } = await world.send(target, headers?.(index))
        const key = status === 200 ? instance : String(status)
        tally[key] = (tally[key] ?? 0) + 1
      }
      return tally
    },
    metric,
    service: async (name) => (await services()).find((service) => service.name === name)!,
    explain,
    chain: async (path) => (await explain(path)).mesh[0]!.chain,
    async idle() {
      while (!(await services()).every(isIdle)) await sleep(10)
    },
    async until(series, value) {
      while ((await metric(series)) !== value) await sleep(10)
    }
  }
  return world
}

/** Keys of the counts of calls in flight, in the state of services, instances and concerns. */
const inFlightKeys = ['active', 'pending', 'inFlight']

function isIdle({ active, concerns, instances }: ServiceView): boolean {
  const states = [...Object.values(concerns), ...instances.flatMap((each) => Object.values(each.concerns))]
  const counts = states.flatMap((state) => inFlightKeys.map((key) => state[key]).filter((count) => count !== undefined))
  return [active, ...instances.map((each) => each.active), ...counts].every((count) => count === 0)
}
