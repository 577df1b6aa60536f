// slow: starts Prometheus
/** The version and the configuration file of a running gateway, by which an operator tells nodes apart. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { request } from 'undici'
import { asProcess } from '../helpers/e2e/gateway.ts'
import { runToEnd } from '../helpers/processes.ts'
import { promtool } from '../helpers/prometheus.ts'

const manifest = readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8')
const { version } = JSON.parse(manifest) as { version: string }

t.test('version, file and hash are in the lines of the start, the log, the admin port and the metrics', async (t) => {
  const gateway = await asProcess(t, { services: { orders: { instances: ['http://127.0.0.1:9'] } } })
  const [, shown, file, hash] = /jingwei (\S+) is up: .*\n {2}config {3}(\/.+) \(SHA-256 ([0-9a-f]{16})…\)\n/.exec(
    gateway.running.output()
  )!
  t.equal(shown, version)
  t.equal(hash, (await runToEnd('sha256sum', [file!])).stdout.slice(0, 16), 'as sha256sum prints it')

  const [line] = gateway.log().filter(({ msg }) => msg === 'jingwei is up')
  t.match(line, { level: 'info', version, node: process.version, config: { file, hash } })

  const about = await request(`${gateway.adminUrl}/admin`)
  const { startedAt, lastLoad, ...rest } = (await about.body.json()) as { startedAt: string; lastLoad: object }
  t.match(lastLoad, { success: true, cause: 'start', faults: [] })
  t.strictSame(rest, { version, node: process.version, config: { file, hash } })
  t.ok(Date.parse(startedAt) <= Date.now())
  t.equal(startedAt, line?.startedAt)

  const metrics = await (await request(`${gateway.adminUrl}/metrics`)).body.text()
  t.match(metrics, `\njingwei_build_info{version="${version}",node="${process.version}"} 1\n`)
  t.match(metrics, `\njingwei_config_info{hash="${hash}"} 1\n`)
  t.match(metrics, '\njingwei_config_last_reload_success 1\n')
  const [, loadedAt] = /\njingwei_config_last_reload_timestamp_seconds (\S+)\n/.exec(metrics)!
  t.ok(Number(loadedAt) * 1000 >= Date.parse(startedAt) && Number(loadedAt) * 1000 <= Date.now())
  t.match(await promtool(['check', 'metrics'], metrics), { code: 0, stdout: '', stderr: '' })
})
