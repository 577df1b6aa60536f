/** Schema of the section for spans, which both forms of a configuration have. */
import type { Static } from 'typebox'
import { Count, Duration, Either, HeaderName, Names, Share, Size, strict, Url } from './kit.ts'
import Type from './type.ts'

/** Share of the new traces that are recorded: a number from 0 to 1, or a percentage. */
export const SampleRate = (description: string, more: { default?: string } = {}) =>
  Either({ type: 'number' }, Type.Number({ minimum: 0, maximum: 1 }), Share(''), { description, ...more })

const Http = Type.Object(
  {
    endpoint: Url(
      'http',
      'URL to which spans are posted, such as `http://collector:4318/v1/traces`. A URL without a path gets `/v1/traces`.'
    ),
    headers: Type.Optional(
      Type.Record(Type.String(), Type.String(), {
        description: 'Header fields of each export, such as the key of a vendor.'
      })
    ),
    timeout: Duration('Longest time for one export, with connection and response.', { default: '10s' }),
    tls: Type.Optional(
      Type.Object(
        {
          ca: Type.Optional(
            Type.String({ description: 'PEM file with the authorities that sign the certificate of the collector.' })
          ),
          cert: Type.Optional(Type.String({ description: 'PEM file with the client certificate of the gateway.' })),
          key: Type.Optional(Type.String({ description: 'PEM file with the private key of `cert`.' })),
          serverName: Type.Optional(
            Type.String({ minLength: 1, description: 'Name in the certificate. Default: the host of `endpoint`.' })
          )
        },
        { ...strict, description: 'TLS settings for an https `endpoint`.' }
      )
    )
  },
  { ...strict, description: 'OTLP over HTTP, with JSON.' }
)

const Queue = Type.Object(
  {
    maxBytes: Size('Memory for spans that are not exported yet; further ones are dropped and counted.', {
      default: '4mb'
    }),
    maxBatch: Count('Most spans of one export.', { default: 512, maximum: 10_000 }),
    delay: Duration('An export waits at most this long for further spans.', { default: '5s' })
  },
  { ...strict, default: {}, description: 'Spans between their end and their export.' }
)

export const Tracing = Type.Object(
  {
    otlp: Type.Object(
      { http: Http },
      { ...strict, description: 'Export by the OpenTelemetry protocol, to a collector or to a backend.' }
    ),
    serviceName: Type.String({
      minLength: 1,
      default: 'jingwei',
      description: 'Name of the gateway in traces: `service.name`.'
    }),
    resourceAttributes: Type.Optional(
      Type.Record(Type.String(), Type.String(), {
        description: 'Further attributes of the gateway, such as `deployment.environment.name: production`.'
      })
    ),
    sampleRate: SampleRate(
      'Share of the requests whose traces begin here and are recorded: `10%` or `0.1`. A request that continues a trace follows the decision of its caller.',
      { default: '100%' }
    ),
    trustClient: Either({ type: 'boolean' }, Type.Boolean(), Names(['proxies'], { expected: 'proxies' }), {
      default: 'proxies',
      description:
        'Clients whose `traceparent` is continued, with its decision on sampling. proxies: peers in `listen.trustProxy` and callers at east-west listeners. true: all. false: none. For others a new trace begins, with a link to theirs.'
    }),
    capturedRequestHeaders: Type.Array(HeaderName('A header of requests.'), {
      default: [],
      maxItems: 100,
      description:
        "Request headers that are attributes of the gateway's spans: `http.request.header.NAME`. Default: none, since headers may identify persons. Not allowed: headers with credentials."
    }),
    queue: Queue
  },
  { ...strict, description: 'Spans of requests and of calls to services, for OpenTelemetry. Off unless set.' }
)

export type TracingOptions = Static<typeof Tracing>

const { otlp, serviceName, resourceAttributes, queue } = Tracing.properties

/** The section in the file of a sidecar: it continues the traces of its callers, and decides on no trace itself. */
export const SidecarTracing = Type.Object(
  { otlp, serviceName, resourceAttributes, queue },
  { ...strict, description: 'Spans of calls to services, for OpenTelemetry. Off unless set.' }
)
