/**
 * Pushes all metrics to a server at an interval. At most one push runs at a time. A push that fails is not repeated: counters
 * are sums, so the next push has all that it had.
 */
import { hostname } from 'node:os'
import type { FastifyBaseLogger } from 'fastify'
import fp from 'fastify-plugin'
import type { Registry } from 'prom-client'
import { isSecretParameter, maskUrl } from '../../config/credentials.ts'
import type { Config } from '../../config/schema.ts'
import { secretsIn, withoutSecrets } from '../echoed-secrets.ts'
import { inSlices } from '../time-slices.ts'
import type { MetricData } from './line-protocol.ts'
import { lineProtocol } from './line-protocol.ts'

type Options = NonNullable<Config['metricsPush']>

/** Longest body, in characters. */
const longest = 32 * 1024 * 1024

export default fp<Config>(
  async (fastify, { metricsPush: options, isSidecar }) => {
    if (fastify.hasDecorator('dryRun') && fastify.dryRun) return
    // A replaced configuration may serve for long after the next one, with old numbers.
    const running = fastify.stores.claim('jingwei.metrics-push', null, (): { push: Push | null } => ({ push: null }))
    if (options === undefined) {
      fastify.addHook('onListen', () => {
        running.push?.stop()
        running.push = null
      })
      return
    }
    const pushes = fastify.meter.lasting.counter({
      name: 'jingwei_metrics_pushes_total',
      help: 'Pushes of all metrics to `metricsPush.url`, by result: success or failure.',
      labelNames: ['result']
    })
    const [success, failure] = [pushes.labels('success'), pushes.labels('failure')]
    const tags = { host: hostname(), role: isSidecar ? 'sidecar' : 'gateway', ...options.tags }
    const push = new Push(options, tags, fastify.meter.registry, fastify.log, (ok) => (ok ? success : failure).inc())
    fastify.addHook('onListen', () => {
      running.push?.stop()
      running.push = push
      push.start()
    })
    fastify.addHook('onClose', () => push.stop())
  },
  { name: 'jingwei-metrics-push', fastify: '5.x' }
)

class Push {
  readonly #options: Options
  readonly #tags: Readonly<Record<string, string>>
  readonly #registry: Registry
  readonly #log: FastifyBaseLogger
  readonly #count: (ok: boolean) => void
  readonly #url: string
  readonly #headers: Readonly<Record<string, string>>
  readonly #secrets: readonly string[]
  readonly #stop = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #hasFailed = false

  constructor(
    options: Options,
    tags: Readonly<Record<string, string>>,
    registry: Registry,
    log: FastifyBaseLogger,
    count: (ok: boolean) => void
  ) {
    this.#options = options
    this.#tags = tags
    this.#registry = registry
    this.#log = log
    this.#count = count
    const url = new URL(options.url)
    const login = `${decoded(url.username)}:${decoded(url.password)}`
    const basic = { authorization: `Basic ${Buffer.from(login).toString('base64')}` }
    // `fetch` refuses a URL with a user.
    url.username = ''
    url.password = ''
    this.#url = url.href
    const given = { ...(login !== ':' && basic), ...options.headers }
    this.#headers = { 'content-type': 'text/plain; charset=utf-8', ...given }
    // `p` is the password of InfluxDB 1.
    const ofQuery = [...url.searchParams].filter(([name]) => name === 'p' || isSecretParameter(name))
    this.#secrets = [...secretsIn(given), ...ofQuery.map(([, value]) => value)]
  }

  start(): void {
    this.#timer ??= setTimeout(() => void this.#run(), this.#options.interval).unref()
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#stop.abort()
  }

  async #run(): Promise<void> {
    const begunMs = performance.now()
    const fault = await this.#push().catch((error: unknown) => reasonOf(error))
    if (this.#stop.signal.aborted) return
    this.#count(fault === null)
    const url = maskUrl(this.#options.url)
    if (fault !== null && !this.#hasFailed) {
      this.#log.warn({ url, reason: fault }, `metrics cannot be pushed to ${url}: ${fault}`)
    } else if (fault === null && this.#hasFailed) {
      this.#log.info({ url }, `metrics are pushed to ${url} again`)
    }
    this.#hasFailed = fault !== null
    const waitMs = Math.max(0, this.#options.interval - (performance.now() - begunMs))
    this.#timer = setTimeout(() => void this.#run(), waitMs).unref()
  }

  /** Sends the metrics; returns the reason if the server refuses them, else null. */
  async #push(): Promise<string | null> {
    const metrics = (await this.#registry.getMetricsAsJSON()) as unknown as readonly MetricData[]
    const body = await inSlices(lineProtocol(metrics, this.#tags, Date.now()))
    if (body.length > longest) return `${body.length} characters, more than ${longest}`
    const response = await fetch(this.#url, {
      method: 'POST',
      headers: this.#headers,
      body,
      redirect: 'manual',
      signal: AbortSignal.any([this.#stop.signal, AbortSignal.timeout(this.#options.timeout)])
    })
    await response.body?.cancel()
    if (response.ok) return null
    const detail = response.headers.get('x-influxdb-error')
    return `status ${response.status}${detail === null ? '' : `, ${withoutSecrets(detail, this.#secrets).slice(0, 200)}`}`
  }
}

/** Returns the reason of a failure: the code of the connection's error, which `fetch` wraps. */
function reasonOf(error: unknown): string {
  const { name, cause } = error as Error & { cause?: { code?: string; message?: string } }
  if (name === 'TimeoutError') return 'timeout'
  return cause?.code ?? cause?.message ?? name
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
