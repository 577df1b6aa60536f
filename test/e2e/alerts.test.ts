/** The alert rules, run by promtool: conditions under which each fires or does not. deployment.test.ts has more tests. */
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { promtool } from '../helpers/prometheus.ts'

const rules = join(import.meta.dirname, '../../config/prometheus/alerts.yml')
const labels = 'instance="gateway-1",job="jingwei",service="orders"'
const mesh = (name: string, values: string, more = '') => ({ series: `jingwei_mesh_${name}{${labels}${more}}`, values })

/** Returns the alerts that fire at each time, for series with a value every 5 s, the scrape interval. */
async function firing(t: Test, series: { series: string; values: string }[], expected: Record<string, string[]>) {
  // promtool compares annotations too, so the result of the rules is queried as the series ALERTS.
  const tests = Object.entries(expected).map(([at, names]) => ({
    expr: 'group by (alertname) (ALERTS{alertstate="firing"})',
    eval_time: at,
    exp_samples: names.map((name) => ({ labels: `{alertname="${name}"}`, value: 1 }))
  }))
  const up = { series: 'up{job="jingwei",instance="gateway-1"}', values: '1x2000' }
  const isTold = series.some(({ series }) => series.startsWith('up{'))
  const file = {
    rule_files: [rules],
    evaluation_interval: '15s',
    tests: [{ interval: '5s', input_series: isTold ? series : [...series, up], promql_expr_test: tests }]
  }
  const ran = await promtool(['test', 'rules', join(t.testdir({ 'tests.json': JSON.stringify(file) }), 'tests.json')])
  t.equal(ran.code, 0, ran.stdout + ran.stderr)
}

t.test('alerts of concerns that are off never fire', (t) => firing(t, [], { '1m': [], '10m': [] }))

