// slow: takes about 3 s
/** Output of a process on stdout, seen from outside. */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { LogWriter } from '../../plugins/log-writer.ts'
import { eventually } from '../helpers/eventually.ts'
import { runToEnd } from '../helpers/processes.ts'

const logging = join(import.meta.dirname, '../../plugins/operations/logging.ts')

const logLine = join(import.meta.dirname, '../../plugins/log-line.ts')

/** Runs `body` with a `log` and `batch`, which writes a line with one member; returns the lines of its output. */
async function run(body: string, env: NodeJS.ProcessEnv = {}): Promise<Record<string, unknown>[]> {
  const program = `
    import { pino } from 'pino'
    import { loggerOptions } from ${JSON.stringify(logging)}
    import { lineWriterOf } from ${JSON.stringify(logLine)}
    const { stream, ...options } = loggerOptions()
    const log = pino(options, stream)
    const batch = (i) => lineWriterOf(log)('{"i":' + i + '}\\n')
    ${body}`
  const args = ['--input-type=module', '-e', program]
  const { code, stdout, stderr } = await runToEnd('node', args, { env: { ...process.env, ...env } })
  t.equal(code, 0, stderr)
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}

const many = `
  for (let i = 0; i < 1000; i++) batch(i)
  log.warn('between')
  for (let i = 1000; i < 1010; i++) batch(i)`
const all = [...Array(1000).keys(), 'between', ...Array.from({ length: 10 }, (_, i) => 1000 + i)]

t.test('buffered lines are written in order, and before others', async (t) => {
  const lines = await run(many)
  t.strictSame(lines.map(({ i, msg }) => i ?? msg), all) // biome-ignore format: short
})

t.test('no line is lost if the process exits', async (t) => {
  const lines = await run(`${many}; process.exit(0)`)
  t.strictSame(new Set(lines.map(({ i, msg }) => i ?? msg)), new Set(all))
})

t.test('buffered lines share writes, also during a write', async (t) => {
  const { write } = fs
  let writes = 0
  const counted = (...args: Parameters<typeof write>) => {
    writes++
    write(...args)
  }
  fs.write = Object.assign(counted, write)
  syncBuiltinESMExports()
  t.teardown(() => {
    fs.write = write
    syncBuiltinESMExports()
  })
  const file = join(t.testdir(), 'log')
  const lines = new LogWriter(fs.openSync(file, 'w'))
  const line = `${'x'.repeat(999)}\n`
  for (let i = 0; i < 1000; i++) {
    lines.batch(line)
    if (i % 10 === 0) await sleep(1)
  }
  await sleep(500)
  t.equal(fs.statSync(file).size, 1_000_000)
  t.ok(writes <= 17, `${writes} writes for a megabyte`)
})

t.test('buffered lines are written soon without further lines', async (t) => {
  const lines = await run(`
    import { writeSync } from 'node:fs'
    batch(1)
    setTimeout(() => writeSync(1, '{"i":"past the log"}\\n'), 1000)`)
  t.strictSame(lines.map(({ i }) => i), [1, 'past the log']) // biome-ignore format: short
})

t.test('lines that are left when the descriptor is closed are counted as dropped', async (t) => {
  const path = join(t.testdir(), 'fifo')
  spawnSync('mkfifo', [path])
  const reader = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK)
  t.teardown(() => fs.closeSync(reader))
  let reported = 0
  const lines = new LogWriter(fs.openSync(path, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK), {
    onDropped: (count) => {
      reported += count
    }
  })
  const line = `${'x'.repeat(999)}\n`
  for (let i = 0; i < 300; i++) lines.write(line)
  // The pipe is full by now; these lines wait for those before.
  await sleep(50)
  for (let i = 0; i < 10; i++) lines.write(line)
  await lines.close(20)
  await eventually(() => lines.dropped > 0)
  const inPipe = Buffer.alloc(1_000_000)
  const written = inPipe.toString('latin1', 0, fs.readSync(reader, inPipe)).split('\n').length - 1
  t.ok(written > 0)
  t.equal(written + lines.dropped, 310)
  t.equal(reported, lines.dropped)
})

t.test('lines that come while the last write is in progress are written or counted', async (t) => {
  const file = join(t.testdir(), 'log')
  const lines = new LogWriter(fs.openSync(file, 'w'))
  lines.batch('a\n')
  const closed = lines.close(10_000)
  lines.batch('b\nc\n')
  await closed
  t.equal(fs.readFileSync(file, 'utf8').split('\n').length - 1 + lines.dropped, 3)
})
