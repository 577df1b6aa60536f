/** Questions to Consul that its package has no method for. */
import type { IncomingMessage } from 'node:http'
import http from 'node:http'
import https from 'node:https'
import type { ConsulOptions } from '../../../config/schema.ts'
import type { Ask } from './consul-ask.ts'
import { ANSWER_TIMEOUT, answerOf, ConsulCrowded, ConsulDenied, CROWDED, PERMISSION } from './consul-ask.ts'

export interface Got {
  readonly response: IncomingMessage
  readonly body: unknown
}

export interface GetOptions {
  readonly timeout: number
  readonly signal: AbortSignal
  /** What the token needs, said when Consul refuses. */
  readonly permission: string
}

export type Get = (path: string, query: Readonly<Record<string, string>>, options: GetOptions) => Promise<Got>

/** The URL of the agent for the log, without user, password and query. */
export function shownUrl(url: string): string {
  const { origin, pathname } = new URL(url)
  return pathname === '/' ? origin : `${origin}${pathname}`
}

export function createGet({ url, token, namespace }: ConsulOptions, agent: http.Agent): Get {
  const base = `${url.replace(/\/+$/, '')}/v1`
  const headers = {
    ...(token ? { 'x-consul-token': token } : {}),
    ...(namespace ? { 'x-consul-namespace': namespace } : {})
  }
  return async (path, query, { timeout, signal, permission }) => {
    const target = new URL(`${base}${path}?${new URLSearchParams(query)}`)
    const { response, text } = await exchange(target, { agent, headers, signal }, timeout)
    const { statusCode = 0 } = response
    if (statusCode === 200) return { response, body: JSON.parse(text) }
    const said = text.trim().slice(0, 200)
    const message = `Consul answered ${statusCode}${said && `: ${said}`}`
    if (statusCode === 429) throw new ConsulCrowded(`${message} (${CROWDED})`)
    if (statusCode === 403 || /ACL not found|Permission denied/.test(said)) {
      throw new ConsulDenied(`${message} (${permission})`)
    }
    throw new Error(message)
  }
}

function exchange(
  target: URL,
  options: http.RequestOptions,
  timeout: number
): Promise<{ response: IncomingMessage; text: string }> {
  return new Promise((resolve, reject) => {
    const { get } = target.protocol === 'https:' ? https : http
    const request = get(target, options, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
      })
      response.once('error', fail)
      response.once('end', () => {
        clearTimeout(timer)
        resolve({ response, text })
      })
    })
    const timer = setTimeout(() => request.destroy(new Error('Consul did not answer in time')), timeout)
    function fail(error: Error): void {
      clearTimeout(timer)
      reject(error)
    }
    request.once('error', fail)
  })
}

/** As the package's own question about a service's health, of its sidecars and Connect-native instances. */
export function createConnectAsk(options: ConsulOptions, agent: http.Agent): Ask {
  const get = createGet(options, agent)
  return async ({ service, datacenter, index, wait }, signal) => {
    const query = {
      stale: '',
      ...(datacenter ? { dc: datacenter } : {}),
      ...(index === null ? {} : { index: String(index), wait: `${Math.ceil(wait)}ms` })
    }
    const timeout = index === null ? ANSWER_TIMEOUT : Math.ceil(wait + wait / 16) + ANSWER_TIMEOUT / 2
    const path = `/health/connect/${encodeURIComponent(service)}`
    const { response, body } = await get(path, query, { timeout, signal, permission: PERMISSION })
    return answerOf(response, body, options.maxStale)
  }
}