t.test('an alert fires if most instances are unavailable, and another if all are', (t) =>
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

t.test('an alert fires for the failing direction of a route, and for forwarded calls that fail', (t) => {
  const edge = (direction: string, status: string, values: string) => ({
    series: `jingwei_edge_requests_total{instance="gateway-1",job="jingwei",route="a",method="GET",status="${status}",direction="${direction}"}`,
    values
  })
  const forwarded = (outcome: string, values: string) => ({
    series: `jingwei_forward_calls_total{instance="gateway-1",job="jingwei",service="a",outcome="${outcome}"}`,
    values
  })
  return firing(
    t,
    [
      edge('north-south', '200', '0+100x200'),
      edge('east-west', '200', '0+10x200'),
      // A tenth of the calls of services, less than a hundredth of all requests.
      edge('east-west', '502', '0+1x200'),
      forwarded('success', '0+10x200'),
      forwarded('4xx', '0+10x200'),
      forwarded('timeout', '0+2x200')
    ],
    { '4m': [], '10m': ['ForwardedCallsFail', 'HighErrorRatio'] }
  )
})

t.test('an alert fires if log lines are lost', (t) =>
  firing(t, [{ series: 'jingwei_log_lines_dropped_total{instance="gateway-1",job="jingwei"}', values: '0x60 7x120' }], {
    '4m': [],
    '6m': ['LogLinesDropped'],
    '14m': []
  })
)

t.test('an alert fires if lines of an access log are lost', (t) => {
  const labels = 'instance="gateway-1",job="jingwei",file="/var/log/a"'
  return firing(t, [{ series: `jingwei_edge_access_log_dropped_total{${labels}}`, values: '0x60 7x120' }], {
    '4m': [],
    '6m': ['AccessLogLinesDropped'],
    '14m': []
  })
})

t.test('an alert fires if spans are lost, but not for those of a process that stops', (t) => {
  const spans = (reason: string, values: string) => ({
    series: `jingwei_tracing_spans_dropped_total{instance="gateway-1",job="jingwei",reason="${reason}"}`,
    values
  })
  return firing(
    t,
    [spans('failed', '0x60 0+1x120 120x250'), spans('shutdown', '0+1x400'), spans('queue_full', '0x400')],
    {
      '5m': [],
      '12m': ['SpansLost'],
      '25m': []
    }
  )
})

t.test('no alert fires if half of the instances are unavailable', (t) =>
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

t.test('no alert fires for a circuit that opens once', (t) =>
  firing(t, [mesh('circuit_state', '0x10 2 2 1 1 0x100')], { '1m30s': [], '2m30s': [], '5m': [] })
)

t.test('an alert fires for a circuit that reopens after each probe, until it stays closed', (t) => {
  const opening = '2 2 1 1 '.repeat(30)
  return firing(t, [mesh('circuit_state', `0x10 ${opening}0x100`)], {
    '2m': [],
    '4m': ['CircuitOpen'],
    '10m': ['CircuitOpen'],
    '13m': []
  })
})

t.test('an alert fires for the circuit of a route that reopens after each probe', (t) =>
  firing(t, [mesh('route_circuit_state', '2 2 1 1 '.repeat(60), ',route="pay"'), mesh('circuit_state', '0x300')], {
    '1m': [],
    '4m': ['RouteCircuitOpen']
  })
)

t.test('an alert fires while calls fail for lack of a token', (t) =>
  firing(t, [mesh('credentials_missing_total', '0x10 0+1x100 100x200')], {
    '30s': [],
    '4m': ['CredentialsUnavailable'],
    '20m': []
  })
)

t.test('no alert fires for a circuit that refuses nothing, as in shadow mode', (t) =>
  firing(t, [mesh('circuit_state', '2x200'), mesh('shadowed_total', '0+1x200', ',concern="circuit-breaker"')], {
    '10m': []
  })
)

t.test('alerts fire for lasting refusals, aborted calls and fallback responses', (t) =>
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

t.test('no alert fires for waiting connections and single events', (t) =>
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

/** Asserts the alerts for certificates of this lifetime, at times before they expire. */
async function expiring(t: Test, days: number, expected: Record<string, string[]>) {
  const lifetime = days * 86_400
  // promtool's time begins at 0, so that the certificates expire at different times instead.
  for (const [left, names] of Object.entries(expected)) {
    const until = seconds(left) + 60
    const series = (name: string, labels: string) => [
      { series: `jingwei_${name}_certificate_expiry_timestamp_seconds{${labels}}`, values: `${until}x20` },
      {
        series: `jingwei_${name}_certificate_not_before_timestamp_seconds{${labels}}`,
        values: `${until - lifetime}x20`
      }
    ]
    const edge = series('edge', 'instance="gateway-1",job="jingwei",listener="public",certificate="example.com"')
    await t.test(`an alert fires for a certificate of ${days} days, ${left} before`, async (t) => {
      await firing(t, series('mesh', labels), { '1m': names })
      await firing(t, edge, { '1m': names })
    })
  }
}

const both = ['CertificateExpires', 'CertificateExpiresSoon']

/** Seconds of `7h` or `9d`. */
const seconds = (text: string) => Number.parseFloat(text) * (text.endsWith('d') ? 86_400 : 3600)

t.test('an alert fires for a certificate that is not renewed in time, by its lifetime', async (t) => {
  await expiring(t, 3, { '7h': [], '5.9h': ['CertificateExpiresSoon'], '2.9h': both, '-1h': both })
  await expiring(t, 90, { '8d': [], '7d': ['CertificateExpiresSoon'], '3.5d': both })
  await expiring(t, 365, { '31d': [], '30d': ['CertificateExpiresSoon'], '15d': both })
  await expiring(t, 3650, { '31d': [], '30d': ['CertificateExpiresSoon'], '15d': both })
})

t.test('the alert describes certificates of the edge and of the mesh', async (t) => {
  const expiring = (name: string, labels: string) => [
    { series: `${name}_expiry_timestamp_seconds{${labels}}`, values: '7260x20' },
    { series: `${name}_not_before_timestamp_seconds{${labels}}`, values: '-252000x20' }
  ]
  const edge = { instance: 'gateway-1', listener: 'public', certificate: 'example.com' }
  const service = { instance: 'gateway-1', service: 'orders' }
  const alert = (labels: object, what: string) => ({
    exp_labels: { ...labels, severity: 'critical' },
    exp_annotations: {
      summary: 'A certificate of gateway-1 expires',
      description: `The certificate ${what} expires in 2h 0m 0s. Then its peers refuse connections.`
    }
  })
  const labelsOf = (labels: Record<string, string>) =>
    Object.entries(labels)
      .map(([name, value]) => `${name}="${value}"`)
      .join()
  const file = {
    rule_files: [rules],
    evaluation_interval: '15s',
    tests: [
      {
        interval: '15s',
        input_series: [
          ...expiring('jingwei_edge_certificate', labelsOf(edge)),
          ...expiring('jingwei_mesh_certificate', labelsOf(service))
        ],
        alert_rule_test: [
          {
            alertname: 'CertificateExpires',
            eval_time: '1m',
            exp_alerts: [alert(edge, 'example.com of listener public'), alert(service, 'for service orders')]
          }
        ]
      }
    ]
  }
  const ran = await promtool(['test', 'rules', join(t.testdir({ 'tests.json': JSON.stringify(file) }), 'tests.json')])
  t.equal(ran.code, 0, ran.stdout + ran.stderr)
})

t.test('an alert fires for a certificate that cannot be reloaded', (t) =>
  firing(
    t,
    [
      mesh('certificate_reloads_total', '0x840', ',outcome="success"'),
      mesh('certificate_reloads_total', '0x60 1x780', ',outcome="failure"')
    ],
    { '4m': [], '6m': ['CertificateReloadFails'], '66m': [] }
  )
)

t.test('an alert fires for unusable certificate files of a listener, after the time to write both', (t) =>
  firing(t, [node('jingwei_edge_certificates_unusable', '0x12 2x24 0x60 1x100', ',listener="public"')], {
    '3m': [],
    '8m': [],
    '14m': ['CertificatesUnusable']
  })
)

const node = (name: string, values: string, more = '') => ({
  series: `${name}{instance="gateway-1",job="jingwei"${more}}`,
  values
})

t.test('an alert fires if all nodes are down', (t) =>
  firing(t, [node('up', '1x24 0x100'), { series: 'up{instance="gateway-2",job="jingwei"}', values: '1x60 0x60' }], {
    '2m': [],
    '4m': ['GatewayDown'],
    '7m': ['AllGatewaysDown', 'GatewayDown']
  })
)

t.test('an alert fires if no node is a scrape target', (t) =>
  firing(t, [node('up', '1x24 stale'), node('jingwei_edge_redis_up', '1x24 stale')], {
    '2m': [],
    '4m': ['AllGatewaysDown']
  })
)

t.test('an alert fires for a node that restarts repeatedly, but not for a rollout', (t) => {
  const restarts = (values: string) => [node('process_start_time_seconds', values)]
  return Promise.all([
    firing(t, restarts('100x60 400x60 700x600'), { '15m': [] }),
    firing(t, restarts('100x60 400x60 700x60 1000x1200'), { '12m': [], '16m': ['GatewayRestarts'], '80m': [] })
  ])
})

t.test('an alert fires for a configuration that cannot be loaded, until one is', (t) =>
  firing(t, [node('jingwei_config_last_reload_success', '1x24 0x60 1x60')], {
    '2m': [],
    '4m': ['ConfigReloadFailed'],
    '8m': []
  })
)

t.test('an alert fires for nodes with different configurations, after the time of a rollout', (t) =>
  firing(
    t,
    [
      node('jingwei_config_info', '1x24 stale', ',hash="a"'),
      node('jingwei_config_info', '_x24 1x800', ',hash="b"'),
      { series: 'jingwei_config_info{instance="gateway-2",job="jingwei",hash="a"}', values: '1x500 stale' },
      { series: 'jingwei_config_info{instance="gateway-2",job="jingwei",hash="b"}', values: '_x500 1x300' }
    ],
    { '2m': [], '30m': [], '35m': ['ConfigurationsDiffer'], '45m': [] }
  )
)

t.test('an alert fires for a snapshot that cannot be written', (t) =>
  firing(t, [node('jingwei_mesh_discovery_snapshot_failing', '0x24 1x120 0x60')], {
    '4m': [],
    '8m': ['SnapshotFails'],
    '13m': []
  })
)

t.test('an alert fires if many requests are refused', (t) => {
  const refused = (reason: string, values: string) => node('jingwei_edge_refused_total', values, `,reason="${reason}"`)
  return Promise.all([
    // 100 requests a second, 1 of 20 refused; then 1 of 10.
    firing(
      t,
      [
        node(
          'jingwei_edge_requests_total',
          '0+500x400',
          ',route="orders",method="GET",status="200",direction="north-south"'
        ),
        refused('malformed', '0+20x150 3000+50x250'),
        refused('too-slow', '0x400')
      ],
      { '12m': [], '30m': ['ManyRefused'] }
    ),
    // Requests of a scanner only: one per minute, then one per three seconds.
    firing(t, [refused('malformed', '0+0.08x200 17+2x300')], { '15m': [], '35m': ['ManyRefused'] })
  ])
})

t.test('an alert fires if few file descriptors are left', (t) =>
  firing(t, [node('process_open_fds', '700x60 850x90'), node('process_max_fds', '1000x150')], {
    '6m': [],
    '11m': ['DescriptorsRunOut']
  })
)

t.test('an alert fires if load is shed: requests, or only connections', (t) => {
  const of = (name: string, reason: string, values: string) => ({
    series: `jingwei_edge_${name}_total{instance="gateway-1",reason="${reason}"}`,
    values
  })
  return firing(
    t,
    [
      of('refused', 'malformed', '0+0.1x400'),
      of('refused', 'descriptors', '0x24 0+1x12 12x300'),
      of('shed', 'descriptors', '0x200 0+1x100')
    ],
    { '1m30s': [], '2m30s': ['LoadShed'], '10m': [], '18m': ['LoadShed'] }
  )
})

t.test('an alert fires for an exhausted resource, from the first failures until five minutes after the last', (t) =>
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

t.test('an alert fires if the file of consumers cannot be used', (t) =>
  firing(t, [node('jingwei_edge_consumers_usable', '1x24 0x120 1x60')], {
    '6m': [],
    '8m': ['ConsumersUnusable'],
    '13m': []
  })
)

t.test('an alert fires if an OpenID provider does not respond', (t) =>
  firing(t, [node('jingwei_edge_oidc_provider_up', '1x24 0x120 1x60', ',issuer="https://id"')], {
    '3m': [],
    '5m': ['OpenIdProviderDown'],
    '13m': []
  })
)

const logins = (result: string, values: string) =>
  node('jingwei_edge_oidc_logins_total', values, `,route="a",result="${result}"`)

t.test('an alert fires if most logins fail', async (t) => {
  const usual = [logins('started', '0+30x400'), logins('completed', '0+10x400')]
  await firing(t, [...usual, logins('failed', '0+8x400')], { '30m': [] })
  await firing(t, [...usual, logins('failed', '0x120 0+20x280')], { '20m': [], '32m': ['LoginsFail'] })
})

const decided = (concern: string, result: string, values: string) =>
  node(`jingwei_edge_${concern}_requests_total`, values, `,route="a",result="${result}"`)

t.test(
  'an alert fires if a server does not decide, as of introspection or of forward auth that fails open',
  async (t) => {
    for (const concern of ['forward_auth', 'introspection']) {
      const usual = [decided(concern, 'cached', '0+9x400'), decided(concern, 'refused', '0+100x400')]
      await firing(t, [...usual, decided(concern, 'failed', '0x120 0+1x280')], { '30m': [] })
      await firing(t, [...usual, decided(concern, 'failed', '0x120 0+20x280')], {
        '12m': [],
        '20m': ['AuthServerFails']
      })
    }
  }
)

const refusals = (code: string, values: string, concern = 'key-auth') =>
  node('jingwei_edge_refusals_total', values, `,concern="${concern}",route="a",code="${code}"`)
const requests = (values: string) =>
  node('jingwei_edge_requests_total', values, ',route="a",method="GET",status="200",direction="north-south"')

t.test('an alert fires if a concern cannot decide, until ten minutes later', (t) =>
  firing(
    t,
    [
      requests('0+100x400'),
      refusals('JW_KEY_INVALID', '0+9x400'),
      refusals('JW_AUTH_UNAVAILABLE', '0x60 0+1x90 90x250')
    ],
    {
      '5m': [],
      '12m': ['ConcernFails'],
      '20m': []
    }
  )
)

t.test('an alert fires for guesses of credentials from addresses over the limit of failures', (t) =>
  firing(t, [requests('0+100x400'), refusals('JW_AUTH_LIMITED', '0+1x120 120+10x280')], {
    '10m': [],
    '20m': ['CredentialsGuessed']
  })
)

t.test('an alert fires if a concern refuses all requests to a route, but not for a few of a scanner', async (t) => {
  await firing(t, [requests('0+10x900'), refusals('JW_ACCESS_DENIED', '0+9x900', 'acl')], { '60m': [] })
  await firing(t, [requests('0+10x900'), refusals('JW_ACCESS_DENIED', '0+10x900', 'acl')], {
    '60m': ['RouteRefusesAll']
  })
  await firing(t, [requests('0+0.1x900'), refusals('JW_ACCESS_DENIED', '0+0.1x900', 'acl')], { '60m': [] })
})
