/**
 * A small service that registers itself in Consul with a health check, and deregisters itself on SIGTERM.
 *
 *   node config/examples/service.ts --name orders --port 9101
 *
 * Consul is given by `CONSUL_URL` (default http://127.0.0.1:8500) and `CONSUL_TOKEN`. To try out failures, a request can set
 * the response: `?status=503` and `?delay=250` (milliseconds).
 */
import { once } from 'node:events'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { networkInterfaces } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import Consul from 'consul'
import { items } from './services.ts'

/** Types of the package `consul` as used here; its own types lack baseUrl, headers and the first status of a check. */
interface Agent {
  agent: {
    service: {
      list(): Promise<Record<string, unknown>>
      register(service: object): Promise<void>
      deregister(id: string): Promise<void>
    }
  }
}
const createClient = Consul as unknown as new (options: { baseUrl: string; headers: Record<string, string> }) => Agent

export interface Options {
  name: string
  /** Port to listen on; 0: any free one. */
  port: number
  /** Address to listen on. */
  host: string
  /** Address that is registered in Consul. */
  address: string
  consulUrl: string
  token?: string | undefined
  log?: (line: string) => void
}

const checkEvery = 1000
/** Time for which a deregistered instance still serves callers that have an older instance list. */
const farewell = 1000

export async function startService(options: Options): Promise<{ port: number; stop: () => Promise<void> }> {
  const { name, host, address, consulUrl, token, log = console.log } = options
  const server = createServer((request, response) => void answer(name, server, request, response))
  server.keepAliveTimeout = 75_000 // longer than a gateway keeps idle connections, so that it never reuses a closing one
  server.listen(options.port, host)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const id = `${name}-${address}-${port}`
  const { service } = new createClient({
    baseUrl: `${consulUrl.replace(/\/+$/, '')}/v1`,
    headers: token ? { 'x-consul-token': token } : {}
  }).agent

  const stopping = new AbortController()
  const { signal } = stopping
  /** Registers the service, repeatedly: Consul may start later, or restart without its state. */
  const keepRegistered = async () => {
    for (let known = true; !signal.aborted; await sleep(checkEvery, null, { signal }).catch(() => {})) {
      try {
        if (Object.hasOwn(await service.list(), id) || signal.aborted) continue
        const check = {
          http: `http://${address}:${port}/health`,
          interval: '2s',
          timeout: '1s',
          status: 'passing', // the service listens already
          deregistercriticalserviceafter: '1m'
        }
        await service.register({ id, name, address, port, check })
        known = true
        log(`${id}: registered in Consul`)
      } catch (error) {
        if (known) log(`${id}: cannot register in Consul yet: ${(error as Error).message}`)
        known = false
      }
    }
  }
  const registering = keepRegistered()

  const leave = async () => {
    stopping.abort()
    const gone = registering.then(() => service.deregister(id)).then(() => sleep(farewell))
    await Promise.race([gone.catch(() => {}), sleep(2 * farewell, null, { ref: false })])
    server.close()
    server.closeIdleConnections()
    const impatient = setTimeout(() => server.closeAllConnections(), 5000)
    await once(server, 'close')
    clearTimeout(impatient)
  }
  let left: Promise<void> | undefined
  return { port, stop: () => (left ??= leave()) }
}

/** Responds with the service's items, the instance, the gateway and the caller. */
async function answer(name: string, server: Server, request: IncomingMessage, response: ServerResponse) {
  const { headers, method, socket } = request
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://service')
  request.resume()
  const delay = Number(searchParams.get('delay'))
  if (delay > 0) await sleep(Math.min(delay, 60_000))
  const status = Number(searchParams.get('status') ?? 200)
  const body = `${JSON.stringify({
    service: name,
    port: socket.localPort,
    method,
    path: pathname,
    via: headers.via,
    client: headers['x-forwarded-for'],
    user: headers['x-user-id'],
    [name]: items[name] ?? []
  })}\n`
  response.writeHead(Number.isInteger(status) && status >= 200 && status <= 599 ? status : 400, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    ...(!server.listening && { connection: 'close' })
  })
  response.end(body)
}

/** Returns the address by which other containers reach this one, since they may not be able to resolve its name. */
function ownAddress(): string {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? [])
  return addresses.find(({ internal, family }) => !internal && family === 'IPv4')?.address ?? '127.0.0.1'
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      name: { type: 'string' },
      port: { type: 'string', default: '0' },
      host: { type: 'string', default: '127.0.0.1' },
      address: { type: 'string' }
    }
  })
  if (values.name === undefined) throw new Error('say which service this is: --name orders')
  const { port, stop } = await startService({
    name: values.name,
    port: Number(values.port),
    host: values.host,
    address: values.address ?? (values.host === '0.0.0.0' ? ownAddress() : values.host),
    consulUrl: process.env.CONSUL_URL ?? 'http://127.0.0.1:8500',
    token: process.env.CONSUL_TOKEN
  })
  console.log(`${values.name} listens on ${values.host}:${port}`)
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => void stop().then(() => process.exit(0)))
  }
}
