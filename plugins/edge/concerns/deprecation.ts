/**
 * Tells clients that a version of an API is deprecated: `Deprecation` (RFC 9745), `Sunset` (RFC 8594), and links to its
 * successor and to documentation, on all responses of a route, errors included.
 */
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import type { Checked } from '../../../config/concern.ts'
import { Names, orOff, strict } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import { isComposed } from '../../../config/targets.ts'
import { edgeRouteOf, isHidden } from '../attach.ts'
import { edgeConcern } from '../concern.ts'

const time = (description: string) =>
  Type.Optional(
    Type.String({
      pattern: '^\\d{4}-\\d\\d-\\d\\d(T\\d\\d:\\d\\d(:\\d\\d)?(Z|[+-]\\d\\d:\\d\\d))?$',
      expected: 'a date such as 2030-12-31, or a time such as 2030-12-31T00:00:00Z',
      description
    })
  )

const reference = (description: string) =>
  Type.Optional(
    Type.String({
      pattern: "^(https?://|/)[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]*$",
      expected: 'a URL, or a path that starts with /',
      description
    })
  )

const Deprecation = Type.Object(
  {
    at: time(
      'Time at which the route was or will be deprecated, for `Deprecation`. A date means its beginning in UTC.'
    ),
    sunset: time('Time from which the route may be gone, for `Sunset`.'),
    successor: reference('The version to use instead, for `Link` with `rel="successor-version"`.'),
    link: reference('Documentation of the deprecation, for `Link` with `rel="deprecation"`.'),
    afterSunset: Names(['serve', 'refuse'], {
      default: 'serve',
      description: 'Requests after `sunset`. refuse: they get 410.'
    })
  },
  { ...strict, description: 'Tells clients that the route is deprecated.' }
)

type Options = Static<typeof Deprecation>

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    deprecation?: Options | false
  }
}

const Gone = createError('JW_SUNSET', 'This version of the API is not served any more', 410)

export default edgeConcern({
  name: 'deprecation',
  options: orOff(Deprecation),
  protects: false,
  ownsHeaders: ['deprecation', 'sunset'],
  aliases: { 'deprecated|sunset': 'write deprecation: { at: DATE, sunset: DATE }' },
  innerAliases: { 'date|since|deprecatedAt': 'write at', 'sunsetAt|removal': 'write sunset' },
  apiFacts: ({ at, sunset, successor, link, afterSunset }) => ({
    isDeprecated: true,
    headers: {
      ...(at !== undefined && { Deprecation: `Time of the deprecation: ${at}.` }),
      ...(sunset !== undefined && { Sunset: `Time from which the operation may be gone: ${sunset}.` }),
      ...((successor ?? link) !== undefined && { Link: 'The successor, and documentation of the deprecation.' })
    },
    ...(afterSunset === 'refuse' && { responses: { 410: `The operation is gone, since ${sunset}.` } })
  }),
  check,
  explain: (options, { date }) => {
    const { sunset, afterSunset } = options
    const isGone = afterSunset === 'refuse' && date >= Date.parse(sunset!)
    return isGone ? `refuses with 410, since ${sunset}` : `adds ${Object.keys(fieldsOf(options)).join(', ')}`
  },
  async plugin(_fastify, { meter, clock }) {
    const requests = meter.counter({
      name: 'jingwei_edge_deprecated_requests_total',
      help: 'Requests to routes that are deprecated.',
      labelNames: ['route']
    })
    return (options, { config }) => {
      const route = edgeRouteOf(config)!
      const fields = fieldsOf(options)
      const { sunset, afterSunset } = options
      const end = afterSunset === 'refuse' ? Date.parse(sunset!) : Number.POSITIVE_INFINITY
      const counter = requests.labels(route.name)
      // A composed route gets several responses; its own one has no links of services.
      const hasParts = config?.route !== undefined && isComposed(config.route)
      return {
        onRequest: (request, reply, done) => {
          // A hidden route has the response to a request that matches no route.
          if (isHidden(route, request)) return done()
          counter.inc()
          reply.headers(fields)
          if (fields.link !== undefined && !hasParts) keepLinks(request, reply, fields.link)
          done()
        },
        // After authentication, and after `cors`, without whose headers a page could not see the status.
        preParsing: (_request, _reply, payload, done) => {
          if (clock.date() >= end) done(new Gone())
          else done(null, payload)
        }
      }
    }
  }
})

/** Adds the links of the service, which those of the gateway would replace. */
function keepLinks(request: FastifyRequest, reply: FastifyReply, own: string): void {
  const { onServiceResponse } = request
  request.onServiceResponse = (headers, status) => {
    const passed = onServiceResponse?.(headers, status) ?? headers
    if (passed.link !== undefined) reply.header('link', [passed.link, own].flat().join(', '))
    return passed
  }
}

/** Returns the fields of responses. */
function fieldsOf({ at, sunset, successor, link }: Options): Record<string, string> {
  const links = [
    ...(successor === undefined ? [] : [`<${successor}>; rel="successor-version"`]),
    ...(link === undefined ? [] : [`<${link}>; rel="deprecation"`])
  ]
  return {
    ...(at !== undefined && { deprecation: `@${Math.floor(Date.parse(at) / 1000)}` }),
    ...(sunset !== undefined && { sunset: new Date(sunset).toUTCString() }),
    ...(links.length > 0 && { link: links.join(', ') })
  }
}

function check({ at, sunset, successor, link, afterSunset }: Options, place: string, { report }: Checked): void {
  for (const [key, value] of Object.entries({ at, sunset })) {
    if (value !== undefined && report.usable(`${place}/${key}`) && !isTime(value)) {
      report.fault(`${place}/${key}`, 'no such time')
      return
    }
  }
  if ([at, sunset, successor, link].every((each) => each === undefined)) {
    report.fault(place, 'has nothing to tell: write at, sunset, successor or link')
  }
  if (afterSunset === 'refuse' && sunset === undefined) {
    report.fault(`${place}/afterSunset`, 'has no effect without "sunset"', 'key')
  }
  if (at !== undefined && sunset !== undefined && Date.parse(sunset) < Date.parse(at)) {
    report.fault(`${place}/sunset`, 'is before "at" (RFC 9745, 4)')
  }
}

/** Returns whether a time exists. JavaScript reads February 30 as March 2. */
function isTime(text: string): boolean {
  const [year, month, day] = text.slice(0, 10).split('-').map(Number)
  return !Number.isNaN(Date.parse(text)) && new Date(Date.UTC(year!, month! - 1, day)).getUTCDate() === day
}
