/** Options of `edge.accessLog`, and their checks. */
import { accessSync, constants, statSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Static } from 'typebox'
import type { Checked } from '../../../config/concern.ts'
import { isAlwaysSecret } from '../../../config/credentials.ts'
import { pointer } from '../../../config/faults.ts'
import { didYouMean } from '../../../config/nearest.ts'
import { paramNames, pathPatterns } from '../../../config/path-pattern.ts'
import { Duration, Either, HeaderName, Names, Share, Size, strict } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import { referencesOf } from '../../../config/template.ts'
import { routesWith } from '../templates/check.ts'
import { fieldNames } from './fields.ts'
import type { IsMasked, LineSource } from './template.ts'
import { isMaskedSource, maskingExcept, parseLine } from './template.ts'

/** Formats with names. */
export const namedFormats = {
  common: '{ip} - {consumer} [{time.common}] "{method} {path} {protocol}" {status} {bytesSent}',
  combined:
    '{ip} - {consumer} [{time.common}] "{method} {path} {protocol}" {status} {bytesSent} "{referer}" "{headers.user-agent}"'
} as const

const Headers = (what: string, member: string) =>
  Type.Optional(
    Type.Array(HeaderName(''), {
      minItems: 1,
      maxItems: 64,
      description: `Headers of the ${what} in the JSON line, as \`${member}\`. Of those with secrets, it shows that they are there.`
    })
  )

const Filters = Type.Object(
  {
    statusCodes: Type.Optional(
      Type.Array(
        Either(
          { type: 'string' },
          Type.String({
            pattern: '^([1-5]xx|[1-5]\\d\\d(-[1-5]\\d\\d)?)$',
            expected: 'a status such as 404, a class such as 5xx or a range such as 400-499'
          }),
          Type.Integer({ minimum: 100, maximum: 599 }),
          { expected: 'a status such as 404, a class such as 5xx or a range such as 400-499' }
        ),
        { minItems: 1, maxItems: 64, description: 'Responses with such a status: `404`, `5xx`, `400-499`.' }
      )
    ),
    minDuration: Type.Optional(Duration('Requests that took at least this time, to the end of the response.')),
    retryAttempts: Type.Optional(Type.Literal(true, { description: 'Requests of which an attempt was repeated.' })),
    sample: Type.Optional(Share('This share of the requests that no other filter selects, chosen at random.'))
  },
  {
    ...strict,
    minProperties: 1,
    description: 'Requests that are logged; without filters, all. One filter that selects a request is enough.'
  }
)

const AccessLog = Type.Object(
  {
    file: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 4096,
        description:
          'File to which lines are appended, instead of stdout. It is opened again when it was renamed or removed, as logrotate does.'
      })
    ),
    buffer: Size('Lines that are kept in memory while the file cannot be written; further lines are dropped.', {
      default: '1mb'
    }),
    format: Either(
      { type: 'object' },
      Type.Record(Type.String({ pattern: '^[A-Za-z@][\\w.@-]{0,63}$' }), Type.String({ maxLength: 4096 }), {
        ...strict,
        minProperties: 1,
        maxProperties: 64
      }),
      Type.String({ minLength: 1, maxLength: 4096 }),
      {
        default: 'json',
        expected: 'json, common, combined, a template, or a mapping of templates',
        description:
          'json; common or combined, as of Apache and nginx; a template such as `{ip} {status} {durationMs}`; or a mapping of templates, for a JSON line with these members.'
      }
    ),
    requestHeaders: Headers('request', 'requestHeaders'),
    responseHeaders: Headers('response', 'responseHeaders'),
    unmasked: Type.Optional(
      Type.Array(HeaderName(''), {
        minItems: 1,
        maxItems: 64,
        description:
          'Headers whose names suggest a secret, but whose values are none: the log shows these values, such as that of `x-session-kind`.'
      })
    ),
    omit: Type.Optional(
      Type.Array(Names(fieldNames), {
        minItems: 1,
        maxItems: fieldNames.length,
        description: 'Fields that are left out of the JSON line, such as `ip` and `agent`.'
      })
    ),
    filters: Type.Optional(Filters)
  },
  { ...strict, description: 'Output, format, further fields and filters of the access log.' }
)

export const AccessLogOrSwitch = Either({ type: 'boolean' }, Type.Boolean(), AccessLog, {
  expected: 'true, false or a mapping',
  description: 'Log one line for each request: true, as JSON to the log on stdout; or a mapping.'
})

/** The log of a sidecar, on stdout only. */
export const AccessLogSwitch = Type.Boolean({ description: 'Log one JSON line for each request.' })

export type AccessLogOptions = Static<typeof AccessLog>
export type FilterOptions = NonNullable<AccessLogOptions['filters']>

