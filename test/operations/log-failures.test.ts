// slow: takes about 24 s
/** A log that cannot be written: a full disk, a reader that stops, a pipe that is closed. Each in a process of its own. */
import type { ChildProcess } from 'node:child_process'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync, readFileSync, writeFileSync } from 'node:fs'
import { connect, createServer, Socket } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { freePort, runToEnd, waitFor } from '../helpers/processes.ts'

const home = join(import.meta.dirname, '../..')
/** Port of a service that accepts requests and never responds. */
const held = await freePort()
const config = `
listen: { host: 127.0.0.1, port: 0, drain: { delay: 0s, timeout: 20s } }
admin: { port: 0 }
services: { none: { instances: ["http://127.0.0.1:9"] }, held: { instances: ["http://127.0.0.1:${held}"] } }
routes:
  - { name: all, match: { path: / }, service: none, mesh: { retry: false } }
  - { name: held, match: { path: /held }, service: held, mesh: { retry: false } }
`

const file = join(t.testdir({ 'gateway.yaml': config }), 'gateway.yaml')

interface Gateway {
  child: ChildProcess
  url: string
  admin: string
  exited: Promise<unknown[]>
}

/** A gateway whose stdout is a descriptor of the test. */
async function gatewayOn(t: Test, stdout: number | 'pipe'): Promise<Gateway> {
  // Without the test runner's own hooks, which would handle its signals.
  const command = ['-u', 'NODE_OPTIONS', process.execPath, join(home, 'app.ts'), '-c', file]
  const child = spawn('env', command, { stdio: ['ignore', stdout, 'pipe'] })
  t.teardown(() => child.kill('SIGKILL'))
  const exited = once(child, 'exit')
  let banner = ''
  child.stderr!.on('data', (chunk: Buffer) => {
    banner += chunk.toString()
  })
  await waitFor('the gateway is up', () => /admin +http/.test(banner))
  const [, url] = /edge +(http\S+)/.exec(banner)!
  const [, admin] = /metrics +(http:\/\/[^/]+)/.exec(banner)!
  return { child, url: url!, admin: admin!, exited }
}

/** A pipe with its two ends in this process. */
function pipe(t: Test): { reader: number; writer: number } {
  const path = join(t.testdir(), 'fifo')
  spawnSync('mkfifo', [path])
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  return { reader, writer: openSync(path, constants.O_WRONLY) }
}

/** Reads a pipe from now on; returns the text received so far. */
function read(t: Test, reader: number): () => string {
  const socket = new Socket({ fd: reader, writable: false })
  t.teardown(() => socket.destroy())
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  return () => text
}

async function droppedBy({ admin }: Gateway): Promise<number> {
  const text = await (await fetch(`${admin}/metrics`)).text()
  return Number(/^jingwei_log_lines_dropped_total (\d+)$/m.exec(text)?.[1])
}

/** Requests that leave an access line of their path's length each. */
async function request({ url }: Gateway, count: number, path = '/'): Promise<void> {
  for (let i = 0; i < count; i++) await (await fetch(url + path)).arrayBuffer()
}

type Line = Record<string, unknown>
const linesOf = (text: string) => text.split('\n').filter((line) => line !== '')

t.test('the gateway serves, drains on SIGTERM and exits while stdout is not read', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGQUIT'] as const) {
    const { writer } = pipe(t)
    const gateway = await gatewayOn(t, writer)
    await request(gateway, 40, `/${'x'.repeat(4000)}`)
    gateway.child.kill(signal)
    t.strictSame(await gateway.exited, [0, null], signal)
  }
})

t.test('the gateway serves while a socket as stdout is not read, such as the journal of systemd', async (t) => {
  const gateway = await gatewayOn(t, 'pipe')
  await request(gateway, 100, `/${'x'.repeat(4000)}`)
  gateway.child.kill('SIGTERM')
  t.strictSame(await gateway.exited, [0, null])
})

t.test('a second signal ends the process at once while stdout is not read', async (t) => {
  const { writer } = pipe(t)
  const gateway = await gatewayOn(t, writer)
  await request(gateway, 40, `/${'x'.repeat(4000)}`)
  // A request in flight, to a service that does not respond, keeps the gateway from ending by itself.
  const service = createServer().listen(held, '127.0.0.1')
  t.teardown(() => service.close())
  service.on('connection', (socket) => t.teardown(() => socket.destroy()))
  const client = connect(Number(new URL(gateway.url).port), '127.0.0.1')
  t.teardown(() => client.destroy())
  client.on('error', () => {})
  client.write('GET /held HTTP/1.1\r\nHost: h\r\n\r\n')
  await once(service, 'connection')
  gateway.child.kill('SIGTERM')
  await waitFor('it drains', async () => (await fetch(`${gateway.admin}/health/ready`)).status === 503)
  gateway.child.kill('SIGTERM')
  t.strictSame(await gateway.exited, [1, null])
})

t.test('a reader that pauses and resumes gets every line', async (t) => {
  const { reader, writer } = pipe(t)
  const gateway = await gatewayOn(t, writer)
  await request(gateway, 40, `/${'x'.repeat(4000)}`)
  const text = read(t, reader)
  await waitFor('all lines came', () => text().split('"msg":"request"').length === 41)
  for (const line of linesOf(text())) t.ok(JSON.parse(line))
  t.equal(await droppedBy(gateway), 0)
})

