// The long run, started manually: `node test/fuzz/run.ts [--seed N] [--seconds 300] [--case N]`.
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { fuzz } from './fuzz.ts'
import { makeCase } from './requests.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seconds: { type: 'string', default: '300' },
    case: { type: 'string' },
    parallel: { type: 'string' }
  }
})
const until = Date.now() + Number(values.seconds) * 1000
const parallel = Number(values.parallel ?? 48)
const total = { connections: 0, requests: 0, forwarded: 0, seeds: 0 }

/** Runs one seed at a time, so that memory and counters are checked in between. */
for (let round = 0; round === 0 || (Date.now() < until && process.exitCode === undefined); round++) {
  const seed =
    values.seed === undefined ? `${randomInt(2 ** 31)}` : round === 0 ? values.seed : `${values.seed}.${round}`
  const seconds = Math.min(30, (until - Date.now()) / 1000)
  const cases = values.case === undefined ? undefined : [makeCase(seed, Number(values.case))]
  process.stdout.write(`seed ${seed}: `) // before the run, in case it hangs
  const report = await fuzz({ seed, parallel, ...(cases === undefined ? { seconds } : { cases }) })
  total.seeds++
  total.connections += report.connections
  total.requests += report.requests
  total.forwarded += report.forwarded
  const megabytes = Math.round(process.memoryUsage().rss / 2 ** 20)
  console.log(
    `${report.connections} connections, ${report.requests} requests, ${megabytes} MB, ${report.violations.length} violations`
  )
  for (const { what, case: one, detail } of report.violations) {
    console.log(
      `\n✖ ${what}\n  node test/fuzz/run.ts --seed ${seed}${one === null ? '' : ` --case ${one.number}`}\n${detail}`
    )
    process.exitCode = 1
  }
  if (cases !== undefined) break
}
console.log(
  `${total.seeds} seeds, ${total.connections} connections, ${total.requests} requests, ${total.forwarded} forwarded`
)
