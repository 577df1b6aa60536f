// slow: takes about 7 s
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { runToEnd } from './processes.ts'

/** Runs the runner on test files of its own, without the environment of the outer run. */
async function run(t: Test, files: Record<string, string>) {
  const folder = t.testdir({
    'package.json': JSON.stringify({
      type: 'module',
      tap: {
        'type-strip-only': true,
        'disable-coverage': true,
        'allow-empty-coverage': true,
        include: ['*.test.ts'],
        timeout: 20
      }
    }),
    ...files
  })
  const clean = Object.entries(process.env).filter(([key]) => !/^_?TAP|^NODE_OPTIONS$/.test(key))
  const script = `process.chdir(${JSON.stringify(folder)}); await import(${JSON.stringify(join(import.meta.dirname, 'run.ts'))})`
  const ran = await runToEnd(process.execPath, ['--input-type=module', '-e', script], {
    env: Object.fromEntries(clean),
    timeout: 60_000
  })
  return { ...ran, last: ran.stdout.trimEnd().split('\n').at(-1) }
}

t.test('assertions are counted, subtests are not', async (t) => {
  const { code, last } = await run(t, {
    'a.test.ts': `import t from 'tap'
t.test('outer', async (t) => { t.ok(true); t.test('inner', async (t) => { t.ok(true) }) })
t.test('later', { skip: 'not now' }, async () => {})`
  })
  t.equal(last, '2 passed, 0 failed, 1 skipped')
  t.equal(code, 0)
})

t.test('a failure is reported with its place, and a crash counts as a failure', async (t) => {
  const { code, last, stdout } = await run(t, {
    'a.test.ts': "import t from 'tap'\nt.test('sum', async (t) => { t.equal(1 + 1, 3, 'adds up') })",
    'b.test.ts': "import t from 'tap'\nt.pass('fine')\nsetTimeout(() => process.exit(3), 50)",
    'c.test.ts': "import './missing.ts'"
  })
  t.match(stdout, 'a.test.ts › sum › adds up')
  t.match(stdout, /\+2/)
  t.match(stdout, /exitCode: 3/)
  t.equal(last, '1 passed, 3 failed')
  const [, summary = ''] = stdout.split('\nFailed:\n')
  t.match(summary, /^✖ a\.test\.ts\n {2}✖ .*sum › adds up$/m, 'each failure is listed again at the end')
  t.match(summary, /^✖ b\.test\.ts$/m)
  t.notMatch(summary, /^✔/m)
  t.equal(code, 1)
})

t.test('a run without tests is a failure', async (t) => {
  const { code, last } = await run(t, { 'a.test.ts': 'export const nothing = 1' })
  t.match(last, /^0 passed, 0 failed/)
  t.equal(code, 1)
})