t.test('with a closed pipe, the gateway continues, counts dropped lines, and exits with 0', async (t) => {
  const { reader, writer } = pipe(t)
  const gateway = await gatewayOn(t, writer)
  closeSync(writer)
  closeSync(reader)
  await request(gateway, 3)
  await waitFor('they are counted', async () => (await droppedBy(gateway)) >= 3)
  await request(gateway, 1)
  gateway.child.kill('SIGTERM')
  t.strictSame(await gateway.exited, [0, null])
})

t.test('after a full disk, the log continues and reports the number of dropped lines', async (t) => {
  // A limit on the size of its files fails a write as a full disk does, and can be lifted from outside.
  const path = join(t.testdir(), 'log')
  writeFileSync(path, '')
  const gateway = await gatewayOn(t, openSync(path, 'a'))
  await request(gateway, 2)
  await waitFor('lines come', () => linesOf(readFileSync(path, 'utf8')).length >= 2)
  const limit = (bytes: string) => spawnSync('prlimit', ['--pid', String(gateway.child.pid), `--fsize=${bytes}`])
  // Within the next line, so that a part of it is written.
  t.equal(limit(`${readFileSync(path).length + 20}:unlimited`).status, 0)
  await request(gateway, 5)
  await waitFor('lost lines are counted', async () => (await droppedBy(gateway)) >= 5)
  t.equal((await fetch(`${gateway.admin}/health/ready`)).status, 200)
  limit('unlimited:unlimited')
  await waitFor('the loss is reported', () => readFileSync(path, 'utf8').includes('were dropped'))
  await request(gateway, 1)
  await waitFor('the log goes on', () => linesOf(readFileSync(path, 'utf8')).at(-1)!.includes('"msg":"request"'))
  const written = linesOf(readFileSync(path, 'utf8')).flatMap((line) => {
    try {
      return [JSON.parse(line) as Line]
    } catch {
      return []
    }
  })
  const report = written.find(({ msg }) => String(msg).includes('were dropped'))
  t.match(report, { level: 'error', lines: await droppedBy(gateway), reason: 'EFBIG' })
  t.equal(
    linesOf(readFileSync(path, 'utf8')).length - written.length,
    1,
    'one line is truncated, the last before the disk was full'
  )
  gateway.child.kill('SIGTERM')
  t.strictSame(await gateway.exited, [0, null])
})

t.test('the gateway starts with /dev/full as stdout', async (t) => {
  const gateway = await gatewayOn(t, openSync('/dev/full', 'w'))
  await request(gateway, 3)
  await waitFor('lost lines are counted', async () => (await droppedBy(gateway)) >= 4)
  gateway.child.kill('SIGTERM')
  t.strictSame(await gateway.exited, [0, null])
})

const writer = JSON.stringify(join(home, 'plugins/log-writer.ts'))
const program = (body: string) => `
  import { LogWriter, nonBlocking } from ${writer}
  const formatDropped = (lines, reason) => \`dropped \${lines} \${reason}\\n\`
  const lines = new LogWriter(nonBlocking(1), { formatDropped })
  ${body}`

t.test('lines for a paused reader are buffered up to the limit', async (t) => {
  const { reader, writer } = pipe(t)
  const body = `
    const line = 'x'.repeat(1024 * 1024 - 1) + '\\n'
    for (let i = 0; i < 30; i++) lines.batch(line)
    process.stderr.write(String(lines.dropped))
    process.on('SIGTERM', () => process.exit(0))
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program(body)], {
    stdio: ['ignore', writer, 'pipe']
  })
  t.teardown(() => child.kill('SIGKILL'))
  const [dropped] = (await once(child.stderr!, 'data')) as [Buffer]
  t.ok(Number(dropped) >= 10 && Number(dropped) < 30, `${dropped} of 30 lines of 1 MB are dropped`)
  const text = read(t, reader)
  await waitFor('the loss is reported', () => text().includes('dropped'))
  const kept = 30 - Number(dropped)
  await waitFor('the other lines came', () => text().split('xx\n').length === kept + 1)
  t.ok(linesOf(text()).includes(`dropped ${dropped} EAGAIN`))
})

t.test('a closed reader does not delay the exit', async (t) => {
  const body = `
    for (let i = 0; i < 100000; i++) lines.batch("a line that is not read by anybody\\n")
    process.exitCode = 7
    if (process.argv[1] === "now") process.exit()`
  const shell = `node --input-type=module -e '${program(body).replaceAll("'", "'\\''")}'`
  for (const when of ['now', 'later']) {
    const { stdout } = await runToEnd('bash', ['-c', `set -o pipefail; ${shell} ${when} | head -1 >/dev/null; echo $?`])
    t.equal(stdout.trim(), '7', when)
  }
})

t.test('lines that a slow reader takes within a second are written before the process ends', async (t) => {
  const body = `
    for (let i = 0; i < 5000; i++) lines.batch("a line of some length, so that they are more than a pipe holds\\n")
    setTimeout(() => process.exit(0), 300)`
  const shell = `node --input-type=module -e '${program(body).replaceAll("'", "'\\''")}' | (sleep 0.6; wc -l)`
  const { stdout } = await runToEnd('bash', ['-c', shell])
  t.equal(stdout.trim(), '5000')
})
