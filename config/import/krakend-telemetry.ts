/** Spans of KrakenD, and TLS toward its backends. */
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

/** `telemetry/opentelemetry`. */
export function opentelemetryOf(config: Foreign, draft: Draft): void {
  const exporters = config.map('exporters')
  const [first, ...others] = (exporters?.maps('otlp') ?? []).filter((each) => each.flag('disable_traces') !== true)
  const [host, port] = [first?.text('host'), first?.text('port')]
  const isHttp = first?.flag('use_http') === true
  const rate = config.number('trace_sample_rate')
  const name = config.text('service_name') ?? 'krakend'
  config.skip(...config.keys)
  if (first === undefined || host === undefined) return
  if (others.length > 0) draft.note(null, 'telemetry/opentelemetry: spans go to the first exporter alone')
  if (!isHttp) draft.note(null, 'telemetry/opentelemetry: OTLP over HTTP, at port 4318 as a rule; KrakenD uses gRPC')
  const base = host.includes('://') ? host : `http://${host}`
  draft.tracing = {
    otlp: { http: { endpoint: `${base}:${isHttp ? (port ?? '4318') : '4318'}/v1/traces` } },
    serviceName: name,
    ...(rate !== undefined && { sampleRate: rate })
  }
}

/** `client_tls`: certificates of backends, and those of the gateway. */
export function clientTlsOf(config: Foreign | undefined, draft: Draft): void {
  if (config === undefined) return
  const [authority, ...others] = config.texts('ca_certs')
  const [pair] = config.maps('client_certs')
  const [cert, key] = [pair?.text('certificate'), pair?.text('private_key')]
  const minVersion = { TLS12: 'TLSv1.2', TLS13: 'TLSv1.3' }[config.text('min_version') ?? '']
  if (config.flag('allow_insecure_connections') === true)
    draft.undecided(null, 'client_tls.allow_insecure_connections: certificates are always verified; write mesh.tls.ca')
  if (others.length > 0) draft.note(null, 'client_tls.ca_certs: write all authorities into one file')
  config.skip(...config.keys)
  const tls: Settings = {
    ...(authority !== undefined && { ca: authority }),
    ...(cert !== undefined && key !== undefined && { cert, key }),
    ...(minVersion !== undefined && { minVersion })
  }
  if (Object.keys(tls).length > 0) draft.mesh.tls = tls
}
