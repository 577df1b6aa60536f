/** Readers of streamed responses: newline-delimited JSON and server-sent events. */
import { Readable } from 'node:stream'
import createError from '@fastify/error'
import { checkIterable } from './misuse.ts'

export interface ReadOptions {
  /** Largest line, and largest event, in characters. Default: 1,048,576. */
  readonly maxLength?: number
}

/** An event of a response with the type `text/event-stream`. */
export interface ServerEvent {
  /** `message` if the service names none. */
  readonly event: string
  readonly data: string
  /** Identifier of the last event that had one; empty if none had. */
  readonly id: string
}

const TooLong = createError('JW_UPSTREAM_BODY_TOO_LARGE', 'a line or an event is longer than %d characters', 502)
const NotJson = createError('JW_UPSTREAM_NOT_JSON', 'a line of the response is not JSON', 502)

const defaultLength = 1024 * 1024

const lineFeed = /\n/
const anyLineEnd = /\r\n|\n|\r/

/** Reads a stream line by line, without the line ends; also what follows the last one. */
async function* readLines(stream: Readable, end: RegExp, maxLength: number): AsyncGenerator<string, void, undefined> {
  checkIterable('readEvents and readNdjson: the body', stream)
  const decoder = new TextDecoder()
  let rest = ''
  let wasCr = false
  for await (const chunk of stream) {
    let text = typeof chunk === 'string' ? chunk : decoder.decode(chunk as Buffer, { stream: true })
    // The second half of a CR LF is no line end of its own.
    if (wasCr && text.startsWith('\n')) {
      text = text.slice(1)
      wasCr = false
    }
    if (text === '') continue
    wasCr = end === anyLineEnd && text.endsWith('\r')
    // Splits the chunk alone: splitting it with `rest` each time would cost the square of a line's length.
    const lines = text.split(end)
    lines[0] = rest + lines[0]!
    rest = lines.pop()!
    for (const line of [...lines, rest]) if (line.length > maxLength) throw new TooLong(maxLength)
    yield* lines
  }
  rest += decoder.decode()
  if (rest !== '') yield rest
}

/**
 * Destroys the stream when the reader stops. A generator alone would do so only after its next item, which a service that is
 * silent, or sends only heartbeats, never sends.
 */
function ending<T>(stream: Readable, items: AsyncGenerator<T, void, undefined>): AsyncGenerator<T, void, undefined> {
  const stop = items.return
  return Object.assign(items, {
    return(value: void | PromiseLike<void>): Promise<IteratorResult<T, void>> {
      // An error without a listener would end the process.
      if (stream instanceof Readable) stream.on('error', () => {}).destroy()
      return Reflect.apply(stop, items, [value])
    }
  })
}

/**
 * Reads newline-delimited JSON: a value per line. Blank lines are ignored. The stream is destroyed when the reader stops.
 * @throws {JW_UPSTREAM_NOT_JSON} (502) at a line that is not JSON.
 * @throws {JW_UPSTREAM_BODY_TOO_LARGE} (502) at a line that is too long.
 */
export function readNdjson<T>(
  stream: Readable,
  { maxLength = defaultLength }: ReadOptions = {}
): AsyncGenerator<T, void, undefined> {
  return ending(stream, ndjson<T>(stream, maxLength))
}

async function* ndjson<T>(stream: Readable, maxLength: number): AsyncGenerator<T, void, undefined> {
  for await (const line of readLines(stream, lineFeed, maxLength)) {
    if (line.trim() !== '') yield parsed(line) as T
  }
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    throw new NotJson()
  }
}

/**
 * Reads server-sent events as a browser does (https://html.spec.whatwg.org/multipage/server-sent-events.html, 9.2.6), without
 * `retry`. An event at the end of the stream without a blank line is incomplete, and is ignored. The stream is destroyed when the
 * reader stops.
 * @throws {JW_UPSTREAM_BODY_TOO_LARGE} (502) at an event that is too long.
 */
export function readEvents(
  stream: Readable,
  { maxLength = defaultLength }: ReadOptions = {}
): AsyncGenerator<ServerEvent, void, undefined> {
  return ending(stream, serverEvents(stream, maxLength))
}

async function* serverEvents(stream: Readable, maxLength: number): AsyncGenerator<ServerEvent, void, undefined> {
  let event = ''
  let id = ''
  let data: string[] = []
  let length = 0
  for await (const line of readLines(stream, anyLineEnd, maxLength)) {
    if (line === '') {
      if (data.length > 0) yield { event: event || 'message', data: data.join('\n'), id }
      event = ''
      data = []
      length = 0
      continue
    }
    const colon = line.indexOf(':')
    const field = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1)
    if (field === 'event') event = value
    else if (field === 'id' && !value.includes('\0')) id = value
    else if (field === 'data') {
      data.push(value)
      length += value.length + 1
      if (length > maxLength) throw new TooLong(maxLength)
    }
  }
}
