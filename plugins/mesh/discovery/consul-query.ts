/** Blocking health queries through the `consul` package, with workarounds for its gaps. */
import { EventEmitter } from 'node:events'
import { readFileSync } from 'node:fs'
import type { Agent, IncomingMessage } from 'node:http'
import https from 'node:https'
import { http } from '../../node-http.ts'
import { onFirstUse } from '../../on-first-use.ts'
import type { Blocking } from './consul-blocking.ts'
import { ANSWER_TIMEOUT, blocking, indexOf } from './consul-blocking.ts'
import type { ConsulOptions } from './consul-options.ts'

/** Options of the package that this file uses. The package's types lack baseUrl, ctx, headers, stale and timeout. */
interface HealthQuery {
  service: string
  dc?: string
  stale: boolean
  index?: string
  wait?: string
  timeout: number
  ctx: EventEmitter & { includeResponse: true }
}
interface Client extends EventEmitter {
  health: { service(query: HealthQuery): Promise<[response: IncomingMessage, body: unknown]> }
}
type ConsulClass = new (options: { baseUrl: string; agent: Agent; headers: Record<string, string> }) => Client

const consul = onFirstUse<ConsulClass>('consul')

export interface ServiceQuery {
  readonly service: string
  readonly datacenter: string | undefined
  /** Index to wait for; null requests a response at once. */
  readonly index: bigint | null
  /** Time for which Consul may hold the query until the index moves. */
  readonly wait: number
}

export interface QueryResult {
  /** Index of the response; null if Consul sent none that is usable for a blocking query. */
  readonly index: bigint | null
  readonly entries: unknown
  /** True if Consul removed entries that the token may not read. */
  readonly filtered: boolean
}

export class ConsulDenied extends Error {}

/** The agent refuses further connections from this address. */
export class ConsulConnectionLimit extends Error {}

export const RAISE_LIMIT = 'raise limits.http_max_conns_per_client of the Consul agent above the number of services'

export const PERMISSION = 'the token needs service:read on the services and node:read on their nodes'

export type RunQuery = (question: ServiceQuery, signal: AbortSignal) => Promise<QueryResult>

/** Returns the query function of one service. Each has its own client object; all share one HTTP agent. */
export function createQuery({ url, token, namespace, maxStale }: ConsulOptions, agent: Agent): RunQuery {
  const client = new (consul())({
    baseUrl: `${url.replace(/\/+$/, '')}/v1`,
    agent,
    // The package drops `ns` from queries; the header has the same effect.
    headers: {
      ...(token ? { 'x-consul-token': token } : {}),
      ...(namespace ? { 'x-consul-namespace': namespace } : {})
    }
  })
  return (question, signal) => ask(client, question, maxStale, signal)
}

async function ask(
  client: Client,
  question: ServiceQuery,
  maxStale: number,
  signal: AbortSignal
): Promise<QueryResult> {
  const { service, datacenter } = question
  const { query, timeout } = blockingOf(question)
  const ctx = Object.assign(new EventEmitter(), { includeResponse: true as const })
  const cancel = () => void ctx.emit('cancel')
  // A timeout of its own for the body: the package does not notice if it stalls, or if the connection closes within it.
  let body: NodeJS.Timeout | undefined
  const onLog = (tags: readonly string[]) => {
    if (tags.includes('response')) body = setTimeout(cancel, ANSWER_TIMEOUT)
  }
  client.on('log', onLog)
  signal.addEventListener('abort', cancel, { once: true })
  try {
    const [response, entries] = await client.health.service({
      service,
      ...(datacenter ? { dc: datacenter } : {}),
      // Any server may respond, so that a leader election does not stop discovery. `answerOf` checks how stale it is.
      stale: true,
      ...query,
      timeout,
      ctx
    })
    return answerOf(response, entries, maxStale)
  } catch (error) {
    throw explained(error)
  } finally {
    clearTimeout(body)
    client.off('log', onLog)
    signal.removeEventListener('abort', cancel)
  }
}

export function answerOf(response: IncomingMessage, entries: unknown, maxStale: number): QueryResult {
  const { headers } = response
  const header = (name: string) => String(headers[name] ?? '')
  if (header('x-consul-knownleader') === 'false') throw new Error('Consul has no leader')
  const lastContact = Number(header('x-consul-lastcontact'))
  if (lastContact > maxStale)
    throw new Error(`the Consul server has had no contact with a leader for ${lastContact} ms`)
  const filtered = header('x-consul-results-filtered-by-acls') === 'true'
  return { index: indexOf(response), entries, filtered }
}

/** Adds the reason from the response body to an error; the package often has only the status. */
function explained(error: unknown): unknown {
  const { response } = error as { response?: { statusCode?: number; body?: unknown } }
  if (response?.statusCode === undefined || Math.floor(response.statusCode / 100) === 2) return error
  const text = String(response.body ?? '')
    .trim()
    .slice(0, 200)
  return refusal(response.statusCode, text, PERMISSION)
}

/** Returns the error for a status other than 200; `permission` is the one that the token needs. */
export function refusal(status: number, text: string, permission: string): Error {
  const message = `Consul responded with ${status}${text && `: ${text}`}`
  if (status === 429) return new ConsulConnectionLimit(`${message} (${RAISE_LIMIT})`)
  const denied = status === 403 || /ACL not found|Permission denied/.test(text)
  return denied ? new ConsulDenied(`${message} (${permission})`) : new Error(message)
}

/** Returns parameters and timeout of a query; after the wait, Consul has half the usual time for its response. */
export function blockingOf({ index, wait }: ServiceQuery): Blocking {
  return blocking(index, wait, ANSWER_TIMEOUT / 2)
}

/** Creates the HTTP agent, without a limit of sockets: each service holds a connection for its blocking query. */
export function createAgent({ url, tls }: ConsulOptions): Agent {
  const { protocol, hostname } = new URL(url)
  const options = {
    keepAlive: true,
    // TCP keep-alive probes detect within seconds that a machine which holds a query is gone.
    keepAliveMsecs: 10_000,
    // The package passes IPv6 addresses to Node with their brackets.
    ...(hostname.startsWith('[') ? { host: hostname.slice(1, -1) } : {})
  }
  if (protocol !== 'https:') return new http.Agent(options)
  const read = (file: string | undefined) => (file === undefined ? undefined : readFileSync(file))
  return new https.Agent({
    ...options,
    ca: read(tls?.ca),
    cert: read(tls?.cert),
    key: read(tls?.key),
    ...(tls?.serverName ? { servername: tls.serverName } : {})
  })
}
