/** A collector of spans, OTLP over HTTP, on a free port. */
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import type { Test } from 'tap'
import { eventually } from './eventually.ts'
import { startService } from './gateway.ts'

interface Value {
  stringValue?: string
  intValue?: string
  arrayValue?: { values: Value[] }
}

interface Attribute {
  key: string
  value: Value
}

interface Written {
  traceId: string
  spanId: string
  parentSpanId?: string
  flags: number
  name: string
  kind: number
  startTimeUnixNano: string
  endTimeUnixNano: string
  attributes: Attribute[]
  links?: { traceId: string; spanId: string }[]
  status: { code?: number }
}

export interface Span extends Omit<Written, 'attributes'> {
  attributes: Record<string, unknown>
}

interface Body {
  resourceSpans: {
    resource: { attributes: Attribute[] }
    scopeSpans: { scope: { name: string; version: string }; spans: Written[] }[]
  }[]
}

export interface Collector {
  url: string
  port: number
  spans: Span[]
  /** Requests as they arrived. */
  exports: { headers: IncomingMessage['headers']; url: string; text: string; spans: Span[] }[]
  resource: Record<string, unknown>
  /** Replaces the response to exports. */
  respond: (response: ServerResponse, index: number) => void
  /** Resolves with the spans of this kind once there are so many. */
  servers: (count: number) => Promise<Span[]>
  clients: (count: number) => Promise<Span[]>
  close: () => Promise<void>
}

const plain = ({ stringValue, intValue, arrayValue }: Value): unknown =>
  stringValue ?? (intValue === undefined ? arrayValue?.values.map(plain) : Number(intValue))

const record = (attributes: Attribute[]) =>
  Object.fromEntries(attributes.map(({ key, value }): [string, unknown] => [key, plain(value)]))

/** Accepts exports, and keeps their spans. */
export async function startCollector(t: Test): Promise<Collector> {
  const handler: RequestListener = (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString()
      const body = JSON.parse(text) as Body
      const spans = body.resourceSpans.flatMap((each) => {
        collector.resource = record(each.resource.attributes)
        return each.scopeSpans.flatMap((scope) =>
          scope.spans.map((span) => ({ ...span, attributes: record(span.attributes) }))
        )
      })
      collector.exports.push({ headers: request.headers, url: request.url!, text, spans })
      collector.respond(response, collector.exports.length - 1)
    })
  }
  const service = await startService(handler)
  t.teardown(service.close)
  const wait = (kind: number) => async (count: number) => {
    const found = () => collector.spans.filter((span) => span.kind === kind)
    await eventually(() => found().length >= count)
    return found()
  }
  const collector: Collector = {
    ...service,
    spans: [],
    exports: [],
    resource: {},
    respond(response, index) {
      collector.spans.push(...collector.exports[index]!.spans)
      response.setHeader('content-type', 'application/json')
      response.end('{}')
    },
    servers: wait(2),
    clients: wait(3)
  }
  return collector
}

/** The section of a configuration that exports to a collector soon. */
export const tracingTo = ({ url }: Pick<Collector, 'url'>, more: object = {}) => ({
  otlp: { http: { endpoint: url } },
  queue: { delay: '10ms' },
  ...more
})
