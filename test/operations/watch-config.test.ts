/** A changed configuration file triggers a reload. The detection of changes is tested in test/plugins/watch-files. */
import { renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import t from 'tap'
import { loadWithoutPlugins } from '../../plugins/config.ts'
import { configTiming, watchConfig } from '../../plugins/operations/watch-config.ts'
import { eventually } from '../helpers/eventually.ts'

configTiming.interval = 10

t.test('watch is off by default', async (t) => {
  const folder = t.testdir({ 'on.yaml': 'watch: true', 'unset.yaml': 'listen: { port: 0 }' })
  t.equal(loadWithoutPlugins(join(folder, 'on.yaml')).watch, true)
  t.equal(loadWithoutPlugins(join(folder, 'unset.yaml')).watch, false)
})

t.test('a file that has changed since it was loaded is reloaded', async (t) => {
  const folder = t.testdir({ 'gateway.yaml': 'watch: true', 'key.pem': 'key' })
  const file = join(folder, 'gateway.yaml')
  const config = loadWithoutPlugins(file)
  const lines: { file?: string; msg: string }[] = []
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(JSON.parse(line)) })
  let reloads = 0
  const watch = watchConfig(config, log, async () => void reloads++)
  t.teardown(() => watch.close())

  utimesSync(file, 1, 1)
  writeFileSync(join(folder, 'key.pem'), 'another key')
  await sleep(200)
  t.equal(reloads, 0)

  writeFileSync(`${file}.new`, 'watch: true # changed')
  renameSync(`${file}.new`, file)
  await eventually(() => reloads === 1, 'the reload of the changed file')

  rmSync(file)
  await eventually(() => lines.length > 0, 'the log line about the missing file')
  writeFileSync(file, 'watch: true')
  await eventually(() => reloads === 2, 'the reload of the restored file')
  t.match(lines, [{ file, msg: 'cannot read the configuration file; the current configuration stays in use' }])
  t.equal(lines.length, 1)
})

t.test('a change between loading and the first check is not missed', async (t) => {
  const folder = t.testdir({ 'gateway.yaml': 'watch: true' })
  const file = join(folder, 'gateway.yaml')
  const config = loadWithoutPlugins(file)
  writeFileSync(file, 'watch: true # changed')
  let reloads = 0
  const watch = watchConfig(config, pino({ level: 'silent' }), async () => void reloads++)
  t.teardown(() => watch.close())
  await eventually(() => reloads === 1, 'the reload of the missed change')
})
