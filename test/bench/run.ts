// npm run bench: CPU time per request of this gateway and of the alternatives, in the same rounds.
//   npm run bench -- --scenarios small,1mb --subjects "jingwei passthrough,nginx" --launches 3 --rounds 5 --seconds 1 --out FOLDER
// The subject has one core, load and origin the others. Compare the ratios: absolute figures depend on the machine.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { startConsul } from '../helpers/consul.ts'
import { startRedis } from '../helpers/redis.ts'
import { chart } from './chart.ts'
import type { Bench } from './contenders.ts'
import { leaveSubjectCore } from './contenders.ts'
import type { IdleRow } from './idle.ts'
import { measureIdle } from './idle.ts'
import { generator } from './load.ts'
import { machine } from './machine.ts'
import { startOrigin } from './origin.ts'
import type { Outcome } from './report.ts'
import { outcome, section } from './report.ts'
import { measureRounds } from './rounds.ts'
import type { Scenario } from './scenarios.ts'
import { scenarios } from './scenarios.ts'
import type { Subject } from './subjects.ts'
import { against, baseline, subjects } from './subjects.ts'

const { values } = parseArgs({
  options: {
    scenarios: { type: 'string', default: scenarios.map(({ name }) => name).join() },
    subjects: { type: 'string', default: subjects.map(({ name }) => name).join() },
    launches: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '1' },
    /** The checkout whose gateway is measured; by default this one. */
    checkout: { type: 'string', default: join(import.meta.dirname, '../..') },
    /** Another checkout whose gateway is measured in the same rounds, to see what a change costs. */
    against: { type: 'string' },
    out: { type: 'string' }
  }
})
/** The options of the command line that repeats this run. */
const given = (['scenarios', 'subjects', 'launches', 'rounds', 'seconds'] as const)
  .filter((option) => process.argv.some((each) => each.startsWith(`--${option}`)))
  .map((option) => `--${option} '${values[option]}'`)
const chosen = pick('subject', values.subjects, [...subjects])
const wanted = pick('scenario', values.scenarios, scenarios)

leaveSubjectCore()
const folder = mkdtempSync(join(tmpdir(), 'jingwei-bench-'))
const origin = await startOrigin(folder)
const consul = await startConsul()
await consul.register({ id: 'origin-1', name: 'origin', port: origin.port, address: '127.0.0.1' })
const redis = await startRedis()
const bench: Bench = {
  folder,
  checkout: resolve(values.checkout),
  origin,
  consulUrl: consul.url,
  redisUrl: redis.url,
  generator: await generator(folder),
  launches: Number(values.launches),
  rounds: Number(values.rounds),
  seconds: Number(values.seconds)
}
const outcomes: Outcome[] = []
try {
  for (const scenario of wanted) {
    const measured = await measure(scenario)
    outcomes.push(measured)
    process.stdout.write(`${outcome(measured)}\n`)
    // Results are written after each scenario, so that a later failure does not lose them.
    if (values.out !== undefined) await write(values.out)
  }
} finally {
  await redis.stop()
  await consul.stop()
  await origin.stop()
  rmSync(folder, { recursive: true, force: true })
}
if (outcomes.some(({ rows }) => rows.some(({ failures }) => failures > 0))) process.exitCode = 1

async function measure(scenario: Scenario): Promise<Outcome> {
  const takesPart = ({ name, takesPart = () => scenario.sizes === undefined && !scenario.reference }: Subject) =>
    takesPart(scenario) && (chosen.some((subject) => subject.name === name) || isReference(name))
  const isReference = (name: string) => name === (scenario.reference ?? baseline) && scenario.idle === undefined
  const parts = subjects.filter(takesPart)
  const taking = values.against === undefined ? parts : against(resolve(values.against), parts)
  if (taking.length === 0) throw new Error(`none of the subjects takes part in ${scenario.name}`)
  if (scenario.idle === undefined) return { scenario, idle: [], ...(await measureRounds(scenario, taking, bench)) }
  const idle: IdleRow[] = []
  for (const subject of taking) idle.push(await measureIdle(scenario, subject, bench))
  return { scenario, reference: '', rows: [], idle }
}

async function write(out: string): Promise<void> {
  mkdirSync(out, { recursive: true })
  const names = chosen.map(({ name }) => name)
  const about = {
    machine: await machine(bench.checkout, names, bench.generator.name),
    launches: bench.launches,
    rounds: bench.rounds,
    seconds: bench.seconds,
    arguments: given.length > 0 ? ` -- ${given.join(' ')}` : ''
  }
  writeFileSync(join(out, 'bench.md'), section(outcomes, about))
  writeFileSync(join(out, 'bench.svg'), chart(outcomes))
}

function pick<T extends { readonly name: string }>(what: string, names: string, from: readonly T[]): T[] {
  return names.split(',').map((name) => {
    const found = from.find((each) => each.name === name)
    if (found === undefined) throw new Error(`unknown ${what} ${name}: ${from.map((each) => each.name).join(', ')}`)
    return found
  })
}
