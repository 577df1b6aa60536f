/** OTLP in JSON: the encoding of protobuf's JSON mapping, with ids in hexadecimal (opentelemetry-proto, trace/v1). */
import type { AttributeValue, FinishedSpan, SpanContext } from '../../spans.ts'

const kinds = { server: 2, client: 3 } as const

/** `Span.flags`: it is known whether the parent is in another process, and it is. */
const KNOWS_REMOTE = 0x100
const IS_REMOTE = 0x200

/** Returns nanoseconds as a decimal text, since they are more than a number can hold. */
function nanosOf(ms: number): string {
  const whole = Math.floor(ms)
  return `${whole}${String(Math.floor((ms - whole) * 1e6)).padStart(6, '0')}`
}

function anyValue(value: AttributeValue): string {
  if (typeof value === 'string') return `{"stringValue":${JSON.stringify(value.toWellFormed())}}`
  if (typeof value === 'number') return `{"intValue":"${value}"}`
  return `{"arrayValue":{"values":[${value.map(anyValue).join()}]}}`
}

/** Returns attributes as the items of a list; those without a value are left out. */
function listOf(attributes: Iterable<readonly [name: string, value: AttributeValue | undefined]>): string {
  let text = ''
  for (const [name, value] of attributes) {
    if (value === undefined) continue
    text += `${text === '' ? '' : ','}{"key":${JSON.stringify(name)},"value":${anyValue(value)}}`
  }
  return text
}

const linkOf = ({ traceId, spanId, flags }: SpanContext) =>
  `,"links":[{"traceId":"${traceId}","spanId":"${spanId}","flags":${flags | KNOWS_REMOTE | IS_REMOTE}}]`

/** Encodes a span. */
export function encode(span: FinishedSpan): string {
  const { traceId, spanId, parent, kind, name, startMs, endMs, attributes, isError, link } = span
  const flags = span.flags | KNOWS_REMOTE | (parent?.isRemote ? IS_REMOTE : 0)
  return `{"traceId":"${traceId}","spanId":"${spanId}"${parent === null ? '' : `,"parentSpanId":"${parent.spanId}"`},"flags":${flags},"name":${JSON.stringify(name)},"kind":${kinds[kind]},"startTimeUnixNano":"${nanosOf(startMs)}","endTimeUnixNano":"${nanosOf(endMs)}","attributes":[${listOf(attributes)}]${link === null ? '' : linkOf(link)},"status":{${isError ? '"code":2' : ''}}}`
}

/** Returns the function that makes the body of an export out of encoded spans. */
export function envelope(
  resource: Readonly<Record<string, string>>,
  version: string
): (spans: readonly string[]) => string {
  const scope = `{"name":"jingwei","version":${JSON.stringify(version)}}`
  const head = `{"resourceSpans":[{"resource":{"attributes":[${listOf(Object.entries(resource))}]},"scopeSpans":[{"scope":${scope},"spans":[`
  return (spans) => `${head}${spans.join()}]}]}]}`
}
