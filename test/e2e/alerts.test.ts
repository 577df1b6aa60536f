/** The alerts of the mesh, by promtool: when each fires and when not. Those of the rest are in deployment.test.ts. */
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { promtool } from '../helpers/prometheus.ts'

const rules = join(import.meta.dirname, '../../config/prometheus/alerts.yml')
const labels = 'instance="gateway-1",job="jingwei",service="orders"'
const mesh = (name: string, values: string, more = '') => ({ series: `jingwei_mesh_${name}{${labels}${more}}`, values })

/** Which alerts fire at each time, of series that have a value every 5 s, as they are scraped. */
async function firing(t: Test, series: { series: string; values: string }[], expected: Record<string, string[]>) {
  // promtool compares annotations too, so the answer of the rules is asked as the series ALERTS.
  const tests = Object.entries(expected).map(([at, names]) => ({
    expr: 'count by (alertname) (ALERTS{alertstate="firing"})',
    eval_time: at,
    exp_samples: names.map((name) => ({ labels: `{alertname="${name}"}`, value: 1 }))
  }))
  const file = {
    rule_files: [rules],
    evaluation_interval: '15s',
    tests: [{ interval: '5s', input_series: series, promql_expr_test: tests }]
  }
  const ran = await promtool(['test', 'rules', join(t.testdir({ 'tests.json': JSON.stringify(file) }), 'tests.json')])
  t.equal(ran.code, 0, ran.stdout + ran.stderr)
}

t.test('of concerns that are off there is nothing to say', (t) =>
  firing(t, [{ series: 'up{job="jingwei",instance="gateway-1"}', values: '1x200' }], { '1m': [], '10m': [] })
)

t.test('most instances are unavailable, then all', (t) =>
  firing(
    t,
    [
      mesh('instances', '4x12 1x60 0x60', ',state="available"'),
      mesh('instances', '0x12 3x60 4x60', ',state="unavailable"'),
      mesh('panic', '0x12 1x120')
    ],
    {
      '1m': [],
      '2m45s': ['Panic'],
      '4m': ['InstancesUnavailable', 'Panic'],
      '8m': ['InstancesUnavailable', 'NoInstances', 'Panic']
    }
  )
)

t.test('log lines are lost', (t) =>
  firing(t, [{ series: 'jingwei_log_lines_dropped_total{instance="gateway-1",job="jingwei"}', values: '0x60 7x120' }], {
    '4m': [],
    '6m': ['LogLinesDropped'],
    '14m': []
  })
)

t.test('half of the instances are not most', (t) =>
  firing(
    t,
    [
      mesh('instances', '2x200', ',state="available"'),
      mesh('instances', '2x200', ',state="unavailable"'),
      mesh('panic', '0x200')
    ],
    { '10m': [] }
  )
)

t.test('a circuit that opens once is no alarm', (t) =>
  firing(t, [mesh('circuit_state', '0x10 2 2 1 1 0x100')], { '1m30s': [], '2m30s': [], '5m': [] })
)

t.test('a circuit that opens again after each probe is one, until it stays closed', (t) => {
  const opening = '2 2 1 1 '.repeat(30)
  return firing(t, [mesh('circuit_state', `0x10 ${opening}0x100`)], {
    '2m': [],
    '4m': ['CircuitOpen'],
    '10m': ['CircuitOpen'],
    '13m': []
  })
})

t.test('a circuit that refuses nothing, as in shadow mode, is none', (t) =>
  firing(t, [mesh('circuit_state', '2x200'), mesh('shadowed_total', '0+1x200', ',concern="circuit-breaker"')], {
    '10m': []
  })
)

t.test('what is refused, given up or answered by others for a while is told', (t) =>
  firing(
    t,
    [
      mesh('overflows_total', '0+1x100', ',cap="maxPendingRequests"'),
      mesh('retry_overflows_total', '0+1x100'),
      mesh('fallbacks_total', '0+1x100', ',kind="static"')
    ],
    { '4m': [], '6m': ['FallbacksServed', 'Overflows', 'RetryBudgetExhausted'] }
  )
)

t.test('waiting for a connection, and what happened once, is not', (t) =>
  firing(
    t,
    [
      mesh('overflows_total', '0+1x200', ',cap="maxConnections"'),
      mesh('overflows_total', '0x20 1x200', ',cap="maxRequests"'),
      mesh('retry_overflows_total', '0x20 1x200'),
      mesh('fallbacks_total', '0x20 1x200', ',kind="stale"')
    ],
    { '5m': [], '6m45s': [], '10m': [] }
  )
)

t.test('a certificate that is not renewed in time', (t) =>
  firing(
    t,
    [
      // promtool's time begins at 0: five minutes later six hours are left.
      mesh('certificate_expiry_timestamp_seconds', '21900x200 259200x640'),
      mesh('certificate_reloads_total', '0x840', ',outcome="success"'),
      mesh('certificate_reloads_total', '0x60 1x780', ',outcome="failure"')
    ],
    {
      '4m': [],
      '6m': ['CertificateExpires', 'CertificateReloadFails'],
      '18m': ['CertificateReloadFails'],
      '66m': []
    }
  )
)

t.test('load is shed: requests, or connections alone', (t) => {
  const of = (name: string, reason: string, values: string) => ({
    series: `jingwei_edge_${name}_total{instance="gateway-1",reason="${reason}"}`,
    values
  })
  return firing(
    t,
    [
      of('refused', 'malformed', '0+1x400'),
      of('refused', 'descriptors', '0x24 0+1x12 12x300'),
      of('shed', 'descriptors', '0x200 0+1x100')
    ],
    { '1m30s': [], '2m30s': ['LoadShed'], '10m': [], '18m': ['LoadShed'] }
  )
})

t.test('out of a resource, from the first failures until five minutes after the last', (t) =>
  firing(
    t,
    [
      {
        series: 'jingwei_mesh_exhausted_total{instance="gateway-1",reason="descriptors"}',
        values: '0x24 0+1x12 12x200'
      }
    ],
    { '1m30s': [], '2m30s': ['ResourcesExhausted'], '6m': ['ResourcesExhausted'], '10m': [] }
  )
)
