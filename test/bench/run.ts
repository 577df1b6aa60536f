// npm run bench: CPU time per request of this gateway and of what a user would run instead, in the same rounds.
//   npm run bench -- --scenarios small,1mb --subjects "jingwei passthrough,nginx" --rounds 5 --seconds 4 --out FOLDER
// The subject has one core, load and origin the other. Compare the ratios: absolute figures depend on the machine.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { startConsul } from '../helpers/consul.ts'
import type { Running } from '../helpers/processes.ts'
import { freePort, isListening, start } from '../helpers/processes.ts'
import { load, startOrigin } from './load.ts'
import { cpuUs, median, memory } from './measure.ts'
import type { Row } from './report.ts'
import { chart, table } from './report.ts'
import type { Scenario } from './scenarios.ts'
import { scenarios } from './scenarios.ts'
import type { Launch } from './subjects.ts'
import { baseline, subjects } from './subjects.ts'

const { values } = parseArgs({
  options: {
    scenarios: { type: 'string', default: 'small,64kb,1mb,post-16kb,routes-1000,instances-10000' },
    subjects: { type: 'string', default: subjects.map(({ name }) => name).join() },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '4' },
    out: { type: 'string' }
  }
})
const wanted = values.subjects.split(',')
const chosen = subjects.filter(({ name }) => wanted.includes(name) || name === baseline)
const rounds = Number(values.rounds)
const seconds = Number(values.seconds)

interface Contender {
  readonly name: string
  readonly running: Running
  readonly launch: Launch
  readonly url: string
  readonly samples: { cpu: number; perSecond: number; p50: number; p99: number; ratio: number }[]
  failures: number
}

const folder = mkdtempSync(join(tmpdir(), 'jingwei-bench-'))
const origin = await startOrigin(folder)
const consul = await startConsul()
await consul.register({ id: 'origin-1', name: 'origin', port: origin.port, address: '127.0.0.1' })
const rows: Row[] = []
try {
  for (const name of values.scenarios.split(',')) {
    const scenario = scenarios.find((each) => each.name === name)
    if (scenario === undefined) throw new Error(`unknown scenario ${name}: ${scenarios.map((each) => each.name)}`)
    rows.push(...(await measure(scenario)))
    process.stdout.write(`\n${table(rows.filter((row) => row.scenario === name))}\n`)
  }
} finally {
  await consul.stop()
  await origin.stop()
  rmSync(folder, { recursive: true, force: true })
}
if (values.out !== undefined) {
  mkdirSync(values.out, { recursive: true })
  writeFileSync(join(values.out, 'bench.md'), table(rows))
  writeFileSync(join(values.out, 'bench.svg'), chart(rows, baseline))
}

async function measure(scenario: Scenario): Promise<Row[]> {
  const contenders: Contender[] = []
  try {
    for (const subject of chosen) {
      const port = await freePort()
      const launch = await subject.launch({ port, originPort: origin.port, consulUrl: consul.url, folder, scenario })
      if (launch === null) continue
      const args = ['-c', '0', launch.command, ...launch.args]
      const env = launch.env ?? process.env
      const running = await start({
        command: 'taskset',
        args,
        env,
        name: subject.name,
        ready: () => isListening(port),
        timeout: 60_000
      })
      const url = `http://127.0.0.1:${port}${launch.prefix ?? ''}${scenario.path}`
      contenders.push({ name: subject.name, running, launch, url, samples: [], failures: 0 })
    }
    // Warms up code and connections.
    for (const contender of contenders) await load(contender.url, scenario, contender.launch.headers ?? {}, 2, folder)
    for (let round = 0; round < rounds; round++) {
      for (const contender of contenders) await sample(contender, scenario)
      const base = contenders.find(({ name }) => name === baseline)!.samples[round]!.cpu
      for (const { samples } of contenders) samples[round]!.ratio = samples[round]!.cpu / base
    }
    return contenders.map((contender) => rowOf(contender, scenario))
  } finally {
    await Promise.all(contenders.map(({ running }) => running.stop()))
  }
}

async function sample({ running, url, launch, samples, ...contender }: Contender, scenario: Scenario): Promise<void> {
  const before = cpuUs(running.pid)
  const result = await load(url, scenario, launch.headers ?? {}, seconds, folder)
  const cpu = (cpuUs(running.pid) - before) / result.requests
  samples.push({ cpu, perSecond: result.perSecond, p50: result.p50Ms, p99: result.p99Ms, ratio: 0 })
  if (result.failures > 0) throw new Error(`${contender.name}: ${result.failures} failed requests in ${scenario.name}`)
}

function rowOf({ name, running, samples }: Contender, scenario: Scenario): Row {
  const of = (key: 'cpu' | 'perSecond' | 'p50' | 'p99' | 'ratio') => median(samples.map((each) => each[key]))
  return {
    scenario: scenario.name,
    subject: name,
    cpuUs: of('cpu'),
    perSecond: of('perSecond'),
    p50Ms: of('p50'),
    p99Ms: of('p99'),
    peakBytes: memory(running.pid, 'VmHWM'),
    ratio: of('ratio')
  }
}
