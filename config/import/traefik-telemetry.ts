/** Spans and pushed metrics of Traefik's static configuration. */
import type { Draft } from './draft.ts'
import { goDuration } from './durations.ts'
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

const textsIn = (fields: Foreign | undefined): Settings =>
  Object.fromEntries((fields?.keys ?? []).map((name) => [name, fields!.text(name) ?? '']))

/** `tracing`: OTLP over HTTP. */
export function tracingOf(tracing: Foreign, draft: Draft): void {
  const otlp = tracing.has('otlp') ? tracing.mapOrEmpty('otlp') : undefined
  const http = otlp?.has('http') ? otlp.mapOrEmpty('http') : undefined
  const attributes = { ...textsIn(tracing.map('resourceAttributes')), ...textsIn(tracing.map('globalAttributes')) }
  const rate = tracing.number('sampleRate')
  const captured = tracing.texts('capturedRequestHeaders').map((each) => each.toLowerCase())
  const headers = textsIn(http?.map('headers'))
  const name = tracing.text('serviceName')
  tracing.skip('addInternals', 'safeQueryParams')
  if (otlp?.has('grpc'))
    draft.note(null, 'tracing.otlp.grpc: write the endpoint of OTLP over HTTP into tracing.otlp.http')
  otlp?.skip('grpc')
  if (http === undefined) return
  const endpoint = http.text('endpoint') ?? 'http://localhost:4318/v1/traces'
  draft.tracing = {
    otlp: { http: { endpoint, ...(Object.keys(headers).length > 0 && { headers }) } },
    serviceName: name ?? 'traefik',
    ...(Object.keys(attributes).length > 0 && { resourceAttributes: attributes }),
    ...(rate !== undefined && { sampleRate: rate }),
    ...(captured.length > 0 && { capturedRequestHeaders: captured })
  }
}

/** `metrics.influxDB2`. */
export function influxOf(influx: Foreign, draft: Draft): void {
  const address = (influx.text('address') ?? 'http://localhost:8086').replace(/\/+$/, '')
  const query = new URLSearchParams({ org: influx.text('org') ?? '', bucket: influx.text('bucket') ?? '' })
  const [token, interval] = [influx.text('token'), influx.text('pushInterval')]
  const tags = textsIn(influx.map('additionalLabels'))
  influx.skip('addEntryPointsLabels', 'addRoutersLabels', 'addServicesLabels')
  draft.metricsPush = {
    url: `${address}/api/v2/write?${query}`,
    ...(interval !== undefined && { interval: goDuration(interval) }),
    ...(token !== undefined && { headers: { authorization: `Token ${token}` } }),
    ...(Object.keys(tags).length > 0 && { tags })
  }
  draft.note(null, 'metrics.influxDB2: the metrics have other names than those of Traefik')
}
