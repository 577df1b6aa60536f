/** Import of access logs, and of metrics that are pushed: each becomes a configuration that `check` accepts. */
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { templateOf } from '../../../config/import/access-logs.ts'
import { imported } from '../../../config/import/index.ts'
import { parseConfig } from '../../../plugins/config.ts'

function converted(t: Test, gateway: string, text: string) {
  const { yaml, summary } = imported(gateway, text)
  const config = parseConfig(yaml, join(t.testdir({}), 'gateway.yaml'), {})
  const logs = [config.edge.accessLog, config.routes[0]!.edge.accessLog]
  return { config, log: logs.find((each) => each !== true) ?? true, summary }
}

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: formats of nginx
t.test('variables of nginx', async (t) => {
  t.equal(
    templateOf('$remote_addr - $remote_user [$time_local] "$request" $status'),
    '{ip} - {consumer} [{time.common}] "{method} {target} {protocol}" {status}'
  )
  t.equal(
    templateOf('{"a":"${http_x_tenant}","b":"$arg_page$cookie_a"}'),
    '{{"a":"{headers.x-tenant}","b":"{query.page}{cookies.a}"}}'
  )
  t.equal(templateOf('$constructor'), null)
  t.equal(templateOf('$ssl_cipher'), null)
})

// biome-ignore-end lint/suspicious/noTemplateCurlyInString: formats of nginx

t.test('Kong, file-log', async (t) => {
  const kong = (plugin: string, more = '') =>
    `services: [{ name: a, url: "http://a", routes: [{ name: a, paths: [/a], plugins: [${plugin}] }] }]\n${more}`
  const file = converted(t, 'kong', kong('{ name: file-log, config: { path: /tmp/kong.log, reopen: true } }'))
  t.match(file.log, { file: '/tmp/kong.log', format: 'json' })
  t.match(file.summary, /other fields than those of Kong/)
  const stdout = converted(
    t,
    'kong',
    kong('', 'plugins: [{ name: file-log, config: { path: /dev/stdout, custom_fields_by_lua: { a: return 1 } } }]')
  )
  t.equal(stdout.log, true)
  t.match(stdout.summary, /custom_fields_by_lua: write a format/)
  const consumer = converted(
    t,
    'kong',
    kong('', 'consumers: [{ username: a, plugins: [{ name: file-log, config: { path: /tmp/a } }] }]')
  )
  t.match(consumer.summary, /file-log of a consumer: not converted/)
})

t.test('APISIX, file-logger', async (t) => {
  const apisix = (config: string) =>
    `routes: [{ uri: /a, upstream: { nodes: { "a:80": 1 } }, plugins: { file-logger: ${config} } }]`
  const { log, summary } = converted(
    t,
    'apisix',
    apisix(
      '{ path: /tmp/a.log, log_format: { "@timestamp": $time_iso8601, client_ip: $remote_addr, cipher: $ssl_cipher, "a b": $host }, match: [[a, "==", b]] }'
    )
  )
  t.match(log, { file: '/tmp/a.log', format: { '@timestamp': '{time}', client_ip: '{ip}' } })
  t.match(summary, /log_format: not converted: cipher, a b/)
  t.match(summary, /match: see edge\.accessLog\.filters/)
  const plain = converted(t, 'apisix', apisix('{ path: /tmp/a.log, include_req_body: true }'))
  t.match(plain.log, { file: '/tmp/a.log', format: 'json' })
  t.match(plain.summary, /no bodies are logged/)
})

t.test('Traefik, accessLog', async (t) => {
  const traefik = (log: string) => `
accessLog: ${log}
http:
  routers: { a: { rule: "PathPrefix(\`/a\`)", service: a } }
  services: { a: { loadBalancer: { servers: [{ url: "http://a" }] } } }`
  const { log, summary } = converted(
    t,
    'traefik',
    traefik(`{ filePath: /tmp/t.log, format: json, bufferingSize: 100, filters: { statusCodes: ["200", "300-302", "500-599,404"], retryAttempts: true, minDuration: 10ms },
      fields: { defaultMode: keep, names: { ClientUsername: drop, ClientHost: drop, ClientAddr: drop, StartUTC: drop, Duration: keep }, headers: { defaultMode: drop, names: { X-Tenant: keep, Authorization: redact, X-B: drop } } } }`)
  )
  t.match(log, {
    file: '/tmp/t.log',
    omit: ['consumer', 'ip'],
    requestHeaders: ['X-Tenant'],
    filters: { statusCodes: ['200', '300-302', '500-599', '404'], retryAttempts: true, minDuration: 10 }
  })
  t.match(summary, /the lines have no StartUTC/)
  t.match(converted(t, 'traefik', traefik('{}')).log, { format: 'combined' })
  t.match(converted(t, 'traefik', traefik('')).log, { format: 'combined' })
  const all = converted(t, 'traefik', traefik('{ format: json, fields: { headers: { defaultMode: keep } } }'))
  t.equal(all.log, true)
  t.match(all.summary, /headers\.defaultMode keep: name fields in omit, and headers in requestHeaders/)
})

t.test('KrakenD, telemetry/influx', async (t) => {
  const krakend = (config: string) =>
    `{ "version": 3, "extra_config": { "telemetry/influx": ${config} }, "endpoints": [{ "endpoint": "/a", "backend": [{ "host": ["http://a"], "url_pattern": "/a" }] }] }`
  const { config } = converted(
    t,
    'krakend',
    krakend(
      '{ "address": "http://influx:8086/", "ttl": "25s", "buffer_size": 0, "db": "k d", "username": "me", "password": "p@ss" }'
    )
  )
  t.match(config.metricsPush, {
    url: 'http://me:p%40ss@influx:8086/write?db=k%20d',
    interval: 25_000,
    format: 'influx'
  })
  t.match(converted(t, 'krakend', krakend('{}')).config.metricsPush, {
    url: 'http://localhost:8086/write?db=krakend',
    interval: 10_000
  })
  t.equal(converted(t, 'krakend', krakend('{ "enabled": false }')).config.metricsPush, undefined)
})
