/** With `watch: true`, a change of the file triggers a reload. */
import { mkdirSync, renameSync, symlinkSync, utimesSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { waitFor } from '../../helpers/processes.ts'
import { startNumbered } from './numbered.ts'

// Each test has its own gateway, and mostly waits for the file to be polled.
t.jobs = 3

t.test('with watch: true, a change of the file triggers a reload', async (t) => {
  const { gateway, configOf, applied } = await startNumbered(t, { watch: true })
  await applied(gateway.write(configOf(1)), 1)

  const before = await gateway.metric('jingwei_config_last_reload_timestamp_seconds')
  utimesSync(gateway.file, new Date(), new Date())
  await sleep(5000)
  t.equal(
    await gateway.metric('jingwei_config_last_reload_timestamp_seconds'),
    before,
    'no reload if only the mtime changes'
  )

  const hash = gateway.write(configOf(2))
  const folder = dirname(gateway.file)
  // From here on as a Kubernetes ConfigMap: the file is a link into a folder that is itself a link.
  mkdirSync(join(folder, '..1'))
  renameSync(gateway.file, join(folder, '..1', 'gateway.yaml'))
  symlinkSync('..1', join(folder, '..data'))
  symlinkSync('..data/gateway.yaml', gateway.file)
  await applied(hash, 2)

  gateway.write('routes: [')
  await waitFor('the reload fails', async () => (await gateway.metric('jingwei_config_last_reload_success')) === 0)
  t.equal((await gateway.get('/2')).status, 200)
  await applied(gateway.write(configOf(3)), 3)
  t.equal(await gateway.metric('jingwei_config_last_reload_success'), 1)
})

t.test('without watch, a change of the file has no effect until a reload is requested', async (t) => {
  const { gateway, configOf } = await startNumbered(t)
  gateway.write(configOf(1))
  await sleep(5000)
  t.equal((await gateway.get('/0')).status, 200)
})

t.test('watch itself can be switched on and off', async (t) => {
  const { gateway, configOf, applied } = await startNumbered(t)
  await gateway.reload({ ...configOf(1), watch: true })
  await applied(gateway.write(configOf(2)), 2)
  gateway.write(configOf(3))
  await sleep(5000)
  t.equal((await gateway.get('/2')).status, 200)
})
