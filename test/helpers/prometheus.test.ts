// slow: starts Prometheus
import t from 'tap'
import { freePort, waitFor } from './processes.ts'
import { promtool, startPrometheus } from './prometheus.ts'

t.test('Prometheus scrapes a target and responds to a query', async (t) => {
  const port = await freePort()
  const config = `
global: { scrape_interval: 200ms }
scrape_configs: [{ job_name: self, static_configs: [{ targets: ['127.0.0.1:${port}'] }] }]
`
  const prometheus = await startPrometheus({ config, port })
  t.teardown(prometheus.stop)
  await waitFor('it scraped itself', async () => (await prometheus.query('up'))[0]?.value[1] === '1')
  t.match(await prometheus.query('up'), [{ metric: { job: 'self' } }])
  await t.rejects(prometheus.query('up('), /parse error/)
})

t.test('promtool checks metrics', async (t) => {
  const good = '# HELP cats_total Cats.\n# TYPE cats_total counter\ncats_total 1\n'
  t.match(await promtool(['check', 'metrics'], good), { code: 0, stdout: '', stderr: '' })
  const bad = await promtool(['check', 'metrics'], good.replaceAll('cats_total', 'cats'))
  t.not(bad.code, 0)
  t.match(bad.stderr, /_total/)
})
