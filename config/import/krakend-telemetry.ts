/** Spans and pushed metrics of KrakenD. */
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'

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

/** `telemetry/influx`. */
export function influxOf(config: Foreign, draft: Draft): void {
  if (config.isOff()) {
    draft.note(null, 'telemetry/influx is off (enabled: false): not converted')
    return
  }
  const address = config.text('address') ?? 'http://localhost:8086'
  const [user, password] = [config.text('username'), config.text('password')]
  const login = user === undefined ? '' : `${encodeURIComponent(user)}:${encodeURIComponent(password ?? '')}@`
  const url = (address.includes('://') ? address : `http://${address}`)
    .replace('://', `://${login}`)
    .replace(/\/+$/, '')
  const interval = config.text('ttl')
  config.skip('buffer_size')
  draft.metricsPush = {
    url: `${url}/write?db=${encodeURIComponent(config.text('db') ?? 'krakend')}`,
    ...(interval !== undefined && { interval })
  }
  draft.note(null, 'telemetry/influx: the metrics have other names than those of KrakenD')
}
