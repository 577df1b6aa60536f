/** Reloads by a request to the admin port and by SIGHUP: one at a time, several, and while the gateway stops. */
import { writeFileSync } from 'node:fs'
import t from 'tap'
import { waitFor } from '../../helpers/processes.ts'
import { startNumbered } from './numbered.ts'

t.test('SIGHUP triggers a reload', async (t) => {
  const { gateway, configOf, applied } = await startNumbered(t)
  const hash = gateway.write(configOf(1))
  gateway.running().kill('SIGHUP')
  await applied(hash, 1)
})

t.test('after concurrent reloads, the configuration of the file is in force', async (t) => {
  const { gateway, configOf, applied } = await startNumbered(t)
  for (let number = 1; number <= 5; number++) {
    const hash = gateway.write(configOf(number))
    gateway.running().kill('SIGHUP')
    const responses = await Promise.all([gateway.post(), gateway.post(), gateway.post()])
    t.strictSame(
      responses.map(({ status }) => status),
      [200, 200, 200]
    )
    await applied(hash, number)
  }
  await waitFor('the earlier configurations have ended', async () => (await gateway.probe()).generations === 1)
})

t.test('while the gateway drains, a reload neither fails nor delays its end', async (t) => {
  const { gateway, configOf } = await startNumbered(t)
  gateway.write(configOf(1))
  const reloaded = gateway.post().catch(() => {})
  gateway.running().kill('SIGTERM')
  gateway.running().kill('SIGHUP')
  t.strictSame(await gateway.running().exited, { code: 0, signal: null })
  await reloaded
})

t.test('the admin port accepts a reload only by POST', async (t) => {
  const { gateway, configOf } = await startNumbered(t)
  gateway.write(configOf(1))
  t.equal((await gateway.getAdmin('/admin/reload')).status, 404)
  t.equal((await gateway.get('/0')).status, 200)
  writeFileSync(gateway.file, 'x')
  t.equal((await gateway.post()).status, 422)
})
