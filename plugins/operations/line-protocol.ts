/** Metrics in InfluxDB's line protocol, laid out as by Telegraf's input for Prometheus (`metric_version = 1`). */
import type { Steps } from '../time-slices.ts'

/** A metric as prom-client's registry returns it. */
export interface MetricData {
  readonly name: string
  readonly type: unknown
  readonly values: readonly {
    readonly metricName?: string
    readonly labels: Readonly<Partial<Record<string, string | number>>>
    readonly value: number
  }[]
}

const escaped = (text: string) => text.replaceAll('\n', ' ').replace(/[,= ]/g, '\\$&')
/** A tag must not end with a backslash, which would escape the separator behind it. */
const tagValue = (text: string) => escaped(text).replace(/\\$/, '\\ ')

/**
 * Returns the lines of metrics: the name is the measurement and labels are tags. A counter and a gauge have one field of that
 * name; a histogram and a summary have `sum`, `count` and one for each bucket or quantile. Values that are no finite numbers
 * are left out, since the protocol has none.
 */
export function* lineProtocol(
  metrics: readonly MetricData[],
  tags: Readonly<Record<string, string>>,
  atMs: number
): Steps<string> {
  const end = ` ${atMs}000000\n`
  let text = ''
  for (const { name, type, values } of metrics) {
    yield
    const lines = new Map<string, string[]>()
    for (const { metricName = name, labels, value } of values) {
      if (!Number.isFinite(value)) continue
      const { le, quantile, ...others } = labels
      const bound = type === 'histogram' ? le : type === 'summary' ? quantile : undefined
      const own = bound === undefined && (type === 'histogram' || type === 'summary') ? { ...others } : { ...labels }
      if (bound !== undefined) Object.assign(own, { le: undefined, quantile: undefined })
      const series = escaped(name) + tagsOf({ ...own, ...tags })
      const fields = lines.get(series) ?? []
      fields.push(`${fieldOf(name, metricName, String(type), bound)}=${value}`)
      lines.set(series, fields)
    }
    for (const [series, fields] of lines) text += `${series} ${fields.join(',')}${end}`
  }
  return text
}

function tagsOf(labels: Readonly<Record<string, unknown>>): string {
  let text = ''
  for (const name of Object.keys(labels).sort()) {
    const value = labels[name]
    // The protocol has no empty values.
    if (value !== undefined && value !== '') text += `,${escaped(name)}=${tagValue(String(value))}`
  }
  return text
}

function fieldOf(name: string, metricName: string, type: string, bound: string | number | undefined): string {
  if (bound !== undefined) return escaped(String(bound))
  if (metricName === `${name}_sum`) return 'sum'
  if (metricName === `${name}_count`) return 'count'
  return type === 'counter' || type === 'gauge' ? type : 'value'
}
