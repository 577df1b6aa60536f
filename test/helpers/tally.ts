// Counts the results of a test run from its TAP, and prints a line per file and the details of each failure.

import { dump } from 'js-yaml'
import type { Result } from 'tap-parser'
import { Parser } from 'tap-parser'

export class Tally {
  passed = 0
  failed = 0
  skipped = 0
  /** Called with the results of each file. */
  readonly notes: string[] = []

  get line(): string {
    return `${this.passed} passed, ${this.failed} failed${this.skipped > 0 ? `, ${this.skipped} skipped` : ''}`
  }

  add(other: Tally): void {
    this.passed += other.passed
    this.failed += other.failed
    this.skipped += other.skipped
    this.notes.push(...other.notes)
  }

  fail(name: string, diagnostics?: unknown): void {
    this.failed++
    this.notes.push(`✖ ${name}\n${describe(diagnostics)}`)
  }
}

const keptPrints = 200

/** A parser to write TAP into. Once it has ended, the tally is whole, and `failures` has the failed tests of each file. */
export function tallyOf(tell: (text: string) => void): { parser: Parser; tally: Tally; failures: string[] } {
  const parser = new Parser()
  const tally = new Tally()
  const failures: string[] = []
  follow(parser, tally, [], (file, result) => {
    const { ok, name, time } = result
    const duration = time === null ? '' : ` (${(time / 1000).toFixed(1)} s)`
    tell(`${ok ? '✔' : '✖'} ${name}: ${file.line}${duration}\n`)
    if (ok) return
    for (const note of file.notes) tell(indent(note))
    const failed = file.notes.filter((note) => note.startsWith('✖'))
    failures.push(`✖ ${name}\n${failed.map(indent).join('')}`)
  })
  parser.on('bailout', (reason: string) => {
    tally.failed++
    tell(`✖ bailed out: ${reason}\n`)
  })
  return { parser, tally, failures }
}

/** Name of the subtest that follows those of a file, where several files share a process. */
export const endOf = (file: string, tookMs: number) => `end of ${file} after ${Math.round(tookMs)} ms`

/** A parser for the TAP of several files that share a process. `rest` counts the tests of a file that did not end. */
export function talliesOf(ended: (file: string, tally: Tally, tookMs: number) => void): {
  parser: Parser
  rest: Tally
} {
  const parser = new Parser()
  const rest = new Tally()
  let current = new Tally()
  follow(parser, new Tally(), [], (tally, { name }) => {
    const [, file, ms] = /^end of (.+) after (\d+) ms$/.exec(name) ?? []
    if (file === undefined) return current.add(tally)
    ended(file, current, Number(ms))
    current = new Tally()
  })
  parser.on('complete', () => rest.add(current))
  return { parser, rest }
}

/** Counts leaf assertions only: the closing line of a subtest repeats their results. */
function follow(parser: Parser, tally: Tally, path: string[], closed?: (tally: Tally, result: Result) => void): void {
  let child: Tally | undefined
  parser.on('child', (subtest: Parser) => {
    child = new Tally()
    follow(subtest, child, [...path, subtest.name])
  })
  parser.on('extra', (text: string) => {
    if (tally.notes.length < keptPrints && text.trim() !== '') tally.notes.push(text)
  })
  parser.on('assert', (result: Result) => {
    const name = [...path, result.name].join(' › ')
    const excused = Boolean(result.skip || result.todo)
    if (!child) {
      const leaf = new Tally()
      if (excused) leaf.skipped++
      else if (result.ok) leaf.passed++
      else leaf.fail(name, result.diag)
      tally.add(leaf)
      if (leaf.failed > 0) closed?.(leaf, result)
      return
    }
    // A file that crashed, timed out or broke its plan, although each of its lines was fine.
    if (!result.ok && !excused && child.failed === 0) child.fail(name, result.diag)
    if (excused && child.passed + child.failed + child.skipped === 0) child.skipped++
    tally.add(child)
    closed?.(child, result)
    child = undefined
  })
}

const noise = new Set(['args', 'command', 'cwd', 'externalID', 'jobId', 'stdio', 'test', 'typeName', 'isToplevel'])

function describe(diagnostics: unknown): string {
  if (typeof diagnostics !== 'object' || diagnostics === null) return ''
  const shown = Object.entries(diagnostics).flatMap(([key, value]) => {
    if (noise.has(key) || value === null) return []
    return [[key, key === 'at' ? `${value.fileName}:${value.lineNumber}:${value.columnNumber}` : value]]
  })
  return shown.length === 0 ? '' : indent(dump(Object.fromEntries(shown), { lineWidth: -1, skipInvalid: true }))
}

function indent(text: string): string {
  return `${text.trimEnd().replace(/^(?=.)/gm, '  ')}\n`
}
