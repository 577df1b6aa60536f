/** Output of an access log: its lines, and the file or log to which they are written. */

import { jsonValue, lineWriterOf } from '../../log-line.ts'
import type { ConcernContext } from '../concern.ts'
import type { AccessFields } from './fields.ts'
import { jsonLine, noFields } from './fields.ts'
import { compileFilters } from './filters.ts'
import { LogFile } from './log-file.ts'
import type { AccessLogOptions } from './options.ts'
import { namedFormats } from './options.ts'
import type { Entry, IsMasked } from './template.ts'
import { compileMembers, compileText, mask, maskingExcept, parseLine, readsResponse } from './template.ts'

type Context = Pick<ConcernContext, 'stores' | 'meter' | 'log'>
type Headers = Readonly<Record<string, string>>

export interface Output {
  /** Returns whether a request is logged. */
  readonly selects: ReturnType<typeof compileFilters>
  /** True if the header section of the service's response is needed. */
  readonly readsResponse: boolean
  readonly write: (entry: Entry) => void
  /** Writes the line of a refusal before routing. */
  readonly writeRefusal: (fields: Partial<AccessFields>) => void
}

/** Makes the output for these options; `true` stands for the JSON line. */
export function outputFor(options: true | AccessLogOptions, context: Context): Output {
  const { format = 'json', filters, file, ...fields }: Partial<AccessLogOptions> = options === true ? {} : options
  const write = file === undefined ? lineWriterOf(context.log) : fileWriter(file, fields.buffer!, context)
  const selects = compileFilters(filters)
  const templates = typeof format === 'string' ? [textOf(format)] : Object.values(format)
  const needs = fields.responseHeaders !== undefined || templates.some((each) => readsResponse(parseLine(each)))
  const isOn = file === undefined && write !== null ? levelTest(context.log) : null
  const { line, refusal } = write === null ? loggerLines(format, fields, context) : textLines(format, fields, write)
  return {
    selects,
    readsResponse: needs,
    write: isOn === null ? line : (entry) => isOn() && line(entry),
    writeRefusal: (refused) => {
      // A connection that was closed without a response had a fault of the client.
      const facts = { status: refused.status ?? 400, durationMs: 0, attempts: 0 }
      if ((isOn === null || isOn()) && (selects === null || selects(facts))) refusal(refused)
    }
  }
}

type Format = AccessLogOptions['format']
type Lines = { line: (entry: Entry) => void; refusal: (fields: Partial<AccessFields>) => void }

const textOf = (format: string) =>
  Object.hasOwn(namedFormats, format) ? namedFormats[format as keyof typeof namedFormats] : format

/** Returns the test whether the log is at a level at which it has access lines. */
function levelTest(log: Context['log']): () => boolean {
  const { isLevelEnabled } = log as { isLevelEnabled?: (level: string) => boolean }
  return isLevelEnabled === undefined ? () => true : () => isLevelEnabled.call(log, 'info')
}

/** Lines for the gateway's own log, or a file. */
function textLines(format: Format, fields: Partial<AccessLogOptions>, write: (line: string) => void): Lines {
  if (format === 'json') {
    const complete = completion(fields)
    return {
      line: complete === null ? ({ fields }) => write(jsonLine(fields)) : (entry) => write(jsonLine(complete(entry))),
      refusal: (refused) => write(jsonLine(withoutOmitted(refused, fields.omit)))
    }
  }
  const compiled = compile(format, fields)
  const line = (entry: Entry) => {
    const made = compiled(entry)
    write(typeof made === 'string' ? `${made}\n` : `${jsonValue(made)}\n`)
  }
  return { line, refusal: (refused) => line(entryOf(refused)) }
}

/** Lines for another logger, such as that of a server which embeds the gateway: it makes JSON or text of them itself. */
function loggerLines(format: Format, fields: Partial<AccessLogOptions>, { log }: Context): Lines {
  if (format === 'json') {
    const complete = completion(fields)
    return {
      line: (entry) => log.info(complete === null ? entry.fields : complete(entry), 'request'),
      refusal: (refused) => log.info(withoutOmitted(refused, fields.omit), 'request')
    }
  }
  const compiled = compile(format, fields)
  const line = (entry: Entry) => {
    const made = compiled(entry)
    if (typeof made === 'string') log.info(made)
    else log.info(made, 'request')
  }
  return { line, refusal: (refused) => line(entryOf(refused)) }
}

function compile(
  format: Exclude<Format, 'json'>,
  { unmasked }: Partial<AccessLogOptions>
): (entry: Entry) => string | Record<string, unknown> {
  const isMasked = maskingExcept(unmasked)
  return typeof format === 'string' ? compileText(textOf(format), isMasked) : compileMembers(format, isMasked)
}

const entryOf = (refused: Partial<AccessFields>): Entry => ({
  fields: { ...noFields, ...refused },
  request: null,
  reply: null,
  ofService: null
})

/** Returns the function that adds headers to the fields of a line and removes omitted ones; null if there is nothing to change. */
function completion({ requestHeaders, responseHeaders, unmasked, omit }: Partial<AccessLogOptions>) {
  if (requestHeaders === undefined && responseHeaders === undefined && omit === undefined) return null
  const isMasked = maskingExcept(unmasked)
  const ofRequest = requestHeaders?.map((name) => name.toLowerCase())
  const ofResponse = responseHeaders?.map((name) => name.toLowerCase())
  return ({ fields, request, reply, ofService }: Entry): AccessFields => {
    if (ofRequest !== undefined)
      fields.requestHeaders = chosen(ofRequest, isMasked, (name) => request?.raw.headers[name])
    if (ofResponse !== undefined) {
      fields.responseHeaders = chosen(ofResponse, isMasked, (name) => reply?.getHeader(name) ?? ofService?.[name])
    }
    if (omit !== undefined) for (const name of omit) fields[name] = undefined
    return fields
  }
}

/** Returns the values of headers; undefined if there is none. */
function chosen(names: readonly string[], isMasked: IsMasked, read: (name: string) => unknown): Headers | undefined {
  const found: Record<string, string> = {}
  let hasSome = false
  for (const name of names) {
    const value = read(name)
    if (value === undefined || value === null) continue
    found[name] = isMasked(name) ? mask : String(value)
    hasSome = true
  }
  return hasSome ? found : undefined
}

const withoutOmitted = (fields: Partial<AccessFields>, omit: AccessLogOptions['omit'] = []) =>
  omit.length === 0 ? fields : { ...fields, ...Object.fromEntries(omit.map((name) => [name, undefined])) }

/** Returns the function that appends lines to a file, which outlives the configuration. */
function fileWriter(path: string, longest: number, { stores, meter, log }: Context): (line: string) => void {
  const dropped = meter.lasting.counter({
    name: 'jingwei_edge_access_log_dropped_total',
    help: 'Access lines lost because their file could not be written.',
    labelNames: ['file']
  })
  const counter = dropped.labels(path)
  const create = () => {
    try {
      return new LogFile({ path, longest, log, onDropped: (lines) => counter.inc(lines) })
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      throw new Error(`edge.accessLog.file: ${path} cannot be opened (${code})`, { cause: error })
    }
  }
  const file = stores.claim('jingwei.access-log', { path, longest }, create, (each) => each.close())
  return (line) => file.batch(line)
}