export function checkAccessLog(options: boolean | AccessLogOptions, at: string, { report, absolute }: Checked): void {
  if (typeof options === 'boolean' || !report.sound(at)) return
  const { file, format, filters, buffer, unmasked = [] } = options
  const isMasked = maskingExcept(unmasked)
  if (file !== undefined) {
    const fault = faultOfFile(absolute(file))
    if (fault !== null) report.fault(`${at}/file`, fault)
    if (buffer < 4096) report.fault(`${at}/buffer`, 'must hold the longest lines; write at least 4kb')
  }
  const templates = typeof format === 'string' ? { '': format } : format
  for (const [name, text] of Object.entries(templates)) {
    const fault = typeof format === 'string' ? faultOfFormat(text) : faultOfTemplate(text)
    const place = typeof format === 'string' ? `${at}/format` : pointer(at, 'format', name)
    if (fault !== null) report.fault(place, fault)
    else for (const [secret, header] of secretsIn(text, isMasked)) report.warn(place, shownAs(secret, header))
  }
  const templated = Object.values(templates).filter((text) => text !== 'json' && faultOfTemplate(text) === null)
  const { requestHeaders = [], responseHeaders = [] } = options
  checkUnmasked(unmasked, [...requestHeaders, ...responseHeaders, ...templated.flatMap(headersIn)], at, report)
  if (format !== 'json') {
    for (const key of ['requestHeaders', 'responseHeaders', 'omit'] as const) {
      if (options[key] === undefined) continue
      report.fault(`${at}/${key}`, 'has an effect with "format: json" only; other formats list their fields', 'key')
    }
  }
  if (filters !== undefined && filters.sample === 0 && Object.keys(filters).length === 1) {
    report.fault(`${at}/filters/sample`, 'selects no request; write accessLog: false')
  }
  for (const key of ['requestHeaders', 'responseHeaders'] as const) {
    const names = options[key]?.map((name) => name.toLowerCase()) ?? []
    names.forEach((name, index) => {
      const place = pointer(at, key, index)
      if (name in {}) report.fault(place, `"${name}" is not the name of a header`)
      else if (names.indexOf(name) < index) report.fault(place, `"${name}" is in the list already`)
      else if (isMasked(name)) report.warn(place, shownAs(name))
    })
  }
}

/** Message about a secret; `header`: the header that has it, if it is one. */
function shownAs(name: string, header: string | null = name): string {
  const advice = header === null || isAlwaysSecret(header) ? '' : `; if it is none, name it under "unmasked"`
  return `of "${name}" the log shows only that it is there: it may be a secret${advice}`
}

/** Returns the header to which a reference of a line refers; null if it refers to none. */
const headerOf = (source: LineSource): string | null =>
  source.of === 'headers' ? source.name : source.of === 'response' ? source.header : null

/** Returns the references of a template without faults whose values are not written, with their headers. */
const secretsIn = (text: string, isMasked: IsMasked): ReadonlyMap<string, string | null> =>
  new Map(
    referencesOf(parseLine(text)).flatMap(({ source, text }): [string, string | null][] =>
      isMaskedSource(source, isMasked) ? [[`{${text}}`, headerOf(source)]] : []
    )
  )

/** Returns the names of headers to which a template refers. */
const headersIn = (text: string): string[] =>
  referencesOf(parseLine(text)).flatMap(({ source }) => headerOf(source) ?? [])

/** Reports names in `unmasked` whose values are shown anyway, are never shown, or are not in the line. */
function checkUnmasked(unmasked: readonly string[], shown: readonly string[], at: string, report: Checked['report']) {
  const isSecret = maskingExcept()
  const known = new Set(shown.map((name) => name.toLowerCase()))
  unmasked.forEach((name, index) => {
    const lower = name.toLowerCase()
    const place = pointer(at, 'unmasked', index)
    if (isAlwaysSecret(name)) report.fault(place, `the log never shows the value of "${name}"`)
    else if (!isSecret(lower)) report.fault(place, `no effect: the log shows the value of "${name}" anyway`)
    else if (!known.has(lower)) report.warn(place, `no effect: the line has no header "${name}"`)
  })
}

/** Reports references to parameters that no path of the route has, in options of routes. */
export function checkRoutes(checked: Checked): void {
  for (const { at, options, route } of routesWith<true | AccessLogOptions>('accessLog', checked)) {
    if (options === true) continue
    const { format } = options
    const known = pathPatterns(route.match.path).flatMap(paramNames)
    for (const [name, text] of typeof format === 'string' ? [['', format] as const] : Object.entries(format)) {
      const lost = referencesOf(parseLine(text)).find(
        ({ source }) => source.of === 'params' && !known.includes(source.name)
      )
      const place = name === '' ? `${at}/format` : pointer(at, 'format', name)
      if (lost !== undefined) checked.report.fault(place, `match.path has no parameter for "{${lost.text}}"`)
    }
  }
}

function faultOfFormat(text: string): string | null {
  if (text === 'json' || Object.hasOwn(namedFormats, text)) return null
  const fault = faultOfTemplate(text)
  if (fault !== null) return fault
  if (referencesOf(parseLine(text)).length > 0) return null
  const names = ['json', ...Object.keys(namedFormats)]
  return `"${text}" would write the same text for each request${didYouMean(text, names) || `; write ${names.join(', ')} or a template such as "{ip} {status}"`}`
}

function faultOfTemplate(text: string): string | null {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a line must not have them
  if (/[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u2028\u2029]/.test(text))
    return 'a line has no line breaks and control characters'
  try {
    parseLine(text)
    return null
  } catch (error) {
    return (error as Error).message
  }
}

/** Returns why a file cannot be written; null if it can. */
function faultOfFile(path: string): string | null {
  try {
    const stats = statSync(path, { throwIfNoEntry: false })
    if (stats?.isDirectory()) return `${path} is a folder`
    if (stats === undefined && !statSync(dirname(path)).isDirectory()) return `${dirname(path)} is not a folder`
    accessSync(stats === undefined ? dirname(path) : path, constants.W_OK)
    return null
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return `the folder ${dirname(path)} does not exist`
    return `${path} cannot be written (${code})`
  }
}
