// The report: results as a section of Markdown.
import type { IdleRow } from './idle.ts'
import type { Spread } from './measure.ts'
import type { Row } from './rounds.ts'
import type { Scenario } from './scenarios.ts'

export interface Outcome {
  readonly scenario: Scenario
  /** The subject whose CPU per request is 1. */
  readonly reference: string
  readonly rows: readonly Row[]
  readonly idle: readonly IdleRow[]
}

interface Column<T> {
  readonly title: string
  readonly of: (row: T) => string
}

const mb = (bytes: number) => (bytes / 1024 / 1024).toFixed(0)
const ranged = ({ median, low, high }: Spread) => `**${median.toFixed(2)}** (${low.toFixed(2)}–${high.toFixed(2)})`

const columns: readonly Column<Row>[] = [
  { title: 'ratio', of: ({ ratio }) => ranged(ratio) },
  { title: 'CPU µs/request', of: (row) => row.cpuUs.toFixed(1) },
  { title: 'requests/s', of: (row) => row.perSecond.toFixed(0) },
  { title: 'p50 ms', of: (row) => row.p50Ms.toFixed(2) },
  { title: 'p99 ms', of: (row) => row.p99Ms.toFixed(2) },
  { title: 'peak MB', of: (row) => mb(row.peakBytes) }
]
const ofConcerns: readonly Column<Row>[] = [
  {
    title: 'µs more',
    of: ({ addedUs: { median, low, high } }) => `**${median.toFixed(1)}** (${low.toFixed(1)}–${high.toFixed(1)})`
  },
  ...columns
]
const bodyColumns: readonly Column<Row>[] = [
  { title: 'MB per CPU second', of: ({ bytesPerCpuSecond = 0 }) => mb(bytesPerCpuSecond) },
  { title: 'of nginx’s', of: ({ toNginx }) => (toNginx === undefined ? '' : ranged(toNginx)) }
]
const idleColumns: readonly Column<IdleRow>[] = [
  { title: 'KB per connection', of: (row) => `**${(row.bytesPerConnection / 1024).toFixed(1)}**` },
  { title: 'MB before', of: (row) => mb(row.before) },
  { title: 'MB with them', of: (row) => mb(row.after) },
  { title: 'CPU while idle', of: (row) => `${(row.cpuShare * 100).toFixed(2)} %` }
]

/** One scenario, with its heading. */
export function outcome({ scenario, reference, rows, idle }: Outcome): string {
  const heading = `### ${scenario.name}\n\n${scenario.about}.`
  if (scenario.idle !== undefined) return `${heading}\n\n${table(idle, idleColumns)}`
  const body = scenario.responseBytes === undefined ? [] : bodyColumns
  const shown = [...(scenario.reference === undefined ? columns : ofConcerns), ...body]
  const failed = rows.filter(({ failures }) => failures > 0)
  const failures = failed.map((row) => `**${row.subject}: ${row.failures} requests failed.**\n`).join('\n')
  return `${heading} Ratio 1: ${reference}.\n\n${table(rows, shown)}${failures && `\n${failures}`}`
}

function table<T extends { readonly subject: string }>(rows: readonly T[], columns: readonly Column<T>[]): string {
  const lines = [
    ['subject', ...columns.map(({ title }) => title)],
    ['---', ...columns.map(() => '--:')],
    ...rows.map((row) => [row.subject, ...columns.map(({ of }) => of(row))])
  ]
  return lines.map((cells) => `| ${cells.join(' | ')} |\n`).join('')
}

export interface Circumstances {
  readonly machine: string
  readonly launches: number
  readonly rounds: number
  readonly seconds: number
  readonly arguments: string
}

/** The whole section, with the chart beside it. */
export function section(outcomes: readonly Outcome[], about: Circumstances): string {
  const disturbances = outcomes.flatMap(({ rows }) => rows.map(({ disturbance }) => disturbance))
  const disturbed = disturbances.length === 0 ? '' : disturbance(Math.max(...disturbances))
  return `## Benchmark

${about.machine}

![CPU time per request](bench.svg)

One core for the subject, the others for its clients and the service behind it. The ratio is CPU time per request by that
of the reference in the same round: the median of ${about.launches} launches with ${about.rounds} rounds of ${about.seconds} s each, and in
brackets the range of the middle half of them. Compare ratios; the other figures belong to the machine.${disturbed}

${outcomes.map(outcome).join('\n')}
Reproduce it, on Linux with two cores or more: \`npm run bench${about.arguments}\`
`
}

const disturbance = (share: number) =>
  ` Other processes had at most ${(share * 100).toFixed(1)} % of the subject's core in a subject's median round.`
