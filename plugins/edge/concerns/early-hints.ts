/**
 * Sends 103 Early Hints (RFC 8297) before the service responds, so that a browser loads styles and scripts while the service
 * makes the page. By default only for navigations over HTTP/2: browsers use hints for nothing else, and clients of HTTP/1.1
 * that take a 103 for the final response would read the next response as a part of it (RFC 8297, 3).
 */
import type { FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import type { Checked } from '../../../config/concern.ts'
import { pointer } from '../../../config/faults.ts'
import { Names, orOff, strict } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import { writeInformational } from '../bridge/informational.ts'
import { edgeConcern } from '../concern.ts'

const EarlyHints = Type.Object(
  {
    links: Type.Array(
      Type.String({
        pattern:
          '^<[\\x21\\x23-\\x3b\\x3d\\x3f-\\x7e]+>( *; *[A-Za-z0-9-]+( *= *("[\\x20\\x21\\x23-\\x5b\\x5d-\\x7e]*"|[A-Za-z0-9./_-]+))?)+$',
        maxLength: 1000,
        expected: 'a Link as RFC 8288 writes it, such as </app.css>; rel=preload; as=style'
      }),
      {
        minItems: 1,
        maxItems: 20,
        description:
          'Values of `Link`: `</app.css>; rel=preload; as=style`, `<https://cdn.example.com>; rel=preconnect`.'
      }
    ),
    when: Names(['navigation', 'always'], {
      default: 'navigation',
      description:
        '`navigation`: for requests by which a browser opens a page (`Sec-Fetch-Mode: navigate`). `always`: for every GET.'
    }),
    http1: Type.Boolean({
      default: false,
      description:
        'Also send hints over HTTP/1.1. Only where all clients are known to expect them: others may take a hint for the response.'
    })
  },
  { ...strict, description: 'Sends 103 Early Hints before the service responds.' }
)

type Options = Static<typeof EarlyHints>

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    earlyHints?: Options | false
  }
}

/** Relations that browsers act upon in hints. */
const known: ReadonlySet<string> = new Set(['preload', 'modulepreload', 'preconnect', 'dns-prefetch'])

export default edgeConcern({
  name: 'earlyHints',
  options: orOff(EarlyHints),
  noShadow: 'it refuses no request',
  protects: false,
  aliases: { earlyHint: 'write earlyHints: { links: [...] }' },
  innerAliases: { 'link|hints|headers': 'write "links"' },
  check,
  explain({ when, http1 }, { method, headers }) {
    if (!isMeant(when, method, headers)) return 'sends no hints'
    return http1 ? 'sends hints' : 'sends hints over HTTP/2'
  },
  plugin:
    async () =>
    ({ links, when, http1 }) => ({
      // After all concerns that may refuse the request.
      preHandler(request, reply, done) {
        if (isMeant(when, request.method, request.raw.headers) && isAble(request, http1)) {
          writeInformational(request, reply.raw, 103, [['link', [...links]]])
        }
        done()
      }
    })
})

function isMeant(when: Options['when'], method: string, headers: Readonly<Record<string, unknown>>): boolean {
  return (
    method === 'GET' && headers.upgrade === undefined && (when === 'always' || headers['sec-fetch-mode'] === 'navigate')
  )
}

const isAble = ({ raw }: FastifyRequest, http1: boolean): boolean => raw.httpVersionMajor > 1 || http1

/** Returns the value of a parameter of a link, in lower case; null if there is none. */
function parameter(link: string, name: string): string | null {
  const parts = link.slice(link.indexOf('>') + 1).split(';')
  for (const part of parts) {
    const [key = '', value = ''] = part.split('=', 2).map((text) => text.trim().toLowerCase())
    if (key === name) return value.replaceAll('"', '')
  }
  return null
}

function check({ links }: Options, at: string, { report }: Checked): void {
  if (!report.sound(at)) return
  for (const [index, link] of links.entries()) {
    const place = pointer(at, 'links', index)
    const relations = parameter(link, 'rel')?.split(' ') ?? []
    if (!relations.some((rel) => known.has(rel))) {
      report.fault(place, `browsers use only hints with rel=${[...known].join(', rel=')}`)
    } else if (relations.includes('preload') && parameter(link, 'as') === null) {
      report.fault(
        place,
        'browsers ignore rel=preload without "as": add as=style, as=script, as=font, as=image or as=fetch'
      )
    }
  }
}
