/** The queue of ended spans, and their export in batches. It outlives a configuration. */
import { AsyncResource } from 'node:async_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ConfigurationMeter } from '../../meter.ts'
import type { FinishedSpan } from '../../spans.ts'
import type { CollectorOptions, Result } from './collector.ts'
import { Collector } from './collector.ts'
import { encode, envelope } from './encode.ts'
import { synchronize } from './wall-clock.ts'

export interface ExporterOptions {
  readonly collector: CollectorOptions
  /** Attributes of this process. */
  readonly resource: Readonly<Record<string, string>>
  readonly maxBytes: number
  readonly maxBatch: number
  readonly delay: number
}

interface Log {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
}

interface Deps {
  readonly meter: ConfigurationMeter['lasting']
  readonly log: Log
  readonly version: string
}

/** Bytes of one export, unless a single span has more. Collectors accept bodies of some megabytes. */
const bodyBytes = 1024 * 1024

/** Size of the smallest spans. */
const leastBytes = 256

/** Exports of the same spans, and the time before the next: 1, 2, 4 and 8 s, less a random part, or `Retry-After`. */
const mostAttempts = 5
const firstPauseMs = 1000
const longestPauseMs = 300_000

/** Time for the last exports when the exporter closes. */
const closeMs = 5000

/** Shortest time between two lines of the log about failures. */
const logEveryMs = 60_000

const losses = ['queue_full', 'refused', 'failed', 'shutdown'] as const
type Loss = (typeof losses)[number]

interface Series {
  inc(value?: number): void
}

export class Exporter {
  readonly #options: ExporterOptions
  readonly #collector: Collector
  readonly #envelope: (spans: readonly string[]) => string
  readonly #log: Log
  readonly #exported: Series
  readonly #lost: Readonly<Record<Loss, Series>>
  readonly #endGauge: () => void
  /** Encoded spans and their sizes, oldest first. */
  #queue: { readonly text: string; readonly bytes: number }[] = []
  /** Bytes of the queue and of the export in progress. */
  #bytes = 0
  #timer: NodeJS.Timeout | null = null
  #sending: Promise<void> | null = null
  #isFailing = false
  #loggedAt = Number.NEGATIVE_INFINITY
  /** Aborted by `close`: no pause is waited for. */
  readonly #closing = new AbortController()
  /** Aborted when the time for the last exports is over. */
  readonly #end = new AbortController()
  /** Sends in the async context of the start: the context of a request would stay in memory, and in traces of an APM agent. */
  readonly #flush: () => void
  readonly #delayed: () => void

