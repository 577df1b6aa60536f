// slow: takes about 10 s
/** Changes of files, in all the ways in which people and programs make them: each new content is reported once. */
import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import type { Watch, WatchOptions } from '../../plugins/watch-files.ts'
import { watchFile, watchFiles } from '../../plugins/watch-files.ts'
import { eventually } from '../helpers/eventually.ts'
import { runToEnd } from '../helpers/processes.ts'

const intervalMs = 10
/** Time for some polls. A test that expects no report in it may miss a fault, but never fails by chance. */
const aWhile = () => sleep(15 * intervalMs)

/** Returns the reports of a watch: for a change, the content that its caller then reads. */
function seen(t: Test, file: string, open: (options: WatchOptions) => Watch) {
  const contents: string[] = []
  const errors: string[] = []
  const watch = open({
    intervalMs,
    onChange: () => void contents.push(readFileSync(file, 'utf8')),
    onError: ({ message }) => void errors.push(message)
  })
  t.teardown(() => watch.close())
  const until = (content: string) => eventually(() => contents.at(-1) === content, `${content} is reported`)
  return { watch, contents, errors, until }
}

const sha256sum = (file: string) => execFileSync('sha256sum', [file], { encoding: 'utf8' }).slice(0, 16)

/** A file with the content `old` that its reader knows. */
function scene(t: Test) {
  const folder = t.testdir({ 'gateway.yaml': 'old' })
  const file = join(folder, 'gateway.yaml')
  // A whole second, which `utimes` can set again.
  utimesSync(file, 1e9, 1e9)
  const known = sha256sum(file)
  return { folder, file, ...seen(t, file, (options) => watchFile(file, { ...options, known })) }
}

/** Swaps the folder behind a link as the kubelet does. */
function layFolder(folder: string, name: string, content: string): void {
  mkdirSync(join(folder, name))
  writeFileSync(join(folder, name, 'gateway.yaml'), content)
  symlinkSync(name, join(folder, '..data_tmp'))
  renameSync(join(folder, '..data_tmp'), join(folder, '..data'))
}

t.test('every way to change a file is reported once', async (t) => {
  type Mutation = (file: string, folder: string) => void | Promise<void>
  const mutations: Record<string, Mutation> = {
    'written in place': (file) => writeFileSync(file, 'new'),
    'replaced by a rename': (file) => {
      writeFileSync(`${file}.tmp`, 'new')
      renameSync(`${file}.tmp`, file)
    },
    'replaced by an older file': (file) => {
      writeFileSync(`${file}.tmp`, 'new')
      utimesSync(`${file}.tmp`, 1, 1)
      renameSync(`${file}.tmp`, file)
    },
    'written in place, its mtime set back to that of before': (file) => {
      writeFileSync(file, 'new')
      utimesSync(file, 1e9, 1e9)
    },
    'written while the clock was set back': (file) => {
      writeFileSync(file, 'new')
      utimesSync(file, 1, 1)
    },
    'written while the clock was ahead': (file) => {
      writeFileSync(file, 'new')
      utimesSync(file, 5e9, 5e9)
    },
    'removed and written': (file) => {
      rmSync(file)
      writeFileSync(file, 'new')
    },
    'removed for some polls and written': async (file) => {
      rmSync(file)
      await aWhile()
      writeFileSync(file, 'new')
    },
    'replaced by a link': (file, folder) => {
      rmSync(file)
      writeFileSync(join(folder, 'other.yaml'), 'new')
      symlinkSync('other.yaml', file)
    },
    'moved with its folder': (_file, folder) => {
      mkdirSync(`${folder}.next`)
      writeFileSync(join(`${folder}.next`, 'gateway.yaml'), 'new')
      renameSync(folder, `${folder}.before`)
      renameSync(`${folder}.next`, folder)
      rmSync(`${folder}.before`, { recursive: true })
    },
    'unreadable for some polls and written': async (file) => {
      rmSync(file)
      symlinkSync('gateway.yaml', file) // a loop: permissions would not stop root
      await aWhile()
      rmSync(file)
      writeFileSync(file, 'new')
    }
  }
  for (const [name, mutate] of Object.entries(mutations)) {
    await t.test(name, async (t) => {
      const { folder, file, contents, until } = scene(t)
      await aWhile()
      t.strictSame(contents, [], 'no report before the change')
      await mutate(file, folder)
      await until('new')
      await aWhile()
      t.strictSame(contents, ['new'], 'one report of the change')
      writeFileSync(file, 'old')
      await until('old')
      t.strictSame(contents, ['new', 'old'], 'one report of the old content')
    })
  }
})

