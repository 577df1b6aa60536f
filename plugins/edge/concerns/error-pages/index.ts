/** Error pages: bodies of error responses by status, error code and `Accept`, also in place of those of services. */
import type { Static } from 'typebox'
import type { Checked } from '../../../../config/concern.ts'
import { readSmall } from '../../../../config/content.ts'
import type { Report } from '../../../../config/faults.ts'
import { pointer } from '../../../../config/faults.ts'
import { didYouMean } from '../../../../config/nearest.ts'
import { Either, Names, orOff, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { STATUS_CODES } from '../../../node-http.ts'
import { edgeRouteOf } from '../../attach.ts'
import { edgeConcern } from '../../concern.ts'
import { errorCodes } from './codes.ts'
import { classOf, ErrorPages, isIn } from './pages.ts'
import { MAX_PAGE, parseTemplate, sample } from './template.ts'

const Page = (what: string) =>
  Type.Optional(
    Either(
      { type: 'string' },
      Type.String(),
      Type.Object({ file: Type.String({ minLength: 1, description: 'A file of at most 256 KB.' }) }, strict),
      { expected: 'a text, or a mapping with file', description: `${what} A text, or \`{ file: PATH }\`.` }
    )
  )

const Pages = Type.Object(
  {
    html: Page('For clients that accept `text/html`.'),
    json: Page('For clients that accept `application/json`.'),
    problem: Page('For clients that accept `application/problem+json` (RFC 9457).'),
    text: Page('For clients that accept `text/plain`.')
  },
  { ...strict, minProperties: 1 }
)

const Statuses = Type.Array(
  Either({ type: 'string' }, Names(['4xx', '5xx']), Type.Integer({ minimum: 400, maximum: 599 }), {
    expected: 'a status of 400 to 599, 4xx or 5xx'
  }),
  { minItems: 1, maxItems: 64 }
)

const ErrorPagesOptions = Type.Object(
  {
    format: Names(['json', 'problem'], {
      default: 'json',
      description:
        'Body of errors without a page. json: statusCode, code, error, message and requestId. problem: RFC 9457, `application/problem+json`.'
    }),
    pages: Type.Optional(
      Type.Record(
        Type.String({
          pattern: '^([45]\\d\\d|[45]xx|JW_[A-Z]+(_[A-Z]+)*|default)$',
          expected: 'a status of 400 to 599, 4xx, 5xx, a code such as JW_NO_ROUTE, or default'
        }),
        Pages,
        {
          ...strict,
          minProperties: 1,
          maxProperties: 64,
          description:
            'Pages by error code (`JW_RATE_LIMITED`), status (`404`), class (`5xx`) or `default`, in this order of precedence. In them `{{status}}`, `{{reason}}`, `{{code}}` and `{{requestId}}` are replaced, escaped for the format.'
        }
      )
    ),
    upstream: Either({ type: 'array' }, Statuses, Type.Boolean(), {
      default: false,
      expected: 'true, false, or a list of statuses such as [404, 5xx]',
      description:
        'Error responses of services whose bodies are replaced, by a page or the standard body: true for all with 4xx and 5xx, or a list of statuses. Status, `Retry-After`, `WWW-Authenticate` and `Allow` are those of the service; all its other headers are dropped.'
    })
  },
  { ...strict, description: 'Bodies of error responses, by status, error code and `Accept`.' }
)

type Options = Static<typeof ErrorPagesOptions>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    errorPages?: Options | false
  }
}

export default edgeConcern({
  name: 'errorPages',
  options: orOff(ErrorPagesOptions),
  protects: false,
  noShadow: 'it refuses no request',
  aliases: {
    'errors|errorPage|errorDocument|customErrors|errorHandler|localReplyConfig|errorResponses':
      'write errorPages: { pages: { 5xx: { html: … } } }',
    'problemDetails|problemJson|rfc9457|rfc7807': 'write errorPages: { format: problem }'
  },
  innerAliases: {
    'status|statuses|codes|errors': 'write pages: { 404: { html: … }, 5xx: … }',
    'interceptErrors|proxyInterceptErrors|services|hideUpstream': 'write upstream: true, or a list of statuses'
  },
  apiFacts: ({ format }) => (format === 'problem' ? { errors: 'problem' } : {}),
  check,
  checkAll,
  complete({ pages, ...rest }, absolute) {
    const completed = Object.entries(pages ?? {}).map(([key, formats]) => [
      key,
      Object.fromEntries(
        Object.entries(formats).map(([format, page]) => [
          format,
          typeof page === 'string' ? page : { file: absolute(page.file) }
        ])
      )
    ])
    return { ...rest, ...(pages && { pages: Object.fromEntries(completed) as typeof pages }) }
  },
  explain({ format, pages = {}, upstream }) {
    const shown = Object.entries(pages).map(([key, formats]) => `${key} as ${Object.keys(formats).join(' or ')}`)
    const replaced =
      upstream === false ? '' : `; replaces ${upstream === true ? '4xx and 5xx' : upstream.join(', ')} of services`
    return `renders errors by ${[...shown, `others as ${format}`].join(', ')}${replaced}`
  },
  async plugin(fastify, { config }) {
    const { errorBodies } = fastify
    const { errorPages } = config.edge
    if (errorPages) errorBodies.set(null, new ErrorPages(errorPages))
    return (options, { config }) => {
      errorBodies.set(edgeRouteOf(config)!, new ErrorPages(options))
      return null
    }
  }
})