  constructor(options: ExporterOptions, { meter, log, version }: Deps) {
    this.#options = options
    this.#log = log
    this.#collector = new Collector(options.collector)
    this.#envelope = envelope(options.resource, version)
    this.#exported = meter
      .counter({ name: 'jingwei_tracing_spans_exported_total', help: 'Spans that the collector has accepted.' })
      .labels()
    const dropped = meter.counter({
      name: 'jingwei_tracing_spans_dropped_total',
      help: 'Spans lost: the queue was full, the collector refused them, exports failed, or the process ended.',
      labelNames: ['reason']
    })
    this.#lost = Object.fromEntries(losses.map((reason) => [reason, dropped.labels(reason)])) as Record<Loss, Series>
    // The series exist from the start, else rate() misses their first step.
    for (const series of [this.#exported, ...Object.values(this.#lost)]) series.inc(0)
    this.#endGauge = meter.gauge({
      name: 'jingwei_tracing_queue_bytes',
      help: 'Size of the spans that are not exported yet.',
      collect: (set) => set({}, this.#bytes)
    })
    this.#flush = AsyncResource.bind(() => this.#begin())
    this.#delayed = AsyncResource.bind(() => {
      this.#timer ??= setTimeout(this.#flush, options.delay).unref()
    })
  }

  /** Queues a span. */
  record(span: FinishedSpan): void {
    const { maxBytes, maxBatch } = this.#options
    if (this.#end.signal.aborted) {
      this.#lose('shutdown', 1, 'the export has ended')
      return
    }
    // While the collector is away, spans are not even encoded.
    const text = this.#bytes + leastBytes > maxBytes ? null : encode(span)
    const bytes = text === null ? leastBytes : Buffer.byteLength(text)
    if (text === null || this.#bytes + bytes > maxBytes) {
      this.#lose('queue_full', 1, `the queue of ${maxBytes} bytes is full`)
      return
    }
    this.#bytes += bytes
    this.#queue.push({ text, bytes })
    if (this.#sending !== null) return
    if (this.#queue.length >= maxBatch) this.#flush()
    else if (this.#timer === null) this.#delayed()
  }

  #begin(): void {
    if (this.#sending !== null || this.#queue.length === 0) return
    this.#cancelTimer()
    this.#sending = this.#send().finally(() => {
      this.#sending = null
      if (this.#queue.length > 0) this.#delayed()
    })
  }

  /** Exports what is in the queue, in batches; spans that come meanwhile wait for a whole batch or for the delay. */
  async #send(): Promise<void> {
    synchronize()
    let left = this.#queue.length
    while (left > 0 || this.#queue.length >= this.#options.maxBatch) {
      const batch = this.#take()
      left -= batch.length
      await this.#export(batch.map(({ text }) => text))
      for (const { bytes } of batch) this.#bytes -= bytes
    }
  }

  /** Removes the next batch from the queue. */
  #take() {
    const { maxBatch } = this.#options
    let size = 0
    let count = 0
    for (; count < Math.min(maxBatch, this.#queue.length); count++) {
      size += this.#queue[count]!.bytes
      if (size > bodyBytes && count > 0) break
    }
    return this.#queue.splice(0, count)
  }

  async #export(spans: readonly string[]): Promise<void> {
    const body = this.#envelope(spans)
    for (let attempt = 1; ; attempt++) {
      // Once the exporter closes, spans are sent once more, without a pause.
      const isLast = attempt === mostAttempts || this.#closing.signal.aborted
      const result = await this.#collector.send(body, this.#end.signal)
      if (result.kind === 'accepted') return this.#accept(spans.length, result)
      if (result.kind === 'refused') return this.#lose('refused', spans.length, result.reason)
      if (isLast) return this.#lose(attempt === mostAttempts ? 'failed' : 'shutdown', spans.length, result.reason)
      const pauseMs = firstPauseMs * (2 ** (attempt - 1) - Math.random() / 2)
      const ms = Math.min(result.afterMs ?? pauseMs, longestPauseMs)
      await sleep(ms, null, { ref: false, signal: this.#closing.signal }).catch(() => {})
    }
  }

  #accept(count: number, { rejected, reason }: Result & { kind: 'accepted' }): void {
    const lost = Math.min(rejected, count)
    this.#exported.inc(count - lost)
    if (lost > 0) this.#lose('refused', lost, reason)
    else if (this.#isFailing) this.#log.info(this.#fields, 'spans are exported again')
    this.#isFailing = lost > 0 && this.#isFailing
  }

  get #fields() {
    const { origin, pathname } = new URL(this.#options.collector.endpoint)
    return { collector: origin + pathname }
  }

  #lose(loss: Loss, count: number, reason: string): void {
    this.#lost[loss].inc(count)
    const now = performance.now()
    if (now - this.#loggedAt < logEveryMs) return
    this.#loggedAt = now
    this.#isFailing = true
    this.#log.warn({ ...this.#fields, loss, reason }, `spans are lost: ${reason || loss}`)
  }

  #cancelTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }

  /** Exports what is left, in bounded time. */
  async close(): Promise<void> {
    this.#cancelTimer()
    this.#closing.abort()
    const timer = setTimeout(() => this.#end.abort(), closeMs)
    while (this.#sending !== null || this.#queue.length > 0) {
      this.#begin()
      await this.#sending
    }
    clearTimeout(timer)
    this.#end.abort()
    this.#cancelTimer()
    this.#endGauge()
    await this.#collector.close()
  }
}