t.test('a change of times, mode or inode without a change of the content is not reported', async (t) => {
  const { file, folder, contents, errors, until } = scene(t)
  utimesSync(file, new Date(), new Date())
  await aWhile()
  utimesSync(file, 1, 1)
  chmodSync(file, 0o600)
  await aWhile()
  writeFileSync(file, 'old')
  await aWhile()
  copyFileSync(file, `${file}.tmp`)
  renameSync(`${file}.tmp`, file)
  await aWhile()
  writeFileSync(join(folder, 'other.yaml'), 'another file')
  await aWhile()
  t.strictSame([contents, errors], [[], []])
  writeFileSync(file, 'new')
  await until('new')
})

t.test('edits of the same size within one clock tick are reported', async (t) => {
  // Up to Linux 6.12 and on simple file systems, the second edit has the times of the first, which some poll has found.
  const folder = t.testdir({ file: 'x' })
  const file = join(folder, 'file')
  const { until } = seen(t, file, (options) => watchFile(file, { ...options, intervalMs: 1 }))
  for (let n = 100; n < 160; n++) {
    writeFileSync(file, `${n} a`)
    await sleep(1)
    writeFileSync(file, `${n} b`)
    await until(`${n} b`)
  }
})

t.test('a file that is missing at one poll is not reported', async (t) => {
  const { file, contents, errors } = scene(t)
  for (let n = 0; n < 20; n++) {
    rmSync(file)
    // Due before a second poll can be.
    await sleep(intervalMs / 2)
    writeFileSync(file, 'old')
    await sleep(4 * intervalMs)
  }
  t.strictSame([contents, errors], [[], []])
})

t.test('a file that is being written is not read', async (t) => {
  const { file, contents, until } = scene(t)
  const whole = Array.from({ length: 40 }, (_, n) => `line ${n}`).join('\n')
  const handle = openSync(file, 'w')
  for (const character of whole) {
    writeSync(handle, character)
    // Less than an interval; a poll that finds the same content twice would be right to report it.
    await sleep(1)
  }
  closeSync(handle)
  await until(whole)
  appendFileSync(file, '\nend')
  await until(`${whole}\nend`)
  t.strictSame(
    contents.filter((content) => !content.includes('line 39')),
    []
  )
})

t.test('swapped links of a ConfigMap are reported', async (t) => {
  const folder = t.testdir({})
  layFolder(folder, '..2026_01', 'old')
  symlinkSync('..data/gateway.yaml', join(folder, 'gateway.yaml'))
  const file = join(folder, 'gateway.yaml')
  const { contents, errors, until } = seen(t, file, (options) =>
    watchFile(file, { ...options, known: sha256sum(file) })
  )
  for (let n = 2; n < 6; n++) {
    layFolder(folder, `..2026_0${n}`, `content ${n}`)
    rmSync(join(folder, `..2026_0${n - 1}`), { recursive: true })
    await until(`content ${n}`)
  }
  layFolder(folder, '..2026_06', 'content 5')
  await aWhile()
  t.equal(contents.length, 4, 'another folder with the same content is not reported')
  t.strictSame(errors, [])
})

t.test('a file that cannot be read is reported once, and its content again afterwards', async (t) => {
  const { file, contents, errors, until } = scene(t)
  for (const times of [1, 2]) {
    rmSync(file)
    await eventually(() => errors.length === times, 'the error')
    await aWhile()
    t.equal(errors.length, times)
    t.match(errors.at(-1), /ENOENT.*gateway\.yaml/)
    writeFileSync(file, 'old')
    await eventually(() => contents.length === times, 'its content')
    t.equal(
      contents.at(-1),
      'old',
      'the content is reported again, since its reader may have rejected another meanwhile'
    )
  }
  rmSync(file)
  mkdirSync(file)
  writeFileSync(join(file, 'a'), '')
  rmSync(file, { recursive: true })
  execFileSync('mkfifo', [file])
  await eventually(() => errors.length === 3, 'a pipe')
  t.match(errors.at(-1), /gateway\.yaml is neither a file nor a folder/)
  rmSync(file)
  writeFileSync(file, 'new')
  await until('new')
})

