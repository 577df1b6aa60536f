/** Responses that are sent item by item: newline-delimited JSON and server-sent events. */
import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import { closeIterator } from './close-iterator.ts'
import { checkItems } from './misuse.ts'

export interface SentEvent {
  /** Name of the event; default: `message`. One line. */
  readonly event?: string
  /** Sent as JSON. */
  readonly data: unknown
  /** Identifier that a browser sends as `Last-Event-ID` when it connects again. One line. An empty one is not sent. */
  readonly id?: string
}

export interface SendEventsOptions {
  /** Time without an event after which a comment keeps the connection open, in milliseconds. Default: 15,000. */
  readonly heartbeatMs?: number
  /** Time after which a browser connects again, in milliseconds. Default: that of the browser. */
  readonly retryMs?: number
}

/**
 * Responds with one line of JSON per item. Items are requested as fast as the client reads. If the source fails before the
 * first item, the client gets an error response; later, the connection is closed.
 */
export function sendNdjson(reply: FastifyReply, items: AsyncIterable<unknown>): FastifyReply {
  checkItems('sendNdjson', 'readNdjson', items)
  return send(reply, 'application/x-ndjson; charset=utf-8', items, jsonLines)
}

/** Responds with server-sent events, as `sendNdjson` does with lines. The header section is sent at once. */
export function sendEvents(
  reply: FastifyReply,
  events: AsyncIterable<SentEvent>,
  { heartbeatMs = 15_000, retryMs }: SendEventsOptions = {}
): FastifyReply {
  checkItems('sendEvents', 'readEvents', events)
  return send(reply, 'text/event-stream; charset=utf-8', events, (iterator) =>
    eventTexts(iterator, heartbeatMs, retryMs)
  )
}

/** A comment, which a browser ignores. */
const comment = ':\n\n'

function send<T>(
  reply: FastifyReply,
  type: string,
  items: AsyncIterable<T>,
  textsOf: (iterator: AsyncIterator<T>) => AsyncIterable<string>
): FastifyReply {
  // `no-transform` keeps proxies from buffering the stream to compress it; the second header is nginx's.
  const headers = { 'content-type': type, 'cache-control': 'no-store, no-transform', 'x-accel-buffering': 'no' }
  for (const [name, value] of Object.entries(headers)) if (!reply.hasHeader(name)) reply.header(name, value)
  const iterator = items[Symbol.asyncIterator]()
  // At once: `textsOf` may wait for an item.
  reply.send(Readable.from(textsOf(iterator)).once('close', () => closeIterator(iterator)))
  // Without `return sendEvents(…)`, the handler returns undefined, which Fastify would send in place of the stream.
  const { send: sendOther } = reply
  reply.send = (payload) => (payload === undefined ? reply : sendOther.call(reply, payload))
  return reply
}

async function* jsonLines(iterator: AsyncIterator<unknown>): AsyncGenerator<string, void, undefined> {
  for (;;) {
    const { done, value: item } = await iterator.next()
    if (done) return
    const text = item instanceof Uint8Array ? undefined : JSON.stringify(item)
    if (text === undefined) throw new TypeError(`sendNdjson: an item is ${nameOf(item)}, which JSON does not have`)
    yield `${text}\n`
  }
}

async function* eventTexts(
  iterator: AsyncIterator<SentEvent>,
  heartbeatMs: number,
  retryMs: number | undefined
): AsyncGenerator<string, void, undefined> {
  let arrived: { readonly result: IteratorResult<SentEvent> } | { readonly error: unknown } | undefined
  let wake = () => {}
  const request = () => {
    arrived = undefined
    Promise.try(() => iterator.next()).then(
      (result) => {
        arrived = { result }
        wake()
      },
      (error: unknown) => {
        arrived = { error }
        wake()
      }
    )
  }
  /** Resolves with the next event, or at the next heartbeat. */
  const wait = async (): Promise<void> => {
    if (arrived !== undefined) return
    const { promise, resolve } = Promise.withResolvers<void>()
    wake = resolve
    const timer = setTimeout(resolve, heartbeatMs)
    await promise
    clearTimeout(timer)
  }
  try {
    yield retryMs === undefined ? comment : `retry: ${retryMs}\n\n`
    request()
    for (;;) {
      await wait()
      if (arrived === undefined) yield comment
      else if ('error' in arrived) throw arrived.error
      else if (arrived.result.done) return
      else {
        yield textOf(arrived.result.value)
        request()
      }
    }
  } finally {
    wake()
  }
}

function nameOf(item: unknown): string {
  if (item instanceof Uint8Array) return 'bytes'
  if (typeof item === 'object') return item === null ? 'null' : 'an object without data'
  return item === undefined ? 'undefined' : `a ${typeof item}`
}

function textOf(sent: SentEvent): string {
  if (typeof sent !== 'object' || sent === null || !('data' in sent)) {
    throw new TypeError(
      `sendEvents: an event must be an object with data, such as { data: { n: 1 } }, not ${nameOf(sent)}`
    )
  }
  const { event, data, id } = sent
  const fields = [
    ['event', event],
    ['id', id || undefined],
    ['data', JSON.stringify(data) ?? 'null']
  ] as const
  return `${fields.map(([name, value]) => (value === undefined ? '' : `${name}: ${oneLine(name, value)}\n`)).join('')}\n`
}

/** Throws for a line end, which would end the field and begin another one. */
function oneLine(name: string, value: string): string {
  if (/[\r\n\0]/.test(value)) throw new TypeError(`sendEvents: ${name} must be one line`)
  return value
}
