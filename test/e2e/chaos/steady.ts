// Steady load: a fixed number of requests per second, also while earlier ones have no response yet.
import { setTimeout as sleep } from 'node:timers/promises'
import { Agent, request } from 'undici'

export interface Sent {
  readonly method: 'GET' | 'POST'
  /** On the clock of `performance.now()`. */
  readonly at: number
  /** Milliseconds until the response was complete; null while it is in progress. */
  ms: number | null
  /** The instance that sent a successful response; empty if none did. */
  instance: string
  /** Status and body, or the error. */
  failure: string | null
}

export interface SteadyOptions {
  /** Requests a second. */
  rate: number
  /** Every `postEvery`th request is a POST. */
  postEvery: number
}

const tickMs = 10
/** Limit of requests per tick: after a longer pause of this process, missed requests are left out, not sent at once. */
const mostPerTick = 20

export class Steady {
  /** In the order in which they were sent. */
  readonly sent: Sent[] = []
  readonly #url: string
  readonly #postEvery: number
  readonly #agent = new Agent({ connections: 512, keepAliveTimeout: 30_000, headersTimeout: 20_000 })
  readonly #timer: NodeJS.Timeout
  #pending = 0
  #last = performance.now()
  #due = 0

  constructor(url: string, { rate, postEvery }: SteadyOptions) {
    this.#url = url
    this.#postEvery = postEvery
    this.#timer = setInterval(() => {
      const now = performance.now()
      this.#due = Math.min(mostPerTick, this.#due + ((now - this.#last) / 1000) * rate)
      this.#last = now
      for (; this.#due >= 1; this.#due--) void this.#send()
    }, tickMs)
  }

  async #send(): Promise<void> {
    const index = this.sent.length
    const method = index % this.#postEvery === this.#postEvery - 1 ? 'POST' : 'GET'
    const url = new URL(`${this.#url}/${index}`)
    const body = method === 'POST' ? `order ${index}` : null
    const sent: Sent = { method, at: performance.now(), ms: null, instance: '', failure: null }
    this.sent.push(sent)
    this.#pending++
    try {
      const response = await request(url, { dispatcher: this.#agent, method, body })
      const text = await response.body.text()
      const whole = text === `${method} ${url.pathname} ${body ?? ''}`
      if (response.statusCode === 200 && whole) sent.instance = String(response.headers['x-instance'])
      else sent.failure = `${response.statusCode} ${text}`
    } catch (error) {
      sent.failure = String(error)
    }
    sent.ms = performance.now() - sent.at
    this.#pending--
  }

  /** GETs sent at that time or later. */
  gets(since = 0): Sent[] {
    return this.sent.filter(({ method, at }) => method === 'GET' && at >= since)
  }

  failures(method: Sent['method']): Sent[] {
    return this.sent.filter((sent) => sent.method === method && sent.failure !== null)
  }

  /** Median and 99th percentile of each second's GETs, whole milliseconds. */
  perSecond(): string {
    const seconds = Map.groupBy(this.gets(), ({ at }) => Math.floor((at - this.sent[0]!.at) / 1000))
    return [...seconds.values()].map((some) => `${percentile(some, 50)}/${percentile(some, 99)}`).join(' ')
  }

  /** Resolves when the last response is complete. */
  async stop(): Promise<void> {
    clearInterval(this.#timer)
    while (this.#pending > 0) await sleep(5)
    await this.#agent.close()
  }

  /** Aborts the requests in flight. */
  async destroy(): Promise<void> {
    clearInterval(this.#timer)
    await this.#agent.destroy()
  }
}

/** Returns the percentile in whole milliseconds; a request in flight counts with the time so far. */
export function percentile(some: readonly Sent[], percent: number): number {
  const now = performance.now()
  const sorted = some.map(({ at, ms }) => ms ?? now - at).sort((a, b) => a - b)
  return Math.round(sorted[Math.ceil((percent / 100) * sorted.length) - 1] ?? 0)
}