function check(options: Options, at: string, { report, absolute }: Checked): void {
  if (!report.sound(at)) return
  const { format, pages = {}, upstream } = options
  if (format === 'json' && Object.keys(pages).length === 0 && upstream === false) {
    report.fault(at, 'no effect: write "pages", "format: problem" or "upstream"', 'key')
  }
  warnOfIdle(options, at, report)
  for (const [key, formats] of Object.entries(pages)) {
    for (const [name, page] of Object.entries(formats)) {
      const place = pointer(at, 'pages', key, name)
      try {
        const text = typeof page === 'string' ? page : readSmall(absolute(page.file), MAX_PAGE).toString()
        const template = parseTemplate(text, name)
        if (name === 'json' || name === 'problem') JSON.parse(template(sample))
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException
        const why = error instanceof SyntaxError ? `no JSON: ${message}` : code === 'ENOENT' ? 'no such file' : message
        report.fault(typeof page === 'string' ? place : `${place}/file`, why)
      }
    }
  }
}

/** Warns of pages that no response has, and of statuses in `upstream` that another item includes. */
function warnOfIdle({ pages = {}, upstream }: Options, at: string, report: Report): void {
  for (const key of Object.keys(pages)) {
    const place = pointer(at, 'pages', key)
    if (key.startsWith('JW_') && !errorCodes.has(key)) {
      report.warn(place, `has no effect: there is no such error code${didYouMean(key, errorCodes)}`, 'key')
    }
    if (!/^\d+$/.test(key) || STATUS_CODES[key] !== undefined || isIn(upstream, Number(key))) continue
    const advice = `write it under "upstream" as well if services respond with it`
    report.warn(place, `has no effect: no error of the gateway has the status ${key}; ${advice}`, 'key')
  }
  if (typeof upstream === 'boolean') return
  upstream.forEach((status, index) => {
    const place = pointer(at, 'upstream', index)
    const isTwice = upstream.indexOf(status) < index
    const including = isTwice ? status : classOf(Number(status))
    if (isTwice || upstream.includes(including as '4xx'))
      report.warn(place, `has no effect: "${including}" includes it`)
  })
}

type WrittenRoute = Checked['data']['routes'][number]

/** Reports `upstream` where no response is that of a service that the bridge calls. */
function checkAll({ data, report }: Checked): void {
  if (!report.usable('/routes') || !report.usable('/edge')) return
  const { errorPages: top } = data.edge
  const reasonOf = ({ via, service, split }: WrittenRoute): string | null => {
    if (service === undefined && split === undefined) return 'without a service'
    const isProxied = via === 'http-proxy' || (data.forward !== undefined && via !== 'bridge')
    return isProxied ? 'with via: http-proxy' : null
  }
  const tell = (at: string, why: string) =>
    report.fault(`${at}/upstream`, `no effect ${why}: only responses that the bridge forwards are replaced`, 'key')
  for (const [index, route] of data.routes.entries()) {
    const at = pointer('/routes', index, 'edge', 'errorPages')
    const own = route?.edge?.errorPages
    if (own === undefined || own === false || own.upstream === false || !report.sound(at)) continue
    const why = reasonOf(route)
    if (why !== null) tell(at, why)
  }
  if (!top || top.upstream === false || !report.sound('/edge/errorPages') || !report.sound('/routes')) return
  const reasons = data.routes.filter((route) => route.edge?.errorPages === undefined).map(reasonOf)
  if (reasons.length > 0 && !reasons.includes(null)) tell('/edge/errorPages', `on any route, such as ${reasons[0]}`)
}