t.test('without a known content, the first content is reported', async (t) => {
  const { file } = scene(t)
  const { contents, until } = seen(t, file, (options) => watchFile(file, options))
  await until('old')
  await aWhile()
  t.equal(contents.length, 1)
})

t.test('several files that change together are reported', async (t) => {
  const folder = t.testdir({ 'cert.pem': 'cert 0', 'key.pem': 'key 0' })
  const paths = ['cert.pem', 'key.pem'].map((name) => join(folder, name))
  const pairs: string[] = []
  const watch = watchFiles(paths, {
    intervalMs,
    onChange: () => void pairs.push(paths.map((path) => readFileSync(path, 'utf8')).join(', ')),
    onError: (error) => t.fail(error.message)
  })
  t.teardown(() => watch.close())
  await eventually(() => pairs.length === 1)
  writeFileSync(paths[0]!, 'cert 1')
  writeFileSync(paths[1]!, 'key 1')
  await eventually(() => pairs.at(-1) === 'cert 1, key 1')
  renameSync(paths[0]!, join(folder, 'x'))
  renameSync(paths[1]!, paths[0]!)
  renameSync(join(folder, 'x'), paths[1]!)
  await eventually(() => pairs.at(-1) === 'key 1, cert 1', 'the two swapped')
})

t.test('added, removed, changed and renamed files of a folder are reported', async (t) => {
  const folder = t.testdir({ 'a.pem': 'a', '.hidden': 'x', sub: { 'c.pem': 'c' } })
  let changes = 0
  const errors: Error[] = []
  const watch = watchFiles([folder], {
    intervalMs,
    onChange: () => void changes++,
    onError: (error) => void errors.push(error)
  })
  t.teardown(() => watch.close())
  await eventually(() => changes === 1)
  const file = (name: string) => join(folder, name)
  const steps: [what: string, change: () => void, counts: boolean][] = [
    ['an added file', () => writeFileSync(file('b.pem'), 'b'), true],
    ['another content', () => writeFileSync(file('b.pem'), 'B'), true],
    ['another name', () => renameSync(file('b.pem'), file('c.pem')), true],
    ['a hidden file', () => writeFileSync(file('.hidden'), 'y'), false],
    ['a file in a subfolder', () => writeFileSync(file('sub/c.pem'), 'y'), false],
    ['a dangling link', () => symlinkSync('nowhere', file('d.pem')), false],
    ['the target of the link', () => writeFileSync(file('nowhere'), 'd'), true],
    ['a removed file', () => rmSync(file('c.pem')), true]
  ]
  for (const [what, change, counts] of steps) {
    const before = changes
    change()
    if (counts) await eventually(() => changes > before, what)
    else await aWhile()
    await aWhile()
    t.equal(changes, counts ? before + 1 : before, what)
  }
  t.strictSame(errors, [])
  rmSync(folder, { recursive: true })
  await eventually(() => errors.length === 1, 'the folder is gone')
})

t.test('onChange does not run twice at a time', async (t) => {
  const { file } = scene(t)
  let running = 0
  let most = 0
  let reports = 0
  const watch = watchFile(file, {
    intervalMs,
    onChange: async () => {
      most = Math.max(most, ++running)
      writeFileSync(file, `content ${++reports}`)
      await aWhile()
      running--
    },
    onError: (error) => t.fail(error.message)
  })
  t.teardown(() => watch.close())
  await eventually(() => reports === 3)
  t.equal(most, 1)
})

t.test('nothing is reported after close', async (t) => {
  const { file, watch, contents, errors } = scene(t)
  writeFileSync(file, 'new')
  watch.close()
  await aWhile()
  rmSync(file)
  await aWhile()
  t.strictSame([contents, errors], [[], []])
})

t.test('a watch does not keep the process alive', async (t) => {
  const { file } = scene(t)
  const module = join(import.meta.dirname, '../../plugins/watch-files.ts')
  const program = `import { watchFile } from '${module}'
    watchFile('${file}', { intervalMs: 10, onChange() {}, onError() {} })`
  const { code, stderr } = await runToEnd(process.execPath, ['--input-type=module', '-e', program])
  t.strictSame([code, stderr], [0, ''])
})
