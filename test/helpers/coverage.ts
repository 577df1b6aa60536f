// Coverage of the sources by the tests: `npm run test:coverage`, with `-- --fast` by the fast tests. Node writes the counts
// of each process to `.tap/coverage`. A summary and the files with the poorest coverage are printed; `.tap/report` has
// pages (index.html) and lcov.info.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { globSync, readFileSync } from 'node:fs'
import { readFile, rm } from 'node:fs/promises'
import { createRequire, stripTypeScriptTypes } from 'node:module'
import { join, relative, resolve } from 'node:path'

const home = resolve(import.meta.dirname, '../..')
const tempDirectory = join(home, '.tap/coverage')
const reportsDirectory = join(home, '.tap/report')
const shown = 20

interface Report {
  run(): Promise<void>
}
type ReportClass = new (options: object) => Report

/** Returns the reports of c8, which tap brings along. */
function reportClass(): ReportClass {
  const ofTap = createRequire(createRequire(import.meta.url).resolve('tap'))
  return (createRequire(ofTap.resolve('@tapjs/run/package.json'))('c8') as { Report: ReportClass }).Report
}

/** Returns true for a source that has types alone: Node never loads it, so it has no coverage. */
function hasNoCode(file: string): boolean {
  const code = stripTypeScriptTypes(readFileSync(join(home, file), 'utf8'))
  return /^(\s|\/\*[\s\S]*?\*\/|\/\/.*|import .*|export \{\})*$/.test(code)
}

const sources = ['app.ts', ...globSync('{config,plugins,routes}/**/*.ts', { cwd: home })].filter(
  (file) => !hasNoCode(file)
)
const isFast = process.argv.includes('--fast')
const rest = process.argv.slice(2).filter((argument) => argument !== '--fast')
await rm(tempDirectory, { recursive: true, force: true })
await rm(reportsDirectory, { recursive: true, force: true })
const child = spawn(process.execPath, [join(import.meta.dirname, isFast ? 'fast.ts' : 'run.ts'), ...rest], {
  cwd: home,
  env: { ...process.env, NODE_V8_COVERAGE: tempDirectory },
  stdio: 'inherit'
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal))
const [code] = (await once(child, 'close')) as [number | null]

process.chdir(home)
const report = new (reportClass())({
  include: sources,
  all: true,
  src: [home],
  reporter: ['text-summary', 'html', 'lcovonly', 'json-summary'],
  tempDirectory,
  reportsDirectory,
  mergeAsync: true
})
await report.run()

type Summary = Record<
  string,
  { readonly lines: { readonly total: number; readonly covered: number; readonly pct: number } }
>
const { total: _all, ...files } = JSON.parse(
  await readFile(join(reportsDirectory, 'coverage-summary.json'), 'utf8')
) as Summary
const poorest = Object.entries(files)
  .filter(([, { lines }]) => lines.covered < lines.total)
  .sort(([, a], [, b]) => b.lines.total - b.lines.covered - (a.lines.total - a.lines.covered))
  .slice(0, shown)
console.log(`\nFiles with the most lines that no test runs:`)
for (const [file, { lines }] of poorest) {
  console.log(
    `${String(lines.total - lines.covered).padStart(6)} of ${lines.total}  ${lines.pct} %  ${relative(home, file)}`
  )
}
console.log(`\nPages: ${join(reportsDirectory, 'index.html')}`)
process.exitCode = code ?? 1
