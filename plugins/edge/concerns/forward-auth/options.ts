/** `edge.forwardAuth`: its options. */
import type { Static } from 'typebox'
import { Count, Duration, HeaderName, Name, Names, Size, strict, Url } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { tokenPattern } from '../../../http-syntax.ts'

const Headers = (description: string, more: { default?: string[] } = {}) =>
  Type.Array(HeaderName('Name of a header.'), { description, ...more })

const Cache = Type.Object(
  {
    ttl: Duration('Time for which a positive decision is kept.'),
    key: Type.Array(
      Type.String({
        pattern: `^(method|proto|host|uri|path|ip|consumer|claims|header:${tokenPattern})$`,
        expected: 'method, proto, host, uri, path, ip, consumer, claims or header:NAME'
      }),
      {
        minItems: 1,
        description:
          'All properties of a request on which the decision may depend: `method`, `proto`, `host`, `uri`, `path` (the URI without query), `ip`, `header:NAME`, and for OPA `consumer` and `claims`. The server is sent these and nothing else.'
      }
    ),
    maxSize: Size('Memory for decisions, in each process. Those that were used least recently are forgotten.', {
      default: '4mb'
    })
  },
  { ...strict, description: 'Keeps positive decisions. Without it, the server is asked for each request.' }
)

export const ForwardAuth = Type.Object(
  {
    url: Type.Optional(Url('http', 'URL of the server that decides.')),
    service: Type.Optional({
      ...Name,
      description: 'Service that decides, instead of `url`. Calls go through the mesh.'
    }),
    path: Type.Optional(
      Type.String({
        pattern: '^/[!-"$-~]*$',
        expected: 'a path that starts with /',
        description: 'With `service`: path of the calls. Default: `/`.'
      })
    ),
    format: Names(['http', 'opa'], {
      default: 'http',
      description:
        '`http`: a GET with the original request in `X-Forwarded-*`; 2xx allows. `opa`: a POST of `{"input": …}` to Open Policy Agent\'s REST API, whose `result` decides.'
    }),
    timeout: Duration('Longest time of a decision, with the whole response.', { default: '5s' }),
    onFailure: Names(['refuse', 'allow'], {
      default: 'refuse',
      description:
        'Effect of a decision that fails: no response in time, a malformed one, or a 5xx. `refuse`: 503 with `Retry-After`.'
    }),
    requestHeaders: Type.Optional(
      Headers(
        'Request headers that the server gets. Default: all, but for those of the connection, of the body, and of conditional requests.'
      )
    ),
    forwardBody: Type.Boolean({ default: false, description: 'Send the request body, by POST.' }),
    maxBodySize: Size('With `forwardBody`: largest request body. Larger ones get 413.', { default: '64kb' }),
    responseHeaders: Headers(
      "Headers of a positive decision that the service gets. Clients' copies are removed, on every route that leads to the same service.",
      { default: [] }
    ),
    clientHeaders: Headers('Headers of a positive decision that the client gets.', { default: [] }),
    refusalHeaders: Headers('Headers of a refusal that the client gets, besides its body.', {
      default: ['location', 'www-authenticate', 'set-cookie', 'content-type', 'cache-control', 'retry-after']
    }),
    consumer: Type.Optional(HeaderName('Header of a positive decision with the name of the consumer.')),
    maxResponseSize: Size('Largest response body. A refusal with a larger one stays a refusal, without its body.', {
      default: '64kb'
    }),
    maxConcurrent: Count('Most decisions in flight, in each process. More of them fail.', { default: 1000 }),
    cache: Type.Optional(Cache)
  },
  { ...strict, description: 'Asks a server whether a request may pass, as forward auth of Traefik does.' }
)

export type ForwardAuthOptions = Static<typeof ForwardAuth>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    forwardAuth?: ForwardAuthOptions | false
  }
}
