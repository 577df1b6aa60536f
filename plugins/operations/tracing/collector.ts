/** One export to a collector, by OTLP over HTTP. */
import type { Dispatcher } from 'undici'
import { secretsIn, withoutSecrets } from '../../echoed-secrets.ts'
import { agentClass } from '../../undici.ts'

export interface CollectorOptions {
  readonly endpoint: string
  readonly headers: Readonly<Record<string, string>>
  readonly timeout: number
  /** Contents of PEM files, and `servername`. */
  readonly tls: Readonly<Record<string, string>>
}

/** `retry`: the same spans may be sent again. `rejected`: spans that the collector did not accept out of an accepted export. */
export type Result =
  | { readonly kind: 'accepted'; readonly rejected: number; readonly reason: string }
  | { readonly kind: 'refused' | 'retry'; readonly reason: string; readonly afterMs: number | null }

/** Bytes of a response that are read. A longer one ends its connection. */
const mostBytes = 64 * 1024

/** Statuses after which the same request may succeed (OTLP, "Retryable Response Codes"). */
const retryable = new Set([429, 502, 503, 504])

/** Longest reason in the log. */
const mostChars = 200

export class Collector {
  readonly #agent: Dispatcher
  readonly #origin: string
  readonly #path: string
  readonly #options: CollectorOptions
  readonly #secrets: readonly string[]

  constructor(options: CollectorOptions) {
    this.#options = options
    this.#secrets = secretsIn(options.headers)
    const { origin, pathname, search } = new URL(options.endpoint)
    this.#origin = origin
    this.#path = `${pathname === '/' ? '/v1/traces' : pathname}${search}`
    const Agent = agentClass()
    this.#agent = new Agent({
      allowH2: false,
      connections: 1,
      pipelining: 1,
      connect: { timeout: options.timeout, ...options.tls }
    })
  }

  /** Sends spans. Never rejects. */
  async send(text: string, signal: AbortSignal): Promise<Result> {
    const { headers, timeout } = this.#options
    try {
      const {
        statusCode,
        headers: fields,
        body
      } = await this.#agent.request({
        origin: this.#origin,
        path: this.#path,
        method: 'POST',
        headers: { 'user-agent': 'jingwei', ...lowerCase(headers), 'content-type': 'application/json' },
        body: text,
        signal: AbortSignal.any([signal, AbortSignal.timeout(timeout)])
      })
      const response = await beginningOf(body)
      if (statusCode >= 200 && statusCode <= 299) return accepted(response, this.#secrets)
      const reason = `status ${statusCode}${messageIn(response, this.#secrets)}`
      if (!retryable.has(statusCode)) return { kind: 'refused', reason, afterMs: null }
      return { kind: 'retry', reason, afterMs: retryAfterOf(fields['retry-after']) }
    } catch (error) {
      const { name, code, message } = error as Error & { code?: unknown }
      const reason = name === 'TimeoutError' ? `no response within ${timeout} ms` : String(code ?? message)
      return { kind: 'retry', reason: reason.slice(0, mostChars), afterMs: null }
    }
  }

  close(): Promise<void> {
    return this.#agent.destroy()
  }
}

const lowerCase = (headers: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))

/** Returns the body of a response; '' if it is too long. */
async function beginningOf(body: Dispatcher.ResponseData['body']): Promise<string> {
  let text = ''
  body.setEncoding('utf8')
  for await (const chunk of body) {
    text += chunk
    // Ends the connection.
    if (text.length > mostBytes) return ''
  }
  return text
}

/** Reads `partialSuccess` of an `ExportTraceServiceResponse`. */
function accepted(text: string, secrets: readonly string[]): Result {
  const { rejectedSpans, errorMessage } = Object(Object(json(text)).partialSuccess) as Record<string, unknown>
  const rejected = Number(rejectedSpans ?? 0)
  return {
    kind: 'accepted',
    rejected: Number.isSafeInteger(rejected) && rejected > 0 ? rejected : 0,
    reason: shown(errorMessage, secrets)
  }
}

/** Returns the message of a `Status`, as `: message`. */
function messageIn(text: string, secrets: readonly string[]): string {
  const message = shown(Object(json(text)).message, secrets)
  return message === '' ? '' : `: ${message}`
}

const shown = (value: unknown, secrets: readonly string[]) =>
  typeof value === 'string' ? withoutSecrets(value, secrets).slice(0, mostChars) : ''

function json(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** Returns the milliseconds of `Retry-After`, in seconds or as a date; null without a usable value. */
function retryAfterOf(value: string | string[] | undefined): number | null {
  if (typeof value !== 'string') return null
  const ms = /^\d{1,9}$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return Number.isFinite(ms) ? Math.max(0, ms) : null
}
