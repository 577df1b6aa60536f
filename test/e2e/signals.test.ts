/** Signals that operators and tools send to servers: only those that drain the gateway stop it. */
import { readFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { asProcess } from '../helpers/e2e/gateway.ts'
import { upstream } from '../helpers/e2e/upstream.ts'
import { freePort, start, waitFor } from '../helpers/processes.ts'

const root = join(import.meta.dirname, '../..')

async function gatewayFor(t: Test) {
  const { port } = await upstream(t, 'a')
  const services = { orders: { instances: [`http://127.0.0.1:${port}`] } }
  return asProcess(t, { services, listen: { drain: { delay: '0s', timeout: '10s' } } })
}

t.test('SIGHUP reloads, SIGUSR1 and SIGUSR2 are only logged, and the gateway keeps running', async (t) => {
  const gateway = await gatewayFor(t)
  const signals = ['SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const
  const logged = () =>
    gateway.log().filter((line) => signals.some((name) => line.signal === name || line.cause === name))
  for (const [index, signal] of signals.entries()) {
    gateway.running.kill(signal)
    await waitFor(`a log line of ${signal}`, () => logged().length > index)
    t.equal((await gateway.send('/orders')).status, 200)
    t.equal((await gateway.health()).status, 'ready')
  }
  t.strictSame(
    logged().map(({ level, msg }) => [level, msg]),
    [
      ['info', 'configuration reloaded'],
      ['info', 'signal ignored'],
      ['info', 'signal ignored']
    ]
  )
  t.notMatch(gateway.running.output(), /Debugger listening/)
})

t.test('SIGQUIT drains as SIGTERM does', async (t) => {
  const gateway = await gatewayFor(t)
  gateway.running.kill('SIGQUIT')
  t.strictSame(await gateway.running.exited, { code: 0, signal: null })
  const messages = gateway.log().map(({ msg }) => msg)
  for (const message of [/^draining: /, /^stopped$/])
    t.ok(
      messages.some((each) => message.test(String(each))),
      String(message)
    )
})

t.test('no inspector opens, not even before app.ts has loaded, by npm or in the image', async (t) => {
  // Until app.ts has loaded, only the Node option prevents SIGUSR1 from opening it.
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: { start: string } }
  t.equal(scripts.start, 'exec node --disable-sigusr1 plugins/bin.ts')
  t.match(readFileSync(join(root, 'Dockerfile'), 'utf8'), /CMD \["node", "--disable-sigusr1", "dist\/plugins\/bin.js"/)
})

t.test('a signal to the shell that npm has started reaches the gateway', async (t) => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: { start: string } }
  const names = ['PORT', 'ADMIN_PORT', 'ORDERS_PORT', 'ORDERS_PORT_2', 'PRODUCTS_PORT', 'USERS_PORT']
  const ports: Record<string, string> = {}
  for (const name of names) ports[name] = String(await freePort())
  const shell = await start({
    // Start it as npm does, which appends arguments to the script.
    command: 'sh',
    args: ['-c', `${scripts.start} --config config/gateway.yaml`],
    cwd: root,
    env: { ...process.env, ...ports, PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}` },
    ready: /jingwei is up/
  })
  t.teardown(() => shell.stop())
  shell.kill('SIGHUP')
  await waitFor('a reload', () => /"cause":"SIGHUP".*"configuration reloaded"/.test(shell.output()))
  shell.kill('SIGTERM')
  t.strictSame(await shell.exited, { code: 0, signal: null })
  t.match(shell.output(), /"msg":"draining: /)
})
