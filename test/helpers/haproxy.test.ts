// slow: starts HAProxy
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { haproxyCheck, startHaproxy } from './haproxy.ts'
import { freePort } from './processes.ts'

const config = `
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
frontend in
  bind "127.0.0.1:\${PORT}"
  http-request return status 200 content-type text/plain string hello
`

t.test('HAProxy checks a configuration and serves it', async (t) => {
  const folder = t.testdir({})
  const configFile = join(folder, 'haproxy.cfg')
  await writeFile(configFile, config)
  const port = await freePort()
  const env = { PORT: `${port}` }
  t.match(await haproxyCheck(configFile, env), { code: 0 })
  const haproxy = await startHaproxy({ configFile, env, ports: [port] })
  t.teardown(haproxy.stop)
  const url = `http://127.0.0.1:${port}`
  t.equal(await (await fetch(url)).text(), 'hello')
  await haproxy.stop()
  await t.rejects(fetch(url))
})

t.test('HAProxy refuses a configuration with a fault, and names the line', async (t) => {
  const configFile = join(t.testdir({ 'haproxy.cfg': `${config}\n  nonsense here\n` }), 'haproxy.cfg')
  const checked = await haproxyCheck(configFile, { PORT: '1' })
  t.not(checked.code, 0)
  t.match(checked.stderr, /unknown keyword 'nonsense'/)
  await t.rejects(startHaproxy({ configFile, env: { PORT: '1' } }), /nonsense/)
})
