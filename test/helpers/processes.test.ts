// slow: takes about 4 s
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { freePorts, isListening, start, waitFor } from './processes.ts'

const node = process.execPath

/** A process that has ended but is not yet collected by its parent still takes signals. */
async function isAlive(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  return stat !== '' && !/\) Z /.test(stat)
}

t.test('start() waits until the child is ready', async (t) => {
  const child = await start({
    command: node,
    args: ['-e', 'setTimeout(() => console.log("rea" + "dy"), 50); setTimeout(() => {}, 60000)'],
    ready: /ready/
  })
  t.match(child.output(), 'ready')
  await child.stop()
  t.match(await child.exited, { signal: 'SIGTERM' })
  await child.stop()
  t.pass('stopping twice is fine')
})

t.test('a child that ignores SIGTERM is killed', async (t) => {
  const script = 'process.on("SIGTERM", () => {}); console.log("ready"); setTimeout(() => {}, 60000)'
  const child = await start({ command: node, args: ['-e', script], ready: /ready/ })
  await child.stop()
  t.match(await child.exited, { signal: 'SIGKILL' })
})

t.test('a child that ends or is never ready is an error that shows its output', async (t) => {
  const fails = start({ command: node, args: ['-e', 'console.error("no config"); process.exit(3)'], ready: /ready/ })
  await t.rejects(fails, /ended with 3.*no config/s)
  const hangs = start({
    command: node,
    args: ['-e', 'console.log("thinking"); setTimeout(() => {}, 60000)'],
    ready: /ready/,
    timeout: 500
  })
  await t.rejects(hangs, /not ready after 500 ms.*thinking/s)
  await t.rejects(start({ command: '/nowhere/program', ready: /ready/ }), /before it was ready/)
})

const hasSetpriv = spawnSync('setpriv', ['--pdeathsig', 'KILL', 'true']).status === 0
t.test('a child ends with a parent that is killed', { skip: !hasSetpriv && 'needs setpriv' }, async (t) => {
  const script = `
    import { start } from ${JSON.stringify(join(import.meta.dirname, 'processes.ts'))}
    const child = await start({ command: 'sleep', args: ['60'], ready: () => true })
    console.log(child.pid)
    setInterval(() => {}, 1000)`
  const parent = spawn(node, ['--input-type=module-typescript', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => parent.kill('SIGKILL'))
  const [line] = (await once(parent.stdout, 'data')) as [Buffer]
  const pid = Number(line.toString())
  t.ok(await isAlive(pid))
  parent.kill('SIGKILL')
  await waitFor('the child is gone', async () => !(await isAlive(pid)))
  t.notOk(await isAlive(pid))
})

t.test('free ports are different, and nothing listens on them', async (t) => {
  const ports = await freePorts(8)
  t.equal(new Set(ports).size, 8)
  t.strictSame(
    await Promise.all(ports.map(isListening)),
    ports.map(() => false)
  )
})
