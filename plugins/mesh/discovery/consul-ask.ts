/** One question to Consul through its package, with the package's gaps closed. */
import { EventEmitter } from 'node:events'
import { readFileSync } from 'node:fs'
import type { Agent, IncomingMessage } from 'node:http'
import https from 'node:https'
import type { ConsulOptions } from '../../../config/schema.ts'
import { http } from '../../node-http.ts'
import { onFirstUse } from '../../on-first-use.ts'
import type { Blocking } from './consul-blocking.ts'
import { ANSWER_TIMEOUT, blocking, indexOf } from './consul-blocking.ts'

/** Options of the package that this file uses; its own types lack baseUrl, ctx, headers, stale and timeout. */
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

export interface Question {
  readonly service: string
  readonly datacenter: string | undefined
  /** Null asks for an answer at once. */
  readonly index: bigint | null
  /** Time for which Consul may hold the query until the index moves. */
  readonly wait: number
}

export interface Answer {
  /** Null when Consul sent none that can be blocked on. */
  readonly index: bigint | null
  readonly entries: unknown
  /** The token was not allowed to see all that was found. */
  readonly filtered: boolean
}

export class ConsulDenied extends Error {}

/** The agent takes no more connections from this address. */
export class ConsulCrowded extends Error {}

export const CROWDED = 'raise limits.http_max_conns_per_client of the Consul agent above the number of services'

export const PERMISSION = 'the token needs service:read on the services and node:read on their nodes'

export type Ask = (question: Question, signal: AbortSignal) => Promise<Answer>

/** A way to ask for one service. Each has its own client object, all have one agent. */
export function createAsk({ url, token, namespace, maxStale }: ConsulOptions, agent: Agent): Ask {
  const client = new (consul())({
    baseUrl: `${url.replace(/\/+$/, '')}/v1`,
    agent,
    // The package drops `ns` from queries; the header says the same.
    headers: {
      ...(token ? { 'x-consul-token': token } : {}),
      ...(namespace ? { 'x-consul-namespace': namespace } : {})
    }
  })
  return (question, signal) => ask(client, question, maxStale, signal)
}

async function ask(client: Client, question: Question, maxStale: number, signal: AbortSignal): Promise<Answer> {
  const { service, datacenter } = question
  const { query, timeout } = blockingOf(question)
  const ctx = Object.assign(new EventEmitter(), { includeResponse: true as const })
  const cancel = () => void ctx.emit('cancel')
  // The package never notices a body that stops or is cut after the head, so the body has its own clock.
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
      // Any server may answer: a leader election must not stop discovery. How stale is checked below.
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

export function answerOf(response: IncomingMessage, entries: unknown, maxStale: number): Answer {
  const { headers } = response
  const header = (name: string) => String(headers[name] ?? '')
  if (header('x-consul-knownleader') === 'false') throw new Error('Consul has no leader')
  const lastContact = Number(header('x-consul-lastcontact'))
  if (lastContact > maxStale)
    throw new Error(`the Consul server has had no contact with a leader for ${lastContact} ms`)
  const filtered = header('x-consul-results-filtered-by-acls') === 'true'
  return { index: indexOf(response), entries, filtered }
}

/** Consul says why in the body; the package often keeps only the status. */
function explained(error: unknown): unknown {
  const { response } = error as { response?: { statusCode?: number; body?: unknown } }
  if (response?.statusCode === undefined || Math.floor(response.statusCode / 100) === 2) return error
  const text = String(response.body ?? '')
    .trim()
    .slice(0, 200)
  return refusal(response.statusCode, text, PERMISSION)
}

/** Returns the error for a response that is no answer; `permission` is what the token needs. */
export function refusal(status: number, text: string, permission: string): Error {
  const message = `Consul responded with ${status}${text && `: ${text}`}`
  if (status === 429) return new ConsulCrowded(`${message} (${CROWDED})`)
  const denied = status === 403 || /ACL not found|Permission denied/.test(text)
  return denied ? new ConsulDenied(`${message} (${permission})`) : new Error(message)
}

/** Consul answers within half the usual time once the wait is over. */
export function blockingOf({ index, wait }: Question): Blocking {
  return blocking(index, wait, ANSWER_TIMEOUT / 2)
}

/** Each service holds one connection for its blocking query, so the agent has no limit of sockets. */
export function createAgent({ url, tls }: ConsulOptions): Agent {
  const { protocol, hostname } = new URL(url)
  const options = {
    keepAlive: true,
    // TCP probes find out within seconds that a machine which holds a question is gone.
    keepAliveMsecs: 10_000,
    // The package hands an IPv6 address to Node with its brackets.
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
