/** Consul queries for which the `consul` package has no method. */
import type { Agent, IncomingMessage, RequestOptions } from 'node:http'
import https from 'node:https'
import { http } from '../../node-http.ts'
import type { ConsulOptions } from './consul-options.ts'
import type { RunQuery } from './consul-query.ts'
import { answerOf, blockingOf, PERMISSION, refusal } from './consul-query.ts'

export interface Got {
  readonly response: IncomingMessage
  readonly body: unknown
}

interface GetOptions {
  readonly timeout: number
  readonly signal: AbortSignal
  /** Permission that the token needs; named in the error if Consul refuses the query. */
  readonly permission: string
}

export type Get = (path: string, query: Readonly<Record<string, string>>, options: GetOptions) => Promise<Got>

/** Returns the URL of the agent for the log, without user, password and query. */
export function shownUrl(url: string): string {
  const { origin, pathname } = new URL(url)
  return pathname === '/' ? origin : `${origin}${pathname}`
}

/** `largest`: bytes of a response. `isAbsent`: statuses of a key that does not exist, whose body is null. */
interface Bounds {
  readonly largest?: number
  isAbsent?(status: number): boolean
}

export function createGet({ url, token, namespace }: ConsulOptions, agent: Agent, bounds: Bounds = {}): Get {
  const base = `${url.replace(/\/+$/, '')}/v1`
  const headers = {
    ...(token ? { 'x-consul-token': token } : {}),
    ...(namespace ? { 'x-consul-namespace': namespace } : {})
  }
  return async (path, query, { timeout, signal, permission }) => {
    const target = new URL(`${base}${path}?${new URLSearchParams(query)}`)
    const { response, text } = await exchange(target, { agent, headers, signal }, timeout, bounds.largest)
    const { statusCode = 0 } = response
    if (statusCode === 200) return { response, body: JSON.parse(text) }
    if (bounds.isAbsent?.(statusCode)) return { response, body: null }
    throw refusal(statusCode, text.trim().slice(0, 200), permission)
  }
}

function exchange(
  target: URL,
  options: RequestOptions,
  timeout: number,
  largest = Number.POSITIVE_INFINITY
): Promise<{ response: IncomingMessage; text: string }> {
  return new Promise((resolve, reject) => {
    const { get } = target.protocol === 'https:' ? https : http
    const request = get(target, options, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
        if (text.length > largest) request.destroy(new Error(`Consul's response is larger than ${largest} bytes`))
      })
      response.once('error', fail)
      response.once('end', () => {
        clearTimeout(timer)
        resolve({ response, text })
      })
    })
    const timer = setTimeout(() => request.destroy(new Error(`Consul did not respond within ${timeout} ms`)), timeout)
    function fail(error: Error): void {
      clearTimeout(timer)
      reject(error)
    }
    request.once('error', fail)
  })
}

/** Returns the query function for a service's sidecars and Connect-native instances, which the package lacks. */
export function createConnectQuery(options: ConsulOptions, agent: Agent): RunQuery {
  const get = createGet(options, agent)
  const { maxStale } = options
  return async (question, signal) => {
    const { query, timeout } = blockingOf(question)
    const { service, datacenter } = question
    const path = `/health/connect/${encodeURIComponent(service)}`
    const options = { timeout, signal, permission: PERMISSION }
    const { response, body } = await get(path, { stale: '', ...(datacenter && { dc: datacenter }), ...query }, options)
    return answerOf(response, body, maxStale)
  }
}
