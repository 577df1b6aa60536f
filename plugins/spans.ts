/**
 * Trace contexts (W3C Trace Context) and spans. Both halves make spans, and operations export them. Between the halves goes
 * a `SpanContext`, to services its `traceparent`.
 */
import { randomFillSync } from 'node:crypto'

/** Ids of a span, by which its children name it. */
export interface SpanContext {
  /** 32 hexadecimal digits. */
  readonly traceId: string
  /** 16 hexadecimal digits. */
  readonly spanId: string
  /** Bit 0: the trace is recorded. Bit 1: the trace id is random. */
  readonly flags: number
}

/** Bits of `flags` that this program knows; others must be sent as 0. */
export const SAMPLED = 1
const RANDOM = 2

export const isSampled = ({ flags }: SpanContext): boolean => (flags & SAMPLED) !== 0

export type AttributeValue = string | number | readonly string[]

/** A span that has ended. Times are milliseconds since 1970. */
export interface FinishedSpan extends SpanContext {
  readonly parent: { readonly spanId: string; readonly isRemote: boolean } | null
  readonly kind: 'server' | 'client'
  readonly name: string
  readonly startMs: number
  readonly endMs: number
  readonly attributes: readonly (readonly [name: string, value: AttributeValue | undefined])[]
  readonly isError: boolean
  /** A span of another trace that caused this one. */
  readonly link: SpanContext | null
}

/** Takes the spans of a configuration. */
export interface SpanRecorder {
  /** Milliseconds since 1970, with fractions. */
  readonly now: () => number
  readonly record: (span: FinishedSpan) => void
}

/** Version, trace id, span id and flags (W3C Trace Context, 3.2). Ids of zeros are invalid. */
const form = /^(?!ff)[\da-f]{2}-(?!0{32})[\da-f]{32}-(?!0{16})[\da-f]{16}-[\da-f]{2}(?:$|-)/
const length = 55

/** Reads a `traceparent`; null if it is missing or malformed. */
export function parseTraceparent(value: unknown): SpanContext | null {
  if (typeof value !== 'string' || !form.test(value)) return null
  // Version 00 has no further fields; later versions may have them.
  if (value.length > length && value.startsWith('00')) return null
  const flags = Number.parseInt(value.slice(53, length), 16) & (SAMPLED | RANDOM)
  return { traceId: value.slice(3, 35), spanId: value.slice(36, 52), flags }
}

export const traceparentOf = ({ traceId, spanId, flags }: SpanContext): string => `00-${traceId}-${spanId}-0${flags}`

/** Random bytes for many ids: a call for each would cost more than the rest of a span. */
const random = Buffer.allocUnsafeSlow(8192)
let used = random.length

function randomHex(bytes: number): string {
  if (used + bytes > random.length) {
    randomFillSync(random)
    used = 0
  }
  used += bytes
  return random.toString('hex', used - bytes, used)
}

export const newSpanId = (): string => randomHex(8)

/** Begins a trace. */
export const newTrace = (sampled: boolean): SpanContext => ({
  traceId: randomHex(16),
  spanId: randomHex(8),
  flags: sampled ? SAMPLED | RANDOM : RANDOM
})

const longest = 1024

/** Returns the beginning of a text from outside; clients choose the length of paths and headers. */
export const bounded = (text: string): string => (text.length > longest ? text.slice(0, longest) : text)

/** Methods that may be in the name of a span; others could be any word of a client. */
const knownMethods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH', 'QUERY'])

/** Returns the method for the name of a span, and the attributes that have it. */
export function methodOf(method: string): { name: string; attributes: FinishedSpan['attributes'] } {
  if (knownMethods.has(method)) return { name: method, attributes: [['http.request.method', method]] }
  return {
    name: 'HTTP',
    attributes: [
      ['http.request.method', '_OTHER'],
      ['http.request.method_original', bounded(method)]
    ]
  }
}

const codeForm = /^[A-Z][A-Z0-9_]{1,63}$/

/** Returns the kind of an error: its code, or else its name. Both are words of programs, never texts of requests. */
export function errorTypeOf(error: Error & { readonly code?: unknown }): string {
  return typeof error.code === 'string' && codeForm.test(error.code) ? error.code : error.name
}

/** A request of this process to an instance. */
export interface Sent {
  readonly method: string
  /** Path and query. */
  readonly path: string
  /** Origin of the instance. */
  readonly origin: string
  readonly service: string
  /** Number of attempts before this one. */
  readonly resends: number
}

/** The client span of one attempt to call an instance. */
export class AttemptSpan implements SpanContext {
  readonly traceId: string
  readonly spanId = newSpanId()
  readonly flags: number
  readonly #spanRecorder: SpanRecorder
  readonly #parentId: string
  readonly #sent: Sent
  readonly #startMs: number
  #isOver = false

  constructor(spanRecorder: SpanRecorder, parent: SpanContext, sent: Sent) {
    this.#spanRecorder = spanRecorder
    this.#parentId = parent.spanId
    this.#sent = sent
    this.traceId = parent.traceId
    this.flags = parent.flags
    this.#startMs = spanRecorder.now()
  }

  /** Ends the span with a status or an error; later calls change nothing. `isUnneeded`: another attempt was faster. */
  end(outcome: number | Error, isUnneeded = false): void {
    if (this.#isOver) return
    this.#isOver = true
    const { method, path, origin, service, resends } = this.#sent
    const query = path.indexOf('?')
    const named = methodOf(method)
    const hasFailed = typeof outcome !== 'number' || outcome >= 400
    const [address, port] = addressOf(origin)
    this.#spanRecorder.record({
      traceId: this.traceId,
      spanId: this.spanId,
      flags: this.flags,
      parent: { spanId: this.#parentId, isRemote: false },
      kind: 'client',
      name: named.name,
      startMs: this.#startMs,
      endMs: Math.max(this.#startMs, this.#spanRecorder.now()),
      attributes: [
        ...named.attributes,
        ['url.full', bounded(origin + (query === -1 ? path : path.slice(0, query)))],
        ['server.address', address],
        ['server.port', port],
        ['peer.service', service],
        ['http.request.resend_count', resends > 0 ? resends : undefined],
        ['http.response.status_code', typeof outcome === 'number' ? outcome : undefined],
        ['error.type', typeof outcome !== 'number' ? errorTypeOf(outcome) : hasFailed ? String(outcome) : undefined]
      ],
      isError: hasFailed && !isUnneeded,
      link: null
    })
  }
}

/** Returns host and port of an origin. */
function addressOf(origin: string): [address: string, port: number] {
  const host = origin.slice(origin.indexOf('//') + 2)
  const colon = host.lastIndexOf(':')
  const hasPort = colon > host.lastIndexOf(']')
  const name = hasPort ? host.slice(0, colon) : host
  const port = hasPort ? Number(host.slice(colon + 1)) : origin.startsWith('https:') ? 443 : 80
  return [name.startsWith('[') ? name.slice(1, -1) : name, port]
}
